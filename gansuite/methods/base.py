"""`Method`: what a GAN states about itself. Everything that is done for it, in the same code for
all, is `gansuite.core.AlternatingModule`, on which it stands."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Self

from gansuite.config import Optim
from gansuite.core.inference import Inference
from gansuite.core.module import AlternatingModule
from gansuite.core.schedule import lr_factor
from gansuite.core.step import Step
from gansuite.data.spec import Batch, DataSpec, Needs
from gansuite.errors import UserError, nearest
from gansuite.rng import torch_generator

__all__ = ["Inference", "Method", "Step", "terms"]


def terms(**weights: float) -> Mapping[str, float]:
    """The loss terms of a method with their default weights, for its signature."""
    return MappingProxyType(weights)


class Method(AlternatingModule):
    """Base of all methods: a `LightningModule` whose players take turns.

    A subclass states

    - ``needs``: the view of the data it trains on; ``task``: whether it makes or translates;
    - ``__init__(self, spec, *, ...)``: typed keyword arguments, which are its configuration, with
      ``weights: Mapping[str, float] = terms(...)``. The players become attributes, ``g`` and
      ``d``, each a Module or a ModuleDict; all their parameters are trained (frozen networks
      belong elsewhere);
    - ``<player>_losses(batch, step) -> dict[str, Tensor]`` for every player: unweighted scalars by
      the name of their weight. A term that is not due is absent, an empty dict skips the update;
    - ``loss_terms``: the names of these terms, by player. A loss ``term/network`` says in which
      network's eyes it is measured, and has the weight of ``term``;
    - ``alternation``: for each batch, cycled, the updates in order. ``"g"`` is an update of player
      ``g``; ``"g.path"`` a further one of the same player in the same batch, whose losses come
      from ``g_path_losses``;
    - ``sample(n, ...)`` or ``translate(x, to)``, and ``stride`` if pictures must be padded;
    - ``inference(to)``, what is exported, unless it is ``translate`` with the network ``g``;
    - where it needs them: ``averaged``, ``rank_state``, ``updates_in``, ``latent_pairs``,
      ``weight_of``, ``optim_now``, ``after_update``, ``networks`` and ``lazy``.

    Under the project's own engine or under anybody's ``lightning.Trainer`` it trains alike::

        method = CycleGAN(data.spec)
        method.configure(Settings(ema=Ema(half_life_kimg=10)))       # optional
        Trainer(max_steps=1000).fit(method, data)
    """

    needs: ClassVar[Needs] = Needs(view="single")
    task: ClassVar[Literal["generate", "translate"]] = "generate"
    averaged: ClassVar[tuple[str, ...]] = ("g",)
    """Players of which an average is kept if the run asks for averages (``ema``)."""

    loss_terms: ClassVar[Mapping[str, Sequence[str]]] = {}
    """The terms of each player's losses, {"g": ("gan", "cycle"), ...}; checked against the weights
    when it is made, and each loss against them."""

    networks: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """The attributes of a player that has several networks, all trained by its optimiser, each
    counted and averaged by its own name."""
    on_host: str = ""
    """What a batch does that cannot be part of a CUDA graph (`gansuite.core.graphs`), as
    it goes on after "because it"."""
    by_reference: ClassVar[bool] = False
    """Whether it can `stylize`."""

    per_label: ClassVar[Mapping[str, bool]] = {}
    """Weights whose shape follows the number of labels, which may be another where training begins
    with those of another run: name -> whether its first inputs are the picture, and are kept."""

    alternation: Sequence[Sequence[str]] = (("g", "d"),)
    lazy: Mapping[str, int] = {}
    """Players whose regulariser takes a step of its own every so many batches, for which Adam's
    learning rate and betas are corrected (StyleGAN2, appendix B)."""
    _given: dict[str, Any]
    idle: Sequence[str] = ()
    """Players that these options do without: settings of theirs do no harm."""
    stride: int = 1
    """What the sides of a picture must be multiples of."""

    def __init__(self, spec: DataSpec, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.spec = spec
        parameter = inspect.signature(type(self).__init__).parameters.get("weights")
        known = dict(parameter.default or {}) if parameter and parameter.default else {}
        stated = {term for names in self.loss_terms.values() for term in names}
        for term in (weights.keys() | known.keys()) - stated if stated else ():
            raise UserError(
                f"'method.weights.{term}' is a weight for no term of {self.title}"
                f"{nearest(term, stated)} (its terms: {', '.join(sorted(stated))})."
            )
        self.weights = {**known, **weights}
        self._remember_options(self._given)

    def __new__(cls, *_: Any, **options: Any) -> Self:
        method = super().__new__(cls)
        object.__setattr__(method, "_given", options)
        return method

    # -- what it makes -----------------------------------------------------------------------

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n pictures, float [n, C, H, W] in [-1, 1]."""
        raise UserError(f"{type(self).__name__} translates pictures; it does not make new ones.")

    def latent_pairs(
        self, n: int, generator: torch.Generator, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        """n pictures as of ``sample``, and those ``epsilon`` of the way to other ones in latent
        space further: what the perceptual path length compares."""
        raise UserError(
            f"{type(self).__name__} has no latent path; leave evaluate.vgg empty for it."
        )

    def translate(self, x: Tensor, to: str) -> Tensor:
        """``x``, float [N, C, H, W] in [-1, 1], as a picture of domain ``to``, same shape."""
        raise UserError(f"{type(self).__name__} makes pictures; it does not translate them.")

    def stylize(
        self, x: Tensor, references: Sequence[tuple[Tensor, float]], strength: float = 1.0
    ) -> Tensor:
        """``x``, float [N, C, H, W] in [-1, 1], in the style of the ``references``: pictures
        [1 or N, C, h, w] of any size with their shares, which sum to a positive number.
        ``strength`` 0 leaves the style as it is, 1 replaces it. Declared by ``by_reference``."""
        raise UserError(
            f"{self.title} translates between the domains it was trained on, not by a reference "
            f"picture; use --to, or a method that has styles (adain)."
        )

    def inference(self, to: str) -> Inference:
        """What is exported: the networks, the function and its inputs (see `Inference`)."""
        return Inference(
            self.network("g"), lambda image: self.translate(image, to), "translate", image="picture"
        )

    @property
    def targets(self) -> tuple[str, ...]:
        """What ``translate`` can aim at: the domains, or the attributes of a labelled table.
        Override where not every domain can be reached."""
        labelled = self.needs.view == "labelled"
        return self.spec.labels if labelled else self.spec.domains

    # -- when and how strongly ---------------------------------------------------------------

    def updates_in(self, batch: int) -> Sequence[str]:
        """The updates of batch 0, 1, ...; override for a pattern that does not repeat."""
        return self.alternation[batch % len(self.alternation)]

    def weight_of(self, term: str, step: Step) -> float:
        """The weight of a term now; override for weights that change on the way."""
        return self.weights[term]

    def optim_now(self, player: str) -> Optim:
        """The optimiser settings of ``player`` for its next update; override to schedule them."""
        now, budget = self.optim_of(player), self.settings.budget
        factor = 1.0 if budget is None else lr_factor(self.progress, budget)
        return now.model_copy(update={"lr": now.lr * factor})

    def after_update(self, update: str, step: Step) -> None:
        """Called after an update of a player, e.g. to clip a critic's weights."""

    def after_batch(self) -> None:
        """Called once after the updates of a batch, its chunks together, before the averages."""

    # -- under a Trainer ---------------------------------------------------------------------

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """What ``trainer.predict`` collects, float in [-1, 1] on the device: of a translator a
        dict, domain -> the batch's other pictures as pictures of that domain; of a generator as
        many samples as the batch has pictures."""
        real = self.prepared(batch)
        with self.evaluating():
            if self.task == "generate":
                generator = torch_generator(self.settings.seed, "predict", batch_idx, self.rank)
                return self.sample(len(real.images[0]), generator)
            return {to: self._translated(real, to) for to in self.targets}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """What a callback scores: direction -> {"fake", "real"}, float in [-1, 1]; the real
        pictures are those of the batch in the target domain. See `gansuite.Evaluate`."""
        real = self.prepared(batch)
        with self.evaluating():
            if self.task == "generate":
                generator = torch_generator(self.settings.seed, "validate", batch_idx, self.rank)
                (images,) = real.images
                return {"gen": {"fake": self.sample(len(images), generator), "real": images}}
            names = self.targets
            arrow = {names[0]: "b2a", names[1]: "a2b"} if len(names) == 2 else {}
            return {
                arrow.get(to, f"to_{to}"): {
                    "fake": self._translated(real, to),
                    "real": self._of_domain(real, to),
                }
                for to in names
            }

    def _of_domain(self, real: Batch, to: str) -> Tensor:
        """The pictures of the batch that are in domain ``to``, or have the attribute."""
        if real.labels is None:
            return real.images[self.spec.domains.index(to)]
        return real.images[0][real.labels[:, self.targets.index(to)] > 0]

    def _translated(self, real: Batch, to: str) -> Tensor:
        """The pictures of the batch that are not, as such."""
        if real.labels is not None:
            others = [real.images[0][real.labels[:, self.targets.index(to)] <= 0]]
        else:
            others = [x for x, d in zip(real.images, self.spec.domains, strict=True) if d != to]
        return torch.cat([self.translate(x, to) if len(x) else x for x in others])

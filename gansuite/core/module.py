"""`AlternatingModule`: what the project does for every method, in the same code for all.

Manual optimisation with one optimiser per player, freezing of the players that are not updated,
weighting, clipping, accumulation, the learning-rate schedule, averaged weights, counters, noise,
logging and the exact training state. It knows no callbacks, metrics or data loading.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from gansuite.config import Optim
from gansuite.core.averages import WeightAverages
from gansuite.core.compiled import Compiled, check_compiler
from gansuite.core.graphs import StepGraphs
from gansuite.core.optimizers import build_optimizer
from gansuite.core.schedule import corrected_for_lazy, player_of
from gansuite.core.settings import Settings
from gansuite.core.state import TrainingState
from gansuite.core.step import MakeStep, Step
from gansuite.data.spec import Batch, Needs
from gansuite.errors import NotFinite, UserError, nearest
from gansuite.losses.precision import mixed_penalties
from gansuite.rng import derive, seed_device

_ENDS = ("", ".*")  # a parameter, or all of a layer


def _nothing() -> None:
    """In place of a hook that is not wanted."""


class AlternatingModule(TrainingState):
    """A `LightningModule` whose players are updated in turn; see `gansuite.methods.base.Method`
    for what it is told.

    One batch counts as one of the Trainer's steps, however many updates it makes: ``max_steps``,
    ``every_n_train_steps`` and a logger's axis count batches.
    """

    lazy: Mapping[str, int]
    idle: Sequence[str]
    needs: ClassVar[Needs]
    loss_terms: ClassVar[Mapping[str, Sequence[str]]]
    weights: dict[str, float]
    on_host: str
    if TYPE_CHECKING:  # stated by `Method`

        def updates_in(self, batch: int) -> Sequence[str]: ...
        def weight_of(self, term: str, step: Step) -> float: ...
        def after_update(self, update: str, step: Step) -> None: ...
        def after_batch(self) -> None: ...
        def optim_now(self, player: str) -> Optim: ...

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.settings = Settings()
        self.logs_itself = True  # through `log_dict`; False where somebody else reads the ledger
        self.images_per_batch = 0  # real pictures of one global batch, all domains together
        self.graphs: StepGraphs | None = None
        self.compiled: Compiled | None = None
        self._configured = False
        self._clip: float | None = None

    @property
    def period(self) -> int:
        """Batches after which updates and lazy terms repeat."""
        return math.lcm(len(self.alternation), *(every for every in self.lazy.values() if every))

    # -- settings ----------------------------------------------------------------------------

    def configure(self, settings: Settings) -> None:
        """Adopt the settings of a run; to be called before the Trainer's ``fit``.

        Raises:
            UserError: they name an optimiser of no player, or layers to freeze that are none.
        """
        for name in settings.optim:
            if name not in (*self.players, *self.idle):
                raise UserError(
                    f"'optim.{name}' is the optimiser of no player of {self.title} "
                    f"(its players: {', '.join(self.players)})."
                )
        self.settings = settings
        self.graphs = StepGraphs(self) if settings.graphs else None
        self.images_per_batch = settings.images_per_batch or 0
        self.update_counts = dict.fromkeys(self.players, 0)
        self.player_batches = dict.fromkeys(self.players, 0)
        self.averages = WeightAverages(settings.ema)
        if settings.ema.half_life_kimg is not None:
            for name in self.averaged:
                self.averages.track(name, self.network(name))
        self.frozen = {name: self._frozen(name, settings.freeze[name]) for name in settings.freeze}
        self._configured = True

    def _frozen(self, player: str, layers: Sequence[str]) -> list[nn.Parameter]:
        """The parameters of ``player`` whose names begin with one of ``layers``."""
        if player not in self.players:
            raise UserError(
                f"'freeze.{player}' is of no player of {self.title} (its players: "
                f"{', '.join(self.players)})."
            )
        named = dict(self.player(player).named_parameters())
        found: dict[str, nn.Parameter] = {}
        for layer in layers:
            own = {k: p for k, p in named.items() if any(fnmatch(k, f"{layer}{e}") for e in _ENDS)}
            if not own:
                parents = dict.fromkeys(k.rpartition(".")[0] for k in named)
                raise UserError(
                    f"'freeze.{player}' names '{layer}', which is no layer of it"
                    f"{nearest(layer, parents)} (it begins with {', '.join([*parents][:4])})."
                )
            found |= own
        if len(found) == len(named):
            raise UserError(f"'freeze.{player}' freezes all of it; leave some to be trained.")
        return list(found.values())

    def trained(self, player: str) -> list[nn.Parameter]:
        """The parameters of ``player`` that are not frozen."""
        frozen = set(map(id, self.frozen.get(player, ())))
        return [p for p in self.player(player).parameters() if id(p) not in frozen]

    @property
    def title(self) -> str:
        """The method's name in config files: that of its module."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def noise_seed(self) -> int:
        """The seed of all noise in training: the run's own, and another after each rollback."""
        seed, again = self.settings.seed, self.rollbacks
        return derive(seed, "rollback", again) if again else seed

    def optim_of(self, player: str) -> Optim:
        """The optimiser settings of ``player``, corrected for its lazy regulariser."""
        given = self.settings.optim.get(player) or Optim()
        return corrected_for_lazy(given, self.lazy.get(player, 0))

    def lr(self, player: str) -> float:
        """The learning rate of ``player`` now."""
        return self.optim_now(player).lr

    # -- Lightning's hooks -------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if not self._configured:
            self.configure(self.settings)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimiser per player, in the order of ``players``."""
        fused = self.settings.fused
        recorded = self.settings.graphs and self.device.type == "cuda"
        return [
            build_optimizer(self.trained(n), self.optim_of(n), fused, recorded)
            for n in self.players
        ]

    def on_fit_start(self) -> None:
        self.averages.to(self.device, cast(torch.dtype, self.dtype))
        if self.graphs:
            self.graphs.check()
        if self.settings.compile:
            check_compiler(self.device)
            self.compiled = Compiled(*map(self.player, self.players))

    def _from_elsewhere(self) -> None:
        if self.graphs:
            self.graphs.forget()

    def prepared(self, batch: Any) -> Batch:
        """A batch of any loader (`Batch.of`), pictures in [-1, 1] in the parameters' type."""
        found = Batch.of(batch, self.spec.domains)
        return Batch(tuple(map(self.scaled, found.images)), found.labels)

    def scaled(self, images: Tensor) -> Tensor:
        """uint8 -> [-1, 1] in the parameters' type; float pictures are in that range already."""
        dtype = cast(torch.dtype, self.dtype)
        if images.dtype != torch.uint8:
            return images.to(dtype)
        return images.to(dtype).div_(127.5).sub_(1.0)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One batch: its updates, in order."""
        given = Batch.of(batch, self.spec.domains)
        updates = self.updates_in(self.batches)
        images = self.settings.images_per_batch
        own = sum(map(len, given.images[: len(self.spec.domains)]))  # without derived ones
        self.images_per_batch = images or self.world * own
        # layers that draw by themselves (dropout) are also a function of the position only
        seed_device(derive(self.noise_seed, "layers", self.batches, self.rank), self.device)
        optimizers = self._optimizers
        self._count_one_step(optimizers, player_of(updates[0]))
        if self.compiled:  # in the first cycle FLOPs are counted, which a program would hide
            self.compiled.on = self.batches >= self.period
        updated = (self.graphs or self.compute)(given, updates, optimizers)
        if self.compiled:
            self.compiled.on = False
        self.ledger.close_batch(self.batches)
        self.batches += 1
        self.images_seen += self.images_per_batch
        moved = {network for player in updated for network in self.networks_of(player)}
        for name in moved & self.averages.modules.keys():
            self.averages.update(name, self.network(name), self.images_seen, self.images_per_batch)
        self._advance()
        if (
            self.logs_itself
            and self.batches % max(cast(Any, self.trainer).log_every_n_steps, 1) == 0
        ):
            self.log_dict(self.loss_means())

    def compute(
        self,
        given: Batch,
        updates: Sequence[str],
        optimizers: Mapping[str, Any],
        make_step: MakeStep | None = None,
    ) -> set[str]:
        """What a batch asks of the device; the players that were updated."""
        real = self.prepared(given)
        drawn = real.split(self.needs.batches)
        make_step = make_step or functools.partial(Step, self)
        steps = [make_step(updates, real, i) for i in range(self.settings.accumulate)]
        updated = set()
        for position, update in enumerate(updates):
            for step in steps:
                step.position, step.batch = position, drawn[position % len(drawn)]
            with mixed_penalties(self.settings.mixed_penalties):
                if self._update(update, optimizers, steps):
                    updated.add(player_of(update))
        for name in set(map(player_of, updates)):
            self.player_batches[name] += 1
        self.after_batch()
        return updated

    def _advance(self) -> None:
        """The share of the budget that is used: of its pictures, or of the Trainer's steps. A
        budget in seconds is somebody else's to follow."""
        budget, trainer = self.settings.budget, self.trainer
        if budget is not None and budget.kimg is not None:
            self.progress = self.images_seen / (1000 * budget.kimg)
        elif budget is None and trainer.max_steps > 0:
            self.progress = self.batches / trainer.max_steps

    def _count_one_step(self, optimizers: Mapping[str, Any], first: str) -> None:
        """Let the Trainer count the first update of a batch only.

        Lightning counts every `optimizer.step()`, so that ``max_steps=10`` would be five batches
        of one method and ten of another.
        """
        for name, optimizer in optimizers.items():
            if name != first:
                optimizer._on_before_step = optimizer._on_after_step = _nothing
        chosen = optimizers[first]
        after = chosen._on_after_step

        def once() -> None:
            after()
            chosen._on_before_step = chosen._on_after_step = _nothing

        chosen._on_after_step = once

    def _update(self, update: str, optimizers: Mapping[str, Any], steps: list[Step]) -> bool:
        """One optimiser step of a player; False when no term was due."""
        player = player_of(update)
        losses = getattr(self, update.replace(".", "_") + "_losses")
        for name in self.players:
            self.let_train(name, name == player)
        optimizer = optimizers[player]
        updated = False
        for chunk, step in zip(steps[0].batch.split(len(steps)), steps, strict=True):
            found: dict[str, Tensor] = losses(chunk, step)
            if found:
                total = self._weighted_sum(player, found, step) / len(steps)
                self.manual_backward(total)
                updated = True
        if not updated:
            return False
        # `processes.together`; another strategy has averaged in the backward passes
        if average := getattr(self.trainer.strategy, "average", None):
            average(self.trained(player))
        if update != player:
            for p in self.trained(player):
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        now = self.optim_now(player)
        for group in optimizer.optimizer.param_groups:
            group.update({k: v for k, v in now if k in group})
            if self.graphs and now.kind == "adam":
                group["lr"] = self.graphs.lr(player)
        self._clip = now.clip
        optimizer.step()
        self.update_counts[player] += 1
        self.after_update(update, steps[-1])
        optimizer.zero_grad()  # now: nobody's gradients lie beside another player's update
        return True

    @property
    def _optimizers(self) -> dict[str, Any]:
        found = self.optimizers()
        return dict(zip(self.players, found if isinstance(found, list) else [found], strict=True))

    def _weighted_sum(self, player: str, found: Mapping[str, Tensor], step: Step) -> Tensor:
        total: Tensor | None = None
        for key, loss in found.items():
            term = key.partition("/")[0]
            if term not in self.weights or term not in self.loss_terms.get(player, self.weights):
                raise UserError(
                    f"The term '{term}' of {self.title}'s player '{player}' is not stated or "
                    f"has no weight (weights: {', '.join(self.weights)})."
                )
            self.record(f"loss/{player}/{key}", loss)
            graphs = self.graphs
            weight = graphs.weight(term, step, loss) if graphs else self.weight_of(term, step)
            part = loss * weight
            total = part if total is None else total + part
        assert total is not None
        self.record(f"loss/{player}/total", total)
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip here: under 16-mixed the gradients are unscaled by now."""
        if self._clip is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self._clip)

    # -- what is logged ----------------------------------------------------------------------

    def record(self, key: str, value: Tensor) -> None:
        """Add a value to the means of the log interval (no synchronisation)."""
        self.ledger.record(key, value)

    def loss_means(self) -> dict[str, float]:
        """Means of all that was recorded since the last call, over all processes, and the
        learning rates; empty if there was nothing. The only synchronisation with the device.

        Raises:
            NotFinite: a value or a parameter was not finite; the sentence names the first.
        """
        found, term = self.ledger.means(self.mean_over_ranks, self._least_over_ranks)
        if term:
            raise NotFinite(f"the term '{term}'", self.images_seen)
        if not found:
            return {}
        self.assert_finite()
        return found | {f"lr/{n}": self.lr(n) for n in self.players}

    def assert_finite(self) -> None:
        """Raise `NotFinite` if any parameter of a player is not finite."""
        for name in self.players:
            norms = torch._foreach_norm(list(self.player(name).parameters()))
            if not bool(torch.isfinite(torch.stack(norms).sum())):
                raise NotFinite(f"a parameter of player '{name}'", self.images_seen)

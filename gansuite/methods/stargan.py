"""StarGAN (Choi et al. 2018, "StarGAN: Unified Generative Adversarial Networks for Multi-Domain
Image-to-Image Translation", arXiv:1711.09020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gansuite.config import Optim
from gansuite.core.schedule import critic_alternation
from gansuite.data.spec import Batch, DataSpec, Needs
from gansuite.errors import UserError, nearest
from gansuite.losses.adversarial import Wasserstein
from gansuite.losses.penalties import gradient_penalty
from gansuite.losses.reconstruction import classification, l1
from gansuite.methods.base import Inference, Method, Step, terms
from gansuite.networks.layers import in_one_call
from gansuite.networks.stargan import StarGANDiscriminator, StarGANGenerator


class StarGAN(Method):
    """One generator for all domains, told by a label c' where to go, and one discriminator with a
    head that judges and a head that names the domain.

    The discriminator minimises (section 3.1, eqs. 1, 2, 8), with c the picture's own label,

        gan   D_src(G(x, c')) - D_src(x)
        cls   the classification of x as c: cross-entropy for domains that exclude one another,
              binary cross-entropy summed over attributes for those that do not
        gp    (||grad D_src(x^)|| - 1)^2

    the generator, every ``n_critic`` batches (eqs. 3, 4)

        gan   -D_src(G(x, c'))
        cls   the classification of G(x, c') as c'
        rec   |x - G(G(x, c'), c)|, mean over pixels

    c' is a random order of the batch's labels.

    On several label sets (``data.name: joint``, section 3.2) c is [c_1, c_2, ..., m]: unknown
    labels are 0 and the mask m says which set is meant. The sets take turns by batches, each
    generator update is followed by one on every other set, and ``cls`` is that of the known part.

    Options: ``exclusive``: groups of attributes of which a picture has at most one, such as hair
    colours; ``legacy_lr``: the learning rate of the authors' code, which all but stays (99.9 % at
    the end), in place of the paper's linear decay to 0.

    Follows the paper in the learning rate and the code in the sum over attributes. Known
    deviations: instance norm keeps no running statistics, so that eval mode changes nothing; the
    attributes that a translation leaves alone are those that D sees, not those of a table.
    """

    loss_terms = {"g": ("gan", "cls", "rec"), "d": ("gan", "cls", "gp")}

    needs = Needs(view="labelled", min_domains=2)
    task = "translate"
    per_label = {"g.body.0.weight": True, "d.cls_head.weight": False}

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: int = 64,
        upsample: Literal["deconv", "resize_conv"] = "deconv",
        blocks: int = 6,
        d_width: int = 64,
        d_layers: int = 6,
        n_critic: int = 5,
        legacy_lr: bool = False,
        exclusive: list[list[str]] = [],  # noqa: B006 - read only
        weights: Mapping[str, float] = terms(gan=1.0, cls=1.0, rec=10.0, gp=10.0),
    ) -> None:
        super().__init__(spec, weights)
        labels, sets = len(spec.labels), len(spec.joint)
        self.g = StarGANGenerator(labels + sets, spec.channels, width, blocks, upsample)
        self.d = StarGANDiscriminator(spec.size, labels, spec.channels, d_width, d_layers)
        self.wasserstein = Wasserstein()
        self.sets = [(len(found.labels), found.exclusive) for found in spec.label_sets]
        self.stride = self.g.stride
        self.legacy_lr, self.exclusive = legacy_lr, exclusive
        for name in (name for group in exclusive for name in group):
            if name not in spec.labels:
                raise UserError(
                    f"'method.exclusive' names '{name}', which is no label of the data"
                    f"{nearest(name, spec.labels)} (labels: {', '.join(spec.labels)})."
                )
        # each batch for every label set, as the data alternates between them
        self.alternation = [updates for updates in critic_alternation(n_critic) for _ in self.sets]

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        (real,), label = batch.images, cast(Tensor, batch.labels)
        fake, _ = self.fake(batch, step)
        (real_logits, class_logits), (fake_logits, _) = in_one_call(self.d, real, fake)
        return {
            "gan": self.wasserstein.d(real_logits, fake_logits),
            "cls": self.cls(class_logits, label),
            "gp": gradient_penalty(lambda x: self.d(x)[0], real, fake, step.draws),
        }

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        (real,), label = batch.images, cast(Tensor, batch.labels)
        fake, target = self.fake(batch, step)
        fake_logits, class_logits = self.d(fake)
        return {
            "gan": self.wasserstein.g(fake_logits),
            "cls": self.cls(class_logits, target),
            "rec": l1(self.g(fake, label), real),
        }

    def fake(self, batch: Batch, step: Step) -> tuple[Tensor, Tensor]:
        """G(x, c') and c'."""
        (real,) = batch.images
        target = step.shared("target", step.shuffled_labels)  # of the same label set, with its mask
        return step.fake("fake", lambda: cast(Tensor, self.g(real, target))), target

    def cls(self, logits: Tensor, label: Tensor) -> Tensor:
        """The classification loss of [N, K] ``logits``."""
        k = len(self.spec.labels)
        return classification(logits, label, self.sets, label[:, k:] if self.spec.joint else None)

    def optim_now(self, player: str) -> Optim:
        now, base = super().optim_now(player), self.optim_of(player).lr
        legacy = {"lr": base - (base - now.lr) / 1000}
        return now.model_copy(update=legacy) if self.legacy_lr else now

    def translate(self, x: Tensor, to: str) -> Tensor:
        """``x`` with the label ``to``: alone if it is a folder's; an attribute beside those that
        the discriminator sees in ``x``, without the others of its ``exclusive`` group."""
        names, which = self.spec.labels, self.spec.set_of(to)
        label = torch.zeros(len(x), len(names) + len(self.spec.joint)).to(x)
        if not self.spec.label_sets[which].exclusive:
            size = [self.spec.size] * 2
            logits = self.d(F.interpolate(x, size, mode="bilinear", antialias=True))[1]
            for name in self.spec.label_sets[which].labels:
                rival = any({name, to} <= set(group) for group in self.exclusive)
                label[:, names.index(name)] = (logits[:, names.index(name)] > 0) & (not rival)
        label[:, names.index(to)] = 1
        if self.spec.joint:
            label[:, len(names) + which] = 1
        return self.edit(x, label)

    def edit(self, x: Tensor, label: Tensor) -> Tensor:
        """``x`` with any multi-hot label [N, K], 0 or 1, or [N, K + sets] with its mask."""
        return cast(Tensor, self.g(x, label))

    def inference(self, to: str) -> Inference:
        width = len(self.spec.labels) + len(self.spec.joint)
        return Inference(
            self.g,
            lambda image, label: self.edit(image, label),
            "edit",
            image="picture",
            label=lambda n: torch.eye(width)[torch.arange(n) % width],
        )

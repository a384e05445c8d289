"""pix2pix (Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks",
arXiv:1611.07004)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor

from gansuite.data.spec import Batch, DataSpec, Needs
from gansuite.losses.adversarial import NonSaturating
from gansuite.losses.reconstruction import l1
from gansuite.methods._one_way import Direction, OneWay
from gansuite.methods.base import Step, terms
from gansuite.networks.layers import Upsample, picture_statistics
from gansuite.networks.patchgan import PatchDiscriminator
from gansuite.networks.unet import UNetGenerator


class Pix2Pix(OneWay):
    """A U-Net learns from pairs; a discriminator judges input and output together.

    D first, then G (section 3.1, eqs. 1-4):

        d  gan  1/2 BCE(D(x, y), 1) + 1/2 BCE(D(x, G(x)), 0)
        g  gan  BCE(D(x, G(x)), 1)
        g  l1   |G(x) - y|, weight 100

    Options: ``direction``: ab, from the first domain to the second, or ba; ``width``/``d_width``
    channels of the first layers; ``dropout`` in the ups between the innermost and the outer four.
    ``norm``: ``instance``, or ``batch`` as published. ``statistics``: by what batch norm normalises
    when the model is used: each ``picture`` by its own, as a test batch of one does (the paper, and
    the code unless told otherwise), or by the ``running`` ones of training (the code's ``--eval``).
    The statistics of training are always those of the batch.

    Follows the PyTorch code where it differs from the paper: no dropout in the innermost up, whose
    1x1 map has no norm before it. Known deviations: dropout is off when the model is used, where
    both go on with it as their only noise.
    """

    loss_terms = {"g": ("gan", "l1"), "d": ("gan",)}
    needs = Needs(view="paired", domains=2)
    alternation = (("d", "g"),)

    def __init__(
        self,
        spec: DataSpec,
        *,
        direction: Direction = "ab",
        width: int = 64,
        d_width: int = 64,
        d_layers: int = 3,
        norm: Literal["instance", "batch"] = "instance",
        statistics: Literal["picture", "running"] = "picture",
        dropout: float = 0.5,
        upsample: Upsample = "deconv",
        weights: Mapping[str, float] = terms(gan=1.0, l1=100.0),
    ) -> None:
        super().__init__(spec, weights, direction)
        channels, downs = spec.channels, min(8, spec.size.bit_length() - 1)
        self.g = UNetGenerator(channels, width, downs, upsample, norm=norm, dropout=dropout)
        self.d = PatchDiscriminator(2 * channels, d_width, d_layers, norm)
        self.bce = NonSaturating()
        self.statistics = statistics
        self.stride = self.g.stride

    def fake(self, batch: Batch, step: Step) -> Tensor:
        x, _ = self.pair(batch)
        return step.fake("fake", lambda: self.g(x))

    def judged(self, x: Tensor, y: Tensor) -> Tensor:
        """D's logits of output ``y`` for input ``x``."""
        logits: Tensor = self.d(torch.cat([x, y], 1))
        return logits

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        x, y = self.pair(batch)
        fake = self.judged(x, self.fake(batch, step))
        return {"gan": 0.5 * self.bce.d(self.judged(x, y), fake)}

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        x, y = self.pair(batch)
        fake = self.fake(batch, step)
        return {"gan": self.bce.g(self.judged(x, fake)), "l1": l1(fake, y)}

    def translate(self, x: Tensor, to: str) -> Tensor:
        own = self.statistics == "picture"
        with picture_statistics(self.g) if own else nullcontext():
            return super().translate(x, to)

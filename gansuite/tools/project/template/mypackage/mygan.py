"""A GAN to start from: DCGAN's networks under the least-squares loss (Mao et al. 2017,
arXiv:1611.04076)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gansuite.data.spec import Batch, DataSpec, Needs
from gansuite.methods.base import Method, Step, terms
from gansuite.networks.dcgan import DCGANDiscriminator, DCGANGenerator


class MyGAN(Method):
    """A generator and a discriminator under the least-squares loss.

    The keyword-only arguments below are the keys of ``method:`` in an experiment; each loss term
    has its weight in ``weights``. Optimisers, averages, logging and devices are gansuite's.
    """

    needs = Needs(view="single")
    loss_terms = {"g": ("gan",), "d": ("gan",)}

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: int = 64,
        z_dim: int = 100,
        weights: Mapping[str, float] = terms(gan=1.0),
    ) -> None:
        super().__init__(spec, weights)
        self.z_dim = z_dim
        self.g = DCGANGenerator(spec.size, spec.channels, z_dim, width)
        self.d = DCGANDiscriminator(spec.size, spec.channels, width)

    def fake(self, batch: Batch, step: Step) -> Tensor:
        """Made once per batch: with its graph for the generator, detached for the other."""
        n = len(batch.images[0])
        return step.fake("fake", lambda: self.g(step.randn(n, self.z_dim)))

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        (real,) = batch.images
        fake = self.fake(batch, step)
        return {"gan": ((self.d(real) - 1) ** 2).mean() / 2 + (self.d(fake) ** 2).mean() / 2}

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return {"gan": ((self.d(self.fake(batch, step)) - 1) ** 2).mean()}

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` pictures in [-1, 1]."""
        z = torch.randn(n, self.z_dim, generator=generator)
        return self.g(z.to(next(self.g.parameters())))

"""The original GAN and the losses and penalties that followed it, on the networks they were
published with: Goodfellow et al. 2014 (arXiv:1406.2661), DCGAN (Radford et al. 2016,
arXiv:1511.06434), SNGAN (Miyato et al. 2018, arXiv:1802.05957)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from gansuite.data.spec import Batch, DataSpec
from gansuite.errors import UserError
from gansuite.losses.adversarial import adversarial
from gansuite.losses.penalties import clip_weights_, gradient_penalty, r1
from gansuite.methods._unconditional import Augment, Latent, Unconditional
from gansuite.methods.base import Step, critic_turns, terms
from gansuite.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from gansuite.networks.layers import Norm
from gansuite.networks.mlp import MLPDiscriminator, MLPGenerator
from gansuite.networks.sngan import (
    SNGANDiscriminator,
    SNGANGenerator,
    SNResnetDiscriminator,
    SNResnetGenerator,
)

WARM = 100  # critic updates for one of the generator, where WGAN warms up


class VanillaGAN(Unconditional):
    """A generator against a discriminator.

    The discriminator minimises ``gan`` (``loss``: minimax, nonsaturating, lsgan, hinge, wgan,
    relativistic or mmd) on real pictures x and fakes G(z), plus, where their weights are not 0,
    ``gp`` (||grad D(x^)|| - 1)^2 (WGAN-GP: 10) and ``r1`` ||grad D(x)||^2 (gamma/2), the latter
    every ``r1_every`` updates and that many times as strong. The generator minimises ``gan``. Of
    ``n_critic`` batches the last also trains the generator, after the discriminator and with the
    fakes it has just judged, as in the PyTorch DCGAN.

    Options: ``network`` dcgan, mlp (2014; take ``latent: uniform``), sngan or resnet; ``width``
    and ``d_width`` of their layers; ``g_norm``/``d_norm`` and ``spectral`` of the DCGAN;
    ``clip``: bound on all of D's weights after each of its updates (WGAN: 0.01); ``codes``:
    outputs of the critic for the mmd loss; ``warm_up``: WGAN's 100 critic updates for each of the
    first 25 and for every 500th update of the generator; ``augment``: none, diffaugment or ada.

    Follows the PyTorch DCGAN where it differs from the paper: 4x4 kernels, Gaussian z, real and
    fake pictures through D's batch norm apart. Known deviations: WGAN clips after each critic
    update instead of before; mmd
    has the kernel and the critic of MMD-GAN without its autoencoder and one-sided terms;
    relativistic has R1 on real pictures only.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        network: Literal["dcgan", "mlp", "sngan", "resnet"] = "dcgan",
        latent: Latent = "normal",
        z_dim: int = 100,
        width: int = 64,
        d_width: int = 64,
        g_norm: Norm = "batch",
        d_norm: Norm = "batch",
        spectral: bool = False,
        loss: str = "nonsaturating",
        codes: int = 16,
        n_critic: int = 1,
        warm_up: bool = False,
        clip: float | None = None,
        r1_every: int = 1,
        augment: Augment = "none",
        weights: Mapping[str, float] = terms(gan=1.0, gp=0.0, r1=0.0),
    ) -> None:
        super().__init__(spec, weights, z_dim, augment, latent)
        size, channels = spec.size, spec.channels
        outputs = codes if loss == "mmd" else 1
        self.g: nn.Module
        self.d: nn.Module
        if network == "dcgan":
            self.g = DCGANGenerator(size, channels, z_dim, width, g_norm)
            self.d = DCGANDiscriminator(size, channels, d_width, d_norm, spectral, outputs)
        elif network == "mlp":
            self.g = MLPGenerator(size, channels, z_dim, width)
            self.d = MLPDiscriminator(size, channels, d_width)
        elif network == "sngan":
            self.g = SNGANGenerator(size, channels, z_dim, width)
            self.d = SNGANDiscriminator(size, channels, d_width, spectral)
        else:
            self.g = SNResnetGenerator(size, channels, z_dim, width)
            self.d = SNResnetDiscriminator(
                size, channels, d_width, spectral, "sum" if spectral else "mean"
            )
        penalty = next((term for term in ("gp", "r1") if self.weights[term]), "")
        if penalty and any(isinstance(m, nn.BatchNorm2d) for m in self.d.modules()):
            raise UserError(
                f"'method.weights.{penalty}' needs a discriminator that judges each picture alone;"
                " set method.d_norm=none (or group)."
            )
        if loss == "mmd" and network != "dcgan":
            raise UserError("'method.loss=mmd' needs method.network=dcgan.")
        self.adversarial = adversarial(loss)
        self.pairs = loss in {"relativistic", "mmd"}  # G's loss compares with real pictures
        self.clip, self.r1_every = clip, r1_every
        self.turns, self.warm_up = critic_turns(n_critic), warm_up

    @property
    def cycle(self) -> int:
        longest = WARM if self.warm_up else len(self.turns)
        return math.lcm(longest, self.r1_every if self.weights["r1"] else 1)

    def turn(self, batch: int) -> Sequence[str]:
        if not self.warm_up:
            return super().turn(batch)
        # of 500 updates of the generator the first ``long`` have WARM critic updates each
        n = len(self.turns)
        first, later = 25 * WARM + 475 * n, WARM + 499 * n
        long, place = (25, batch) if batch < first else (1, (batch - first) % later)
        place, each = (place, WARM) if place < long * WARM else (place - long * WARM, n)
        return ("d", "g") if place % each == each - 1 else ("d",)

    def fake(self, n: int, step: Step) -> Tensor:
        """G(z), made once per batch."""
        return step.fake("fake", lambda: cast(Tensor, self.g(self.z(n, step))))

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        (real,) = batch.images
        fake = self.fake(len(real), step)
        real_logits, fake_logits = self.d(self.seen(real, step)), self.d(self.seen(fake, step))
        self.adapt(real_logits)
        losses = {"gan": self.adversarial.d(real_logits, fake_logits)}
        if self.weights["gp"]:
            losses["gp"] = gradient_penalty(
                lambda x: self.d(self.seen(x, step)), real, fake, step.draws
            )
        if self.weights["r1"] and step.due(self.r1_every):
            losses["r1"] = r1(lambda x: self.d(self.seen(x, step)), real) * self.r1_every
        return losses

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        (real,) = batch.images
        fake_logits = self.d(self.seen(self.fake(len(real), step), step))
        real_logits = self.d(self.seen(real, step)) if self.pairs else None
        return {"gan": self.adversarial.g(fake_logits, real_logits)}

    def after_update(self, phase: str, step: Step) -> None:
        if phase == "d" and self.clip is not None:
            clip_weights_(self.d, self.clip)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return cast(Tensor, self.g(self.z_from(n, generator)))

"""The original GAN and the losses and penalties that followed it, on the networks they were
published with: Goodfellow et al. 2014 (arXiv:1406.2661), DCGAN (Radford et al. 2016,
arXiv:1511.06434), SNGAN (Miyato et al. 2018, arXiv:1802.05957)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from gansuite.core.schedule import critic_alternation
from gansuite.data.spec import Batch, DataSpec
from gansuite.errors import UserError
from gansuite.losses.adversarial import adversarial
from gansuite.losses.penalties import clip_weights_, gradient_penalty, r1
from gansuite.methods._unconditional import WARM, Augment, Latent, Unconditional, warm_up_updates
from gansuite.methods.base import Step, terms
from gansuite.networks.layers import Norm
from gansuite.networks.pairs import Pair, pair
from gansuite.rng import derive, seed_device


class VanillaGAN(Unconditional):
    """A generator against a discriminator.

    The discriminator minimises ``gan`` (``loss``: minimax, nonsaturating, lsgan, hinge, wgan,
    relativistic or mmd) on real pictures x and fakes G(z), plus, where their weights are not 0,
    ``gp`` (||grad D(x^)|| - 1)^2 (WGAN-GP: 10) and ``r1`` ||grad D(x)||^2 (gamma/2), the latter
    every ``r1_every`` updates and that many times as strong. The generator minimises ``gan``. Of
    ``n_critic`` batches the last also trains the generator on the fakes just judged.

    Options: ``network`` dcgan, mlp (2014), sngan or resnet (SNGAN's if ``spectral``, else that of
    WGAN-GP); ``latent`` normal, uniform on (-1, 1) or unit_uniform on (-sqrt 3, sqrt 3), as in
    2014; ``width`` and ``d_width`` of their layers; ``g_norm``/``d_norm`` and ``spectral`` of the
    DCGAN; ``clip``: bound on all of D's weights after each of its updates (WGAN: 0.01); ``codes``:
    outputs of the critic for the mmd loss; ``warm_up``: WGAN's 100 critic updates for the first 25
    and every 500th update of the generator; ``fresh_fakes``: train G on so many batches of new
    fakes (SNGAN, WGAN-GP: 2); ``simultaneous``: both objectives from one pass, before either update
    and with the same dropout (2014); ``dequantise``: the 256 values of a pixel become uniform noise
    of width 1/128 (SNGAN, WGAN-GP); ``augment``: none, diffaugment or ada (in ``ada_kimg``).

    Follows the PyTorch DCGAN where it differs from the paper: 4x4 kernels, Gaussian z, real and
    fake pictures through D's batch norm apart. Known deviations: WGAN clips after each critic
    update instead of before; mmd has the kernel and the critic of MMD-GAN without its autoencoder
    and one-sided terms; relativistic has R1 on real pictures only; SNGAN's code has one more update
    of G, before the first of D, and 2e-5 for the eps of batch norm (1e-5 here: 5e-6 of a map of
    variance 1); that of 2014 lowers its rate by 1/1.000004 per update (to 61 % after 125,000) and
    raises the momentum from .5 to .7, which stay here, and begins with the data's mean as output
    bias; pictures of CelebA are cropped, then resized (DCGAN: the reverse).
    """

    loss_terms = {"g": ("gan",), "d": ("gan", "gp", "r1")}

    def __init__(
        self,
        spec: DataSpec,
        *,
        network: Pair = "dcgan",
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
        fresh_fakes: int = 0,
        simultaneous: bool = False,
        dequantise: bool = False,
        r1_every: int = 1,
        augment: Augment = "none",
        ada_kimg: float = 500,
        weights: Mapping[str, float] = terms(gan=1.0, gp=0.0, r1=0.0),
    ) -> None:
        super().__init__(spec, weights, z_dim, augment, latent, ada_kimg)
        sizes = (spec.size, spec.channels, z_dim, width, d_width)
        outputs = codes if loss == "mmd" else 1
        self.g, self.d = pair(network, *sizes, g_norm, d_norm, spectral, outputs)
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
        if self.pairs and fresh_fakes > 1:
            raise UserError(f"'method.fresh_fakes' is {fresh_fakes}; {loss} pairs them: 0 or 1.")
        if simultaneous and (n_critic > 1 or warm_up or fresh_fakes):
            raise UserError(
                "'method.simultaneous' is one pass for both players: set method.n_critic=1, and"
                " method.warm_up=false and method.fresh_fakes=0."
            )
        self.clip, self.r1_every = clip, r1_every
        self.fresh_fakes, self.dequantise = fresh_fakes, dequantise
        self.simultaneous, self.warm_up = simultaneous, warm_up  # G first: fakes and D stay
        self.alternation = (("g", "d"),) if simultaneous else critic_alternation(n_critic)

    @property
    def period(self) -> int:
        longest = WARM if self.warm_up else len(self.alternation)
        return math.lcm(longest, self.r1_every if self.weights["r1"] else 1)

    def updates_in(self, batch: int) -> Sequence[str]:
        critic = len(self.alternation)
        return warm_up_updates(batch, critic) if self.warm_up else super().updates_in(batch)

    def fake(self, n: int, step: Step) -> Tensor:
        """G(z), made once per batch; with ``fresh_fakes`` apart for each player."""
        if not self.fresh_fakes:
            return step.fake("fake", lambda: cast(Tensor, self.g(self.z(n, step))))
        many = self.fresh_fakes if step.player == "g" else 1
        with torch.set_grad_enabled(step.player == "g"):
            return cast(Tensor, self.g(self.z(many * n, step)))

    def judged(self, fake: Tensor, step: Step) -> Tensor:
        """D of the fakes."""
        if self.simultaneous:  # the same masks of dropout for both players
            place = (step.batches, step.draws.shard)
            seed_device(derive(self.noise_seed, "masks", *place), self.device)
        return cast(Tensor, self.d(self.seen(fake, step)))

    def real(self, batch: Batch, step: Step) -> Tensor:
        """The real pictures; where dequantised, (byte + noise) / 128 - 1, as in SNGAN's code."""
        (x,) = batch.images
        if not self.dequantise:
            return x
        return step.shared("real", lambda: ((x + 1) * 127.5 + step.rand(*x.shape)) / 128 - 1)

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        real = self.real(batch, step)
        fake = self.fake(len(real), step)
        critic = self.critic(step)
        real_logits, fake_logits = critic(real), self.judged(fake, step)
        self.adapt(real_logits)
        losses = {"gan": self.adversarial.d(real_logits, fake_logits)}
        if self.weights["gp"]:
            losses["gp"] = gradient_penalty(critic, real, fake, step.draws)
        if self.weights["r1"] and step.due(self.r1_every):
            losses["r1"] = r1(critic, real) * self.r1_every
        return losses

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        real = self.real(batch, step)
        fake_logits = self.judged(self.fake(len(real), step), step)
        real_logits = self.critic(step)(real) if self.pairs else None
        return {"gan": self.adversarial.g(fake_logits, real_logits)}

    def after_update(self, update: str, step: Step) -> None:
        if update == "d" and self.clip is not None:
            clip_weights_(self.d, self.clip)

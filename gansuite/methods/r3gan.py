"""R3GAN (Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern Baseline GAN",
arXiv:2501.05441)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from gansuite.config import Optim
from gansuite.core.schedule import cosine
from gansuite.data.spec import Batch, DataSpec, Needs
from gansuite.errors import UserError
from gansuite.losses.adversarial import Relativistic
from gansuite.losses.penalties import judged_r1
from gansuite.methods._unconditional import Unconditional
from gansuite.methods.base import Step, terms
from gansuite.networks.augment import ADA
from gansuite.networks.r3gan import R3GANDiscriminator, R3GANGenerator, stage_widths


class R3GAN(Unconditional):
    """A relativistic loss with a gradient penalty on both sides, on residual networks without
    normalisation.

    With sp = softplus and the i-th real picture paired with the i-th fake (section 2), first

        d   gan  sp(D(G(z)) - D(x))
            r1   ||grad_x D(T(x))||^2,  r2  ||grad_y D(T(y))||^2 at y = G(z), in every update;
                 their weights are gamma/2; T is the augmentation, the gradient that of x itself
        g   gan  sp(D(x) - D(G(z)))

    Each of the two has real pictures and latents of its own: a batch of training takes
    2 ``data.batch`` pictures, and both count.

    Over the burn-in, ``burn_in`` as a share of the budget or ``burn_in_kimg`` pictures, four
    settings follow half a cosine to what the configuration says and stay there: the learning rates
    from ``start_lr`` times, the second beta from ``start_beta2``, r1 and r2 from ``start_gamma``
    times their weights, and the probability of the augmentation from 0 to ``augment_p``: ADA's
    pipeline with colour at half the probability and with cutout; 0 is none.

    Options: ``width`` channels up to ``wide_to`` pixels a side and half as many at each doubling,
    ``blocks`` per size, ``group``: channels of a group; ``z_dim``. The defaults are lite presets
    for every size; published are width 768 (CIFAR-10, FFHQ) and 1536, group 32, wide_to 64
    (ImageNet). gamma must fit the size: published from .005 at 32 px to 15 at 256.

    Follows the authors' code: fakes leave [-1, 1] in training and are clipped when sampled;
    zeros outside the map in resampling; D before G. Known deviations: no classes; kimg, the
    half-life of averages and the burn-in count both batches (the code: one); D's update is in
    float32 throughout (the code: bf16 above 4x4 pixels) unless ``trainer.penalties=mixed``; ADA
    interpolates bilinearly.
    """

    loss_terms = {"g": ("gan",), "d": ("gan", "r1", "r2")}
    needs = Needs(view="single", batches=2)
    alternation = (("d", "g"),)

    def __init__(
        self,
        spec: DataSpec,
        *,
        z_dim: int = 64,
        width: int = 128,
        wide_to: int = 32,
        blocks: int = 2,
        group: int = 16,
        burn_in: float = 0.5,
        burn_in_kimg: float | None = None,
        start_lr: float = 4.0,
        start_beta2: float = 0.9,
        start_gamma: float = 10.0,
        augment_p: float = 0.0,
        weights: Mapping[str, float] = terms(gan=1.0, r1=0.025, r2=0.025),
    ) -> None:
        super().__init__(spec, weights, z_dim, "none")
        ranges = {
            "burn_in": (burn_in, 1.0),
            "burn_in_kimg": (burn_in_kimg or 0.0, math.inf),
            "start_lr": (start_lr, 1e6),
            "start_beta2": (start_beta2, 1 - 1e-9),
            "start_gamma": (start_gamma, 1e6),
            "augment_p": (augment_p, 1.0),
        }
        for key, (value, most) in ranges.items():
            if not 0 <= value <= most:
                raise UserError(f"'method.{key}' is {value}; it must be from 0 to {most:g}.")
        widths = stage_widths(spec.size, width, wide_to)
        self.g = R3GANGenerator(spec.channels, z_dim, widths, blocks, group)
        self.d = R3GANDiscriminator(spec.channels, widths, blocks, group)
        self.augment = ADA(colour=0.5, cutout=1.0) if augment_p else None
        self.adversarial = Relativistic()
        self.burn_in, self.burn_in_kimg = burn_in, burn_in_kimg
        self.start_lr, self.start_beta2, self.start_gamma = start_lr, start_beta2, start_gamma
        self.augment_p = augment_p

    def burnt(self, start: float, end: float) -> float:
        """Now, of what goes from ``start`` to ``end`` over the burn-in."""
        length, now = self.burn_in, self.progress
        if self.burn_in_kimg is not None:
            length, now = self.burn_in_kimg, self.images_seen / 1000
        return cosine(start, end, now / length) if length else end

    def optim_now(self, player: str) -> Optim:
        now = super().optim_now(player)
        betas = [now.betas[0], self.burnt(self.start_beta2, now.betas[1])]
        return now.model_copy(update={"lr": now.lr * self.burnt(self.start_lr, 1), "betas": betas})

    def weight_of(self, term: str, step: Step) -> float:
        return self.weights[term] * (1.0 if term == "gan" else self.burnt(self.start_gamma, 1))

    def judged(self, x: Tensor, step: Step) -> Tensor:
        """D of what it gets to see of ``x``."""
        if isinstance(self.augment, ADA):
            p = step.number("augment_p", lambda: self.burnt(0, self.augment_p))
            self.augment.p.fill_(cast(float, p))  # or a tensor of it
        return cast(Tensor, self.d(self.seen(x, step)))

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        (real,) = batch.images
        with torch.no_grad():
            fake = self.g(self.z(len(real), step))
        real_logits, r1 = judged_r1(lambda x: self.judged(x, step), real)
        fake_logits, r2 = judged_r1(lambda x: self.judged(x, step), fake)
        return {"gan": self.adversarial.d(real_logits, fake_logits), "r1": r1, "r2": r2}

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        (real,) = batch.images
        fake_logits = self.judged(self.g(self.z(len(real), step)), step)
        return {"gan": self.adversarial.g(fake_logits, self.judged(real, step))}

    def pictures(self, z: Tensor) -> Tensor:
        return super().pictures(z).clamp(-1, 1)

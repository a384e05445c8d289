"""DualGAN (Yi et al. 2017, "DualGAN: Unsupervised Dual Learning for Image-to-Image Translation",
arXiv:1704.02510)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from gansuite.core.schedule import critic_alternation
from gansuite.data.spec import Batch, DataSpec
from gansuite.losses.adversarial import Wasserstein
from gansuite.losses.penalties import clip_weights_, gradient_penalty
from gansuite.losses.reconstruction import l1
from gansuite.methods._two_way import TwoWay
from gansuite.methods.base import Step, terms
from gansuite.networks.dualgan import DualGANCritic, DualGANGenerator
from gansuite.networks.layers import in_one_call


class DualGAN(TwoWay):
    """Two U-Nets that undo one another, judged by Wasserstein critics.

    ``d["b"]`` is the paper's D_A, the critic of domain B. The critics minimise (section 3.1)

        gan   E D_B(G_AB(u)) - E D_B(v), and likewise for A
        gp    (||grad D(x^)|| - 1)^2, the penalty of the authors' code

    the generators (eq. 3)

        gan   -E D_B(G_AB(u)) - E D_A(G_BA(v))
        rec   |u - G_BA(G_AB(u))| + |v - G_AB(G_BA(v))|, mean over pixels, weight 500

    Options: ``head`` of the critic: one value per picture (global) or a map of them (patch);
    ``n_critic`` critic updates per generator update, the first of which comes at batch
    ``n_critic`` - 1; ``clip``: bound on the critics' weights after each
    of their updates; ``dropout`` in the three innermost decoder layers.

    Follows the authors' code (gradient penalty, n_critic 1, global critic, no dropout); the
    paper's setting is ``clip: 0.01, n_critic: 3, head: patch, dropout: 0.5, weights.gp: 0``
    (`experiments/dualgan_facades_paper.yaml`), both with TensorFlow's RMSprop (``kind: rmsprop_tf,
    alpha: 0.9, eps: 1e-10``). Known deviations: the gradient of the penalty has
    the derivative of instance norm's mean, which ``tf.nn.moments`` stops (0.5 % of that gradient at
    256 pixels, 3 to 6 % at 64); pictures are RGB, not BGR; with dropout, which is off when the
    model is used, the generators are trained on the pictures that the critics have judged (the code
    draws new masks).
    """

    loss_terms = {"g": ("gan", "rec"), "d": ("gan", "gp")}

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: int = 64,
        d_width: int = 64,
        head: Literal["global", "patch"] = "global",
        dropout: float = 0.0,
        upsample: Literal["deconv", "resize_conv"] = "deconv",
        n_critic: int = 1,
        clip: float | None = None,
        weights: Mapping[str, float] = terms(gan=1.0, rec=500.0, gp=10.0),
    ) -> None:
        super().__init__(
            spec,
            weights,
            lambda: DualGANGenerator(spec.size, spec.channels, width, dropout, upsample),
            lambda: DualGANCritic(spec.size, spec.channels, d_width, head),
        )
        self.wasserstein = Wasserstein()
        self.clip = clip
        updates = critic_alternation(n_critic)
        self.alternation = (*updates[1:], updates[0])  # the code's counter is 2 at the first batch

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        real_A, real_B = batch.images
        fake_A, fake_B = self.fakes(batch, step)
        d_A, d_B = self.d["a"], self.d["b"]
        loss_A = self.wasserstein.d(*in_one_call(d_A, real_A, fake_A))
        loss_B = self.wasserstein.d(*in_one_call(d_B, real_B, fake_B))
        losses = {"gan": loss_A + loss_B}
        if self.weights["gp"]:
            gp_A = self.penalty(d_A, real_A, fake_A, step)
            gp_B = self.penalty(d_B, real_B, fake_B, step)
            losses["gp"] = gp_A + gp_B
        return losses

    def penalty(self, d: nn.Module, real: Tensor, fake: Tensor, step: Step) -> Tensor:
        """With the code's 1e-8 inside the root of the norm."""
        return gradient_penalty(d, real, fake, step.draws, eps=1e-8)

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        real_A, real_B = batch.images
        fake_A, fake_B = self.fakes(batch, step)
        rec_A, rec_B = self.g["ba"](fake_B), self.g["ab"](fake_A)
        loss_A = self.wasserstein.g(self.d["a"](fake_A))
        loss_B = self.wasserstein.g(self.d["b"](fake_B))
        return {"gan": loss_A + loss_B, "rec": l1(rec_A, real_A) + l1(rec_B, real_B)}

    def after_update(self, update: str, step: Step) -> None:
        if update == "d" and self.clip is not None:
            clip_weights_(self.d, self.clip)

"""StyleGAN-lite: StyleGAN2 (Karras et al. 2020, "Analyzing and Improving the Image Quality of
StyleGAN", arXiv:1912.04958) with small networks, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from gansuite.data.spec import Batch, DataSpec
from gansuite.losses.adversarial import NonSaturating
from gansuite.losses.path_length import path_length_penalty
from gansuite.losses.penalties import r1
from gansuite.losses.precision import no_autocast
from gansuite.methods._unconditional import Augment, Unconditional
from gansuite.methods.base import Inference, Step, terms
from gansuite.networks.stylegan2 import PRESETS, StyleDiscriminator, StyleGenerator, mixing_cutoff
from gansuite.ops.twice import TwiceDifferentiable


class StyleGAN(Unconditional):
    """A mapping network z -> w, a synthesis network of modulated convolutions, a residual
    discriminator with minibatch standard deviation.

    Of every batch, in this order (sections 2-4, appendix B):

        g       gan   softplus(-D(G(z))), with style mixing in ``mixing`` of the batches
        g.path  path  (|J_w^T y| - a)^2 on half a batch, every ``path_every`` batches
        d       gan   softplus(D(G(z))) + softplus(-D(x))
        d.r1    r1    ||grad D(x)||^2, every ``r1_every`` batches; its weight is gamma/2

    A lazy term counts as many times as batches it stands for, and Adam's learning rate and betas
    are corrected for the additional steps. Samples come from the averaged generator.

    ``z_dim``, ``w_dim``, ``base``, ``max_channels``, ``mapping_layers``: 0 takes the lite preset
    of the size (32, 64, 128, 256); ``residual`` blocks in D; ``ada_kimg``: ADA's.

    Follows the authors' code: the path length's gradient flows through its running mean, a lazy
    update steps all parameters, ``w_avg`` moves with every pass of G and D. Known deviations: D
    judges the fakes that G was trained on (the code draws new ones, after G's update); neighbours
    form the groups of the minibatch deviation (the code has a stride: the same distribution);
    without path length G's Adam is not corrected for it (the code's CIFAR-10 is: 0.8 of its lr);
    no mixed fp16 layers; no label conditioning; gradients that are not finite stop the run
    instead of being replaced by 0.
    """

    loss_terms = {"g": ("gan", "path"), "d": ("gan", "r1")}
    alternation = (("g", "g.path", "d", "d.r1"),)
    has_styles = True
    path_mean: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        z_dim: int = 0,
        w_dim: int = 0,
        base: int = 0,
        max_channels: int = 0,
        mapping_layers: int = 0,
        mixing: float = 0.9,
        mbstd_group: int = 4,
        residual: bool = True,
        path_every: int = 4,
        r1_every: int = 16,
        augment: Augment = "none",
        ada_kimg: float = 500,
        weights: Mapping[str, float] = terms(gan=1.0, path=2.0, r1=5.0),
    ) -> None:
        given = {"z_dim": z_dim, "w_dim": w_dim, "mapping_layers": mapping_layers}
        given |= {"base": base, "max_channels": max_channels}
        sizes = PRESETS.get(spec.size, PRESETS[256]) | {k: v for k, v in given.items() if v}
        super().__init__(spec, weights, sizes["z_dim"], augment, ada_kimg=ada_kimg)
        self.g = StyleGenerator(spec.size, spec.channels, **sizes)
        wide = {k: sizes[k] for k in ("base", "max_channels")} | {"mbstd_group": mbstd_group}
        self.d = StyleDiscriminator(spec.size, spec.channels, residual=residual, **wide)
        self.adversarial = NonSaturating()
        self.mixing, self.path_every, self.r1_every = mixing, path_every, r1_every
        self.register_buffer("path_mean", torch.zeros(()))
        self.passes: dict[str, list[Tensor]] = {}  # of this batch: the mean w of each update's
        every = {"g": ("path", path_every), "d": ("r1", r1_every)}
        self.lazy = {player: n if self.weights[term] else 0 for player, (term, n) in every.items()}

    def ws(self, n: int, step: Step) -> Tensor:
        """Styles [n, num_ws, w_dim] of new latents, mixed from two in most batches."""
        layers, share = self.g.num_ws, self.mixing
        cutoff = step.draws.decided(lambda d: torch.tensor(mixing_cutoff(layers, d, share)))
        z, other = self.z(n, step), self.z(n, step)
        ws = self.g.styles(z, z_mix=other, cutoff=cutoff)
        first = ws[:, 0].detach().to(self.g.mapping.w_avg).mean(0)  # never of the other
        self.passes.setdefault(step.update, []).append(first)
        return ws

    def fake(self, n: int, step: Step) -> Tensor:
        return step.fake("fake", lambda: self.g.synthesis(self.ws(n, step), draws=step.draws))

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        fake = self.fake(len(batch.images[0]), step)
        return {"gan": self.adversarial.g(self.d(self.seen(fake, step)))}

    def g_path_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        if not self.weights["path"] or not step.due(self.path_every):
            return {}
        ws = self.ws(max(1, len(batch.images[0]) // 2), step).to(self.path_mean)
        with no_autocast(self.device):
            with TwiceDifferentiable():
                images = self.g.synthesis(ws, draws=step.draws)
            penalty, mean, lengths = path_length_penalty(
                images, ws, self.path_mean, step.draws,
                decay=0.01 / self.settings.accumulate, over_ranks=self.mean_over_ranks,
            )  # fmt: skip
        self.path_mean.copy_(mean)
        self.record("path/length", lengths.mean())
        return {"path": penalty * self.path_every}

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        (real,) = batch.images
        fake_logits = self.d(self.seen(self.fake(len(real), step), step))
        real_logits = self.adapt(self.d(self.seen(real, step)))
        return {"gan": self.adversarial.d(real_logits, fake_logits)}

    def d_r1_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        if not self.weights["r1"] or not step.due(self.r1_every):
            return {}
        penalty = r1(lambda x: self.adapt(self.d(self.seen(x, step))), batch.images[0])
        return {"r1": penalty * self.r1_every}

    def after_batch(self) -> None:
        super().after_batch()
        passes, self.passes = self.passes, {}  # D's pass is over the pictures of G's, once more
        found = [torch.stack(passes[p]).mean(0) for p in ("g", "g.path", "g") if p in passes]
        for mean in self.mean_over_ranks(torch.stack(found)):
            self.g.mapping.update_average(mean)

    def latent_pairs(
        self, n: int, generator: torch.Generator, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        """Straight in w, without truncation (StyleGAN2, section 3)."""
        a, b = (self.g.styles(self.z_from(n, generator)) for _ in range(2))
        made = [self.g.synthesis(ws, noise="const") for ws in (a, torch.lerp(a, b, epsilon))]
        return made[0], made[1]

    def sample(
        self, n: int, generator: torch.Generator | None = None, truncation_psi: float = 1.0
    ) -> Tensor:
        return self.pictures(self.z_from(n, generator), truncation_psi)

    def pictures(self, z: Tensor, truncation: float | Tensor = 1.0) -> Tensor:
        return cast(Tensor, self.g(z, noise="const", truncation_psi=truncation)).clamp(-1, 1)

    def inference(self, to: str) -> Inference:
        return Inference(
            self.g,
            lambda z, truncation: self.pictures(z, truncation),
            "pictures",
            z=self.some_z,
            truncation="share",
        )

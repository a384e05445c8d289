"""The AdaIN-GAN: arbitrary style transfer (Huang & Belongie 2017, "Arbitrary Style Transfer in
Real-time with Adaptive Instance Normalization", arXiv:1703.06868) with a discriminator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, cast

import torch
from torch import Tensor

from gansuite.config import Optim
from gansuite.data.spec import Batch, DataSpec
from gansuite.losses.adversarial import adversarial
from gansuite.losses.perceptual import (
    VGG,
    adain,
    perceptual_network,
    statistics,
    structural,
    style_distance,
    total_variation,
)
from gansuite.losses.reconstruction import l1, mse
from gansuite.methods._by_reference import ByReference
from gansuite.methods._one_way import Direction
from gansuite.methods.base import Step, terms
from gansuite.networks.adain import style_generator
from gansuite.networks.patchgan import PatchDiscriminator


class AdaIN(ByReference):
    """A picture of one domain in the style of a reference, a picture of the other.

    G(x, s) decodes the content of x with the style of s. With ``injection: stats`` the style is the
    mean and deviation of the features of an encoder, frozen (the default) or ``learned``, and they
    replace those of x (AdaIN). With ``mlp`` a style network makes a code of 8 numbers, and an MLP
    the scales and centres of the decoder's blocks (MUNIT, arXiv:1804.04732). In the features phi of
    the perceptual ``network`` the generator minimises, for y = G(x, s),

        content     |phi(y) - t|^2 in the last layer, t = AdaIN(phi(x), phi(s))
        style       the distance of phi(y) to phi(s) in all of relu1_1, relu2_1, ...: squared
                    differences of means and deviations, or of Gram matrices (``style_loss: gram``)
        perceptual  |phi(y) - phi(x)|^2 in relu2_2 (Johnson et al. 2016)
        structural  1 - SSIM(y, x)
        tv          the mean difference of neighbours in y
        rec         |G(x, x) - x|
        gan         (D(y) - 1)^2, patches

    and the discriminator ``gan`` = 1/2 [(D(s) - 1)^2 + D(y)^2] and ``photo``, the same with x in
    y's place (Sanakoyeu et al. 2018). Without ``gan`` and ``photo`` there is no discriminator, and
    the method is that of 2017.

    ``network``: ``random_vgg``, seeded; ``classifier`` of the two domains, trained once per data
    set; ``vgg19`` from ``network_file``; ``own``: the learned encoder, in which content is
    |E(y) - E(x)|, with its gradient in both. Losses in its eyes carry its name. ``levels`` of the
    VGG, of ``width`` channels in the first; ``references``: how many pictures of the target domain
    `translate` chooses from; ``direction``: from the first domain to the second (``ab``) or back;
    ``lr_decay`` d divides the learning rate by 1 + d * updates (official 5e-5).

    Follows the paper in the weight of the style (10, on means, as the PyTorch port) and the
    official code in the biased variance. Known deviations: its eps of 1e-5 on both sides (the code
    has none on the style's); pictures are squashed, not cropped, to the training size.
    """

    loss_terms = {
        "g": ("content", "style", "perceptual", "structural", "tv", "rec", "gan"),
        "d": ("gan", "photo"),
    }

    def __init__(
        self,
        spec: DataSpec,
        *,
        injection: Literal["stats", "mlp"] = "stats",
        encoder: Literal["frozen", "learned"] = "frozen",
        network: Literal["random_vgg", "classifier", "vgg19", "own"] = "random_vgg",
        network_file: str = "",
        network_seed: int = 0,
        levels: Literal[3, 4] = 4,
        width: int = 64,
        d_width: int = 64,
        d_layers: int = 3,
        style_loss: Literal["mean_std", "gram"] = "mean_std",
        loss: str = "lsgan",
        references: int = 16,
        direction: Direction = "ab",
        lr_decay: float = 0.0,
        weights: Mapping[str, float] = terms(
            content=1.0, style=10.0, perceptual=0.0, structural=0.0, tv=0.0, rec=0.0, gan=0.1,
            photo=0.0,
        ),
    ) -> None:  # fmt: skip
        super().__init__(spec, weights, direction, references)
        last, channels = f"relu{levels}_1", spec.channels
        self.taps = [f"relu{level}_1" for level in range(1, levels + 1)]
        self.eyes, self.style_loss, self.lr_decay = network, style_loss, lr_decay
        if network == "own":
            judge = VGG(last, width, channels)
        else:
            judge = perceptual_network(
                network, last, width=width, channels=channels, seed=network_seed, file=network_file
            )
        self.g = style_generator(injection, encoder, judge, levels, width, channels)
        self.judge = None if network == "own" else judge
        self.stride = self.g.stride
        self.adversarial = adversarial(loss)
        if weights["gan"] or weights["photo"]:
            self.d = PatchDiscriminator(channels, d_width, d_layers)
        else:
            self.alternation, self.idle = (("g",),), ("d",)

    def fake(self, batch: Batch, step: Step) -> Tensor:
        x, s = self.pair(batch)
        return step.fake("fake", lambda: cast(Tensor, self.g(x, self.g.code(s))))

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        x, s = self.pair(batch)
        y = self.fake(batch, step)
        phi = self.judge or cast(VGG, self.g.encoder)
        taps = [*self.taps, "relu2_2"] if self.weights["perceptual"] else self.taps
        with torch.set_grad_enabled(self.judge is None):
            of_x, of_s = phi(x, taps), phi(s, taps)
        of_y, n = phi(y, taps), len(self.taps)

        def content() -> Tensor:
            if self.judge is None:
                return l1(of_y[n - 1], of_x[n - 1])
            return mse(of_y[n - 1], adain(of_x[n - 1], *statistics(of_s[n - 1])))

        found: dict[str, Callable[[], Tensor]] = {
            f"content/{self.eyes}": content,
            f"style/{self.eyes}": lambda: style_distance(of_y[:n], of_s[:n], self.style_loss),
            f"perceptual/{self.eyes}": lambda: mse(of_y[-1], of_x[-1]),
            "structural": lambda: structural(y, x),
            "tv": lambda: total_variation(y),
            "rec": lambda: l1(self.g(x, self.g.code(x)), x),
            "gan": lambda: self.adversarial.g(self.d(y)),
        }
        return {k: loss() for k, loss in found.items() if self.weights[k.partition("/")[0]]}

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        x, s = self.pair(batch)
        fakes = {"gan": self.fake(batch, step), "photo": x}
        return {
            k: self.adversarial.d(self.d(s), self.d(f)) for k, f in fakes.items() if self.weights[k]
        }

    def optim_now(self, player: str) -> Optim:
        now, done = super().optim_now(player), self.update_counts.get(player, 0)
        return now.model_copy(update={"lr": now.lr / (1 + self.lr_decay * done)})

"""DualGAN: Yi et al. 2017, after the authors' code."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gansuite.networks.layers import (
    InnerConv2d,
    InnerConvTranspose2d,
    InstanceNorm2d,
    Upsample,
    halvings,
    upsampling,
)
from gansuite.networks.recompute import Chain
from gansuite.networks.unet import UNet


class SameConv2d(nn.Module):
    """Convolution of stride 2 with TensorFlow's SAME padding: H, W even -> H/2, W/2.

    The padding is (k-2)//2 before and one more after, for an odd kernel k.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        before = (kernel - 2) // 2
        self.pad = (before, before + 1, before, before + 1)
        self.conv = InnerConv2d(inputs, outputs, kernel, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.pad))


class SameConvTranspose2d(nn.Module):
    """The transpose of ``SameConv2d``: H, W -> 2H, 2W."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = InnerConvTranspose2d(inputs, outputs, kernel, 2, (kernel - 2) // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[..., : 2 * x.shape[-2], : 2 * x.shape[-1]]


def _norm(channels: int) -> nn.Module:
    """What the code calls batch norm: moments per picture, eps 1e-6, scale and centre."""
    return InstanceNorm2d(channels, affine=True, eps=1e-6)


def _init_tensorflow_(module: nn.Module) -> None:
    """N(0, .02), in convolutions cut at two deviations; scales ~ N(1, .02), biases 0."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.trunc_normal_(m.weight, 0.0, 0.02, -0.04, 0.04)
        elif isinstance(m, (nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(m.weight, 0.0, 0.02)
        elif isinstance(m, InstanceNorm2d) and m.weight is not None:
            nn.init.normal_(m.weight, 1.0, 0.02)
        else:
            continue
        if m.bias is not None:
            nn.init.zeros_(m.bias)


class DualGANGenerator(UNet):
    """[N, channels, H, W] -> the same, both in [-1, 1]; H, W multiples of ``size``.

    A U-Net of log2(size) levels: 8 at 256 as published, fewer layers of 8 ``width`` below. At
    ``size`` the innermost map is 1x1, where instance norm leaves its centre only: the bottleneck
    carries no picture, in the original neither, and the skips do the work.

    ``dropout`` is the probability of dropping in the three innermost decoder layers while
    training. The paper also drops at test time, as its only noise; ours is deterministic there.
    """

    def __init__(
        self,
        size: int,
        channels: int = 3,
        width: int = 64,
        dropout: float = 0.0,
        upsample: Upsample = "deconv",
    ) -> None:
        n = halvings(size, "DualGAN", 32)
        widths = [width * min(2**i, 8) for i in range(n)]
        down: list[nn.Module] = [SameConv2d(channels, width, 5)]
        for a, b in pairwise(widths):
            down.append(Chain(nn.LeakyReLU(0.2, True), SameConv2d(a, b, 3), _norm(b)))
        up: list[nn.Module] = []
        for i in reversed(range(n)):
            a = widths[i] * (1 if i == n - 1 else 2)
            b, kernel = (widths[i - 1], 3) if i else (channels, 5)
            layers: list[nn.Module] = [nn.ReLU(True)]
            if upsample == "deconv":
                layers += [SameConvTranspose2d(a, b, kernel)]
            else:
                layers += [upsampling(a, b, upsample, kernel, bias=True)]
            layers += [_norm(b)] if i else [nn.Tanh()]
            if dropout and i >= n - 3:
                layers += [nn.Dropout(dropout)]
            up.append(Chain(*layers))
        super().__init__(down, up)
        _init_tensorflow_(self)


class DualGANCritic(nn.Module):
    """[N, channels, size, size] in [-1, 1] -> values [N] ("global") or [N, 1, h, w] ("patch").

    Five halvings, the last two of 8 ``width``, as published for 256 (patch: 4x4). Below 128 there
    are fewer, so that the last normalised map keeps 4x4 pixels: at 1x1 nothing would be left.
    """

    def __init__(
        self,
        size: int,
        channels: int = 3,
        width: int = 64,
        head: Literal["global", "patch"] = "global",
    ) -> None:
        super().__init__()
        n = min(5, halvings(size, "DualGAN", 32) - 2)
        widths = [width * min(2**i, 8) for i in range(n)]
        layers: list[nn.Module] = [SameConv2d(channels, width, 5), nn.LeakyReLU(0.2, True)]
        for a, b in pairwise(widths):
            layers += [SameConv2d(a, b, 3), _norm(b), nn.LeakyReLU(0.2, True)]
        if head == "global":
            layers += [nn.Flatten(), nn.Linear(widths[-1] * (size >> n) ** 2, 1), nn.Flatten(0)]
        else:
            layers += [SameConv2d(widths[-1], 1, 3)]
        self.body = Chain(*layers)
        _init_tensorflow_(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

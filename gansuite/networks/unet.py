"""Encoder-decoders with skips: U-Net (Ronneberger et al. 2015) as pix2pix and CycleGAN use it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from gansuite.networks.layers import (
    InnerConv2d,
    Norm,
    Upsample,
    init_normal_,
    norm_layer,
    upsampling,
)
from gansuite.networks.recompute import Chain


class UNet(nn.Module):
    """``downs`` one after the other, then ``ups``, each fed its predecessor and the equal down.

    The maps are joined before any activation, so the activation that opens an ``up`` acts on both:
    a ReLU, so that it is of no account whether a ``down`` has opened with a leaky one in place.
    H and W must be multiples of ``stride`` = 2^len(downs).
    """

    def __init__(self, downs: Sequence[nn.Module], ups: Sequence[nn.Module]) -> None:
        super().__init__()
        self.downs, self.ups = nn.ModuleList(downs), nn.ModuleList(ups)
        self.stride = 2 ** len(downs)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down in self.downs:
            x = down(x)
            skips.append(x)
        x = self.ups[0](skips.pop())
        for up in self.ups[1:]:
            x = up(torch.cat([skips.pop(), x], 1))
        return x


class UNetGenerator(UNet):
    """[N, channels, H, W] -> [N, out_channels, H, W], both in [-1, 1].

    8 ``downs`` is CycleGAN's U-Net-256, 7 its U-Net-128; with that few pixels the innermost map is
    1x1 and has no norm. Biases everywhere with instance norm, only in the last layer with batch
    norm, as there. ``dropout`` is the probability in those ups between the innermost and the outer
    four (pix2pix: 3 of 8, 2 of 7). Weights ~ N(0, .02).
    """

    own_layout = True  # in rows: products of matrices read most of its weights so

    def __init__(
        self,
        channels: int = 3,
        width: int = 64,
        downs: int = 8,
        upsample: Upsample = "deconv",
        out_channels: int | None = None,
        norm: Norm = "instance",
        dropout: float = 0.0,
    ) -> None:
        widths, bias = [width * min(2**i, 8) for i in range(downs)], norm != "batch"
        down: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=bias)]
        for i, (a, b) in enumerate(pairwise(widths), start=2):
            layers = [nn.LeakyReLU(0.2, True), InnerConv2d(a, b, 4, 2, 1, bias=bias)]
            down.append(Chain(*layers, norm_layer(norm if i < downs else "none", b)))
        up: list[nn.Module] = []
        for i in reversed(range(downs)):
            a = widths[i] * (1 if i == downs - 1 else 2)
            b = widths[i - 1] if i else out_channels or channels
            end = [norm_layer(norm, b) if i else nn.Tanh()]
            if dropout and 4 <= i < downs - 1:
                end += [nn.Dropout(dropout)]
            up.append(Chain(nn.ReLU(True), upsampling(a, b, upsample, bias=bias or not i), *end))
        super().__init__(down, up)
        init_normal_(self)

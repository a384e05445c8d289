"""R3GAN's networks (Huang et al. 2024, arXiv:2501.05441, section 4; facts of the authors' code):
residual blocks of grouped convolutions that begin as the identity, without any normalisation.

Pictures are float [N, C, size, size], nominally in [-1, 1]; the generator has no output activation,
so a picture may leave that range. Everything can be differentiated twice.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansuite.networks.blur import Fir
from gansuite.networks.layers import PointwiseConv2d, halvings
from gansuite.networks.recompute import Block

_SLOPE = 0.2


def stage_widths(size: int, width: int, wide_to: int) -> list[int]:
    """Channels at 4, 8, ..., ``size`` pixels: ``width`` up to ``wide_to``, then half as many at
    each doubling. Raises UserError for a size that is no power of two from 4 on."""
    stages = halvings(size, "R3GAN", 4) - 1
    return [max(1, width * wide_to // max(4 << k, wide_to)) for k in range(stages)]


def normal_(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> None:
    """Weights ~ N(0, gain^2 / fan in), bias 0."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    """A 1x1 convolution without bias, gain 1."""
    conv = PointwiseConv2d(inputs, outputs, bias=False)
    normal_(conv)
    return conv


class FixupBlock(Block):
    """x + conv1(lrelu(grouped conv3(lrelu(conv1 x)))): C -> 2C -> 2C -> C channels.

    The last convolution begins at 0 and has no bias, so a new block is the identity. The first two
    have the gain of the leaky ReLU times ``blocks``^(-1/4), ``blocks`` being those of the whole
    network (Zhang et al. 2019, Fixup). ``group``: channels of a group of the 3x3 convolution; all
    in one if there are fewer.
    """

    def __init__(self, channels: int, group: int, blocks: int) -> None:
        super().__init__()
        inner = 2 * channels
        groups = next(g for g in range(max(1, inner // group), 0, -1) if inner % g == 0)
        self.expand = PointwiseConv2d(channels, inner)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1, groups=groups)
        self.project = PointwiseConv2d(inner, channels, bias=False)
        gain = math.sqrt(2 / (1 + _SLOPE**2)) * blocks**-0.25
        normal_(self.expand, gain)
        normal_(self.mix, gain)
        nn.init.zeros_(self.project.weight)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.leaky_relu(self.expand(x), _SLOPE)
        out: Tensor = self.project(F.leaky_relu_(self.mix(inner), _SLOPE))
        return x + out


class R3GANGenerator(nn.Module):
    """z [N, z_dim] -> picture [N, channels, size, size].

    A learned basis of 4x4 maps, each times its share of z; ``blocks`` blocks per size; between
    sizes a 1x1 convolution where the width changes, then the low-pass enlargement. ``widths``: of
    4, 8, ... pixels, see `stage_widths`.
    """

    def __init__(
        self, channels: int, z_dim: int, widths: list[int], blocks: int = 2, group: int = 16
    ) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.share = nn.Linear(z_dim, widths[0], bias=False)
        normal_(self.share)

        def stage(width: int) -> list[nn.Module]:
            return [FixupBlock(width, group, blocks * len(widths)) for _ in range(blocks)]

        layers = stage(widths[0])
        for before, width in pairwise(widths):
            layers += [pointwise(before, width)] if before != width else []
            layers += [Fir("up"), *stage(width)]
        self.layers = nn.Sequential(*layers, pointwise(widths[-1], channels))

    def forward(self, z: Tensor) -> Tensor:
        x = self.basis * self.share(z)[:, :, None, None]
        made: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        return made


class R3GANDiscriminator(nn.Module):
    """picture [N, channels, size, size] -> logits [N, 1]: the generator mirrored.

    Between sizes the low-pass reduction, then a 1x1 convolution where the width changes; at last a
    4x4 convolution of each channel and a linear layer, both without bias.
    """

    def __init__(self, channels: int, widths: list[int], blocks: int = 2, group: int = 16) -> None:
        super().__init__()

        def stage(width: int) -> list[nn.Module]:
            return [FixupBlock(width, group, blocks * len(widths)) for _ in range(blocks)]

        layers = [pointwise(channels, widths[-1]), *stage(widths[-1])]
        for before, width in pairwise(reversed(widths)):
            layers += [Fir("down"), *([pointwise(before, width)] if before != width else [])]
            layers += stage(width)
        last = nn.Conv2d(widths[0], widths[0], 4, groups=widths[0], bias=False)
        out = nn.Linear(widths[0], 1, bias=False)
        normal_(last)
        normal_(out)
        self.layers = nn.Sequential(*layers, last, nn.Flatten(), out)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        return logits

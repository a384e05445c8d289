"""The residual discriminator with minibatch standard deviation."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from gansuite.losses.precision import full
from gansuite.networks.recompute import Block
from gansuite.networks.stylegan2.layers import EqualizedConv2d, EqualizedLinear, resolutions


def minibatch_stddev(x: Tensor, group: int) -> Tensor:
    """[N, C, H, W] -> [N, C+1, H, W]: the added channel holds the standard deviation over a group
    of samples, averaged over features and positions (ProGAN §3, StyleGAN2 groups of 4).

    A group is a run of neighbours, so real and fake batches may be concatenated and processes
    may split a batch into multiples of ``group`` without changing the value. The authors' code
    takes every (N / group)-th sample instead: the same for a batch in another order, so with
    random batches the same distribution (of one batch the channel differs, by 1 % in the mean for
    Gaussian features [16, 128, 4, 4] and groups of 4). If ``group`` does not divide N, its largest
    divisor of N not above ``group`` is used; a group of 1 has deviation sqrt(1e-8). The deviation
    is computed in full precision, as 1e-8 is 0 in fp16.
    """
    n, c, h, w = x.shape
    size = max(g for g in range(1, min(group, n) + 1) if n % g == 0)
    groups = full(x).reshape(n // size, size, c, h, w)
    deviation = (groups.var(1, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    channel = deviation.repeat_interleave(size)[:, None, None, None].expand(n, 1, h, w)
    return torch.cat([x, channel.to(x.dtype)], 1)


class DiscriminatorBlock(Block):
    """[N, in, H, W] -> [N, out, H/2, W/2]: two 3x3 convolutions, the second strided; ``residual``
    adds a linear 1x1 path and scales both by sqrt(1/2) (StyleGAN2 §4.1)."""

    def __init__(self, inputs: int, outputs: int, *, residual: bool) -> None:
        super().__init__()
        half = math.sqrt(0.5) if residual else 1.0
        self.conv = EqualizedConv2d(inputs, inputs, 3)
        self.down = EqualizedConv2d(inputs, outputs, 3, down=True, gain=half)
        self.skip = (
            EqualizedConv2d(inputs, outputs, 1, down=True, activation=False, gain=half)
            if residual
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.conv(x))
        return out if self.skip is None else out + self.skip(x)


class StyleDiscriminator(nn.Module):
    """image [N, channels, size, size] -> logits [N, 1].

    ``residual=False`` is the plain network the paper's authors use for CIFAR-10 (with
    ``mbstd_group=32``). Raises UserError for a size that is no power of two.
    """

    def __init__(
        self,
        size: int,
        channels: int = 3,
        *,
        base: int = 32768,
        max_channels: int = 512,
        mbstd_group: int = 4,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.mbstd_group = mbstd_group
        widths = [min(base // r, max_channels) for r in reversed(resolutions(size))]
        last = widths[-1]
        self.from_rgb = EqualizedConv2d(channels, widths[0], 1)
        self.blocks = nn.Sequential(
            *(DiscriminatorBlock(i, o, residual=residual) for i, o in pairwise(widths))
        )
        self.conv = EqualizedConv2d(last + 1, last, 3)
        self.dense = EqualizedLinear(last * 16, last, activation=True)
        self.out = EqualizedLinear(last, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.from_rgb(x.contiguous(memory_format=torch.channels_last))
        x = minibatch_stddev(self.blocks(x), self.mbstd_group)
        logits: Tensor = self.out(self.dense(self.conv(x).flatten(1)))
        return logits

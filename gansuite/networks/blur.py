"""Resampling with a low-pass: StyleGAN2's (Karras et al. 2020) and CUT's (Park et al. 2020), after
Zhang 2019 (arXiv:1904.11486)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansuite.networks.layers import ReflectionPad2d


class Fir(nn.Module):
    """The low-pass [1, 3, 3, 1] (both ways, sum 1) of all resampling, one depthwise convolution.

    ``down``: [N, C, H, W] -> [N, C, H/2, W/2]. ``up``: zeros between the pixels, filter, gain 4
    -> [N, C, 2H, 2W]. ``after_up``: what follows a stride-2 transposed 3x3 convolution,
    [2H+1] -> [2H], gain 4. ``before_down``: what precedes a stride-2 3x3 convolution without
    padding, [H] -> [H+1].
    """

    kernel: Tensor
    _PADDING = {"down": 1, "up": 1, "after_up": 1, "before_down": 2}

    def __init__(self, mode: Literal["down", "up", "after_up", "before_down"]) -> None:
        super().__init__()
        self.mode = mode
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        gain = 4 if mode in ("up", "after_up") else 1
        self.register_buffer("kernel", gain * torch.outer(taps, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        padding = self._PADDING[self.mode]
        if self.mode == "up":
            return F.conv_transpose2d(x, kernel, stride=2, padding=padding, groups=channels)
        if self.mode == "down" and x.dtype == torch.bfloat16 and x.device.type == "cpu":
            # a strided depthwise convolution takes a path ten times slower in bf16 on CPUs
            return F.conv2d(x, kernel, padding=padding, groups=channels)[..., ::2, ::2]
        stride = 2 if self.mode == "down" else 1
        return F.conv2d(x, kernel, stride=stride, padding=padding, groups=channels)


class BlurDown(nn.Module):
    """[N, C, H, W] -> [N, C, ceil(H/2), ceil(W/2)]: every second pixel of the picture filtered with
    [1, 2, 1]/4 both ways, borders reflected."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(taps, taps), persistent=False)
        self.pad = ReflectionPad2d(1)

    def forward(self, x: Tensor) -> Tensor:
        x, c = self.pad(x), x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(c, 1, 3, 3)
        if x.dtype == torch.bfloat16 and x.device.type == "cpu":  # as in Fir
            return F.conv2d(x, kernel, groups=c)[..., ::2, ::2]
        return F.conv2d(x, kernel, stride=2, groups=c)


class BlurUp(nn.Module):
    """[N, C, H, W] -> [N, C, 2H, 2W]: zeros between the pixels, then [1, 3, 3, 1]/4 both ways,
    borders replicated."""

    def __init__(self) -> None:
        super().__init__()
        self.up = Fir("up")

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[..., :1], x, x[..., -1:]], -1)
        x = torch.cat([x[..., :1, :], x, x[..., -1:, :]], -2)
        return self.up(x)[..., 2:-2, 2:-2]

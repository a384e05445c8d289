"""Antialiased resampling as in CUT: Park et al. 2020, after Zhang 2019 (arXiv:1904.11486)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansuite.networks.layers import ReflectionPad2d
from gansuite.networks.stylegan2 import Fir


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

"""Resampling with a low-pass: StyleGAN2's (Karras et al. 2020) and CUT's (Park et al. 2020), after
Zhang 2019 (arXiv:1904.11486)."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansuite.losses.precision import no_autocast
from gansuite.networks.layers import ReflectionPad2d


class _Filtered(torch.autograd.Function):
    """`_filter` and its derivatives, all depthwise; PyTorch's own second derivative would be one
    convolution for each channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
        ctx.how, ctx.size = (kernel, stride, padding), x.shape[2:]
        return _filter(x, kernel, stride, padding)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        kernel, stride, padding = ctx.how
        sides = zip(ctx.size, g.shape[2:], strict=True)
        rest = [n - ((m - 1) * stride - 2 * padding + len(kernel)) for n, m in sides]
        return _Spread.apply(g, *ctx.how, rest), None, None, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: Tensor, stride: int, padding: int, rest: list[int]
    ) -> Tensor:
        ctx.how = kernel, stride, padding
        return _spread(x, kernel, stride, padding, rest)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None, None]:
        return _Filtered.apply(g, *ctx.how), None, None, None, None


def _filter(x: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
    with no_autocast(x.device):
        return F.conv2d(x, _each(kernel, x), None, stride, padding, 1, x.shape[1])


def _spread(x: Tensor, kernel: Tensor, stride: int, padding: int, rest: list[int]) -> Tensor:
    """The transpose of `_filter`; ``rest``: the last pixels that no kernel reaches."""
    k, channels = len(kernel), x.shape[1]
    with no_autocast(x.device):
        if stride == 1:  # as a convolution, which is the faster
            return F.conv2d(x, _each(kernel.flip(0, 1), x), None, 1, k - 1 - padding, 1, channels)
        # in bf16 it is ten times as slow on CPUs
        y = x.float() if x.dtype == torch.bfloat16 and x.device.type == "cpu" else x
        y = F.conv_transpose2d(y, _each(kernel, y), None, stride, padding, rest, channels)
        return y.to(x.dtype)


def _each(kernel: Tensor, x: Tensor) -> Tensor:
    """``kernel`` for every channel of ``x``."""
    return kernel.to(x.dtype).expand(x.shape[1], 1, *kernel.shape)


def _in_type(x: Tensor) -> Tensor:
    """``x`` in the type that autocast computes convolutions in."""
    where = x.device.type
    if torch.amp.is_autocast_available(where) and torch.is_autocast_enabled(where):
        return x.to(torch.get_autocast_dtype(where))
    return x


def filtered(x: Tensor, kernel: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Every ``stride``-th pixel of ``x`` [N, C, H, W], surrounded by ``padding`` zeros, filtered
    by ``kernel`` [k, k] (k > ``padding``), which has no gradient."""
    x = _in_type(x)
    if not (x.requires_grad and torch.is_grad_enabled()):  # an exported program, for one
        return _filter(x, kernel, stride, padding)
    return cast(Tensor, _Filtered.apply(x, kernel, stride, padding))


def enlarged(x: Tensor, kernel: Tensor) -> Tensor:
    """``x`` [N, C, H, W] with zeros between its pixels, filtered by ``kernel`` [4, 4], which has no
    gradient: [N, C, 2H, 2W]."""
    x = _in_type(x)
    if not (x.requires_grad and torch.is_grad_enabled()):
        return _spread(x, kernel, 2, 1, [0, 0])
    return cast(Tensor, _Spread.apply(x, kernel, 2, 1, [0, 0]))


class Fir(nn.Module):
    """The low-pass [1, 3, 3, 1] (both ways, sum 1) of all resampling, one depthwise convolution.

    ``down``: [N, C, H, W] -> [N, C, H/2, W/2]. ``up``: zeros between the pixels, filter, gain 4
    -> [N, C, 2H, 2W]. ``after_up``: what follows a stride-2 transposed 3x3 convolution,
    [2H+1] -> [2H], gain 4. ``before_down``: what precedes a stride-2 3x3 convolution without
    padding, [H] -> [H+1].
    """

    kernel: Tensor
    own_layout = True  # the networks that resample so are channels last where that pays
    _PADDING = {"down": 1, "after_up": 1, "before_down": 2}

    def __init__(self, mode: Literal["down", "up", "after_up", "before_down"]) -> None:
        super().__init__()
        self.mode = mode
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        gain = 4 if mode in ("up", "after_up") else 1
        self.register_buffer("kernel", gain * torch.outer(taps, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "up":
            return enlarged(x, self.kernel)
        return filtered(x, self.kernel, 2 if self.mode == "down" else 1, self._PADDING[self.mode])


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
        return filtered(self.pad(x), self.kernel, 2)


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

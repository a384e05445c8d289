"""3x3 convolutions with fewer multiplications: Winograd's minimal filtering, F(4x4, 3x3).

Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks* (2016), equation 10: of tiles of
6x6 inputs d, 4x4 outputs Y = A^T [(G g G^T) * (B^T d B)] A, with 36 products for each pair of
channels where the sum needs 144. Forward pass and both gradients are this one bilinear form.

The points are 0, 1, -1, 1/2, -2 and infinity, whose rounding error is the smallest of the usual
ones: in float32 about seven times that of the sum (1.6e-6 of the norm, 128 channels).
"""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, library, nn
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from gansuite.ops import products
from gansuite.ops.twice import TwiceDifferentiable

TAPS, OUTPUTS = 3, 4
TILE = OUTPUTS + TAPS - 1
POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-2))
CHANNELS, TILES = 96, 96
"""Inputs, outputs and tiles from which on it is faster."""


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 0) -> Tensor:
    """``F.conv2d(x, weight, bias, 1, padding)`` for a kernel of 3x3; the same function.

    By Winograd's filtering where that pays: float32 on a CPU, many channels, sides of the output
    multiples of four. Its second derivatives are the plain convolution's.
    """
    if not _pays(x, weight, padding):
        return F.conv2d(x, weight, bias, 1, padding)
    padded = F.pad(x, (padding,) * 4) if padding else x
    y = cast(Tensor, _Filtered.apply(padded, weight))
    return y if bias is None else y + bias[:, None, None]


class Conv3x3(nn.Conv2d):
    """`conv3x3` as a layer: ``nn.Conv2d`` of 3x3 and stride 1."""

    def __init__(self, inputs: int, outputs: int, padding: int = 0, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 3, padding=padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return conv3x3(x, self.weight, self.bias, cast(int, self.padding[0]))


def _pays(x: Tensor, weight: Tensor, padding: int) -> bool:
    n, (h, w) = x.shape[0], (side + 2 * padding for side in x.shape[2:])
    return (
        products.plain(x)
        and weight.dtype == x.dtype
        and not TwiceDifferentiable.active
        and min(weight.shape[:2]) >= CHANNELS
        and (h - 2) % OUTPUTS == (w - 2) % OUTPUTS == 0
        and n * (h - 2) * (w - 2) >= TILES * OUTPUTS**2
        and products.exact()
    )


@functools.cache
def _matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """A^T (x) A^T [16, 36], G (x) G [36, 9] and B^T (x) B^T [36, 36], for maps as columns."""

    def powers(p: Fraction, n: int) -> list[Fraction]:
        return [p**i for i in range(n)]

    def product(roots: list[Fraction]) -> list[Fraction]:
        """Coefficients of the polynomial with these roots, from the constant on."""
        found = [Fraction(1)]
        for root in roots:
            shifted, scaled = [Fraction(0), *found], [*(root * c for c in found), Fraction(0)]
            found = [a - b for a, b in zip(shifted, scaled, strict=True)]
        return found

    zero = Fraction(0)
    a = [*(powers(p, OUTPUTS) for p in POINTS), [*[zero] * (OUTPUTS - 1), Fraction(1)]]
    g, b = [], []
    for p in POINTS:
        others = [q for q in POINTS if q != p]
        scale = functools.reduce(lambda product, q: product * (p - q), others, Fraction(1))
        g.append([c / scale for c in powers(p, TAPS)])
        b.append([*product(others), zero])
    g.append([*[zero] * (TAPS - 1), Fraction(1)])
    b.append(product([*POINTS]))

    def twice(rows: list[list[Fraction]]) -> Tensor:
        matrix = torch.tensor([[float(c) for c in row] for row in rows], dtype=torch.float64)
        return torch.kron(matrix, matrix).to(dtype)

    return twice(a).T.contiguous(), twice(g), twice(b)


def _times(matrix: Tensor, v: Tensor) -> Tensor:
    """[i, j] and [j, ...] -> [i, ...]."""
    return (matrix @ v.reshape(len(v), -1)).view(-1, *v.shape[1:])


def _tiles(x: Tensor) -> Tensor:
    """[N, C, H, W] -> its overlapping tiles [36, tiles, C]."""
    n, c, h, w = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    down, across = (h - 2) // OUTPUTS, (w - 2) // OUTPUTS
    strides = (w * c, c, h * w * c, OUTPUTS * w * c, OUTPUTS * c, 1)
    return x.as_strided((TILE, TILE, n, down, across, c), strides).reshape(TILE**2, -1, c)


def _from_tiles(v: Tensor, n: int, h: int, w: int) -> Tensor:
    """The transpose of `_tiles`: where tiles overlap they are added. Channels last."""
    down, across, edge = (h - 2) // OUTPUTS, (w - 2) // OUTPUTS, TILE - OUTPUTS
    v = v.view(TILE, TILE, n, down, across, -1).permute(2, 3, 0, 4, 1, 5)
    x = v.new_zeros(n, down + 1, OUTPUTS, across + 1, OUTPUTS, v.shape[-1])
    x[:, :-1, :, :-1] = v[:, :, :OUTPUTS, :, :OUTPUTS]
    x[:, :-1, :, 1:, :edge] += v[:, :, :OUTPUTS, :, OUTPUTS:]
    x[:, 1:, :edge, :-1] += v[:, :, OUTPUTS:, :, :OUTPUTS]
    x[:, 1:, :edge, 1:, :edge] += v[:, :, OUTPUTS:, :, OUTPUTS:]
    x = x.view(n, (down + 1) * OUTPUTS, (across + 1) * OUTPUTS, -1)
    return x[:, :h, :w].permute(0, 3, 1, 2)


def _outputs(y: Tensor) -> Tensor:
    """[N, O, H, W] -> its tiles, side by side, [16, tiles, O]."""
    n, o, h, w = y.shape
    y = y.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    y = y.view(n, h // OUTPUTS, OUTPUTS, w // OUTPUTS, OUTPUTS, o)
    return y.permute(2, 4, 0, 1, 3, 5).reshape(OUTPUTS**2, -1, o)


def _from_outputs(v: Tensor, n: int, h: int, w: int) -> Tensor:
    """The inverse of `_outputs`. Channels last."""
    v = v.view(OUTPUTS, OUTPUTS, n, h // OUTPUTS, w // OUTPUTS, -1)
    return v.permute(2, 3, 0, 4, 1, 5).reshape(n, h, w, -1).permute(0, 3, 1, 2)


def _laid_out(y: Tensor, like: Tensor) -> Tensor:
    last = not like.is_contiguous() and like.is_contiguous(memory_format=torch.channels_last)
    return y.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _filters(g: Tensor, weight: Tensor) -> Tensor:
    """[O, C, 3, 3] -> [36, O, C]."""
    return (g @ weight.flatten(2).flatten(0, 1).T).view(TILE**2, *weight.shape[:2])


def _forward(x: Tensor, weight: Tensor) -> Tensor:
    n, _, h, w = x.shape
    a, g, b = _matrices(x.dtype)
    with products.by_onednn():
        multiplied = torch.bmm(_times(b, _tiles(x)), _filters(g, weight).mT)
        return _laid_out(_from_outputs(_times(a, multiplied), n, h - 2, w - 2), x)


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> list[Tensor]:
    """The gradients that are wanted, of the input and of the weight."""
    n, _, h, w = x.shape
    a, g, b = _matrices(x.dtype)
    found = []
    with products.by_onednn():
        multiplied = _times(a.T, _outputs(gradient))
        if wanted[0]:
            dx = torch.bmm(multiplied, _filters(g, weight))
            found.append(_laid_out(_from_tiles(_times(b.T, dx), n, h, w), x))
        if wanted[1]:
            dweight = torch.bmm(multiplied.mT, _times(b, _tiles(x)))
            found.append((dweight.flatten(1).T @ g).view_as(weight))
    return found


# operators of their own, so that who counts FLOPs counts the convolution that they are
_operators = library.Library("gansuite", "DEF")
_operators.define("conv3x3(Tensor x, Tensor weight) -> Tensor")
_operators.define(
    "conv3x3_backward(Tensor gradient, Tensor x, Tensor weight, bool[] wanted) -> Tensor[]"
)
_operators.impl("conv3x3", _forward, "CPU")
_operators.impl("conv3x3_backward", _backward, "CPU")


@register_flop_formula(torch.ops.gansuite.conv3x3)
def _flops(x: Any, weight: Any, out_shape: Any = None, **_: Any) -> int:
    return conv_flop_count(list(x), list(weight), list(out_shape))


@register_flop_formula(torch.ops.gansuite.conv3x3_backward)
def _flops_back(gradient: Any, x: Any, weight: Any, wanted: Any, **_: Any) -> int:
    return sum(wanted) * conv_flop_count(list(x), list(weight), list(gradient))


class _Filtered(torch.autograd.Function):
    """[N, C, H, W], [O, C, 3, 3] -> [N, O, H - 2, W - 2]; H - 2 and W - 2 multiples of four."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.ops.gansuite.conv3x3(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad)
        if torch.is_grad_enabled():  # it will be differentiated again
            rest = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1, [*wanted, False])
            back = torch.ops.aten.convolution_backward
            return back(gradient, x, weight, None, *rest)[:2]
        found = iter(torch.ops.gansuite.conv3x3_backward(gradient, x, weight, wanted))
        return next(found) if wanted[0] else None, next(found) if wanted[1] else None

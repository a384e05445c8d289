"""Networks of which a gradient is differentiated again (gradient penalties, path length): the same
functions by cheaper second derivatives.

PyTorch's second derivative of a convolution computes the weight's share as a convolution by a
kernel of the size of the map, one for each group, and that of a leaky ReLU is a map of zeros,
which then goes backward through every layer in front of it. Here the second
derivative of a convolution is made of the calls of an ordinary backward pass, and nothing is
handed on where a second derivative is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from typing_extensions import Self

from gansuite.ops.products import precision


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _wanted(ctx: Any) -> list[bool]:
    """Of which tensors among the inputs this very backward pass needs the gradient."""
    found = []
    for node, _ in ctx.next_functions:
        try:
            found.append(node is not None and torch._C._will_engine_execute_node(node))
        except RuntimeError:  # a leaf whose gradient is asked for by name
            found.append(True)
    return found


class _Convolution(torch.autograd.Function):
    """A plain or a transposed convolution of [N, C, H, W]; ``how``: its arguments behind the bias,
    in the order of ``aten.convolution``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = how
        return torch.convolution(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, *of_bias = _wanted(ctx)
        dx = _InputGradient.apply(g, weight, x.detach(), ctx.how) if of_x else None
        dw = _backward(g, x, weight, ctx.how, 1) if of_weight else None
        return dx, dw, g.sum((0, 2, 3)) if any(of_bias) else None, None


class _InputGradient(torch.autograd.Function):
    """d(convolution)/d(its input ``x``) in direction ``g``: linear in ``g`` and in the weight."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, weight: Tensor, x: Tensor, how: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(g, weight)
        ctx.how = how
        return _backward(g, x, weight, how, 0)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, weight = ctx.saved_tensors
        of_g, of_weight = _wanted(ctx)[:2]
        dg = torch.convolution(v, weight, None, *ctx.how) if of_g else None
        dw = _backward(g, v, weight, ctx.how, 1) if of_weight else None
        return dg, dw, None, None


def _backward(g: Tensor, x: Tensor, weight: Tensor, how: tuple[Any, ...], of: int) -> Tensor:
    """The gradient of the input (``of`` 0) or of the weight (1)."""
    found = torch.ops.aten.convolution_backward(g, x, weight, None, *how, [of == 0, of == 1, False])
    return cast(Tensor, found[of])


class _Rectified(torch.autograd.Function):
    """ReLU (slope 0) or leaky ReLU, whose second derivative is not there rather than 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, inplace: bool) -> Tensor:
        y = (F.leaky_relu_ if inplace else F.leaky_relu)(x, slope)
        if inplace:
            ctx.mark_dirty(x)
        ctx.slope = slope
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        found = torch.ops.aten.leaky_relu_backward(g, y.detach(), ctx.slope, True)
        return cast(Tensor, found), None, None


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    if isinstance(padding, str) or x.ndim != 4:
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)
    how = (_pair(stride), _pair(padding), _pair(dilation), False, [0, 0], groups)
    return _convolution(x, weight, bias, how)


def _conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    if x.ndim != 4:
        return torch.conv_transpose2d(
            x, weight, bias, stride, padding, output_padding, groups, dilation
        )
    how = (_pair(stride), _pair(padding), _pair(dilation), True, _pair(output_padding), groups)
    return _convolution(x, weight, bias, how)


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[Any, ...]) -> Tensor:
    dtype = precision(x)  # of autocast, which a Function's derivatives do not see
    x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    return cast(Tensor, _Convolution.apply(x, weight, bias, how))


def _leaky_relu(x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    if negative_slope <= 0:  # the output does not say where the input was positive
        return F.leaky_relu(x, negative_slope, inplace)
    return cast(Tensor, _Rectified.apply(x, negative_slope, inplace))


def _relu(x: Tensor, inplace: bool = False) -> Tensor:
    return cast(Tensor, _Rectified.apply(x, 0.0, inplace))


_OWN: dict[Any, Callable[..., Tensor]] = {
    torch.conv2d: _conv2d,
    torch.conv_transpose2d: _conv_transpose2d,
    F.leaky_relu: _leaky_relu,
    F.leaky_relu_: lambda x, slope=0.01: _leaky_relu(x, slope, True),
    F.relu: _relu,
}


class TwiceDifferentiable(TorchFunctionMode):
    """Inside, what a network computes is to be differentiated twice: see the module.

    Values and both derivatives are those of PyTorch (to rounding); a third is not intended.
    """

    active: ClassVar[int] = 0  # how many are entered

    def __enter__(self) -> Self:
        TwiceDifferentiable.active += 1
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        TwiceDifferentiable.active -= 1
        super().__exit__(*error)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        own = _OWN.get(func) if torch.is_grad_enabled() else None
        return (own or func)(*args, **(kwargs or {}))

"""Products of float32 matrices by oneDNN, which on some machines takes less than half of the time
that MKL takes; PyTorch asks it only where a setting allows it to round to 16 bits."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor


def _settings() -> Any:
    """Those of such products; None where PyTorch is older than they are."""
    found = getattr(torch.backends.mkldnn, "matmul", None)
    return found if hasattr(found, "fp32_precision") else None


@contextlib.contextmanager
def by_onednn() -> Iterator[None]:
    """Inside, products of float32 matrices on a CPU are oneDNN's; see `exact`."""
    settings = _settings()
    if settings is None:
        yield
        return
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


@functools.cache
def exact() -> bool:
    """Whether this machine does not round inside `by_onednn`; one with hardware for products in 16
    bits does."""
    if _settings() is None:
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 32, 128, 128, generator=generator).unbind()
    try:
        with by_onednn():
            found = torch.bmm(a, b)
    except RuntimeError:  # a build without oneDNN
        return False
    return bool((found - torch.bmm(a.double(), b.double())).abs().max() < 1e-4)


def plain(x: Tensor) -> bool:
    """Whether ``x`` is computed with as it is: float32 on a CPU, without autocast, and not to be
    written down as a program for any machine."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def precision(x: Tensor) -> torch.dtype:
    """In which ``x`` is multiplied: its own, or autocast's."""
    where = x.device.type
    cast_ = torch.amp.is_autocast_available(where) and torch.is_autocast_enabled(where)
    return torch.get_autocast_dtype(where) if cast_ else x.dtype


def cheap(x: Tensor) -> bool:
    """Whether products with ``x``, on a CPU, are oneDNN's: in 16 bits everywhere."""
    return precision(x) == torch.bfloat16 or (plain(x) and exact())


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        with by_onednn():
            return a @ b

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        of_a, of_b = ctx.needs_input_grad
        return product(g, b.mT) if of_a else None, product(a.mT, g) if of_b else None


class _Linear(torch.autograd.Function):
    """``x @ weight.t()``, whose weight's gradient lies as the weight does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        with by_onednn():
            return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = ctx.needs_input_grad
        return product(g, weight) if of_x else None, product(g.mT, x) if of_weight else None


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b``, [n, k] and [k, m] -> [n, m], in whatever way is the fastest; the same function,
    with all its derivatives."""
    return cast(Tensor, _Product.apply(a, b)) if plain(a) and exact() else a @ b


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear(x, weight, bias)`` likewise."""
    if not (plain(x) and exact()):
        return F.linear(x, weight, bias)
    y = cast(Tensor, _Linear.apply(x, weight))
    return y if bias is None else y + bias

"""Losses are computed in full precision whatever the networks ran in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor

_MIXED: ContextVar[bool] = ContextVar("mixed", default=False)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Inside, float32 has its 23 bits also on GPUs that would otherwise convolve or multiply in
    TF32 (10 bits), PyTorch's default for convolutions. Nothing else changes."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def full(x: Tensor) -> Tensor:
    """``x`` in float32 if it has 16 bits, else ``x`` itself."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@contextlib.contextmanager
def mixed_penalties(on: bool = True) -> Iterator[None]:
    """Inside, the networks under a gradient penalty run in 16 bits where all networks do; the
    squares and sums of the gradients stay in float32."""
    token = _MIXED.set(on)
    try:
        yield
    finally:
        _MIXED.reset(token)


def penalty_precision(device: torch.device) -> AbstractContextManager[object]:
    """For the networks under a gradient penalty: `no_autocast`, unless `mixed_penalties`."""
    return nullcontext() if _MIXED.get() else no_autocast(device)


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Inside, nothing on ``device`` is turned into 16 bits."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()

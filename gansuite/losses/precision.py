"""Losses are computed in full precision whatever the networks ran in."""

from __future__ import annotations

import torch
from torch import Tensor


def full(x: Tensor) -> Tensor:
    """``x`` in float32 if it has 16 bits, else ``x`` itself."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

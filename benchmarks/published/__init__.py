"""The published training loops, written anew in plain PyTorch: no line of the authors' code, and
nothing of gansuite.

Each follows its authors in layers, losses, optimisers and order of work, down to what they compute
and do not use. Its batch lies ready in memory, so that no loader is timed. There is no mixed
precision, as they have none.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from torch import Tensor, nn


class Loop(Protocol):
    """A method in training: ``g`` and ``d`` are its networks, in one module each."""

    g: nn.Module
    d: nn.Module
    period: int
    """Iterations after which the work repeats."""

    def to(self, device: str) -> None:
        """Networks and batch, to the device."""

    def step(self) -> dict[str, Tensor]:
        """One iteration; the losses that were minimised."""


def loop(name: str, **options: Any) -> Loop:
    """The loop of the module ``name``, with the optimisers it is published with."""
    return importlib.import_module(f"published.{name}").Published(**options)

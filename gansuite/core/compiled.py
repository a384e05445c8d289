"""Networks as compiled programs (`torch.compile`) while they train."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from gansuite.errors import UserError
from gansuite.ops.twice import TwiceDifferentiable

PROGRAMS = 64
"""Of each network: with and without gradients, for every number of pictures."""


def networks(player: nn.Module) -> Iterator[nn.Module]:
    """The networks of a player, which has one or several by name."""
    if isinstance(player, nn.ModuleDict):
        for part in player.values():
            yield from networks(part)
    else:
        yield player


class Compiled:
    """Compiles the networks of ``players`` in their place, for training mode only.

    Where a loss differentiates a network twice (gradient penalties, path length) that pass is
    computed as ever, which PyTorch's compiler cannot do; so is everything while ``on`` is False.
    The module tree and the names in checkpoints stay as they are.
    """

    def __init__(self, *players: nn.Module) -> None:
        import torch._dynamo as compiler

        self.on = False
        # beyond its limit the compiler computes as ever without a word, in an order of its own
        for name in ("recompile_limit", "cache_size_limit"):  # the latter before PyTorch 2.7
            if hasattr(compiler.config, name):
                setattr(compiler.config, name, max(getattr(compiler.config, name), PROGRAMS))
        for player in players:
            for network in networks(player):
                self._compile(network)

    def _compile(self, network: nn.Module) -> None:
        program = torch.compile(network._call_impl, dynamic=False)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.on and network.training and not TwiceDifferentiable.active:
                return program(*args, **kwargs)
            return network._call_impl(*args, **kwargs)

        network._compiled_call_impl = call


class _Halves(nn.Module):
    """Compiled in two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        torch._dynamo.graph_break()
        made: torch.Tensor = self.b(x)
        return made


def _stays_frozen() -> bool:
    """Whether a network that was compiled while it was frozen is never trained: so in PyTorch 2.6
    and 2.9, whose compiler takes what follows a break for the same program."""
    with torch.random.fork_rng(devices=[]):
        halves = _Halves()
    program = torch.compile(halves, backend="aot_eager")
    for train in (False, True):
        halves.requires_grad_(train)
        program(torch.ones(1, 1, requires_grad=not train)).sum().backward()
    return halves.b.weight.grad is None


@functools.cache
def check_compiler(device: torch.device) -> None:
    """Compile next to nothing.

    Raises:
        UserError: nothing can be compiled for ``device`` here, or not rightly.
    """
    if _stays_frozen():
        raise UserError(
            f"'trainer.compile' is true, but the compiler of PyTorch {torch.__version__} would not "
            f"train a network that was frozen before; take a newer one (2.14 does), or set it to "
            f"false."
        )
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(1, device=device))
    except Exception as error:
        cause = error.__cause__ or error
        reason = (str(cause).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"'trainer.compile' is true, but nothing can be compiled here ({reason}); set it to "
            f"false, or install a C++ compiler such as g++."
        ) from error

"""Maps that are computed again in the backward pass instead of being kept (Chen et al. 2016,
arXiv:1604.06174): less memory, the same gradients, about a third more time.

Networks are made of `Block` and `Chain`; `recompute_` switches it on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from gansuite.ops.twice import TwiceDifferentiable

_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Tanh)


def recompute_(network: nn.Module) -> None:
    """From now on every `Block` of ``network``, and what lies between two activations of a `Chain`,
    keeps its input alone for the backward pass. A part with spectral norm goes on as before: each
    pass through it changes its weights."""
    if isinstance(network, (Block, Chain)):
        network.recompute = not _has(network, parametrize.ParametrizationList)
    if not isinstance(network, Block):
        for part in network.children():
            recompute_(part)


class Block(nn.Module):
    """A part of a network, of tensors that it leaves as they are."""

    recompute = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not (self.recompute and _differentiating()):
            return super().__call__(*args, **kwargs)
        return _recomputed([self], super().__call__, *args, **kwargs)


class Chain(nn.Sequential):
    """``nn.Sequential``, whose parts end with an activation."""

    recompute = False

    def forward(self, x: Any) -> Any:
        if not (self.recompute and _differentiating()):
            return super().forward(x)
        for part in _parts(self):
            if len(part) == 1:
                x = part[0](x)
            else:
                x = _recomputed(part, lambda y, part=part: _through(part, y), x)
        return x


def _through(part: Sequence[nn.Module], x: Any) -> Any:
    for layer in part:
        x = layer(x)
    return x


def _parts(chain: Chain) -> list[list[nn.Module]]:
    parts: list[list[nn.Module]] = [[]]
    for layer in chain:
        if isinstance(layer, Block):  # which is one by itself
            parts += [[layer], []]
            continue
        parts[-1].append(layer)
        if isinstance(layer, _ACTIVATIONS):
            parts.append([])
    return [part for part in parts if part]


def _differentiating() -> bool:
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _has(module: nn.Module, kind: type | tuple[type, ...]) -> bool:
    return any(isinstance(m, kind) for m in module.modules())


def _recomputed(part: Sequence[nn.Module], run: Callable[..., Any], *args: Any, **kw: Any) -> Any:
    twice = bool(TwiceDifferentiable.active)

    def contexts() -> tuple[Any, Any]:
        return nullcontext(), _OnceMore(part, twice)

    draws = any(_has(module, _DropoutNd) for module in part)
    return checkpoint(
        run, *args, use_reentrant=False, preserve_rng_state=draws, context_fn=contexts, **kw
    )


class _OnceMore:
    """Inside, layers compute what they did, and batch norms do not learn it again. Entered once for
    each backward pass."""

    def __init__(self, part: Sequence[nn.Module], twice: bool) -> None:
        self.part, self.twice = part, twice

    def __enter__(self) -> None:
        self.inside = contextlib.ExitStack()
        for module in self.part:
            self.inside.enter_context(keeping_statistics(module))
        if self.twice:
            self.inside.enter_context(TwiceDifferentiable())

    def __exit__(self, *error: Any) -> None:
        self.inside.close()


@contextlib.contextmanager
def keeping_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, batch norms (of any dimension, synchronised or not) in train mode normalise as ever,
    but do not learn what they see."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    before = [(m.momentum, m.num_batches_tracked) for m in norms]
    for m in norms:
        m.momentum = 0.0
        if m.num_batches_tracked is not None:
            m.num_batches_tracked = m.num_batches_tracked.clone()
    try:
        yield
    finally:
        for m, (momentum, seen) in zip(norms, before, strict=True):
            m.momentum, m.num_batches_tracked = momentum, seen

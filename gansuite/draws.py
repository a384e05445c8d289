"""The random numbers of a training batch."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from gansuite.rng import derive


def _on_host(seed: int, k: int) -> list[float]:
    numbers = random.Random(seed)
    return [numbers.random() for _ in range(k)]


class Draws:
    """The random numbers of one batch, for those of its samples that this process computes.

    Every call is a draw with a number of its own. Sample i of the *global* batch takes the numbers
    of a draw from a stream seeded with (``seed``, ``position``, number of the draw, i), so a
    process or a chunk makes only its own samples, and several together have what one would have.
    ``shard`` is which of the equal parts of the batch this is: a draw for n samples is about those
    from ``shard * n`` on. All processes must make the same calls in the same order.

    Tensors are drawn in float32 on ``device`` if it is a CUDA device, whose streams differ from the
    CPU's, else on the CPU; they come on ``device`` in ``dtype``. Nothing waits for a GPU.
    """

    def __init__(
        self,
        seed: int,
        *position: int,
        shard: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.seed, self.position, self.shard = seed, position, shard
        self.device, self.dtype = torch.device(device), dtype
        self._generator = torch.Generator(self.device if self.device.type == "cuda" else "cpu")
        self._calls = 0

    def randn(self, n: int, *shape: int) -> Tensor:
        """Standard normal [n, *shape]."""
        return self._samples(self._generator, n, shape, normal=True).to(self.device, self.dtype)

    def rand(self, n: int, *shape: int) -> Tensor:
        """Uniform in [0, 1), [n, *shape]."""
        return self._samples(self._generator, n, shape, normal=False).to(self.device, self.dtype)

    def chances(self, n: int, k: int) -> list[list[float]]:
        """``k`` uniform numbers for each of ``n`` samples, for decisions on the host."""
        position, first = self._next(), self.shard * n
        seeds = [derive(self.seed, "step", *position, i) for i in range(first, first + n)]
        return [_on_host(seed, k) for seed in seeds]

    def common(self, k: int) -> list[float]:
        """``k`` uniform numbers for the host, the same for all samples of the batch."""
        return _on_host(derive(self.seed, "step", *self._next()), k)

    def decided(self, make: Callable[[Draws], Tensor]) -> Tensor:
        """``make(self)``, a tensor that the host makes of numbers of its own (`chances`, `common`),
        on ``device``: what a batch is to do with it is the same for all its values, so that it can
        be recorded (`gansuite.core.graphs`). ``make`` knows nothing else of the batch."""
        return make(self).to(self.device, non_blocking=True)

    def permutation(self, n: int) -> Tensor:
        """A random order of 0 .. n-1, the same in all parts of the batch."""
        self._generator.manual_seed(derive(self.seed, "step", *self._next()))
        order = torch.randperm(n, generator=self._generator, device=self._generator.device)
        return order.to(self.device)

    def _next(self) -> tuple[int, ...]:
        self._calls += 1
        return (*self.position, self._calls)

    def _samples(
        self, generator: torch.Generator, n: int, shape: tuple[int, ...], *, normal: bool
    ) -> Tensor:
        position, first = self._next(), self.shard * n
        drawn = torch.empty(n, *shape, dtype=torch.float32, device=generator.device)
        for i, sample in enumerate(drawn.unbind(), start=first):
            generator.manual_seed(derive(self.seed, "step", *position, i))
            if normal:
                sample.normal_(generator=generator)
            else:
                sample.uniform_(generator=generator)
        return drawn

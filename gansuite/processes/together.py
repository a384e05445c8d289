"""How several processes train together: gradients are averaged for each player apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed, nn


class Together(DDPStrategy):
    """Lightning's DDP without `DistributedDataParallel` around the module.

    That one waits in every backward pass for the gradients of all parameters, searches the graph
    for those that have none, as most have where players take turns, and reduces them once per
    chunk of a batch. Here whoever steps a player calls `average` before, once. As there, parameters
    are rank 0's from the start, and buffers at every batch.
    """

    def configure_ddp(self) -> None:
        assert self.model is not None
        share(chain(self.model.parameters(), self.model.buffers()))

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        assert self.model is not None
        share(self.model.buffers())
        return super().training_step(*args, **kwargs)

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """The gradients of ``parameters`` become their mean over all processes, the same numbers in
        each; one that only some have counts as 0 in the others, one that none has stays away."""
        for group in by_type(parameters):
            there = [p.grad is not None for p in group]
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in group]
            had = grads[0].new_tensor(there)
            flat = torch.cat([*(g.flatten() for g in grads), had]).div_(self.world_size)
            distributed.all_reduce(flat)
            *means, had = flat.split([*(p.numel() for p in group), len(group)])
            if not all(there):  # only here the device is waited for
                there = (had > 0).tolist()
            for p, mean, known in zip(group, means, there, strict=True):
                # the optimiser likes parameter and gradient laid out alike
                if p.grad is not None and not p.grad.is_contiguous():
                    p.grad.copy_(mean.view_as(p))
                elif known:
                    p.grad = mean.view_as(p)


def share(tensors: Iterable[Tensor]) -> None:
    """Rank 0's values, on every process."""
    for group in by_type(tensors):
        flat = torch.cat([t.detach().flatten() for t in group])
        distributed.broadcast(flat, 0)
        for t, value in zip(group, flat.split([t.numel() for t in group]), strict=True):
            t.detach().copy_(value.view_as(t))


def by_type(tensors: Iterable[Any]) -> list[list[Any]]:
    """Those of one type and device together."""
    groups: dict[tuple[torch.dtype, torch.device], list[Any]] = {}
    for t in tensors:
        groups.setdefault((t.dtype, t.device), []).append(t)
    return list(groups.values())

"""What stands for a CUDA graph on a machine without one: every operation that a function asks for,
done again with the numbers and on the tensors it had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

READS = ("_local_scalar_dense", "nonzero", "equal", "lift_fresh", "is_nonzero")
"""What waits for a device, or takes its content from the host: neither can be part of a graph."""


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._overloadpacket.__name__
        if name in READS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        given = {x.untyped_storage().data_ptr() for x in _tensors((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        fresh = [x for x in _tensors(made) if x.untyped_storage().data_ptr() not in given]
        # aliases: shapes may be changed in place later on
        kept = tree_map_only(Tensor, Tensor.detach, (args, kwargs or {}, fresh))
        self.done.append((func, *kept))
        return made


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_flatten(tree)[0] if isinstance(x, Tensor)]


def tape_recorder() -> Callable[[Callable[[], None]], Callable[[], None]]:
    """As `gansuite.core.graphs.cuda_recorder`. That a recording does not compute is imitated: the
    first start does nothing."""

    def record(compute: Callable[[], None]) -> Callable[[], None]:
        with _Tape() as tape:
            compute()
        starts = 0

        def start() -> None:
            nonlocal starts
            starts += 1
            if starts == 1:
                return
            with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
                for func, args, kwargs, fresh in tape.done:
                    made = func(*args, **kwargs)
                    given = {x.untyped_storage().data_ptr() for x in _tensors((args, kwargs))}
                    new = [x for x in _tensors(made) if x.untyped_storage().data_ptr() not in given]
                    for x, y in zip(fresh, new, strict=True):
                        x.copy_(y)

        return start

    return record

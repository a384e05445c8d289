"""What PyTorch is asked to do: FLOPs, and how often each operation is called."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class OperationCounter(TorchDispatchMode):
    """Adds up FLOPs (2 per multiply-add) of convolutions and matrix products, and the calls of
    every operation by its name, forward and backward.

    Not `FlopCounterMode`, which raises under the ``autograd.grad`` of a gradient penalty.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        self.calls[packet.__name__] += 1
        count = flop_registry.get(packet)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        return out

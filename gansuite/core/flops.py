"""What PyTorch is asked to do: FLOPs, and how often each operation is called."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry


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
        if packet is torch.ops.aten.convolution_backward:
            self.flops += _convolution_backward(*args)
        elif count := flop_registry.get(packet):
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        return out


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, *rest: Any
) -> int:  # rest: bias, stride, padding, dilation, transposed, output padding, groups, wanted
    """As much as forward for the gradient of the input and for that of the weight, if wanted.
    PyTorch's registry counts the latter once for each group."""
    transposed, wanted = rest[4], rest[7]
    given, kernel, made = (list(tensor.shape) for tensor in (x, weight, gradient))
    return conv_flop_count(given, kernel, made, transposed) * sum(wanted[:2])

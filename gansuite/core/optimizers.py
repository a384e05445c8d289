"""The optimiser of a player, from its section of the configuration."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from gansuite.config import Optim


def build_optimizer(
    parameters: Iterable[nn.Parameter], o: Optim, fused: bool = True
) -> torch.optim.Optimizer:
    """``fused`` asks for the fused kernel of Adam."""
    parameters = list(parameters)
    if o.kind == "adam":
        return torch.optim.Adam(
            parameters,
            lr=o.lr,
            betas=(o.betas[0], o.betas[1]),
            eps=o.eps,
            weight_decay=o.weight_decay,
            fused=fused,
        )
    if o.kind == "rmsprop":
        return torch.optim.RMSprop(
            parameters,
            lr=o.lr,
            alpha=o.alpha,
            eps=o.eps,
            momentum=o.momentum,
            weight_decay=o.weight_decay,
        )
    return torch.optim.SGD(parameters, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay)

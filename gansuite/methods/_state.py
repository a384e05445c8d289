"""Putting a saved optimiser back, checked against the one it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_KEEPS: dict[type, set[str]] = {
    torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.RMSprop: {"step", "square_avg"},
}


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Take over moments and learning rates; the other settings are those of the configuration.

    Raises:
        ValueError: the state is not that of these parameters.
    """
    own = optimizer.state_dict()["param_groups"]
    saved = state["param_groups"]
    if [len(g["params"]) for g in own] != [len(g["params"]) for g in saved]:
        raise ValueError("an optimiser of other parameters")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, row in state["state"].items():
        if index >= len(parameters):
            raise ValueError(f"an optimiser of {len(parameters)} parameters has no {index}")
        for key in _KEEPS.get(type(optimizer), set()) - row.keys():
            raise ValueError(f"parameter {index} of an optimiser lacks '{key}'")
        for key, value in row.items():
            if value is None:  # a momentum that is not used
                continue
            shape = torch.Size() if key == "step" else parameters[index].shape
            if not isinstance(value, Tensor) or value.shape != shape:
                raise ValueError(f"'{key}' of parameter {index} of an optimiser has another shape")
    groups = [{**mine, "lr": old["lr"]} for mine, old in zip(own, saved, strict=True)]
    optimizer.load_state_dict({"state": dict(state["state"]), "param_groups": groups})

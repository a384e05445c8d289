"""The optimiser of a player: made from its section of the configuration, and put back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gansuite.config import Optim


def build_optimizer(
    parameters: Iterable[nn.Parameter], o: Optim, fused: bool = True, recorded: bool = False
) -> torch.optim.Optimizer:
    """``fused`` asks for the fused kernel of Adam; ``recorded``: its steps are to be part of a CUDA
    graph."""
    parameters = list(parameters)
    if o.kind == "adam":
        return torch.optim.Adam(
            parameters,
            lr=o.lr,
            betas=(o.betas[0], o.betas[1]),
            eps=o.eps,
            weight_decay=o.weight_decay,
            fused=fused,
            capturable=recorded,
        )
    if o.kind in ("rmsprop", "rmsprop_tf"):
        return (TFRMSprop if o.kind == "rmsprop_tf" else torch.optim.RMSprop)(
            parameters,
            lr=o.lr,
            alpha=o.alpha,
            eps=o.eps,
            momentum=o.momentum,
            weight_decay=o.weight_decay,
            **({"capturable": recorded} if o.kind == "rmsprop" else {}),
        )
    return torch.optim.SGD(parameters, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay)


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


class TFRMSprop(torch.optim.Optimizer):
    """RMSprop as TensorFlow has it (`tf.train.RMSPropOptimizer`, not centred).

        s <- alpha s + (1 - alpha) g^2,   s_0 = 1
        m <- momentum m + lr g / sqrt(s + eps)
        p <- p - m

    torch's begins at s_0 = 0 and adds eps to the root: its first step is lr / sqrt(1 - alpha)
    whatever the gradient, where this one's is about lr g. The two meet after some 1 / (1 - alpha)
    log(1 / g^2) steps. ``weight_decay`` is added to the gradient, as torch does.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        alpha: float = 0.9,
        eps: float = 1e-10,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum}
        super().__init__(params, {**defaults, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all parameters that have a gradient."""
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p]["square_avg"] = torch.ones_like(p)
                    if group["momentum"]:
                        self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            grads: Any = [p.grad for p in params]
            if group["weight_decay"]:
                grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
            squares = [self.state[p]["square_avg"] for p in params]
            torch._foreach_mul_(squares, group["alpha"])
            torch._foreach_addcmul_(squares, grads, grads, 1 - group["alpha"])
            roots = torch._foreach_add(squares, group["eps"])
            torch._foreach_sqrt_(roots)
            if group["momentum"]:
                moves = [self.state[p]["momentum_buffer"] for p in params]
                torch._foreach_mul_(moves, group["momentum"])
                torch._foreach_addcdiv_(moves, grads, roots, group["lr"])
                torch._foreach_sub_(params, moves)
            else:
                torch._foreach_addcdiv_(params, grads, roots, -group["lr"])
        return loss

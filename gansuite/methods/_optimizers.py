"""Optimisers that torch does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


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

"""Regularizers of critics. Weights (lambda, gamma/2) are the caller's.

All are computed in full precision, also inside autocast: squared gradients do not survive 16 bits.
With `mixed_penalties` the critic itself runs in autocast's precision, as in R3GAN's code.
TF32 is off for the penalty's value; the backward pass of its graph runs as all of training does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gansuite.draws import Draws
from gansuite.losses.precision import full, full_float32, penalty_precision
from gansuite.ops.twice import TwiceDifferentiable


def _input_gradient(critic: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs and d(their sum)/dx as [N, C*H*W]: each sample's patch outputs are summed."""
    x = full(x.detach()).requires_grad_(True)
    with penalty_precision(x.device), full_float32():
        with TwiceDifferentiable():
            outputs = full(critic(x))
        (gradient,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
    return outputs, gradient.flatten(1)


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    draws: Draws,
    center: float = 1.0,
    eps: float = 1e-16,
) -> Tensor:
    """mean (||grad D(x^)||_2 - center)^2, x^ between ``real`` and ``fake`` (Gulrajani 2017, eq. 3).

    One alpha per sample; the norm runs over C, H and W, with ``eps`` inside the root, whose
    slope at 0 is infinite. A patch critic's outputs are summed per sample, so the penalty depends
    on their number. ``center=0`` is the zero-centred penalty.
    The critic must not mix samples (no batch norm).
    """
    alpha = draws.rand(len(real), 1, 1, 1)
    x = torch.lerp(fake.detach().to(real), real.detach(), alpha.to(real))
    norm = (_input_gradient(critic, x)[1].square().sum(1) + eps).sqrt()
    return (norm - center).square().mean()


def r1(critic: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """mean over the batch of ||grad D(x)||^2, without gamma/2 (Mescheder et al. 2018).

    With fakes in place of ``real`` it is R2.
    """
    return judged_r1(critic, real)[1]


def judged_r1(critic: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The critic's outputs of ``x``, and `r1` from the same pass: for a penalty of every update."""
    outputs, gradient = _input_gradient(critic, x)
    return outputs, gradient.square().sum(1).mean()


@torch.no_grad()
def clip_weights_(module: nn.Module, c: float) -> None:
    """Clamp every parameter to [-c, c], norm layers included (Arjovsky et al. 2017)."""
    for p in module.parameters():
        p.clamp_(-c, c)

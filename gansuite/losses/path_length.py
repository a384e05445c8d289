"""Path length regularisation and the optimiser settings of lazy regularisers (StyleGAN2 §3.2,
app. B)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gansuite.draws import Draws
from gansuite.losses.precision import full_float32


def path_lengths(images: Tensor, ws: Tensor, draws: Draws) -> Tensor:
    """Length [N] of the step the generator makes in w along random image directions.

    ``images`` [N, C, H, W] must come from ``ws`` [N, L, w_dim] through a graph. With
    y ~ N(0, 1) / sqrt(H W) and g = d(images . y)/d(ws) the length is the square root of the mean
    over the L layers of sum g^2. Differentiable.
    """
    y = draws.randn(*images.shape).to(images) / (images.shape[2] * images.shape[3]) ** 0.5
    with full_float32():
        (g,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return g.square().sum(2).mean(1).sqrt()


def path_length_penalty(
    images: Tensor,
    ws: Tensor,
    mean: Tensor,
    draws: Draws,
    decay: float = 0.01,
    over_ranks: Callable[[Tensor], Tensor] = torch.clone,
) -> tuple[Tensor, Tensor, Tensor]:
    """``(penalty, new_mean, lengths)``; the penalty is the batch mean of (length - a)^2 (eq. 4).

    The running mean a (scalar) moves first, a <- a + decay (mean length - a), and the gradient
    flows through it, as in the authors' code; ``over_ranks`` makes the mean length that of all
    processes. ``new_mean`` is to be stored and given back next time. The weight of the paper (2)
    and the interval of a lazy update (4) are the caller's.
    """
    lengths = path_lengths(images, ws, draws)
    length = over_ranks(lengths.detach().mean().to(mean.dtype))
    new_mean = torch.lerp(mean, length, decay)
    penalty = (lengths - new_mean).square().mean()
    # a's share in the gradient, -2 (mean of length - a) da, with the mean of all processes in the
    # bracket; its value is 0
    through = -2 * decay * (length - new_mean) * lengths.mean()
    return penalty + (through - through.detach()), new_mean, lengths.detach()


def lazy_adam(
    lr: float, betas: tuple[float, float], interval: int
) -> tuple[float, tuple[float, float]]:
    """Learning rate and betas of Adam when a regulariser takes an extra step every ``interval``
    steps: lr k/(k+1) and beta^(k/(k+1)); unchanged for interval 0, no regulariser (app. B)."""
    share = interval / (interval + 1) if interval else 1.0
    return lr * share, (betas[0] ** share, betas[1] ** share)

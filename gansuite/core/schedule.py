"""What is trained when, and how fast: the alternation of updates and the learning rate."""

from __future__ import annotations

import math

from gansuite.config import Budget, Optim
from gansuite.errors import UserError
from gansuite.losses.path_length import lazy_adam


def player_of(update: str) -> str:
    """The player of an update: "g" of "g" and of "g.path"."""
    return update.partition(".")[0]


def critic_alternation(n_critic: int) -> tuple[tuple[str, ...], ...]:
    """``n_critic`` batches for the critic, the last of which then trains the generator too.

    Raises:
        UserError: ``n_critic`` is below 1.
    """
    if n_critic < 1:
        raise UserError(
            f"'method.n_critic' is {n_critic}; it is how many batches train the critic for each "
            f"of the generator, 1 or more."
        )
    return (("d",),) * (n_critic - 1) + (("d", "g"),)


def lr_factor(progress: float, budget: Budget) -> float:
    """Share of the base learning rate at ``progress`` (0..1 of the budget).

    Continuous: 1 until ``decay_from``, then linearly to 0. With ``decay_steps`` n, the official
    CycleGAN stairs: for epoch e of n, 1 - max(0, e + 1 - n0) / (n - n0 + 1), n0 = decay_from * n.
    """
    if budget.decay_from >= 1:
        return 1.0
    progress = min(max(progress, 0.0), 1.0)
    if budget.decay_steps is None:
        return min(1.0, (1 - progress) / (1 - budget.decay_from))
    n, n0 = budget.decay_steps, budget.decay_steps * budget.decay_from
    epoch = min(int(progress * n + 1e-9), n - 1)
    return 1 - max(0.0, epoch + 1 - n0) / (n - n0 + 1)


def cosine(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` along half a cosine as ``share`` goes from 0 to 1, then ``end``."""
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


def corrected_for_lazy(optim: Optim, every: int) -> Optim:
    """``optim`` for a player whose regulariser takes an additional step every ``every`` batches
    (StyleGAN2, appendix B); unchanged without one, and for optimisers other than Adam."""
    if not every or optim.kind != "adam":
        return optim
    lr, betas = lazy_adam(optim.lr, (optim.betas[0], optim.betas[1]), every)
    return optim.model_copy(update={"lr": lr, "betas": list(betas)})

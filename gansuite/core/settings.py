"""What a run asks of a method, beside the method's own options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gansuite.config import Budget, Ema, Optim


@dataclass(frozen=True)
class Settings:
    """How a method is trained: given to `Method.configure`, or left at these defaults.

    ``images_per_batch`` counts the real pictures of one global batch, all domains together (None:
    those of the first batch); ``optim`` has the optimiser of each player (default: Adam, 2e-4,
    betas 0.5 and 0.999); ``budget`` is what the learning rate's schedule refers to (None: the
    Trainer's ``max_steps`` or ``max_epochs``, at a constant learning rate); ``accumulate`` is the
    number of chunks a batch is computed in; ``fused`` asks for the fused kernels of Adam;
    ``graphs``: whether batches are recorded as CUDA graphs (`gansuite.core.graphs`);
    ``compile``: whether the networks are compiled (`gansuite.core.compiled`);
    ``mixed_penalties``: whether gradient penalties run in 16 bits as well; ``freeze`` names layers
    of players that are not trained (see `Experiment`).
    """

    seed: int = 0
    images_per_batch: int | None = None
    optim: Mapping[str, Optim] = field(default_factory=dict)
    budget: Budget | None = None
    ema: Ema = field(default_factory=Ema)
    accumulate: int = 1
    fused: bool = True
    graphs: bool = False
    compile: bool = False
    mixed_penalties: bool = False
    freeze: Mapping[str, Sequence[str]] = field(default_factory=dict)

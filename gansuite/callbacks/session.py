"""What the parts of one run share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gansuite.callbacks.memory import PeakMemory
from gansuite.config import Experiment
from gansuite.data.module import DataModule
from gansuite.loggers.run import Loggers
from gansuite.losses.precision import full_float32
from gansuite.methods.base import Method
from gansuite.runs import Clock, Run


@dataclass
class Session:
    """One run: its experiment, data, method, directory, loggers and clock.

    ``notes`` is what must be remembered across an interruption (plain containers), such as the
    scores so far; ``losses`` the means of the last log interval, and of no other. ``stopped`` names
    the signal that ended the run, or is "health", with ``stop_reason`` a sentence. ``interim``:
    ``last.ckpt`` was saved because the run was asked to stop, and not at an interval. ``initial``:
    on rank 0, the weights that a fresh run begins with (`callbacks.initial`).
    """

    experiment: Experiment
    data: DataModule
    method: Method
    run: Run
    clock: Clock = field(default_factory=Clock)
    peak: PeakMemory = field(default_factory=PeakMemory)
    notes: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    stopped: str = ""
    stop_reason: str = ""
    interim: bool = False
    initial: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.loggers = Loggers(self.experiment, self.run, self.data.images_per_batch)
        # the records, pictures and files are this project's: the method's own log is not read
        self.method.logs_itself = False

    @property
    def main(self) -> bool:
        """Whether this process writes."""
        return self.method.rank == 0

    @property
    def budget_images(self) -> int | None:
        kimg = self.experiment.budget.kimg
        return None if kimg is None else round(1000 * kimg)

    @property
    def finished(self) -> bool:
        """Whether the budget is used up."""
        images, method = self.budget_images, self.method
        return method.progress >= 1 if images is None else method.images_seen >= images

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Time and memory spent inside count as evaluation, and float32 means float32."""
        with self.clock.evaluating(), self.peak.evaluating(), full_float32():
            yield

    @property
    def rolls_back(self) -> bool:
        return self.experiment.health.action == "rollback"

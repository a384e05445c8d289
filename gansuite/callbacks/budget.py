"""Ends a run when its budget is used up, or when it is asked to stop."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer

from gansuite.callbacks.session import RunCallback, Session

_AGREE_EVERY = 16  # batches between two looks at one another's stop flags, under several processes


class Budget(RunCallback):
    """Stops after ``budget.kimg`` pictures or ``budget.seconds`` of training.

    SIGTERM and the first Ctrl-C end the run after the batch in hand, with a checkpoint to resume
    from; a second Ctrl-C ends it at once.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._asked = ""
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: whoever runs us handles signals
                break
        self.session.clock.start()
        if self.session.finished:  # interrupted between the last batch and the results
            trainer.should_stop = True

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = signal.Signals(number).name

    def after_batch(self, trainer: Trainer) -> None:
        method, session = self.session.method, self.session
        seconds = session.experiment.budget.seconds
        agree = method.world == 1 or method.batches % _AGREE_EVERY == 0
        if seconds is not None and agree:
            spent = torch.tensor(session.clock.now(), device=method.device)
            if method.world > 1:
                spent = trainer.strategy.broadcast(spent, src=0)
            method.progress = float(spent) / seconds
        if agree and self._anyone_asked(trainer):
            session.stopped = self._asked or "SIGTERM"
        if session.finished or session.stopped:
            trainer.should_stop = True

    def _anyone_asked(self, trainer: Trainer) -> bool:
        if self.session.method.world == 1:
            return bool(self._asked)
        flag = torch.tensor(float(bool(self._asked)), device=self.session.method.device)
        return float(trainer.strategy.reduce(flag, reduce_op="sum")) > 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.session.clock.stop()
        self._restore()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

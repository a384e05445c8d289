"""The one callback of a run: what happens before, between and after its batches, in this order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning import Callback, LightningModule, Trainer

from gansuite.callbacks import checkpoint
from gansuite.callbacks.budget import StopAtBudget
from gansuite.callbacks.cost import CountFlops, Expenses
from gansuite.callbacks.evaluate import Scorer
from gansuite.callbacks.health import Health
from gansuite.callbacks.progress import Progress
from gansuite.callbacks.results import results_of
from gansuite.callbacks.samples import name_final, save_samples
from gansuite.callbacks.session import Session
from gansuite.errors import NotFinite
from gansuite.processes import broadcast
from gansuite.runs import write_json


def crossed(every_kimg: float | None, before: int, after: int) -> bool:
    """Whether a multiple of ``every_kimg`` lies in (before, after] pictures; never for None."""
    every = None if every_kimg is None else 1000 * every_kimg
    return every is not None and after // every > before // every


class TrainingRun(Callback):
    """After each batch a run logs its losses, scores itself, judges its health (and goes back to
    its checkpoint), draws samples and saves, each where a multiple of its interval is crossed; at
    the end it does what is not done yet, and writes its results.

    An interval is in pictures, a pure function of how many were seen, and each act comes once per
    number of pictures (``notes["last_acted"]``), also across an interruption.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        e = session.experiment
        self.log_every, self.score_every = e.log.every_kimg, e.evaluate.every_kimg
        self.save_every = e.log.checkpoint_every_kimg or e.evaluate.every_kimg
        self.budget, self.flops = StopAtBudget(session), CountFlops(session)
        self.expenses, self.scorer = Expenses(session), Scorer(session)
        self.progress = Progress(session)
        self.health = Health(session, self.progress.say)

    # -- before ------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.scorer.setup(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        checkpoint.resume(self.session, trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        session = self.session
        self.budget.begin()
        if session.finished:  # interrupted between the last batch and the results
            trainer.should_stop = True
        self.expenses.begin()
        self.scorer.references()
        if session.method.batches == 0:
            self._once("sample", self.sample, trainer)
            if session.rolls_back:
                self._once("save", self.save, trainer)
        self.progress.begin()

    # -- between -----------------------------------------------------------------------------

    def on_train_batch_start(self, *_: Any) -> None:
        self.flops.begin()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        session = self.session
        self.flops.end()
        self.budget.check()
        try:
            went_back = self._after_batch(trainer)
        except NotFinite as error:
            self.health.not_finite(trainer, error)
            went_back = True
        if went_back:
            self.expenses.begin()
        if session.finished or session.stopped:
            trainer.should_stop = True
        self.progress.update()

    def _after_batch(self, trainer: Trainer) -> bool:
        """Whether the run has gone back to its checkpoint."""
        session = self.session
        logged = self._at(self.log_every, "log", self.log_losses, trainer)
        scored = self._at(self.score_every, "score", self.score, trainer)
        if session.finished and session.rolls_back:
            session.method.assert_finite()  # afterwards there is no batch left to go back from
        if (logged or scored) and self.health.look(trainer, logged):
            return True
        self._at(self.score_every, "sample", self.sample, trainer)
        self._at(self.save_every, "save", self.save, trainer)
        return False

    def _at(
        self, every_kimg: float | None, name: str, act: Callable[[Trainer], None], trainer: Trainer
    ) -> bool:
        """``act`` if this batch crossed the interval; whether it did."""
        after = self.session.method.images_seen
        if not crossed(every_kimg, after - self.session.data.images_per_batch, after):
            return False
        self._once(name, act, trainer)
        return True

    def _once(self, name: str, act: Callable[[Trainer], None], trainer: Trainer) -> None:
        last, seen = self.session.notes.setdefault("last_acted", {}), self.session.method
        if last.get(name) != seen.images_seen:
            last[name] = seen.images_seen
            act(trainer)

    # -- what it does ------------------------------------------------------------------------

    def log_losses(self, trainer: Trainer) -> None:
        """The means of all loss terms since the last time, to all loggers."""
        session = self.session
        session.losses = session.method.loss_means()
        if session.losses:
            self._log(session.losses)

    def score(self, trainer: Trainer) -> None:
        """The scores, to all loggers; the best state so far is kept in ``best.ckpt``."""
        scores, improved = self.scorer()
        self._log(scores)
        if broadcast(improved):
            checkpoint.save(self.session, trainer, self.session.run.best)

    def _log(self, values: dict[str, float]) -> None:
        session = self.session
        session.loggers.log({**values, **self.expenses.now()}, session.method.images_seen)

    def sample(self, trainer: Trainer) -> None:
        save_samples(self.session)

    def save(self, trainer: Trainer) -> None:
        """``last.ckpt``, unless the one there is to be gone back to: the last sound state is kept,
        also by a run that is interrupted. Once all rollbacks are used up, a run saves as any other,
        so that it goes on from where it stopped."""
        session, health = self.session, self.health
        if session.finished or not (health.unhealthy and health.may_roll_back):
            checkpoint.save(session, trainer, session.run.last, interim=bool(session.stopped))

    def finish(self, trainer: Trainer) -> None:
        """``results.json``, and to the loggers."""
        if self.session.main:
            results = results_of(self.session)
            write_json(self.session.run.results, results)
            self.session.loggers.results(results)

    # -- after -------------------------------------------------------------------------------

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        session = self.session
        session.clock.stop()
        if not session.stopped:
            self.budget.end()
            self._once("log", self.log_losses, trainer)
            self._once("score", self.score, trainer)
            if session.main:
                self.health.at_end()
            self._once("sample", self.sample, trainer)
            if session.main:
                name_final(session)
            # with what is noted only now, even if it was saved at the last batch
            session.notes["last_acted"].pop("save", None)
        self._once("save", self.save, trainer)  # of a run that was stopped, that is what is resumed
        if session.stopped:
            self.budget.end()  # only now: a scheduler sends several signals, none may cut that off
        else:
            self.finish(trainer)
        self.progress.end()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self.budget.end()
        self.flops.leave()
        self.health.at_failure(exception)
        self.progress.end()

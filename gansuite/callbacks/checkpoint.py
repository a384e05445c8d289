"""Checkpoints: tensors and plain containers only, replaced atomically, resumed from exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from lightning import LightningModule, Trainer

from gansuite.callbacks.session import RunCallback, Session
from gansuite.errors import UserError
from gansuite.processes import collected, told
from gansuite.runs import fitting, write_checkpoint


class Checkpoint(RunCallback):
    """Writes ``last.ckpt`` every ``every_kimg`` and at the end, also of an interrupted run.

    Lightning's own checkpoints count optimiser steps and know nothing of image pools, counters or
    the line files; this one holds all that a run depends on.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.session.rolls_back and self.session.method.batches == 0:
            self._once(trainer)

    def act(self, trainer: Trainer) -> None:
        session = self.session
        # the last sound state is kept to roll back to, also by a run that is interrupted; once all
        # rollbacks are used up, a run saves as any other, so that it goes on from where it stopped
        again = session.method.rollbacks < session.experiment.guard.retries
        if session.finished or not (session.rolls_back and session.suspect and again):
            self.save(trainer, session.run.last)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # also when stopped early: that is what is resumed; at the end of the budget with what is
        # noted only then, even if it was asked to stop at the last batch
        if not self.session.stopped:
            self.session.notes.get("acted", {}).pop(type(self).__name__, None)
        self._once(trainer)

    def save(self, trainer: Trainer, path: Path) -> None:
        """Write the state of the run to ``path`` (all ranks take part, rank 0 writes)."""
        session = self.session
        session.method.assert_finite()
        memory = collected(session.method.training_state()["memory"])
        if not session.main:
            return
        state = session.method.training_state()
        state.pop("memory")
        write_checkpoint(
            path,
            keep=session.run.previous if path == session.run.last else None,
            content={
                "experiment": session.experiment.plain(),
                "data": session.data.spec.to_dict(),
                "method": state,
                "memory": memory,
                "precision": trainer.precision_plugin.state_dict(),
                "clock": {"train": session.clock.now(), "evaluation": session.clock.evaluation},
                "lengths": session.run.lengths(),
                "notes": session.notes,
            },
        )


def newest_for_all(session: Session) -> dict[str, Any] | None:
    """The newest sound checkpoint that rank 0 sees, on every rank, as on other nodes another disk
    may lie under the same path; None when there is none."""
    content = None
    if session.main and session.run.resumable:
        content, _ = session.run.newest()
    return told(content)


def restore(session: Session, trainer: Trainer, content: dict[str, Any]) -> None:
    """Put the training state of a checkpoint back; the notes, clock and line files are left."""
    memory = session.method.own_memory(content["memory"])
    session.method.load_training_state({**content["method"], "memory": memory})
    trainer.precision_plugin.load_state_dict(content["precision"])


class Resume(RunCallback):
    """Puts the state of ``last.ckpt`` back before the first batch, where rank 0 has one."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        session = self.session
        content = newest_for_all(session)
        if content is None:
            return
        if content["data"]["digest"] != session.data.spec.digest:
            raise UserError(
                f"The pictures have changed since {session.run.path} was begun; put them back to "
                f"resume it, give another 'name=' for a new run, or remove the folder."
            )
        counters, each = content["method"]["counters"], session.method.plan.images_per_batch
        if counters["images_seen"] != counters["batches"] * each:
            raise UserError(
                f"{session.run.last} counts {counters['images_seen']} images in "
                f"{counters['batches']} batches of {each}; put the right one back, or remove "
                f"{session.run.path} to start again."
            )
        with fitting(session.run.last):
            restore(session, trainer, content)
            session.method.assert_finite()
        session.clock.train = content["clock"]["train"]
        session.clock.evaluation = content["clock"]["evaluation"]
        session.notes.update(cast(dict[str, Any], content["notes"]))
        session.data.start_batch = session.method.batches + session.notes.get("data_ahead", 0)
        if session.main:
            session.run.rewind(content["lengths"])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing to do."""

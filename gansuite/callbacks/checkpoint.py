"""Checkpoints: tensors and plain containers only, replaced atomically, resumed from exactly.

Lightning's own checkpoints count optimiser steps and know nothing of image pools, counters or the
line files; these hold all that a run depends on.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, cast

from lightning import Trainer

from gansuite.callbacks.initial import begin_with
from gansuite.callbacks.session import Session
from gansuite.errors import UserError
from gansuite.processes import broadcast, gather
from gansuite.runs import PARTS, fitting, read_checkpoint, write_checkpoint


def save(session: Session, trainer: Trainer, path: Path, interim: bool = False) -> None:
    """Write the state of the run to ``path`` (all ranks take part, rank 0 writes).

    ``interim``: of a run that stops between two intervals, to be resumed from but not gone back to,
    since a run that is not interrupted has no such state. It leaves the one of the interval.
    """
    session.method.assert_finite()
    rank_state = gather(session.method.training_state()["rank_state"])
    if not session.main:
        return
    state = session.method.training_state()
    state.pop("rank_state")
    last = path == session.run.last
    write_checkpoint(
        path,
        keep=session.run.previous if last and not session.interim else None,
        content={
            **({"interim": True} if interim else {}),
            "experiment": session.experiment.plain(),
            "data": session.data.spec.to_dict(),
            "method": state,
            "rank_state": rank_state,
            "precision": trainer.precision_plugin.state_dict(),
            "clock": {"train": session.clock.now(), "evaluation": session.clock.evaluation},
            "lengths": session.run.lengths(),
            "notes": session.notes,
        },
    )
    if last:
        session.interim = interim
        session.run.push(needed=False)


def newest_for_all(session: Session, interim: bool = True) -> dict[str, Any] | None:
    """The newest sound checkpoint that rank 0 sees, on every rank, as on other nodes another disk
    may lie under the same path; None when there is none. Without ``interim``, that of an interval,
    where there is one."""
    content = None
    if session.main and session.run.resumable:
        content, _ = session.run.newest()
        if not interim and content.get("interim"):
            with contextlib.suppress(UserError):
                content = read_checkpoint(session.run.previous, needs=PARTS)
    return broadcast(content)


def restore(session: Session, trainer: Trainer, content: dict[str, Any]) -> None:
    """Put the training state of a checkpoint back; the notes, clock and line files are left."""
    rank_state = session.method.own_part(content["rank_state"])
    session.method.load_training_state({**content["method"], "rank_state": rank_state})
    trainer.precision_plugin.load_state_dict(content["precision"])


def resume(session: Session, trainer: Trainer) -> None:
    """Put all of ``last.ckpt`` back before the first batch, where rank 0 has one; a fresh run
    begins with ``init_from``."""
    content = newest_for_all(session)
    if content is None:
        begin_with(session, broadcast(session.initial))
        return
    if content["data"]["digest"] != session.data.spec.digest:
        raise UserError(
            f"The pictures have changed since {session.run.path} was begun; put them back to "
            f"resume it, give another 'name=' for a new run, or remove the folder."
        )
    counters, each = content["method"]["counters"], session.method.settings.images_per_batch
    if counters["images_seen"] != counters["batches"] * each:
        raise UserError(
            f"{session.run.last} counts {counters['images_seen']} images in "
            f"{counters['batches']} batches of {each}; put the right one back, or remove "
            f"{session.run.path} to start again."
        )
    with fitting(session.run.last):
        restore(session, trainer, content)
        session.method.assert_finite()
    session.interim = content.get("interim", False)
    session.clock.train = content["clock"]["train"]
    session.clock.evaluation = content["clock"]["evaluation"]
    session.notes.update(cast(dict[str, Any], content["notes"]))
    session.data.start_batch = session.method.batches + session.notes.get("data_ahead", 0)
    if session.main:
        session.run.rewind(content["lengths"])

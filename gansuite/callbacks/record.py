"""Losses and scores into ``metrics.jsonl`` and ``timing.jsonl``, W&B and TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from lightning import LightningModule, Trainer

from gansuite.callbacks.session import RunCallback, Session


class Sink(Protocol):
    """Where records go beside the run's own files."""

    def log(self, record: Mapping[str, Any]) -> None: ...
    def picture(self, path: Path, images_seen: int) -> None: ...
    def finish(self, results: Mapping[str, Any] | None) -> None: ...


class Recorder:
    """Writes one record per event; used by every callback that has something to say."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sinks: list[Sink] = []
        self._at = (0, 0.0)

    def write(self, kind: str, values: Mapping[str, float]) -> None:
        """One line of values at the present ``images_seen``, on rank 0."""
        session = self.session
        if not session.main:
            return
        method = session.method
        position = {"kind": kind, "images_seen": method.images_seen}
        session.run.append(
            session.run.metrics, {**position, "batches": method.batches, **dict(values)}
        )
        timing = self._timing()
        session.run.append(session.run.timing, {**position, **timing})
        for sink in self.sinks:
            sink.log({**position, **dict(values), **{f"cost/{k}": v for k, v in timing.items()}})

    def _timing(self) -> dict[str, float]:
        session = self.session
        images, seconds = session.method.images_seen, session.clock.now()
        before_images, before_seconds = self._at
        self._at = (images, seconds)
        speed = (images - before_images) / max(seconds - before_seconds, 1e-9)
        timing = {
            "seconds": round(seconds, 3),
            "eval_seconds": round(session.clock.evaluation, 3),
            "peak_memory_mb": session.peak.megabytes()["peak_memory_mb"] or 0.0,
        }
        if images > before_images:
            timing["images_per_second"] = round(speed, 3)
        return timing

    def begin(self) -> None:
        """Speed is measured from here."""
        self._at = (self.session.method.images_seen, self.session.clock.now())

    def picture(self, path: Path) -> None:
        """A saved picture, for the sinks."""
        for sink in self.sinks:
            sink.picture(path, self.session.method.images_seen)

    def finish(self, results: Mapping[str, Any] | None) -> None:
        for sink in self.sinks:
            sink.finish(results)


class LogLosses(RunCallback):
    """Every ``log.every_kimg``: the means of all loss terms since the last time."""

    def __init__(self, session: Session, recorder: Recorder) -> None:
        super().__init__(session, session.experiment.log.every_kimg)
        self.recorder = recorder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.recorder.begin()

    def act(self, trainer: Trainer) -> None:
        values = self.session.method.loss_means()
        self.session.latest = values
        if values:
            self.recorder.write("train", values)

"""The end of a run: ``results.json``."""

from __future__ import annotations

import statistics
from typing import Any

from lightning import LightningModule, Trainer

from gansuite.callbacks.record import Recorder
from gansuite.callbacks.session import RunCallback, Session
from gansuite.evaluation.health import trend
from gansuite.evaluation.verdict import verdict
from gansuite.runs import environments, mixtures, read_lines, write_json


class Finish(RunCallback):
    """Writes ``results.json`` at the end of the budget."""

    def __init__(self, session: Session, recorder: Recorder) -> None:
        super().__init__(session)
        self.recorder = recorder

    def act(self, trainer: Trainer) -> None:
        if self.session.main:
            write_json(self.session.run.results, self.results())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if self.session.main:
            done = not self.session.stopped
            self.recorder.finish(self.results() if done else None)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if self.session.main:
            self.recorder.finish(None)

    def results(self) -> dict[str, Any]:
        """The content of ``results.json``."""
        session, notes = self.session, self.session.notes
        e, method = session.experiment, session.method
        spent, scored = session.clock.now(), session.clock.evaluation
        speeds = [
            r["images_per_second"]
            for r in read_lines(session.run.timing)
            if r["kind"] == "train" and "images_per_second" in r
        ]
        return {
            "experiment": e.name,
            "method": e.method["name"],
            "seed": e.seed,
            "data": method.spec.summary(),
            "protocol": notes["protocol"],
            "budget": e.budget.model_dump(),
            "images_seen": method.images_seen,
            "batches": method.batches,
            "updates": dict(method.update_counts),
            "final": notes["final"],
            "best": notes["best"],
            "references": notes["references"],
            "cost": {
                "seconds": round(spent, 2),
                "eval_seconds": round(scored, 2),
                "evaluation_share": round(scored / max(spent + scored, 1e-9), 4),
                "images_per_second": round(statistics.median(speeds), 3) if speeds else None,
                **session.peak.megabytes(),
                "parameters": method.parameter_counts(),
                "flops_per_image": notes.get("flops_per_image"),
            },
            "health": notes.get("health", []),
            "bit_exact": not (why := self._inexact()),
            "bit_exact_why": why,
            "verdict": verdict(
                notes["final"],
                notes["best"],
                notes["references"],
                notes.get("health", []),
                trend([r for r in read_lines(session.run.metrics) if r["kind"] == "eval"]),
            ),
        }

    def _inexact(self) -> list[str]:
        """Why the same command need not give the same bits again; [] when it must."""
        e, device = self.session.experiment, self.session.method.device.type
        why = mixtures(environments(self.session.run.path))
        if device != "cpu" and not e.trainer.deterministic:
            why.append(f"trainer.deterministic is false on {device}")
        if e.budget.seconds is not None:
            why.append("budget.seconds ends it by the clock")
        return why

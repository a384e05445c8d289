"""The end of a run: ``results.json``."""

from __future__ import annotations

import statistics
from typing import Any

from gansuite.callbacks.session import Session
from gansuite.evaluation.health import trend
from gansuite.evaluation.verdict import verdict
from gansuite.runs import environments, mixtures, read_lines


def results_of(session: Session) -> dict[str, Any]:
    """The content of ``results.json``."""
    notes, e, method = session.notes, session.experiment, session.method
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
        **({"init": notes["init"]} if "init" in notes else {}),
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
        "bit_exact": not (why := _inexact(session)),
        "bit_exact_why": why,
        "verdict": verdict(
            notes["final"],
            notes["best"],
            notes["references"],
            notes.get("health", []),
            trend([r for r in read_lines(session.run.metrics) if r["kind"] == "eval"]),
        ),
    }


def _inexact(session: Session) -> list[str]:
    """Why the same command need not give the same bits again; [] when it must."""
    e, device = session.experiment, session.method.device.type
    why = mixtures(environments(session.run.path))
    if device != "cpu" and not e.trainer.deterministic:
        why.append(f"trainer.deterministic is false on {device}")
    if e.budget.seconds is not None:
        why.append("budget.seconds ends it by the clock")
    return why

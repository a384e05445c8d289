"""A run of a comparison and how it stands, read from the files of its folder."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gansuite.compare.plan import PlannedRun
from gansuite.runs.clock import clock_text

_TAIL = 1 << 16
State = Literal["waiting", "elsewhere", "queued", "running", "done", "failed", "stopped"]


@dataclass
class Job:
    """One run and how it stands."""

    planned: PlannedRun
    state: State = "waiting"
    reason: str = ""
    last_line: float = 0.0  # when a line of it was printed
    seen: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.planned.done:
            self.state = "done"

    @property
    def path(self) -> Path:
        return self.planned.path

    @property
    def name(self) -> str:
        return f"{self.planned.row} seed {self.planned.experiment.seed}"

    def look(self) -> None:
        """Read how far the run is."""
        timing = _last(self.path / "timing.jsonl", "")
        if timing:
            self.seen.update(timing)
        self.seen["scores"] = _last(self.path / "metrics.jsonl", '"eval"')

    def cells(self, rank_by: str) -> tuple[str, str, str, str]:
        """How far it is, its speed, the time left and the scores so far; "" for what is unknown."""
        budget = self.planned.experiment.budget
        images, seconds = self.seen.get("images_seen", 0), self.seen.get("seconds", 0.0)
        speed = self.seen.get("images_per_second")
        left = None
        if budget.kimg is not None:
            progress = f"{images / 1000:.3g}/{budget.kimg:g} kimg"
            left = (1000 * budget.kimg - images) / speed if speed else None
        else:
            progress = f"{seconds:.0f}/{budget.seconds:g} s"
            left = (budget.seconds or 0) - seconds
        scores = self.seen.get("scores") or {}
        found = {k.partition("/")[0]: v for k, v in scores.items() if k.endswith(f"/{rank_by}")}
        return (
            progress,
            f"{speed:.3g} images/s" if speed else "",
            "" if left is None else clock_text(max(left, 0)),
            " ".join(f"{k} {v:.3g}" for k, v in found.items()),
        )

    def line(self, rank_by: str) -> str:
        """Such as ``cyclegan_coats seed 0  3.5/8 kimg  81 images/s  left 0:54  fd_random ...``."""
        progress, speed, left, scores = self.cells(rank_by)
        left, scores = left and f"left {left}", scores and f"{rank_by} {scores}"
        return "  ".join(part for part in (self.name, progress, speed, left, scores) if part)


def _last(file: Path, holding: str) -> dict[str, Any]:
    """The last whole record of a line file whose line holds a text; {} without."""
    try:
        with open(file, "rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - _TAIL))
            lines = f.read().decode(errors="replace").splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        if holding in line:
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    return found
    return {}

"""One run, or one outside entrant, as its files tell it: an `Entry`."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gansuite.compare import schema
from gansuite.compare.escape import one_line
from gansuite.errors import UserError

Status = Literal["done", "running", "failed", "missing"]
ERROR_FILE = "error.txt"
LOG_FILE = "log.txt"


@dataclass(frozen=True)
class Axis:
    """What is equal for all: ``kind`` kimg, seconds or pflop, and how much of it."""

    kind: Literal["kimg", "seconds", "pflop"]
    value: float

    def __str__(self) -> str:
        unit = {"kimg": "kimg", "seconds": "seconds of training", "pflop": "PFLOP"}[self.kind]
        return f"{self.value:g} {unit}"


@dataclass(frozen=True)
class Entry:
    """One run, or one outside entrant.

    ``row``: the table row it belongs to. ``status``: ``done`` has results; ``running`` was begun
    and is not at its end (it runs, or was interrupted); ``failed`` has ``error``, one sentence, and
    is ``damaged`` if that speaks of one of its files;
    ``missing`` was never begun. ``results``, ``config`` and ``environment`` are the files'
    contents, {} where there is none; ``metrics`` and ``timing`` their lines, in order.
    """

    row: str
    seed: int
    path: Path
    status: Status
    error: str = ""
    damaged: bool = False
    results: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[Mapping[str, Any], ...] = ()
    timing: tuple[Mapping[str, Any], ...] = ()

    @property
    def outside(self) -> bool:
        """Pictures made by another program: no budget, no curves, the cost that was given."""
        return bool(self.results.get("outside"))

    @property
    def origin(self) -> str:
        """Where an outside entrant is from, in two words; "" for a run."""
        if not self.outside:
            return ""
        return "published weights" if self.results.get("published") else "outside entry"

    @property
    def method(self) -> str:
        """The method's name; "" for an outside entrant."""
        return str(self.results.get("method") or self.config.get("method", {}).get("name") or "")

    @property
    def final(self) -> Mapping[str, Mapping[str, float]]:
        """comparison -> metric -> score at the end of the budget; {} unless done."""
        return self.results.get("final", {}) if self.status == "done" else {}

    @property
    def best(self) -> Mapping[str, Mapping[str, float]]:
        """As ``final``, with ``images_seen``, at the evaluation that was best; never ranked."""
        return self.results.get("best", {}) if self.status == "done" else {}

    @property
    def references(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """``do_nothing`` and ``real_vs_real`` -> comparison -> metric -> score."""
        return self.results.get("references", {})

    @property
    def cost(self) -> Mapping[str, Any]:
        """seconds, eval_seconds, images_per_second, peak_memory_mb, parameters {player: n},
        flops_per_image, evaluation_share; any of them may be missing or None."""
        return self.results.get("cost", {})

    @property
    def parameters(self) -> int | None:
        """Of all players together."""
        counts = self.cost.get("parameters")
        return sum(counts.values()) if counts else None

    @property
    def devices(self) -> int:
        """How many devices trained at once."""
        first = str(self.environment.get("device", "")).partition(" ")[0]
        return int(first) if re.fullmatch("[1-9][0-9]{0,5}", first) else 1

    @property
    def device_hours(self) -> float | None:
        """Hours of training times devices; evaluation is excluded."""
        seconds = self.cost.get("seconds")
        return None if seconds is None else seconds * self.devices / 3600

    @property
    def pflop(self) -> float | None:
        """10^15 floating-point operations of the whole training."""
        flops, images = self.cost.get("flops_per_image"), self.results.get("images_seen")
        return flops * images / 1e15 if flops and images else None

    def price(self, key: str) -> float | None:
        """What it cost: ``parameters``, ``device_hours``, ``pflop``, ``images_seen`` or a key of
        ``cost``."""
        own = {
            "parameters": self.parameters,
            "device_hours": self.device_hours,
            "pflop": self.pflop,
            "images_seen": self.results.get("images_seen"),
        }
        return own[key] if key in own else self.cost.get(key)

    @property
    def verdict(self) -> str:
        return str(self.results.get("verdict", ""))

    @property
    def health(self) -> tuple[Mapping[str, Any], ...]:
        """What went wrong on the way, in order: the events of `callbacks.health`, without those
        that only say how it stood at the end, which the verdict tells."""
        events = self.results.get("health")
        if events is None:
            events = [m for m in self.metrics if m.get("kind") == "health"]
        return tuple(e for e in events if isinstance(e, Mapping) and e.get("action") != "end")

    @property
    def grids(self) -> list[tuple[int, Path]]:
        """(images seen, picture) of the sample grids over time, without ``samples/final.jpg``."""
        found = (self.path / "samples").glob("*.jpg")
        return sorted((int(p.stem), p) for p in found if p.stem.isdecimal())

    @property
    def final_grid(self) -> Path | None:
        path = self.path / "samples" / "final.jpg"
        return path if path.is_file() else None

    def curve(self, comparison: str, metric: str) -> list[tuple[int, float | None, float]]:
        """(images seen, seconds of training, score) at every evaluation."""
        key = f"{comparison}/{metric}"
        clock = {t["images_seen"]: t.get("seconds") for t in self.timing if t["kind"] == "eval"}
        found = {m["images_seen"]: m.get(key) for m in self.metrics if m.get("kind") == "eval"}
        return [
            (x, clock.get(x), float(y))
            for x, y in sorted(found.items())
            if y is not None and math.isfinite(y)
        ]


def read_entry(path: Path, row: str = "", seed: int | None = None) -> Entry:
    """One run directory or entry folder, in whatever state it is; never raises for its content.

    ``row`` and ``seed`` default to what its files say.
    """
    config: Mapping[str, Any] = {}
    environment: Mapping[str, Any] = {}
    results: Mapping[str, Any] = {}
    metrics: tuple[Mapping[str, Any], ...] = ()
    timing: tuple[Mapping[str, Any], ...] = ()
    error = ""
    try:
        config = schema.read_config(path / "config.yaml")
        environment = schema.read_environment(path / "environment.json")
        metrics = schema.read_records(path / "metrics.jsonl")
        timing = schema.read_records(path / "timing.jsonl")
        if (path / "results.json").is_file():
            results = schema.read_results(path / "results.json")
    except UserError as refused:
        error = str(refused).rstrip(".")
    except OSError as unread:
        error = f"{path} cannot be read ({unread.strerror})"
    damaged = bool(error)
    error_file = path / ERROR_FILE
    status: Status = "missing"
    if damaged:
        status = "failed"
    elif results:
        status = "done"
    elif error_file.is_file():
        with contextlib.suppress(OSError):
            error = one_line(error_file.read_text(errors="replace"))
        status, error = "failed", error or f"{error_file} holds no reason"
    elif config or metrics:
        status = "running"
    if seed is None:
        seed = int(results.get("seed") or config.get("seed") or 0)
    return Entry(
        row=row or str(results.get("experiment") or config.get("name") or path.name),
        seed=seed,
        path=path,
        status=status,
        error=error,
        damaged=damaged,
        results=results,
        config=config,
        environment=environment,
        metrics=metrics,
        timing=timing,
    )


def find_entries(path: Path) -> list[Entry]:
    """The entries in a folder: a run (seed) directory, a folder of ``seed<k>``, an entry of
    `gansuite score`.

    Raises:
        UserError: there is none.
    """
    if any((path / f).is_file() for f in ("results.json", "config.yaml", "metrics.jsonl")):
        return [read_entry(path)]
    inside = sorted((p for p in path.glob("seed*") if p.name[4:].isdecimal()), key=_seed_of)
    if not inside:
        raise UserError(
            f"{path} holds no results: give an experiment, a run folder such as "
            f"runs/cyclegan_coats, or a folder that 'gansuite score' wrote."
        )
    return [read_entry(p, seed=_seed_of(p)) for p in inside]


def _seed_of(path: Path) -> int:
    return int(path.name[4:])

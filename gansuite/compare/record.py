"""What a run directory says, read for a page; the run may be finished, stopped or still going."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gansuite.errors import UserError
from gansuite.runs import read_lines


@dataclass
class Record:
    path: Path
    config_text: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    train: list[dict[str, Any]] = field(default_factory=list)
    evals: list[dict[str, Any]] = field(default_factory=list)
    timing: list[dict[str, Any]] = field(default_factory=list)
    grids: list[tuple[int, Path]] = field(default_factory=list)
    final: Path | None = None

    @property
    def finished(self) -> bool:
        return bool(self.results.get("final"))

    def get(self, *keys: str) -> Any:
        """An entry of the config, None when it is not there."""
        here: Any = self.config
        for key in keys:
            here = here.get(key) if isinstance(here, dict) else None
        return here


def read_record(path: Path) -> Record:
    if not path.is_dir():
        raise UserError(f"'{path}' is no run directory; give runs/<experiment>/seed<k>")
    run = Record(path)
    if (path / "config.yaml").is_file():
        run.config_text = (path / "config.yaml").read_text(encoding="utf-8")
        try:
            loaded = yaml.safe_load(run.config_text)
        except yaml.YAMLError as error:
            raise UserError(f"'{path / 'config.yaml'}' is not YAML ({error})") from error
        run.config = loaded if isinstance(loaded, dict) else {}
    run.environment = _json(path / "environment.json")
    run.results = _json(path / "results.json")
    metrics = read_lines(path / "metrics.jsonl")
    run.train = by_images(line for line in metrics if line.get("kind") == "train")
    run.evals = by_images(line for line in metrics if line.get("kind") == "eval")
    run.timing = read_lines(path / "timing.jsonl")
    if not (run.config or run.results or metrics):
        raise UserError(f"'{path}' is no run directory: it has neither config.yaml nor metrics")
    pictures = path / "samples"
    run.grids = sorted((int(p.stem), p) for p in pictures.glob("*.jpg") if p.stem.isdigit())
    if (pictures / "final.jpg").is_file():
        run.final = pictures / "final.jpg"
    elif run.grids:
        run.final = run.grids[-1][1]
    return run


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"'{path}' is not JSON ({error}); delete it and resume the run") from error
    return content if isinstance(content, dict) else {}


def by_images(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """In order of images seen, the last of equals (a resumed run may have written one twice)."""
    return [r for _, r in sorted({r["images_seen"]: r for r in records}.items())]


def clock(run: Record) -> Callable[[float], float] | None:
    """Images seen to training seconds, by straight lines between the records."""
    seconds = {float(r["images_seen"]): float(r["seconds"]) for r in run.timing if "seconds" in r}
    if len(seconds) < 2:
        return None
    images = sorted(seconds)
    return lambda x: float(np.interp(x, images, [seconds[i] for i in images]))

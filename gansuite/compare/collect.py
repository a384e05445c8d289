"""Run directories in, one `Comparison` out: everything that tables and the page need.

Rows are methods (or outside entrants), each with one `Entry` per seed. Nothing is computed from
pictures here, and nothing is written.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from gansuite.compare.stats import Standing, rank
from gansuite.config import difference as config_difference
from gansuite.errors import UserError, nearest
from gansuite.evaluation.protocol import HIGHER_IS_BETTER, Protocol
from gansuite.evaluation.protocol import difference as protocol_difference
from gansuite.evaluation.verdict import gap_closed
from gansuite.runs import read_lines

Status = Literal["done", "running", "failed", "missing"]
ERROR_FILE = "error.txt"
LOG_FILE = "log.txt"
PFLOP_TOLERANCE = 0.02
"""How far the FLOPs of two runs may lie apart: a budget is rounded to whole batches."""


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
    and is not at its end (it runs, or was interrupted); ``failed`` has ``error``, one sentence;
    ``missing`` was never begun. ``results``, ``config`` and ``environment`` are the files'
    contents, {} where there is none; ``metrics`` and ``timing`` their lines, in order.
    """

    row: str
    seed: int
    path: Path
    status: Status
    error: str = ""
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
    def method(self) -> str:
        """The method's name; "" for an outside entrant."""
        return str(self.results.get("method") or self.config.get("method", {}).get("name", ""))

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
        first = str(self.environment.get("device", "1")).partition(" ")[0]
        return int(first) if first.isdigit() else 1

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
        return sorted((int(p.stem), p) for p in found if p.stem.isdigit())

    @property
    def final_grid(self) -> Path | None:
        path = self.path / "samples" / "final.jpg"
        return path if path.is_file() else None

    def curve(self, comparison: str, metric: str) -> list[tuple[int, float | None, float]]:
        """(images seen, seconds of training, score) at every evaluation."""
        return self._series("eval", f"{comparison}/{metric}")

    def losses(self) -> dict[str, list[tuple[int, float | None, float]]]:
        """``loss/<player>/<term>`` -> (images seen, seconds, value)."""
        keys = [k for line in self.metrics if line.get("kind") == "train" for k in line]
        wanted = dict.fromkeys(k for k in keys if k.startswith("loss/"))
        return {key: self._series("train", key) for key in wanted}

    def _series(self, kind: str, key: str) -> list[tuple[int, float | None, float]]:
        clock = {
            t["images_seen"]: t.get("seconds")
            for t in self.timing
            if t.get("kind") == kind and "images_seen" in t
        }
        found = {
            m["images_seen"]: m[key]
            for m in self.metrics
            if m.get("kind") == kind and "images_seen" in m and key in m
        }
        return [(x, clock.get(x), float(y)) for x, y in sorted(found.items())]


@dataclass(frozen=True)
class Comparison:
    """Rows on equal terms.

    ``entries``: row by row, in each row by seed. ``names``: the comparisons that are scored
    ("a2b", "b2a", "gen", "to_x"), in order. ``rank_by``: the metric that ranks. ``notes``: what a
    reader must know, one sentence each (unequal budgets, failed runs, outside entrants, single
    seeds). ``unequal``: the notes that were let pass with ``--allow-unequal``. ``command``: repeats
    it all.
    """

    name: str
    title: str
    folder: Path
    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    entries: tuple[Entry, ...]
    axis: Axis | None
    rank_by: str = "fd_random"
    notes: tuple[str, ...] = ()
    unequal: tuple[str, ...] = ()
    command: str = ""

    @property
    def done(self) -> tuple[Entry, ...]:
        return tuple(e for e in self.entries if e.status == "done")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(n for e in self.done for n in e.final))

    @property
    def protocol(self) -> Mapping[str, Any]:
        """The protocol of the first done entry, ``id`` and all fields; {} before there is one."""
        return next((e.results["protocol"] for e in self.done), {})

    @property
    def data(self) -> Mapping[str, Any]:
        """``name``, ``digest`` and ``domains`` of the data."""
        return next((e.results["data"] for e in self.done), {})

    def of(self, row: str) -> tuple[Entry, ...]:
        """The entries of a row, by seed."""
        return tuple(e for e in self.entries if e.row == row)

    def metrics(self, name: str) -> tuple[str, ...]:
        """The metrics that any row has for comparison ``name``, in the protocol's order."""
        found = {m for e in self.done for m in e.final.get(name, {})}
        return tuple(m for m in HIGHER_IS_BETTER if m in found)

    def scores(self, name: str, metric: str) -> dict[str, dict[int, float]]:
        """row -> seed -> final score, for the rows that have it."""
        found: dict[str, dict[int, float]] = {}
        for e in self.done:
            value = e.final.get(name, {}).get(metric)
            if value is not None:
                found.setdefault(e.row, {})[e.seed] = float(value)
        return found

    def best_scores(self, name: str, metric: str) -> dict[str, dict[int, float]]:
        """row -> seed -> score at the best evaluation of the run: to be shown, never ranked."""
        found: dict[str, dict[int, float]] = {}
        for e in self.done:
            value = e.best.get(name, {}).get(metric)
            if value is not None:
                found.setdefault(e.row, {})[e.seed] = float(value)
        return found

    def ranking(self, name: str, metric: str | None = None) -> list[Standing]:
        """The rows of comparison ``name`` from best to worst by ``metric`` (``rank_by``).

        Raises:
            UserError: the metric has no better and worse, or is unknown.
        """
        metric = metric or self.rank_by
        check_ranking(metric)
        return rank(self.scores(name, metric), bool(HIGHER_IS_BETTER[metric]))

    def references(self, name: str) -> dict[str, dict[str, float]]:
        """The reference rows, ``do_nothing`` and ``real_vs_real``, of a generator also ``blurred``
        (`evaluation.reference_rows`) -> metric -> score."""
        rows: dict[str, dict[str, float]] = {}
        for row in (*_REFERENCES, "blurred"):
            found: dict[str, list[float]] = {}
            for e in self.done:
                for metric, value in e.references.get(row, {}).get(name, {}).items():
                    found.setdefault(metric, []).append(value)
            if found:
                rows[row] = {m: math.fsum(v) / len(v) for m, v in found.items()}
        return rows

    def gap(self, name: str, row: str, metric: str = "fd_random") -> float | None:
        """The share of the way from *do nothing* to *real vs real* that ``row`` covered, as the
        mean over its seeds; None where one of the three is missing."""
        shares = []
        for e in self.of(row):
            final = e.final.get(name, {}).get(metric)
            nothing, floor = (
                e.references.get(k, {}).get(name, {}).get(metric) for k in _REFERENCES
            )
            share = gap_closed(final, nothing, floor)
            if share is None:
                return None
            shares.append(share)
        return math.fsum(shares) / len(shares) if shares else None


_REFERENCES = ("do_nothing", "real_vs_real")


def check_ranking(metric: str) -> None:
    """Raise `UserError` for a metric that has no better and worse, or is unknown."""
    if HIGHER_IS_BETTER.get(metric) is None:
        known = [m for m, better in HIGHER_IS_BETTER.items() if better is not None]
        raise UserError(
            f"rank_by is '{metric}', by which nothing can be ranked{nearest(metric, known)} "
            f"(possible: {', '.join(known)})."
        )


def read_entry(path: Path, row: str = "", seed: int | None = None) -> Entry:
    """One run directory or entry folder, in whatever state it is; never raises for its content.

    ``row`` and ``seed`` default to what its files say.
    """
    config = _mapping(path / "config.yaml")
    environment = _mapping(path / "environment.json")
    results: dict[str, Any] = {}
    trouble = ""
    file = path / "results.json"
    if file.is_file():
        results, trouble = _results(file)
    metrics = tuple(m for m in read_lines(path / "metrics.jsonl") if isinstance(m, dict))
    timing = tuple(t for t in read_lines(path / "timing.jsonl") if isinstance(t, dict))
    told = path / ERROR_FILE
    status: Status = "missing"
    if trouble:
        status = "failed"
    elif results:
        status = "done"
    elif told.is_file():
        status, trouble = "failed", " ".join(told.read_text(errors="replace").split())
    elif config or metrics:
        status = "running"
    if seed is None:
        seed = int(results.get("seed") or config.get("seed") or 0)
    return Entry(
        row=row or str(results.get("experiment") or config.get("name") or path.name),
        seed=seed,
        path=path,
        status=status,
        error=trouble,
        results=results,
        config=config,
        environment=environment,
        metrics=metrics,
        timing=timing,
    )


def _mapping(file: Path) -> dict[str, Any]:
    """A YAML or JSON mapping; {} when it is missing or damaged."""
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _results(file: Path) -> tuple[dict[str, Any], str]:
    """The content of a results.json and "", or {} and what is wrong with it."""
    fix = f"remove {file} and run the same command again"
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        return {}, f"{file} is damaged ({type(error).__name__}); {fix}"
    if not isinstance(content, dict):
        return {}, f"{file} holds no JSON object; {fix}"
    for key, inner in (("final", ""), ("protocol", "id"), ("data", "digest"), ("budget", "")):
        if key == "budget" and content.get("outside"):
            continue
        value = content.get(key)
        if not isinstance(value, dict) or (inner and inner not in value):
            return {}, f"{file} is damaged (it has no '{key}{'.' * bool(inner)}{inner}'); {fix}"
    for name, scores in content["final"].items():
        numbers = scores.values() if isinstance(scores, dict) else [None]
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in numbers):
            return {}, f"{file} is damaged (a score of '{name}' is no finite number); {fix}"
    return content, ""


def find_entries(path: Path) -> list[Entry]:
    """The entries in a folder: a run (seed) directory, a folder of ``seed<k>``, an entry of
    `gansuite score`.

    Raises:
        UserError: there is none.
    """
    if any((path / f).is_file() for f in ("results.json", "config.yaml", "metrics.jsonl")):
        return [read_entry(path)]
    inside = sorted((p for p in path.glob("seed*") if p.name[4:].isdigit()), key=_seed_of)
    if not inside:
        raise UserError(
            f"{path} holds no results: give an experiment, a run folder such as "
            f"runs/cyclegan_coats, or a folder that 'gansuite score' wrote."
        )
    return [read_entry(p, seed=_seed_of(p)) for p in inside]


def _seed_of(path: Path) -> int:
    return int(path.name[4:])


def gather(
    name: str,
    folder: Path,
    entries: Sequence[Entry],
    *,
    title: str = "",
    axis: Axis | None = None,
    rank_by: str = "fd_random",
    command: str = "",
    allow_unequal: bool = False,
) -> Comparison:
    """Check that entries stand on equal terms and put them together.

    ``axis``: the budget that was asked for; without it that of the first done run. A row of which
    every seed failed or is missing is left out of the tables and named in ``notes``.

    Raises:
        UserError: nothing is done, two entries are the same, or (without ``allow_unequal``) they
            differ in protocol, budget, data or seeds.
    """
    rows = tuple(dict.fromkeys(e.row for e in entries))
    seen: dict[tuple[str, int], Path] = {}
    for e in entries:
        if (e.row, e.seed) in seen:
            raise UserError(
                f"{seen[e.row, e.seed]} and {e.path} are both {e.row}, seed {e.seed}; leave "
                f"one out."
            )
        seen[e.row, e.seed] = e.path
    done = [e for e in entries if e.status == "done"]
    if not done:
        reasons = [e.error for e in entries if e.error]
        told = f": {reasons[0].rstrip('.')}" if reasons else ""
        raise UserError(f"{name}: none of {len(entries)} run(s) has results{told}.")
    runs = [e for e in done if not e.outside]
    axis = axis or (axis_of(runs[0]) if runs else None)
    found = differences(entries, axis)
    if found and not allow_unequal:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UserError(
            f"{name} is not fair: {found[0]}{more}; make them equal, or give --allow-unequal to "
            f"have it noted in the table."
        )
    return Comparison(
        name=name,
        title=title or name,
        folder=folder,
        rows=rows,
        seeds=tuple(sorted({e.seed for e in entries if not e.outside})),
        entries=tuple(sorted(entries, key=lambda e: (rows.index(e.row), e.seed))),
        axis=axis,
        rank_by=rank_by,
        notes=tuple(notes(entries)),
        unequal=tuple(f"Unequal: {text}." for text in found),
        command=command,
    )


def axis_of(entry: Entry) -> Axis | None:
    """The budget in a run's results."""
    budget = entry.results.get("budget", {})
    for kind in ("kimg", "seconds"):
        if budget.get(kind) is not None:
            return Axis(kind, float(budget[kind]))
    return None


def differences(entries: Sequence[Entry], axis: Axis | None) -> list[str]:
    """What is not equal among the done entries, each in words; [] when all is fair."""
    done = [e for e in entries if e.status == "done"]
    if not done:
        return []
    first = done[0]
    found = []
    for e in done[1:]:
        found += _protocols(first, e)
        a, b = first.results["data"], e.results["data"]
        if a.get("digest") != b["digest"]:
            which = _domains(first, e) if a.get("name") == b.get("name") else ""
            found.append(
                f"the data differ, {a.get('name')} of {first.row} ({a.get('digest')}) "
                f"against {b.get('name')} of {e.row} ({b['digest']}){which}"
            )
    runs = [e for e in done if not e.outside]
    found += _budgets(runs, axis)
    found += _settings(runs)
    seeds = {e.seed for e in runs}
    for row in dict.fromkeys(e.row for e in runs):
        missing = sorted(seeds - {e.seed for e in runs if e.row == row})
        if missing:
            reason = next(
                (
                    f" ({e.error.rstrip('.')})"
                    for e in entries
                    if e.row == row and e.seed in missing and e.error
                ),
                "",
            )
            found.append(
                f"{row} has no result for seed {', '.join(map(str, missing))}, which others "
                f"have{reason}"
            )
    return list(dict.fromkeys(found))


SHARED = ("data.flip", "data.load_size", "budget.decay_from", "budget.decay_steps")
"""Settings that are one for all rows: which pictures are seen, and the learning-rate schedule."""
TOLD = ("data.batch", "trainer.precision", "ema.half_life_kimg", "guard.action")
"""Settings that rows may differ in, but not without a word."""
_OF_A_SEED = re.compile(
    r"(seed|out|name|log\..*|data\.(root|workers|sets\..*)|evaluate\.(inception|vgg)"
    r"|trainer\.(devices|num_nodes|accelerator)): "
)


def _settings(runs: Sequence[Entry]) -> list[str]:
    """Seeds of one row that are not the same method, and rows that do not share what all must."""
    found = []
    first: dict[str, Entry] = {}
    for e in runs:
        a = first.setdefault(e.row, e)
        lines = config_difference(a.config, e.config) if a.config and e.config else []
        if changed := [line for line in lines if not _OF_A_SEED.match(line)]:
            found.append(f"seeds {a.seed} and {e.seed} of {e.row} differ in {changed[0]}")
    known = [e for e in first.values() if e.config]
    for key in SHARED:
        for e in known[1:]:
            x, y = setting(known[0].config, key), setting(e.config, key)
            if x != y:
                found.append(f"{key} is {x} for {known[0].row} and {y} for {e.row}")
    return found


def setting(config: Mapping[str, Any], key: str) -> Any:
    """The value of ``section.key`` in a plain configuration; a load size of null is the size."""
    section, name = key.split(".")
    block = config.get(section, {})
    value = block.get(name)
    return block.get("size") if key == "data.load_size" and value is None else value


def _protocols(a: Entry, b: Entry) -> list[str]:
    p, q = a.results["protocol"], b.results["protocol"]
    if p["id"] == q["id"]:
        return []
    try:
        words = protocol_difference(Protocol.from_dict(p), Protocol.from_dict(q))
    except (UserError, TypeError):
        words = []
    told = "; ".join(words) or f"{p['id']} against {q['id']}, made by another version"
    return [f"the protocols of {a.row} and {b.row} differ ({told})"]


def _domains(a: Entry, b: Entry) -> str:
    """A hint where the data differ in what the config says of them."""
    x, y = a.config.get("data", {}), b.config.get("data", {})
    for key in ("domains", "train", "test", "seed", "root"):
        if x.get(key) != y.get(key):
            return f": data.{key} is {x.get(key)} and {y.get(key)}"
    return ""


def _budgets(runs: Sequence[Entry], axis: Axis | None) -> list[str]:
    if axis is None:
        return []
    found = []
    for e in runs:
        if axis.kind == "pflop":
            flops, kimg = e.cost.get("flops_per_image"), e.results["budget"].get("kimg")
            spent = flops * kimg * 1000 / 1e15 if flops and kimg else None
            if spent is None or abs(spent - axis.value) > PFLOP_TOLERANCE * axis.value:
                told = "an unknown number of" if spent is None else f"{spent:.4g}"
                found.append(f"the budget is {axis}, but {e.row} had {told} PFLOP")
            continue
        value = e.results["budget"].get(axis.kind)
        if value != axis.value:
            own = axis_of(e)
            found.append(f"the budget is {axis}, but {e.row} had {own or 'none that is known'}")
    devices = dict.fromkeys(str(e.environment.get("device", "unknown")) for e in runs)
    if axis.kind == "seconds" and len(devices) > 1:
        found.append(f"a budget in seconds on different devices ({'; '.join(devices)})")
    return found


def notes(entries: Sequence[Entry]) -> list[str]:
    """What a reader must know beside the numbers, one sentence each."""
    found = []
    for e in entries:
        if e.status == "failed":
            found.append(f"{e.row}, seed {e.seed}, failed: {e.error.rstrip('.')}.")
        elif e.status != "done":
            state = "not begun" if e.status == "missing" else "not at its end"
            found.append(f"{e.row}, seed {e.seed}, is {state} and not in the table.")
    runs = [e for e in entries if e.status == "done" and not e.outside]
    if runs and len({e.seed for e in runs}) == 1:
        found.append(
            "One seed only: chance can't be told from merit, so there are no intervals and "
            "nothing is bold."
        )
    for row in dict.fromkeys(e.row for e in entries if e.outside):
        found.append(
            f"{row} is an outside entry: its pictures were scored under this protocol; its "
            f"training and cost are as its authors gave them."
        )
    for e in runs:
        back = sum(h.get("action") == "rollback" for h in e.results.get("health", []))
        if back:
            found.append(
                f"{e.row}, seed {e.seed}, went back to a checkpoint {back} time(s): it drew more "
                f"pictures and took longer than its budget says."
            )
    for key in TOLD:
        found_of = {e.row: setting(e.config, key) for e in runs if e.config}
        values = {row: "none" if v is None else str(v) for row, v in found_of.items()}
        if len(set(values.values())) > 1:
            told = ", ".join(f"{row} {value}" for row, value in values.items())
            found.append(f"{key} differs: {told}.")
    devices = dict.fromkeys(str(e.environment.get("device", "unknown")) for e in runs)
    if len(devices) > 1:
        found.append(f"The runs were on different devices, so costs differ ({'; '.join(devices)}).")
    return found

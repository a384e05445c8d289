"""The page of one run: a run directory in, one self-contained ``report.html`` out.

The page needs no network and no script: pictures are embedded, curves are SVG. Every figure on it
is computed here; the template only lays it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gansuite.compare.cells import Cell, Column, Table, plain
from gansuite.compare.charts import Line, figure, series, thinned
from gansuite.compare.document import embed, render
from gansuite.compare.entry import Entry, read_entry
from gansuite.compare.format import (
    comparison_title,
    duration,
    flat,
    happened,
    human,
    large,
    metric,
    ordered,
    percent,
)
from gansuite.errors import UserError
from gansuite.evaluation import verdict
from gansuite.evaluation.table import DISTANCES, HEADLINE, distance
from gansuite.runs import Run, write_text

MAX_PICTURE_BYTES = 3_000_000  # of all pictures together; base64 makes 4 MB of it
MAX_GRIDS = 8  # grids over time on the page


@dataclass(frozen=True)
class Score:
    """One score of a run: at the end, at its best evaluation, and of both references."""

    name: str
    final: float
    best: float | None
    nothing: float | None
    floor: float | None

    @property
    def gap(self) -> float | None:
        """The share of the way from *do nothing* to *real vs real*: `verdict.gap_closed`."""
        squared = metric(self.name).squared
        return verdict.gap_closed(self.final, self.nothing, self.floor, squared)


def scores_of(results: Mapping[str, Any]) -> dict[str, list[Score]]:
    """The scores in ``results``, by comparison and in the order of the table of metrics."""
    references = results.get("references", {})
    found = {}
    for comparison, final in results.get("final", {}).items():
        best = results.get("best", {}).get(comparison, {})
        nothing, floor = (
            references.get(row, {}).get(comparison, {}) for row in ("do_nothing", "real_vs_real")
        )
        names = [name for name in ordered(final) if isinstance(final[name], int | float)]
        found[comparison] = [
            Score(n, *(row.get(n) for row in (final, best, nothing, floor))) for n in names
        ]
    return found


def summary_table(results: Mapping[str, Any]) -> str:
    """Plain ASCII table of the main scores for the end of a run: final beside both references."""

    def made(line: tuple[str, Score]) -> list[tuple[Column, Cell]]:
        begin, s = line
        closed = percent(s.gap, "").replace("−", "-") if s.name in DISTANCES else ""
        return [
            (Column("", words=True), Cell(begin)),
            (Column("score", words=True), Cell(s.name)),
            (Column("better", words=True), Cell(metric(s.name).better)),
            (Column("final"), Cell(human(s.final, "-"))),
            (Column("do nothing"), Cell(human(s.nothing, "-"))),
            (Column("real vs real"), Cell(human(s.floor, "-"))),
            (Column("gap closed"), Cell(closed)),
        ]

    lines = []  # (the name of the comparison on the first of its lines, score)
    for name, scores in scores_of(results).items():
        shown = [s for s in scores if s.name in HEADLINE]
        lines += [("" if i else name, s) for i, s in enumerate(shown)]
    return plain(Table.of(made, lines))


# Reading a run directory


def _read(path: Path) -> Entry:
    if not path.is_dir():
        raise UserError(f"'{path}' is no run directory; give runs/<experiment>/seed<k>")
    run = read_entry(path)
    if run.damaged:
        raise UserError(f"{run.error}.")
    if not (run.config or run.results or run.metrics or run.error):
        raise UserError(f"'{path}' is no run directory: it has neither config.yaml nor metrics")
    return run


def _records(run: Entry, kind: str) -> list[Mapping[str, Any]]:
    """In order of images seen, the last of equals (a resumed run may have written one twice)."""
    found = {r["images_seen"]: r for r in run.metrics if r.get("kind") == kind}
    return [r for _, r in sorted(found.items())]


def _setting(run: Entry, section: str, key: str) -> Any:
    block = run.config.get(section)
    return block.get(key) if isinstance(block, Mapping) else None


# Pictures


def _pictures(run: Entry) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    grids = run.grids
    last = run.final_grid or (grids[-1][1] if grids else None)
    final = embed(last, MAX_PICTURE_BYTES // 3) if last else None
    shown = last.read_bytes() if last else b""
    earlier = [(images, path) for images, path in grids if path.read_bytes() != shown]
    steps = np.linspace(0, len(earlier) - 1, MAX_GRIDS) if earlier else ()
    history = []
    for images, path in (earlier[i] for i in sorted({round(step) for step in steps})):
        picture = embed(path, 2 * MAX_PICTURE_BYTES // 3 // MAX_GRIDS)
        if picture is not None:
            caption = f"{images:,} images seen" if images else "before training"
            history.append({**picture, "caption": caption, "alt": f"Sample grid, {caption}"})
    return final, history


# Curves


def _score_lines(run: Entry, name: str, over_time: bool = False) -> list[Line]:
    found = []
    evals = _records(run, "eval")
    keys = [k for r in evals[:1] + evals[-1:] for k in r if k.endswith(f"/{name}")]
    for key in dict.fromkeys(keys):
        comparison = key.rsplit("/", 1)[0]
        points = [
            (seconds if over_time else float(images), value)
            for images, seconds, value in run.curve(comparison, name)
        ]
        known = [(x, y) for x, y in points if x is not None]
        if known:
            nothing, floor = (
                run.references.get(row, {}).get(comparison, {}).get(name)
                for row in ("do_nothing", "real_vs_real")
            )
            x, y = zip(*known, strict=True)
            found.append(Line(comparison, x, y, references=(nothing, floor)))
    return found


def _curves(run: Entry) -> list[dict[str, Any]]:
    """Groups of figures: scores, losses of each player and learning rates, and the clock."""
    train, evals = _records(run, "train"), _records(run, "eval")
    names = ordered(k.rsplit("/", 1)[1] for r in evals for k in r if "/" in k)
    note = "Dashed: do nothing. Dotted: real vs real." if run.references else ""
    scores = {}
    for name in names:
        lines = _score_lines(run, name)
        if lines:
            scores[name] = figure(metric(name).label, lines, "images seen", metric(name))
    groups: dict[str, list[str]] = {}
    for key in dict.fromkeys(k for r in train[:1] + train[-1:] for k in r if "/" in k):
        groups.setdefault(key.rsplit("/", 1)[0], []).append(key)
    losses = []
    for group, keys in groups.items():
        lines = [thinned(k[len(group) + 1 :], *series(train, k)) for k in keys]
        lines = [line for line in lines if line.x]
        if lines:
            title = {"lr": "Learning rate"}.get(group, group.replace("loss/", "Losses of "))
            losses.append(figure(title, lines, "images seen", from_zero=group == "lr"))
    times = []
    for name in [n for n in HEADLINE if n in names][:2]:
        lines = _score_lines(run, name, over_time=True)
        if lines:
            times.append(figure(metric(name).label, lines, "training seconds", metric(name)))
    x, speed = series(run.timing, "images_per_second", "seconds")
    if x:
        line = thinned("", x, speed)
        times.append(figure("Images per second", [line], "training seconds", from_zero=True))
    main = [scores[n] for n in HEADLINE if n in scores][:6] or [*scores.values()][:3]
    rest = [one for one in scores.values() if one not in main]
    found = [
        {"title": "Scores over images", "note": note, "figures": main, "more": rest},
        {"title": "Losses and learning rates", "note": "", "figures": losses, "more": []},
        {"title": "Over time", "note": "Evaluation is not counted.", "figures": times, "more": []},
    ]
    return [group for group in found if group["figures"]]


# Tables


def _scores(run: Entry) -> list[dict[str, Any]]:
    """One table per comparison; of an unfinished run, with its last evaluation as the score."""
    results = run.results
    final = dict(results.get("final") or {})
    evals = _records(run, "eval")
    last = "Final" if final else "Latest"
    if not final and evals:
        for key, value in evals[-1].items():
            if "/" in key:
                comparison, name = key.rsplit("/", 1)
                final.setdefault(comparison, {})[name] = value

    tables = []
    for comparison, scores in scores_of({**results, "final": final}).items():
        seen = results.get("best", {}).get(comparison, {}).get("images_seen")
        best = Column("Best", small=f"at {seen:,} images" if isinstance(seen, int) else "")

        def made(s: Score, best: Column = best) -> list[tuple[Column, Cell]]:
            known = metric(s.name)
            return [
                (Column("Score"), Cell(known.label, s.name, small=known.meaning, score=known)),
                (Column(last), Cell(human(s.final), s.final, strong=True)),
                (best, Cell(human(s.best), s.best)),
                (Column("Do nothing"), Cell(human(s.nothing), s.nothing)),
                (Column("Real vs real"), Cell(human(s.floor), s.floor)),
            ]

        by = distance(final[comparison])
        gap = next((s.gap for s in scores if s.name == by), None)
        tables.append(
            {
                "name": comparison,
                "title": comparison_title(comparison, results.get("data", {})),
                "by": metric(by).label,
                "gap": None if gap is None else percent(gap),
                "bar": 0 if gap is None else round(100 * min(1, max(0, gap))),
                "table": Table.of(made, scores),
            }
        )
    return tables


def _cost(run: Entry) -> list[tuple[str, str]]:
    cost = dict(run.results.get("cost") or {})
    for record in () if cost else run.timing:
        cost |= record
    counts = cost.get("parameters")
    players = counts if isinstance(counts, dict) else {}
    shown: tuple[tuple[str, Any, Callable[[Any], str]], ...] = (
        ("Training", cost.get("seconds"), duration),
        ("Evaluation", cost.get("eval_seconds"), duration),
        ("Share of evaluation", cost.get("evaluation_share"), lambda v: f"{100 * v:.1f} %"),
        ("Images per second", cost.get("images_per_second"), human),
        ("Peak memory", cost.get("peak_memory_mb"), lambda v: large(1e6 * v, "B")),
        *((f"Parameters of {player}", count, human) for player, count in players.items()),
        ("Floating-point operations per image", cost.get("flops_per_image"),
         lambda v: large(v, "FLOP")),
    )  # fmt: skip
    return [(label, show(value)) for label, value, show in shown if value is not None]


def _command(run: Entry, experiment: str, seed: Any) -> str:
    said = run.environment.get("command")
    if said:
        return said if isinstance(said, str) else " ".join(str(word) for word in said)
    return f"make exp NAME={experiment}" + (f' ARGS="seed={seed}"' if seed else "")


def _facts(run: Entry, tables: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The few numbers that stand at the top."""
    cost = run.results.get("cost") or {}
    records = [*_records(run, "train")[-1:], *_records(run, "eval")[-1:]]
    facts = [(f"of the gap closed, {t['name']}", t["gap"]) for t in tables if t["gap"]]
    if records:
        facts.append(("images seen", human(max(int(r["images_seen"]) for r in records))))
    if cost.get("seconds") is not None:
        facts.append(("of training", duration(cost["seconds"])))
    if cost.get("images_per_second") is not None:
        facts.append(("images per second", human(cost["images_per_second"])))
    if (exact := run.results.get("bit_exact")) is not None:
        why = run.results.get("bit_exact_why")
        reasons = f" ({'; '.join(map(str, why))})" if isinstance(why, list) and why else ""
        facts.append((f"bit-exact{reasons}", "yes" if exact else "not"))
    return facts


def _began(run: Entry) -> str | None:
    """What it began with, if not from scratch."""
    init = run.results.get("init")
    if init:
        return (
            f"began with the {init.get('weights')} weights of {init['experiment']} "
            f"({init['digest']})"
        )
    source = run.config.get("init_from")
    return f"began with {source}" if source else None


def _context(run: Entry) -> dict[str, Any]:
    results = run.results
    experiment = str(results.get("experiment") or run.path.resolve().parent.name)
    seed = results.get("seed", run.config.get("seed"))
    tables = _scores(run)
    config = run.path / "config.yaml"
    final, history = _pictures(run)
    about = " · ".join(
        str(part)
        for part in (
            _setting(run, "method", "name"),
            _setting(run, "data", "name"),
            f"{_setting(run, 'data', 'size')} pixels" if _setting(run, "data", "size") else None,
            f"seed {seed}" if seed is not None else None,
            _began(run),
        )
        if part is not None
    )
    finished = bool(results.get("final"))
    unfinished = "" if finished else "This run has not finished; the page shows it so far."
    return {
        "experiment": experiment,
        "about": about,
        "verdict": str(results.get("verdict") or unfinished),
        "finished": finished,
        "facts": _facts(run, tables),
        "final": final,
        "final_alt": f"Sample grid of {experiment}, rows labelled in the picture",
        "history": history,
        "tables": tables,
        "curves": _curves(run),
        "health": [happened(e) for e in run.health],
        "cost": _cost(run),
        "budget": flat(results.get("budget") or run.config.get("budget") or {}),
        "protocol": flat(results.get("protocol") or {}),
        "environment": flat(run.environment),
        "config": config.read_text(encoding="utf-8") if config.is_file() else "",
        "command": _command(run, experiment, seed),
    }


def write_report(run: Path) -> Path:
    """Read the run directory ``run`` and write its ``report.html``; returns the page's path.

    Works on a run that is still going or was stopped, with what there is. Raises UserError when
    ``run`` is no run directory, one of its files is damaged or the page cannot be written.
    """
    page = render("report.html", **_context(_read(Path(run))))
    target = Path(run) / "report.html"
    write_text(target, page)
    return target


def complete_report(run: Path) -> Path:
    """The page of a finished run, written only if the run was killed before it had one."""
    page, results = Path(run) / "report.html", Path(run) / "results.json"
    if not page.is_file() or page.stat().st_mtime_ns < results.stat().st_mtime_ns:
        Run(run).clean()
        write_report(run)
    return page

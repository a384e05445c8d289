"""The page of a comparison: one self-contained ``index.html`` that says which method is best, how
good it is and at what price.

It opens from disk with no network. Its only script makes table headers sort; without it the tables
stand as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from gansuite.compare.charts import Dot, Line, figure, mark, scatter
from gansuite.compare.collect import Comparison
from gansuite.compare.document import embed, render
from gansuite.compare.entry import Entry
from gansuite.compare.format import (
    comparison_title,
    duration,
    flat,
    happened,
    human,
    interval,
    large,
    metric,
    ordered,
    percent,
)
from gansuite.compare.stats import Standing, mean_interval
from gansuite.compare.tables import reference_label
from gansuite.evaluation.table import HEADLINE
from gansuite.evaluation.verdict import COLLAPSED
from gansuite.runs import write_text

MAX_PICTURE_BYTES = 6_000_000  # of all pictures together; base64 makes 8 MB of it
_SHOWN_BESIDE = 3  # further scores in the ranking; all of them are in the table below it
_CURVES = (*HEADLINE, "correlation")
_OWN = ("name", "seed", "out", "log.", "method.")  # config keys that are no setting of a comparison


@dataclass(frozen=True)
class _Row:
    """A method or outside entrant: its label, the number that gives it colour and marker, its
    finished runs and all of its runs."""

    key: str
    label: str
    style: int
    done: tuple[Entry, ...]
    entries: tuple[Entry, ...]

    @property
    def mark(self) -> dict[str, str]:
        return mark(self.style)

    def cost(self, get: Callable[[Entry], float | None]) -> float | None:
        """The mean over its finished runs; None where one does not know."""
        values = [get(e) for e in self.done]
        known = [float(v) for v in values if v is not None]
        return fmean(known) if known and len(known) == len(values) else None

    def cell(self, small: str = "", tag: str = "") -> dict[str, Any]:
        return _cell(self.label, self.label, mark=self.mark, small=small, tag=tag)


def _rows(c: Comparison) -> dict[str, _Row]:
    methods = {row: next((e.method for e in c.of(row) if e.method), row) for row in c.rows}
    found = {}
    for style, row in enumerate(c.rows):
        unique = list(methods.values()).count(methods[row]) == 1
        entries = c.of(row)
        done = tuple(e for e in entries if e.status == "done")
        found[row] = _Row(row, methods[row] if unique else row, style, done, entries)
    return found


def _cell(text: str, value: float | str | None = None, **more: Any) -> dict[str, Any]:
    """A table cell: what is shown, and what it is sorted by ("" is last)."""
    plain = {"small": "", "tag": "", "mark": None, "strong": False, "bar": None}
    return {"text": text, "value": "" if value is None else value, **plain, **more}


def _column(label: str, name: str = "", **more: Any) -> dict[str, Any]:
    plain = {"sorted": False, "words": False}
    return {"label": label, "score": metric(name) if name else None, **plain, **more}


def _title(c: Comparison, name: str) -> str:
    data: Mapping[str, Any] = next((e.results["data"] for e in c.done if name in e.final), {})
    return comparison_title(name, data)


def _gap(c: Comparison, name: str, row: str) -> float | None:
    gap = c.gap(name, row, c.rank_by)
    return gap if gap is None or abs(gap) < 100 else None  # no distance between the references


# The answer


def _list(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _answers(c: Comparison, rows: Mapping[str, _Row]) -> list[dict[str, str]]:
    """What stands on top: per direction the leader, then the cheapest."""
    found = []
    for name in c.names:
        ranking = c.ranking(name)
        if not ranking:
            continue
        first = ranking[0]
        gap = _gap(c, name, first.name)
        said = "comes closest to real" if len(ranking) > 1 else "is the only one scored"
        if gap is not None and gap <= 0:
            said += ", but is no closer than doing nothing"
        elif gap is not None:
            said += f" and closed {percent(gap)} of the gap"
        if first.tied:
            said += f"; {_list([rows[r].label for r in first.tied])} can't be told apart from it"
        elif first.single and len(ranking) > 1:
            said += "; with one seed this may be chance"
        found.append({"lead": _title(c, name), "strong": rows[first.name].label, "rest": said})
    seconds = {r.key: r.cost(lambda e: e.cost.get("seconds")) for r in rows.values() if r.done}
    known = {key: value for key, value in seconds.items() if value is not None}
    if len(known) > 1:
        key = min(known, key=lambda k: known[k])
        gaps = [g for g in (_gap(c, name, key) for name in c.names) if g is not None]
        rest = f"with {duration(known[key])} of training a run"
        rest += f", {percent(fmean(gaps))} of the gap closed" if gaps else ""
        found.append({"lead": "Cheapest to train", "strong": rows[key].label, "rest": rest})
    return found


# Rankings


def _mean(values: Mapping[int, float] | None) -> dict[str, Any]:
    if not values:
        return _cell("–")
    mean, low, high = mean_interval(list(values.values()))
    return _cell(interval(mean, low, high), mean)


def _ranking(c: Comparison, name: str, rows: Mapping[str, _Row]) -> dict[str, Any]:
    standings = c.ranking(name)
    metrics = ordered(c.metrics(name))
    beside = [m for m in HEADLINE if m in metrics and m != c.rank_by][:_SHOWN_BESIDE]
    best = c.best_scores(name, c.rank_by)
    scores = {m: c.scores(name, m) for m in metrics}
    references = c.references(name)
    several = len(standings) > 1
    repeated = any(not s.single for s in standings)
    columns = [
        _column("Method"),
        _column("Place", sorted=True),
        _column(metric(c.rank_by).label, c.rank_by),
        _column("Best seen"),
        *([_column("Behind the first")] if several else []),
        *([_column("Keeps its place")] if several and repeated else []),
        _column("Gap closed"),
        *(_column(metric(m).label, m) for m in beside),
    ]
    body = []
    for s in standings:
        row = rows[s.name]
        gap = _gap(c, name, s.name)
        cells = [
            row.cell(tag="" if not s.single else "1 seed", small=_tie(s, rows)),
            _cell(s.place.replace("-", "–"), s.rank),
            _cell(interval(s.mean, s.low, s.high), s.mean, strong=s.bold),
            _mean(best.get(s.name)),
        ]
        if several:
            cells.append(_difference(s))
        if several and repeated:
            cells.append(_cell(percent(s.stability), s.stability))
        bar = None if gap is None else round(100 * min(1, max(0, gap)))
        cells.append(_cell(percent(gap), gap, bar=bar))
        cells += [_mean(scores[m].get(s.name)) for m in beside]
        body.append({"cells": cells})
    foot, every = [], []
    blank = [_cell("")] * (len(columns) - 3 - len(beside))
    for key, values in references.items():
        label = _cell(reference_label(name, key).capitalize())
        numbers = {m: _cell(human(values.get(m))) for m in metrics}
        ranked = numbers.get(c.rank_by, _cell("–"))
        foot.append({"cells": [label, _cell(""), ranked, *blank, *(numbers[m] for m in beside)]})
        every.append({"cells": [label, *numbers.values()]})
    all_rows = [
        {"cells": [rows[s.name].cell(), *(_mean(scores[m].get(s.name)) for m in metrics)]}
        for s in standings
    ]
    return {
        "name": name,
        "title": _title(c, name),
        "table": {"columns": columns, "rows": body, "foot": foot},
        "all": {
            "columns": [_column("Method"), *(_column(metric(m).label, m) for m in metrics)],
            "rows": all_rows,
            "foot": every,
        },
        "meanings": [(metric(m).label, metric(m).meaning) for m in metrics if metric(m).meaning],
    }


def _tie(s: Standing, rows: Mapping[str, _Row]) -> str:
    return f"tied with {_list([rows[r].label for r in s.tied])}" if s.tied else ""


def _difference(s: Standing) -> dict[str, Any]:
    if s.difference is None:
        return _cell("–", 0 if s.rank == 1 else None)
    mean, low, high = s.difference
    small = "" if low is None or high is None else f"{_signed(low)} to {_signed(high)}"
    return _cell(_signed(mean), mean, small=small)


def _signed(value: float) -> str:
    return human(value).replace("-", "−", 1) if value < 0 else human(value)


# Pictures


def _strips(c: Comparison, name: str, rows: Mapping[str, _Row]) -> list[dict[str, Any]]:
    """The same test pictures through all methods, by rank; one group per set of inputs.

    Runs under one protocol have the same inputs, so that there are several groups only in a
    comparison that was let pass as unequal.
    """
    order = [s.name for s in c.ranking(name)]
    groups: dict[bytes, list[dict[str, Any]]] = {}
    limit = MAX_PICTURE_BYTES // max(1, len(c.names) * (len(order) + 2))

    def add(group: list[dict[str, Any]], label: str, file: Path, alt: str, **more: Any) -> None:
        picture = embed(file, limit)
        if picture is not None:
            tiles = max(1, round(picture["width"] / picture["height"]))
            small = picture["height"] <= 64
            group.append({"label": label, "alt": alt, "tiles": tiles, "small": small,
                          "mark": None, "note": "", **picture, **more})  # fmt: skip

    for key in order:
        row = rows[key]
        entry = next((e for e in row.done if _strip(e, name, "fake").is_file()), None)
        if entry is None:
            continue
        source, truth = (_strip(entry, name, kind) for kind in ("source", "truth"))
        group = groups.setdefault(source.read_bytes() if source.is_file() else b"", [])
        if not group and source.is_file():
            add(group, "input", source, "The test pictures that go in", note="test pictures")
        if truth.is_file() and not any(r["label"] == "truth" for r in group):
            add(group, "truth", truth, "The true translations of these pictures",
                note="the true translation")  # fmt: skip
        made = "The same pictures" if source.is_file() else "Pictures"
        note = f"seed {entry.seed}" if not entry.outside else "outside entry"
        add(group, row.label, _strip(entry, name, "fake"), f"{made} made by {row.label}",
            mark=row.mark, note=note)  # fmt: skip
    return [{"rows": group} for group in groups.values() if group]


def _strip(entry: Entry, name: str, kind: str) -> Path:
    return entry.path / "samples" / f"strip_{name}_{kind}.png"


# Curves


def _levels(c: Comparison, name: str, score: str) -> list[tuple[str, float]]:
    return [
        (reference_label(name, key), values[score])
        for key, values in c.references(name).items()
        if score in values
    ]


def _lines(
    c: Comparison, name: str, score: str, rows: Mapping[str, _Row], clock: float | None = None
) -> list[Line]:
    """One line per method: the mean over its seeds, the band from the lowest to the highest.

    Over images seen, or over training time in units of ``clock`` seconds (the mean of the seeds').
    """
    found = []
    for row in rows.values():
        curves = [e.curve(name, score) for e in row.done or row.entries]
        points = [{x: (seconds, y) for x, seconds, y in curve} for curve in curves if curve]
        common = sorted(set.intersection(*map(set, points))) if points else []
        if clock is not None:
            common = [x for x in common if all(p[x][0] is not None for p in points)]
        if not common:
            continue
        heights = [[p[x][1] for p in points] for x in common]
        at = [float(x) for x in common]
        if clock is not None:
            at = [fmean(p[x][0] or 0.0 for p in points) / clock for x in common]
        low, high = ([f(y) for y in heights] if len(points) > 1 else None for f in (min, max))
        found.append(Line(row.label, at, [fmean(y) for y in heights], low, high, style=row.style))
    return found


def _curves(c: Comparison, name: str, rows: Mapping[str, _Row]) -> dict[str, Any] | None:
    def drawn(score: str, clock: tuple[float, str] | None = None) -> dict[str, Any] | None:
        lines = _lines(c, name, score, rows, clock and clock[0])
        x_label = "images seen" if clock is None else f"{clock[1]} of training"
        levels = _levels(c, name, score)
        known = metric(score)
        about = f", {_title(c, name).lower()},"
        if not lines:
            return None
        return figure(known.label, lines, x_label, known, about, levels=levels, direct=True)

    seconds = [r.cost(lambda e: e.cost.get("seconds")) or 0 for r in rows.values()]
    figures = [drawn(c.rank_by), drawn(c.rank_by, _unit(max(seconds, default=0)))]
    more = [drawn(m) for m in ordered(c.metrics(name)) if m in _CURVES and m != c.rank_by]
    shown = [f for f in figures if f is not None]
    if not shown:
        return None
    return {
        "title": _title(c, name),
        "name": name,
        "figures": shown,
        "more": [f for f in more if f is not None],
    }


def _unit(seconds: float) -> tuple[float, str]:
    """(seconds in it, its name) of the unit that suits a duration."""
    if seconds < 600:
        return 1, "seconds"
    return (60, "minutes") if seconds < 4 * 3600 else (3600, "hours")


# Cost

Get = Callable[[Entry], float | None]


def _device(c: Comparison) -> str:
    kinds = {str(e.environment.get("device", "")) for e in c.done if not e.outside}
    if all("cpu" in kind for kind in kinds):
        return "CPU"
    return "GPU" if all("cpu" not in kind for kind in kinds) else "device"


def _device_seconds(e: Entry) -> float | None:
    return None if e.device_hours is None else 3600 * e.device_hours


def _prices(c: Comparison, rows: Mapping[str, _Row]) -> list[tuple[str, Get]]:
    """(axis label, what it shows) of the scatter charts."""

    def per_image(e: Entry) -> float | None:
        flops = e.cost.get("flops_per_image")
        return None if flops is None else flops / 1e9

    size, unit = _unit(max((r.cost(_device_seconds) or 0 for r in rows.values()), default=0))
    return [
        ("images per second", lambda e: e.cost.get("images_per_second")),
        (f"{_device(c)} {unit} of training", lambda e: (v := _device_seconds(e)) and v / size),
        ("peak memory, MB", lambda e: e.cost.get("peak_memory_mb")),
        ("parameters", lambda e: e.parameters),
        ("GFLOP per image", per_image),
    ]


def _scatters(c: Comparison, name: str, rows: Mapping[str, _Row]) -> dict[str, Any] | None:
    scores = c.scores(name, c.rank_by)
    known = metric(c.rank_by)
    figures: list[dict[str, Any]] = []
    for label, get in _prices(c, rows):
        dots = []
        for key, values in scores.items():
            x = rows[key].cost(get)
            if x is None:
                continue
            ys = [*values.values()]
            dots.append(Dot(rows[key].label, x, fmean(ys), min(ys), max(ys), rows[key].style))
        if len(dots) > 1:
            words = "; ".join(f"{d.name} at {human(d.x)} with {human(d.y)}" for d in dots)
            title = f"{known.label} against {label}"
            salt = f"{title}/{name}"
            figures.append(
                {
                    "title": f"Against {label}",
                    "score": None,
                    "legend": [],
                    "label": f"{title}, {_title(c, name)}: {words}",
                    "svg": scatter(dots, label, known.label, salt, _levels(c, name, c.rank_by)),
                }
            )
    return {"title": _title(c, name), "name": name, "figures": figures} if figures else None


def _cost(c: Comparison, rows: Mapping[str, _Row]) -> dict[str, Any]:
    def cost(key: str) -> Get:
        return lambda e: e.cost.get(key)

    several = any(e.devices > 1 for e in c.done)

    def size(unit: str, scale: float = 1) -> Callable[[float], str]:
        return lambda v: large(scale * v, unit)

    prices: list[tuple[str, Get, Callable[[float], str]]] = [
        ("Training a run", cost("seconds"), duration),
        *([(f"{_device(c)} time", _device_seconds, duration)] if several else []),
        ("Images per second", cost("images_per_second"), human),
        ("Peak memory", cost("peak_memory_mb"), size("B", 1e6)),
        ("Parameters", lambda e: e.parameters, large),
        ("FLOPs per image", cost("flops_per_image"), size("FLOP")),
        ("FLOPs of a run", lambda e: (p := e.pflop) and 1e15 * p, size("FLOP")),
        ("Images seen", lambda e: e.results.get("images_seen"), lambda v: human(round(v))),
        ("Share of evaluation", cost("evaluation_share"), lambda v: f"{100 * v:.1f} %"),
    ]
    body = []
    for row in (r for r in rows.values() if r.done):
        cells = [row.cell(small="as its authors gave it" if row.done[0].outside else "")]
        for label, get, show in prices:
            value = row.cost(get)
            players = row.done[0].cost.get("parameters") if label == "Parameters" else None
            small = ", ".join(f"{k} {large(n)}" for k, n in (players or {}).items())
            cells.append(_cell("–" if value is None else show(value), value, small=small))
        body.append({"cells": cells})
    columns = [_column("Method"), *(_column(label) for label, *_ in prices)]
    used = [i for i in range(len(columns)) if any(r["cells"][i]["text"] != "–" for r in body)]
    return {
        "columns": [columns[i] for i in used],
        "rows": [{"cells": [r["cells"][i] for i in used]} for r in body],
        "foot": [],
    }


# Health


def _collapse(e: Entry) -> str:
    """From when on a generator was collapsed until the end, by the rule of the verdict."""
    found = []
    for name in e.final:
        curve = e.curve(name, "diversity")
        since = None
        for x, _, value in reversed(curve):
            if value >= COLLAPSED:
                break
            since = x
        if since is not None:
            start = "the start" if since == curve[0][0] else f"{since:,} images"
            found.append(f"{name} from {start} on")
    return f"collapsed: {_list(found)}" if found else ""


def _health(c: Comparison, rows: Mapping[str, _Row]) -> dict[str, Any]:
    body = []
    for row in rows.values():
        for e in row.entries:
            if e.status == "done":
                state, good = e.verdict, e.verdict.startswith("learned")
            else:
                told = {"failed": e.error, "running": "not at its end", "missing": "not begun"}
                state, good = told[e.status], False
            glyph = "✓" if good else "!"
            events = [happened(h)[0] for h in e.health]
            if not any(h.get("event") == "collapse" for h in e.health):
                events += filter(None, [_collapse(e)])
            scores = [e.final.get(name, {}).get(c.rank_by) for name in c.names]
            body.append(
                {
                    "cells": [
                        row.cell(),
                        _cell("–" if e.outside else f"{e.seed}", e.seed),
                        _cell(state, state, small="; ".join(events), glyph=glyph, good=good),
                        *(_cell(human(v), v) for v in scores),
                        _cell(_best_at(e, c), None),
                    ]
                }
            )
    ranked = [_column(f"{metric(c.rank_by).label}, {name}", c.rank_by) for name in c.names]
    columns = [_column("Method"), _column("Seed"), _column("How it ended", words=True), *ranked]
    return {"columns": [*columns, _column("Best seen at")], "rows": body, "foot": []}


def _best_at(e: Entry, c: Comparison) -> str:
    seen = {n: row.get("images_seen") for n, row in e.best.items()}
    values = {v for v in seen.values() if v is not None}
    return f"{human(int(values.pop()))} images" if len(values) == 1 else "–"


# Settings


def _settings(rows: Mapping[str, _Row]) -> dict[str, Any]:
    """Config keys that differ between methods as a table, those that do not, and method blocks."""
    configs = [
        (row, dict(flat(e.config)))
        for row in rows.values()
        if (e := next((e for e in row.entries if e.config), None)) is not None
    ]
    keys = dict.fromkeys(k for _, config in configs for k in config if not k.startswith(_OWN))
    apart, same = [], []
    for key in keys:
        values = [config.get(key, "–") for _, config in configs]
        if len(set(values)) > 1:
            apart.append({"cells": [_cell(key, key), *(_cell(v, v) for v in values)]})
        else:
            same.append((key, values[0]))
    prefix = "method."
    methods = [
        (row, [(k[len(prefix) :], v) for k, v in config.items() if k.startswith(prefix)])
        for row, config in configs
    ]
    columns = [_column("Setting"), *(_column(row.label) for row, _ in configs)]
    return {
        "differ": {"columns": columns, "rows": apart, "foot": []},
        "same": same,
        "methods": [(row, pairs) for row, pairs in methods if pairs],
    }


def _versions(c: Comparison, rows: Mapping[str, _Row]) -> list[tuple[str, str]]:
    """What the runs ran on; a value that is not the same for all says whose it is."""
    found: dict[str, dict[str, list[str]]] = {}
    for e in c.done:
        for key, value in flat(e.environment):
            if key != "command":
                found.setdefault(key, {}).setdefault(value, []).append(rows[e.row].label)
    return [
        (
            key.removeprefix("packages."),
            "; ".join(
                value if len(values) == 1 else f"{value} ({', '.join(dict.fromkeys(who))})"
                for value, who in values.items()
            ),
        )
        for key, values in found.items()
    ]


def _context(c: Comparison) -> dict[str, Any]:
    rows = _rows(c)
    protocol = dict(c.protocol)
    seeds = ", ".join(map(str, c.seeds))
    facts = [
        ("methods", human(len([r for r in rows.values() if r.done]))),
        ("seeds each" if len(c.seeds) != 1 else "seed each", human(len(c.seeds))),
        ("budget of a run", str(c.axis) if c.axis else "–"),
        ("test pictures at most", human(protocol.get("samples"))),
    ]
    about = " · ".join(
        part
        for part in (
            str(c.data.get("name", "")),
            f"{protocol['size']} pixels" if "size" in protocol else "",
            f"seed{'s' * (len(c.seeds) != 1)} {seeds}" if seeds else "",
            f"protocol {protocol['id']}" if "id" in protocol else "",
        )
        if part
    )
    names = c.names
    galleries = [{"name": n, "title": _title(c, n), "groups": _strips(c, n, rows)} for n in names]
    return {
        "title": c.title or c.name,
        "about": about,
        "answers": _answers(c, rows),
        "unequal": c.unequal,
        "notes": c.notes,
        "facts": facts,
        "rank_by": metric(c.rank_by),
        "rankings": [_ranking(c, n, rows) for n in names],
        "galleries": [g for g in galleries if g["groups"]],
        "curves": [found for n in names if (found := _curves(c, n, rows))],
        "scatters": [found for n in names if (found := _scatters(c, n, rows))],
        "several_seeds": len(c.seeds) > 1,
        "cost": _cost(c, rows),
        "health": _health(c, rows),
        "settings": _settings(rows),
        "versions": _versions(c, rows),
        "protocol": flat(protocol),
        "protocol_id": protocol.get("id", ""),
        "data": flat(c.data),
        "command": c.command,
    }


def write_page(comparison: Comparison, folder: Path) -> Path:
    """Write ``index.html`` of a comparison into ``folder`` and return its path.

    Raises UserError when the page cannot be written.
    """
    target = Path(folder) / "index.html"
    write_text(target, render("page.html", script="sort.js", **_context(comparison)))
    return target

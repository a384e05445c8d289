"""The tables on the page of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gansuite.compare.cells import Cell, Column, Table
from gansuite.compare.charts import mark
from gansuite.compare.collect import ComparedRuns, Row
from gansuite.compare.curves import device_kind
from gansuite.compare.entry import Entry
from gansuite.compare.format import (
    duration,
    flat,
    happened,
    human,
    interval,
    large,
    listed,
    metric,
    ordered,
    percent,
)
from gansuite.compare.stats import Standing
from gansuite.compare.tables import Interval, Line, beside, leaderboard, reference_label
from gansuite.evaluation.verdict import COLLAPSED

_SHOWN_BESIDE = 3  # further scores in the ranking; all of them are in the table below it
_OWN = ("name", "seed", "out", "log.", "method.")  # config keys that are no setting of a comparison


def _method(row: Row, small: str = "", tag: str = "") -> Cell:
    published = "published weights" if row.origin == "published weights" else ""
    tag = ", ".join(filter(None, (published, tag)))
    return Cell(row.label, row.label, mark=mark(row.style), small=small, tag=tag)


def _mean(found: Interval | None) -> Cell:
    return Cell(interval(*found), found[0]) if found else Cell("–")


def ranking(c: ComparedRuns, name: str) -> dict[str, Any]:
    """Comparison ``name``: the ranking, and below it all scores with what they mean."""
    lines, references = leaderboard(c, name)
    several = len(lines) > 1
    repeated = several and any(x.standing and not x.standing.single for x in lines)
    metrics = ordered(c.metrics(name))

    def scores(x: Line, shown: Sequence[str]) -> list[tuple[Column, Cell]]:
        return [(_metric(m), _mean(x.scores.get(m))) for m in shown]

    def main(x: Line) -> list[tuple[Column, Cell]]:
        s = x.standing
        ranked = replace(_mean(x.scores.get(c.rank_by)), strong=x.bold)
        bar = None if x.gap is None else round(100 * min(1, max(0, x.gap)))
        behind = (Column("Behind the first"), _difference(s) if s else Cell())
        keeps = (
            Column("Keeps its place"),
            Cell(percent(s.stability), s.stability) if s else Cell(),
        )
        return [
            (Column("Method"), _who(c, x)),
            (
                Column("Place", sorted=True),
                Cell(s.place.replace("-", "–"), s.rank) if s else Cell(),
            ),
            (_metric(c.rank_by), ranked),
            (Column("Best seen"), _mean(x.best) if s else Cell()),
            *([behind] if several else []),
            *([keeps] if repeated else []),
            (Column("Gap closed"), Cell(percent(x.gap), x.gap, bar=bar) if s else Cell()),
            *scores(x, beside(c, name, _SHOWN_BESIDE)),
        ]

    def every(x: Line) -> list[tuple[Column, Cell]]:
        return [(Column("Method"), replace(_who(c, x), small="", tag="")), *scores(x, metrics)]

    return {
        "name": name,
        "title": c.heading(name),
        "table": Table.of(main, lines, references),
        "all": Table.of(every, lines, references),
        "meanings": [(metric(m).label, metric(m).meaning) for m in metrics if metric(m).meaning],
    }


def _metric(name: str) -> Column:
    return Column(metric(name).label, metric(name))


def _who(c: ComparedRuns, x: Line) -> Cell:
    if x.row is None or x.standing is None:
        return Cell(reference_label(x.name, x.key).capitalize())
    tied = listed([c.table_rows[r].label for r in x.standing.tied])
    return _method(x.row, f"tied with {tied}" if tied else "", "1 seed" * x.standing.single)


def _difference(s: Standing) -> Cell:
    if s.difference is None:
        return Cell("–", 0 if s.rank == 1 else None)
    mean, low, high = s.difference
    small = "" if low is None or high is None else f"{_signed(low)} to {_signed(high)}"
    return Cell(_signed(mean), mean, small=small)


def _signed(value: float) -> str:
    return human(value).replace("-", "−", 1) if value < 0 else human(value)


_PRICES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("Training a run", "seconds", duration),
    ("Device time", "device_hours", lambda v: duration(3600 * v)),
    ("Images per second", "images_per_second", human),
    ("Peak memory", "peak_memory_mb", lambda v: large(1e6 * v, "B")),
    ("Parameters", "parameters", large),
    ("FLOPs per image", "flops_per_image", lambda v: large(v, "FLOP")),
    ("FLOPs of a run", "pflop", lambda v: large(1e15 * v, "FLOP")),
    ("Images seen", "images_seen", lambda v: human(round(v))),
    ("Share of evaluation", "evaluation_share", lambda v: f"{100 * v:.1f} %"),
)


def cost(c: ComparedRuns) -> Table:
    """What a run of each method costs, as means over its seeds; without what nobody knows."""
    several = any(e.devices > 1 for e in c.done)

    def made(row: Row) -> list[tuple[Column, Cell]]:
        found = [(Column("Method"), _method(row, "as its authors gave it" * row.outside))]
        for label, key, show in _PRICES:
            value = row.cost(key)
            players = row.done[0].cost.get("parameters") if key == "parameters" else None
            small = ", ".join(f"{k} {large(n)}" for k, n in (players or {}).items())
            cell = Cell("–" if value is None else show(value), value, small=small)
            if key != "device_hours":
                found.append((Column(label), cell))
            elif several:
                found.append((Column(f"{device_kind(c)} time"), cell))
        return found

    return Table.of(made, [r for r in c.table_rows.values() if r.done]).without_empty("–")


def health(c: ComparedRuns) -> Table:
    """How every run ended."""
    ranked = metric(c.rank_by)

    def made(e: Entry) -> list[tuple[Column, Cell]]:
        states = {"failed": e.error, "running": "not at its end", "missing": "not begun"}
        state = states.get(e.status, e.verdict)
        events = [happened(h)[0] for h in e.health]
        if not any(h.get("event") == "collapse" for h in e.health):
            events += filter(None, [_collapse(e)])
        good = e.status == "done" and state.startswith("learned")
        final = {n: e.final.get(n, {}).get(c.rank_by) for n in c.names}
        return [
            (Column("Method"), _method(c.table_rows[e.row])),
            (Column("Seed"), Cell("–" if e.outside else f"{e.seed}", e.seed)),
            (
                Column("How it ended", words=True),
                Cell(state, state, small="; ".join(events), good=good),
            ),
            *(
                (Column(f"{ranked.label}, {n}", ranked), Cell(human(v), v))
                for n, v in final.items()
            ),
            (Column("Best seen at"), _best_at(e)),
        ]

    return Table.of(made, [e for row in c.table_rows.values() for e in row.entries])


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
    return f"collapsed: {listed(found)}" if found else ""


def _best_at(e: Entry) -> Cell:
    seen = {row.get("images_seen") for row in e.best.values()} - {None}
    return Cell(f"{human(int(seen.pop() or 0))} images" if len(seen) == 1 else "–")


def settings(c: ComparedRuns) -> dict[str, Any]:
    """Config keys that differ between methods as a table, those that do not, and method blocks."""
    configs = [
        (row, dict(flat(e.config)))
        for row in c.table_rows.values()
        if (e := next((e for e in row.entries if e.config), None)) is not None
    ]
    keys = dict.fromkeys(k for _, config in configs for k in config if not k.startswith(_OWN))
    values = {key: [config.get(key, "–") for _, config in configs] for key in keys}

    def made(key: str) -> list[tuple[Column, Cell]]:
        found = [
            (Column(r.label), Cell(v, v)) for (r, _), v in zip(configs, values[key], strict=True)
        ]
        return [(Column("Setting"), Cell(key, key)), *found]

    own = [
        (row, [(k.removeprefix("method."), v) for k, v in config.items() if k[:7] == "method."])
        for row, config in configs
    ]
    return {
        "differ": Table.of(made, [key for key in keys if len(set(values[key])) > 1]),
        "same": [(key, values[key][0]) for key in keys if len(set(values[key])) == 1],
        "methods": [(row.key, row.label, mark(row.style), pairs) for row, pairs in own if pairs],
    }

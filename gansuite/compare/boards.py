"""The tables on the page of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gansuite.compare.cells import Cell, Column, Table, View
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
    return Cell(row.label, row.label, mark=mark(row.style), small=small, tag=tag)


def _mean(found: Interval | None) -> Cell:
    return Cell(interval(*found), found[0]) if found else Cell("–")


def _score(m: str) -> tuple[Column, Callable[[Line], Cell]]:
    return Column(metric(m).label, metric(m)), lambda x: _mean(x.scores.get(m))


def ranking(c: ComparedRuns, name: str) -> dict[str, Any]:
    """Comparison ``name``: the ranking, and below it all scores with what they mean."""
    lines, references = leaderboard(c, name)
    several = len(lines) > 1
    repeated = any(x.standing and not x.standing.single for x in lines)

    def of(show: Callable[[Line, Standing], Cell]) -> Callable[[Line], Cell]:
        return lambda x: show(x, x.standing) if x.standing else Cell()

    def who(x: Line, about: bool = True) -> Cell:
        if x.row is None or x.standing is None:
            return Cell(reference_label(name, x.key).capitalize())
        tied = listed([c.table_rows[r].label for r in x.standing.tied])
        tag = "1 seed" if about and x.standing.single else ""
        return _method(x.row, f"tied with {tied}" if about and tied else "", tag)

    def ranked(x: Line) -> Cell:
        found = x.scores.get(c.rank_by)
        return Cell(interval(*found), found[0], strong=x.bold) if found else Cell("–")

    def closed(x: Line) -> Cell:
        bar = None if x.gap is None else round(100 * min(1, max(0, x.gap)))
        return Cell(percent(x.gap), x.gap, bar=bar)

    view: list[tuple[Column, Callable[[Line], Cell]]] = [
        (Column("Method"), who),
        (Column("Place", sorted=True), of(lambda _, s: Cell(s.place.replace("-", "–"), s.rank))),
        (Column(metric(c.rank_by).label, metric(c.rank_by)), ranked),
        (Column("Best seen"), of(lambda x, _: _mean(x.best))),
    ]
    if several:
        view.append((Column("Behind the first"), of(lambda _, s: _difference(s))))
    if several and repeated:
        keeps = of(lambda _, s: Cell(percent(s.stability), s.stability))
        view.append((Column("Keeps its place"), keeps))
    view.append((Column("Gap closed"), of(lambda x, _: closed(x))))
    view += map(_score, beside(c, name)[:_SHOWN_BESIDE])
    metrics = ordered(c.metrics(name))
    every = [(Column("Method"), lambda x: who(x, about=False)), *map(_score, metrics)]
    return {
        "name": name,
        "title": c.heading(name),
        "table": Table.of(view, lines, references),
        "all": Table.of(every, lines, references),
        "meanings": [(metric(m).label, metric(m).meaning) for m in metrics if metric(m).meaning],
    }


def _difference(s: Standing) -> Cell:
    if s.difference is None:
        return Cell("–", 0 if s.rank == 1 else None)
    mean, low, high = s.difference
    small = "" if low is None or high is None else f"{_signed(low)} to {_signed(high)}"
    return Cell(_signed(mean), mean, small=small)


def _signed(value: float) -> str:
    return human(value).replace("-", "−", 1) if value < 0 else human(value)


def cost(c: ComparedRuns) -> Table:
    """What a run of each method costs, as means over its seeds; without what nobody knows."""

    def price(key: str, show: Callable[[float], str]) -> Callable[[Row], Cell]:
        def cell(row: Row) -> Cell:
            value = row.cost(key)
            players = row.done[0].cost.get("parameters") if key == "parameters" else None
            small = ", ".join(f"{k} {large(n)}" for k, n in (players or {}).items())
            return Cell("–" if value is None else show(value), value, small=small)

        return cell

    def size(unit: str, scale: float = 1) -> Callable[[float], str]:
        return lambda v: large(scale * v, unit)

    several = any(e.devices > 1 for e in c.done)
    time = [(f"{device_kind(c)} time", "device_hours", lambda v: duration(3600 * v))]
    prices: list[tuple[str, str, Callable[[float], str]]] = [
        ("Training a run", "seconds", duration),
        *(time if several else []),
        ("Images per second", "images_per_second", human),
        ("Peak memory", "peak_memory_mb", size("B", 1e6)),
        ("Parameters", "parameters", large),
        ("FLOPs per image", "flops_per_image", size("FLOP")),
        ("FLOPs of a run", "pflop", size("FLOP", 1e15)),
        ("Images seen", "images_seen", lambda v: human(round(v))),
        ("Share of evaluation", "evaluation_share", lambda v: f"{100 * v:.1f} %"),
    ]
    view: View[Row] = [
        (Column("Method"), lambda r: _method(r, "as its authors gave it" if r.outside else "")),
        *((Column(label), price(key, show)) for label, key, show in prices),
    ]
    return Table.of(view, [r for r in c.table_rows.values() if r.done]).without_empty("–")


def health(c: ComparedRuns) -> Table:
    """How every run ended."""

    def ended(e: Entry) -> Cell:
        states = {"failed": e.error, "running": "not at its end", "missing": "not begun"}
        state = e.verdict if e.status == "done" else states[e.status]
        events = [happened(h)[0] for h in e.health]
        if not any(h.get("event") == "collapse" for h in e.health):
            events += filter(None, [_collapse(e)])
        good = e.status == "done" and state.startswith("learned")
        return Cell(state, state, small="; ".join(events), good=good)

    def final(name: str) -> Callable[[Entry], Cell]:
        def cell(e: Entry) -> Cell:
            value = e.final.get(name, {}).get(c.rank_by)
            return Cell(human(value), value)

        return cell

    ranked = metric(c.rank_by)
    view: View[Entry] = [
        (Column("Method"), lambda e: _method(c.table_rows[e.row])),
        (Column("Seed"), lambda e: Cell("–" if e.outside else f"{e.seed}", e.seed)),
        (Column("How it ended", words=True), ended),
        *((Column(f"{ranked.label}, {name}", ranked), final(name)) for name in c.names),
        (Column("Best seen at"), _best_at),
    ]
    return Table.of(view, [e for row in c.table_rows.values() for e in row.entries])


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

    def of(i: int) -> Callable[[str], Cell]:
        return lambda key: Cell(values[key][i], values[key][i])

    view: View[str] = [
        (Column("Setting"), lambda key: Cell(key, key)),
        *((Column(row.label), of(i)) for i, (row, _) in enumerate(configs)),
    ]
    own = [
        (row, [(k.removeprefix("method."), v) for k, v in config.items() if k[:7] == "method."])
        for row, config in configs
    ]
    return {
        "differ": Table.of(view, [key for key in keys if len(set(values[key])) > 1]),
        "same": [(key, values[key][0]) for key in keys if len(set(values[key])) == 1],
        "methods": [(row.key, row.label, mark(row.style), pairs) for row, pairs in own if pairs],
    }

"""``leaderboard.{md,csv,tex}`` and ``cost.{md,csv}`` of a comparison.

The leaderboards hold no clock: the same runs give the same bytes, however often they were
interrupted. What the clock and the machine say stands in the cost tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gansuite.compare import cells, escape
from gansuite.compare.cells import Cell, Column, Table
from gansuite.compare.collect import ComparedRuns, Row
from gansuite.compare.format import human, interval, metric
from gansuite.compare.stats import Standing, mean_interval
from gansuite.evaluation.protocol import HIGHER_IS_BETTER
from gansuite.evaluation.table import ROWS, headlines
from gansuite.runs import write_text

SINGLE = "†"
Interval = tuple[float, float | None, float | None]
"""A mean and the ends of its 95 % interval, which a single score has not."""
_GAUSSIAN = "Gaussian of the training pictures"


@dataclass(frozen=True)
class Line:
    """A line of the leaderboard of comparison ``name`` in numbers: a method as it stands, or a
    reference row, which has scores alone. ``best``: at the best evaluation of the run."""

    name: str
    key: str
    scores: Mapping[str, Interval]
    row: Row | None = None
    standing: Standing | None = None
    gap: float | None = None
    best: Interval | None = None

    @property
    def bold(self) -> bool:
        return self.standing is not None and self.standing.bold


def leaderboard(c: ComparedRuns, name: str) -> tuple[list[Line], list[Line]]:
    """The methods of comparison ``name`` from best to worst, and its reference rows."""
    scores = {m: c.scores(name, m) for m in c.metrics(name)}
    best = c.best_scores(name, c.rank_by)
    lines = []
    for s in c.ranking(name):
        means = {m: mean_interval([*v[s.name].values()]) for m, v in scores.items() if s.name in v}
        top = mean_interval([*best[s.name].values()]) if s.name in best else None
        gap = c.gap(name, s.name, c.rank_by)
        lines.append(Line(name, s.name, means, c.table_rows[s.name], s, gap, top))
    references = [
        Line(name, key, {m: (v, None, None) for m, v in row.items()})
        for key, row in c.references(name).items()
    ]
    return lines, references


def write_tables(comparison: ComparedRuns, folder: Path) -> list[Path]:
    """Write all tables, each whole or not at all; the paths, ``leaderboard.md`` first."""
    made = {
        "leaderboard.md": markdown(comparison),
        "leaderboard.csv": leaderboard_csv(comparison),
        "leaderboard.tex": latex(comparison),
        "cost.md": cost_markdown(comparison),
        "cost.csv": cost_csv(comparison),
    }
    for name, text in made.items():
        write_text(folder / name, text)
    return [folder / name for name in made]


def reference_label(name: str, row: str) -> str:
    """What a reference row is called in the table of comparison ``name``; any other as it is."""
    return _GAUSSIAN if name == "gen" and row == "do_nothing" else ROWS.get(row, row)


def beside(c: ComparedRuns, name: str, most: int | None = None) -> list[str]:
    """The metrics beside the ranking one that a table shows, at most ``most``."""
    return headlines((m for m in c.metrics(name) if m != c.rank_by), most)


def _words(c: ComparedRuns, x: Line) -> list[tuple[Column, Cell]]:
    """A line of the leaderboard as Markdown and LaTeX show it."""
    s, row = x.standing, x.row
    who = reference_label(x.name, x.key)
    if s and row:
        origin = f" ({row.origin.removesuffix(' entry')})" if row.origin else ""
        who = x.key + origin + f" {SINGLE}" * s.single
    difference = ""
    if s and s.difference:
        mean, low, high = s.difference
        difference = f"{mean:+.3g}" + (f" [{low:+.3g}, {high:+.3g}]" if low is not None else "")
    ranked, none = x.scores.get(c.rank_by), (None, None, None)
    return [
        (Column("place"), Cell(s.place if s else "")),
        (Column("method", words=True), Cell(who, strong=x.bold)),
        (Column("seeds"), Cell(f"{s.n}" if s else "")),
        (_metric(c.rank_by), Cell(interval(*ranked) if ranked else "-", strong=x.bold)),
        (Column("to the leader"), Cell(difference)),
        (Column("rank holds"), Cell(_share(s.stability if s else None))),
        (Column("gap closed"), Cell(_share(x.gap))),
        (Column("best of run"), Cell(human(x.best[0], "-") if x.best else "")),
        *((_metric(m), Cell(human(x.scores.get(m, none)[0], "-"))) for m in beside(c, x.name)),
    ]


def _metric(name: str) -> Column:
    return Column(name, metric(name))


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def facts(c: ComparedRuns) -> list[str]:
    """What makes the rows equal, in lines."""
    seeds = ", ".join(map(str, c.seeds))
    return [
        f"Budget: {c.axis or 'as given by each entry'}. Seeds: {seeds or 'none'}.",
        f"Data: {c.data.get('name')} at {c.protocol.get('size')} pixels, digest "
        f"{c.data.get('digest')}. Protocol: {c.protocol.get('id')}, "
        f"{c.protocol.get('samples')} test pictures at most a side.",
    ]


def legend(c: ComparedRuns) -> list[str]:
    """How to read the table."""
    lines = [
        f"Ranked by {c.rank_by} at the end of the budget; 'best of run' (the evaluation at which "
        "all comparisons together were best) is shown, never ranked. 'Gap closed': share of the "
        "way from do nothing to real vs real, for a squared distance (Fréchet, kernel) of its "
        "root.",
    ]
    standings = [s for name in c.names for s in c.ranking(name)]
    if any(not s.single for s in standings):
        lines.append(
            "± is half the 95 % Student interval over seeds. Places such as 1-2 are ties: that of "
            "the paired difference over the shared seeds holds 0 (of rows that share fewer than "
            "two seeds: the intervals overlap). 'To the leader': mean paired difference, with its "
            "95 % Student interval. 'Rank holds' (from 5 seeds): share of bootstrap resamples of "
            "the seeds in which the rank is the same."
        )
    if any(s.single for s in standings):
        lines.append(f"{SINGLE} a single score: no interval, and never bold.")
    return lines


def markdown(c: ComparedRuns) -> str:
    """All leaderboards as Markdown, one per comparison name."""
    lines = [f"# {escape.markdown(c.title)}", "", *(_list(facts(c))), ""]
    if c.command:
        lines += [f"    {escape.one_line(c.command)}", ""]
    for name in c.names:
        lines += [f"## {escape.markdown(name)}", "", *cells.markdown(_table(c, name)), ""]
    lines += _list([*c.unequal, *c.notes, *legend(c)])
    return "\n".join(lines) + "\n"


def _table(c: ComparedRuns, name: str) -> Table:
    return Table.of(lambda x: _words(c, x), *leaderboard(c, name))


def _list(lines: Sequence[str]) -> list[str]:
    return [f"- {escape.markdown(line, begins=True)}" for line in lines]


def latex(c: ComparedRuns) -> str:
    """All leaderboards as LaTeX tables; needs the package booktabs."""
    title = f"{c.title}: \\usepackage{{booktabs}}"
    lines = [*map(escape.tex_comment, [title, *facts(c)])]
    notes = [*c.unequal, *c.notes, *legend(c)]
    for name in c.names:
        caption = ": ".join(map(escape.tex, (c.title, name)))
        lines += [
            "",
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{caption}. {escape.tex(' '.join(facts(c)))}}}",
            *cells.latex(_table(c, name)),
            "",
            *(rf"\par\footnotesize {escape.tex(note)}" for note in notes),
            r"\end{table}",
        ]
    return "\n".join(lines) + "\n"


def leaderboard_csv(c: ComparedRuns) -> str:
    """One line per comparison name and row, reference rows included, in full precision."""
    metrics = [m for m in HIGHER_IS_BETTER if any(m in c.metrics(n) for n in c.names)]
    lines = [x for name in c.names for part in leaderboard(c, name) for x in part]
    return cells.csv(Table.of_values(_values(c, x, metrics) for x in lines))


def _values(c: ComparedRuns, x: Line, metrics: Sequence[str]) -> dict[str, object]:
    none = (None, None, None)
    scores: dict[str, object] = {}
    for m in metrics:
        scores |= zip((m, f"{m}_low", f"{m}_high"), x.scores.get(m, none), strict=True)
    if x.row is None or x.standing is None:
        return {"comparison": x.name, "row": x.key, **scores, "comment": "reference row"}
    s, run = x.standing, x.row.done[0]
    comment = [" ".join(c.unequal), "single score" * s.single, run.origin]
    mean, low, high = s.difference or none
    return {
        "comparison": x.name,
        "place": s.place,
        "rank": s.rank,
        "row": x.key,
        "method": run.method,
        "outside": run.outside,
        "seeds": " ".join(map(str, sorted(s.values))),
        "tied_with": " ".join(s.tied),
        "difference": mean,
        "difference_low": low,
        "difference_high": high,
        "stability": s.stability,
        "gap_closed": x.gap,
        "parameters": run.parameters,
        "flops_per_image": run.price("flops_per_image"),
        "images_seen": run.price("images_seen"),
        "protocol": run.results["protocol"]["id"],
        "data_digest": run.results["data"]["digest"],
        "weights": run.results["protocol"].get("weights"),
        **scores,
        f"best_of_run_{c.rank_by}": x.best and x.best[0],
        "comment": "; ".join(filter(None, comment)),
    }


# the price: (head, key of `Entry.price`)
_COST = (
    ("images/s", "images_per_second"),
    ("device hours", "device_hours"),
    ("seconds", "seconds"),
    ("evaluation, seconds", "eval_seconds"),
    ("peak memory, MB", "peak_memory_mb"),
    ("parameters", "parameters"),
    ("FLOPs per image", "flops_per_image"),
    ("PFLOP in all", "pflop"),
    ("images seen", "images_seen"),
)


def cost_markdown(c: ComparedRuns) -> str:
    """What each row cost, as means over its seeds."""

    def made(row: Row) -> list[tuple[Column, Cell]]:
        devices = dict.fromkeys(str(e.environment.get("device", "")) for e in row.entries)
        return [
            (Column("seeds"), Cell(f"{len(row.done)}")),
            (Column("method", words=True), Cell(row.key)),
            *((Column(head), Cell(human(row.cost(key), "-"))) for head, key in _COST),
            (Column("device"), Cell("; ".join(filter(None, devices)))),
        ]

    table = Table.of(made, [row for row in c.table_rows.values() if row.done])
    return "\n".join([f"# {escape.markdown(c.title)}: cost", "", *cells.markdown(table), ""])


def cost_csv(c: ComparedRuns) -> str:
    """One line per run, in full precision."""
    return cells.csv(
        Table.of_values(
            {
                "row": e.row,
                "seed": e.seed,
                "status": e.status,
                **{key: e.price(key) if e.status == "done" else None for _, key in _COST},
                "device": e.environment.get("device", ""),
                "verdict": e.verdict or e.error,
            }
            for e in c.entries
        )
    )

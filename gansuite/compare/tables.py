"""``leaderboard.{md,csv,tex}`` and ``cost.{md,csv}`` of a comparison.

The leaderboards hold no clock: the same runs give the same bytes, however often they were
interrupted. What the clock and the machine say stands in the cost tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gansuite.compare import cells, escape
from gansuite.compare.cells import Cell, Column, Table, View
from gansuite.compare.collect import ComparedRuns, Row
from gansuite.compare.entry import Entry
from gansuite.compare.format import human, interval, metric
from gansuite.compare.stats import Standing, mean_interval
from gansuite.evaluation.protocol import HIGHER_IS_BETTER
from gansuite.evaluation.table import HEADLINE
from gansuite.runs import write_text

SINGLE = "†"
Interval = tuple[float, float | None, float | None]
"""A mean and the ends of its 95 % interval, which a single score has not."""
_REFERENCES = {
    "do_nothing": "do nothing",
    "real_vs_real": "real vs real",
    "blurred": "blurred training pictures",
}
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
    """What a reference row is called in the table of comparison ``name``."""
    return _GAUSSIAN if name == "gen" and row == "do_nothing" else _REFERENCES[row]


def beside(c: ComparedRuns, name: str) -> list[str]:
    """The metrics beside the ranking one that a table shows."""
    known = c.metrics(name)
    return [m for m in HEADLINE if m in known and m != c.rank_by]


def _words(c: ComparedRuns, name: str) -> View[Line]:
    """The leaderboard as Markdown and LaTeX show it."""

    def of(show: Callable[[Line, Standing], str]) -> Callable[[Line], Cell]:
        return lambda x: Cell(show(x, x.standing) if x.standing else "")

    def who(x: Line) -> Cell:
        if x.row is None or x.standing is None:
            return Cell(reference_label(x.name, x.key))
        outside = " (outside)" if x.row.outside else ""
        single = f" {SINGLE}" if x.standing.single else ""
        return Cell(x.key + outside + single, strong=x.bold)

    def difference(s: Standing) -> str:
        if s.difference is None:
            return ""
        mean, low, high = s.difference
        return f"{mean:+.3g}" + (f" [{low:+.3g}, {high:+.3g}]" if low is not None else "")

    def share(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.0f} %"

    def score(m: str) -> Callable[[Line], Cell]:
        return lambda x: Cell(human(x.scores[m][0] if m in x.scores else None, "-"))

    def ranked(x: Line) -> Cell:
        found = x.scores.get(c.rank_by)
        return Cell(interval(*found) if found else "-", strong=x.bold)

    return [
        (Column("place"), of(lambda _, s: s.place)),
        (Column("method", words=True), who),
        (Column("seeds"), of(lambda _, s: f"{s.n}")),
        (Column(c.rank_by, metric(c.rank_by)), ranked),
        (Column("to the leader"), of(lambda _, s: difference(s))),
        (Column("rank holds"), of(lambda _, s: share(s.stability))),
        (Column("gap closed"), of(lambda x, _: share(x.gap))),
        (Column("best of run"), of(lambda x, _: human(x.best[0], "-") if x.best else "")),
        *((Column(m, metric(m)), score(m)) for m in beside(c, name)),
    ]


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
        table = Table.of(_words(c, name), *leaderboard(c, name))
        lines += [f"## {escape.markdown(name)}", "", *cells.markdown(table), ""]
    lines += _list([*c.unequal, *c.notes, *legend(c)])
    return "\n".join(lines) + "\n"


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
            *cells.latex(Table.of(_words(c, name), *leaderboard(c, name))),
            "",
            *(rf"\par\footnotesize {escape.tex(note)}" for note in notes),
            r"\end{table}",
        ]
    return "\n".join(lines) + "\n"


def leaderboard_csv(c: ComparedRuns) -> str:
    """One line per comparison name and row, reference rows included, in full precision."""
    unequal = " ".join(c.unequal)

    def of(get: Callable[[Line, Standing, Entry], object]) -> Callable[[Line], Cell]:
        def cell(x: Line) -> Cell:
            if x.row is None or x.standing is None:
                return Cell()
            return Cell(value=get(x, x.standing, x.row.done[0]))

        return cell

    def comment(x: Line) -> str:
        if x.row is None or x.standing is None:
            return "reference row"
        words = [unequal, "single score" if x.standing.single else ""]
        return "; ".join(filter(None, [*words, "outside entry" if x.row.outside else ""]))

    def end(value: Interval | None, i: int) -> float | None:
        return value[i] if value else None

    def score(m: str, i: int) -> Callable[[Line], Cell]:
        return lambda x: Cell(value=end(x.scores.get(m), i))

    view: list[tuple[Column, Callable[[Line], Cell]]] = [
        (Column("comparison"), lambda x: Cell(value=x.name)),
        (Column("place"), of(lambda _, s, e: s.place)),
        (Column("rank"), of(lambda _, s, e: s.rank)),
        (Column("row"), lambda x: Cell(value=x.key)),
        (Column("method"), of(lambda _, s, e: e.method)),
        (Column("outside"), of(lambda _, s, e: e.outside)),
        (Column("seeds"), of(lambda _, s, e: " ".join(map(str, sorted(s.values))))),
        (Column("tied_with"), of(lambda _, s, e: " ".join(s.tied))),
        (Column("difference"), of(lambda _, s, e: end(s.difference, 0))),
        (Column("difference_low"), of(lambda _, s, e: end(s.difference, 1))),
        (Column("difference_high"), of(lambda _, s, e: end(s.difference, 2))),
        (Column("stability"), of(lambda _, s, e: s.stability)),
        (Column("gap_closed"), of(lambda x, s, e: x.gap)),
        (Column("parameters"), of(lambda _, s, e: e.parameters)),
        (Column("flops_per_image"), of(lambda _, s, e: e.price("flops_per_image"))),
        (Column("images_seen"), of(lambda _, s, e: e.price("images_seen"))),
        (Column("protocol"), of(lambda _, s, e: e.results["protocol"]["id"])),
        (Column("data_digest"), of(lambda _, s, e: e.results["data"]["digest"])),
        (Column("weights"), of(lambda _, s, e: e.results["protocol"].get("weights"))),
    ]
    for m in (m for m in HIGHER_IS_BETTER if any(m in c.metrics(n) for n in c.names)):
        view += [
            (Column(f"{m}{part}"), score(m, i)) for i, part in enumerate(("", "_low", "_high"))
        ]
    view += [
        (Column(f"best_of_run_{c.rank_by}"), lambda x: Cell(value=end(x.best, 0))),
        (Column("comment"), lambda x: Cell(value=comment(x))),
    ]
    return cells.csv(
        Table.of(view, [x for n in c.names for part in leaderboard(c, n) for x in part])
    )


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

    def price(key: str) -> Callable[[Row], Cell]:
        return lambda row: Cell(human(row.cost(key), "-"))

    def device(row: Row) -> Cell:
        found = dict.fromkeys(str(e.environment.get("device", "")) for e in row.entries)
        return Cell("; ".join(filter(None, found)))

    view: View[Row] = [
        (Column("seeds"), lambda row: Cell(f"{len(row.done)}")),
        (Column("method", words=True), lambda row: Cell(row.key)),
        *((Column(head), price(key)) for head, key in _COST),
        (Column("device"), device),
    ]
    table = Table.of(view, [row for row in c.table_rows.values() if row.done])
    return "\n".join([f"# {escape.markdown(c.title)}: cost", "", *cells.markdown(table), ""])


def cost_csv(c: ComparedRuns) -> str:
    """One line per run, in full precision."""

    def price(key: str) -> Callable[[Entry], Cell]:
        return lambda e: Cell(value=e.price(key) if e.status == "done" else None)

    view: View[Entry] = [
        (Column("row"), lambda e: Cell(value=e.row)),
        (Column("seed"), lambda e: Cell(value=e.seed)),
        (Column("status"), lambda e: Cell(value=e.status)),
        *((Column(key), price(key)) for _, key in _COST),
        (Column("device"), lambda e: Cell(value=e.environment.get("device", ""))),
        (Column("verdict"), lambda e: Cell(value=e.verdict or e.error)),
    ]
    return cells.csv(Table.of(view, c.entries))

"""``leaderboard.{md,csv,tex}`` and ``cost.{md,csv}`` of a comparison.

The leaderboards hold no clock: the same runs give the same bytes, however often they were
interrupted. What the clock and the machine say stands in the cost tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from gansuite.compare.collect import Comparison
from gansuite.compare.entry import Entry
from gansuite.compare.escape import csv_text, one_line, tex, tex_comment
from gansuite.compare.escape import markdown as shown
from gansuite.compare.format import human, interval, metric
from gansuite.compare.stats import Standing, mean_interval
from gansuite.evaluation.protocol import HIGHER_IS_BETTER
from gansuite.evaluation.table import HEADLINE
from gansuite.runs import write_text

SINGLE = "†"
_REFERENCES = {
    "do_nothing": "do nothing",
    "real_vs_real": "real vs real",
    "blurred": "blurred training pictures",
}
_GAUSSIAN = "Gaussian of the training pictures"


def write_tables(comparison: Comparison, folder: Path) -> list[Path]:
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


def number(value: float | None) -> str:
    """Three significant digits; "-" for None."""
    return human(value, "-")


def headed(name: str) -> str:
    """A metric and which way is better."""
    return f"{name} {metric(name).arrow}".strip()


def columns(c: Comparison, name: str) -> list[str]:
    """The metrics beside the ranking one that a table shows."""
    known = c.metrics(name)
    return [m for m in HEADLINE if m in known and m != c.rank_by]


def _mean(c: Comparison, name: str, score: str, row: str) -> float | None:
    values = list(c.scores(name, score).get(row, {}).values())
    return mean_interval(values)[0] if values else None


def reference_label(name: str, row: str) -> str:
    """What a reference row is called in the table of comparison ``name``."""
    return _GAUSSIAN if name == "gen" and row == "do_nothing" else _REFERENCES[row]


def _cells(c: Comparison, name: str, s: Standing) -> list[str]:
    best = c.best_scores(name, c.rank_by).get(s.name, {})
    gap = c.gap(name, s.name, c.rank_by)
    difference = ""
    if s.difference is not None:
        mean, low, high = s.difference
        difference = f"{mean:+.3g}" + (f" [{low:+.3g}, {high:+.3g}]" if low is not None else "")
    outside = " (outside)" if any(e.outside for e in c.of(s.name)) else ""
    return [
        s.place,
        s.name + outside + (f" {SINGLE}" if s.single else ""),
        f"{s.n}",
        interval(s.mean, s.low, s.high),
        difference,
        f"{100 * s.stability:.0f} %" if s.stability is not None else "",
        f"{100 * gap:.0f} %" if gap is not None else "",
        number(mean_interval(list(best.values()))[0]) if best else "",
        *(number(_mean(c, name, m, s.name)) for m in columns(c, name)),
    ]


def _heads(c: Comparison, name: str) -> list[str]:
    return [
        "place",
        "method",
        "seeds",
        headed(c.rank_by),
        "to the leader",
        "rank holds",
        "gap closed",
        "best of run",
        *(headed(m) for m in columns(c, name)),
    ]


def _reference_cells(c: Comparison, name: str) -> list[list[str]]:
    found = []
    for row, scores in c.references(name).items():
        metrics = [number(scores.get(m)) for m in columns(c, name)]
        label = reference_label(name, row)
        found.append(["", label, "", number(scores.get(c.rank_by)), "", "", "", "", *metrics])
    return found


def facts(c: Comparison) -> list[str]:
    """What makes the rows equal, in lines."""
    seeds = ", ".join(map(str, c.seeds))
    return [
        f"Budget: {c.axis or 'as given by each entry'}. Seeds: {seeds or 'none'}.",
        f"Data: {c.data.get('name')} at {c.protocol.get('size')} pixels, digest "
        f"{c.data.get('digest')}. Protocol: {c.protocol.get('id')}, "
        f"{c.protocol.get('samples')} test pictures at most a side.",
    ]


def legend(c: Comparison) -> list[str]:
    """How to read the table."""
    lines = [
        f"Ranked by {c.rank_by} at the end of the budget; 'best of run' (the evaluation at which "
        "all comparisons together were best) is shown, never ranked.",
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


def markdown(c: Comparison) -> str:
    """All leaderboards as Markdown, one per comparison name."""
    lines = [f"# {shown(c.title)}", "", *(_list(facts(c))), ""]
    if c.command:
        lines += [f"    {one_line(c.command)}", ""]
    for name in c.names:
        rows = []
        for s in c.ranking(name):
            rows.append([_Bold(x) if s.bold and i in (1, 3) else x
                         for i, x in enumerate(_cells(c, name, s))])  # fmt: skip
        grid = _grid(_heads(c, name), [*rows, *_reference_cells(c, name)])
        lines += [f"## {shown(name)}", "", *grid]
        lines.append("")
    lines += _list([*c.unequal, *c.notes, *legend(c)])
    return "\n".join(lines) + "\n"


class _Bold(str):
    """A cell that is set in bold."""


def _cell(text: str) -> str:
    return f"**{shown(text)}**" if isinstance(text, _Bold) and text else shown(text)


def _list(lines: Sequence[str]) -> list[str]:
    return [f"- {shown(line, begins=True)}" for line in lines]


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """An aligned Markdown table: readable as it is, too."""
    cells = [[_cell(x) for x in row] for row in (heads, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        done = [
            x.ljust(w) if i == 1 else x.rjust(w)
            for i, (x, w) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(done)} |"

    rule = ["-" * w if i == 1 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return [line(cells[0]), line(rule), *map(line, cells[1:])]


def leaderboard_csv(c: Comparison) -> str:
    """One line per comparison name and row, reference rows included, in full precision."""
    metrics = [m for m in HIGHER_IS_BETTER if any(m in c.metrics(n) for n in c.names)]
    heads = ["comparison", "place", "rank", "row", "method", "outside", "seeds", "tied_with",
             "difference", "difference_low", "difference_high", "stability", "gap_closed",
             "parameters", "flops_per_image", "images_seen", "protocol", "data_digest",
             "weights"]  # fmt: skip
    for m in metrics:
        heads += [m, f"{m}_low", f"{m}_high"]
    lines: list[list[object]] = [[*heads, f"best_of_run_{c.rank_by}", "comment"]]
    unequal = " ".join(c.unequal)
    for name in c.names:
        for s in c.ranking(name):
            first = next(e for e in c.of(s.name) if e.status == "done")
            comment = [unequal, "single score" if s.single else ""]
            comment.append("outside entry" if first.outside else "")
            row: list[object] = [
                name, s.place, s.rank, s.name, first.method, first.outside,
                " ".join(map(str, sorted(s.values))), " ".join(s.tied),
                *(s.difference or (None,) * 3), s.stability, c.gap(name, s.name, c.rank_by),
                first.parameters, first.cost.get("flops_per_image"),
                first.results.get("images_seen"), first.results["protocol"]["id"],
                first.results["data"]["digest"], first.results["protocol"].get("weights"),
            ]  # fmt: skip
            for m in metrics:
                values = list(c.scores(name, m).get(s.name, {}).values())
                row += mean_interval(values) if values else (None,) * 3
            best = list(c.best_scores(name, c.rank_by).get(s.name, {}).values())
            row.append(mean_interval(best)[0] if best else None)
            lines.append([*row, "; ".join(filter(None, comment))])
        for reference, scores in c.references(name).items():
            row = [name, "", "", reference, *[""] * (len(heads) - 4 - 3 * len(metrics))]
            for m in metrics:
                row += [scores.get(m), None, None]
            lines.append([*row, None, "reference row"])
    return csv_text(lines)


def latex(c: Comparison) -> str:
    """All leaderboards as LaTeX tables; needs the package booktabs."""
    lines = [tex_comment(f"{c.title}: \\usepackage{{booktabs}}"), *map(tex_comment, facts(c))]
    notes = [*c.unequal, *c.notes, *legend(c)]
    for name in c.names:
        heads = _heads(c, name)
        lines += [
            "",
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{tex(c.title)}: {tex(name)}. {tex(' '.join(facts(c)))}}}",
            rf"\begin{{tabular}}{{rl{'r' * (len(heads) - 2)}}}",
            r"\toprule",
            " & ".join(map(tex, heads)) + r" \\",
            r"\midrule",
        ]
        for s in c.ranking(name):
            cells = [tex(x) for x in _cells(c, name, s)]
            for i in (1, 3):
                cells[i] = rf"\textbf{{{cells[i]}}}" if s.bold else cells[i]
            lines.append(" & ".join(cells) + r" \\")
        references = _reference_cells(c, name)
        if references:
            lines.append(r"\midrule")
        lines += [" & ".join(map(tex, cells)) + r" \\" for cells in references]
        lines += [r"\bottomrule", r"\end{tabular}", ""]
        lines += [rf"\par\footnotesize {tex(note)}" for note in notes]
        lines.append(r"\end{table}")
    return "\n".join(lines) + "\n"


# the price: (head, key in the CSV, of one entry)
_COST: tuple[tuple[str, str, Callable[[Entry], float | None]], ...] = (
    ("images/s", "images_per_second", lambda e: e.cost.get("images_per_second")),
    ("device hours", "device_hours", lambda e: e.device_hours),
    ("seconds", "seconds", lambda e: e.cost.get("seconds")),
    ("evaluation, seconds", "eval_seconds", lambda e: e.cost.get("eval_seconds")),
    ("peak memory, MB", "peak_memory_mb", lambda e: e.cost.get("peak_memory_mb")),
    ("parameters", "parameters", lambda e: e.parameters),
    ("FLOPs per image", "flops_per_image", lambda e: e.cost.get("flops_per_image")),
    ("PFLOP in all", "pflop", lambda e: e.pflop),
    ("images seen", "images_seen", lambda e: e.results.get("images_seen")),
)


def _device(c: Comparison, row: str) -> str:
    found = dict.fromkeys(str(e.environment.get("device", "")) for e in c.of(row))
    return "; ".join(filter(None, found))


def _costs(c: Comparison, row: str) -> list[float | None]:
    """The means over the seeds of a row."""
    found: list[float | None] = []
    for _, _, get in _COST:
        values = [v for e in c.of(row) if e.status == "done" and (v := get(e)) is not None]
        found.append(math.fsum(values) / len(values) if values else None)
    return found


def _done_rows(c: Comparison) -> list[str]:
    return [row for row in c.rows if any(e.status == "done" for e in c.of(row))]


def cost_markdown(c: Comparison) -> str:
    """What each row cost, as means over its seeds."""
    heads = ["seeds", "method", *(head for head, _, _ in _COST), "device"]
    rows = []
    for row in _done_rows(c):
        n = sum(e.status == "done" for e in c.of(row))
        rows.append([f"{n}", row, *map(number, _costs(c, row)), _device(c, row)])
    return "\n".join([f"# {shown(c.title)}: cost", "", *_grid(heads, rows), ""])


def cost_csv(c: Comparison) -> str:
    """One line per run, in full precision."""
    heads = ["row", "seed", "status", *(key for _, key, _ in _COST), "device", "verdict"]
    lines: list[list[object]] = [[*heads]]
    for e in c.entries:
        costs = [get(e) for _, _, get in _COST] if e.status == "done" else [None] * len(_COST)
        device = e.environment.get("device", "")
        lines.append([e.row, e.seed, e.status, *costs, device, e.verdict or e.error])
    return csv_text(lines)

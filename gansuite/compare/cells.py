"""A table, made once and shown as Markdown, LaTeX, CSV, plain text, on a terminal and, by the macro
``board`` of ``macros.html``, on a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from gansuite.compare import escape
from gansuite.compare.format import Metric

if TYPE_CHECKING:
    import rich.table

T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """What people read, and the value behind it: what CSV holds and a page sorts by (None: last).

    ``strong``: set in bold. The rest is for pages: ``small``, a second line; ``tag``, a word in a
    frame; ``mark``, the colour and glyph of a series; ``bar``, a share in percent, drawn; ``good``,
    whether a tick or an exclamation mark stands before the text; ``score``, whose arrow is behind.
    """

    text: str = ""
    value: object = None
    strong: bool = False
    small: str = ""
    tag: str = ""
    mark: Mapping[str, str] | None = None
    bar: int | None = None
    good: bool | None = None
    score: Metric | None = None


@dataclass(frozen=True)
class Column:
    """``score``: the metric in it, whose arrow says which way is better. ``words``: text, set to
    the left. ``sorted``: the rows stand in its order. ``small``: a second line, on pages."""

    label: str
    score: Metric | None = None
    words: bool = False
    sorted: bool = False
    small: str = ""

    @property
    def head(self) -> str:
        return f"{self.label} {self.score.arrow if self.score else ''}".strip()


@dataclass(frozen=True)
class Table:
    """``foot``: the rows below the line, which are for reference."""

    columns: list[Column]
    rows: list[list[Cell]]
    foot: list[list[Cell]]

    @classmethod
    def of(
        cls,
        make: Callable[[T], Sequence[tuple[Column, Cell]]],
        rows: Iterable[T],
        foot: Iterable[T] = (),
    ) -> Table:
        """``make`` states the columns and their cells of one row's data, the same for every row."""
        body, below = ([make(x) for x in part] for part in (rows, foot))
        columns = next(([column for column, _ in row] for row in (*body, *below)), [])
        return cls(columns, *([[cell for _, cell in row] for row in p] for p in (body, below)))

    @classmethod
    def of_values(cls, records: Iterable[Mapping[str, object]]) -> Table:
        """Plain values, with the keys of the first record as columns."""
        known = list(records)
        heads = list(known[0]) if known else []
        return cls.of(lambda r: [(Column(h), Cell(value=r.get(h))) for h in heads], known)

    def without_empty(self, empty: str) -> Table:
        """Without the columns that say ``empty`` in every row."""
        kept = [i for i in range(len(self.columns)) if any(r[i].text != empty for r in self.rows)]
        rows, foot = ([[r[i] for i in kept] for r in part] for part in (self.rows, self.foot))
        return Table([self.columns[i] for i in kept], rows, foot)


def _aligned(table: Table, lines: Sequence[Sequence[str]], least: int = 0) -> list[list[str]]:
    """Texts of one width in each column."""
    widths = [max(least, *map(len, column)) for column in zip(*lines, strict=True)]
    return [
        [x.ljust(w) if c.words else x.rjust(w)
         for x, w, c in zip(line, widths, table.columns, strict=True)]
        for line in lines
    ]  # fmt: skip


def markdown(table: Table) -> list[str]:
    """Lines that are readable as they are, too."""

    def shown(cell: Cell) -> str:
        text = escape.markdown(cell.text)
        return f"**{text}**" if cell.strong and text else text

    heads = [escape.markdown(column.head) for column in table.columns]
    body = [[shown(cell) for cell in row] for row in (*table.rows, *table.foot)]
    head, *lines = _aligned(table, [heads, *body], least=3)
    rule = ["-" * len(x) if c.words else "-" * (len(x) - 1) + ":"
            for x, c in zip(head, table.columns, strict=True)]  # fmt: skip
    return [f"| {' | '.join(line)} |" for line in (head, rule, *lines)]


def latex(table: Table) -> list[str]:
    """A ``tabular``; needs the package booktabs."""

    def line(texts: Iterable[str]) -> str:
        return " & ".join(texts) + r" \\"

    def shown(cell: Cell) -> str:
        text = escape.tex(cell.text)
        return rf"\textbf{{{text}}}" if cell.strong else text

    body, foot = ([line(map(shown, row)) for row in part] for part in (table.rows, table.foot))
    return [
        rf"\begin{{tabular}}{{{''.join('l' if c.words else 'r' for c in table.columns)}}}",
        r"\toprule",
        line(escape.tex(c.head) for c in table.columns),
        r"\midrule",
        *body,
        *([r"\midrule"] if foot else []),
        *foot,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def csv(table: Table) -> str:
    """The values, in full precision."""
    heads = [column.label for column in table.columns]
    rows = [[cell.value for cell in row] for row in (*table.rows, *table.foot)]
    return escape.csv_text([heads, *rows])


def plain(table: Table) -> str:
    """Aligned text without rules, for the end of a log."""
    rows = [[cell.text for cell in row] for row in (*table.rows, *table.foot)]
    lines = _aligned(table, [[column.label for column in table.columns], *rows])
    return "\n".join("  ".join(line).rstrip() for line in lines)


def terminal(table: Table, caption: str = "") -> rich.table.Table:
    """What rich draws."""
    from rich import box
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    for column in table.columns:
        drawn.add_column(column.head, no_wrap=True, justify="left" if column.words else "right")
    for row in (*table.rows, *table.foot):
        drawn.add_row(*(Text(cell.text, "bold" if cell.strong else "") for cell in row))
    return drawn

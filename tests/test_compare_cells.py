"""A table that is made once and shown in every format."""

from __future__ import annotations

import csv
import io

from pages import Page
from rich.console import Console

from gansuite.compare import cells
from gansuite.compare.cells import Cell, Column, Table
from gansuite.compare.document import templates
from gansuite.compare.format import metric

NAMES = {"one & all": 2.5, "=two|_x_ <b>": 1234.5}
TABLE = Table.of(
    lambda x: [
        (Column("method", words=True), Cell(x, x, strong=x == "one & all", small="why")),
        (Column("fd_random", metric("fd_random")), Cell(f"{NAMES[x]:g}", NAMES[x])),
        (Column("empty"), Cell("–")),
    ],
    NAMES,
    ["one & all"],
)


def test_markdown_and_latex_are_escaped_and_aligned() -> None:
    head, rule, first, second, foot = cells.markdown(TABLE)
    assert len({len(line) for line in (head, rule, first, second, foot)}) == 1
    assert [x.strip() for x in head.split("|")[1:-1]] == ["method", "fd_random ↓", "empty"]
    assert [x.strip()[-1] for x in rule.split("|")[1:-1]] == ["-", ":", ":"]
    assert "| **one & all** " in first
    assert r"| =two\|\_x\_ &lt;b> |" in second
    lines = cells.latex(TABLE)
    assert lines[0] == r"\begin{tabular}{lrr}"
    assert lines[2] == r"method & fd\_random $\downarrow$ & empty \\"
    assert lines[4:8] == [
        r"\textbf{one \& all} & 2.5 & – \\",
        r"=two|\_x\_ $<$b$>$ & 1234.5 & – \\",
        r"\midrule",
        r"\textbf{one \& all} & 2.5 & – \\",
    ]


def test_csv_has_the_values_and_no_formula() -> None:
    rows = list(csv.reader(io.StringIO(cells.csv(TABLE))))
    assert rows[0] == ["method", "fd_random", "empty"]
    assert rows[1:3] == [["one & all", "2.5", ""], ["'=two|_x_ <b>", "1234.5", ""]]


def test_on_a_terminal_and_in_a_log() -> None:
    assert cells.plain(TABLE).splitlines()[:3] == [
        "method        fd_random  empty",
        "one & all           2.5      –",
        "=two|_x_ <b>     1234.5      –",
    ]
    out = io.StringIO()
    markup = Table([Column("a", words=True)], [[Cell("[red]x[/red]", strong=True)]], [])
    Console(file=out, width=60).print(cells.terminal(markup, "2 done"))
    assert "[red]x[/red]" in out.getvalue()  # a name is no markup
    assert "2 done" in out.getvalue()


def test_columns_that_say_nothing_go() -> None:
    kept = TABLE.without_empty("–")
    assert [c.label for c in kept.columns] == ["method", "fd_random"]
    assert [len(row) for row in (*kept.rows, *kept.foot)] == [2, 2, 2]


def test_on_a_page() -> None:
    source = "{% from 'macros.html' import board %}{{ board(table, 'x') }}"
    text = templates().from_string(source).render(table=TABLE)
    page = Page(text)
    assert page.open == []
    assert [a["data-value"] for a in page.all("th") if "data-value" in a] == [*NAMES, "one & all"]
    assert [a["data-value"] for a in page.all("td")] == ["2.5", "", "1234.5", "", "2.5", ""]
    assert "=two|_x_ <b>" in page.text
    assert "<b>" not in text
    assert page.all("abbr")[0]["title"] == "lower is better"

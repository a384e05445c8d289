"""Text of others made harmless, by format: names in results may be anybody's.

Whatever goes into a table passes one of these. HTML is escaped by the template engine
(`document.render`), whose input passes `one_line` nowhere: there a line break is only a space.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "†": r"$^\dagger$",
    "<": r"$<$", ">": r"$>$",
}  # fmt: skip


def one_line(text: str) -> str:
    """``text`` in one line, without what steers a terminal or turns the direction of writing:
    such characters and runs of white space become one space each."""
    shown = (" " if unicodedata.category(x) in ("Cc", "Cf", "Cs", "Zl", "Zp") else x for x in text)
    return " ".join("".join(shown).split())


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV. A text that a spreadsheet would take for a formula gets an apostrophe before
    it; numbers stay numbers."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_csv_cell(x) for x in row] for row in rows)
    return out.getvalue()


def _csv_cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def tex(text: str) -> str:
    """``text`` as LaTeX source, in one line."""
    return "".join(_TEX.get(x, x) for x in one_line(text))


def tex_comment(text: str) -> str:
    """A LaTeX comment that says ``text``."""
    return f"% {one_line(text)}"


def markdown(text: str, begins: bool = False) -> str:
    """``text`` as Markdown that shows it, in one line: no HTML, link, picture, code, emphasis or
    table border of its own and, where it ``begins`` a line or a list item, no block. What is
    harmless where it stands, as the underscore in a name, stays readable."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", one_line(text))
    text = text.replace("\\", "\\\\").replace("<", "&lt;")
    text = re.sub(r"[`*|~]|(?<!\w)_|_(?!\w)|\](?=[(\[:])", r"\\\g<0>", text)
    if begins:
        text = re.sub(r"^(\d*)([-+#>=.)])", r"\1\\\2", text)
    return text

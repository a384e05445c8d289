"""Tables of yes/no attributes: CSV, or the text format of CelebA."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gansuite.errors import UserError
from gansuite.imaging import unlike_a_file

_YES, _NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "-1", "-1.0", "false", "no"}
_SPLITS = {"0": "train", "1": "val", "2": "test", "train": "train", "val": "val", "valid": "val",
           "test": "test"}  # fmt: skip


@dataclass
class Table:
    """A table as read: file names, columns of texts by name."""

    path: Path
    files: list[str]
    columns: dict[str, list[str]]

    def binary(self, name: str) -> np.ndarray:
        """Column ``name`` as float32 0/1."""
        values = np.empty(len(self.files), np.float32)
        for i, text in enumerate(self.columns[name]):
            word = text.strip().lower()
            if word not in _YES and word not in _NO:
                raise UserError(
                    f"table '{self.path}' has '{text[:80]}' in column '{name}' for "
                    f"'{self.files[i]}'; attributes are 0/1, -1/1, yes/no or true/false, choose "
                    "the columns with data.attributes"
                )
            values[i] = word in _YES
        return values


def read_table(path: Path) -> Table:
    """Read a CSV file with a header (first column: file name; separator , ; or tab) or CelebA's
    text format (a line with the count, a line with the names, rows separated by blanks)."""
    if reason := unlike_a_file(path):
        raise UserError(f"table '{path}' {reason}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"table '{path}' cannot be read ({error})") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"table '{path}' is empty")
    if lines[0].strip().isdigit() and len(lines) > 1:
        header, rows = ["file", *lines[1].split()], [line.split() for line in lines[2:]]
    elif path.suffix.lower() == ".txt":  # CelebA's list_eval_partition.txt has no header
        rows = [line.split() for line in lines]
        header = ["file", *(f"column{i}" for i in range(1, len(rows[0])))]
    else:
        separator = max(",;\t", key=lines[0].count)
        try:
            header, *rows = csv.reader(lines, delimiter=separator)
        except csv.Error as error:
            raise UserError(f"table '{path}' is no CSV file ({error})") from error
        header = [name.strip() for name in header]
    if len(header) < 2:
        raise UserError(
            f"table '{path}' has one column ('{header[0][:80]}'); a table has the file names and, "
            "separated by , ; or tabs, at least one column more"
        )
    for name in header[1:]:
        if header.count(name) > 1:
            raise UserError(f"table '{path}' has two columns named '{name[:80]}'; keep one")
    if not rows:
        raise UserError(f"table '{path}' has no rows")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise UserError(
                f"table '{path}': row {number} ('{row[0][:80]}') has {len(row)} entries, the "
                f"header has {len(header)}"
            )
    names = [row[0].strip() for row in rows]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header) if i}
    return Table(path, names, columns)


def split_names(table: Table, column: str) -> dict[str, str]:
    """file name -> train, val or test, from a column of those words or of 0, 1, 2."""
    found = {}
    for file, text in zip(table.files, table.columns[column], strict=True):
        split = _SPLITS.get(text.strip().lower())
        if split is None:
            raise UserError(
                f"table '{table.path}' has the split '{text}' for '{file}'; it must be train, val "
                "or test"
            )
        found[file] = split
    return found

"""Pictures with a table of yes/no attributes: CSV, or the text format of CelebA."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gansuite.data.sources import Picture, Splitting, file_pictures, no_twice
from gansuite.errors import UserError, nearest
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


class Attributes(Splitting):
    """A folder of pictures and a table that says which attributes each of them has."""

    name = "attributes"
    summary = "a folder and a table of yes/no attributes (CSV, or CelebA's text format)"
    exclusive = False
    expected = "pictures and a table, e.g. attributes.csv with the columns file,<attribute>,..."

    def __init__(
        self,
        *,
        root: str,
        table: str | None = None,
        attributes: list[str] | None = None,
        crop: int = 0,
        test_fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        """``table``: its path below ``root`` (default: the only .csv there). ``attributes``
        chooses columns (default: all); a column named ``split`` holds train, val or test.
        ``crop``: side of the central square that is used, in pixels (0: the whole picture)."""
        super().__init__(root, test_fraction, split_seed)
        if attributes is not None:
            no_twice(attributes, "attributes")
        if crop < 0:
            raise UserError(f"data.crop is {crop}, it must be at least 0 (0: no crop)")
        self._table, self._attributes, self._crop = table, attributes, crop

    def _find_table(self) -> Path:
        if self._table is not None:
            path = self.root / self._table
            if not path.is_file():
                raise UserError(f"table '{path}' does not exist (data.table)")
            return path
        found = sorted(p for p in self.root.iterdir() if p.suffix.lower() == ".csv")
        if len(found) != 1:
            raise UserError(
                f"data folder '{self.root}' has {len(found)} .csv files, expected "
                f"{self.expected}; name the table with data.table"
            )
        return found[0]

    def _splits(self, table: Table) -> dict[str, str]:
        """file name -> train, val or test; empty where nobody says."""
        if "split" not in table.columns:
            return {}
        return split_names(table, "split")

    def _scan(self) -> None:
        self._check_root()
        table = read_table(self._find_table())
        known = [name for name in table.columns if name != "split"]
        names = self._attributes or known
        for name in names:
            if name not in known:
                raise UserError(
                    f"table '{table.path}' has no attribute '{name}'{nearest(name, known)}; "
                    f"it has {', '.join(known[:40])} (data.attributes)"
                )
        values = np.stack([table.binary(name) for name in names], axis=1)
        pictures = self._locate(table)
        splits = self._splits(table)
        found: dict[str, list[int]] = {"all": list(range(len(pictures)))}
        if splits:
            where = [splits.get(file, "none") for file in table.files]
            found = {s: [i for i, w in enumerate(where) if w == s] for s in ("train", "test")}
            if not found["test"]:
                found["test"] = [i for i, w in enumerate(where) if w == "val"]
            for split, rows in found.items():
                if not rows:
                    raise UserError(f"table '{table.path}' has no picture in the split '{split}'")
        row_of = {picture.name: i for i, picture in enumerate(pictures)}
        divided = self._split(
            {s: {"pictures": [pictures[i] for i in rows]} for s, rows in found.items()}
        )
        self.pictures = divided
        for split, by_domain in divided.items():
            rows = [row_of[picture.name] for picture in by_domain["pictures"]]
            self.vectors[split] = {"pictures": values[rows]}
        self.labels = tuple(names)

    def _locate(self, table: Table) -> list[Picture]:
        """The picture of every row: by its path below the root, or by a unique file name."""
        files = self._some(self.root)
        by_path = {path.relative_to(self.root).as_posix(): path for path in files}
        by_name: dict[str, list[Path]] = {}
        for path in files:
            by_name.setdefault(path.name, []).append(path)
        located: list[Path] = []
        missing: list[str] = []
        for file in table.files:
            same_name = by_name.get(file, [])
            if file in by_path:
                located.append(by_path[file])
            elif len(same_name) == 1:
                located.append(same_name[0])
            else:
                missing.append(file)
        if missing:
            raise UserError(
                f"table '{table.path}' names {len(missing)} files that are not below "
                f"'{self.root}', the first is '{missing[0]}'"
            )
        if len(set(located)) < len(located):
            raise UserError(f"table '{table.path}' names a file twice")
        if len(located) < len(files):
            self.notes.append(f"{len(files) - len(located)} pictures are not in the table: ignored")
        return file_pictures(self.root, located, crop=self._crop)


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

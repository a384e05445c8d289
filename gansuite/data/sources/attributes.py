"""PicturesBySplit with a table of yes/no attributes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gansuite.data.sources.base import no_twice
from gansuite.data.sources.files import Splitting
from gansuite.data.sources.pictures import Picture, file_pictures
from gansuite.data.tables import Table, read_table, split_names
from gansuite.errors import UserError, nearest


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

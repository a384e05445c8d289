"""Bases of the sources with a root folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gansuite.data.downloads import is_missing
from gansuite.data.sources.base import Source, printable
from gansuite.data.sources.pictures import PicturesBySplit, file_pictures
from gansuite.data.sources.tree import Places, pictures_below
from gansuite.errors import UserError
from gansuite.rng import derive

_LINKS = "they lead out of the data folder, back, or to what is counted already"


class FileSource(Source):
    """Base of the sources with a root folder."""

    def fetch(self) -> None:
        if self.downloads:
            with self._reading():
                if is_missing(self.root):
                    self._download()

    def _download(self) -> None:
        """Make ``root`` out of what is published."""
        raise NotImplementedError

    def _check_root(self) -> None:
        if not self.root.is_dir():
            what = "is a file, not a folder" if self.root.is_file() else "does not exist"
            raise UserError(
                f"data folder '{self.root}' {what}; set data.root to a folder with {self.expected}"
            )

    def _read(self, places: Places) -> PicturesBySplit:
        """The pictures in ``places``; none of the folders may be empty."""
        own = [folder for by_name in places.values() for folder in by_name.values()]
        return {
            split: {n: file_pictures(self.root, self._some(f, own)) for n, f in by_name.items()}
            for split, by_name in places.items()
        }

    def _some(self, folder: Path, own: Sequence[Path] = ()) -> list[Path]:
        """The pictures in ``folder`` and below; raises :class:`UserError` for none. Links that are
        not followed are noted; see :func:`pictures_below`."""
        found, left = pictures_below(folder, self.root, own, self.suffixes)
        told = f"{left} link(s) in '{folder}' not followed: {_LINKS}"
        if left and told not in self.notes:
            self.notes.append(told)
        if not found:
            links = f" ({left} link(s) not followed: {_LINKS})" if left else ""
            raise UserError(
                f"folder '{folder}' holds no pictures{links}; accepted are "
                f"{' '.join(self.suffixes)} in any case, in it and below"
            )
        return found


class Splitting(FileSource):
    """Base of the sources that hold test pictures out where there is no test folder."""

    def __init__(self, root: str, test_fraction: float, split_seed: int) -> None:
        super().__init__(root)
        if not 0 < test_fraction < 1:
            raise UserError(f"data.test_fraction is {test_fraction}, it must lie between 0 and 1")
        self._fraction, self._split_seed = test_fraction, split_seed

    def _split(self, found: PicturesBySplit, keys: Sequence[str] | None = None) -> PicturesBySplit:
        """``found``, with "all" divided into train and test; ``keys`` are the names to divide by.

        The domains are divided each by itself, or by ``keys`` all alike.
        """
        if "all" not in found:
            return found
        self.notes.append(
            f"no test folder: {self._fraction:.0%} of the pictures are held out for it "
            "(data.test_fraction)"
        )
        split: PicturesBySplit = {"train": {}, "test": {}}
        for domain, pictures in found["all"].items():
            names = keys or [picture.name for picture in pictures]
            held = _holdout(names, self._fraction, self._split_seed)
            split["train"][domain] = [p for i, p in enumerate(pictures) if i not in held]
            split["test"][domain] = [p for i, p in enumerate(pictures) if i in held]
        return split

    def _pool(self, found: PicturesBySplit, domain: str) -> None:
        """Make one domain of several classes, which become the labels."""
        classes = list(found["train"])
        for split, by_class in found.items():
            ids = np.repeat(np.arange(len(classes)), [len(p) for p in by_class.values()])
            self.pictures[split] = {domain: [p for group in by_class.values() for p in group]}
            self.vectors[split] = {domain: np.eye(len(classes), dtype=np.float32)[ids]}
        self.labels = tuple(classes)


def _holdout(names: Sequence[str], fraction: float, seed: int) -> set[int]:
    """Which of ``names`` are the test split: by a seeded hash of each name.

    So a file that is added later never moves another from one split to the other's rank order.
    At least one stays on each side.
    """
    if len(names) < 2:
        raise UserError(
            "data: one picture cannot be split into train and test; add pictures or a test folder"
        )
    count = min(len(names) - 1, max(1, round(len(names) * fraction)))
    order = sorted(range(len(names)), key=lambda i: derive(seed, "split/" + printable(names[i])))
    return set(order[:count])

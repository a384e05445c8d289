"""Pairs of pictures."""

from __future__ import annotations

import itertools
from pathlib import Path

from gansuite.data.sources.base import no_twice
from gansuite.data.sources.files import Splitting
from gansuite.data.sources.pictures import PicturesBySplit, file_pictures
from gansuite.data.sources.tree import ab_folders, named_folders, pair_key, split_places, subfolders
from gansuite.errors import UserError


class Paired(Splitting):
    """Pairs: two pictures side by side in one file, or two folders with equal file names."""

    name = "paired"
    summary = "pairs of pictures: side by side in one file, or two folders with equal names"
    expected = (
        "train/ and test/ (or val/) with pictures side by side, or two folders with equal file "
        "names: trainA/ trainB/ testA/ testB/, train/<domain>/ test/<domain>/, or <domain>/"
    )
    stacks = True
    paired = True
    aligned = True

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        halves: bool = False,
        test_fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        """``domains`` names left and right or A and B, or chooses the two folders. ``halves``:
        train on one side of the first half of the pairs and the other side of the rest, so that
        no picture has its partner there (DiscoGAN)."""
        super().__init__(root, test_fraction, split_seed)
        no_twice(domains)
        if domains is not None and len(domains) != 2:
            raise UserError(f"data.domains names {len(domains)} domains, a pair has two")
        self._wanted, self._halves = domains, halves
        self.paired = not halves

    def _scan(self) -> None:
        self._find()
        if self._halves:
            train = self.pictures["train"]
            (a, first), (b, second) = train.items()
            if len(first) < 2:
                raise UserError("data.halves needs at least two pairs to train on")
            middle = len(first) // 2
            self.pictures["train"] = {a: first[:middle], b: second[middle:]}

    def _find(self) -> None:
        self._check_root()
        names = self._wanted or ["A", "B"]
        splits = split_places(self.root)
        if any((self.root / f"train{side}").is_dir() for side in "AB"):
            places = {
                split: dict(zip(names, by_side.values(), strict=True))
                for split, by_side in ab_folders(self.root, "AB", self.expected).items()
            }
        elif len(subfolders(next(iter(splits.values())))) >= 2:
            places = named_folders(self.root, self._wanted)
            present = next(iter(places.values()))
            if len(present) != 2:
                raise UserError(
                    f"data folder '{self.root}' has {len(present)} folders "
                    f"({', '.join(present)}), a pair has two; choose them with data.domains"
                )
        else:
            found: PicturesBySplit = {}
            for split, folder in splits.items():
                files = self._some(folder, list(splits.values()))
                found[split] = {
                    name: file_pictures(self.root, files, part)
                    for name, part in zip(names, ("left", "right"), strict=True)
                }
            self.pictures = self._split(found)
            return
        read = self._read(places)
        keys = {}
        for split, by_name in places.items():
            sides = {
                folder: [self.root / picture.name for picture in read[split][name]]
                for name, folder in by_name.items()
            }
            keys[split] = _match(sides)
        self.pictures = self._split(read, keys.get("all"))


def _match(found: dict[Path, list[Path]]) -> list[str]:
    """The names, without suffix, of the pairs in two folders. Raises when one is single."""
    sides = []
    first, second = found
    for folder, paths in found.items():
        keys = [pair_key(path.relative_to(folder)) for path in paths]
        for one, other in itertools.pairwise(keys):
            if one == other:
                raise UserError(f"folder '{folder}' has two pictures named '{one}'; keep one")
        sides.append(keys)
    single = sorted(set(sides[0]) ^ set(sides[1]))
    if single:
        here, there = (first, second) if single[0] in sides[0] else (second, first)
        raise UserError(
            f"picture '{single[0]}' of '{here}' has no partner in '{there}' "
            f"({len(single)} without one); pairs have equal names"
        )
    return sides[0]

"""Two folders of pictures that do not belong together."""

from __future__ import annotations

from gansuite.data.sources.base import no_twice
from gansuite.data.sources.files import Splitting
from gansuite.data.sources.tree import ab_folders
from gansuite.errors import UserError, nearest


class Unpaired(Splitting):
    """The layout of the CycleGAN sets: ``trainA trainB testA testB``."""

    name = "unpaired"
    summary = "two folders trainA and trainB, with testA and testB (or valA, valB)"
    expected = "trainA/ trainB/ testA/ testB/"
    stacks = True

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] = ["A", "B"],  # noqa: B006
        only: str | None = None,
        test_fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        """``domains`` names A and B; ``only`` keeps one of them, for a method of one domain."""
        super().__init__(root, test_fraction, split_seed)
        no_twice(domains)
        if len(domains) != 2:
            raise UserError(
                f"data.domains names {len(domains)} domains, '{self.name}' has two: A and B"
            )
        if only is not None and only not in domains:
            raise UserError(f"data.only: unknown domain '{only}'{nearest(only, domains)}")
        self._sides = {
            side: name
            for side, name in zip("AB", domains, strict=True)
            if only is None or only == name
        }

    def _scan(self) -> None:
        self._check_root()
        places = ab_folders(self.root, list(self._sides), self.expected)
        named = {
            split: {self._sides[side]: folder for side, folder in by_side.items()}
            for split, by_side in places.items()
        }
        self.pictures = self._split(self._read(named))

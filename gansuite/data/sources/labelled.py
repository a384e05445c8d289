"""A folder per class."""

from __future__ import annotations

from gansuite.data.sources.base import no_twice
from gansuite.data.sources.files import Splitting
from gansuite.data.sources.tree import named_folders


class Labelled(Splitting):
    """A folder per class: one domain of pictures, whose labels are the classes."""

    name = "labelled"
    summary = "a folder per class, pooled into one domain with the class as label"
    expected = "<class>/ folders with pictures, or train/<class>/ and test/<class>/"
    stacks = True

    def __init__(
        self,
        *,
        root: str,
        classes: list[str] | None = None,
        test_fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        """``classes`` chooses folders and their order (default: all, sorted by name)."""
        super().__init__(root, test_fraction, split_seed)
        no_twice(classes, "classes")
        self._wanted = classes

    def _scan(self) -> None:
        self._check_root()
        found = self._read(named_folders(self.root, self._wanted, "classes"))
        self._pool(self._split(found), "pictures")

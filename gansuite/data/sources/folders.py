"""A folder per domain."""

from __future__ import annotations

from gansuite.data.sources.base import no_twice
from gansuite.data.sources.files import Splitting
from gansuite.data.sources.tree import named_folders


class Folders(Splitting):
    """A folder per domain; sub-folders of a domain belong to it."""

    name = "folders"
    summary = "a folder per domain, with or without train/ and test/ (or val/) above"
    expected = "<domain>/ folders with pictures, or train/<domain>/ and test/<domain>/"
    stacks = True

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        test_fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        """``domains`` chooses folders and their order (default: all, sorted by name)."""
        super().__init__(root, test_fraction, split_seed)
        no_twice(domains)
        self._wanted = domains

    def _scan(self) -> None:
        self._check_root()
        self.pictures = self._split(self._read(named_folders(self.root, self._wanted)))

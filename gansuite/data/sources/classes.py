"""Base of the published sets of pictures in classes."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from gansuite.data.downloads import fetch_dataset
from gansuite.data.sources.base import no_twice
from gansuite.data.sources.files import Splitting
from gansuite.data.sources.pictures import ArrayPicture, Picture, PicturesBySplit
from gansuite.data.sources.tree import named_folders
from gansuite.errors import UserError, nearest


class ClassSet(Splitting):
    """A set of pictures in classes, one domain with labels, or some classes as domains."""

    classes: ClassVar[tuple[str, ...]]
    address: ClassVar[str]
    files: ClassVar[str]
    dataset: ClassVar[str]  # its class in torchvision
    downloads = True

    def __init__(self, *, root: str | None = None, domains: list[str] | None = None) -> None:
        """``root``: default ``data/<name>``. ``domains``: classes that become domains, in this
        order (default: one domain of all pictures, with the classes as labels)."""
        super().__init__(root if root is not None else f"data/{self.name}", 0.1, 0)
        no_twice(domains)
        for name in domains or ():
            if name not in self.classes:
                raise UserError(
                    f"data.domains: {self.name} has no class '{name}'"
                    f"{nearest(name, self.classes)}; it has {', '.join(self.classes)}"
                )
        self._wanted = domains

    def _scan(self) -> None:
        self._check_root()
        arrays = self._arrays()
        if arrays:
            found: PicturesBySplit = {}
            for split, (images, ids) in arrays.items():
                by_class: dict[str, list[Picture]] = {name: [] for name in self.classes}
                for i, (image, k) in enumerate(zip(images, ids, strict=True)):
                    by_class[self.classes[int(k)]].append(ArrayPicture(image, f"{split}/{i:05d}"))
                found[split] = by_class
        else:
            # sub-folders may carry the class's number instead of its name
            digits = [str(i) for i in range(len(self.classes))]
            places = named_folders(self.root, None)
            present = next(iter(places.values()))
            wanted = digits if set(present) == set(digits) else list(self.classes)
            read = self._read(named_folders(self.root, wanted, "root"))
            found = {
                split: dict(zip(self.classes, by_class.values(), strict=True))
                for split, by_class in read.items()
            }
        found = self._split(found)
        if self._wanted:
            self.pictures = {s: {d: found[s][d] for d in self._wanted} for s in found}
        else:
            self._pool(found, self.name)

    def _download(self) -> None:
        fetch_dataset(self.dataset, self.root, f"{self.address} by hand and put {self.files}")

    @abstractmethod
    def _arrays(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """split ("train" and "test", or "all") -> uint8 pictures, class numbers; or nothing."""

"""CelebA, as torchvision stores it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Literal

from gansuite.data.downloads import fetch_dataset
from gansuite.data.sources.attributes import Attributes
from gansuite.data.sources.tree import find_named
from gansuite.data.tables import Table, read_table, split_names
from gansuite.errors import UserError


class CelebA(Attributes):
    """Aligned faces, 178 x 218, with forty attributes; StarGAN's five by default."""

    name = "celeba"
    summary = "faces with attributes, 1.4 GB, downloaded on first use where Google Drive allows"
    expected = "img_align_celeba/ list_attr_celeba.txt (or .csv) list_eval_partition.txt (or .csv)"
    downloads = True
    address = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"

    def __init__(
        self,
        *,
        root: str | None = None,
        attributes: list[str] = ["Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young"],  # noqa: B006
        crop: int = 178,
        split: Literal["official", "stargan"] = "official",
    ) -> None:
        """``root``: default ``data/celeba``. ``crop``: side of the central square, in pixels.
        ``split``: that of list_eval_partition, or StarGAN's code's: the first 1,999 rows of the
        table in the order of Python's `random` with seed 1234 are for testing, all others for
        training."""
        super().__init__(
            root=root if root is not None else "data/celeba", attributes=attributes, crop=crop
        )
        self._rule = split

    def _download(self) -> None:
        by_hand = f"{self.address} by hand and put {self.expected}"
        fetch_dataset("CelebA", self.root, by_hand, split="all", target_type="attr")

    def _listed(self, stem: str) -> Path | None:
        return next(iter(find_named(self.root, f"{stem}.txt", f"{stem}.csv")), None)

    def _find_table(self) -> Path:
        path = self._listed("list_attr_celeba")
        if path is None:
            raise UserError(
                f"data folder '{self.root}' has no list_attr_celeba.txt; expected {self.expected}, "
                f"from {self.address}"
            )
        return path

    def _splits(self, table: Table) -> dict[str, str]:
        if self._rule == "stargan":
            files = list(table.files)
            random.Random(1234).shuffle(files)
            return {file: "test" if i < 1999 else "train" for i, file in enumerate(files)}
        path = self._listed("list_eval_partition")
        if path is None:
            return {}
        partition = read_table(path)
        return split_names(partition, next(iter(partition.columns)))

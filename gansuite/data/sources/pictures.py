"""One picture of a source, not yet decoded: in a file or in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from gansuite.data.images import read_image, to_channels
from gansuite.errors import UserError

_END_BYTES = 65536  # of the first and last bytes of a file, in its digest


class Picture(Protocol):
    """One picture of a source, not yet decoded."""

    @property
    def name(self) -> str:
        """The file's path relative to the root (or an index), with ``/`` between the parts."""

    def read(self, channels: int) -> np.ndarray:
        """uint8 [H,W,channels]; raises :class:`UserError` when unreadable."""

    def stamp(self) -> str:
        """Cheap: changes when the file is replaced. Keys the cache."""

    def content(self) -> str:
        """A hash of what is in it, wherever it lies. Part of the digest."""


@dataclass(frozen=True)
class FilePicture:
    """A picture in a file; ``part`` takes the left or right half, ``crop`` the centre square."""

    path: Path
    name: str
    part: str = "whole"
    crop: int = 0

    def read(self, channels: int) -> np.ndarray:
        array = read_image(self.path, channels)
        if self.part != "whole":
            half = array.shape[1] // 2
            if half == 0 or array.shape[1] % 2:
                raise UserError(
                    f"picture '{self.path}' is {array.shape[1]} pixels wide and cannot hold two "
                    "pictures side by side; use two folders with equal file names instead"
                )
            array = array[:, :half] if self.part == "left" else array[:, half:]
        if self.crop:
            height, width = array.shape[:2]
            top, left = max(0, (height - self.crop) // 2), max(0, (width - self.crop) // 2)
            array = array[top : top + self.crop, left : left + self.crop]
        return array

    def stamp(self) -> str:
        stat = self.path.stat()
        return f"{self.path}|{self.part}|{self.crop}|{stat.st_size}|{stat.st_mtime_ns}"

    def content(self) -> str:
        size = self.path.stat().st_size
        found = hashlib.sha256(f"{size}|{self.part}|{self.crop}|".encode())
        with open(self.path, "rb") as file:
            found.update(file.read(_END_BYTES))
            if size > _END_BYTES:
                file.seek(max(_END_BYTES, size - _END_BYTES))
                found.update(file.read())
        return found.hexdigest()


@dataclass(frozen=True, eq=False)
class ArrayPicture:
    """A picture in memory: uint8 [H,W] or [H,W,3]."""

    array: np.ndarray
    name: str

    def read(self, channels: int) -> np.ndarray:
        return to_channels(self.array, channels)

    def stamp(self) -> str:
        return self.content()

    def content(self) -> str:
        return hashlib.sha256(self.array.tobytes()).hexdigest()


PicturesBySplit = dict[str, dict[str, list[Picture]]]  # split -> domain -> pictures in file order


def file_pictures(
    root: Path, paths: Iterable[Path], part: str = "whole", crop: int = 0
) -> list[Picture]:
    """``paths`` as pictures named relative to ``root``; see :class:`FilePicture`."""
    return [FilePicture(path, path.relative_to(root).as_posix(), part, crop) for path in paths]

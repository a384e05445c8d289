"""MNIST and Fashion-MNIST, as torchvision stores them or as plain folders."""

from __future__ import annotations

import gzip
import zlib

import numpy as np

from gansuite.data.sources.classes import ClassSet
from gansuite.data.sources.tree import find_named
from gansuite.errors import UserError
from gansuite.imaging import unlike_a_file

_LARGEST = 1 << 28  # bytes of a file of digits or clothes; the largest published has 47 million


class Mnist(ClassSet):
    """LeCun's digits, 28 x 28, one channel."""

    name, dataset = "mnist", "MNIST"
    summary = "digits, 28 px, one channel, 12 MB, downloaded on first use"
    expected = "the four *-ubyte.gz files, or train/<class>/ and test/<class>/"
    channels = 1
    classes = tuple("0123456789")
    address = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    files = "its four *-ubyte.gz files"

    def __init__(
        self, *, root: str | None = None, domains: list[str] | None = None, train: int | None = None
    ) -> None:
        """``root``, ``domains``: see :class:`ClassSet`. ``train``: only the first so many training
        pictures, in the order of the file (the GAN of 2014: 50,000)."""
        super().__init__(root=root, domains=domains)
        self._first = train

    def _arrays(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        found = {}
        for split, stem in (("train", "train"), ("test", "t10k")):
            images = self._idx(f"{stem}-images-idx3-ubyte", 3)
            labels = self._idx(f"{stem}-labels-idx1-ubyte", 1)
            if images is not None and labels is not None:
                if len(images) != len(labels):
                    raise UserError(
                        f"{self.name} at '{self.root}': {len(images)} pictures but {len(labels)} "
                        f"labels in the {stem} files"
                    )
                found[split] = (images, labels)
        if self._first is not None:
            available = len(found["train"][1]) if "train" in found else 0
            if not 1 <= self._first <= available:
                raise UserError(
                    f"data.train is {self._first}, but the file train-images-idx3-ubyte at "
                    f"'{self.root}' has {available} pictures; lower it or leave it out"
                )
            images, labels = found["train"]
            found["train"] = (images[: self._first], labels[: self._first])
        if len(found) == 1:
            (only,) = found
            self.notes.append(f"only the {only} files are at '{self.root}'")
            return {"all": found[only]}
        return found

    def _idx(self, name: str, dimensions: int) -> np.ndarray | None:
        """An IDX file, plain or gzipped, in the root or where torchvision puts it."""
        for path in find_named(self.root, name, f"{name}.gz"):
            try:
                if reason := unlike_a_file(path):
                    raise ValueError(reason)
                with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
                    data = file.read(_LARGEST + 1)
                if len(data) > _LARGEST:
                    raise ValueError(f"it holds more than {_LARGEST} bytes")
                shape = np.frombuffer(data, ">u4", dimensions, 4)
                return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
            except (OSError, EOFError, ValueError, zlib.error) as error:
                raise UserError(
                    f"file '{path}' is damaged or cut short ({error}); get it again from "
                    f"{self.address}"
                ) from error
        return None


class FashionMnist(Mnist):
    """Zalando's articles, 28 x 28, one channel."""

    name, dataset = "fashion_mnist", "FashionMNIST"
    summary = "clothes, 28 px, one channel, 31 MB, downloaded on first use"
    classes = (
        "t-shirt", "trouser", "pullover", "dress", "coat",
        "sandal", "shirt", "sneaker", "bag", "ankle-boot",
    )  # fmt: skip
    address = "https://github.com/zalandoresearch/fashion-mnist"

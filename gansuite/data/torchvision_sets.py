"""MNIST, Fashion-MNIST, CIFAR-10 and CelebA: as torchvision stores them, or as plain folders."""

from __future__ import annotations

import gzip
import random
import shutil
import tempfile
import zlib
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from gansuite.data.cache import lock
from gansuite.data.sources import (
    ArrayPicture,
    Picture,
    Pictures,
    Splitting,
    named_folders,
    no_twice,
)
from gansuite.data.tables import Attributes, Table, read_table, split_names
from gansuite.errors import UserError, nearest
from gansuite.imaging import unlike_a_file

_LARGEST = 1 << 28  # bytes of a file of digits or clothes; the largest published has 47 million


def _fetch(
    name: str, root: Path, download: Callable[[str], Any], address: str, by_hand: str
) -> None:
    """Let torchvision download aside, then make the result ``root``: all or nothing."""
    made = [p for p in (root.parent, *root.parent.parents) if not p.exists()]
    aside = ""
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with lock(root.parent / f".{name}.lock"):
            if root.is_dir():
                if any(root.iterdir()):
                    return  # another process was faster
                root.rmdir()
            aside = tempfile.mkdtemp(prefix=f".{name}-", dir=root.parent)
            download(aside)
            Path(aside).replace(root)
    except Exception as error:  # torchvision raises whatever its downloader met
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if aside:
            shutil.rmtree(aside, ignore_errors=True)
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        raise UserError(
            f"{name} is not at '{root}' and cannot be downloaded ({reason}); get it from {address} "
            f"by hand and put {by_hand} into '{root}'"
        ) from error


def _below(root: Path, *names: str) -> list[Path]:
    """The files of these names in ``root`` and two levels below, without listing all files."""
    return [
        path
        for level in ("", "*/", "*/*/")
        for name in names
        for path in sorted(root.glob(level + name))
    ]


class ClassSet(Splitting):
    """A set of pictures in classes, one domain with labels, or some classes as domains."""

    classes: ClassVar[tuple[str, ...]]
    address: ClassVar[str]
    files: ClassVar[str]

    def __init__(self, *, root: str | None = None, domains: list[str] | None = None) -> None:
        """``root``: default ``data/<name>``. ``domains``: classes that become domains, in this
        order (default: one domain of all pictures, with the classes as labels)."""
        super().__init__(root if root is not None else f"data/{self.name}", 0.1, 0)
        if domains is not None:
            no_twice(domains)
            for name in domains:
                if name not in self.classes:
                    raise UserError(
                        f"data.domains: {self.name} has no class '{name}'"
                        f"{nearest(name, self.classes)}; it has {', '.join(self.classes)}"
                    )
        self._wanted = domains

    def _scan(self) -> None:
        if not self.root.exists() or (self.root.is_dir() and not any(self.root.iterdir())):
            _fetch(self.name, self.root, self._download, self.address, self.files)
        self._check_root()
        arrays = self._arrays()
        if arrays:
            found: Pictures = {}
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

    @abstractmethod
    def _download(self, folder: str) -> Any: ...

    @abstractmethod
    def _arrays(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """split ("train" and "test", or "all") -> uint8 pictures, class numbers; or nothing."""


class Mnist(ClassSet):
    """LeCun's digits, 28 x 28, one channel."""

    name = "mnist"
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

    def _download(self, folder: str) -> Any:
        from torchvision.datasets import MNIST

        return MNIST(folder, download=True)

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
        for path in _below(self.root, name, f"{name}.gz"):
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

    name = "fashion_mnist"
    summary = "clothes, 28 px, one channel, 31 MB, downloaded on first use"
    classes = (
        "t-shirt", "trouser", "pullover", "dress", "coat",
        "sandal", "shirt", "sneaker", "bag", "ankle-boot",
    )  # fmt: skip
    address = "https://github.com/zalandoresearch/fashion-mnist"

    def _download(self, folder: str) -> Any:
        from torchvision.datasets import FashionMNIST

        return FashionMNIST(folder, download=True)


class Cifar10(ClassSet):
    """Krizhevsky's ten classes, 32 x 32, colour."""

    name = "cifar10"
    summary = "ten classes of objects, 32 px, 170 MB, downloaded on first use"
    expected = "cifar-10-batches-py/, or train/<class>/ and test/<class>/"
    classes = (
        "airplane", "automobile", "bird", "cat", "deer",
        "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    address = "https://www.cs.toronto.edu/~kriz/cifar.html"
    files = "the unpacked folder cifar-10-batches-py"

    def _download(self, folder: str) -> Any:
        from torchvision.datasets import CIFAR10

        return CIFAR10(folder, download=True)

    def _arrays(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        if not (self.root / "cifar-10-batches-py").is_dir():
            return {}
        from torchvision.datasets import CIFAR10

        try:
            sets = {s: CIFAR10(str(self.root), train=s == "train") for s in ("train", "test")}
        except RuntimeError as error:
            raise UserError(
                f"cifar10 at '{self.root / 'cifar-10-batches-py'}' is incomplete or damaged; get "
                f"it again from {self.address}"
            ) from error
        return {s: (np.asarray(x.data), np.asarray(x.targets)) for s, x in sets.items()}


class CelebA(Attributes):
    """Aligned faces, 178 x 218, with forty attributes; StarGAN's five by default."""

    name = "celeba"
    summary = "faces with attributes, 1.4 GB, downloaded on first use where Google Drive allows"
    expected = "img_align_celeba/ list_attr_celeba.txt (or .csv) list_eval_partition.txt (or .csv)"
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

    def _scan(self) -> None:
        if not self.root.exists() or (self.root.is_dir() and not any(self.root.iterdir())):
            _fetch(self.name, self.root, self._download, self.address, self.expected)
        super()._scan()

    def _download(self, folder: str) -> Any:
        from torchvision.datasets import CelebA as Faces

        return Faces(folder, split="all", target_type="attr", download=True)

    def _listed(self, stem: str) -> Path | None:
        return next(iter(_below(self.root, f"{stem}.txt", f"{stem}.csv")), None)

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

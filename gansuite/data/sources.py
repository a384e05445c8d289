"""Sources: where pictures come from, as domains of pictures with splits.

The keyword-only signature of a source's ``__init__`` is the schema of ``data:`` for its name.
Nothing is read before :meth:`Source.prepare`.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from tqdm import tqdm

from gansuite.config import user_path
from gansuite.data.cache import cached_array
from gansuite.data.coats import DOMAINS, SIZES, render_many
from gansuite.data.images import (
    IMAGE_SUFFIXES,
    RESIZE_POLICIES,
    is_image,
    read_image,
    resize_uint8,
    to_channels,
)
from gansuite.data.renderings import RENDERINGS
from gansuite.data.spec import DataSpec, LabelSet
from gansuite.errors import UserError, nearest
from gansuite.imaging import unlike_a_file
from gansuite.rng import derive

_CACHE_VERSION = 2  # raise it when the file of a cache is written in another way
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


Pictures = dict[str, dict[str, list[Picture]]]  # split -> domain -> pictures in file order


class Source(ABC):
    """Base of all sources. A subclass fills ``pictures`` (and labels) in :meth:`_scan`."""

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    expected: ClassVar[str] = ""  # the tree of files, for people
    channels: ClassVar[int] = 3  # what the pictures usually have
    paired = False  # training pictures are pairs
    exclusive: ClassVar[bool] = True  # a picture has exactly one label
    aligned = False  # test picture i shows the same scene in every domain

    def __init__(self, root: str = "") -> None:
        self.root = user_path(root, "data.root")
        self.pictures: Pictures = {}
        self.labels: tuple[str, ...] = ()
        # split -> domain -> float32 [N,K]; filled by sources whose labels are not their domains
        self.vectors: dict[str, dict[str, np.ndarray]] = {}
        self.joint: tuple[LabelSet, ...] = ()
        self.notes: list[str] = []  # what a person should know: splits made up, files ignored
        self._digest: str | None = None

    @property
    def where(self) -> str:
        """The place of the data, for messages; empty where there is none."""
        return str(self.root)

    def prepare(self) -> None:
        """Find (for some sources: fetch) the files. Safe to repeat; raises :class:`UserError`."""
        if not self.pictures:
            with self._reading():
                self._scan()
            if not self.labels:
                self.labels = self.domains
            for name in (*self.domains, *self.labels):
                if _printable(name) != name:
                    raise UserError(
                        f"data '{self.name}' at {self.where} has a folder or column named "
                        f"'{_printable(name)}', which is not UTF-8; rename it"
                    )

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Make one sentence of what the file system refuses."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"data '{self.name}': '{error.filename or self.root}' cannot be read "
                f"({error.strerror or error})"
            ) from error

    @abstractmethod
    def _scan(self) -> None:
        """Fill ``pictures``, and ``labels`` and ``vectors`` where labels are not the domains."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Domain names, in order."""
        return tuple(self.pictures["train"])

    def counts(self) -> dict[str, dict[str, int]]:
        """split -> domain -> number of pictures."""
        return {
            split: {domain: len(found) for domain, found in by_domain.items()}
            for split, by_domain in self.pictures.items()
        }

    def digest(self) -> str:
        """16 hex digits; equal for equal files (names, sizes, first and last 64 KB)."""
        if self._digest is None:
            with self._reading():
                self._digest = self._digested()
        return self._digest

    def _digested(self) -> str:
        found = hashlib.sha256(json.dumps([self.domains, self.labels]).encode())
        for split, by_domain in self.pictures.items():
            for domain, pictures in by_domain.items():
                found.update(json.dumps([split, domain]).encode())
                for picture in pictures:
                    found.update(os.fsencode(f"{picture.name}|{picture.content()}\n"))
                if split in self.vectors:
                    found.update(self.vectors[split][domain].tobytes())
        return found.hexdigest()[:16]

    def spec(self, size: int, channels: int) -> DataSpec:
        """The facts of this source at ``size`` and ``channels``."""
        return DataSpec(
            name=self.name,
            size=size,
            channels=channels,
            domains=self.domains,
            counts=self.counts(),
            paired=self.paired,
            labels=self.labels,
            digest=self.digest(),
            exclusive=self.exclusive,
            joint=self.joint,
        )

    def load(
        self,
        split: str,
        domain: str,
        size: int,
        channels: int,
        cache: Path | None = None,
        resize: str = "bicubic",
    ) -> np.ndarray:
        """All pictures of a split, uint8 [N,channels,size,size], in file order, not cropped.

        ``resize``: see :func:`resize_uint8`. Kept in memory, or in the folder ``cache``. Raises
        :class:`UserError` naming the first unreadable file and counting the others.
        """
        count = self.counts()[split][domain]
        name = self.cache_name(split, domain, size, channels, resize)
        return cached_array(
            cache,
            name,
            (count, channels, size, size),
            lambda out: self._fill(out, split, domain, size, channels, resize),
        )

    def cache_name(
        self, split: str, domain: str, size: int, channels: int, resize: str = "bicubic"
    ) -> str:
        """Names the pictures that :meth:`load` gives, and changes when they do."""
        facts = [_CACHE_VERSION, RESIZE_POLICIES[resize], size, channels]
        key = hashlib.sha256(json.dumps(facts).encode())
        with self._reading():
            key.update(os.fsencode(self._stamp(split, domain)))
        return f"{self.name}-{split}-{size}x{channels}-{key.hexdigest()[:20]}"

    def _stamp(self, split: str, domain: str) -> str:
        return "\n".join(picture.stamp() for picture in self.pictures[split][domain])

    def _fill(
        self, out: np.ndarray, split: str, domain: str, size: int, channels: int, resize: str
    ) -> None:
        pictures = self.pictures[split][domain]

        def one(index: int) -> UserError | None:
            try:
                array = resize_uint8(pictures[index].read(channels), size, resize)
            except UserError as error:
                return error
            out[index] = array.transpose(2, 0, 1)
            return None

        # decoding and resizing leave the interpreter's lock alone
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            results = tqdm(
                pool.map(one, range(len(pictures))),
                desc=f"reading {domain} ({split})",
                total=len(pictures),
                unit=" pictures",
                delay=2,
                disable=None,
                leave=False,
            )
            bad = [error for error in results if error is not None]
        if bad:
            others = f" ({len(bad) - 1} other files of '{domain}' are unreadable too)"
            raise UserError(f"{bad[0]}{others if len(bad) > 1 else ''}")

    def label_vectors(self, split: str, domain: str) -> np.ndarray:
        """float32 [N,K] in file order: one-hot domains, or what the table or the folders say."""
        if split in self.vectors:
            return self.vectors[split][domain]
        vectors = np.zeros((self.counts()[split][domain], len(self.domains)), np.float32)
        vectors[:, self.domains.index(domain)] = 1
        return vectors

    def masks(self, domain: str, size: int) -> np.ndarray | None:
        """bool [N,1,size,size]: what a translation should change in the test pictures, or None."""
        return None


# --- the embedded set ---------------------------------------------------------------------------


class Coats(Source):
    """The drawn animals: no file, no network, and the true translation is known."""

    name = "coats"
    summary = "drawn animals in several coats; no download, true translations known"
    expected = "nothing: the pictures are drawn"
    aligned = True
    _RANGE = 10_000_000  # indices: test [0, R), the k-th of DOMAINS [R(k+1), R(k+2))

    def __init__(
        self,
        *,
        domains: list[str] = ["horse", "zebra"],  # noqa: B006  (shown as the default of the schema)
        train: int = 2000,
        test: int = 256,
        seed: int = 0,
        paired: bool = False,
    ) -> None:
        """``paired``: training picture i shows the same scene in every domain, as test pictures
        always do."""
        super().__init__()
        self.paired = paired
        for domain in domains:
            if domain not in DOMAINS:
                raise UserError(
                    f"data.domains: unknown coat '{domain}'{nearest(domain, DOMAINS)}; "
                    f"there are {', '.join(DOMAINS)}"
                )
        no_twice(domains)
        for key, value in (("train", train), ("test", test)):
            if not 1 <= value <= self._RANGE:
                raise UserError(f"data.{key} is {value}, it must be 1 to {self._RANGE}")
        self._domains, self._seed = tuple(domains), seed
        self._counts = {"train": train, "test": test}

    @property
    def where(self) -> str:
        return ""

    @property
    def domains(self) -> tuple[str, ...]:
        return self._domains

    def _scan(self) -> None:
        """Nothing is stored: the labels are the domains."""

    def counts(self) -> dict[str, dict[str, int]]:
        return {split: dict.fromkeys(self._domains, n) for split, n in self._counts.items()}

    def spec(self, size: int, channels: int) -> DataSpec:
        if not SIZES[0] <= size <= SIZES[1]:
            raise UserError(f"data.size is {size}, coats are drawn at {SIZES[0]} to {SIZES[1]}")
        return super().spec(size, channels)

    def digest(self) -> str:
        facts = [_COATS_VERSION, self._domains, self._counts, self._seed]
        facts += ["paired"] if self.paired else []
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def indices(self, split: str, domain: str) -> range:
        """Which pictures of the renderer: the test ones are the same in every domain, and so are
        the training ones of pairs, the first domain's."""
        # the place in DOMAINS decides, so horses are the same whichever coats stand beside them
        coat = self._domains[0] if self.paired else domain
        first = 0 if split == "test" else self._RANGE * (1 + DOMAINS.index(coat))
        return range(first, first + self._counts[split])

    def _stamp(self, split: str, domain: str) -> str:
        indices = self.indices(split, domain)
        # a drawing stands for the renderer: a cache made by another version of it is not used
        sample, _ = render_many(domain, range(2), size=SIZES[0], seed=self._seed)
        drawing = hashlib.sha256(sample.tobytes()).hexdigest()
        return f"coats|{domain}|{self._seed}|{indices.start}|{indices.stop}|{drawing}"

    def _fill(
        self, out: np.ndarray, split: str, domain: str, size: int, channels: int, resize: str
    ) -> None:
        indices = self.indices(split, domain)
        drawn = min(size, SIZES[1])  # a load size above the largest drawing is a mere enlargement
        for start in tqdm(
            range(0, len(indices), 64),
            desc=f"drawing {domain} ({split})",
            delay=2,
            disable=None,
            leave=False,
        ):
            images, _ = render_many(
                domain, indices[start : start + 64], size=drawn, seed=self._seed
            )
            for i, image in enumerate(images, start):
                array = resize_uint8(to_channels(image, channels), size, resize)
                out[i] = array.transpose(2, 0, 1)

    def masks(self, domain: str, size: int) -> np.ndarray | None:
        if RENDERINGS.keys() & set(self._domains):
            return None  # they change the whole picture
        _, masks = render_many(domain, self.indices("test", domain), size=size, seed=self._seed)
        return masks[:, None]


_COATS_VERSION = 1  # raise it when the same (seed, index) draws another picture


# --- helpers of the file sources ----------------------------------------------------------------


def no_twice(names: Sequence[str], key: str = "domains") -> None:
    """Raise :class:`UserError` when the option ``data.<key>`` is empty or names one twice."""
    if not names:
        raise UserError(f"data.{key} is empty; name at least one or leave the key out")
    for name in names:
        if list(names).count(name) > 1:
            raise UserError(f"data.{key} names '{name}' twice")


def _folders(folder: Path) -> list[str]:
    """Names of the visible sub-folders, sorted; archive leftovers of other systems are none."""
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir()
        and not entry.name.startswith((".", "__"))
        and not (entry.is_symlink() and folder.resolve().is_relative_to(entry.resolve()))
    )


def _printable(name: str) -> str:
    """``name`` with ``\\udc..`` for what is not UTF-8 in the name of a file."""
    return name.encode("utf-8", "backslashreplace").decode()


_LINKS = "they lead out of the data folder, back, or to what is counted already"


def _files(folder: Path, root: Path, own: Sequence[Path] = ()) -> tuple[list[Path], int]:
    """The pictures in ``folder`` and below, sorted by their relative path, equal everywhere; and
    how many links were not followed.

    A link is followed when it leads into ``folder`` or elsewhere into ``root``, though not to a
    folder around it nor into another one of the folders ``own`` that make up the data; and nothing
    is found twice. ``folder`` itself may be a link to anywhere.
    Raises :class:`UserError` for a pipe, a device or a dangling link with the name of a picture.
    """
    real = os.path.realpath(folder)
    inside = (os.path.realpath(root), real)
    elsewhere = [place for place in map(os.path.realpath, own) if place != real]
    found: list[Path] = []
    seen: set[str] = set()
    links: list[str] = []
    left = 0

    def walk(here: str, real: str) -> None:
        below = [(here, real)]
        while below:
            here, real = below.pop()
            if real in seen:
                continue
            seen.add(real)
            with os.scandir(here) as entries:
                for entry in entries:
                    picture = is_image(Path(entry.name))
                    if entry.is_symlink():
                        links.append(entry.path)
                    elif entry.is_dir():
                        if not entry.name.startswith((".", "__")):
                            below.append((entry.path, os.path.join(real, entry.name)))
                    elif picture and not entry.is_file():
                        raise UserError(f"'{entry.path}' {unlike_a_file(Path(entry))}; remove it")
                    elif picture:
                        seen.add(os.path.join(real, entry.name))
                        found.append(Path(entry.path))

    walk(str(folder), real)
    while links:
        links.sort(reverse=True)
        link = links.pop()
        name, target = os.path.basename(link), os.path.realpath(link)
        is_folder = os.path.isdir(target)
        if name.startswith((".", "__")) or not (is_folder or is_image(Path(name))):
            continue
        if not is_folder and (reason := unlike_a_file(Path(link))):
            raise UserError(f"'{link}' {reason}; remove it")
        if (
            target in seen
            or not any(_within(target, place) for place in inside)
            or any(_within(target, place) for place in elsewhere)
            or _within(os.path.realpath(os.path.dirname(link)), target)
            or _within(real, target)
        ):
            left += 1
        elif is_folder:
            walk(link, target)
        else:
            seen.add(target)
            found.append(Path(link))
    # by name without suffix first: the two sides of pairs may have different suffixes
    return sorted(found, key=lambda path: (_key(path.relative_to(folder)), path.suffix)), left


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def file_pictures(
    root: Path, paths: Iterable[Path], part: str = "whole", crop: int = 0
) -> list[Picture]:
    """``paths`` as pictures named relative to ``root``; see :class:`FilePicture`."""
    return [FilePicture(path, path.relative_to(root).as_posix(), part, crop) for path in paths]


def _or_refuse(folder: Path, found: list[Path], left: int) -> list[Path]:
    if not found:
        links = f" ({left} link(s) not followed: {_LINKS})" if left else ""
        raise UserError(
            f"folder '{folder}' holds no pictures{links}; accepted are {' '.join(IMAGE_SUFFIXES)} "
            "in any case, in it and below"
        )
    return found


def _listing(folder: Path) -> str:
    entries = (e for e in folder.iterdir() if not e.name.startswith("."))
    names = sorted(e.name + ("/" if e.is_dir() else "") for e in entries)
    return (", ".join(names[:6]) + (", ..." if len(names) > 6 else "")) or "nothing"


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
    order = sorted(range(len(names)), key=lambda i: derive(seed, "split/" + _printable(names[i])))
    return set(order[:count])


Places = dict[str, dict[str, Path]]
"""split -> domain (or class) -> its folder. The only split is "all" without a test folder."""


def _split_places(root: Path) -> dict[str, Path]:
    """The folders train and test (or val) below ``root``, or else ``root`` itself as "all"."""
    present = {name.lower(): name for name in _folders(root)}
    if "train" not in present:
        return {"all": root}
    test = present.get("test") or present.get("val") or present.get("valid")
    train = root / present["train"]
    return {"train": train, "test": root / test} if test else {"all": train}


def named_folders(root: Path, wanted: Sequence[str] | None, key: str = "domains") -> Places:
    """``train|test|val / name`` or ``name``; all names, sorted, or those ``wanted``.

    Where there are no folders, the pictures themselves are one domain with the name of ``root``.
    """
    places: Places = {}
    names = list(wanted) if wanted else []
    for split, place in _split_places(root).items():
        present = _folders(place)
        names = names or present
        for name in names:
            if name not in present:
                raise UserError(
                    f"data folder '{place}' has no folder '{name}'{nearest(name, present)}; "
                    f"found: {_listing(place)} (data.{key})"
                )
        places[split] = {n: place / n for n in names} if names else {root.resolve().name: place}
    return places


def _ab_folders(root: Path, sides: Sequence[str], expected: str) -> Places:
    """``trainA trainB`` and ``testA testB`` (or ``valA valB``), under the names A and B."""
    test = next((s for s in ("test", "val") if any((root / f"{s}{x}").is_dir() for x in sides)), "")
    places: Places = {}
    for split, prefix in (("train", "train"), ("test", test)) if test else (("all", "train"),):
        places[split] = {}
        for side in sides:
            folder = root / f"{prefix}{side}"
            if not folder.is_dir():
                other = f"{prefix}{'B' if side == 'A' else 'A'}"
                has = f"it has '{other}' but no" if (root / other).is_dir() else "it has no"
                raise UserError(
                    f"data folder '{root}': {has} '{folder.name}' (found: {_listing(root)}); "
                    f"expected {expected}, for other layouts see data.name=folders, paired or "
                    "labelled"
                )
            places[split][side] = folder
    return places


class FileSource(Source):
    """Base of the sources with a root folder."""

    def _check_root(self) -> None:
        if not self.root.is_dir():
            what = "is a file, not a folder" if self.root.is_file() else "does not exist"
            raise UserError(
                f"data folder '{self.root}' {what}; set data.root to a folder with {self.expected}"
            )

    def _read(self, places: Places) -> Pictures:
        """The pictures in ``places``; none of the folders may be empty."""
        own = [folder for by_name in places.values() for folder in by_name.values()]
        return {
            split: {n: file_pictures(self.root, self._some(f, own)) for n, f in by_name.items()}
            for split, by_name in places.items()
        }

    def _some(self, folder: Path, own: Sequence[Path] = ()) -> list[Path]:
        """The pictures in ``folder`` and below; raises :class:`UserError` for none. Links that are
        not followed are noted; see :func:`_files`."""
        found, left = _files(folder, self.root, own)
        told = f"{left} link(s) in '{folder}' not followed: {_LINKS}"
        if left and told not in self.notes:
            self.notes.append(told)
        return _or_refuse(folder, found, left)


class Splitting(FileSource):
    """Base of the sources that hold test pictures out where there is no test folder."""

    def __init__(self, root: str, test_fraction: float, split_seed: int) -> None:
        super().__init__(root)
        if not 0 < test_fraction < 1:
            raise UserError(f"data.test_fraction is {test_fraction}, it must lie between 0 and 1")
        self._fraction, self._split_seed = test_fraction, split_seed

    def _split(self, found: Pictures, keys: Sequence[str] | None = None) -> Pictures:
        """``found``, with "all" divided into train and test; ``keys`` are the names to divide by.

        The domains are divided each by itself, or by ``keys`` all alike.
        """
        if "all" not in found:
            return found
        self.notes.append(
            f"no test folder: {self._fraction:.0%} of the pictures are held out for it "
            "(data.test_fraction)"
        )
        split: Pictures = {"train": {}, "test": {}}
        for domain, pictures in found["all"].items():
            names = keys or [picture.name for picture in pictures]
            held = _holdout(names, self._fraction, self._split_seed)
            split["train"][domain] = [p for i, p in enumerate(pictures) if i not in held]
            split["test"][domain] = [p for i, p in enumerate(pictures) if i in held]
        return split

    def _pool(self, found: Pictures, domain: str) -> None:
        """Make one domain of several classes, which become the labels."""
        classes = list(found["train"])
        for split, by_class in found.items():
            ids = np.repeat(np.arange(len(classes)), [len(p) for p in by_class.values()])
            self.pictures[split] = {domain: [p for group in by_class.values() for p in group]}
            self.vectors[split] = {domain: np.eye(len(classes), dtype=np.float32)[ids]}
        self.labels = tuple(classes)


class Unpaired(Splitting):
    """The layout of the CycleGAN sets: ``trainA trainB testA testB``."""

    name = "unpaired"
    summary = "two folders trainA and trainB, with testA and testB (or valA, valB)"
    expected = "trainA/ trainB/ testA/ testB/"

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
        places = _ab_folders(self.root, list(self._sides), self.expected)
        named = {
            split: {self._sides[side]: folder for side, folder in by_side.items()}
            for split, by_side in places.items()
        }
        self.pictures = self._split(self._read(named))


class Folders(Splitting):
    """A folder per domain; sub-folders of a domain belong to it."""

    name = "folders"
    summary = "a folder per domain, with or without train/ and test/ (or val/) above"
    expected = "<domain>/ folders with pictures, or train/<domain>/ and test/<domain>/"

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
        if domains is not None:
            no_twice(domains)
        self._wanted = domains

    def _scan(self) -> None:
        self._check_root()
        self.pictures = self._split(self._read(named_folders(self.root, self._wanted)))


class Labelled(Splitting):
    """A folder per class: one domain of pictures, whose labels are the classes."""

    name = "labelled"
    summary = "a folder per class, pooled into one domain with the class as label"
    expected = "<class>/ folders with pictures, or train/<class>/ and test/<class>/"

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
        if classes is not None:
            no_twice(classes, "classes")
        self._wanted = classes

    def _scan(self) -> None:
        self._check_root()
        found = self._read(named_folders(self.root, self._wanted, "classes"))
        self._pool(self._split(found), "pictures")


class Paired(Splitting):
    """Pairs: two pictures side by side in one file, or two folders with equal file names."""

    name = "paired"
    summary = "pairs of pictures: side by side in one file, or two folders with equal names"
    expected = (
        "train/ and test/ (or val/) with pictures side by side, or two folders with equal file "
        "names: trainA/ trainB/ testA/ testB/, train/<domain>/ test/<domain>/, or <domain>/"
    )
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
        if domains is not None:
            no_twice(domains)
            if len(domains) != 2:
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
        splits = _split_places(self.root)
        if any((self.root / f"train{side}").is_dir() for side in "AB"):
            places = {
                split: dict(zip(names, by_side.values(), strict=True))
                for split, by_side in _ab_folders(self.root, "AB", self.expected).items()
            }
        elif len(_folders(next(iter(splits.values())))) >= 2:
            places = named_folders(self.root, self._wanted)
            present = next(iter(places.values()))
            if len(present) != 2:
                raise UserError(
                    f"data folder '{self.root}' has {len(present)} folders "
                    f"({', '.join(present)}), a pair has two; choose them with data.domains"
                )
        else:
            found: Pictures = {}
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
        keys = [_key(path.relative_to(folder)) for path in paths]
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


def _key(path: Path) -> str:
    # one file system composes accents, another takes them apart
    return unicodedata.normalize("NFC", path.with_suffix("").as_posix())

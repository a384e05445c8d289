"""What every source has and does."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
from tqdm import tqdm

from gansuite.config import user_path
from gansuite.data.cache import cached_array
from gansuite.data.images import IMAGE_SUFFIXES, RESIZE_POLICIES, resize_uint8
from gansuite.data.sources.pictures import PicturesBySplit
from gansuite.data.spec import DataSpec, LabelSet
from gansuite.errors import UserError
from gansuite.stacks import STACK_SUFFIXES, is_stack

_CACHE_VERSION = 2  # raise it when the file of a cache is written in another way


class Source(ABC):
    """Base of all sources. A subclass fills ``pictures`` (and labels) in :meth:`_scan`."""

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    expected: ClassVar[str] = ""  # the tree of files, for people
    channels: int = 3  # what the pictures usually have
    paired = False  # training pictures are pairs
    exclusive: ClassVar[bool] = True  # a picture has exactly one label
    aligned = False  # test picture i shows the same scene in every domain
    downloads: ClassVar[bool] = False  # a published set, which :meth:`fetch` gets
    stacks: ClassVar[bool] = False  # its files may have any number of channels
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES  # of the files that are looked for

    def __init__(self, root: str = "") -> None:
        self.root = user_path(root, "data.root")
        self.pictures: PicturesBySplit = {}
        self.labels: tuple[str, ...] = ()
        # split -> domain -> float32 [N,K]; filled by sources whose labels are not their domains
        self.vectors: dict[str, dict[str, np.ndarray]] = {}
        self.joint: tuple[LabelSet, ...] = ()
        self.notes: list[str] = []  # what a person should know: splits made up, files ignored
        self._digest: str | None = None

    def expect(self, channels: int | None) -> None:
        """Look for files with so many channels: pictures, or for other numbers than 1 and 3 (None:
        what there is) .npy and TIFF; before :meth:`prepare`.

        Raises:
            UserError: this source has pictures alone.
        """
        if not is_stack(channels):
            return
        if not self.stacks or self.downloads:
            raise UserError(
                f"data.channels is {channels}, but data '{self.name}' has 1 (grey) or 3 (colour); "
                "other numbers are read from .npy and TIFF files in folders of your own "
                "(data.name=folders, labelled, paired or unpaired)"
            )
        self.suffixes, self.channels = STACK_SUFFIXES, int(channels or 0)

    @property
    def where(self) -> str:
        """The place of the data, for messages; empty where there is none."""
        return str(self.root)

    def fetch(self) -> None:  # noqa: B027 - most have nothing to fetch
        """Download the files of a published set that is not there yet. Safe to repeat, by several
        processes at once; raises :class:`UserError`."""

    def prepare(self) -> None:
        """Find the files. Safe to repeat; raises :class:`UserError`."""
        if not self.pictures:
            with self._reading():
                self._scan()
            if not self.labels:
                self.labels = self.domains
            for name in (*self.domains, *self.labels):
                if printable(name) != name:
                    raise UserError(
                        f"data '{self.name}' at {self.where} has a folder or column named "
                        f"'{printable(name)}', which is not UTF-8; rename it"
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

    def origin(self, domain: str) -> tuple[Source, str]:
        """Whose pictures those of ``domain`` are, and what the domain is called there."""
        return self, domain

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
        source, own = self.origin(domain)
        return cached_array(
            cache,
            source.cache_name(split, own, size, channels, resize),
            (source.counts()[split][own], channels, size, size),
            lambda out: source._fill(out, split, own, size, channels, resize),
        )

    def cache_name(
        self, split: str, domain: str, size: int, channels: int, resize: str = "bicubic"
    ) -> str:
        """Names the pictures that :meth:`load` gives, and changes when they do."""
        source, own = self.origin(domain)
        facts = [_CACHE_VERSION, RESIZE_POLICIES[resize], size, channels]
        key = hashlib.sha256(json.dumps(facts).encode())
        with source._reading():
            key.update(os.fsencode(source._stamp(split, own)))
        return f"{source.name}-{split}-{size}x{channels}-{key.hexdigest()[:20]}"

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


def no_twice(names: Sequence[str] | None, key: str = "domains") -> None:
    """Raise :class:`UserError` when the option ``data.<key>`` is empty or names one twice;
    None, for all there are, will do."""
    if names is None:
        return
    if not names:
        raise UserError(f"data.{key} is empty; name at least one or leave the key out")
    for name in names:
        if list(names).count(name) > 1:
            raise UserError(f"data.{key} names '{name}' twice")


def printable(name: str) -> str:
    """``name`` with ``\\udc..`` for what is not UTF-8 in the name of a file."""
    return name.encode("utf-8", "backslashreplace").decode()

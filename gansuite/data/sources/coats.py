"""The embedded set: pictures that are drawn when they are asked for."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from tqdm import tqdm

from gansuite.data.coats import DOMAINS, SIZES, render_many
from gansuite.data.images import resize_uint8, to_channels
from gansuite.data.renderings import RENDERINGS
from gansuite.data.sources.base import Source, no_twice
from gansuite.data.spec import DataSpec
from gansuite.errors import UserError, nearest

_VERSION = 1  # raise it when the same (seed, index) draws another picture


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
        facts = [_VERSION, self._domains, self._counts, self._seed]
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

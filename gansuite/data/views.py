"""Views: which pictures make batch number i. Pure functions of (seed, i), picklable."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from gansuite.data.spec import Batch
from gansuite.errors import UserError
from gansuite.rng import numpy_generator

_BLOCK = 1024  # draws per generator: one generator per picture would cost more than the picture


class Pictures:
    """uint8 [N,C,S,S] in memory or in a memory map, which is reopened (not copied) by pickle unless
    its file is gone."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __getstate__(self) -> dict[str, object]:
        name = getattr(self.array, "filename", None)
        if name is not None and Path(name).exists():  # a name is of these pictures and no others
            return {"file": str(name)}
        return {"array": np.asarray(self.array)}

    def __setstate__(self, state: dict[str, object]) -> None:
        file = state.get("file")
        array = state["array"] if file is None else np.load(str(file), mmap_mode="r")
        assert isinstance(array, np.ndarray)
        self.array = array


class Stream:
    """An endless shuffled, augmented stream over ``parts``, pooled into one list of pictures.

    Position p = 0, 1, 2, ... is picture ``permutation(epoch)[p % n]`` with epoch = p // n, cropped
    to ``size`` and mirrored by draws that depend on (seed, stream, p) alone.
    """

    def __init__(
        self, parts: Sequence[Pictures], *, size: int, flip: bool, seed: int, stream: int
    ) -> None:
        self.parts = tuple(parts)
        self.size, self.flip, self.seed, self.stream = size, flip, seed, stream
        self.ends = np.cumsum([len(part) for part in parts])
        self._orders: dict[int, np.ndarray] = {}
        self._draws: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_orders": {}, "_draws": {}}

    def order(self, epoch: int) -> np.ndarray:
        """The permutation of epoch ``epoch``."""
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}
            generator = numpy_generator(self.seed, "order", self.stream, epoch)
            self._orders[epoch] = generator.permutation(len(self))
        return self._orders[epoch]

    def draws(self, position: int) -> np.ndarray:
        """Three uniform numbers in [0,1) for one position: top, left, mirror."""
        block, row = divmod(position, _BLOCK)
        if block not in self._draws:
            self._draws = {b: d for b, d in self._draws.items() if b == block - 1}
            generator = numpy_generator(self.seed, "augment", self.stream, block)
            self._draws[block] = generator.random((_BLOCK, 3))
        return self._draws[block][row]

    def picked(self, positions: Sequence[int]) -> list[int]:
        """Indices into the pooled pictures."""
        n = len(self)
        return [int(self.order(p // n)[p % n]) for p in positions]

    def gather(self, positions: Sequence[int], parts: Sequence[Pictures] | None = None) -> Tensor:
        """uint8 [len(positions),C,size,size]; ``parts`` stands in for the own pictures."""
        parts = self.parts if parts is None else parts
        size, picked = self.size, self.picked(positions)
        out = np.empty((len(positions), parts[0].array.shape[1], size, size), np.uint8)
        mirrored = []
        for row, (position, index) in enumerate(zip(positions, picked, strict=True)):
            part = int(np.searchsorted(self.ends, index, side="right"))
            picture = parts[part].array[index - (int(self.ends[part - 1]) if part else 0)]
            top, left, mirror = self.draws(position)
            slack = picture.shape[-1] - size + 1
            y, x = int(top * slack), int(left * slack)
            out[row] = picture[:, y : y + size, x : x + size]
            if self.flip and mirror < 0.5:
                mirrored.append(row)
        images = torch.from_numpy(out)
        if mirrored:  # copying through a negative stride is several times slower than this
            images[mirrored] = images[mirrored].flip(3)
        return images


class TrainView:
    """Batch number i, of one of four kinds; see :class:`gansuite.data.spec.Needs`."""

    def __init__(
        self,
        view: str,
        domains: Sequence[Pictures],
        vectors: np.ndarray | None,
        *,
        batch: int,
        size: int,
        flip: bool,
        seed: int,
        sets: Sequence[int] = (),
        derived: Pictures | None = None,
        batches: int = 1,
    ) -> None:
        """``vectors``: float32 [N,K] over the pooled domains, for the labelled view. ``sets``: the
        number of domains of each label set, which take turns: batch i is of set i mod their
        number. ``derived``: made of the last domain's pictures, for the unpaired view; the same
        ones follow them, cropped and mirrored alike. ``batches`` of ``batch`` pictures are drawn
        at a time."""
        self.view, self.batch, self.vectors, self.batches = view, batch, vectors, batches
        self.domains, self.derived = tuple(domains), derived
        if view == "unpaired":
            groups: list[tuple[Pictures, ...]] = [(pictures,) for pictures in domains]
        elif view == "paired":
            groups = [(domains[0],)]
        else:
            ends = list(itertools.accumulate(sets)) or [len(domains)]
            starts = [0, *ends]
            groups = [self.domains[a:b] for a, b in zip(starts, ends, strict=False)]
        self.streams = [
            Stream(group, size=size, flip=flip, seed=seed, stream=i)
            for i, group in enumerate(groups)
        ]

    def __call__(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        """The part of global batch ``index`` that belongs to ``rank``: a contiguous slice, or one
        of each of ``batches`` that are drawn together."""
        if self.batch % world:
            raise UserError(
                f"data.batch is {self.batch} for all processes together and cannot be divided by "
                f"{world} of them; the nearest that can are {self.batch // world * world or world} "
                f"and {(self.batch // world + 1) * world}"
            )
        share = self.batch // world
        turn, which = divmod(index, len(self.streams)) if self.vectors is not None else (index, 0)
        starts = [
            (turn * self.batches + k) * self.batch + rank * share for k in range(self.batches)
        ]
        positions = [p for start in starts for p in range(start, start + share)]
        stream = self.streams[which]
        if self.view == "paired":
            return Batch(tuple(stream.gather(positions, (side,)) for side in self.domains))
        if self.vectors is None:
            images = [stream.gather(positions) for stream in self.streams]
            if self.derived is not None:
                images.append(self.streams[-1].gather(positions, (self.derived,)))
            return Batch(tuple(images))
        before = sum(len(earlier) for earlier in self.streams[:which])
        rows = before + np.array(stream.picked(positions))
        return Batch((stream.gather(positions),), torch.from_numpy(self.vectors[rows]))


class TrainBatches(Dataset[Batch]):
    """Map-style: item i is the whole batch of this rank."""

    def __init__(self, view: TrainView, rank: int, world: int) -> None:
        self.view, self.rank, self.world = view, rank, world

    def __getitem__(self, index: int) -> Batch:
        return self.view(index, self.rank, self.world)


class TestBatches(Dataset[Batch]):
    """Batch i: the i-th ``size`` pictures of each of ``domains`` (uint8 [N,C,H,W]), none of those
    that have ended; ``labels`` [N,K] of the one domain."""

    __test__ = False  # for pytest: no test

    def __init__(self, domains: Sequence[Tensor], labels: Tensor | None, size: int) -> None:
        self.domains, self.labels, self.size = domains, labels, size

    def __len__(self) -> int:
        return -(-max(map(len, self.domains)) // self.size)

    def __getitem__(self, index: int) -> Batch:
        rows = slice(index * self.size, (index + 1) * self.size)
        labels = None if self.labels is None else self.labels[rows]
        return Batch(tuple(x[rows] for x in self.domains), labels)


class Slice(DistributedSampler[int]):
    """rank, rank + world, ... below ``total``. (A distributed sampler, so that a Trainer does not
    put one of its own in its place, which would serve some twice.)"""

    def __init__(self, total: int, rank: int, world: int) -> None:
        self.order = range(rank, total, world)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


class Endless(DistributedSampler[int]):
    """start, start + 1, start + 2, ... The budget ends the training, not the data. (A distributed
    sampler, so that a Trainer does not slice what is sliced already.)"""

    def __init__(self, start: int) -> None:
        self.start = start

    def __len__(self) -> int:
        raise TypeError("it has no end")

    def __iter__(self) -> Iterator[int]:
        index = self.start
        while True:
            yield index
            index += 1

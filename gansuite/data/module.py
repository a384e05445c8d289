"""The data module: one source, one view, one order for every method."""

from __future__ import annotations

import ctypes
import functools
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from gansuite.data.ahead import Ahead
from gansuite.data.cache import cached_array
from gansuite.data.catalogue import SOURCES, build_source
from gansuite.data.edges import EdgeSmoothing, changed
from gansuite.data.sources.base import Source
from gansuite.data.spec import Batch, DataSpec, Needs
from gansuite.data.views import Endless, Pictures, Slice, TestBatches, TrainBatches, TrainView
from gansuite.errors import UserError, nearest
from gansuite.stacks import MOST_CHANNELS

_OPTIONS = {"load_size", "flip", "channels", "workers", "resize"}  # the module's own
_TESTS = 2  # a distribution of one picture has no covariance


class DataModule(LightningDataModule):
    """Serves training batches and evaluation pictures of ``source`` in the view of ``needs``; with
    None, one domain is taken as it is, two are unpaired, more are labelled.

    ``batch`` is global: all processes together. ``size``, ``load_size`` in pixels: a training
    picture is resized to a square of ``load_size`` (default ``size``; the aspect is not kept),
    cropped to ``size`` at random and mirrored with probability 1/2 if ``flip``; an evaluation
    picture is resized to ``size``. ``resize``: the filter of training pictures (see
    :func:`gansuite.data.images.resize_uint8`); evaluation pictures are bicubic for all.
    ``channels`` 1 or 3 (default: what the source has): grey is replicated, colour reduced to
    luminance; other numbers: what .npy and TIFF files in folders hold, in 8 bits. ``cache`` is the
    folder of the decoded pictures; None keeps them in memory. Raises :class:`UserError` for data
    that is missing, broken or unfit.

    Slicing by rank is done here. Under a Trainer of one's own its checkpoints say how far the
    training has come, and ``fit(ckpt_path=...)`` goes on with the next batch.
    """

    start_batch: int
    """The first batch that :meth:`train_dataloader` yields; set by the engine on resume."""
    smoothed_share: float | None = None
    """The share of the pixels that the smoothing of edges changed, where a method needs it."""

    def __init__(
        self,
        source: Source,
        needs: Needs | None,
        *,
        size: int,
        batch: int,
        seed: int,
        load_size: int | None = None,
        flip: bool = True,
        resize: str = "bicubic",
        channels: int | None = None,
        workers: int = 0,
        cache: Path | None = None,
    ) -> None:
        super().__init__()
        for key, value, least in (("size", size, 1), ("batch", batch, 1), ("workers", workers, 0)):
            if value < least:
                raise UserError(f"data.{key} is {value}, it must be at least {least}")
        if load_size is not None and load_size < size:
            raise UserError(
                f"data.load_size is {load_size}, it must be at least data.size ({size}), "
                "to which the pictures are cropped"
            )
        if channels is not None and not 1 <= channels <= MOST_CHANNELS:
            raise UserError(
                f"data.channels is {channels}, it must be 1 (grey), 3 (colour) or, of .npy and "
                f"TIFF, at most {MOST_CHANNELS}"
            )
        source.expect(channels)
        self.source, self._needs = source, needs
        self.size, self.load_size = size, load_size or size
        self.batch, self.seed, self.flip, self.workers = batch, seed, flip, workers
        self.cache, self.resize = cache, resize
        self._channels = channels
        self.start_batch = 0
        self._view: TrainView | None = None
        self._arrays: dict[tuple[str, str, int, str], np.ndarray] = {}
        self._masks: dict[str, np.ndarray | None] = {}

    @classmethod
    def of(
        cls,
        data: str | Path,
        *,
        size: int,
        batch: int,
        method: type | None = None,
        seed: int = 0,
        cache: Path | None = None,
        **options: Any,
    ) -> DataModule:
        """The data set ``data``: a name that ``gansuite list`` shows, or a folder.

        A folder holds trainA, trainB, testA, testB, or a folder for each domain. ``method`` is the
        class that trains on it and says which view it needs. ``options``: those of the constructor
        and of the source, such as ``domains``, ``load_size`` or ``flip``.

        Raises:
            UserError: there is no such data set or folder, or it does not serve the method.
        """
        own = {k: options.pop(k) for k in _OPTIONS & options.keys()}
        if str(data) in SOURCES:
            source = build_source(str(data), **options)
        else:
            two = (Path(data) / "trainA").is_dir()
            source = build_source("unpaired" if two else "folders", root=str(data), **options)
        needs = getattr(method, "needs", None)
        return cls(source, needs, size=size, batch=batch, seed=seed, cache=cache, **own)

    def prepare_data(self) -> None:
        """Download what is missing and look at the files; called by the Trainer in one process
        before the others."""
        self.source.fetch()
        self.source.prepare()

    @functools.cached_property
    def needs(self) -> Needs:
        """The view of the data that is served, and what else was asked of them."""
        if self._needs is not None:
            return self._needs
        self.prepare_data()
        many = len(self.source.domains)
        return Needs("single" if many < 2 else "unpaired" if many < 3 else "labelled")

    @property
    def channels(self) -> int:
        """1 or 3: as asked for, else what the source has."""
        return self._channels or self.source.channels

    @functools.cached_property
    def spec(self) -> DataSpec:
        """What a method sees of the data. As a method is built from it, before there is a Trainer,
        :meth:`prepare_data` is called when it is first asked for.

        Raises:
            UserError: the data are missing, or not what ``needs`` asks for.
        """
        self.prepare_data()
        found = self.source.spec(self.size, self.channels)
        self.needs.check(found, where=self.source.where)
        return found

    @property
    def images_per_batch(self) -> int:
        """Real pictures drawn per global batch, all domains and `Needs.batches` together."""
        domains = len(self.spec.domains) if self.needs.view in ("unpaired", "paired") else 1
        return self.batch * domains * self.needs.batches

    def setup(self, stage: str | None = None) -> None:
        """Read all training and test pictures, so that a damaged file is met before training.
        Nothing is downloaded here."""
        self.source.prepare()
        self._train_view()
        for domain in self.spec.domains:
            self._array("test", domain, self.size)
        self.check_tests()

    def check_tests(self) -> None:
        """Raise `UserError` where there are too few test pictures to be scored on."""
        tests = self.spec.counts["test"]
        if self.needs.view in ("single", "labelled"):
            tests = {"all domains together": sum(tests.values())}
        for domain, count in tests.items():
            if count < _TESTS:
                raise UserError(
                    f"data '{self.spec.name}' has {count} test picture of {domain}; "
                    f"scores need at least {_TESTS}, add pictures or raise data.test_fraction"
                )

    def _array(self, split: str, domain: str, size: int, resize: str = "bicubic") -> np.ndarray:
        key = (split, domain, size, resize)
        if key not in self._arrays:
            self._arrays[key] = self.source.load(
                split, domain, size, self.channels, self.cache, resize
            )
        return self._arrays[key]

    def _train_view(self) -> TrainView:
        if self._view is None:
            domains = self.spec.domains
            vectors = None
            if self.needs.view == "labelled":
                vectors = np.concatenate([self.source.label_vectors("train", d) for d in domains])
            self._view = TrainView(
                self.needs.view,
                [
                    Pictures(self._array("train", domain, self.load_size, self.resize))
                    for domain in domains
                ],
                vectors,
                batch=self.batch,
                size=self.size,
                flip=self.flip,
                seed=self.seed,
                sets=[len(found.domains) for found in self.spec.joint],
                derived=Pictures(self._smoothed(domains[-1])) if self.needs.smoothed else None,
                batches=self.needs.batches,
            )
        return self._view

    def _smoothed(self, domain: str) -> np.ndarray:
        """The training pictures of ``domain`` with smoothed edges, made once for its parameters."""
        images = self._array("train", domain, self.load_size, self.resize)
        edges = EdgeSmoothing.at(self.load_size)
        name = self.source.cache_name("train", domain, self.load_size, self.channels, self.resize)
        smoothed = cached_array(
            self.cache, f"{name}-{edges.key}", images.shape, lambda out: edges.fill(out, images)
        )
        self.smoothed_share = changed(images, smoothed)
        return smoothed

    def train_batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        """Batch ``index`` (0, 1, ...): a pure function of (seed, index).

        With ``world`` processes, rank r gets the contiguous slice r of the same global batch.
        Images uint8 [batches*batch/world,C,size,size] (`Needs.batches`). Raises
        :class:`UserError` when ``batch`` cannot be divided by ``world``.
        """
        return self._train_view()(index, rank, world)

    def train_dataloader(self) -> Iterable[Batch]:
        """An endless loader of this rank's batches from ``start_batch`` on; under a Trainer on a
        GPU they are copied there ahead (`Ahead`)."""
        rank = self.trainer.global_rank if self.trainer else 0
        world = self.trainer.world_size if self.trainer else 1
        loader = DataLoader(
            TrainBatches(self._train_view(), rank, world),
            batch_size=None,
            sampler=Endless(self.start_batch),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=_serve_the_run,
            pin_memory=torch.cuda.is_available(),
        )
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        return Ahead(loader, device) if device.type == "cuda" else loader

    def val_dataloader(self) -> DataLoader[Batch]:
        """The test pictures in file order, not augmented, ``batch`` of each domain at a time; of
        several processes each has every world-th batch. Domains of different length end one after
        the other: the last batches have no picture of the shorter ones."""
        rank = self.trainer.global_rank if self.trainer else 0
        world = self.trainer.world_size if self.trainer else 1
        domains = self.spec.domains
        labels = None
        if self.needs.view in ("single", "labelled"):
            pictures = [self.pictures("test")]
            if self.needs.view == "labelled":
                labels = torch.cat([self.label_vectors("test", d) for d in domains])
        else:
            pictures = [self.pictures("test", domain) for domain in domains]
        batches = TestBatches(pictures, labels, self.batch)
        return DataLoader(batches, batch_size=None, sampler=Slice(len(batches), rank, world))

    predict_dataloader = test_dataloader = val_dataloader

    def state_dict(self) -> dict[str, int]:
        """For Lightning's checkpoints: how many batches were trained on."""
        model = self.trainer.lightning_module if self.trainer else None
        return {"start_batch": int(getattr(model, "batches", self.start_batch))}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start_batch = state["start_batch"]

    def pictures(self, split: str, domain: str | None = None, limit: int | None = None) -> Tensor:
        """uint8 [N,C,size,size] in file order: resized to ``size``, never cropped or augmented.

        ``domain`` None pools all domains, each with an even share of ``limit``; of a table of
        attributes it may be an attribute, or ``not <attribute>``.
        """
        if domain is None:
            shares = _shares(list(self.spec.counts[split].values()), limit)
            parts = [
                self.pictures(split, name, share)
                for name, share in zip(self.spec.domains, shares, strict=True)
            ]
            return torch.cat(parts)
        label = domain.removeprefix("not ")
        if domain not in self.spec.domains and label in self.spec.labels:
            column = self.spec.labels.index(label)
            # a picture of another label set neither has the label nor lacks it
            knowing = self.spec.label_sets[self.spec.set_of(label)].domains
            known = torch.cat([self.label_vectors(split, d) for d in knowing])[:, column] > 0
            chosen = known == (domain == label)
            if chosen.sum() < _TESTS:
                raise UserError(
                    f"data '{self.spec.name}' has {int(chosen.sum())} {split} pictures of "
                    f"'{domain}'; scores need at least {_TESTS}"
                )
            return torch.cat([self.pictures(split, d) for d in knowing])[chosen][:limit]
        self._check_domain(domain)
        return torch.from_numpy(np.array(self._array(split, domain, self.size)[:limit]))

    def label_vectors(self, split: str, domain: str, limit: int | None = None) -> Tensor:
        """float32 [N,K]: the labels of :meth:`pictures`, in the order of `Batch.labels`."""
        self._check_domain(domain)
        return torch.from_numpy(self.source.label_vectors(split, domain)[:limit].copy())

    def masks(self, domain: str, limit: int | None = None) -> Tensor | None:
        """bool [N,1,size,size] of the test pictures: where a translation should act, if known."""
        self._check_domain(domain)
        if domain not in self._masks:  # some are drawn, and every evaluation asks for them
            self._masks[domain] = self.source.masks(domain, self.size)
        masks = self._masks[domain]
        return None if masks is None else torch.from_numpy(masks[:limit].copy())

    def truth(self, source: str, target: str, limit: int | None = None) -> Tensor | None:
        """uint8: the true translation of ``pictures("test", source)`` into ``target``, if known."""
        self._check_domain(source)
        return self.pictures("test", target, limit) if self.source.aligned else None

    def _check_domain(self, domain: str) -> None:
        if domain not in self.spec.domains:
            raise UserError(
                f"data '{self.spec.name}' has no domain '{domain}'"
                f"{nearest(domain, self.spec.domains)}; it has {', '.join(self.spec.domains)}"
            )


def _serve_the_run(worker: int) -> None:
    """Ctrl-C goes to every process of a terminal: the run still needs its next batch to end well.
    When the run is killed, its workers end with it instead of telling of a lost connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _shares(counts: list[int], limit: int | None) -> list[int]:
    """How many to take of each domain: as even as the counts allow, ``limit`` in all."""
    if limit is None:
        return counts
    shares = [0] * len(counts)
    left = min(limit, sum(counts))
    while left:
        open_ = [i for i, n in enumerate(counts) if shares[i] < n]
        for i in open_[:left]:
            step = max(1, min(counts[i] - shares[i], left // len(open_)))
            step = min(step, left)
            shares[i] += step
            left -= step
    return shares

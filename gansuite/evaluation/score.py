"""Comparison + protocol + networks -> scores."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from gansuite import rng
from gansuite.evaluation.comparison import Comparison
from gansuite.evaluation.extractor import Extractor
from gansuite.evaluation.features import Frozen
from gansuite.evaluation.learned import blurred
from gansuite.evaluation.protocol import Protocol
from gansuite.evaluation.seen import kept_vectors
from gansuite.evaluation.table import METRICS, Make


class SetScores:
    """The metrics of two sets of a protocol, to be updated batch by batch as torchmetrics' FID is;
    each network sees a batch once for all of its metrics.

    ``groups``: the network that looks (or ``images``) -> a `MetricCollection`. ``reset`` keeps the
    real side unless ``keep_real`` is false; ``sync``: the states of all processes count.
    """

    def __init__(
        self,
        protocol: Protocol,
        extractor: Extractor,
        *,
        keep_real: bool = True,
        sync: bool = False,
    ) -> None:
        _check_networks(protocol, extractor)
        self.protocol = protocol
        self._extractor = extractor
        makers: dict[str, dict[Make, str]] = {}
        for name in protocol.metrics:
            (kind, _, network) = METRICS[name].inputs[0].partition(":")
            if kind == "set":
                makers.setdefault(network, {}).setdefault(METRICS[name].make, name)
        self.groups = {
            network: MetricCollection(
                {name: make(protocol, extractor, sync) for make, name in wanted.items()},
                compute_groups=False,  # they would share what a reset keeps
            )
            for network, wanted in makers.items()
        }
        for metric in (m for metrics in self.groups.values() for m in metrics.values()):
            metric.reset_real_features = not keep_real

    def _seen(self, network: str, images: Tensor) -> Tensor:
        if network == "images":
            return images
        look = self._network(network)
        if network == "random" and self.protocol.style:
            return self._extractor.style.features(images)
        return look(images)

    def _network(self, name: str) -> Frozen:
        found: Frozen | None = getattr(self._extractor, name)
        if found is None:
            raise ValueError(f"no network '{name}' was built")
        return found

    def update(self, images: Tensor, real: bool) -> None:
        """Add uint8 pictures [N, C, H, W] to one side."""
        for network, metrics in self.groups.items():
            metrics.update(self._seen(network, images), real=real)

    def reset(self) -> None:
        for metrics in self.groups.values():
            metrics.reset()

    def compute(self) -> tuple[dict[str, float], dict[str, str]]:
        """The metrics by their names, NaN where undefined, and why they are."""
        found: dict[str, float] = {}
        why: dict[str, str] = {}
        for metrics in self.groups.values():
            for first, metric in metrics.items():
                _note(first, metric, self.protocol, found, why)
        return found, why


class Statistics(SetScores):
    """`SetScores` with the real side filled in, once for all scorings; ``folder``: where what the
    networks see of it is kept (`kept_vectors`)."""

    def __init__(
        self,
        images: Tensor,
        protocol: Protocol,
        extractor: Extractor,
        folder: Path | None = None,
    ) -> None:
        super().__init__(protocol, extractor)
        self.images, self.folder = images[: protocol.samples], folder
        self._filled = False

    def _fill(self) -> None:
        for name, metrics in self.groups.items():

            def look(images: Tensor, name: str = name) -> Tensor:
                return self._seen(name, images)

            seen = self.images
            if name != "images":
                network = self._network(name)
                seen = kept_vectors(self.folder, network.id, network.device(), seen, look)
            metrics.update(seen, real=True)
        self._filled = True

    def compare(self, fakes: Tensor) -> tuple[dict[str, float], dict[str, str]]:
        """`compute` for these made pictures."""
        if not self._filled:
            self._fill()
        self.reset()
        self.update(fakes, real=False)
        return self.compute()


def _note(
    first: str, metric: Metric, protocol: Protocol, found: dict[str, float], why: dict[str, str]
) -> None:
    """Enter what ``metric`` found under the names that share it; ``first`` is one of them."""
    value = metric.compute()
    for name in protocol.metrics:
        if METRICS[name].make is METRICS[first].make:
            one = value[name.partition("_")[0]] if isinstance(value, dict) else value
            found[name] = float(one)
            why[name] = getattr(metric, "why", "") or "not a finite number"


def score(
    comparison: Comparison,
    protocol: Protocol,
    extractor: Extractor,
    *,
    real: Statistics | None = None,
    notes: dict[str, str] | None = None,
) -> dict[str, float]:
    """The metrics of ``protocol`` for ``comparison``, by the names of ``protocol.OFFLINE``.

    Only the first ``protocol.samples`` pictures of each set count. ``real``: the statistics of
    ``comparison.real``, to compute them once. Every value is finite: a metric that is undefined
    here is absent, and ``notes`` receives the reason. Metrics that need a truth, mask, source,
    reconstruction or identity picture are absent without it. ValueError when the protocol or
    ``real`` belongs to other networks or pictures, or for fewer than two pictures on a side.
    """
    _check_networks(protocol, extractor)
    c = comparison.head(protocol.samples)
    if min(len(c.real), len(c.fake)) < 2:
        raise ValueError(f"{c.name}: at least two pictures on each side")
    if real is None:
        real = Statistics(c.real, protocol, extractor)
    elif real.protocol != protocol or not torch.equal(real.images, c.real):
        raise ValueError(f"{c.name}: the statistics given are of other pictures or settings")
    if protocol.style and c.source is not None:
        extractor.style.content(c.fake, c.source)  # at once with all else that it is asked for
    found, why = real.compare(c.fake)
    for name in protocol.metrics:
        inputs = METRICS[name].inputs
        given = [None if key.startswith("set:") else getattr(c, key) for key in inputs]
        if all(x is not None for x in given):
            metric = METRICS[name].make(protocol, extractor, False)
            metric.update(*given)
            _note(name, metric, protocol, found, why)
    kept = {m: found[m] for m in protocol.metrics if m in found and math.isfinite(found[m])}
    if notes is not None:
        notes.update({m: why[m] for m in protocol.metrics if m in found and m not in kept})
    return kept


def reference_rows(
    comparison: Comparison,
    protocol: Protocol,
    extractor: Extractor,
    *,
    train: Tensor | None = None,
    real: Statistics | None = None,
) -> dict[str, dict[str, float]]:
    """The rows every table carries: what stands in place of the fakes.

    ``do_nothing``: the sources as they are; without sources, pictures drawn from a Gaussian fitted
    to the training pictures (`gaussian_pictures`), which has their means, contrasts and colours and
    draws nothing. ``real_vs_real``: the noise floor, as many training pictures as there are fakes.
    ``blurred``, without sources: these training pictures, through a Gaussian of 1 pixel per 64.
    ``copy_the_style``, of a protocol with ``style``: training pictures of the target in the place
    of the translations, whatever the sources. ``train``: uint8 training pictures of the target
    domain; without them only what needs none.
    """
    c = comparison
    rows = {}
    if (source := c.source) is not None:
        copied = None
        if protocol.style and train is not None:
            copied = train[torch.arange(len(c.fake)) * len(train) // len(c.fake)]
        c = replace(c, reference=None if c.reference is None else copied)
        if copied is not None:
            copies = replace(c, fake=copied, rec=None, idt=None)
            rows["copy_the_style"] = score(copies, protocol, extractor, real=real)
        idle = replace(c, fake=source, rec=source, idt=c.real)
        rows["do_nothing"] = score(idle, protocol, extractor, real=real)
    if train is not None:
        sets = {"real_vs_real": _spread_out(train, len(c.fake))}
        if c.source is None:
            floor = sets["real_vs_real"]
            sets["do_nothing"] = gaussian_pictures(train, len(c.fake), seed=protocol.seed)
            sigma = torch.full((len(floor),), max(1.0, c.real.shape[-1] / 64))
            sets["blurred"] = blurred(floor.float(), sigma).round().clamp(0, 255).byte()
        for row, images in sets.items():
            rows[row] = score(Comparison(c.name, c.real, images), protocol, extractor, real=real)
    return rows


def _spread_out(images: Tensor, n: int) -> Tensor:
    """``n`` pictures at even distances: of pooled domains an even share of each."""
    return images[torch.arange(min(n, len(images))) * len(images) // min(n, len(images))]


def gaussian_pictures(images: Tensor, n: int, *, seed: int = 0) -> Tensor:
    """uint8 [n, C, H, W] drawn from the Gaussian fitted to the pixels of uint8 ``images``.

    A sum of the centred pictures with independent normal weights over sqrt(N - 1) has their mean
    and their covariance; what leaves 0..255 is clamped.
    """
    x = images.flatten(1).float()
    mean = x.mean(0)
    normal = rng.numpy_generator(seed, "gaussian pictures").standard_normal((n, len(x)), "float32")
    drawn = torch.from_numpy(normal) @ (x - mean) / max(1, len(x) - 1) ** 0.5 + mean
    return drawn.view(n, *images.shape[1:]).round().clamp(0, 255).byte()


def _check_networks(protocol: Protocol, extractor: Extractor) -> None:
    for name, network in extractor.ids().items():
        if (asked := getattr(protocol, name)) not in ("", network):
            raise ValueError(f"the protocol asks for {name} '{asked}', this one is '{network}'")

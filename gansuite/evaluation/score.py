"""Comparison + protocol + networks -> scores."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gansuite.evaluation import neighbours, pixels, swd
from gansuite.evaluation.comparison import Comparison
from gansuite.evaluation.extractor import Extractor
from gansuite.evaluation.frechet import frechet_distance, kernel_distance
from gansuite.evaluation.perceptual import path_length
from gansuite.evaluation.protocol import Protocol


class Statistics:
    """What is computed from one set of pictures alone, each on first use.

    Keep the one of the real pictures between evaluations and only the fakes are paid for.
    """

    def __init__(self, images: Tensor, protocol: Protocol, extractor: Extractor) -> None:
        _check_networks(protocol, extractor)
        self.images = images[: protocol.samples]
        self.protocol = protocol
        self._extractor = extractor
        self._features: Tensor | None = None
        self._within: Tensor | None = None
        self._inception: Tensor | None = None
        self._projections: dict[int, list[Tensor]] = {}

    @property
    def features(self) -> Tensor:
        """Features of the random network, float64 [N, d]."""
        if self._features is None:
            self._features = self._extractor.random(self.images)
        return self._features

    @property
    def within(self) -> Tensor:
        """Distances between the features, float64 [N, N]."""
        if self._within is None:
            self._within = neighbours.distances(self.features, self.features)
        return self._within

    @property
    def inception(self) -> Tensor:
        """Pooled features and logits of Inception, float64 [N, 2048 + 1008]."""
        if self._inception is None:
            if self._extractor.inception is None:
                raise ValueError("no Inception network was built")
            self._inception = self._extractor.inception(self.images)
        return self._inception

    def projections(self, n: int) -> list[Tensor]:
        """Sorted patch projections of the first ``n`` pictures; the last ``n`` is remembered."""
        if n not in self._projections:
            p = self.protocol
            self._projections = {
                n: swd.projections(
                    self.images[:n],
                    patches=p.swd_patches,
                    directions=p.swd_directions,
                    repeats=p.swd_repeats,
                    smallest=p.swd_smallest,
                    seed=p.seed,
                )
            }
        return self._projections[n]


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
    scoring = _Scoring(c, protocol, extractor, real, Statistics(c.fake, protocol, extractor))
    scoring.run()
    found, why = scoring.found, scoring.why
    kept = {}
    for metric in protocol.metrics:
        if metric in found and math.isfinite(found[metric]):
            kept[metric] = found[metric]
        elif metric in found:
            why[metric] = "not a finite number"
    if notes is not None:
        notes.update({m: reason for m, reason in why.items() if m in protocol.metrics})
    return kept


@dataclass
class _Scoring:
    """One scoring under way: the metrics ``found``, and ``why`` others cannot be had."""

    c: Comparison
    protocol: Protocol
    extractor: Extractor
    real: Statistics
    fake: Statistics
    found: dict[str, float] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        """Every metric that is wanted, groups of them together where they share their work."""
        for metrics, part in (
            (("swd",), self._swd),
            (("fd_random", "kd_random"), self._distances),
            (("precision", "recall", "density", "coverage"), self._neighbourhoods),
            (("diversity",), self._diversity),
            (("checkerboard",), self._checkerboard),
            (("fid", "kid"), self._inception),
            (("is",), self._inception_score),
            (("lpips", "ppl"), self._perceptual),
        ):
            if set(metrics) & set(self.protocol.metrics):
                part()
        self._pixelwise()

    def _swd(self) -> None:
        c = self.c
        n = min(len(c.real), len(c.fake))
        if min(c.real.shape[-2:]) < swd.PATCH:
            self.why["swd"] = "pictures below 7x7"
        else:
            self.found["swd"] = swd.between(self.real.projections(n), self.fake.projections(n))

    def _kernel(self, real: Tensor, fake: Tensor) -> float:
        p = self.protocol
        return kernel_distance(
            real, fake, subset=p.kernel_subset, subsets=p.kernel_subsets, seed=p.seed
        )

    def _distances(self) -> None:
        real, fake = self.real.features, self.fake.features
        self.found["fd_random"] = frechet_distance(real, fake)
        self.found["kd_random"] = self._kernel(real, fake)

    def _neighbourhoods(self) -> None:
        real, fake, why = self.real, self.fake, self.why
        across = neighbours.distances(real.features, fake.features)
        few = min(len(real.images), len(fake.images))
        k = self.protocol.precision_recall_k
        names = ("precision", "recall")
        if few > k:
            pair = neighbours.precision_recall(real.within, fake.within, across, k)
            self.found.update(zip(names, pair, strict=True))
        else:
            why.update(dict.fromkeys(names, f"needs more than {k} pictures a side"))
        k = self.protocol.density_coverage_k
        names = ("density", "coverage")
        if len(real.images) > k:
            pair = neighbours.density_coverage(real.within, across, k)
            self.found.update(zip(names, pair, strict=True))
        else:
            why.update(dict.fromkeys(names, f"needs more than {k} real pictures"))

    def _diversity(self) -> None:
        if (spread := neighbours.spread(self.real.within)) > 0:
            self.found["diversity"] = neighbours.spread(self.fake.within) / spread
        else:
            self.why["diversity"] = "all real pictures are equal"

    def _checkerboard(self) -> None:
        real, fake = (pixels.nyquist_excess(x) for x in (self.c.real, self.c.fake))
        if real is None or fake is None:
            self.why["checkerboard"] = "needs even sides of at least 16"
        else:
            self.found["checkerboard"] = fake / real

    def _pixelwise(self) -> None:
        c, found = self.c, self.found
        if c.truth is not None:
            found["psnr"] = pixels.psnr(c.fake, c.truth)
            found["l1"] = pixels.l1(c.fake, c.truth)
            if min(c.fake.shape[-2:]) >= 11:
                found["ssim"] = pixels.ssim(c.fake, c.truth)
            else:
                self.why["ssim"] = "pictures below 11x11"
            if c.mask is not None:
                for name, mask in (("psnr_mask", c.mask), ("psnr_outside", ~c.mask)):
                    value = pixels.psnr_where(c.fake, c.truth, mask)
                    if value is None:
                        self.why[name] = "no picture has such pixels"
                    else:
                        found[name] = value
        if c.source is not None:
            found["correlation"] = pixels.correlation(c.source, c.fake)
            if c.rec is not None:
                found["cycle_l1"] = pixels.l1(c.rec, c.source)
        if c.idt is not None:
            found["identity_l1"] = pixels.l1(c.idt, c.real)

    def _inception(self) -> None:
        dim = 2048
        real, fake = self.real.inception[:, :dim], self.fake.inception[:, :dim]
        self.found["kid"] = self._kernel(real, fake)
        few = min(len(real), len(fake))
        if few >= dim or self.protocol.fid_small:
            self.found["fid"] = frechet_distance(real, fake)
        else:
            told = f"{few} pictures are too few for {dim} features; use kid, or fid_small"
            self.why["fid"] = told

    def _inception_score(self) -> None:
        splits = self.protocol.inception_splits
        if len(self.fake.images) >= 10 * splits:
            self.found["is"] = inception_score(self.fake.inception[:, 2048:], splits)
        else:
            self.why["is"] = f"needs at least {10 * splits} pictures"

    def _perceptual(self) -> None:
        c, network = self.c, self.extractor.vgg
        assert network is not None  # the protocol names it
        if min(c.fake.shape[-2:]) < 16:
            self.why.update(dict.fromkeys(("lpips", "ppl"), "pictures below 16x16"))
            return
        if c.truth is not None:
            fake, truth = (x.float() / 127.5 - 1 for x in (c.fake, c.truth))
            self.found["lpips"] = float(network(fake, truth).mean())
        if c.latent_pairs is not None:
            self.found["ppl"] = path_length(network, c.latent_pairs, self.protocol.ppl_epsilon)


def reference_rows(
    comparison: Comparison,
    protocol: Protocol,
    extractor: Extractor,
    *,
    other: Tensor | None = None,
    real: Statistics | None = None,
) -> dict[str, dict[str, float]]:
    """The two rows every table carries.

    ``do_nothing``: the sources as they are in place of the fakes; absent without sources.
    ``real_vs_real``: the noise floor, ``other`` real pictures of the target domain (uint8, the same
    size; of the training split, as many as there are fakes) in place of the fakes; absent without.
    """
    c = comparison
    rows = {}
    if c.source is not None:
        idle = replace(c, fake=c.source, rec=c.source, idt=c.real)
        rows["do_nothing"] = score(idle, protocol, extractor, real=real)
    if other is not None:
        floor = Comparison(c.name, c.real, other)
        rows["real_vs_real"] = score(floor, protocol, extractor, real=real)
    return rows


def _check_networks(protocol: Protocol, extractor: Extractor) -> None:
    for name, network in extractor.ids().items():
        if (asked := getattr(protocol, name)) not in ("", network):
            raise ValueError(f"the protocol asks for {name} '{asked}', this one is '{network}'")


def inception_score(logits: Tensor, splits: int = 10) -> float:
    """exp of the mean KL divergence of p(y|x) from p(y), mean over ``splits`` (Salimans 2016).

    ``logits`` [N, classes]. 1 for equal pictures. Consecutive splits: nothing is shuffled.
    """
    scores = []
    for chunk in logits.double().tensor_split(splits):
        p = chunk.softmax(1)
        gain = chunk.log_softmax(1) - p.mean(0, keepdim=True).log()
        scores.append((p * gain).sum(1).mean().exp())
    return float(torch.stack(scores).mean())

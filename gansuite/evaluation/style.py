"""How much of a style is reached, and how far the content went.

The content kept is SSIM to the content picture (`metrics.SSIM`), and `ContentDistance` in the eyes
of the network that sees the style. Each half alone is won by a trivial output, doing nothing or a
copy of the style, so they are read together and beside these (`table.Info.pair`,
`score.reference_rows`). Pictures are uint8 [N, 1 or 3, H, W].
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from gansuite.evaluation.comparison import check_images
from gansuite.evaluation.features import CHUNK, STAGES, RandomVGG16
from gansuite.evaluation.seen import kept_vectors

STYLES = frozenset(("painted", "cartoon", "style", "monet", "cezanne", "ukiyoe", "vangogh"))
"""Domains that are a style by their name, for ``evaluate.style=auto``."""


def has_style(domains: Iterable[str]) -> bool:
    """Whether one of the ``domains`` of a data set is a style."""
    return not STYLES.isdisjoint(domains)


class StyleStatistics:
    """uint8 pictures -> float64 [N, 2 * channels of all stages] on the CPU: of every stage of
    ``network`` the mean of each channel, then its deviation.

    Contents and styles come again at every evaluation, so theirs are remembered (``again``), in
    ``folder`` also for other runs. Several metrics ask for what was made, so the last set is
    remembered too, with the features of the network and the distance to its contents: the network
    sees it once for all.
    """

    def __init__(self, network: RandomVGG16, folder: Path | None = None) -> None:
        self.network, self.folder = network, folder
        self._known: dict[str, Tensor] = {}
        self._last = self._content = ("", torch.empty(0))

    def __call__(self, images: Tensor, *, again: bool = False) -> Tensor:
        return self._both(images, again)[:, self.network.dim :]

    def features(self, images: Tensor) -> Tensor:
        """What ``network`` itself makes of the pictures, [N, dim]."""
        return self._both(images)[:, : self.network.dim]

    @torch.no_grad()
    def content(self, images: Tensor, source: Tensor) -> Tensor:
        """[N]: the `ContentDistance` of each of ``images`` to its ``source``."""
        check_images(images)
        name = _name(images)
        key = f"{name} {_name(source)}"
        if key != self._content[0]:
            rows, apart = [], []
            for one, other in zip(images.split(CHUNK), source.split(CHUNK), strict=True):
                maps = list(self.network.maps(one))
                pairs = zip(maps, self.network.maps(other), strict=True)
                apart.append(torch.stack([_apart(a, b) for a, b in pairs]).mean(0).cpu())
                rows.append(self._of(maps))
            self._last, self._content = (name, torch.cat(rows)), (key, torch.cat(apart))
        return self._content[1]

    def _both(self, images: Tensor, again: bool = False) -> Tensor:
        check_images(images)
        name = _name(images)
        if name == self._last[0]:
            return self._last[1]
        if name in self._known:
            return self._known[name]
        network = self.network
        folder = self.folder if again else None
        found = kept_vectors(folder, f"{network.id}-style", network.device(), images, self._look)
        if again:
            self._known[name] = found
        self._last = (name, found)
        return found

    @torch.no_grad()
    def _look(self, images: Tensor) -> Tensor:
        chunks = images.split(CHUNK)
        return torch.cat([self._of(list(self.network.maps(chunk))) for chunk in chunks])

    def _of(self, maps: list[Tensor]) -> Tensor:
        """Features and statistics of the pictures of which the stages make ``maps``."""
        parts: list[Tensor] = []
        for x in maps:
            variance, mean = torch.var_mean(x, (2, 3), correction=0)
            parts += [mean, variance.sqrt()]
        return torch.cat([self.network.pooled(maps), torch.cat(parts, 1).cpu().double()], 1)


def _name(images: Tensor) -> str:
    """Of a set of pictures on the CPU: equal for equal ones alone."""
    key = hashlib.sha256(f"{tuple(images.shape)}".encode())
    key.update(images.contiguous().numpy().data)
    return key.hexdigest()


class StyleReached(Metric):
    """How far stylised pictures have come from the contents to a set of style pictures: 0 for
    doing nothing, about 1 for copies of style pictures, more where all are nearer to the middle of
    the set than its own pictures are, negative where the way was lost.

    The statistics s of a picture are the mean and the deviation of every channel after each stage
    of the network that scores. With m, their mean over the style pictures, and the distance
    d(s, m), the sum over stages of |s - m|^2 / |m|^2, it is

        [d(contents) - d(stylised)] / [d(contents) - d(style)],

    each d a mean over pictures; a style picture is compared with the mean of the others.
    torchmetrics has none.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    source: list[Tensor]
    made: list[Tensor]
    style: list[Tensor]
    why = ""

    def __init__(self, network: StyleStatistics, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._look = network
        for name in ("source", "made", "style"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, source: Tensor, preds: Tensor, style: Tensor) -> None:
        """Add contents, as many stylised pictures in the same order, and pictures of the style."""
        self.source.append(self._look(source, again=True))
        self.made.append(self._look(preds))
        self.style.append(self._look(style, again=True))

    def compute(self) -> Tensor:
        source, made, style = (dim_zero_cat(x) for x in (self.source, self.made, self.style))
        middle, n = style.mean(0, keepdim=True), len(style)
        # (s - m) n / (n - 1) is the difference to the mean of the others
        own = distance(style, middle) * (n / max(1, n - 1)) ** 2
        return self._share(distance(source, middle), distance(made, middle), own)

    def _share(self, nothing: Tensor, made: Tensor, copy: Tensor | float) -> Tensor:
        if not nothing > copy:
            self.why = "the contents are in this style already"
            return torch.tensor(math.nan, dtype=torch.float64)
        return (nothing - made) / (nothing - copy)


class ReferenceReached(StyleReached):
    """`StyleReached` of the one reference that each picture was to have the style of, in m's place:
    0 for doing nothing, 1 for a copy of the reference."""

    def compute(self) -> Tensor:
        source, made, style = (dim_zero_cat(x) for x in (self.source, self.made, self.style))
        return self._share(distance(source, style), distance(made, style), 0.0)


class ContentDistance(Metric):
    """How far the content of stylised pictures is from that of their sources, in what the features
    of ``network`` hold beside the statistics that are their style (Huang & Belongie 2017: content
    is what instance normalisation leaves).

    Every channel of every stage is normalised to mean 0 and variance 1 over the picture (variance
    + 1e-6, for channels that see nothing); the distance is half the mean squared difference, mean
    over stages and pictures. That is 1 - correlation: 0 for doing nothing, 1 where nothing is in
    its place. torchmetrics has none.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    found: list[Tensor]
    why = ""

    def __init__(self, network: StyleStatistics, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._look = network
        self.add_state("found", default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, source: Tensor) -> None:
        """Add stylised pictures and the contents they were made of, as many in the same order."""
        self.found.append(self._look.content(preds, source))

    def compute(self) -> Tensor:
        return dim_zero_cat(self.found).mean()


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """[N]: half the mean squared difference of two maps [N, C, H, W] that are normalised, by their
    moments."""
    a, b = (x - x.mean((2, 3), keepdim=True) for x in (a.double(), b.double()))
    aa, bb, ab = ((x * y).mean((2, 3)) for x, y in ((a, a), (b, b), (a, b)))
    sa, sb = aa + 1e-6, bb + 1e-6
    return ((aa / sa + bb / sb) / 2 - ab / (sa * sb).sqrt()).mean(1)


def distance(statistics: Tensor, wanted: Tensor) -> Tensor:
    """The mean over pictures of the sum over stages of |s - m|^2 / |m|^2; [N, D] and [N or 1, D] as
    of `StyleStatistics`."""
    sizes = [2 * widths[-1] for widths in STAGES]
    parts = zip(statistics.split(sizes, 1), wanted.split(sizes, 1), strict=True)
    ratios = [(a - b).square().sum(1) / b.square().sum(1) for a, b in parts]
    return torch.stack(ratios).sum(0).mean()

"""The metrics as `torchmetrics.Metric`s: update them batch by batch, alone or in a
`MetricCollection`, under any number of processes.

Where torchmetrics has a metric and it takes our pictures and networks, its class is used: PSNR,
SSIM, MS-SSIM, L1, FID and the inception score are thin subclasses. Every other class says in one
line why torchmetrics' own does not serve. Metrics of two sets of pictures are called as its FID is,
``update(imgs, real)``; those of pairs as its PSNR is, ``update(preds, target)``. Pictures are uint8
[N, 1 or 3, H, W]. A value that is undefined is NaN, and ``why`` then says the reason.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, Metric
from torchmetrics.image import (
    MultiScaleStructuralSimilarityIndexMeasure,
    PeakSignalNoiseRatio,
    StructuralSimilarityIndexMeasure,
)
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore as _InceptionScore
from torchmetrics.utilities.data import dim_zero_cat

from gansuite import rng
from gansuite.evaluation import frechet, neighbours, pixels, swd
from gansuite.evaluation.comparison import check_images
from gansuite.evaluation.perceptual import path_lengths, trimmed_mean


def _double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


NAN = _double(math.nan)


class SetMetric(Metric):
    """Base of the metrics of two sets: real pictures and made ones.

    ``feature``: the network, uint8 pictures -> vectors [N, d], kept out of ``state_dict`` and of
    ``parameters``; None: ``update`` is given what ``compute`` works on (vectors, or pictures for
    `SlicedWasserstein` and `Checkerboard`). ``reset_real_features=False``: ``reset`` keeps the real
    side, which is then paid for once.
    """

    is_differentiable = False
    higher_is_better: bool | None = False
    full_state_update = False
    real: list[Tensor]
    fake: list[Tensor]
    why = ""

    def __init__(
        self, feature: nn.Module | None = None, *, reset_real_features: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._feature = (feature,)  # in a tuple: not a part of this module
        self.reset_real_features = reset_real_features
        self.add_state("real", default=[], dist_reduce_fx="cat")
        self.add_state("fake", default=[], dist_reduce_fx="cat")

    def update(self, imgs: Tensor, real: bool) -> None:
        """Add pictures (or vectors, without a network) to one side."""
        (feature,) = self._feature
        (self.real if real else self.fake).append(imgs if feature is None else feature(imgs))

    def sides(self) -> tuple[Tensor, Tensor]:
        """All of the real side and of the made one."""
        return dim_zero_cat(self.real), dim_zero_cat(self.fake)

    def reset(self) -> None:
        real = list(self.real)
        super().reset()
        if not self.reset_real_features:
            self.real = real

    def undefined(self, why: str) -> Tensor:
        """NaN; ``why`` is kept as its reason."""
        self.why = why
        return NAN


class FrechetDistance(SetMetric):
    """Fréchet distance of the Gaussians fitted to two sets of vectors (Heusel et al. 2017); from 0
    up, 0 for equal sets. See `frechet.frechet_distance`.

    torchmetrics' FID takes a root of the product of two covariances: with fewer pictures than
    features these are singular and half the digits go; this one is exact for any number.
    """

    def compute(self) -> Tensor:
        real, fake = self.sides()
        if min(len(real), len(fake)) < 2:
            return self.undefined("needs at least two pictures a side")
        return _double(frechet.frechet_distance(real, fake))


class KernelDistance(SetMetric):
    """Unbiased squared MMD with the kernel (x'y / d + 1)^3 over all pairs (Binkowski et al. 2018);
    about 0 for sets of one distribution, may be slightly negative.

    torchmetrics' KID is a mean over random subsets of it, drawn from the global generator, and
    refuses sets smaller than its subsets.
    """

    def compute(self) -> Tensor:
        real, fake = self.sides()
        if min(len(real), len(fake)) < 2:
            return self.undefined("needs at least two pictures a side")
        return _double(frechet.kernel_distance(real, fake))


class CMMD(SetMetric):
    """1000 times the squared MMD with a Gaussian kernel of width ``sigma`` of vectors scaled to
    length 1, the diagonal included (Jayasumana et al. 2024, arXiv:2401.09603, on CLIP); 0 to 2000.

    torchmetrics has none.
    """

    def __init__(self, feature: nn.Module | None = None, *, sigma: float = 10, **kwargs: Any):
        super().__init__(feature, **kwargs)
        self.sigma = sigma

    def compute(self) -> Tensor:
        real, fake = (x.double() / x.double().norm(dim=1, keepdim=True) for x in self.sides())

        def mean(x: Tensor, y: Tensor) -> Tensor:
            rows = [
                torch.exp((part @ y.T - 1) / self.sigma**2).sum() for part in x.split(1000)
            ]  # |x - y|^2 = 2 - 2 x'y
            return torch.stack(rows).sum() / (len(x) * len(y))

        value = 1000 * (mean(real, real) + mean(fake, fake) - 2 * mean(real, fake))
        return value.clamp_min(0)


class PrecisionRecall(SetMetric):
    """Improved precision and recall (Kynkäänniemi et al. 2019), 0 to 1 each: ``{"precision":,
    "recall":}``. torchmetrics has none."""

    higher_is_better = True

    def __init__(self, feature: nn.Module | None = None, *, k: int = 3, **kwargs: Any) -> None:
        super().__init__(feature, **kwargs)
        self.k = k

    def compute(self) -> dict[str, Tensor]:
        real, fake = self.sides()
        if min(len(real), len(fake)) <= self.k:
            nan = self.undefined(f"needs more than {self.k} pictures a side")
            return {"precision": nan, "recall": nan}
        rr, ff, across = (
            neighbours.distances(x, y) for x, y in ((real, real), (fake, fake), (real, fake))
        )
        pair = neighbours.precision_recall(rr, ff, across, self.k)
        return dict(zip(("precision", "recall"), map(_double, pair), strict=True))


class DensityCoverage(SetMetric):
    """Density (0 to about 1, may be more) and coverage (0 to 1) of Naeem et al. 2020:
    ``{"density":, "coverage":}``. torchmetrics has none."""

    higher_is_better = True

    def __init__(self, feature: nn.Module | None = None, *, k: int = 5, **kwargs: Any) -> None:
        super().__init__(feature, **kwargs)
        self.k = k

    def compute(self) -> dict[str, Tensor]:
        real, fake = self.sides()
        if len(real) <= self.k:
            nan = self.undefined(f"needs more than {self.k} real pictures")
            return {"density": nan, "coverage": nan}
        across = neighbours.distances(real, fake)
        pair = neighbours.density_coverage(neighbours.distances(real, real), across, self.k)
        return dict(zip(("density", "coverage"), map(_double, pair), strict=True))


class Diversity(SetMetric):
    """Mean distance between made pictures as a share of that between real ones: 1 as varied as
    they are, near 0 collapsed. torchmetrics has none."""

    higher_is_better = None

    def compute(self) -> Tensor:
        real, fake = self.sides()
        if min(len(real), len(fake)) < 2:
            return self.undefined("needs at least two pictures a side")
        spread = [neighbours.spread(neighbours.distances(x, x)) for x in (real, fake)]
        if spread[0] == 0:
            return self.undefined("all real pictures are equal")
        return _double(spread[1] / spread[0])


class SlicedWasserstein(SetMetric):
    """Sliced Wasserstein distance x 1000 of 7x7 patches over a Laplacian pyramid (Karras et al.
    2018); from 0 up, 0 for equal sets. See `swd.sliced_wasserstein` for the arguments.

    Of uint8 pictures; the first min(N, M) of each side count, in the order of ``update``, and
    where their patches are cut depends on that order. torchmetrics has none.
    """

    def __init__(
        self,
        *,
        patches: int = 128,
        directions: int = 128,
        repeats: int = 4,
        smallest: int = 16,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.settings = {"patches": patches, "directions": directions, "repeats": repeats}
        self.settings |= {"smallest": smallest, "seed": seed}
        self._kept: tuple[int, list[Tensor]] | None = None  # of the real side, by their number

    def update(self, imgs: Tensor, real: bool) -> None:
        """Add uint8 [N, 1 or 3, H, W] to one side."""
        check_images(imgs)
        if real:
            self._kept = None
        super().update(imgs, real)

    def compute(self) -> Tensor:
        real, fake = self.sides()
        if min(real.shape[-2:]) < swd.PATCH:
            return self.undefined("pictures below 7x7")
        n = min(len(real), len(fake))
        if self._kept is None or self._kept[0] != n or self._is_synced:
            self._kept = (n, swd.projections(real[:n], **self.settings))
        value = swd.between(self._kept[1], swd.projections(fake[:n], **self.settings))
        return _double(value)

    def reset(self) -> None:
        super().reset()
        if self.reset_real_features:
            self._kept = None


class Checkerboard(SetMetric):
    """Power at the highest frequencies of made pictures over that of real ones: about 1, larger
    where upsampling draws a checkerboard. uint8; see `pixels.nyquist_excess`. torchmetrics has
    none."""

    higher_is_better = None

    def compute(self) -> Tensor:
        real, fake = (pixels.nyquist_excess(x) for x in self.sides())
        if real is None or fake is None:
            return self.undefined("needs even sides of at least 16")
        return _double(fake / real)


class Precomputed(nn.Identity):
    """In the place of a network where ``update`` is given its vectors [N, ``num_features``]."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


class FID(FrechetInceptionDistance):
    """torchmetrics' Fréchet inception distance of vectors [N, 2048]; NaN below as many pictures a
    side unless ``small``, since it then mostly measures their number."""

    why = ""

    def __init__(self, *, dim: int = 2048, small: bool = False, **kwargs: Any) -> None:
        super().__init__(Precomputed(dim), **kwargs)
        self.dim, self.small = dim, small

    def update(self, imgs: Tensor, real: bool) -> None:
        super().update(imgs[:, : self.dim], real)

    def compute(self) -> Tensor:
        few = int(min(self.real_features_num_samples, self.fake_features_num_samples))
        if few < 2 or (few < self.dim and not self.small):
            self.why = f"{few} pictures are too few for {self.dim} features; use kid, or fid_small"
            return NAN
        return super().compute()


class KID(KernelDistance):
    """`KernelDistance` of the first 2048 numbers."""

    def update(self, imgs: Tensor, real: bool) -> None:
        super().update(imgs[:, :2048], real)


class InceptionScore(_InceptionScore):
    """torchmetrics' inception score of logits [N, classes], or of the numbers behind the first
    ``skip``: from 1 (equal pictures) up to the number of classes, mean over ``splits``.

    Its shuffle is drawn from a named generator. NaN below 10 pictures a split.
    """

    why = ""

    def __init__(self, *, splits: int = 10, skip: int = 0, seed: int = 0, **kwargs: Any) -> None:
        with warnings.catch_warnings():  # "will save all extracted features": they are needed
            warnings.simplefilter("ignore", UserWarning)
            super().__init__(Precomputed(1), splits=splits, **kwargs)
        self.skip, self.seed = skip, seed

    def update(self, imgs: Tensor, real: bool = False) -> None:
        """Add made pictures; real ones do not count."""
        if not real:
            super().update(imgs[:, self.skip :])

    def compute(self) -> Tensor:  # type: ignore[override]
        if sum(len(x) for x in self.features) < 10 * self.splits:
            self.why = f"needs at least {10 * self.splits} pictures"
            return NAN
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on the deviation of a single split
            torch.manual_seed(rng.derive(self.seed, "inception score"))
            return super().compute()[0]


class PSNR(PeakSignalNoiseRatio):
    """torchmetrics' peak signal-to-noise ratio of uint8 pictures: dB, mean over pictures.

    Rounding to 256 levels alone makes a mean squared error of 1/12, below which no two roundings
    can be told apart; so equal pictures score 58.92 and not infinity.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(data_range=255.0, dim=(1, 2, 3), **kwargs)
        self.set_dtype(torch.float64)

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.double(), target.double())
        errors: list[Tensor] = self.sum_squared_error  # type: ignore[assignment]
        errors[-1].clamp_min_(pixels.MSE_FLOOR * preds[0].numel())


class _Structural(Metric):
    """What SSIM and MS-SSIM share: uint8 pictures, ``chunk`` at a time; NaN where a side is below
    ``smallest`` pixels, which the windows need."""

    smallest: int
    chunk: int
    why = ""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(data_range=255.0, **kwargs)
        self.set_dtype(torch.float64)

    def update(self, preds: Tensor, target: Tensor) -> None:
        if min(preds.shape[-2:]) < self.smallest:
            self.why = f"pictures below {self.smallest}x{self.smallest}"
            return
        for x, y in zip(preds.split(self.chunk), target.split(self.chunk), strict=True):
            # in double it takes 15 times as long
            super().update(x.float(), y.float())  # type: ignore[safe-super]

    def compute(self) -> Tensor:
        return NAN if self.why else super().compute()  # type: ignore[safe-super]


class SSIM(_Structural, StructuralSimilarityIndexMeasure):
    """torchmetrics' structural similarity of uint8 pictures: Gaussian window 11 (sigma 1.5), range
    255; -1 to 1. NaN below 11 pixels."""

    smallest, chunk = 11, 32


class MSSSIM(_Structural, MultiScaleStructuralSimilarityIndexMeasure):
    """torchmetrics' multi-scale structural similarity (Wang et al. 2003) of uint8 pictures, five
    scales; NaN below 176 pixels, which five scales of its window need."""

    smallest, chunk = 176, 8


class L1(MeanAbsoluteError):
    """torchmetrics' mean absolute error of uint8 pictures, in units of the full range: 0 equal, 1
    black against white."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_dtype(torch.float64)

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(*(x.flatten().double() / 255 for x in (preds, target)))


class MeanOverPictures(Metric):
    """Base of the metrics that are a mean of one number per picture."""

    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor
    why = ""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def add(self, scores: Tensor) -> None:
        """``scores`` [N], one per picture."""
        self.total += scores.sum(dtype=torch.float64).to(self.total.device)
        self.count += len(scores)

    def compute(self) -> Tensor:
        return self.total / self.count if self.count else NAN


class MaskedPSNR(MeanOverPictures):
    """PSNR of uint8 pictures over the pixels of a mask, bool [N, 1, H, W] (``outside``: over the
    others), in dB, at most 58.92; pictures without such pixels do not count.

    torchmetrics' PSNR has no mask.
    """

    higher_is_better = True

    def __init__(self, *, outside: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.outside = outside

    def update(self, preds: Tensor, target: Tensor, mask: Tensor) -> None:
        self.add(pixels.psnr_where(preds, target, ~mask if self.outside else mask))

    def compute(self) -> Tensor:
        if not self.count:
            self.why = "no picture has such pixels"
        return super().compute()


class Correlation(MeanOverPictures):
    """Pearson correlation of the pixel values of each pair of pictures, mean over pictures: 1 the
    same, -1 inverted, 0 for a picture of one value.

    torchmetrics' is that of all pictures pooled, one column per pixel.
    """

    higher_is_better = None

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.add(pixels.correlation(preds, target))


class PerceptualDistance(MeanOverPictures):
    """LPIPS (Zhang et al. 2018) of uint8 pictures of 16x16 or more, from 0 up.

    ``network``: `perceptual.LPIPS`. torchmetrics' class fetches its weights itself and takes none.
    """

    higher_is_better = False

    def __init__(self, network: nn.Module, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._network = (network,)

    def update(self, preds: Tensor, target: Tensor) -> None:
        if min(preds.shape[-2:]) < 16:
            self.why = "pictures below 16x16"
            return
        self.add(self._network[0](*(x.float() / 127.5 - 1 for x in (preds, target))))


class PathLength(Metric):
    """Perceptual path length (Karras et al. 2019): mean LPIPS / ``epsilon``^2 of pictures that are
    ``epsilon`` apart in latent space; from 0 up.

    torchmetrics' draws the latents itself, of a generator it calls, all along the path and from the
    global generator; here each method walks in its own latent space, from the ends.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    lengths: list[Tensor]
    why = ""

    def __init__(self, network: nn.Module, *, epsilon: float = 1e-4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._network, self.epsilon = (network,), epsilon
        self.add_state("lengths", default=[], dist_reduce_fx="cat")

    def update(self, ends: tuple[Tensor, Tensor]) -> None:
        """``ends``: floats [N, C, H, W] in [-1, 1], twice; not rounded to grey levels."""
        if min(ends[0].shape[-2:]) < 16:
            self.why = "pictures below 16x16"
            return
        self.lengths.append(path_lengths(self._network[0], ends, self.epsilon))

    def compute(self) -> Tensor:
        return NAN if not self.lengths else trimmed_mean(dim_zero_cat(self.lengths))

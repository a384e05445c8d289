"""Metrics as torchmetrics uses them: batch by batch, in a collection, reduced over processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from gansuite.data.coats import render_many
from gansuite.evaluation import metrics as m
from gansuite.evaluation.comparison import check_images
from gansuite.evaluation.frechet import frechet_distance
from gansuite.evaluation.table import HEADLINE, METRICS, OFFLINE, distance


class Pooled(nn.Module):
    """uint8 pictures -> 12 numbers."""

    def forward(self, x: Tensor) -> Tensor:
        check_images(x)
        return nn.functional.adaptive_avg_pool2d(x.double(), 2).flatten(1)


def pictures(seed: int, n: int = 24, high: int = 256) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, (n, 3, 32, 32), generator=g).byte()


SETS: dict[str, Any] = {
    "fd": lambda: m.FrechetDistance(Pooled()),
    "kd": lambda: m.KernelDistance(Pooled()),
    "cmmd": lambda: m.CMMD(Pooled()),
    "pr": lambda: m.PrecisionRecall(Pooled()),
    "dc": lambda: m.DensityCoverage(Pooled()),
    "diversity": lambda: m.Diversity(Pooled()),
    "swd": lambda: m.SlicedWasserstein(patches=8, directions=8, repeats=1),
    "checkerboard": lambda: m.Checkerboard(),
}
PAIRS: dict[str, Any] = {
    "psnr": m.PSNR,
    "ssim": m.SSIM,
    "l1": m.L1,
    "correlation": m.Correlation,
}


def values(metric: Metric) -> list[float]:
    value = metric.compute()
    return [float(v) for v in (value.values() if isinstance(value, dict) else [value])]


def reduced(ranks: list[Metric]) -> Metric:
    """The metric of the first rank with the states of all, reduced as torchmetrics does it."""
    names = iter(ranks[0]._reductions)

    def gather(state: Tensor, **_: Any) -> list[Tensor]:  # is called once per state, in order
        name = next(names)
        found = (getattr(rank, name) for rank in ranks)
        return [torch.cat(x) if isinstance(x, list) else x for x in found]

    ranks[0].sync(dist_sync_fn=gather, distributed_available=lambda: True)
    ranks[0]._to_sync = False  # it is
    return ranks[0]


@pytest.mark.parametrize("name", [*SETS, *PAIRS])
def test_batches_and_ranks_make_the_whole(name: str) -> None:
    real, fake = pictures(0), pictures(1, high=200)
    make = {**SETS, **PAIRS}[name]

    def filled(*parts: tuple[Tensor, Tensor]) -> Metric:
        metric = make()
        for a, b in parts:
            if name in SETS:
                metric.update(a, real=True)
                metric.update(b, real=False)
            else:
                metric.update(b, a)
        return metric

    def cut(start: int, end: int) -> tuple[Tensor, Tensor]:
        return real[start:end], fake[start:end]

    whole = values(filled((real, fake)))
    near = 1e-6 if name == "ssim" else 1e-9  # in single precision
    assert values(filled(cut(0, 5), cut(5, 24))) == pytest.approx(whole, rel=near)
    ranks = [filled(cut(0, 7), cut(7, 11)), filled(cut(11, 24))]
    assert values(reduced(ranks)) == pytest.approx(whole, rel=near)


def test_a_collection_takes_them_together() -> None:
    sets = MetricCollection({k: make() for k, make in SETS.items()})
    sets.update(pictures(0), real=True)
    sets.update(pictures(1), real=False)
    found = sets.compute()
    assert {"fd", "precision", "recall", "coverage", "swd"} <= set(found)
    alone = frechet_distance(Pooled()(pictures(0)), Pooled()(pictures(1)))
    assert float(found["fd"]) == pytest.approx(alone)
    pairs = MetricCollection({k: make() for k, make in PAIRS.items()})
    pairs.update(pictures(0), pictures(0))
    assert float(pairs.compute()["l1"]) == 0
    assert not list(sets.parameters())
    assert not sets.state_dict()


@pytest.mark.parametrize("name", ["fd", "swd"])
def test_the_real_side_is_kept_when_asked(name: str) -> None:
    metric = SETS[name]()
    metric.reset_real_features = False
    metric.update(pictures(0), real=True)
    for seed in (1, 2):
        metric.reset()
        metric.update(pictures(seed), real=False)
        other = SETS[name]()
        other.update(pictures(0), real=True)
        other.update(pictures(seed), real=False)
        assert values(metric) == values(other)


def test_fid_of_vectors_is_the_exact_distance() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 9, generator=g, dtype=torch.float64) for n in (40, 30))
    fid = m.FID(dim=8)
    fid.update(a, real=True)
    fid.update(b, real=False)
    assert float(fid.compute()) == pytest.approx(frechet_distance(a[:, :8], b[:, :8]), rel=1e-6)
    few = m.FID(dim=8)
    few.update(a[:7], real=True)
    few.update(b, real=False)
    assert values(few) == pytest.approx([float("nan")], nan_ok=True)
    assert "7 pictures are too few for 8 features" in few.why


def test_cmmd_against_loops() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 5, generator=g, dtype=torch.float64) for n in (6, 7))
    unit = [x / x.norm(dim=1, keepdim=True) for x in (a, b)]

    def mean(x: Tensor, y: Tensor) -> float:
        found = [float(torch.exp(-(p - q).square().sum() / 200)) for p in x for q in y]
        return sum(found) / len(found)

    expected = 1000 * (mean(unit[0], unit[0]) + mean(unit[1], unit[1]) - 2 * mean(*unit))
    metric = m.CMMD()
    metric.update(a, real=True)
    metric.update(b, real=False)
    assert values(metric) == pytest.approx([expected], abs=1e-9)


def test_ms_ssim_is_torchmetrics_and_needs_176_pixels() -> None:
    functional = pytest.importorskip("torchmetrics.functional.image")
    images = render_many("horse", range(2), size=176)[0]
    a = torch.from_numpy(images).permute(0, 3, 1, 2)
    b = (a.float() * 0.7).byte()
    metric = m.MSSSIM()
    metric.update(a, b)
    expected = functional.multiscale_structural_similarity_index_measure(
        a.float(), b.float(), data_range=255.0
    )
    assert values(metric) == pytest.approx([float(expected)], rel=1e-6)
    small = m.MSSSIM()
    small.update(a[..., :175, :175], b[..., :175, :175])
    assert small.compute().isnan()


def test_the_table_is_whole() -> None:
    for name, info in METRICS.items():
        assert info.label, name
        assert info.meaning.endswith((".", "?")), name
    assert set(HEADLINE) <= set(METRICS)
    assert "fid" not in OFFLINE
    assert distance(["fd_random", "fd_learned"]) == "fd_learned"
    assert distance(["fd_random", "swd"]) == "fd_random"

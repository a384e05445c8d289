"""Distances between feature sets: closed forms, reference libraries, slow loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gansuite.evaluation import neighbours
from gansuite.evaluation.frechet import frechet_distance, kernel_distance
from gansuite.evaluation.metrics import InceptionScore


def gaussian(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, d, generator=g, dtype=torch.float64) + shift


def with_moments(n: int, mean: Tensor, covariance: Tensor, seed: int) -> Tensor:
    """A set whose sample mean and N - 1 covariance are exactly these."""
    x = gaussian(n, len(mean), seed)
    x = x - x.mean(0)
    whiten = torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T
    return x @ whiten @ torch.linalg.cholesky(covariance).T + mean


def test_frechet_of_known_gaussians() -> None:
    variance_a, variance_b = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 1.0, 16.0])
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    a = with_moments(50, torch.zeros(3, dtype=torch.float64), variance_a.diag().double(), 0)
    b = with_moments(70, mean, variance_b.diag().double(), 1)
    expected = mean.square().sum() + (variance_a.sqrt() - variance_b.sqrt()).square().sum()
    assert frechet_distance(a, b) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(400, 300, 20), (40, 60, 96), (30, 300, 48)])
def test_frechet_against_scipy_and_torch_fidelity(n: int, m: int, d: int) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    a, b = gaussian(n, d, 0), gaussian(m, d, 1, 0.2) @ gaussian(d, d, 2) / d**0.5
    stats = [fid.fid_features_to_statistics(x) for x in (a, b)]
    other = fid.fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    ours = frechet_distance(a, b)
    assert ours == pytest.approx(other, abs=1e-3)
    if min(n, m) > d:  # the root of a singular product is not accurate
        s1, s2 = (np.cov(x.numpy(), rowvar=False) for x in (a, b))
        shift = (a.mean(0) - b.mean(0)).square().sum()
        root = linalg.sqrtm(s1 @ s2).real
        assert ours == pytest.approx(float(shift) + np.trace(s1 + s2 - 2 * root), abs=1e-6)


def test_frechet_against_torchmetrics_with_its_own_network() -> None:
    metrics = pytest.importorskip("torchmetrics.image.fid")

    class Pooled(torch.nn.Module):
        num_features = 12

        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(x.float(), 2).flatten(1)

    g = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 256 - s, (40, 3, 8, 8), generator=g).byte() for s in (0, 40))
    reference = metrics.FrechetInceptionDistance(Pooled(), antialias=False)
    reference.update(a, real=True)
    reference.update(b, real=False)
    assert frechet_distance(Pooled()(a), Pooled()(b)) == pytest.approx(
        float(reference.compute()), rel=1e-6
    )


@pytest.mark.parametrize(("n", "d"), [(2, 5), (64, 112), (200, 30)])
def test_frechet_of_equal_and_collapsed_sets(n: int, d: int) -> None:
    a = gaussian(n, d, 3, 5.0)
    assert frechet_distance(a, a) < 1e-6
    assert frechet_distance(a, a.flip(0)) < 1e-6
    point = torch.full_like(a, 5.0)
    expected = a.var(0).sum() + (a.mean(0) - 5).square().sum()
    assert frechet_distance(a, point) == pytest.approx(float(expected), rel=1e-9)
    assert frechet_distance(point, point) == 0


def test_too_few_or_unequal_vectors_are_refused() -> None:
    a = gaussian(4, 3, 0)
    for other, text in ((a[:1], "at least two"), (a[:, :2], "two sets of vectors")):
        for distance in (frechet_distance, kernel_distance):
            with pytest.raises(ValueError, match=text):
                distance(a, other)


def slow_mmd(a: Tensor, b: Tensor) -> float:
    """Unbiased MMD^2 with the cubic kernel, pair by pair."""

    def k(x: Tensor, y: Tensor) -> float:
        return (float(x @ y) / len(x) + 1) ** 3

    n, m = len(a), len(b)
    aa = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    bb = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return aa + bb - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


def test_kernel_distance_against_loops_and_torch_fidelity() -> None:
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    a, b = gaussian(30, 6, 0), gaussian(30, 6, 1, 0.4)
    assert kernel_distance(a, b) == pytest.approx(slow_mmd(a, b), rel=1e-12)
    other = kid.kid_features_to_metric(a, b, kid_subsets=3, kid_subset_size=30, verbose=False)
    assert kernel_distance(a, b) == pytest.approx(other["kernel_inception_distance_mean"], rel=1e-9)


def test_kernel_distance_of_sets_of_unequal_size_and_above_a_chunk() -> None:
    a, b = gaussian(20, 4, 0), gaussian(1300, 4, 1, 0.3)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / 4 + 1) ** 3

    off = [(kernel(x, x).sum() - kernel(x, x).trace()) / (len(x) * (len(x) - 1)) for x in (a, b)]
    expected = off[0] + off[1] - 2 * kernel(a, b).mean()
    assert kernel_distance(a, b) == pytest.approx(float(expected), rel=1e-9)


def test_kernel_distance_has_no_bias() -> None:
    values = [kernel_distance(gaussian(40, 5, i), gaussian(40, 5, 1000 + i)) for i in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5
    assert min(values) < 0


def slow_prdc(real: Tensor, fake: Tensor, k: int) -> tuple[float, float, float, float]:
    def ball(points: Tensor, i: int) -> float:
        return sorted(float((points[i] - p).norm()) for p in points)[k]

    rr, rf = ([ball(s, i) for i in range(len(s))] for s in (real, fake))
    d = [[float((x - y).norm()) for y in fake] for x in real]
    n, m = len(real), len(fake)
    precision = sum(any(d[i][j] <= rr[i] for i in range(n)) for j in range(m)) / m
    recall = sum(any(d[i][j] <= rf[j] for j in range(m)) for i in range(n)) / n
    density = sum(d[i][j] <= rr[i] for i in range(n) for j in range(m)) / (k * m)
    coverage = sum(any(d[i][j] <= rr[i] for j in range(m)) for i in range(n)) / n
    return precision, recall, density, coverage


def prdc(real: Tensor, fake: Tensor, k: int) -> tuple[float, float, float, float]:
    rr, ff, across = (
        neighbours.distances(*pair) for pair in ((real, real), (fake, fake), (real, fake))
    )
    return (
        *neighbours.precision_recall(rr, ff, across, k),
        *neighbours.density_coverage(rr, across, k),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
def test_neighbours_against_loops_and_torch_fidelity(k: int) -> None:
    prc = pytest.importorskip("torch_fidelity.metric_prc")
    real, fake = gaussian(25, 3, 0), gaussian(32, 3, 1, 0.8, 0.7)
    ours = prdc(real, fake, k)
    assert ours == pytest.approx(slow_prdc(real, fake, k), abs=1e-12)
    precision, recall = prc.calculate_precision_recall_full(fake, real, neighborhood=k)
    assert ours[:2] == pytest.approx((precision, recall), abs=1e-6)


def test_neighbours_of_equal_and_far_sets() -> None:
    a = gaussian(40, 6, 0)
    precision, recall, density, coverage = prdc(a, a, 5)
    assert (precision, recall, coverage) == (1, 1, 1)
    assert density == pytest.approx((5 + 1) / 5)  # each ball holds its k neighbours and its centre
    assert prdc(a, a + 1e3, 5) == (0, 0, 0, 0)


def test_density_and_coverage_of_one_distribution() -> None:
    """Naeem et al. 2020, section 3.2: E[density] = 1, E[coverage] in closed form (Lemma 2)."""
    n, k = 100, 5
    found = np.array([prdc(gaussian(n, 4, i), gaussian(n, 4, 500 + i), k)[2:] for i in range(40)])
    i = np.arange(1, k + 1)
    expected = (1.0, 1 - np.prod((n - i) / (2 * n - i)))
    error = found.std(0) / len(found) ** 0.5
    assert np.all(np.abs(found.mean(0) - expected) < 4 * error + 0.005)


def test_one_real_outlier_lifts_precision_but_not_density() -> None:
    """Naeem et al. 2020, figure 3a: an outlier's ball swallows fakes that are far from the rest."""
    real, fake = gaussian(100, 8, 0), gaussian(100, 8, 1, 3.0)
    outlier = torch.cat([real[:-1], torch.full((1, 8), 3.0, dtype=torch.float64)])
    clean, spoiled = prdc(real, fake, 5), prdc(outlier, fake, 5)
    assert clean[0] < 0.05
    assert spoiled[0] > 0.95
    assert spoiled[2] < 0.35


def test_a_collapsed_set_has_precision_but_no_recall() -> None:
    real = gaussian(60, 5, 0)
    precision, recall, _, coverage = prdc(real, real[:1].expand(60, -1), 5)
    assert precision == 1
    assert recall == pytest.approx(1 / 60)
    assert coverage < 0.3


def test_spread_is_the_mean_over_pairs() -> None:
    a = gaussian(9, 3, 0)
    pairs = [float((a[i] - a[j]).norm()) for i in range(9) for j in range(i)]
    assert neighbours.spread(neighbours.distances(a, a)) == pytest.approx(np.mean(pairs))


def inception_score(logits: Tensor, splits: int) -> float:
    metric = InceptionScore(splits=splits)
    for part in logits.split(7):  # batch by batch
        metric.update(part)
    return float(metric.compute())


def test_inception_score_of_known_predictions() -> None:
    assert inception_score(gaussian(1, 7, 0).expand(50, -1), 5) == pytest.approx(1)
    assert inception_score(1e3 * torch.eye(8).repeat(4, 1), 1) == pytest.approx(8)
    assert np.isnan(inception_score(gaussian(19, 7, 0), 2))
    isc = pytest.importorskip("torch_fidelity.metric_isc")
    logits = gaussian(103, 12, 1, 0, 2.0)
    other = isc.isc_features_to_metric(logits, splits=1, shuffle=False)
    assert inception_score(logits, 1) == pytest.approx(other["inception_score_mean"], rel=1e-9)
    state = torch.get_rng_state()
    assert inception_score(logits, 5) == inception_score(logits, 5)
    assert torch.equal(torch.get_rng_state(), state)

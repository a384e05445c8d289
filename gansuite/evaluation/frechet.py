"""Distances between two sets of feature vectors [N, d], all in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def _reduced(x: Tensor) -> Tensor:
    """Centred rows with the same Gram matrix x'x / (n - 1), at most d of them."""
    x = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    return x if len(x) <= x.shape[1] else torch.linalg.qr(x, mode="r").R


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance of the Gaussians fitted to two feature sets [N, d] and [M, d].

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), covariances over N - 1 (Heusel et al. 2017, eq. 6).
    With centred, scaled rows A'A = S1 and B'B = S2, the trace of the root is the sum of the
    singular values of A B': exact for every N, also for singular covariances, where a root of the
    product S1 S2 loses half the digits. Sets with N > d are first reduced to their d x d R factor.
    Never negative; 0 for equal sets; a set of equal vectors gives a number. ValueError for N < 2.
    """
    _check(a, b)
    a, b = a.double(), b.double()
    shift = a.mean(0) - b.mean(0)
    a, b = _reduced(a), _reduced(b)
    root = torch.linalg.svdvals(a @ b.T).sum()
    return max(0.0, float(shift.square().sum() + a.square().sum() + b.square().sum() - 2 * root))


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Squared MMD with the kernel (x'y / d + 1)^3, unbiased (Binkowski et al. 2018, section 4).

    Over all pairs: the mean over subsets of the paper has the same expectation and more noise. May
    be slightly negative. ValueError for fewer than two vectors.
    """
    _check(a, b)
    a, b = a.double(), b.double()

    def total(x: Tensor, y: Tensor) -> Tensor:
        rows = [((part @ y.T / x.shape[1] + 1) ** 3).sum() for part in x.split(1000)]
        return torch.stack(rows).sum()

    def within(x: Tensor) -> Tensor:
        diagonal = ((x.square().sum(1) / x.shape[1] + 1) ** 3).sum()
        return (total(x, x) - diagonal) / (len(x) * (len(x) - 1))

    return float(within(a) + within(b) - 2 * total(a, b) / (len(a) * len(b)))


def _check(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"two sets of vectors [N, d], not {tuple(a.shape)} and {tuple(b.shape)}")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"at least two pictures on each side, not {len(a)} and {len(b)}")

"""Distances between two sets of feature vectors [N, d], all in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from gansuite import rng


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


def kernel_distance(
    a: Tensor, b: Tensor, *, subset: int = 1000, subsets: int = 100, seed: int = 0
) -> float:
    """Squared MMD with the kernel (x'y / d + 1)^3, unbiased (Binkowski et al. 2018, section 4).

    Mean over ``subsets`` pairs of random subsets of min(subset, N, M) vectors; a set that is used
    whole is not drawn from. May be slightly negative. ValueError for fewer than two vectors.
    """
    _check(a, b)
    a, b = a.double(), b.double()
    n = min(subset, len(a), len(b))
    if n == len(a) == len(b):
        subsets = 1
    pick_a, pick_b = (_picks(len(x), n, subsets, seed, i).to(x) for i, x in enumerate((a, b)))

    within = [_pair_sums(x, x, p, p) - _diagonal(x, p) for x, p in ((a, pick_a), (b, pick_b))]
    between = _pair_sums(a, b, pick_a, pick_b)
    mmd = (within[0] + within[1]) / (n * (n - 1)) - 2 * between / n**2
    return float(mmd.mean())


def _check(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"two sets of vectors [N, d], not {tuple(a.shape)} and {tuple(b.shape)}")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"at least two pictures on each side, not {len(a)} and {len(b)}")


def _picks(n: int, k: int, times: int, seed: int, side: int) -> Tensor:
    """[times, n] with k ones per row: which vectors are in each subset."""
    picks = torch.ones(times, n)
    if k < n:
        picks.zero_()
        for t in range(times):
            draw = rng.numpy_generator(seed, "kernel subsets", side, t)
            picks[t, torch.from_numpy(draw.permutation(n)[:k])] = 1
    return picks


def _pair_sums(a: Tensor, b: Tensor, pick_a: Tensor, pick_b: Tensor) -> Tensor:
    """[times]: the kernel summed over all pairs of each pair of subsets.

    Each kernel value is computed once, a thousand rows at a time, whatever the number of subsets.
    """
    total = pick_a.new_zeros(len(pick_a))
    for rows, chosen in zip(a.split(1000), pick_a.split(1000, 1), strict=True):
        kernel = (rows @ b.T / b.shape[1] + 1) ** 3
        total += ((chosen @ kernel) * pick_b).sum(1)
    return total


def _diagonal(x: Tensor, pick: Tensor) -> Tensor:
    return pick @ (x.square().sum(1) / x.shape[1] + 1) ** 3

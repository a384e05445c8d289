"""Precision, recall, density, coverage and diversity from distances between feature vectors."""

from __future__ import annotations

import torch
from torch import Tensor


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances [N, M] in float64, exactly 0 between equal vectors."""
    return torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")


def radii(within: Tensor, k: int) -> Tensor:
    """[N]: the distance of each vector to its k-th neighbour in its own set, itself not counted."""
    if len(within) <= k:
        raise ValueError(f"{k} neighbours need at least {k + 1} pictures, not {len(within)}")
    return within.kthvalue(k + 1, dim=1).values


def precision_recall(real: Tensor, fake: Tensor, across: Tensor, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 1-2).

    ``real`` [M, M], ``fake`` [N, N] and ``across`` [M, N] are distances. Precision: the share of
    fakes inside the k-neighbour ball of some real picture; recall: the reverse.
    """
    precision = (across <= radii(real, k)[:, None]).any(0)
    recall = (across <= radii(fake, k)[None]).any(1)
    return float(precision.double().mean()), float(recall.double().mean())


def density_coverage(real: Tensor, across: Tensor, k: int = 5) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, eq. 3 and 5); only the real balls matter.

    Density: real balls a fake lies in, over k (may exceed 1). Coverage: the share of real balls
    with a fake in them; 1 - (M-1)...(M-k) / ((2M-1)...(2M-k)) expected of equal distributions.
    """
    inside = across <= radii(real, k)[:, None]
    return float(inside.double().sum(0).mean() / k), float(inside.any(1).double().mean())


def spread(within: Tensor) -> float:
    """Mean distance over all pairs of different vectors."""
    n = len(within)
    if n < 2:
        raise ValueError("at least two pictures for a mean pairwise distance")
    return float(within.sum() / (n * (n - 1)))

"""Squared maximum mean discrepancy with a mixture of Gaussian kernels (Li et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gansuite.losses.precision import full, no_autocast

SIGMAS = (1.0, 2.0, 4.0, 8.0, 16.0)


def _kernel(x: Tensor, y: Tensor, sigmas: Sequence[float]) -> Tensor:
    """[N, M]: sum over sigma of exp(-||x - y||^2 / (2 sigma^2))."""
    with no_autocast(x.device):  # the difference does not survive 16 bits
        products = x @ y.T
    squares = x.square().sum(1)[:, None] + y.square().sum(1)[None, :] - 2 * products
    squares = squares.clamp_min(0)  # rounding
    terms = [(squares / (-2 * s * s)).exp() for s in sigmas]
    return sum(terms[1:], terms[0])


def mmd2(x: Tensor, y: Tensor, sigmas: Sequence[float] = SIGMAS, unbiased: bool = False) -> Tensor:
    """MMD^2 between the samples ``x`` [N, d] and ``y`` [M, d].

    Biased: the V-statistic, never below 0 but for rounding. Unbiased: the U-statistic without the
    diagonals, which may be negative; take no root of it. In full precision, also inside autocast.
    """
    x, y = full(x), full(y)
    total = -2 * _kernel(x, y, sigmas).mean()
    for s in (x, y):
        k, n = _kernel(s, s, sigmas), len(s)
        off_diagonal = k.sum() - k.diagonal().sum()
        if unbiased:
            total = total + off_diagonal / (n * (n - 1))
        else:  # k(a, a) is exactly the number of kernels
            total = total + (off_diagonal + len(sigmas) * n) / (n * n)
    return total

"""Statistics over seeds: means with intervals, paired differences, ranks. Pure functions.

A row of a table is one method; its values are scores by seed. One seed says nothing about chance:
such a row has no interval and is never bold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gansuite.rng import numpy_generator

RESAMPLES = 10_000
SEEDS_TO_RESAMPLE = 5
Scores = Mapping[str, Mapping[int, float]]
"""row -> seed -> score"""


def student_quantile(confidence: float, df: int) -> float:
    """t such that a Student variable with ``df`` degrees of freedom lies in [-t, t] with this
    probability."""
    if df < 1 or not 0 < confidence < 1:
        raise ValueError(f"no Student quantile of {confidence} with {df} degrees of freedom")
    from scipy.stats import t  # here, since it takes a second to import

    return float(t.ppf((1 + confidence) / 2, df))


def mean_interval(
    values: Sequence[float], confidence: float = 0.95, further: bool = False
) -> tuple[float, float | None, float | None]:
    """Mean and the ends of its Student interval; no ends for a single value.

    ``further``: the interval in which one further value lies with this probability instead.
    """
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None, None
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    variance *= 1 / len(values) + further
    half = student_quantile(confidence, len(values) - 1) * math.sqrt(variance)
    return mean, mean - half, mean + half


def _resamples(n: int, resamples: int) -> np.ndarray:
    """[resamples, n] indices into n seeds, always the same ones."""
    return numpy_generator(0, "bootstrap", n).integers(n, size=(resamples, n))


def paired_difference(
    values: Mapping[int, float], leader: Mapping[int, float], confidence: float = 0.95
) -> tuple[float, float | None, float | None] | None:
    """Mean over the common seeds of (score - the leader's), with its Student interval.

    None without a common seed; no interval with a single one. Not a bootstrap of the seeds: of
    three of them a percentile interval can't hold more than 75 %, as all resampled means lie
    between the least and the largest difference.
    """
    seeds = sorted(values.keys() & leader.keys())
    if not seeds:
        return None
    return mean_interval([values[s] - leader[s] for s in seeds], confidence)


def rank_stability(
    scores: Scores, higher_is_better: bool, resamples: int = RESAMPLES
) -> dict[str, float | None]:
    """The share of bootstrap resamples of the seeds in which each row keeps its rank.

    The seeds are drawn for all rows together; a row with a single score keeps it. None for all
    without five seeds that every other row has: fewer say nothing when drawn again.
    """
    several = {name: row for name, row in scores.items() if len(row) > 1}
    seeds = sorted(set.intersection(*(set(row) for row in several.values()))) if several else []
    if len(seeds) < SEEDS_TO_RESAMPLE or len(scores) < 2:
        return dict.fromkeys(scores)
    sign = -1.0 if higher_is_better else 1.0
    table = np.array(
        [
            [sign * (row[s] if name in several else next(iter(row.values()))) for s in seeds]
            for name, row in scores.items()
        ]
    )

    def ranks(means: np.ndarray) -> np.ndarray:
        return np.argsort(np.argsort(means, axis=0, kind="stable"), axis=0)

    drawn = ranks(table[:, _resamples(len(seeds), resamples)].mean(2))
    kept = (drawn == ranks(table.mean(1, keepdims=True))).mean(1)
    return {
        name: float(share) if name in several else None
        for name, share in zip(scores, kept, strict=True)
    }


@dataclass(frozen=True)
class Standing:
    """One row of a ranking.

    ``rank`` orders by the mean; ``best`` to ``worst`` is the span of ranks that rows which it is
    tied with leave open. ``difference`` is (mean, low, high) of the score minus the leader's, None
    for the leader and without common seeds. ``stability``: see `rank_stability`. ``single``: one
    score only; such a row is marked and never ``bold``. ``bold``: the best, or tied with it.
    """

    name: str
    values: Mapping[int, float]
    mean: float
    low: float | None
    high: float | None
    rank: int
    best: int
    worst: int
    tied: tuple[str, ...]
    difference: tuple[float, float | None, float | None] | None
    stability: float | None
    bold: bool

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def single(self) -> bool:
        return self.n < 2

    @property
    def place(self) -> str:
        """ "2", or "1-3" for a row that is tied with others."""
        return f"{self.best}" if self.best == self.worst else f"{self.best}-{self.worst}"


def tied(a: Mapping[int, float], b: Mapping[int, float]) -> bool:
    """Whether the scores of two rows do not tell them apart.

    With two or more shared seeds the paired test decides alone: tied if the Student interval of
    the paired difference holds 0. What a seed does to both rows is taken out of it, so intervals
    that overlap can well belong to rows that differ. Without such seeds the intervals of the means
    decide: tied if they overlap. A single score is tied with a row whose next score could well be
    the same; two single scores are never tied, as nothing is known.
    """
    pair = paired_difference(a, b)
    if pair is not None and pair[1] is not None and pair[2] is not None:
        return pair[1] <= 0 <= pair[2]
    alone = min(len(a), len(b)) < 2
    _, *x = mean_interval(list(a.values()), further=alone)
    _, *y = mean_interval(list(b.values()), further=alone)
    if x[0] is None and y[0] is None:
        return False
    # a single score is a point
    (x0, x1), (y0, y1) = (
        (v[0], v[1]) if v[0] is not None and v[1] is not None else (next(iter(r.values())),) * 2
        for v, r in ((x, a), (y, b))
    )
    return bool(x0 <= y1 and y0 <= x1)


def rank(scores: Scores, higher_is_better: bool) -> list[Standing]:
    """The rows from best to worst. Equal means keep the order in which they were given."""
    means = {name: mean_interval(list(row.values())) for name, row in scores.items()}
    sign = -1.0 if higher_is_better else 1.0
    order = sorted(scores, key=lambda name: sign * means[name][0])
    stability = rank_stability(scores, higher_is_better)
    found = []
    for i, name in enumerate(order):
        ties = [other for other in order if other != name and tied(scores[name], scores[other])]
        above = sum(other not in ties for other in order[:i])
        below = sum(other not in ties for other in order[i + 1 :])
        found.append(
            Standing(
                name=name,
                values=scores[name],
                mean=means[name][0],
                low=means[name][1],
                high=means[name][2],
                rank=i + 1,
                best=above + 1,
                worst=len(order) - below,
                tied=tuple(ties),
                difference=paired_difference(scores[name], scores[order[0]]) if i else None,
                stability=stability[name],
                bold=above == 0 and len(scores[name]) > 1,
            )
        )
    return found

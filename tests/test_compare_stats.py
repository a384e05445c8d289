"""Intervals, paired differences and ranks against scipy, closed forms and enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from gansuite.compare import stats


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 8, 9, 30, 101])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_student_quantile_is_that_of_scipy(df: int, confidence: float) -> None:
    expected = scipy.stats.t.ppf((1 + confidence) / 2, df)
    assert stats.student_quantile(confidence, df) == pytest.approx(expected, rel=1e-9)


def test_student_quantile_refuses_nonsense() -> None:
    for confidence, df in ((0.95, 0), (1.0, 3), (0.0, 3)):
        with pytest.raises(ValueError, match="Student"):
            stats.student_quantile(confidence, df)


def test_mean_interval_is_that_of_scipy() -> None:
    values = [3.1, 2.4, 4.0, 3.3]
    mean, low, high = stats.mean_interval(values)
    expected = scipy.stats.t.interval(0.95, 3, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert (low, high) == pytest.approx(expected)
    assert mean == pytest.approx(np.mean(values))
    assert stats.mean_interval([2.0]) == (2.0, None, None)
    assert stats.mean_interval([2.0, 2.0]) == (2.0, 2.0, 2.0)


def test_the_student_interval_covers_the_mean_of_a_gaussian() -> None:
    draws = np.random.default_rng(0).normal(5, 2, size=(2000, 3))
    ends = [stats.mean_interval(list(row))[1:] for row in draws]
    covered = np.mean([low <= 5 <= high for low, high in ends if low is not None and high])
    assert covered == pytest.approx(0.95, abs=0.015)


def test_the_paired_interval_is_that_of_the_paired_t_test() -> None:
    a, b = {0: 5.0, 1: 7.0, 2: 4.0, 3: 6.5}, {0: 4.0, 1: 5.0, 2: 4.5, 3: 5.0, 9: 100.0}
    found = stats.paired_difference(a, b)
    assert found is not None
    test = scipy.stats.ttest_rel(list(a.values()), [b[s] for s in a])
    assert found[0] == pytest.approx(np.mean([a[s] - b[s] for s in a]))
    assert found[1:] == pytest.approx(tuple(test.confidence_interval(0.95)))


def test_one_score_among_those_of_a_row_is_a_tie() -> None:
    """One seed against ten of the same distribution: told apart in 5 % of the cases, not in 51 %,
    which an interval of the mean would give."""
    draws = np.random.default_rng(0).normal(5, 2, size=(1000, 11))
    apart = [not stats.tied(dict(enumerate(row[:10])), {0: row[10]}) for row in draws]
    assert np.mean(apart) == pytest.approx(0.05, abs=0.02)


def test_paired_difference_needs_common_seeds() -> None:
    assert stats.paired_difference({0: 1.0}, {1: 1.0}) is None
    assert stats.paired_difference({0: 1.0}, {0: 3.0}) == (-2.0, None, None)


def test_pairing_takes_out_what_the_seeds_have_in_common() -> None:
    a = {s: 10.0 * s for s in range(5)}
    b = {s: 10.0 * s + 1 for s in range(5)}
    assert stats.paired_difference(b, a) == (1.0, 1.0, 1.0)


def test_rank_stability_is_the_share_of_all_resamples() -> None:
    rows = {"a": [1.0, 2, 6, 3, 2], "b": [2.0, 4, 5, 2, 3]}
    scores = {name: dict(enumerate(row)) for name, row in rows.items()} | {"c": {0: 9.0}}
    table = np.array(list(rows.values()))
    kept = 0
    for seeds in itertools.product(range(5), repeat=5):
        means = table[:, list(seeds)].mean(1)
        kept += means[0] <= means[1]
    found = stats.rank_stability(scores, higher_is_better=False)
    assert found["a"] == pytest.approx(kept / 5**5, abs=0.02)
    assert found["b"] == found["a"]  # c is last in every resample
    assert found["c"] is None
    few = {name: dict(enumerate(row[:4])) for name, row in rows.items()}
    assert stats.rank_stability(few, False) == {"a": None, "b": None}


def test_a_clear_order() -> None:
    scores = {
        "bad": {0: 9.0, 1: 9.2, 2: 9.1},
        "good": {0: 1.0, 1: 1.1, 2: 1.2},
        "middle": {0: 5.0, 1: 5.2, 2: 4.9},
    }
    found = stats.rank(scores, higher_is_better=False)
    assert [s.name for s in found] == ["good", "middle", "bad"]
    assert [s.place for s in found] == ["1", "2", "3"]
    assert [s.bold for s in found] == [True, False, False]
    assert [s.stability for s in found] == [None] * 3  # three seeds say too little
    assert found[0].difference is None
    assert found[1].difference is not None
    assert found[1].difference[0] == pytest.approx(5.1 / 1 - 1.1 - 0.0666, abs=0.01)
    assert [s.name for s in stats.rank(scores, higher_is_better=True)] == ["bad", "middle", "good"]


def test_overlapping_intervals_are_a_tie_without_shared_seeds() -> None:
    scores = {"a": {0: 1.0, 1: 3.0}, "b": {2: 1.5, 3: 3.5}, "c": {0: 90.0, 1: 90.1}}
    a, b, c = stats.rank(scores, higher_is_better=False)
    assert (a.place, b.place, c.place) == ("1-2", "1-2", "3")
    assert a.tied == ("b",)
    assert b.tied == ("a",)
    assert (a.bold, b.bold, c.bold) == (True, True, False)
    # one shared seed has no interval, so it decides nothing
    assert stats.tied(scores["a"], {1: 1.5, 3: 3.5})
    assert not stats.tied(scores["a"], {1: 90.0, 3: 90.1})


def test_with_shared_seeds_the_paired_test_decides_alone() -> None:
    a = {s: 10.0 * s for s in range(4)}
    b = {s: value + 1 + s / 100 for s, value in a.items()}
    lows, highs = zip(*(stats.mean_interval(list(r.values()))[1:] for r in (a, b)), strict=True)
    assert max(lows) < min(highs)  # the intervals overlap
    assert scipy.stats.ttest_rel(list(a.values()), list(b.values())).pvalue < 1e-4
    assert not stats.tied(a, b)
    assert not stats.tied(b, a)
    first, second = stats.rank({"b": b, "a": a}, higher_is_better=False)
    assert (first.name, first.place, second.place, second.bold) == ("a", "1", "2", False)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 2.0])
def test_ties_of_shared_seeds_are_those_of_the_paired_t_test(shift: float) -> None:
    draws = np.random.default_rng(1).normal(size=(300, 2, 5))
    for x, y in draws:
        p = scipy.stats.ttest_rel(x, y + shift).pvalue
        assert stats.tied(dict(enumerate(x)), dict(enumerate(y + shift))) == (p >= 0.05)


def test_a_single_seed_is_marked_and_never_bold() -> None:
    one = stats.rank({"a": {0: 1.0}, "b": {0: 2.0}}, higher_is_better=False)
    assert [(s.single, s.bold, s.low, s.place) for s in one] == [
        (True, False, None, "1"),
        (True, False, None, "2"),
    ]
    # a single score that leads does not hide whom it is tied with
    mixed = stats.rank({"a": {0: 2.0, 1: 2.2, 2: 2.1}, "b": {0: 2.05}}, higher_is_better=False)
    assert {s.name: (s.bold, s.place) for s in mixed} == {"b": (False, "1-2"), "a": (True, "1-2")}

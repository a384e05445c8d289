"""One plain sentence about how a run ended, from fixed rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Scores = Mapping[str, Mapping[str, Any]]

COLLAPSED = 0.3
"""Diversity, as a share of that of real pictures, below which a generator has collapsed."""
WORSE = 1.5
"""A final distance this many times the best one means that the run was better before."""


def gap_closed(final: float, do_nothing: float, real_vs_real: float) -> float:
    """The share of the distance between *do nothing* and *real vs real* that was covered.

    1 = as close to the real pictures as other real ones are; below 0 = worse than doing nothing.
    """
    return (do_nothing - final) / max(do_nothing - real_vs_real, 1e-12)


def verdict(final: Scores, best: Scores, references: Mapping[str, Scores]) -> str:
    """The worst thing that holds for any comparison, else how much of the gap was closed."""
    metric = "fd_random"
    sentences: list[tuple[int, str]] = []
    for name, scores in final.items():
        nothing, floor = (
            references[k].get(name, {}).get(metric) for k in ("do_nothing", "real_vs_real")
        )
        distance, diversity = scores.get(metric), scores.get("diversity")
        if diversity is not None and diversity < COLLAPSED:
            sentences.append((0, f"collapsed: {name} has {diversity:.0%} of the real variety"))
        if distance is None or nothing is None or floor is None:
            continue
        share = gap_closed(distance, nothing, floor)
        lowest = best.get(name, {}).get(metric)
        if share <= 0:
            sentences.append((1, f"not learned: {name} is no closer to real than doing nothing"))
        elif lowest is not None and distance > WORSE * lowest:
            kimg = best[name]["images_seen"] / 1000
            sentences.append((2, f"fell back: {name} was better at {kimg:g} kimg"))
        else:
            sentences.append((3, f"{name} closed {share:.0%} of the gap"))
    if not sentences:
        return "not scored"
    worst = min(rank for rank, _ in sentences)
    chosen = "; ".join(text for rank, text in sentences if rank == worst)
    return f"learned: {chosen}" if worst == 3 else chosen

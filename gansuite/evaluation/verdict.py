"""One plain sentence about how a run ended, from fixed rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gansuite.evaluation.health import COLLAPSED, INVERTED, WORSE, Scores
from gansuite.evaluation.table import DISTANCES, METRICS, distance

__all__ = ["COLLAPSED", "WORSE", "gap_closed", "nothing_done", "verdict"]


def gap_closed(
    final: float | None,
    do_nothing: float | None,
    real_vs_real: float | None,
    squared: bool = True,
) -> float | None:
    """The share of the distance between *do nothing* and *real vs real* that was covered.

    *Do nothing* of a generator: pictures drawn from a Gaussian fitted to the training pictures.
    1 = as close to the real pictures as other real ones are; below 0 = worse than doing nothing.
    None where one of the three is missing, or where these pictures cannot tell *do nothing* from
    real ones, so that there is no gap.

    ``squared``: the numbers are squares of distances (`table.Info.squared`), and the share is one
    of their roots: half-way between the two is half of the gap, not three quarters of it.
    """
    if final is None or do_nothing is None or real_vs_real is None:
        return None
    reached, start, end = (
        math.sqrt(max(0.0, x)) if squared else x for x in (final, do_nothing, real_vs_real)
    )
    return (start - reached) / (start - end) if start > end else None


def nothing_done(name: str) -> str:
    """What *do nothing* is of comparison ``name``."""
    return "a Gaussian of the training pictures" if name == "gen" else "doing nothing"


def verdict(
    final: Scores,
    best: Scores,
    references: Mapping[str, Scores],
    events: Sequence[Mapping[str, Any]] = (),
    better: Mapping[str, bool] | None = None,
) -> str:
    """The worst thing that holds for any comparison, else how much of the gap was closed; then
    what else a reader must know.

    ``events``: those of the run (`results.json`, ``health``). ``better``: comparison -> whether it
    still improved in the last third of the run (`health.trend`). As near as other real pictures
    is near enough: of that nothing falls back.
    """
    better = better or {}
    idle = {e["name"] for e in events if e["event"] == "identity" and e["action"] == "end"}
    sentences: list[tuple[int, str]] = []
    for name, scores in final.items():
        metric = distance(scores)
        reached, diversity = scores.get(metric), scores.get("diversity")
        if diversity is not None and diversity < COLLAPSED:
            sentences.append((0, f"collapsed: {name} has {diversity:.0%} of the real variety"))
        if scores.get("correlation", 0.0) < INVERTED:
            said = f"correlation {scores['correlation']:.2f}"
            sentences.append((1, f"inverted: {name} turns its input into the negative ({said})"))
        if name in idle:
            sentences.append((2, f"unchanged: {name} hands back its input"))
        shares = {m: _share(m, name, scores, references) for m in DISTANCES}
        share = shares[metric]
        if share is None or reached is None:
            continue
        second = min((s for s in shares.values() if s is not None), default=share)
        lowest = best.get(name, {}).get(metric)
        if share <= 0:
            than = nothing_done(name)
            sentences.append((3, f"not learned: {name} is no closer to real than {than}"))
        elif second <= 0:
            text = f"doubtful: {name} closed {share:.0%} of the gap, but to a random network it is"
            sentences.append((4, f"{text} no closer to real than {nothing_done(name)}"))
        elif lowest is not None and reached > WORSE * lowest and share < 1:
            kimg = best[name]["images_seen"] / 1000
            sentences.append((5, f"fell back: {name} was better at {kimg:g} kimg"))
        else:
            trend = {True: ", still improving", False: ", flat at the end", None: ""}
            text = f"{name} closed {share:.0%} of the gap{trend[better.get(name)]}"
            sentences.append((6, text))
    if not sentences:
        return "not scored"
    worst = min(rank for rank, _ in sentences)
    chosen = "; ".join(text for rank, text in sentences if rank == worst)
    return (f"learned: {chosen}" if worst == 6 else chosen) + _aside(events)


def _share(
    metric: str, name: str, scores: Mapping[str, Any], references: Mapping[str, Scores]
) -> float | None:
    nothing, floor = (
        references[k].get(name, {}).get(metric) for k in ("do_nothing", "real_vs_real")
    )
    return gap_closed(scores.get(metric), nothing, floor, METRICS[metric].squared)


def _aside(events: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    again = sum(e["action"] == "rollback" for e in events)
    if again:
        parts.append(f"after {again} rollback{'s' * (again > 1)}")
    if any(e["event"] == "saturated" and e["action"] == "end" for e in events):
        parts.append("with a saturated discriminator")
    return f" ({' and '.join(parts)})" if parts else ""

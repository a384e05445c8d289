"""The charts on the page of a comparison: scores on the way, and quality against cost."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from gansuite.compare.charts import Dot, Line, figure, scatter
from gansuite.compare.collect import ComparedRuns
from gansuite.compare.format import human, metric, ordered
from gansuite.compare.tables import reference_label
from gansuite.evaluation.table import HEADLINE

_SHOWN = (*HEADLINE, "correlation")
Group = dict[str, Any]
"""What the template takes: ``title``, ``name``, ``figures`` and perhaps ``more`` of them."""


def curves(c: ComparedRuns, name: str) -> Group | None:
    """The scores of comparison ``name`` over images seen, the ranking one also over time."""

    def drawn(score: str, clock: tuple[float, str] | None = None) -> dict[str, Any] | None:
        lines = _lines(c, name, score, clock and clock[0])
        x_label = "images seen" if clock is None else f"{clock[1]} of training"
        known = metric(score)
        about = f", {c.heading(name).lower()},"
        levels = _levels(c, name, score)
        if not lines:
            return None
        return figure(known.label, lines, x_label, known, about, levels=levels, direct=True)

    seconds = [row.cost("seconds") or 0 for row in c.table_rows.values()]
    figures = [drawn(c.rank_by), drawn(c.rank_by, _unit(max(seconds, default=0)))]
    more = [drawn(m) for m in ordered(c.metrics(name)) if m in _SHOWN and m != c.rank_by]
    shown, rest = ([f for f in part if f is not None] for part in (figures, more))
    if not shown:
        return None
    return {"title": c.heading(name), "name": name, "figures": shown, "more": rest}


def _levels(c: ComparedRuns, name: str, score: str) -> list[tuple[str, float]]:
    return [
        (reference_label(name, key), values[score])
        for key, values in c.references(name).items()
        if score in values
    ]


def _lines(c: ComparedRuns, name: str, score: str, clock: float | None = None) -> list[Line]:
    """One line per method: the mean over its seeds, the band from the lowest to the highest.

    Over images seen, or over training time in units of ``clock`` seconds (the mean of the seeds').
    """
    found = []
    for row in c.table_rows.values():
        series = [e.curve(name, score) for e in row.done or row.entries]
        points = [{x: (seconds, y) for x, seconds, y in one} for one in series if one]
        common = sorted(set.intersection(*map(set, points))) if points else []
        if clock is not None:
            common = [x for x in common if all(p[x][0] is not None for p in points)]
        if not common:
            continue
        heights = [[p[x][1] for p in points] for x in common]
        at = [float(x) for x in common]
        if clock is not None:
            at = [fmean(p[x][0] or 0.0 for p in points) / clock for x in common]
        low, high = ([f(y) for y in heights] if len(points) > 1 else None for f in (min, max))
        found.append(Line(row.label, at, [fmean(y) for y in heights], low, high, style=row.style))
    return found


def _unit(seconds: float) -> tuple[float, str]:
    """(seconds in it, its name) of the unit that suits a duration."""
    if seconds < 600:
        return 1, "seconds"
    return (60, "minutes") if seconds < 4 * 3600 else (3600, "hours")


def device_kind(c: ComparedRuns) -> str:
    """What the runs were on: CPU, GPU, or "device" where both."""
    kinds = {str(e.environment.get("device", "")) for e in c.done if not e.outside}
    if all("cpu" in kind for kind in kinds):
        return "CPU"
    return "GPU" if all("cpu" not in kind for kind in kinds) else "device"


def scatters(c: ComparedRuns, name: str) -> Group | None:
    """The ranking score of comparison ``name`` against each price."""
    hours = max((row.cost("device_hours") or 0 for row in c.table_rows.values()), default=0)
    size, unit = _unit(3600 * hours)
    prices = (  # label of the axis, key of `Row.cost`, how many of its units one of the axis is
        ("images per second", "images_per_second", 1),
        (f"{device_kind(c)} {unit} of training", "device_hours", size / 3600),
        ("peak memory, MB", "peak_memory_mb", 1),
        ("parameters", "parameters", 1),
        ("GFLOP per image", "flops_per_image", 1e9),
    )
    scores, known = c.scores(name, c.rank_by), metric(c.rank_by)
    figures: list[dict[str, Any]] = []
    for label, key, scale in prices:
        dots = []
        for row_key, values in scores.items():
            row, ys = c.table_rows[row_key], [*values.values()]
            if (x := row.cost(key)) is not None:
                dots.append(Dot(row.label, x / scale, fmean(ys), min(ys), max(ys), row.style))
        if len(dots) > 1:
            words = "; ".join(f"{d.name} at {human(d.x)} with {human(d.y)}" for d in dots)
            title = f"{known.label} against {label}"
            levels = _levels(c, name, c.rank_by)
            figures.append(
                {
                    "title": f"Against {label}",
                    "score": None,
                    "legend": [],
                    "label": f"{title}, {c.heading(name)}: {words}",
                    "svg": scatter(dots, label, known.label, f"{title}/{name}", levels),
                }
            )
    return {"title": c.heading(name), "name": name, "figures": figures} if figures else None

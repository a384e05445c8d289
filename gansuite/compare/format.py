"""What a score means and how a number is shown to people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gansuite.evaluation.health import MEANING
from gansuite.evaluation.table import METRICS
from gansuite.evaluation.table import Info as Metric


def metric(name: str) -> Metric:
    """The entry of `METRICS`, or a bare one for a score it does not know."""
    return METRICS.get(name) or Metric(name, "", "", (), METRICS["fd_random"].make)


def ordered(names: Iterable[str]) -> list[str]:
    """Scores in the order of :data:`METRICS`, unknown ones behind."""
    order = list(METRICS)
    return sorted(set(names), key=lambda n: (order.index(n) if n in order else len(order), n))


def human(value: float | int | None, missing: str = "–") -> str:
    """Three significant digits, whole numbers in full; ``missing`` for None and for NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return missing
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}" if math.isfinite(value) else f"{value}"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}"


def happened(event: Mapping[str, Any]) -> tuple[str, str]:
    """(when and what was done, what was seen) of a health event."""
    seen = int(event.get("images_seen", 0))
    what = MEANING.get(str(event.get("event")), str(event.get("event")))
    action = str(event.get("action", ""))
    done = {"warn": "", "stop": ": stopped", "rollback": ": rolled back"}.get(action, "")
    if action == "rollback" and "back_to" in event:
        done += f" to {int(event['back_to']):,} images"
    return f"{what} at {seen:,} images{done}", str(event.get("message", ""))


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def percent(share: float | None, missing: str = "–") -> str:
    """``94 %``; ``missing`` for None."""
    return missing if share is None else f"{100 * share:.0f} %".replace("-", "−")


def interval(mean: float, low: float | None, high: float | None) -> str:
    """``12.31 ± 0.42``, or the mean alone without an interval.

    The half width has two significant digits, unless the mean would then have more than four.
    """
    if low is None or high is None:
        return human(mean)
    half = (high - low) / 2
    if half <= 1e-12 * abs(mean) or not math.isfinite(half):
        return f"{human(mean)} ± {human(half) if half > 1 else 0}"
    size = math.floor(math.log10(max(abs(mean), half)))
    digits = max(0, min(1 - math.floor(math.log10(half)), 3 - size))
    shown = f"{half:,.{digits}f}"
    return f"{mean:,.{digits}f} ± {shown if float(shown.replace(',', '')) else f'{half:.1g}'}"


def duration(seconds: float) -> str:
    """``7.5 s``, ``5 min 32 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def large(value: float, unit: str = "") -> str:
    """``1.43 GB``, ``700 k``."""
    for power, prefix in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {prefix}{unit}"
    return f"{value:,.0f} {unit}".rstrip()


def tick(value: float) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            rows.append((f"{prefix}{key}", " ".join(str(v) for v in value)))
        else:
            rows.append((f"{prefix}{key}", "–" if value is None else str(value)))
    return rows


def comparison_title(name: str, data: Mapping[str, Any]) -> str:
    """What comparison ``name`` does, in words, with the domains that results tell of the data."""
    domains = data.get("domains")
    a, b = domains if isinstance(domains, list) and len(domains) == 2 else ("A", "B")
    titles = {"a2b": f"From {a} to {b}", "b2a": f"From {b} to {a}", "gen": "Pictures from noise"}
    return titles.get(name, f"To {name.removeprefix('to_')}")

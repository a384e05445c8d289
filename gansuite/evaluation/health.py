"""Rules that say from numbers alone that training goes wrong. No picture is looked at here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gansuite.evaluation.table import distance

Scores = Mapping[str, Mapping[str, Any]]
Record = Mapping[str, Any]
Event = Literal["non_finite", "collapse", "saturated", "inversion", "identity", "flat", "fell_back"]

COLLAPSED = 0.3
"""Diversity, as a share of that of real pictures, below which a generator has collapsed. Real
pictures against other real ones are at 1, the translators that learn above 0.6."""
INVERTED = -0.5
"""Correlation of output with input below which a translator inverts its input. Untrained networks
lie within 0.1 of 0, inversion learned from photographs at -0.6 to -1."""
SAME = 0.98
"""Correlation above which a translator hands back its input ..."""
UNCHANGED = 0.02
"""... if it moves the pixels by less than this share of their range (5 of 255 levels) ..."""
NO_BETTER = 0.95
"""... and its distance to real is no less than this share of that of doing nothing."""
WORSE = 1.5
"""A final distance this many times the best one means that the run was better before."""
PROGRESS = 0.02
"""A distance has improved when it fell by more than this share; two scorings of one network on
other pictures differ by about as much."""
SATURATED = 0.02
"""A discriminator's loss, as a share of that of an undecided one, at which it is always right. A
vanilla GAN that still learned was seen at 0.04."""
EARLY = 0.25
"""Share of the budget in which a generator that never had variety, or a translator that begins as
the identity, is given time."""
EVALUATIONS = 2
"""So many evaluations in a row must show a symptom, since a GAN may recover from one bad one; at
the end of the budget the last one decides."""
INTERVALS = 5
"""So many log intervals in a row must show a saturated discriminator."""
THIRDS = 6
"""Below so many evaluations the last third of them is no trend."""


@dataclass(frozen=True)
class Symptom:
    """``event`` in comparison ``name``, shown by the last ``streak`` evaluations or intervals in a
    row; ``text``: what was seen and what it means."""

    event: Event
    name: str
    streak: int
    text: str

    @property
    def due(self) -> bool:
        """Whether it has lasted long enough to act, before the end of the budget."""
        return self.streak >= (INTERVALS if self.event == "saturated" else EVALUATIONS)


def streak(values: Sequence[float], holds: Callable[[float], bool]) -> int:
    """How many of the last values in a row have a property."""
    for count, value in enumerate(reversed(values)):
        if not holds(value):
            return count
    return len(values)


def series(records: Sequence[Record], name: str, metric: str) -> list[float]:
    """The values of ``<name>/<metric>`` in evaluation records, in order, where they are known."""
    key = f"{name}/{metric}"
    return [float(r[key]) for r in records if key in r]


def names(records: Sequence[Record]) -> list[str]:
    """The comparisons in evaluation records."""
    found = (key.rpartition("/")[0] for r in records[-1:] for key in r if "/" in key)
    return list(dict.fromkeys(found))


def measured(records: Sequence[Record], name: str) -> list[str]:
    """The metrics of comparison ``name`` in evaluation records."""
    return [key.rpartition("/")[2] for r in records[-1:] for key in r if key.startswith(f"{name}/")]


def symptoms(
    records: Sequence[Record],
    references: Mapping[str, Scores],
    change: Mapping[str, float],
    progress: float,
) -> list[Symptom]:
    """What the evaluations so far show: collapse, inversion and identity map.

    ``records``: ``<comparison>/<metric>`` -> value of every evaluation, in order. ``references``:
    row -> comparison -> metric -> value. ``change``: comparison -> mean distance of output and
    input now, as a share of the range. ``progress``: share of the budget used.
    """
    found: list[Symptom] = []
    early = progress < EARLY

    def add(event: Event, name: str, count: int, text: str) -> None:
        if count:
            lasting = f" in {count} evaluations in a row" if count > 1 else ""
            found.append(Symptom(event, name, count, text + lasting))

    for name in names(records):
        diversity = series(records, name, "diversity")
        if diversity and not (early and max(diversity) < COLLAPSED):
            count = streak(diversity, lambda v: v < COLLAPSED)
            add("collapse", name, count, f"{name} has {diversity[-1]:.0%} of the real variety")
        correlation = series(records, name, "correlation")
        if not correlation:
            continue
        said = f"(correlation {correlation[-1]:.2f})"
        count = streak(correlation, lambda v: v < INVERTED)
        add("inversion", name, count, f"{name} inverts its input {said}")
        metric = distance(measured(records, name))
        values = series(records, name, metric)
        nothing = references.get("do_nothing", {}).get(name, {}).get(metric)
        idle = bool(values) and nothing is not None and values[-1] >= NO_BETTER * nothing
        if idle and not early and change.get(name, 1.0) < UNCHANGED:
            count = streak(correlation, lambda v: v > SAME)
            text = f"{name} hands back its input {said}, no closer to real than doing nothing"
            add("identity", name, count, text)
    return found


def saturation(losses: Sequence[float], undecided: float | None) -> Symptom | None:
    """Whether a discriminator is always right: its adversarial loss, a mean per log interval,
    stays near 0. ``undecided``: that loss when it can't tell; None where there is no floor, as
    with a Wasserstein critic, which this rule says nothing about."""
    if undecided is None:
        return None
    level = SATURATED * undecided
    count = streak(losses, lambda v: v < level)
    if not count:
        return None
    text = (
        f"the discriminator's loss is below {level:.2g} for {count} log intervals in a row: it is "
        f"always right, and the generator learns little"
    )
    return Symptom("saturated", "", count, text)


def trend(records: Sequence[Record]) -> dict[str, bool]:
    """Comparison -> whether the last third of the evaluations came closer to real pictures
    (`table.distance`) than any before it; {} below `THIRDS` evaluations."""
    found = {}
    for name in names(records):
        values = series(records, name, distance(measured(records, name)))
        if len(values) >= THIRDS:
            cut = len(values) - len(values) // 3
            found[name] = min(values[cut:]) < (1 - PROGRESS) * min(values[:cut])
    return found


def ending(records: Sequence[Record]) -> list[Symptom]:
    """What only the whole curve shows: flat, or worse at the end than before. Neither is an alarm
    on the way, since every GAN has such stretches."""
    found = [
        Symptom("flat", name, 1, f"{name} did not improve in the last third of the evaluations")
        for name, better in trend(records).items()
        if not better
    ]
    for name in names(records):
        values = series(records, name, distance(measured(records, name)))
        if values and values[-1] > WORSE * min(values):
            times = values[-1] / min(values)
            text = f"{name} ended {times:.1f} times as far from real as it had been"
            found.append(Symptom("fell_back", name, 1, text))
    return found


MEANING: dict[str, str] = {
    "non_finite": "not finite",
    "collapse": "collapsed",
    "saturated": "discriminator saturated",
    "inversion": "colours inverted",
    "identity": "input unchanged",
    "flat": "flat",
    "fell_back": "fell back",
}
"""What an event is called."""

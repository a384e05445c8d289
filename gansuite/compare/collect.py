"""Run directories in, one `ComparedRuns` out: everything that tables and the page need.

Rows are methods (or outside entrants), each with one `Entry` per seed. Nothing is computed from
pictures here, and nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gansuite.catalogue import check_ranking
from gansuite.compare.entry import Axis, Entry
from gansuite.compare.format import comparison_title
from gansuite.compare.stats import Standing, rank
from gansuite.compare.terms import axis_of, differences, notes
from gansuite.errors import UserError
from gansuite.evaluation.protocol import HIGHER_IS_BETTER
from gansuite.evaluation.table import METRICS, ROWS
from gansuite.evaluation.verdict import gap_closed


@dataclass(frozen=True)
class Row:
    """A method or outside entrant: what it is called, its number on the page (which decides its
    colour and marker), its finished runs and all of its runs, by seed."""

    key: str
    label: str
    style: int
    done: tuple[Entry, ...]
    entries: tuple[Entry, ...]

    @property
    def outside(self) -> bool:
        return any(e.outside for e in self.entries)

    @property
    def origin(self) -> str:
        """`Entry.origin`."""
        return next((e.origin for e in self.entries if e.origin), "")

    def cost(self, key: str) -> float | None:
        """The mean of `Entry.price` over its finished runs; None where one does not know."""
        values = [e.price(key) for e in self.done]
        known = [float(v) for v in values if v is not None]
        return math.fsum(known) / len(known) if known and len(known) == len(values) else None


@dataclass(frozen=True)
class ComparedRuns:
    """Rows on equal terms.

    ``entries``: row by row, in each row by seed. ``names``: the comparisons that are scored
    ("a2b", "b2a", "gen", "to_x"), in order. ``rank_by``: the metric that ranks. ``notes``: what a
    reader must know, one sentence each (unequal budgets, failed runs, outside entrants, single
    seeds). ``unequal``: the notes that were let pass with ``--allow-unequal``. ``command``: repeats
    it all.
    """

    name: str
    title: str
    folder: Path
    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    entries: tuple[Entry, ...]
    axis: Axis | None
    rank_by: str = "fd_random"
    notes: tuple[str, ...] = ()
    unequal: tuple[str, ...] = ()
    command: str = ""

    @property
    def done(self) -> tuple[Entry, ...]:
        return tuple(e for e in self.entries if e.status == "done")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(n for e in self.done for n in e.final))

    @property
    def protocol(self) -> Mapping[str, Any]:
        """The protocol of the first done entry, ``id`` and all fields; {} before there is one."""
        return next((e.results["protocol"] for e in self.done), {})

    @property
    def data(self) -> Mapping[str, Any]:
        """``name``, ``digest`` and ``domains`` of the data."""
        return next((e.results["data"] for e in self.done), {})

    def heading(self, name: str) -> str:
        """What comparison ``name`` does, in words."""
        data: Mapping[str, Any] = next(
            (e.results["data"] for e in self.done if name in e.final), {}
        )
        return comparison_title(name, data)

    def of(self, row: str) -> tuple[Entry, ...]:
        """The entries of a row, by seed."""
        return tuple(e for e in self.entries if e.row == row)

    @cached_property
    def table_rows(self) -> dict[str, Row]:
        """All rows by key; a row is called as its method is, unless another one is of that too:
        then by its key, without the ending that all of them share (``_coats``)."""
        methods = {
            row: next((e.method for e in self.of(row) if e.method), row) for row in self.rows
        }
        ending = "_" + self.rows[0].rpartition("_")[2] if self.rows else ""
        shared = len(self.rows) > 1 and all(row.endswith(ending) for row in self.rows)
        short = {row: row.removesuffix(ending) if shared else row for row in self.rows}
        for row in self.rows:  # nor as another method is
            if short[row] in set(methods.values()) - {methods[row]}:
                short[row] = row
        found = {}
        for style, row in enumerate(self.rows):
            unique = list(methods.values()).count(methods[row]) == 1
            entries = self.of(row)
            done = tuple(e for e in entries if e.status == "done")
            found[row] = Row(row, methods[row] if unique else short[row], style, done, entries)
        return found

    def metrics(self, name: str) -> tuple[str, ...]:
        """The metrics that any row has for comparison ``name``, in the protocol's order."""
        found = {m for e in self.done for m in e.final.get(name, {})}
        return tuple(m for m in HIGHER_IS_BETTER if m in found)

    def scores(self, name: str, metric: str) -> dict[str, dict[int, float]]:
        """row -> seed -> final score, for the rows that have it."""
        found: dict[str, dict[int, float]] = {}
        for e in self.done:
            value = e.final.get(name, {}).get(metric)
            if value is not None:
                found.setdefault(e.row, {})[e.seed] = float(value)
        return found

    def best_scores(self, name: str, metric: str) -> dict[str, dict[int, float]]:
        """row -> seed -> score at the best evaluation of the run: to be shown, never ranked."""
        found: dict[str, dict[int, float]] = {}
        for e in self.done:
            value = e.best.get(name, {}).get(metric)
            if value is not None:
                found.setdefault(e.row, {})[e.seed] = float(value)
        return found

    def ranking(self, name: str, metric: str | None = None) -> list[Standing]:
        """The rows of comparison ``name`` from best to worst by ``metric`` (``rank_by``).

        Raises:
            UserError: the metric has no better and worse, or is unknown.
        """
        metric = metric or self.rank_by
        check_ranking("rank_by", metric)
        return rank(self.scores(name, metric), bool(HIGHER_IS_BETTER[metric]))

    def references(self, name: str) -> dict[str, dict[str, float]]:
        """The reference rows (`evaluation.table.ROWS`) -> metric -> score."""
        rows: dict[str, dict[str, float]] = {}
        for row in ROWS:
            found: dict[str, list[float]] = {}
            for e in self.done:
                for metric, value in e.references.get(row, {}).get(name, {}).items():
                    found.setdefault(metric, []).append(value)
            if found:
                rows[row] = {m: math.fsum(v) / len(v) for m, v in found.items()}
        return rows

    def gap(self, name: str, row: str, metric: str = "fd_random") -> float | None:
        """The share of the way from *do nothing* to *real vs real* that ``row`` covered, as the
        mean over its seeds; None where one of the three is missing, or where there is hardly a
        distance between the references."""
        squared = METRICS[metric].squared
        shares = []
        for e in self.of(row):
            final = e.final.get(name, {}).get(metric)
            nothing, floor = (
                e.references.get(k, {}).get(name, {}).get(metric)
                for k in ("do_nothing", "real_vs_real")
            )
            share = gap_closed(final, nothing, floor, squared)
            if share is None or abs(share) >= _NO_GAP:
                return None
            shares.append(share)
        return math.fsum(shares) / len(shares) if shares else None


_NO_GAP = 100  # shares beyond it say that the references are as good as equal


def gather(
    name: str,
    folder: Path,
    entries: Sequence[Entry],
    *,
    title: str = "",
    axis: Axis | None = None,
    rank_by: str = "fd_random",
    command: str = "",
    allow_unequal: bool = False,
) -> ComparedRuns:
    """Check that entries stand on equal terms and put them together.

    ``axis``: the budget that was asked for; without it that of the first done run. A row of which
    every seed failed or is missing is left out of the tables and named in ``notes``.

    Raises:
        UserError: nothing is done, two entries are the same, or (without ``allow_unequal``) they
            differ in protocol, budget, data or seeds.
    """
    rows = tuple(dict.fromkeys(e.row for e in entries))
    seen: dict[tuple[str, int], Path] = {}
    for e in entries:
        if (e.row, e.seed) in seen:
            raise UserError(
                f"{seen[e.row, e.seed]} and {e.path} are both {e.row}, seed {e.seed}; leave "
                f"one out."
            )
        seen[e.row, e.seed] = e.path
    done = [e for e in entries if e.status == "done"]
    if not done:
        reasons = [e.error for e in entries if e.error]
        why = f": {reasons[0].rstrip('.')}" if reasons else ""
        raise UserError(f"{name}: none of {len(entries)} run(s) has results{why}.")
    runs = [e for e in done if not e.outside]
    axis = axis or (axis_of(runs[0]) if runs else None)
    found = differences(entries, axis)
    if found and not allow_unequal:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UserError(
            f"{name} is not fair: {found[0]}{more}; make them equal, or give --allow-unequal to "
            f"have it noted in the table."
        )
    return ComparedRuns(
        name=name,
        title=title or name,
        folder=folder,
        rows=rows,
        seeds=tuple(sorted({e.seed for e in entries if not e.outside})),
        entries=tuple(sorted(entries, key=lambda e: (rows.index(e.row), e.seed))),
        axis=axis,
        rank_by=rank_by,
        notes=tuple(notes(entries)),
        unequal=tuple(f"Unequal: {text}." for text in found),
        command=command,
    )

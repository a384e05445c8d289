"""The page of a comparison: one self-contained ``index.html`` that says which method is best, how
good it is and at what price.

It opens from disk with no network. Its only script makes table headers sort; without it the tables
stand as they are. What stands on it is gathered here, in `boards` (tables) and in `curves`
(charts); how, is in ``page.html``.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from gansuite.compare import boards
from gansuite.compare.charts import mark
from gansuite.compare.collect import ComparedRuns
from gansuite.compare.curves import curves, scatters
from gansuite.compare.document import embed, render
from gansuite.compare.entry import Entry
from gansuite.compare.format import duration, flat, human, listed, metric, percent
from gansuite.evaluation.table import DISTANCES
from gansuite.evaluation.verdict import nothing_done
from gansuite.runs import write_text

MAX_PICTURE_BYTES = 6_000_000  # of all pictures together; base64 makes 8 MB of it


def _answers(c: ComparedRuns) -> list[dict[str, str]]:
    """What stands on top: per direction the leader, then the cheapest."""
    found = []
    for name in c.names:
        ranking = c.ranking(name)
        if not ranking:
            continue
        first = ranking[0]
        gap = c.gap(name, first.name, c.rank_by)
        said = "comes closest to real" if len(ranking) > 1 else "is the only one scored"
        if gap is not None and gap <= 0:
            said += f", but is no closer than {nothing_done(name)}"
        elif gap is not None:
            said += f" and closed {percent(gap)} of the gap"
            second = c.gap(name, first.name, "fd_random")
            if second is not None and second <= 0:
                said += f", but to a random network it is no closer than {nothing_done(name)}"
        if first.tied:
            equals = listed([c.table_rows[r].label for r in first.tied])
            said += f"; {equals} can't be told apart from it"
        elif first.single and len(ranking) > 1:
            said += "; with one seed this may be chance"
        found.append(
            {"lead": c.heading(name), "strong": c.table_rows[first.name].label, "rest": said}
        )
    seconds = {key: row.cost("seconds") for key, row in c.table_rows.items()}
    known = {key: value for key, value in seconds.items() if value is not None}
    if len(known) > 1:
        found.append(_cheapest(c, known))
    return found


def _cheapest(c: ComparedRuns, seconds: dict[str, float]) -> dict[str, str]:
    """The row that takes the fewest of ``seconds``, of those that did more than nothing."""

    def gaps(key: str, by: str = c.rank_by) -> list[float]:
        return [g for g in (c.gap(name, key, by) for name in c.names) if g is not None]

    judges = {c.rank_by, *DISTANCES}
    failed = {k for k in seconds if min((g for m in judges for g in gaps(k, m)), default=1) <= 0}
    kept = seconds.keys() - failed or seconds.keys()
    key = min(kept, key=lambda k: seconds[k])
    rest = f"with {duration(seconds[key])} of training a run"
    rest += f", {percent(fmean(gaps(key)))} of the gap closed" if gaps(key) else ""
    lead = "Cheapest to train"
    if seconds[key] > min(seconds.values()):
        lead += " of those that are closer to real than doing nothing"
    return {"lead": lead, "strong": c.table_rows[key].label, "rest": rest}


def _strips(c: ComparedRuns, name: str) -> list[dict[str, Any]]:
    """The same test pictures through all methods, by rank; one group per set of inputs.

    Runs under one protocol have the same inputs, so that there are several groups only in a
    comparison that was let pass as unequal.
    """
    order = [s.name for s in c.ranking(name)]
    groups: dict[bytes, list[dict[str, Any]]] = {}
    limit = MAX_PICTURE_BYTES // max(1, len(c.names) * (len(order) + 2))

    def add(group: list[dict[str, Any]], label: str, file: Path, alt: str, **more: Any) -> None:
        picture = embed(file, limit)
        if picture is not None:
            tiles = max(1, round(picture["width"] / picture["height"]))
            small = picture["height"] <= 64
            group.append({"label": label, "alt": alt, "tiles": tiles, "small": small,
                          "mark": None, "note": "", **picture, **more})  # fmt: skip

    for key in order:
        row = c.table_rows[key]
        entry = next((e for e in row.done if _strip(e, name, "fake").is_file()), None)
        if entry is None:
            continue
        source, truth = (_strip(entry, name, kind) for kind in ("source", "truth"))
        group = groups.setdefault(source.read_bytes() if source.is_file() else b"", [])
        if not group and source.is_file():
            add(group, "input", source, "The test pictures that go in", note="test pictures")
        if truth.is_file() and not any(r["label"] == "truth" for r in group):
            add(group, "truth", truth, "The true translations of these pictures",
                note="the true translation")  # fmt: skip
        made = "The same pictures" if source.is_file() else "Pictures"
        note = entry.origin or f"seed {entry.seed}"
        add(group, row.label, _strip(entry, name, "fake"), f"{made} made by {row.label}",
            mark=mark(row.style), note=note)  # fmt: skip
    return [{"rows": group} for group in groups.values() if group]


def _strip(entry: Entry, name: str, kind: str) -> Path:
    return entry.path / "samples" / f"strip_{name}_{kind}.png"


def _versions(c: ComparedRuns) -> list[tuple[str, str]]:
    """What the runs ran on; a value that is not the same for all says whose it is."""
    found: dict[str, dict[str, list[str]]] = {}
    for e in c.done:
        for key, value in flat(e.environment):
            if key != "command":
                label = c.table_rows[e.row].label
                found.setdefault(key, {}).setdefault(value, []).append(label)
    return [
        (
            key.removeprefix("packages."),
            "; ".join(
                value if len(values) == 1 else f"{value} ({', '.join(dict.fromkeys(who))})"
                for value, who in values.items()
            ),
        )
        for key, values in found.items()
    ]


def _context(c: ComparedRuns) -> dict[str, Any]:
    """What ``page.html`` shows."""
    protocol = dict(c.protocol)
    seeds = ", ".join(map(str, c.seeds))
    facts = [
        ("methods", human(len([r for r in c.table_rows.values() if r.done]))),
        ("seeds each" if len(c.seeds) != 1 else "seed each", human(len(c.seeds))),
        ("budget of a run", str(c.axis) if c.axis else "–"),
        ("test pictures at most", human(protocol.get("samples"))),
    ]
    about = (
        str(c.data.get("name", "")),
        f"{protocol['size']} pixels" if "size" in protocol else "",
        f"seed{'s' * (len(c.seeds) != 1)} {seeds}" if seeds else "",
        f"protocol {protocol['id']}" if "id" in protocol else "",
    )
    galleries = [{"name": n, "title": c.heading(n), "groups": _strips(c, n)} for n in c.names]
    return {
        "title": c.title or c.name,
        "about": " · ".join(filter(None, about)),
        "answers": _answers(c),
        "unequal": c.unequal,
        "notes": c.notes,
        "facts": facts,
        "rank_by": metric(c.rank_by),
        "rankings": [boards.ranking(c, n) for n in c.names],
        "galleries": [g for g in galleries if g["groups"]],
        "curves": [found for n in c.names if (found := curves(c, n))],
        "scatters": [found for n in c.names if (found := scatters(c, n))],
        "several_seeds": len(c.seeds) > 1,
        "cost": boards.cost(c),
        "health": boards.health(c),
        "settings": boards.settings(c),
        "versions": _versions(c),
        "protocol": flat(protocol),
        "protocol_id": protocol.get("id", ""),
        "data": flat(c.data),
        "command": c.command,
    }


def write_page(comparison: ComparedRuns, folder: Path) -> Path:
    """Write ``index.html`` of a comparison into ``folder`` and return its path.

    Raises UserError when the page cannot be written.
    """
    target = Path(folder) / "index.html"
    write_text(target, render("page.html", script="sort.js", **_context(comparison)))
    return target

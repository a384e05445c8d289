"""Whether entries stand on equal terms, and what a reader must know beside their numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gansuite.compare.entry import Axis, Entry
from gansuite.config import difference as config_difference
from gansuite.errors import UserError
from gansuite.evaluation.protocol import Protocol
from gansuite.evaluation.protocol import difference as protocol_difference

PFLOP_TOLERANCE = 0.02
"""How far the FLOPs of two runs may lie apart: a budget is rounded to whole batches."""
SHARED = ("data.flip", "data.load_size", "data.resize", "budget.decay_from", "budget.decay_steps")
"""Settings that are one for all rows: which pictures are seen, and the learning-rate schedule."""
DISCLOSED = ("data.batch", "trainer.precision", "ema.half_life_kimg", "health.action")
"""Settings that rows may differ in, but not without a word."""
_OF_A_SEED = re.compile(
    r"(seed|out|name|init_from|log\..*|data\.(root|workers|sets\..*)|evaluate\.(inception|vgg)"
    r"|trainer\.(devices|num_nodes|accelerator)): "
)


def axis_of(entry: Entry) -> Axis | None:
    """The budget in a run's results."""
    budget = entry.results.get("budget", {})
    for kind in ("kimg", "seconds"):
        if budget.get(kind) is not None:
            return Axis(kind, float(budget[kind]))
    return None


def differences(entries: Sequence[Entry], axis: Axis | None) -> list[str]:
    """What is not equal among the done entries, each in words; [] when all is fair."""
    done = [e for e in entries if e.status == "done"]
    if not done:
        return []
    first = done[0]
    found = []
    for e in done[1:]:
        found += _protocols(first, e)
        a, b = first.results["data"], e.results["data"]
        if a.get("digest") != b["digest"]:
            which = _domains(first, e) if a.get("name") == b.get("name") else ""
            found.append(
                f"the data differ, {a.get('name')} of {first.row} ({a.get('digest')}) "
                f"against {b.get('name')} of {e.row} ({b['digest']}){which}"
            )
    runs = [e for e in done if not e.outside]
    found += _budgets(runs, axis)
    found += _settings(runs)
    seeds = {e.seed for e in runs}
    for row in dict.fromkeys(e.row for e in runs):
        missing = sorted(seeds - {e.seed for e in runs if e.row == row})
        if missing:
            reason = next(
                (
                    f" ({e.error.rstrip('.')})"
                    for e in entries
                    if e.row == row and e.seed in missing and e.error
                ),
                "",
            )
            found.append(
                f"{row} has no result for seed {', '.join(map(str, missing))}, which others "
                f"have{reason}"
            )
    return list(dict.fromkeys(found))


def _settings(runs: Sequence[Entry]) -> list[str]:
    """Seeds of one row that are not the same method, and rows that do not share what all must."""
    found = []
    first: dict[str, Entry] = {}
    for e in runs:
        a = first.setdefault(e.row, e)
        lines = config_difference(a.config, e.config) if a.config and e.config else []
        if changed := [line for line in lines if not _OF_A_SEED.match(line)]:
            found.append(f"seeds {a.seed} and {e.seed} of {e.row} differ in {changed[0]}")
    known = [e for e in first.values() if e.config]
    for key in SHARED:
        for e in known[1:]:
            x, y = setting(known[0].config, key), setting(e.config, key)
            if x != y:
                found.append(f"{key} is {x} for {known[0].row} and {y} for {e.row}")
    return found


def setting(config: Mapping[str, Any], key: str) -> Any:
    """The value of ``section.key`` in a plain configuration; a load size of null is the size, and
    without a filter pictures were resized bicubically."""
    section, name = key.split(".")
    block = config.get(section) or {}
    value = block.get(name)
    if key == "data.resize" and value is None:
        return "bicubic"
    return block.get("size") if key == "data.load_size" and value is None else value


def _protocols(a: Entry, b: Entry) -> list[str]:
    p, q = a.results["protocol"], b.results["protocol"]
    if p["id"] == q["id"]:
        return []
    try:
        words = protocol_difference(Protocol.from_dict(p), Protocol.from_dict(q))
    except (UserError, TypeError):
        words = []
    how = "; ".join(words) or f"{p['id']} against {q['id']}, made by another version"
    return [f"the protocols of {a.row} and {b.row} differ ({how})"]


def _domains(a: Entry, b: Entry) -> str:
    """A hint where the data differ in what the config says of them."""
    x, y = a.config.get("data", {}), b.config.get("data", {})
    for key in ("domains", "train", "test", "seed", "root"):
        if x.get(key) != y.get(key):
            return f": data.{key} is {x.get(key)} and {y.get(key)}"
    return ""


def _budgets(runs: Sequence[Entry], axis: Axis | None) -> list[str]:
    if axis is None:
        return []
    found = []
    for e in runs:
        if axis.kind == "pflop":
            flops, kimg = e.cost.get("flops_per_image"), e.results["budget"].get("kimg")
            spent = flops * kimg * 1000 / 1e15 if flops and kimg else None
            if spent is None or abs(spent - axis.value) > PFLOP_TOLERANCE * axis.value:
                count = "an unknown number of" if spent is None else f"{spent:.4g}"
                found.append(f"the budget is {axis}, but {e.row} had {count} PFLOP")
            continue
        value = e.results["budget"].get(axis.kind)
        if value != axis.value:
            own = axis_of(e)
            found.append(f"the budget is {axis}, but {e.row} had {own or 'none that is known'}")
    devices = dict.fromkeys(str(e.environment.get("device", "unknown")) for e in runs)
    if axis.kind == "seconds" and len(devices) > 1:
        found.append(f"a budget in seconds on different devices ({'; '.join(devices)})")
    return found


def notes(entries: Sequence[Entry]) -> list[str]:
    """What a reader must know beside the numbers, one sentence each."""
    found = []
    for e in entries:
        if e.status == "failed":
            found.append(f"{e.row}, seed {e.seed}, failed: {e.error.rstrip('.')}.")
        elif e.status != "done":
            state = "not begun" if e.status == "missing" else "not at its end"
            found.append(f"{e.row}, seed {e.seed}, is {state} and not in the table.")
    runs = [e for e in entries if e.status == "done" and not e.outside]
    if runs and len({e.seed for e in runs}) == 1:
        found.append(
            "One seed only: chance can't be told from merit, so there are no intervals and "
            "nothing is bold."
        )
    for row, origin in dict.fromkeys((e.row, e.origin) for e in entries if e.outside):
        if origin == "published weights":
            found.append(
                f"{row} has published weights: its authors trained it, on their own data and for "
                f"as long as they chose; its pictures were made and scored under this protocol."
            )
            continue
        found.append(
            f"{row} is an outside entry: its pictures were scored under this protocol; its "
            f"training and cost are as its authors gave them."
        )
    for e in runs:
        if init := e.results.get("init"):
            found.append(
                f"{e.row}, seed {e.seed}, began with the weights of {init['experiment']} "
                f"({init['digest']}), not from scratch: what those cost is not in its budget."
            )
        back = sum(h.get("action") == "rollback" for h in e.results.get("health", []))
        if back:
            found.append(
                f"{e.row}, seed {e.seed}, went back to a checkpoint {back} time(s): it drew more "
                f"pictures and took longer than its budget says."
            )
    for key in DISCLOSED:
        found_of = {e.row: setting(e.config, key) for e in runs if e.config}
        values = {row: "none" if v is None else str(v) for row, v in found_of.items()}
        if len(set(values.values())) > 1:
            each = ", ".join(f"{row} {value}" for row, value in values.items())
            found.append(f"{key} differs: {each}.")
    devices = dict.fromkeys(str(e.environment.get("device", "unknown")) for e in runs)
    if len(devices) > 1:
        found.append(f"The runs were on different devices, so costs differ ({'; '.join(devices)}).")
    return found

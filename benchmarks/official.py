"""Our training step against the published loop of the same method, networks and batch.

    python benchmarks/official.py [--methods cyclegan ...] [--size 64 ...] [--rounds 2]
                                  [--seconds 1.5] [--no-wall] [--device cpu] [--out build/bench]
                                  [--set trainer.compile=true ...] [--bf16 trainer.penalties=mixed]

``--set`` is told to both sides of ours, ``--bf16`` to the one in bf16-mixed.

The published loops (`published/`) are plain PyTorch in float32 on a batch that lies ready; ours is
the whole path of a run: data module, Trainer, callbacks, logging. Each side has a process of its
own. In every round all sides train in a random order, one at a time, for the same number of
iterations (about ``--seconds``); a ratio is published / ours within one round, of which the median
and the range are told. On a CPU that is the CPU time of one thread, which a busy machine disturbs
little, and the wall time of all threads; on CUDA it is wall time between synchronisations.

A run of ours tells glibc to keep freed memory; the published loop is timed as it is, and once more
with that setting. Peak memory is that of the process (of the device on CUDA). The convolution
ceiling is the best that a plain 3x3 convolution of 256 to 256 channels on 8 maps of 32 x 32 reached
in the same rounds, forward, channels last, in the side's own precision.

Written: ``official.md``, ``official.json`` (with every single time) and ``official.png``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from arms import CASES, Case

ARMS = {
    "published": "published",
    "fp32": "ours-32-true",
    "bf16": "ours-bf16-mixed",
    "conv fp32": "ceiling-float32",
    "conv bf16": "ceiling-bfloat16",
}
CEILING = {"published": "conv fp32", "fp32": "conv fp32", "bf16": "conv bf16"}
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Side:
    """A process of `arms.py`."""

    def __init__(self, case: Case, arm: str, device: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("arms.py")), case.name, arm, device]
        self.name = " ".join(command[2:])
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.facts: dict[str, Any] = {}

    def ready(self) -> None:
        """Wait until it has trained for a period."""
        self.facts = self._answer()

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()
        return self._answer()

    def iterations(self, n: int, threads: int) -> dict[str, float]:
        """Milliseconds per iteration: ``cpu`` and ``wall``."""
        took = self.ask(iterations=n, threads=threads)
        return {k: 1000 * took[k] / n for k in ("cpu", "wall")}

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended: run it by hand to see why")
        return json.loads(line)


def measure(
    case: Case,
    device: str,
    rounds: int,
    seconds: float,
    wall: bool,
    more: dict[str, Sequence[str]],
) -> dict[str, Any]:
    """All times of a case: {"facts", "peak_mb", "times": {setting: [round: {side: ...}]}}."""
    sides: dict[str, Side] = {}
    try:
        for name, arm in ARMS.items():
            sides[name] = Side(case, "+".join((arm, *more.get(name, ()))), device)
        for side in sides.values():
            side.ready()
        period = math.lcm(*(sides[k].facts["period"] for k in CEILING))
        times = {"as it is": [], "kept": []}
        often: dict[str, int] = {}
        for name, side in sides.items():
            once = period if name in CEILING else side.facts["period"]
            took = side.iterations(once, 1)["wall" if device == "cuda" else "cpu"] * once / 1000
            share = 1.0 if name in CEILING else 0.1
            often[name] = once * max(1, round(share * seconds / took))
        own = {often[name] for name in CEILING}
        often |= dict.fromkeys(CEILING, min(own))  # the same work for all
        for setting, found in times.items():
            if setting == "kept":
                if device == "cuda":
                    break
                peak = {k: sides[k].ask(peak=True)["peak_mb"] for k in CEILING}
                sides["published"].ask(keep=True)
            for _ in range(rounds):
                order = list(sides)
                random.shuffle(order)
                row: dict[str, dict[str, float]] = {k: {} for k in sides}
                for name in order:
                    if device == "cuda":
                        row[name]["all"] = sides[name].iterations(often[name], 1)["wall"]
                        continue
                    row[name]["one"] = sides[name].iterations(often[name], 1)["cpu"]
                    if wall:
                        row[name]["all"] = sides[name].iterations(often[name], CORES)["wall"]
                found.append(row)
        if device == "cuda":
            peak = {k: sides[k].ask(peak=True)["peak_mb"] for k in CEILING}
        facts = {k: side.facts for k, side in sides.items()}
        return {"facts": facts, "peak_mb": peak, "iterations": often, "times": times}
    finally:
        for side in sides.values():
            side.end()


def ratios(rows: Sequence[Any], side: str, unit: str) -> list[float]:
    """published / ours in each round."""
    return [row["published"][unit] / row[side][unit] for row in rows if unit in row[side]]


def spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"**{statistics.median(values):.2f}** ({min(values):.2f}-{max(values):.2f})"


def gflops(found: dict[str, Any], side: str, unit: str, pick: Callable[..., float]) -> float:
    """GFLOP/s of a side: ``pick`` of the times of all rounds."""
    rows = [row for rows in found["times"].values() for row in rows]
    return found["facts"][side]["flops"] / 1e6 / pick(row[side][unit] for row in rows)


def table(results: dict[str, Any], machine: dict[str, Any]) -> str:
    """The pages' text."""
    rows = [row for found in results.values() for row in found["times"]["as it is"]]
    units = [unit for unit in ("one", "all") if all(unit in row["published"] for row in rows)]
    lines = [
        "# Our training step against the published loops",
        "",
        f"`{machine['command']}` on {machine['name']}, torch {machine['torch']}, "
        f"{machine['cores']} cores, load {machine['load']} at the beginning.",
    ]
    settings = {"as it is": "the published loop as it is", "kept": "both keep freed memory"}
    for setting, what in settings.items():
        if not any(found["times"][setting] for found in results.values()):
            continue
        heads = {"one": "CPU time of one thread", "all": "Wall time of all threads"}
        lines += ["", f"## How many times as fast: {what}"]
        for unit in units:
            lines += [
                "",
                f"{heads[unit]}; milliseconds per iteration, "
                f"ratios with their range over {machine['rounds']} rounds.",
                "",
                "| | batch | published ms | ours ms | fp32 | bf16-mixed |",
                "|---|---|---|---|---|---|",
            ]
            every: dict[str, list[float]] = {"fp32": [], "bf16": []}
            for name, found in results.items():
                rows = found["times"][setting]
                ms = [statistics.median(r[k][unit] for r in rows) for k in ("published", "fp32")]
                cells = []
                for side, medians in every.items():
                    values = ratios(rows, side, unit)
                    medians.append(statistics.median(values))
                    cells.append(spread(values))
                lines.append(
                    f"| {title(name)} | {CASES[name].batch} | {ms[0]:.0f} | {ms[1]:.0f} "
                    f"| {cells[0]} | {cells[1]} |"
                )
            means = [f"{statistics.geometric_mean(v):.2f}" for v in every.values()]
            lines.append(f"| geometric mean | | | | {means[0]} | {means[1]} |")
    unit = units[0]
    lines += [
        "",
        "## What the work is, and how near the ceiling",
        "",
        "Published / ours / ours in bf16-mixed. GFLOP: convolutions and matrix products of one "
        "iteration, mean of a period. Share: GFLOP/s by the median of all rounds against the "
        "plain convolution's best.",
        "",
        "| | parameters M | GFLOP | share of the ceiling % | peak MB |",
        "|---|---|---|---|---|",
    ]
    for name, found in results.items():
        facts = found["facts"]
        millions = (facts["published"]["g"] + facts["published"]["d"]) / 1e6
        work = " / ".join(f"{facts[k]['flops'] / 1e9:.2f}" for k in CEILING)
        share = " / ".join(
            f"{100 * gflops(found, k, unit, statistics.median) / gflops(found, c, unit, min):.0f}"
            for k, c in CEILING.items()
        )
        peak = " / ".join(f"{found['peak_mb'][k]:.0f}" for k in CEILING)
        lines.append(f"| {title(name)} | {millions:.3f} | {work} | {share} | {peak} |")
    best = ", ".join(
        f"{kind} {max(gflops(f, kind, unit, min) for f in results.values()):.0f}"
        for kind in ("conv fp32", "conv bf16")
    )
    return "\n".join([*lines, "", f"The ceiling, GFLOP/s: {best}."]) + "\n"


def title(name: str) -> str:
    method, _, size = name.rpartition("_")
    return f"{method} {size}"


def plot(results: dict[str, Any], device: str, file: Path) -> None:
    """Bars of the ratios, as it is, with the range of the rounds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    unit = "all" if device == "cuda" else "one"
    figure, axes = pyplot.subplots(figsize=(1.5 + 1.1 * len(results), 4), layout="constrained")
    for i, (side, colour) in enumerate((("fp32", "#4477aa"), ("bf16", "#ee8866"))):
        for j, found in enumerate(results.values()):
            values = ratios(found["times"]["as it is"], side, unit)
            middle = statistics.median(values)
            error = [[middle - min(values)], [max(values) - middle]]
            label = {"fp32": "fp32", "bf16": "bf16-mixed"}[side] if j == 0 else None
            axes.bar(j + 0.4 * i, middle, 0.38, yerr=error, color=colour, label=label, capsize=3)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks([j + 0.2 for j in range(len(results))], [title(name) for name in results])
    axes.tick_params(axis="x", rotation=30)
    axes.set_ylabel("times as fast as published")
    axes.legend(frameon=False)
    figure.savefig(file, dpi=120)


def machine_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    methods = sorted({case.method for case in CASES.values()})
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=methods, choices=methods)
    parser.add_argument("--size", type=int, nargs="+", default=[64])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument(
        "--wall",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the wall time of all threads as well, which says nothing on a busy machine",
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--bf16", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    args = parser.parse_args()
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen = [c for c in CASES.values() if c.method in args.methods and c.size in args.size]
    if not chosen:
        raise SystemExit(f"no case of that size; there are: {', '.join(CASES)}")
    machine = {
        "name": machine_name(device),
        "device": device,
        "torch": torch.__version__,
        "cores": CORES,
        "load": round(os.getloadavg()[0], 1),
        "rounds": args.rounds,
        "command": f"python benchmarks/official.py {' '.join(sys.argv[1:])}".strip(),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    more = {"fp32": args.set, "bf16": [*args.set, *args.bf16]}
    for case in chosen:
        print(f"{case.name} ...", file=sys.stderr, flush=True)
        results[case.name] = measure(case, device, args.rounds, args.seconds, args.wall, more)
        # after each case: what is there survives an interruption
        content = {"machine": machine, "cases": results}
        (args.out / "official.json").write_text(json.dumps(content, indent=1))
        (args.out / "official.md").write_text(table(results, machine))
        plot(results, device, args.out / "official.png")
    print((args.out / "official.md").read_text(), end="")


if __name__ == "__main__":
    main()

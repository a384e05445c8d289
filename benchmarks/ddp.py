"""Two ranks of one thread against one rank of two threads: the same global batch, pictures/s.

    python benchmarks/ddp.py [EXPERIMENT ...] [--rounds 5] [--kimg 0.4] [--size 64] [--set K=V]

Each arm is the whole command, ``gansuite exp``, and its speed the median over the log intervals of
the training alone (``cost.images_per_second``). The arms take turns; the median of the ratios is
printed, with their range. It needs two quiet cores, to which all processes are bound. The aim is
0.97. A ratio above 1 says that a thread of its own is better used than half of a convolution.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

QUICK = (
    *("log.wandb=disabled", "evaluate.every_kimg=null", "evaluate.pictures=2"),
    *("evaluate.learned=false", "evaluate.best_by=fd_random", "trainer.accelerator=cpu"),
)
ARMS = {"1 x 2": (1, 2), "2 x 1": (2, 1)}
"""Ranks and threads of each."""


def measured(name: str, ranks: int, threads: int, overrides: list[str]) -> float:
    """Pictures per second of one arm."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gansuite", "exp", name, *QUICK, *overrides]
        command += [f"trainer.devices={ranks}", f"out={folder}"]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr or done.stdout)
        (results,) = Path(folder).rglob("results.json")
        return float(json.loads(results.read_text())["cost"]["images_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="*", default=["cyclegan_coats"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kimg", type=float, default=0.4)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    print(f"{'experiment':<18} {'1 x 2 img/s':>12} {'2 x 1 img/s':>12} {'ratio':>7}  range")
    for name in args.experiments:
        overrides = [f"data.size={args.size}", f"budget.kimg={args.kimg}"]
        overrides += [f"log.every_kimg={args.kimg / 8}", *args.set]
        found: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for r in range(args.rounds):
            for arm in sorted(ARMS, reverse=bool(r % 2)):
                found[arm].append(measured(name, *ARMS[arm], overrides))
        one, two = found["1 x 2"], found["2 x 1"]
        ratios = [b / a for a, b in zip(one, two, strict=True)]
        print(
            f"{name:<18} {statistics.median(one):12.1f} {statistics.median(two):12.1f} "
            f"{statistics.median(ratios):7.3f}  {min(ratios):.3f}-{max(ratios):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

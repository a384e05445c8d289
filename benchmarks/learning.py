"""Does a faster step learn the same? Fréchet distances after equal kimg, before and now.

    python benchmarks/learning.py [METHOD ...] [--before CHECKOUT] [--kimg 8] [--seeds 0 1 2]
                                  [--set KEY=VALUE ...] [--bf16 trainer.penalties=mixed]
                                  [--out build/learning]

Trains `METHOD_coats` with each seed, one thread each, one run at a time: with the code of another
checkout of this repository in fp32 (``--before``), with this one in fp32, and with this one in
bf16-mixed. Told are the mean and the standard deviation of `fd_random` over the seeds (over the
directions as well, where a method has several), and for each pair of arms the p of Welch's t-test.
Finished runs are not repeated; ``--set`` hands options to all arms, ``--bf16`` to the last.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from scipy.stats import ttest_ind

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("vanilla", "stylegan", "cyclegan", "dualgan", "discogan", "stargan")
# the network in which the convolutions of CycleGAN's paper are
OPTIONS = {
    "cyclegan": (
        *("method.generator=resnet", "method.blocks=4", "data.batch=8"),
        "ema.half_life_kimg=null",
    )
}


def distance(method: str, seed: int, checkout: Path, folder: Path, options: list[str]) -> float:
    """`fd_random` at the end of a run, the mean over its directions."""
    results = folder / f"{method}_coats/seed{seed}/results.json"
    if not results.is_file():
        command = [sys.executable, "-m", "gansuite", "exp", f"{method}_coats", f"seed={seed}"]
        environment = dict(os.environ, PYTHONPATH=str(checkout), OMP_NUM_THREADS="1")
        subprocess.run(
            [*command, f"out={folder}", *options, *OPTIONS.get(method, ())],
            check=True,
            cwd=checkout,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
    final = json.loads(results.read_text())["final"]
    return statistics.mean(part["fd_random"] for part in final.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*", default=METHODS, metavar="METHOD")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--kimg", type=float, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--bf16", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("build/learning"))
    args = parser.parse_args()
    arms = {"fp32": (ROOT, "32-true"), "bf16": (ROOT, "bf16-mixed")}
    if args.before:
        arms = {"before": (args.before.resolve(), "32-true")} | arms
    pairs = list(itertools.combinations(arms, 2))
    heads = [*(f"{arm}" for arm in arms), *(f"p {a}, {b}" for a, b in pairs)]
    print(f"| {args.kimg:g} kimg | " + " | ".join(heads) + " |", flush=True)
    print("|---" * (1 + len(heads)) + "|", flush=True)
    for method in args.methods:
        found: dict[str, list[float]] = {arm: [] for arm in arms}
        for seed, (arm, (checkout, precision)) in itertools.product(args.seeds, arms.items()):
            options = [
                *(f"budget.kimg={args.kimg:g}", f"evaluate.every_kimg={args.kimg:g}"),
                *("evaluate.learned=false", "evaluate.best_by=fd_random"),
                *("log.wandb=disabled", f"trainer.precision={precision}", *args.set),
            ]
            if arm == "bf16":
                options += args.bf16
            folder = args.out.resolve() / f"{arm}-{args.kimg:g}"
            found[arm].append(distance(method, seed, checkout, folder, options))
        cells = [f"{statistics.mean(v):.3f} ± {statistics.stdev(v):.3f}" for v in found.values()]
        cells += [f"{ttest_ind(found[a], found[b], equal_var=False).pvalue:.2f}" for a, b in pairs]
        print(f"| {method} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

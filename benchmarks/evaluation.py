"""What an evaluation costs, and its share of a run with the budget of its file, in CPU time.

    python benchmarks/evaluation.py [EXPERIMENT ...] [--kimg 0.4]

Each experiment is trained for ``--kimg`` and scored twice on the way, by a clock that counts the
CPU seconds of this process; a run before it fills the cache folder (reference rows, what the
networks see in real pictures), which the first run on a data set pays for. The share is that of all
evaluations of a whole run, with its grids, at the median speed of the training.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import torch

from gansuite import catalogue, engine
from gansuite.config import experiment_files
from gansuite.runs import clock, read_json


def measured(name: str, kimg: float, folder: Path) -> tuple[float, float]:
    """CPU seconds of one evaluation with its grid, and pictures per CPU second of training."""
    overrides = [f"budget.kimg={kimg}", f"evaluate.every_kimg={kimg / 2}", "log.wandb=disabled"]
    overrides += [f"log.every_kimg={kimg / 8}", f"out={folder}"]
    experiment = catalogue.load_experiment(name, overrides)
    session = engine.train(experiment)
    speed = read_json(session.run.results)["cost"]["images_per_second"]
    return session.clock.evaluation / 2, float(speed)


def main() -> None:
    coats = [name for name in experiment_files() if name.endswith("_coats")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="*", default=coats)
    parser.add_argument("--kimg", type=float, default=0.4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clock.time.perf_counter = time.process_time
    print(f"{'experiment':<18} {'evaluation s':>12} {'images/s':>9} {'in a run':>8} {'share':>7}")
    for name in args.experiments:
        with tempfile.TemporaryDirectory() as folder:
            measured(name, args.kimg, Path(folder) / "first")
            seconds, speed = measured(name, args.kimg, Path(folder) / "second")
        whole = catalogue.load_experiment(name, [])
        kimg, every = whole.budget.kimg or 0, whole.evaluate.every_kimg
        times = math.ceil(kimg / every) if every else 1
        share = times * seconds / (times * seconds + 1000 * kimg / speed)
        print(
            f"{name:<18} {seconds:12.2f} {speed:9.1f} {times:8d} {100 * share:6.1f} %", flush=True
        )


if __name__ == "__main__":
    main()

"""CPU seconds of each command, and of a run until its first training step.

    OMP_NUM_THREADS=1 python benchmarks/startup.py [--repeats 5]

User and system time of the process, the least of several repeats: it hardly depends on what else
the machine does. A command that needs no PyTorch is to take half a second at most.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile

COMMANDS: tuple[str, ...] = (
    "--help",
    "list",
    "config cyclegan_coats",
    "config stargan_coats_joint",
    "exq",
    "exp cyclegan_cats",
    "exp cyclegan_coats data.bacth=3",
    "exp cyclegan_coats data.batch=x",
    "compare cyclegan_coats vanilla_cats",
)
# where the time of a run goes; each prints the CPU seconds since its process began
STAGES = """
import os, resource, sys

def told(what):
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{what}\t{used.ru_utime + used.ru_stime}", flush=True)

from gansuite.catalogue import load_experiment
experiment = load_experiment("vanilla_coats", sys.argv[1:])
told("the experiment is read")
from gansuite.lazy import uncollected
with uncollected():
    import torch
    told("import torch")
    import lightning
    told("import lightning (with torchmetrics)")
    from gansuite import engine
    told("import gansuite.engine")

class Watch(lightning.Callback):
    def __init__(self, what, hook):
        setattr(self, hook, lambda *_, **__: told(what))

make = engine.make_trainer
first = Watch("untrained networks and real pictures are scored", "on_train_epoch_start")
last = lightning.Callback()
last.on_train_batch_end = lambda *_, **__: (told("the first training step"), os._exit(0))
engine.make_trainer = lambda e, c: make(e, [Watch("data, networks and trainer are there", "setup"), *c, first, last])
engine.train(experiment)
"""  # noqa: E501


def cpu_of(command: list[str]) -> float:
    """User and system seconds of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print("| command | CPU seconds |\n|---|---|")
    for words in COMMANDS:
        command = [sys.executable, "-m", "gansuite", *words.split()]
        print(f"| `gansuite {words}` | {min(cpu_of(command) for _ in range(args.repeats)):.2f} |")
    print("\n| `gansuite exp vanilla_coats` until | CPU seconds | of these |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GANSUITE_CACHE"] = folder
        best: list[tuple[str, float]] = []
        for i in range(args.repeats + 1):  # the first one draws the pictures
            options = [f"out={folder}/{i}", "trainer.accelerator=cpu", "log.wandb=disabled"]
            command = [sys.executable, "-c", STAGES, *options]
            done = subprocess.run(command, capture_output=True, text=True)
            rows = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
            if not rows or rows[-1][0] != "the first training step":
                raise SystemExit(done.stderr)
            stages = [(what, float(seconds)) for what, seconds in rows]
            if i and (not best or stages[-1][1] < best[-1][1]):
                best = stages
    before = 0.0
    for what, seconds in best:
        print(f"| {what} | {seconds:.2f} | {seconds - before:.2f} |")
        before = seconds


if __name__ == "__main__":
    main()

"""Our full training step under the Trainer against a bare loop of the same networks and losses.

    python benchmarks/step.py [METHOD ...] [--rounds 7] [--batches 12] [--size 64]

Both arms use the same method object's networks, losses, optimisers and batches; the bare arm calls
them in a plain loop without the Trainer, callbacks, logging, data module or guards. The two are
timed in alternation in one process (CPU time of one thread), and the median ratio is printed. The
target is 1.02 for steps of 50 ms and more.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback

from gansuite import catalogue, engine
from gansuite.callbacks.session import Session
from gansuite.callbacks.training import crossed
from gansuite.methods import method_names
from gansuite.methods.base import Step
from gansuite.runs import Run

OVERRIDES = (
    "log.wandb=disabled",
    "data.train=256",
    "data.test=16",
    "log.every_kimg=1",
    "ema.half_life_kimg=null",  # the loop has none
)


class Log(Callback):
    """What the engine logs: the means at each ``log.every_kimg``."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def on_train_batch_end(self, *args: Any) -> None:
        after, each = self.session.method.images_seen, self.session.data.images_per_batch
        if crossed(self.session.experiment.log.every_kimg, after - each, after):
            self.session.loggers.log(self.session.method.loss_means(), after)


class Stopwatch(Callback):
    """CPU seconds from the first batch's start to the last one's end."""

    def __init__(self, batches: int) -> None:
        self.batches, self.done, self.seconds = batches, 0, 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        if self.done == 0:
            self.begin = time.process_time()

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self.done += 1
        if self.done == self.batches:
            self.seconds = time.process_time() - self.begin
            trainer.should_stop = True


def bare(method: Any, data: Any, batches: int) -> float:
    """CPU seconds of the same turns as a loop anybody would write."""
    optimizers = dict(zip(method.players, method.configure_optimizers(), strict=True))
    method.train()
    begin = time.process_time()
    for n in range(batches):
        raw = data.train_batch(n)
        batch = method.prepared(raw)
        drawn = batch.split(method.needs.batches)
        turn = method.alternation[n % len(method.alternation)]
        step = Step(method, turn, batch, 0)
        for position, phase in enumerate(turn):
            player = phase.partition(".")[0]
            step.position, part = position, drawn[position % len(drawn)]
            for name in method.players:
                method.player(name).requires_grad_(name == player)
            losses = getattr(method, phase.replace(".", "_") + "_losses")(part, step)
            if not losses:
                continue
            total = sum(method.weight_of(k.partition("/")[0], step) * v for k, v in losses.items())
            optimizers[player].zero_grad()
            total.backward()
            optimizers[player].step()
            method.after_update(phase, step)
        for name in {phase.partition(".")[0] for phase in turn}:
            method.player_batches[name] += 1
        method.batches += 1
    return time.process_time() - begin


def framework(experiment: Any, data: Any, batches: int, folder: Path) -> float:
    """CPU seconds of as many batches under the Trainer, logging included."""
    method = engine.build_method(experiment.method, data.spec, experiment.seed)
    method.configure(engine.make_settings(experiment, data))
    session = Session(experiment, data, method, Run(folder))
    session.loggers.open(None)
    watch = Stopwatch(batches)
    trainer = engine.make_trainer(experiment, [Log(session), watch])
    data.start_batch = 0
    trainer.fit(method, datamodule=data)
    return watch.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", default=method_names())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    engine.keep_freed_memory()
    engine.quiet()
    print(f"{'method':<10} {'bare ms':>9} {'ours ms':>9} {'ratio':>7}")
    for name in args.methods or method_names():
        more = [f"data.size={args.size}", *OVERRIDES]
        experiment = catalogue.load_experiment(f"{name}_coats", more)
        data = engine.build_data(experiment)
        data.setup()
        ratios, ours, plain = [], [], []
        for r in range(args.rounds + 1):  # the first warms up
            with tempfile.TemporaryDirectory() as folder:
                method = engine.build_method(experiment.method, data.spec, 0)
                method.configure(engine.make_settings(experiment, data))
                seconds = [0.0, 0.0]
                for arm in (0, 1) if r % 2 else (1, 0):
                    if arm == 0:
                        seconds[0] = bare(method, data, args.batches)
                    else:
                        seconds[1] = framework(experiment, data, args.batches, Path(folder))
            if r:
                plain.append(seconds[0])
                ours.append(seconds[1])
                ratios.append(seconds[1] / seconds[0])
        b, o = (1000 * statistics.median(x) / args.batches for x in (plain, ours))
        print(f"{name:<10} {b:9.1f} {o:9.1f} {statistics.median(ratios):7.3f}", flush=True)


if __name__ == "__main__":
    main()

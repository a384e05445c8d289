"""One side of `official.py`, in a process of its own: it trains when it is told to, for as many
iterations as it is told, and says what they cost.

    python benchmarks/arms.py CASE (published | ours-PRECISION[+KEY=VALUE ...] | ceiling-DTYPE)
                              DEVICE

Commands come as lines of JSON on the standard input, answers go to the standard output.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch

from gansuite.callbacks.memory import PeakMemory
from gansuite.core.flops import OperationCounter
from gansuite.lazy import uncollected


@dataclass(frozen=True)
class Case:
    """A method at a size: the options of its published loop, and ours for the same networks."""

    method: str
    size: int
    batch: int
    published: dict[str, Any] = field(default_factory=dict)
    ours: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.method}_{self.size}"


def _widths(**options: Any) -> tuple[str, ...]:
    return tuple(f"method.{key}={value}" for key, value in options.items())


_FOUR = ("data.domains=[horse,zebra,giraffe,leopard]",)  # of coats: c_dim 4
_LITE = {"base": 2048, "max_channels": 128, "z_dim": 128, "w_dim": 128, "mapping_layers": 2}
CASES = {
    case.name: case
    for case in (
        Case("vanilla", 64, 64, {}, _widths(width=64, d_width=64, augment="none")),
        Case(
            "cyclegan", 64, 4, {"width": 32, "blocks": 6},
            _widths(generator="resnet", width=32, d_width=32, blocks=6),
        ),
        Case("cyclegan", 256, 1, {}, _widths(generator="resnet", width=64, d_width=64, blocks=9)),
        Case("dualgan", 64, 4, {}, _widths(width=64, d_width=64)),
        Case("discogan", 64, 16, {}, _widths(width=64, d_width=64)),
        Case(
            "stargan", 64, 4, {"width": 32, "blocks": 4, "layers": 5},
            (*_FOUR, *_widths(width=32, d_width=32, blocks=4, d_layers=5, n_critic=5)),
        ),
        Case(
            "stargan", 128, 4, {},
            (*_FOUR, *_widths(width=64, d_width=64, blocks=6, d_layers=6, n_critic=5)),
        ),
        Case(
            "stylegan", 64, 8, {},
            (
                *_widths(**_LITE, mixing=0.9, mbstd_group=4), "method.weights.path=2",
                "method.weights.r1=5", "ema.half_life_kimg=10",
            ),
        ),
        Case("pix2pix", 64, 4, {}, _widths(width=64, d_width=64, norm="batch")),
        Case("pix2pix", 256, 1, {}, _widths(width=64, d_width=64, norm="batch")),
        Case(
            "cut", 64, 4, {"width": 32, "blocks": 6},
            _widths(width=32, d_width=32, blocks=6, d_layers=3, d_norm="instance"),
        ),
        Case(
            "cut", 256, 1, {},
            _widths(width=64, d_width=64, blocks=9, d_layers=3, d_norm="instance"),
        ),
        Case(
            "r3gan", 64, 8, {},
            (*_widths(width=128, wide_to=32, blocks=2, group=16), "ema.half_life_kimg=10"),
        ),
    )
}  # fmt: skip
# of all: nothing of ours that the published loops do not have, and a run that does not end
OURS = (
    "log.wandb=disabled",
    "log.every_kimg=1",
    "budget.kimg=1e6",
    "data.test=4",
    "ema.half_life_kimg=null",
)


class Turns:
    """What a process waits for, and what it answers."""

    def __init__(self, answers: TextIO, device: str, warm_up: int, told: dict[str, Any]) -> None:
        self.answers, self.device, self.told = answers, device, told
        self.left, self.peak = warm_up, PeakMemory()
        if device == "cuda":
            self.peak.start(torch.device(device))
        self.begin = (0.0, 0.0)

    def now(self) -> tuple[float, float]:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.process_time(), time.perf_counter()

    def iterated(self) -> None:
        """After every iteration: at the last one of a turn, answer and wait for the next turn."""
        self.left -= 1
        if self.left:
            return
        end = self.now()
        self.told |= {k: e - b for k, e, b in zip(("cpu", "wall"), end, self.begin, strict=True)}
        while True:
            self.answers.write(json.dumps(self.told) + "\n")
            self.answers.flush()
            line = sys.stdin.readline()
            if not line:
                os._exit(0)
            asked = json.loads(line)
            if "iterations" in asked:
                break
            self.told = self.other(asked)
        torch.set_num_threads(asked["threads"])
        self.left, self.told = asked["iterations"], {}
        self.begin = self.now()

    def other(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked.get("keep"):  # freed memory: from now on the allocator does as in our runs
            from gansuite.engine import keep_freed_memory

            keep_freed_memory()
        return {"peak_mb": self.peak.training / 1e6}


def published(case: Case, device: str, answers: TextIO) -> None:
    from published import loop

    torch.manual_seed(0)
    made = loop(case.method, size=case.size, batch=case.batch, **case.published)
    made.to(device)
    with OperationCounter() as counter:
        for _ in range(made.period):
            made.step()
    told = {"flops": counter.flops / made.period, "period": made.period}
    told |= {k: sum(p.numel() for p in getattr(made, k).parameters()) for k in ("g", "d")}
    turns = Turns(answers, device, 1, told)
    while True:
        made.step()
        turns.iterated()


def ours(case: Case, device: str, kind: str, answers: TextIO) -> None:
    precision, *more = kind.split("+")
    with uncollected():  # as the command does
        from step import Log

        from gansuite import catalogue, engine
        from gansuite.callbacks.session import Session
        from gansuite.runs import Run

    engine.keep_freed_memory()
    engine.quiet()
    options = (f"data.size={case.size}", f"data.batch={case.batch}", f"data.train={4 * case.batch}")
    trainer = (
        f"trainer.accelerator={'gpu' if device == 'cuda' else device}",
        f"trainer.precision={precision}",
    )
    experiment = catalogue.load_experiment(
        f"{case.method}_coats", [*OURS, *options, *trainer, *case.ours, *more]
    )
    data = engine.build_data(experiment)
    method = engine.ready_method(experiment, data)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(experiment, data, method, Run(Path(folder)))
        session.loggers.open(None)
        watch = _watch(answers, device, method)
        engine.make_trainer(experiment, [Log(session), watch]).fit(method, datamodule=data)


def _watch(answers: TextIO, device: str, method: Any) -> Any:
    from lightning import Callback

    class Watch(Callback):
        """Counts the first period, then takes turns."""

        def __init__(self) -> None:
            self.counter, self.turns = OperationCounter(), None

        def on_train_batch_start(self, *_: Any) -> None:
            if method.batches < method.period:
                self.counter.__enter__()

        def on_train_batch_end(self, *_: Any) -> None:
            if self.turns is not None:
                self.turns.iterated()
                return
            self.counter.__exit__(None, None, None)
            if method.batches == method.period:
                told = {"flops": self.counter.flops / method.period, "period": method.period}
                told |= {
                    k: sum(p.numel() for p in method.player(k).parameters()) for k in ("g", "d")
                }
                self.turns = Turns(answers, device, 1, told)

    return Watch()


def ceiling(device: str, dtype: str, answers: TextIO) -> None:
    """The forward pass of a plain 3x3 convolution of 256 to 256 channels on 8 maps of 32 x 32,
    channels last: of ten plain ones the fastest, or within 4 % of it."""
    like: Any = {"device": device, "dtype": getattr(torch, dtype)}
    x = torch.randn(8, 256, 32, 32, **like).to(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, **like).to(memory_format=torch.channels_last)
    with torch.no_grad():
        with OperationCounter() as counter:
            torch.conv2d(x, weight, padding=1)
        turns = Turns(answers, device, 10, {"flops": counter.flops, "period": 10})
        while True:
            torch.conv2d(x, weight, padding=1)
            turns.iterated()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed
    name, arm, device = sys.argv[1:]
    side, _, kind = arm.partition("-")
    if side == "published":
        published(CASES[name], device, answers)
    elif side == "ours":
        ours(CASES[name], device, kind, answers)
    else:
        ceiling(device, kind, answers)


if __name__ == "__main__":
    main()

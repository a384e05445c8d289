"""What each distinct convolution of a method reaches of what a 3x3 convolution reaches here.

    python benchmarks/layers.py METHOD [KEY=VALUE ...] [--rounds 7] [--bf16]

One batch of `METHOD_coats` tells which convolutions are run, with which shapes and how often.
Each is then timed alone, forward and backward (CPU time of one thread, alternated in rounds, the
median), and printed with its GFLOP/s, its share of that of the best 3x3 convolution of stride 1,
and its share of the time of all: what is worth rewriting stands first. Those filtered in Winograd's
way count with the multiplications that they save; products of matrices are not in the list. With a
KEY=VALUE as on the
command line of `gansuite`; `data.size` is 64 unless given.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Callback
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gansuite import catalogue, engine
from gansuite.callbacks.session import Session
from gansuite.ops import winograd
from gansuite.runs import Run

CEILING = ((4, 128, 32, 32), (128, 128, 3, 3))


class Convolution(NamedTuple):
    """A call: shapes of input and weight, and the arguments that shape the output."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (1, 1)
    dilation: tuple[int, ...] = (1, 1)
    transposed: bool = False
    output_padding: tuple[int, ...] = (0, 0)
    groups: int = 1
    filtered: bool = False  # Winograd's way

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.filtered and x.device.type == "cpu":
            return winograd.conv3x3(x, weight)
        return torch.ops.aten.convolution(x, weight, None, *self[2:8])

    def __str__(self) -> str:
        kind = "transposed " if self.transposed else "filtered " if self.filtered else ""
        shape = "x".join(map(str, self.x))
        inner = "x".join(map(str, self.weight))
        return f"{shape} * {kind}{inner} /{self.stride[0]} +{','.join(map(str, self.padding))}"


class Seen(TorchDispatchMode):
    """Counts the convolutions of what runs inside: forward, and which gradients were wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.forward: Counter[Convolution] = Counter()
        self.backward: Counter[tuple[Convolution, bool, bool]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.forward[_call(args[0], args[1], args[3:])] += 1
        elif func is torch.ops.aten.convolution_backward.default:
            call = _call(args[1], args[2], args[4:10])
            self.backward[(call, *args[10][:2])] += 1
        elif func is torch.ops.gansuite.conv3x3.default:
            self.forward[_filtered(*args)] += 1
        elif func is torch.ops.gansuite.conv3x3_backward.default:
            self.backward[(_filtered(*args[1:3]), *args[3])] += 1
        return func(*args, **(kwargs or {}))


def _call(x: Tensor, weight: Tensor, rest: Sequence[Any]) -> Convolution:
    plain = (tuple(arg) if isinstance(arg, (list, tuple)) else arg for arg in rest)
    return Convolution(tuple(x.shape), tuple(weight.shape), *plain)


def _filtered(x: Tensor, weight: Tensor) -> Convolution:
    return Convolution(tuple(x.shape), tuple(weight.shape), padding=(0, 0), filtered=True)


class Watch(Callback):
    """One period of the method's updates."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def on_train_batch_start(self, trainer: Any, method: Any, *args: Any) -> None:
        self.seen.__enter__()

    def on_train_batch_end(self, trainer: Any, method: Any, *args: Any) -> None:
        self.seen.__exit__(None, None, None)
        trainer.should_stop = method.batches >= method.period


def convolutions(experiment: Any) -> Seen:
    """Those of one period of an experiment's batches."""
    data = engine.build_data(experiment)
    seen, method = Seen(), engine.ready_method(experiment, data)
    with tempfile.TemporaryDirectory() as folder:
        Session(experiment, data, method, Run(Path(folder)))
        engine.make_trainer(experiment, [Watch(seen)]).fit(method, datamodule=data)
    return seen


def seconds(
    calls: Sequence[tuple[Convolution, bool, bool]], rounds: int, dtype: torch.dtype
) -> list[tuple[float, float]]:
    """CPU seconds forward and backward of each call, with the gradients it is asked for."""
    made = []
    for call, of_x, of_weight in calls:
        x = torch.randn(call.x).to(dtype).requires_grad_(of_x)
        made.append((call, x, torch.randn(call.weight).to(dtype).requires_grad_(of_weight)))
    times: list[list[tuple[float, float]]] = [[] for _ in calls]
    for _ in range(rounds):
        for (call, x, weight), mine in zip(made, times, strict=True):
            begin = time.process_time()
            y = call(x, weight)
            between = time.process_time()
            g = torch.ones_like(y)
            start = time.process_time()
            wanted = [t for t in (x, weight) if t.requires_grad]
            if wanted:
                torch.autograd.grad(y, wanted, g)
            mine.append((between - begin, time.process_time() - start))
    return [tuple(map(statistics.median, zip(*t, strict=True))) for t in times]  # type: ignore[misc]


def multiplications(call: Convolution) -> int:
    """Of the forward pass; a gradient costs as many."""
    with torch.device("meta"):
        pixels = call(torch.empty(call.x), torch.empty(call.weight)).shape[2:]
    counted = call.x[2:] if call.transposed else pixels
    return math.prod((call.x[0], *counted, *call.weight))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    engine.keep_freed_memory()
    engine.quiet()
    small = ("data.size=64", "data.train=32", "data.test=8", "log.wandb=disabled")
    seen = convolutions(
        catalogue.load_experiment(f"{args.method}_coats", [*small, *args.overrides])
    )
    dtype = torch.bfloat16 if args.bf16 else torch.float32
    best = Convolution(*CEILING)
    calls = [(best, True, True), *((call, False, False) for call in seen.forward), *seen.backward]
    found = seconds(calls, args.rounds, dtype)
    top = [2 * multiplications(best) / t / 1e9 for t in found[0]]
    top[1] *= 2  # two gradients
    print(f"3x3, 128 to 128 channels: forward {top[0]:.0f}, backward {top[1]:.0f} GFLOP/s")
    rows = []
    for (call, of_x, of_weight), (ahead, back) in zip(calls[1:], found[1:], strict=True):
        gradients = of_x + of_weight
        times = seen.backward[call, of_x, of_weight] if gradients else seen.forward[call]
        took = back if gradients else ahead
        rate = 2 * multiplications(call) * max(gradients, 1) / took / 1e9
        what = " ".join(["dx"] * of_x + ["dw"] * of_weight) or "y"
        rows.append((times * took, times, took, rate, rate / top[gradients > 0], what, call))
    whole = sum(row[0] for row in rows)
    print(f"{'share':>6} {'calls':>6} {'ms':>8} {'GFLOP/s':>8} {'of 3x3':>7}  what")
    for took, times, each, rate, part, what, call in sorted(rows, reverse=True):
        print(
            f"{took / whole:6.1%} {times:6d} {1000 * each:8.2f} {rate:8.0f} {part:7.0%}"
            f"  {what:<5} {call}"
        )


if __name__ == "__main__":
    main()

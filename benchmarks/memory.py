"""Images per second, peak memory and waits for the device of every method, under the real Trainer.

    python benchmarks/memory.py [--methods ...] [--size 64 256] [--batch 4] [--batches 20]
                                [--device cuda] [--precision bf16-mixed] [--out build/bench]
                                [--set trainer.recompute=true ...]

The published widths, one process for each method; on a CPU images per second of its time with one
thread. Peak memory is what training had
allocated on the device, on a CPU that of the process. A wait is an operation for which the host
waits for the device (PyTorch's sync debug mode), in the batches between two log points: there is
to be none, and the exit code is 1 where there is one. Written: ``memory.md`` and ``memory.json``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

WARM_UP = 20  # batches: StyleGAN2's R1 comes at the first and the seventeenth
MORE = {"cartoongan": {"init": 0}}  # not the batches before its discriminator comes in


def train(method: str, size: int, args: argparse.Namespace) -> dict[str, Any]:
    from gansuite.lazy import uncollected

    with uncollected():  # as the command does
        import torch
        from arms import OURS
        from lightning import Callback
        from step import Log

        from gansuite import catalogue, engine
        from gansuite.callbacks.memory import PeakMemory
        from gansuite.callbacks.session import Session
        from gansuite.runs import Run

    cuda = args.device == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    if not cuda:
        torch.set_num_threads(1)
        engine.keep_freed_memory()
    engine.quiet()
    asked = [f"data.size={size}", f"data.batch={args.batch}", f"data.train={4 * args.batch}"]
    asked += [f"trainer.precision={args.precision}", "log.every_kimg=1e6"]
    asked += [f"trainer.accelerator={'gpu' if cuda else 'cpu'}", *args.set]
    experiment = catalogue.load_experiment(f"{method}_coats", [*OURS, *asked])
    widths = {"name": method, **MORE.get(method, {})}  # the class's own, not those for minutes
    experiment = experiment.model_copy(update={"method": widths})
    data = engine.build_data(experiment)
    made = engine.ready_method(experiment, data)
    peak, warm_up = PeakMemory(), args.warm_up
    took: dict[str, float] = {}

    class Watch(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            if made.batches == warm_up:
                if cuda:
                    torch.cuda.synchronize()
                peak.start(made.device)
                took["begin"] = clock()
                if cuda:
                    torch.cuda.set_sync_debug_mode("warn")

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if made.batches == warm_up + args.batches:
                if cuda:
                    torch.cuda.set_sync_debug_mode("default")
                    torch.cuda.synchronize()
                took["end"] = clock()
                trainer.should_stop = True

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        session = Session(experiment, data, made, Run(Path(folder)))
        session.loggers.open(None)
        engine.make_trainer(experiment, [Log(session), Watch()]).fit(made, datamodule=data)
        waits = {f"{w.filename}:{w.lineno}" for w in told if "synchron" in str(w.message).lower()}
    images = args.batches * data.images_per_batch
    return {
        "parameters": sum(p.numel() for p in made.parameters()),
        "images_per_second": images / (took["end"] - took["begin"]),
        "peak_mb": peak.training / 1e6,
        "waits": sorted(waits),
    }


def main() -> None:
    from gansuite.methods import method_names

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=method_names(), choices=method_names())
    parser.add_argument("--size", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=WARM_UP)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        for size in args.size:
            print(json.dumps({f"{args.methods[0]} {size}": train(args.methods[0], size, args)}))
            sys.stdout.flush()
        return
    args.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {}
    for method in args.methods:
        command = [sys.executable, __file__, *sys.argv[1:], "--alone", "--methods", method]
        done = subprocess.run(command, capture_output=True, text=True)
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                rows |= json.loads(line)
        reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        for size in args.size:
            rows.setdefault(f"{method} {size}", {"failed": reason})
        # after each method: what is there survives an interruption
        (args.out / "memory.json").write_text(json.dumps(rows, indent=1))
        (args.out / "memory.md").write_text(table(rows, args))
    print((args.out / "memory.md").read_text(), end="")
    raise SystemExit(any(row.get("waits") or "failed" in row for row in rows.values()))


def table(rows: dict[str, Any], args: argparse.Namespace) -> str:
    lines = [
        ", ".join((f"Batch {args.batch}", args.precision, args.device, *args.set)) + ".",
        "",
        "| | parameters M | images/s | peak MB | waits |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if "failed" in row:
            lines.append(f"| {name} | {row['failed']} | | | |")
            continue
        lines.append(
            f"| {name} | {row['parameters'] / 1e6:.2f} | {row['images_per_second']:.1f} "
            f"| {row['peak_mb']:.0f} | {'; '.join(row['waits']) or 'none'} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

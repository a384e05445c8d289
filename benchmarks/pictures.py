"""How many pictures a generator needs: scores over the number of training pictures.

    python benchmarks/pictures.py [--experiment vanilla_coats] [--pictures 16 64 256 1024]
                                  [--augment none diffaugment ada] [--seeds 0] [--kimg 64]
                                  [--jobs 1] [--out build/pictures] [key=value ...]

One run for each number, augmentation and seed, all of the same length and scored on the same test
pictures of zebras; further ``key=value`` go to every run. The pictures of the smaller sets are
among those of the larger. Runs that are there are not made again, so the command can be stopped
and repeated.

Written: ``pictures.md``, ``pictures.json`` and ``pictures.png``, after each run with what is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SCORES = {"fd_random": "lower", "coverage": "higher", "diversity": "1 is that of real pictures"}
COLOURS = {"none": "#bb5566", "diffaugment": "#4477aa", "ada": "#ddaa33"}


def folder(args: argparse.Namespace, pictures: int, augment: str, seed: int) -> Path:
    return args.out / "runs" / f"{args.experiment}-{augment}-{pictures}" / f"seed{seed}"


def train(args: argparse.Namespace, pictures: int, augment: str, seed: int) -> None:
    """One run, unless it is there."""
    run = folder(args, pictures, augment, seed)
    if not (run / "results.json").is_file():
        given = [
            *(f"name={run.parent.name}", f"out={run.parents[1]}", f"seed={seed}"),
            *(f"data.train={pictures}", f"method.augment={augment}", f"budget.kimg={args.kimg}"),
            *(
                "data.domains=[zebra]",
                "evaluate.learned=false",
                "evaluate.best_by=fd_random",
                "log.wandb=disabled",
            ),
            # as published, p takes 500 kimg from 0 to 1: a short run would see nothing of ADA
            f"method.ada_kimg={max(args.kimg / 4, 1):g}",
            *(f"evaluate.every_kimg={args.kimg / 4}", *args.overrides),
        ]
        print(f"{run.parent.name}, seed {seed}", flush=True)
        command = [sys.executable, "-m", "gansuite", "exp", args.experiment, *given]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")
    write(args)


def found(args: argparse.Namespace) -> dict[str, Any]:
    """augmentation -> pictures -> score -> [value of each seed]; and the references of the run
    with the most pictures."""
    scores: dict[str, Any] = {}
    floor: dict[str, Any] = {}
    for augment in args.augment:
        for pictures in sorted(args.pictures):
            for seed in args.seeds:
                file = folder(args, pictures, augment, seed) / "results.json"
                if not file.is_file():
                    continue
                results = json.loads(file.read_text())
                row = scores.setdefault(augment, {}).setdefault(pictures, {})
                for name in SCORES:
                    row.setdefault(name, []).append(results["final"]["gen"].get(name))
                floor = {k: rows["gen"] for k, rows in results["references"].items()}
    return {"scores": scores, "references": floor}


def write(args: argparse.Namespace) -> None:
    content = found(args)
    command = f"python benchmarks/pictures.py {' '.join(sys.argv[1:])}".strip()
    args.out.mkdir(parents=True, exist_ok=True)
    facts = {"command": command, "experiment": args.experiment, "kimg": args.kimg}
    (args.out / "pictures.json").write_text(json.dumps({**facts, **content}, indent=1))
    (args.out / "pictures.md").write_text(table(args, content, command))
    plot(args, content)


def table(args: argparse.Namespace, content: dict[str, Any], command: str) -> str:
    """A row for each number of pictures; of several seeds the mean and the range."""
    lines = [f"`{command}`: `{args.experiment}`, {args.kimg:g} kimg each, seeds {args.seeds}."]
    for name, better in SCORES.items():
        lines += ["", f"{name} ({better})", "", f"| pictures | {' | '.join(args.augment)} |"]
        lines += ["|---" * (len(args.augment) + 1) + "|"]
        for pictures in sorted(args.pictures):
            cells = []
            for augment in args.augment:
                values = content["scores"].get(augment, {}).get(pictures, {}).get(name, [])
                known = [v for v in values if v is not None]
                cell = f"{statistics.mean(known):.3g}" if known else "-"
                span = f" ({min(known):.3g}-{max(known):.3g})" if len(known) > 1 else ""
                cells.append(cell + span)
            lines.append(f"| {pictures} | {' | '.join(cells)} |")
        real = content["references"].get("real_vs_real", {}).get(name)
        if real is not None:
            lines += ["", f"Real against real: {real:.3g}."]
    return "\n".join(lines) + "\n"


def plot(args: argparse.Namespace, content: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(SCORES), 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(SCORES)), SCORES, strict=True):
        for augment, rows in content["scores"].items():
            points = [(n, [v for v in row[name] if v is not None]) for n, row in rows.items()]
            points = [(n, values) for n, values in points if values]
            x = [n for n, _ in points]
            colour = COLOURS.get(augment)
            axes.plot(x, [statistics.mean(v) for _, v in points], "o-", color=colour, label=augment)
            axes.fill_between(
                x, [min(v) for _, v in points], [max(v) for _, v in points], color=colour, alpha=0.2
            )
        real = content["references"].get("real_vs_real", {}).get(name)
        if real is not None:
            axes.axhline(real, color="black", linestyle=":", linewidth=0.8)
        axes.set_xscale("log", base=2)
        if name == "fd_random":
            axes.set_yscale("log")
        axes.set_xlabel("training pictures")
        axes.set_title(f"{name} ({SCORES[name]})", fontsize=9)
    figure.axes[0].legend(frameon=False)
    figure.savefig(args.out / "pictures.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiment", default="vanilla_coats")
    parser.add_argument("--pictures", nargs="+", type=int, default=[16, 64, 256, 1024])
    parser.add_argument("--augment", nargs="+", default=["none", "diffaugment", "ada"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--kimg", type=float, default=64)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/pictures"))
    args, args.overrides = parser.parse_known_args()
    if unknown := [word for word in args.overrides if "=" not in word or word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    cases = [(n, a, s) for s in args.seeds for n in args.pictures for a in args.augment]
    with ThreadPoolExecutor(args.jobs) as pool:
        for _ in pool.map(lambda case: train(args, *case), cases):
            pass
    print((args.out / "pictures.md").read_text(), end="")


if __name__ == "__main__":
    main()

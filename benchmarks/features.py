"""What the features behind the Fréchet distances notice: damaged pictures against real ones.

    python benchmarks/features.py [--pictures 128] [--sizes 64] [--dino FILE] [--clip FILE]
                                  [--inception FILE]

Prints the Fréchet distance of damaged pictures of `coats` as a multiple of that of other real
pictures (*real vs real*), by extractor and strength, and which of its duties an extractor fails:
every damage must rank by its strength, and doing nothing behind a blend of half source and half
target.

*blur*: a Gaussian, in pixels; *tint*: red up and blue down, in levels; *noise*: in levels; *blend*:
the share of the source picture, 1 is doing nothing; *collapse*: so many times the same pictures;
*wrong content*: the share of pictures of an animal with a third coat; *shuffled*: cut into n x n
tiles.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from gansuite.data import DataModule, Needs, build_source
from gansuite.evaluation import build_extractor
from gansuite.evaluation.frechet import frechet_distance
from gansuite.evaluation.learned import blurred, learned_features, shuffled
from gansuite.rng import torch_generator


def damaged(source: Tensor, target: Tensor, wrong: Tensor) -> dict[str, dict[float, Tensor]]:
    """uint8 [N, 3, H, W] by damage and strength; ``target`` is the true translation of ``source``,
    ``wrong`` pictures of another kind."""
    x, n = target.float(), len(target)
    noise = torch.randn(x.shape, generator=torch_generator(0, "noise"))
    tint = torch.tensor([1.0, 0.0, -1.0])[:, None, None]

    def mixed(share: float) -> Tensor:
        return torch.cat([wrong[: round(share * n)].float(), x[round(share * n) :]])

    def tiles(cells: int) -> Tensor:
        orders = [
            torch.randperm(cells**2, generator=torch_generator(0, "tiles", cells, i))
            for i in range(n)
        ]
        return shuffled(x, cells, torch.stack(orders))

    kinds: dict[str, tuple[Callable[[float], Tensor], tuple[float, ...]]] = {
        "blur": (lambda s: blurred(x, torch.full((n,), s)), (0.5, 0.75, 1, 2)),
        "tint": (lambda s: x + s * tint, (5, 10, 20, 40)),
        "noise": (lambda s: x + s * noise, (4, 8, 16, 32)),
        "blend": (lambda s: x.lerp(source.float(), s), (0.125, 0.25, 0.5, 0.75, 1)),
        "collapse": (lambda k: x[: n // int(k)].repeat(int(k), 1, 1, 1), (2, 4, 8, 16)),
        "wrong content": (mixed, (0.25, 0.5, 1)),
        "shuffled": (lambda c: tiles(int(c)), (2, 4, 8)),
    }
    return {
        kind: {s: make(s).round().clamp(0, 255).byte() for s in strengths}
        for kind, (make, strengths) in kinds.items()
    }


def failures(found: dict[str, dict[float, float]]) -> list[str]:
    """The duties that an extractor with these distances fails."""
    failed = []
    for kind, by_strength in found.items():
        values = list(by_strength.values())
        if any(a >= b for a, b in pairwise(values)):
            failed.append(kind)
    if found["blend"][1] <= found["blend"][0.5]:
        failed.append("doing nothing")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64])
    for option in ("inception", "dino", "clip"):
        parser.add_argument(f"--{option}", default="")
    args = parser.parse_args()
    n, rows, heads = args.pictures, {}, []
    for size in args.sizes:
        data, other = (
            DataModule(
                build_source("coats", domains=d), Needs("unpaired", 2), size=size, batch=1, seed=0
            )
            for d in (["horse", "zebra"], ["leopard", "giraffe"])
        )
        start = time.process_time()
        learned = learned_features(data)
        print(f"{size} px: {learned.id} in {time.process_time() - start:.1f} s of CPU", flush=True)
        networks = build_extractor(
            inception=args.inception, dino=args.dino, clip=args.clip, learned=learned
        )
        wrong = other.pictures("train", "leopard", n)
        for a, b in (("horse", "zebra"), ("zebra", "horse")):
            source, target = data.pictures("test", a, n), data.pictures("test", b, n)
            cells = damaged(source, target, wrong)
            for name in ("learned", "random", "inception", "dino", "clip"):
                if (network := getattr(networks, name)) is None:
                    continue
                real = network(target)
                floor = frechet_distance(real, network(data.pictures("train", b, n)))
                found = {
                    kind: {s: frechet_distance(real, network(y)) for s, y in made.items()}
                    for kind, made in cells.items()
                }
                heads.append(f"{name}, {a} to {b}, {size} px")
                for kind, by_strength in found.items():
                    for s, value in by_strength.items():
                        rows.setdefault((kind, s), []).append(f"{value / floor:.3g}")
                rows.setdefault(("fails", ""), []).append(", ".join(failures(found)) or "nothing")
    print("| | " + " | ".join(heads) + " |\n|---" + "|---" * len(heads) + "|")
    fails = rows.pop(("fails", ""))
    rows["**fails**", ""] = fails
    for (kind, s), cells_ in rows.items():
        print(f"| {kind} {s} | " + " | ".join(cells_) + " |")


if __name__ == "__main__":
    main()

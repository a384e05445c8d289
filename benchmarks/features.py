"""What the features behind ``fd_random`` notice: altered pictures against real ones.

    python benchmarks/features.py [--pictures 128]

Prints the Fréchet distance of altered pictures of `coats` as a multiple of that of other real
pictures (*real vs real*): *nothing*: the source pictures as they are; *blur*: real targets through
a 3x3 mean, twice; *tint*: red up and blue down by 10 levels; *collapse*: eight targets, repeated;
*noise*: of 8 levels; *blend*: 70 % target and 30 % source; *upside down*: targets.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from torch.nn import functional as F

from gansuite.data import DataModule, Needs, build_source
from gansuite.evaluation import build_extractor
from gansuite.evaluation.frechet import frechet_distance
from gansuite.rng import torch_generator


def altered(source: Tensor, target: Tensor) -> dict[str, Tensor]:
    """uint8 [N, 3, H, W] by name; ``target`` is the true translation of ``source``."""
    x = target.float()
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    blurred = F.avg_pool2d(F.pad(blurred, (1, 1, 1, 1), mode="replicate"), 3, 1)
    noise = torch.randn(x.shape, generator=torch_generator(0, "noise")) * 8
    found = {
        "nothing": source.float(),
        "blur": blurred,
        "tint": x + torch.tensor([10.0, 0.0, -10.0])[:, None, None],
        "collapse": x[:8].repeat(-(-len(x) // 8), 1, 1, 1)[: len(x)],
        "noise": x + noise,
        "blend": 0.7 * x + 0.3 * source,
        "upside down": x.flip(2),
    }
    return {name: y.round().clamp(0, 255).byte() for name, y in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=128)
    n = parser.parse_args().pictures
    features = build_extractor().random
    for size in (32, 64):
        needs = Needs("unpaired", 2)
        data = DataModule(build_source("coats"), needs, size=size, batch=1, seed=0)
        for a, b in (("horse", "zebra"), ("zebra", "horse")):
            source, target = data.pictures("test", a, 2 * n)[:n], data.pictures("test", b, 2 * n)
            real = features(target[:n])
            floor = frechet_distance(real, features(data.pictures("train", b, n)))
            cells = altered(source, target[:n])
            told = "  ".join(
                f"{k} {frechet_distance(real, features(v)) / floor:.0f}" for k, v in cells.items()
            )
            print(f"{a} to {b}, {size} px: {told}", flush=True)


if __name__ == "__main__":
    main()

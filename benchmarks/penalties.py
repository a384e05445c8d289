"""What a gradient penalty loses where its critic runs in bf16 (`trainer.penalties=mixed`).

    python benchmarks/penalties.py [METHOD ...] [--checkpoint FILE] [--pictures 16] [--seed 0]

Of the critic of each method's `*_coats` experiment at its first weights, or of a run's checkpoint,
on real training pictures: the penalty of the whole batch and its gradient with respect to the
critic's weights, in float32 and in bf16, against float64. Told are the relative error of the value,
that of the gradient's norm, and the cosine between the gradients.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from gansuite import catalogue, engine
from gansuite.core.compiled import networks
from gansuite.draws import Draws
from gansuite.losses.penalties import gradient_penalty, r1
from gansuite.losses.precision import mixed_penalties

METHODS = {"stargan": "gp", "dualgan": "gp", "r3gan": "r1", "stylegan": "r1"}


def penalised(critic: torch.nn.Module, kind: str, x: Tensor) -> tuple[float, Tensor]:
    """The penalty, and its gradient in one piece; of ``x`` and the same pictures turned over."""

    def judge(images: Tensor) -> Tensor:
        found = critic(images)
        return found if isinstance(found, Tensor) else found[0]

    if kind == "gp":
        value = gradient_penalty(judge, x, x.flip(0), Draws(0))
    else:
        value = r1(judge, x)
    parameters = [p for p in critic.parameters() if p.requires_grad]
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return float(value.detach()), torch.cat([g.double().flatten() for g in found if g is not None])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--checkpoint")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| | in | value off by | norm of the gradient off by | cosine |\n|---|---|---|---|---|")
    for name in args.methods:
        few = (f"seed={args.seed}", "data.train=64", "data.test=2")
        experiment = catalogue.load_experiment(f"{name}_coats", few)
        data = engine.build_data(experiment)
        method = engine.ready_method(experiment, data)
        if args.checkpoint:
            method.load_weights(engine.read_checkpoint(args.checkpoint)["method"])
        (critic, *_) = networks(method.player("d"))
        pictures = data.pictures("train", None, args.pictures).double() / 127.5 - 1
        value, gradient = penalised(critic.double(), METHODS[name], pictures)
        for kind in ("fp32", "bf16"):
            with (
                mixed_penalties(kind == "bf16"),
                torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16"),
            ):
                found, near = penalised(critic.float(), METHODS[name], pictures.float())
            cosine = torch.cosine_similarity(near, gradient, 0)
            off = near.norm() / gradient.norm() - 1
            print(f"| {name} | {kind} | {found / value - 1:+.1e} | {off:+.1e} | {cosine:.6f} |")


if __name__ == "__main__":
    main()

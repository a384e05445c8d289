"""Optimisers that torch does not have, against their rules computed number by number."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import pytest
import torch
from helpers import Toy, fit, parameters
from torch import Tensor

from gansuite import catalogue
from gansuite.core.optimizers import TFRMSprop
from gansuite.rng import torch_generator

RATE = {"lr": 5e-5, "alpha": 0.9, "eps": 1e-10}  # DualGAN's


def gradients(steps: int, scale: float = 1e-3) -> Tensor:
    """[steps, 4, 3], of very different sizes."""
    g = torch.randn(steps, 4, 3, generator=torch_generator(0, "g"), dtype=torch.float64)
    return g * scale * torch.logspace(-3, 1, 3, dtype=torch.float64)


def follow(optimizer: torch.optim.Optimizer, p: Tensor, found: Tensor) -> list[Tensor]:
    """The parameter after each step."""
    path = []
    for g in found:
        p.grad = g.clone()
        optimizer.step()
        path.append(p.detach().clone())
    return path


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.5, 1e-2)])
def test_tensorflows_rmsprop_is_its_rule(momentum: float, decay: float) -> None:
    """ms += (g^2 - ms) (1 - rho); mom = momentum mom + lr g / sqrt(ms + eps); p -= mom, from
    ms = 1: TensorFlow's kernel ApplyRMSProp and the slot initialiser of RMSPropOptimizer."""
    found = gradients(300)
    p = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    optimizer = TFRMSprop([p], **RATE, momentum=momentum, weight_decay=decay)
    path = follow(optimizer, p, found)
    for row in range(4):
        for column in range(3):
            x, ms, mom = 1.0, 1.0, 0.0
            for step, g in enumerate(found[:, row, column].tolist()):
                g += decay * x
                ms += (g * g - ms) * (1 - 0.9)
                mom = momentum * mom + 5e-5 * g / math.sqrt(ms + 1e-10)
                x -= mom
                got = float(path[step][row, column])
                assert got - 1 == pytest.approx(x - 1, rel=1e-9, abs=1e-15)


def test_the_first_hundred_updates_are_not_torchs() -> None:
    """A gradient of 1e-3: torch's first step is lr / sqrt(.1), TensorFlow's lr 1e-3 / sqrt(.9)."""
    p, q = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    constant = torch.full((400, 1), 1e-3, dtype=torch.float64)
    ours = torch.stack(follow(TFRMSprop([p], **RATE), p, constant))
    torchs = torch.stack(follow(torch.optim.RMSprop([q], **RATE), q, constant))
    steps = (torchs.diff(dim=0) / ours.diff(dim=0)).flatten()
    assert float(torchs[0] / ours[0]) == pytest.approx(1e3 * math.sqrt(0.9 / 0.1), rel=1e-3)
    assert float(steps[:20].min()) > 100
    assert float(steps[-1]) == pytest.approx(1, rel=1e-4)


def test_it_resumes_bit_for_bit_and_leaves_out_what_has_no_gradient() -> None:
    found = gradients(10)

    def fresh() -> tuple[TFRMSprop, Tensor, Tensor]:
        p = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
        idle = torch.ones(2, requires_grad=True)
        return TFRMSprop([p, idle], **RATE, momentum=0.5), p, idle

    whole, p, idle = fresh()
    follow(whole, p, found)
    assert torch.equal(idle, torch.ones(2))
    first, q, _ = fresh()
    follow(first, q, found[:5])
    file = BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second, r, _ = fresh()
    r.data.copy_(q.data)
    second.load_state_dict(torch.load(file, weights_only=True))
    follow(second, r, found[5:])
    assert torch.equal(r, p)


def test_a_run_trains_with_it() -> None:
    def trained(kind: str) -> dict[str, Tensor]:
        return parameters(fit(Toy(), 2, optim={"kind": kind, **RATE}))

    a, b = trained("rmsprop_tf"), trained("rmsprop")
    before = parameters(Toy())
    for key in a:
        assert 0 < (a[key] - before[key]).abs().max() < (b[key] - before[key]).abs().max()


@pytest.mark.parametrize(
    "name", ["dualgan_facades", "dualgan_facades_paper", "dualgan_horse2zebra"]
)
def test_published_dualgan_has_it(name: str) -> None:
    optim: dict[str, Any] = dict(catalogue.load_experiment(name).optim)
    for player in ("g", "d"):
        o = optim[player]
        assert (o.kind, o.lr, o.alpha, o.eps, o.momentum) == ("rmsprop_tf", 5e-5, 0.9, 1e-10, 0)

"""Maps that are computed again instead of being kept: the same training, bit by bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import difference, fit
from test_operations import MORE, SIZES, Count, batch_for, built
from torch import nn

from gansuite.catalogue import load_experiment
from gansuite.methods import method_names
from gansuite.networks.dcgan import DCGANDiscriminator
from gansuite.networks.recompute import Block, Chain, recompute_

ADDED = {"pix2pix": {"dropout": 0.5, "norm": "batch"}, "vanilla": {"loss": "wgan"}}


def trained(name: str, recompute: bool) -> tuple[Any, int]:
    """What a method is after two batches in double precision, and its convolutions."""
    method = built(name, SIZES.get(name, 32))
    if recompute:
        recompute_(method)
        assert any(getattr(m, "recompute", False) for m in method.modules())
    count = Count()
    given = [batch_for(method)] * 2
    fit(method, 2, batch=2, callbacks=[count], given=given, precision="64-true")
    return method.state_dict(), count.counter.calls["convolution"]


@pytest.mark.parametrize("name", method_names())
@pytest.mark.slow
def test_training_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout's masks, what batch norms have learned and penalties among it."""
    monkeypatch.setitem(MORE, name, MORE.get(name, {}) | ADDED.get(name, {}))
    (kept, calls), (again, more) = trained(name, False), trained(name, True)
    assert difference(kept, again) == ""
    assert more > calls


def test_only_what_lies_between_activations_is_computed_again() -> None:
    torch.manual_seed(0)
    chain = Chain(nn.ReLU(True), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Tanh())
    chain.double()
    found = []
    for on in (False, True):
        if on:
            recompute_(chain)
        chain[2].reset_running_stats()
        torch.manual_seed(1)
        x = torch.linspace(-1, 1, 32, dtype=torch.float64).view(1, 2, 4, 4).requires_grad_()
        y = chain(x * 1)
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        grads = torch.autograd.grad(slope.square().sum(), list(chain.parameters()))
        found.append([y, slope, *grads, *chain.buffers()])
    assert all(map(torch.equal, *found))


def test_spectral_norm_takes_no_second_step() -> None:
    net = DCGANDiscriminator(16, 3, 4, spectral=True, norm="none")
    recompute_(net)
    assert not net.body.recompute
    recompute_(plain := DCGANDiscriminator(16, 3, 4))
    assert plain.body.recompute


def test_a_block_in_a_chain_is_one_by_itself() -> None:
    class Doubled(Block):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Doubled.calls += 1
            return x.sin()

    chain = Chain(nn.Conv2d(1, 1, 1), nn.ReLU(), Doubled(), nn.Conv2d(1, 1, 1))
    recompute_(chain)
    x = torch.ones(1, 1, 2, 2, requires_grad=True)
    chain(x).sum().backward()
    assert Doubled.calls == 2
    with torch.no_grad():
        chain(x)
    assert Doubled.calls == 3


def test_it_is_part_of_the_configuration_where_it_is_on() -> None:
    plain = load_experiment("vanilla_coats", [])
    assert "recompute" not in plain.plain()["trainer"]
    asked = load_experiment("vanilla_coats", ["trainer.recompute=true"])
    assert asked.plain()["trainer"]["recompute"] is True

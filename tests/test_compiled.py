"""Networks as compiled programs: the same training, to rounding."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EachBatch, difference, experiment, fit, train
from test_operations import SIZES, batch_for, built
from torch import nn

from gansuite import engine
from gansuite.catalogue import load_experiment
from gansuite.core import compiled
from gansuite.core.compiled import Compiled, check_compiler, networks
from gansuite.errors import UserError
from gansuite.methods import method_names
from gansuite.ops.twice import TwiceDifferentiable
from gansuite.runs import read_lines


@pytest.fixture
def right() -> None:
    """Not with a compiler that is refused."""
    if compiled._stays_frozen():
        pytest.skip("this PyTorch's compiler is refused")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Everything of the compiler but its last part; what was compiled."""
    found: list[Any] = []
    compile_ = torch.compile

    def tracing(function: Any, **options: Any) -> Any:
        found.append(function)
        return compile_(function, **{**options, "backend": "aot_eager"})

    monkeypatch.setattr(torch, "compile", tracing)
    return found


def trained(name: str, **settings: Any) -> dict[str, Any]:
    method = built(name, SIZES.get(name, 32))
    batches = 2 * method.period + 1
    given = [batch_for(method)] * batches
    # not Adam, which makes steps of the rounding of a gradient that is 0
    optim = {"kind": "sgd", "lr": 1e-2}
    fit(method, batches, batch=2, given=given, precision="64-true", optim=optim, **settings)
    return {"state": method.state_dict(), "losses": method.loss_means()}


@pytest.mark.slow
@pytest.mark.usefixtures("right")
@pytest.mark.parametrize("name", method_names())
def test_training_is_the_same(name: str, traced: list[Any]) -> None:
    """In double precision, penalties among it, whose second derivatives no program has."""
    plain, again = trained(name), trained(name, compile=True)
    assert traced
    torch.testing.assert_close(again, plain, rtol=1e-9, atol=1e-9)


def test_programs_stand_in_for_networks_that_train(traced: list[Any]) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    seen: list[bool] = []
    network[1].register_forward_hook(lambda *_: seen.append(torch.compiler.is_compiling()))
    names = list(network.state_dict())
    programs = Compiled(nn.ModuleDict({"a": network, "b": nn.Linear(2, 2)}))
    assert len(traced) == 2
    assert list(network.state_dict()) == names
    x = torch.ones(3, 2)

    def computed() -> bool:
        """Whether by the program."""
        seen.clear()
        network(x)
        return seen != [False]

    assert not computed()
    programs.on = True
    assert computed()
    with TwiceDifferentiable():
        assert not computed()
    network.eval()
    assert not computed()


def test_the_networks_of_a_player() -> None:
    a, b, c = (nn.Linear(1, 1) for _ in range(3))
    assert list(networks(nn.ModuleDict({"a": a, "more": nn.ModuleDict({"b": b, "c": c})}))) == [
        *(a, b, c)
    ]
    assert list(networks(a)) == [a]


def test_what_cannot_be_compiled_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none(function: Any) -> Any:
        def call(*_: Any) -> Any:
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found.\nmore")

        return call

    monkeypatch.setattr(torch, "compile", none)
    compiled.check_compiler.cache_clear()
    monkeypatch.setattr(compiled, "_stays_frozen", lambda: False)
    with pytest.raises(UserError, match=r"nothing can be compiled here \(InvalidCxx.* g\+\+"):
        check_compiler(torch.device("cpu"))
    monkeypatch.setattr(compiled, "_stays_frozen", lambda: True)
    with pytest.raises(UserError, match=r"PyTorch .* would not train a network that was frozen"):
        check_compiler(torch.device("cpu"))
    e = load_experiment("vanilla_coats", ["trainer.compile=true", "trainer.recompute=true"])
    with pytest.raises(UserError, match=r"compile' and 'trainer\.recompute' are both"):
        engine.make_trainer(e, [])


@pytest.mark.slow
@pytest.mark.usefixtures("right")
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_run_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all of the compiler, killed after three batches by programs and one of the counted."""
    options = ("trainer.compile=true", "ema.half_life_kimg=0.005", "data.flip=false")
    e = experiment("vanilla_coats", tmp_path / "a", 8, *options)
    expected = train(monkeypatch, e)
    stopped = experiment("vanilla_coats", tmp_path / "b", 8, *options)
    kill = EachBatch(lambda method: method.batches == 5 and os.kill(os.getpid(), signal.SIGTERM))
    train(monkeypatch, stopped, kill)
    again = train(monkeypatch, stopped)
    assert again.method.batches == expected.method.batches == 8
    ours, theirs = again.method.training_state(), expected.method.training_state()
    assert difference(ours, theirs) == ""
    plain = train(monkeypatch, experiment("vanilla_coats", tmp_path / "c", 8, *options[1:]))
    losses = [read_lines(s.run.path / "metrics.jsonl") for s in (expected, plain)]
    for a, b in zip(*losses, strict=True):
        for key in a.keys() & b.keys():
            if key.startswith("loss/"):
                assert a[key] == pytest.approx(b[key], rel=0.02)
    assert losses[0] != losses[1]  # rounded in another way: programs there were

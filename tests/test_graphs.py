"""Batches that are recorded and started again: the same training, bit by bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import Toy, difference, fit
from tape import tape_recorder
from test_operations import MORE, SIZES, batch_for, built
from torch import Tensor

from gansuite import engine
from gansuite.catalogue import load_experiment
from gansuite.config import Budget
from gansuite.core import graphs
from gansuite.core.graphs import KINDS, WARM_UP
from gansuite.data.spec import Batch
from gansuite.errors import UserError
from gansuite.methods import method_names
from gansuite.methods.base import Step
from gansuite.ops import products

EXACT = {"lr": 2**-7}  # in float32 as well


class Counts:
    """How many graphs were recorded and how often one was started."""

    made = started = 0

    def recorder(self) -> Any:
        record = tape_recorder()

        def counting(compute: Any) -> Any:
            start = record(compute)
            self.made += 1

            def started() -> None:
                self.started += 1
                start()

            return started

        return counting


@pytest.fixture(autouse=True)
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    found = Counts()
    monkeypatch.setattr(graphs, "cuda_recorder", found.recorder)
    monkeypatch.setattr(products, "exact", lambda: False)  # what it sets is not on the tape
    for name, more in {"r3gan": {"burn_in": 0}, "dualgan": {"dropout": 0.5}}.items():
        monkeypatch.setitem(MORE, name, MORE.get(name, {}) | more)
    return found


def trained(name: str, batches: int, **settings: Any) -> tuple[dict[str, Any], dict[str, float]]:
    """Everything that training depends on after ``batches``, and the means of its losses."""
    method = built(name, SIZES.get(name, 32))
    one = batch_for(method)
    given = [Batch(tuple(x.roll(i) for x in one.images), one.labels) for i in range(batches)]
    fit(method, batches, batch=2, given=given, **({"optim": EXACT, "graphs": True} | settings))
    return method.training_state(), method.loss_means()


@pytest.mark.parametrize("name", method_names())
def test_training_is_the_same(name: str, counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a rate that falls, lazy terms, dropout, histories and all that is drawn."""
    period = built(name, SIZES.get(name, 32)).period
    batches = period * (WARM_UP + 3)
    falling = Budget(kimg=batches / 500, decay_from=0.2)
    recorded = trained(name, batches, budget=falling)
    assert 1 <= counts.made < counts.started <= batches
    monkeypatch.setattr(graphs, "WARM_UP", batches)
    made = counts.made
    assert difference(trained(name, batches, budget=falling), recorded) == ""
    assert counts.made == made


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_is_ordinary_training(accumulate: int, counts: Counts) -> None:
    recorded = trained("pix2pix", 6, accumulate=accumulate)
    assert (counts.made, counts.started) == (1, 5 - WARM_UP)  # the first is counted
    assert difference(trained("pix2pix", 6, graphs=False, accumulate=accumulate), recorded) == ""


def test_settings_that_move_are_never_recorded(counts: Counts) -> None:
    """RMSprop's rate is a number of its kernels, and so are R3GAN's betas in its burn-in."""
    budget = Budget(kimg=10.0, decay_from=0.0)
    method = Toy()
    fit(method, KINDS + 9, optim={"kind": "rmsprop", "lr": 1e-3}, graphs=True, budget=budget)
    assert counts.made == 0
    assert method.graphs is not None
    assert len(method.graphs._kinds) == KINDS


class Reads(Toy):
    """Its loss depends on something of the host's."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        (loss,) = super().g_losses(batch, step).values()
        if self.what == "common":
            return {"gan": loss * step.draws.common(1)[0]}
        return {"gan": loss * (float(loss) if self.what == "loss" else getattr(step, self.what))}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("batches", "reads 'step.batches' (use Step.due or Step.number)"),
        ("progress", "reads 'step.progress'"),
        ("common", "draws numbers for the host (use Draws.decided)"),
        ("loss", "does what a graph cannot (operation not permitted"),
    ],
)
def test_what_would_be_the_same_in_every_batch_is_refused(what: str, said: str) -> None:
    with pytest.raises(UserError, match="A batch of test_graphs cannot be") as refused:
        fit(Reads(what), 5, graphs=True)
    assert said in str(refused.value)
    assert "'trainer.graphs=false'" in str(refused.value)


def test_a_state_from_elsewhere_has_graphs_of_its_own(counts: Counts) -> None:
    """As after a rollback: the tensors of the old one are nobody's."""
    found = []
    for on in (True, False):
        method = Toy()
        fit(method, 4, graphs=on, optim=EXACT)
        state = method.training_state()
        method.load_training_state(state)
        assert not (method.graphs and method.graphs._kinds)
        found.append(state)
    assert difference(*found) == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "needs a CUDA device"),
        (("method.augment=ada",), "follows D's signs"),
        (("method.simultaneous=true", "method.fresh_fakes=0"), "reads 'step.batches'"),
    ],
)
def test_a_run_that_cannot_is_refused_at_once(
    options: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    e = load_experiment("vanilla_coats", ["trainer.graphs=true", *options])
    assert e.plain()["trainer"]["graphs"] is True
    assert "graphs" not in load_experiment("vanilla_coats").plain()["trainer"]

    def prepare() -> None:
        if options:
            engine.rehearsed_method(e, engine.build_data(e))
        else:
            engine.make_trainer(e, [])

    with pytest.raises(UserError, match=said):
        prepare()


@pytest.mark.gpu
@pytest.mark.parametrize("name", method_names())
def test_cuda_graphs_train_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device, against the same batches one by one."""
    monkeypatch.undo()
    for key, more in {"r3gan": {"burn_in": 0}}.items():
        monkeypatch.setitem(MORE, key, MORE.get(key, {}) | more)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    batches = built(name, SIZES.get(name, 32)).period * (WARM_UP + 3)
    recorded = trained(name, batches, accelerator="gpu")
    monkeypatch.setattr(graphs, "WARM_UP", batches)
    (state, means), (again, same) = trained(name, batches, accelerator="gpu"), recorded
    for key, value in state["networks"].items():
        torch.testing.assert_close(again["networks"][key], value, rtol=1e-4, atol=1e-5)
    assert means == pytest.approx(same, rel=1e-4)

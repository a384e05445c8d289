"""Training that begins with the weights of another run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EachBatch, difference, experiment, train, untrained

from gansuite import engine
from gansuite.callbacks.initial import read_initial
from gansuite.compare.report import write_report
from gansuite.config import Experiment
from gansuite.errors import UserError
from gansuite.runs import Run, read_checkpoint, read_json

TINY = ("evaluate.learned=false", "evaluate.best_by=swd", "method.generator=resnet")
NEW = ("name=fine", "data.domains=[giraffe,leopard]")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run with averaged weights, between horses and zebras."""
    folder = tmp_path_factory.mktemp("source")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANSUITE_CACHE", str(folder / "cache"))
        e = experiment("cyclegan_coats", folder, 3, *TINY, "ema.half_life_kimg=0.01")
        engine.train(e)
        yield e.run_dir


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, of no run, untrained."""
    folder = tmp_path_factory.mktemp("untrained")
    return untrained("cyclegan_coats", folder, "method.generator=resnet")


def state_of(run: Path) -> dict[str, Any]:
    return read_checkpoint(run)["method"]


def fine(source: Path, out: Path, batches: int, *more: str) -> Experiment:
    return experiment("cyclegan_coats", out, batches, *TINY, *NEW, f"init_from={source}", *more)


def ready(e: Experiment) -> Any:
    return engine.ready_method(e, engine.build_data(e))


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["auto", "raw"])
def test_it_begins_with_the_weights_that_are_asked_for(
    source: Path, tmp_path: Path, weights: str
) -> None:
    still = ("optim.g.lr=0", "optim.d.lr=0", f"init_weights={weights}", "ema.half_life_kimg=0.1")
    e = fine(source, tmp_path, 1, *still)
    engine.train(e)
    before, after = state_of(source), state_of(e.run_dir)
    averaged = {f"g.{k}": x for k, x in before["averages"]["weights"]["g"].items()}
    assert difference(averaged, {k: before["networks"][k] for k in averaged}) != ""
    wanted = {**before["networks"], **(averaged if weights == "auto" else {})}
    assert difference(after["networks"], wanted) == ""
    kept = {f"g.{k}": x for k, x in after["averages"]["weights"]["g"].items()}
    assert difference(kept, {k: wanted[k] for k in kept}) == ""
    assert after["counters"]["images_seen"] == 4
    init = read_json(Run(e.run_dir).results)["init"]
    assert init["weights"] == ("ema" if weights == "auto" else "raw")
    assert init["from"] == str(source)
    assert init == read_checkpoint(e.run_dir)["notes"]["init"]
    page = write_report(e.run_dir).read_text()
    assert f"began with the {init['weights']} weights of cyclegan_coats ({init['digest']})" in page


def test_the_digest_tells_which_weights(checkpoint: Path, tmp_path: Path) -> None:
    found = {w: read_initial(e := fine(checkpoint, tmp_path, 1, f"init_weights={w}"), ready(e))
             for w in ("auto", "ema", "raw")}  # fmt: skip
    digests = {w: f["note"]["digest"] for w, f in found.items()}
    assert digests["auto"] == digests["ema"] != digests["raw"]
    assert [f["note"]["weights"] for f in found.values()] == ["ema", "ema", "raw"]
    state = state_of(checkpoint)
    raw = {k: x for k, x in state["networks"].items() if k[:2] in ("g.", "d.")}
    assert difference(raw, {k: found["raw"]["networks"][k] for k in raw}) == ""
    assert torch.equal(
        found["ema"]["networks"]["g.ab.body.1.weight"],
        state["averages"]["weights"]["g"]["ab.body.1.weight"],
    )


@pytest.mark.slow
def test_frozen_layers_stay_and_an_interruption_changes_nothing(
    source: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    frozen = ("freeze.d=['*.body.0', '*.body.2']", "freeze.g=[ab.body.1]")
    given = tmp_path / "given"
    shutil.copytree(source, given)
    whole = fine(given, tmp_path / "whole", 4, *frozen)
    train(monkeypatch, whole)
    parted = fine(given, tmp_path / "parted", 4, *frozen)

    class Killed(Exception):
        pass

    def kill(method: Any) -> None:
        if method.batches == 3:
            raise Killed

    interval = ("log.checkpoint_every_kimg=0.008",)  # every second batch
    parted = fine(given, tmp_path / "parted", 4, *frozen, *interval)
    with pytest.raises(Killed):
        train(monkeypatch, parted, EachBatch(kill))
    shutil.rmtree(given)  # what it began with is not asked for again
    train(monkeypatch, parted)
    a, b = state_of(whole.run_dir), state_of(parted.run_dir)
    assert difference(a, b) == ""
    assert difference(*(read_json(Run(e.run_dir).results)["init"] for e in (whole, parted))) == ""
    before, after = state_of(source), a
    start = {f"g.{k}": x for k, x in before["averages"]["weights"]["g"].items()}
    start = {**before["networks"], **start}
    parameters = dict(ready(whole).named_parameters())
    moved = {k for k in parameters if not torch.equal(after["networks"][k], start[k])}
    names = {"g.ab.body.1", *(f"d.{side}.body.{i}" for side in "ab" for i in (0, 2))}
    stayed = {k for k in parameters if k.rpartition(".")[0] in names}
    assert stayed
    assert moved == parameters.keys() - stayed


def test_another_number_of_labels(tmp_path: Path) -> None:
    given = untrained("stargan_coats", tmp_path, "data.domains=[horse,zebra]")
    four = experiment("stargan_coats", tmp_path, 1, f"init_from={given}", "init_weights=raw")
    method = ready(four)
    found, old = read_initial(four, method), state_of(given)["networks"]
    assert found["note"]["anew"] == ["g.body.0.weight", "d.cls_head.weight"]
    first = found["networks"]["g.body.0.weight"]
    assert first.shape[1] == 7
    assert torch.equal(first[:, :3], old["g.body.0.weight"][:, :3])
    assert torch.equal(first[:, 3:], method.g.body[0].weight[:, 3:])
    assert torch.equal(found["networks"]["g.body.3.weight"], old["g.body.3.weight"])


def test_what_does_not_fit_is_one_sentence_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path
) -> None:
    def refused(*more: str, of: Path = checkpoint) -> str:
        with pytest.raises(UserError) as told:
            engine.train(fine(of, tmp_path / "out", 2, *more))
        assert not (tmp_path / "out").exists()
        assert "\n" not in str(told.value)
        return str(told.value)

    assert "'g.ab.body.1.weight' is [4, 3, 7, 7] there and [8, 3, 7, 7] here" in refused(
        "method.width=8"
    )
    assert "'g.ab.body.11.weight' of it is not there" in refused("method.blocks=2")
    assert "There is no checkpoint" in refused(of=tmp_path / "nowhere")
    assert "'freeze.x' is of no player" in refused("freeze.x=[a]")
    assert "which is no layer of it" in refused("freeze.g=[ab.bodi]")
    assert "freezes all of it" in refused("freeze.d=[a,b]")
    with pytest.raises(UserError, match="'freeze' keeps layers as they are"):
        experiment("cyclegan_coats", tmp_path, 1, "freeze.d=[a]")
    other = experiment("vanilla_coats", tmp_path, 1, f"init_from={checkpoint}")
    with pytest.raises(UserError, match="holds a cyclegan, not a vanilla"):
        read_initial(other, ready(other))


def test_a_run_from_scratch_is_what_it_was() -> None:
    """Runs that were begun before there was `init_from` can be resumed."""
    e = experiment("cyclegan_coats", Path("out"), 1)
    assert not {"init_from", "init_weights", "freeze"} & e.plain().keys()
    assert e.model_copy(update={"init_from": "x"}).plain()["init_weights"] == "auto"

"""Training that goes wrong is seen, by rules, and what was asked for happens."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EachBatch, difference, experiment, train
from pages import make_run
from torch import Tensor

from gansuite.callbacks.health import undecided
from gansuite.cli import main
from gansuite.compare.collect import gather
from gansuite.compare.entry import read_entry
from gansuite.compare.page import write_page
from gansuite.compare.report import write_report
from gansuite.config import Experiment
from gansuite.data.spec import Batch
from gansuite.engine import build_data, ready_method
from gansuite.errors import NotFinite
from gansuite.evaluation import health
from gansuite.evaluation.health import ending, saturation, symptoms, trend
from gansuite.evaluation.protocol import HIGHER_IS_BETTER
from gansuite.evaluation.verdict import verdict
from gansuite.losses.adversarial import Adversarial
from gansuite.methods import method_names, method_signature
from gansuite.methods.base import Method, Step
from gansuite.methods.cyclegan import CycleGAN
from gansuite.methods.vanilla import VanillaGAN
from gansuite.runs import Run, read_checkpoint, read_json, read_lines

# -- rules ---------------------------------------------------------------------------------------


def curve(metric: str, *values: float, **more: float) -> list[dict[str, float]]:
    return [{f"a2b/{metric}": v, **{f"a2b/{k}": x for k, x in more.items()}} for v in values]


def seen(records: Any, progress: float = 0.5, change: float = 1.0, nothing: float = 9.0) -> Any:
    references = {"do_nothing": {"a2b": {"fd_random": nothing}}}
    found = symptoms(records, references, {"a2b": change}, progress)
    return [(s.event, s.streak, s.due) for s in found]


def test_collapse() -> None:
    assert seen(curve("diversity", 0.9, 0.8, 0.31)) == []
    assert seen(curve("diversity", 0.1, 0.9, 0.29)) == [("collapse", 1, False)]
    assert seen(curve("diversity", 0.9, 0.29, 0.1)) == [("collapse", 2, True)]
    # a generator that has not begun to vary is given time, one that has fallen back is not
    assert seen(curve("diversity", 0.1, 0.1), progress=0.2) == []
    assert seen(curve("diversity", 0.1, 0.1), progress=0.3) == [("collapse", 2, True)]
    assert seen(curve("diversity", 0.5, 0.1, 0.1), progress=0.2) == [("collapse", 2, True)]


def test_inversion_and_identity() -> None:
    assert seen(curve("correlation", -0.4, -0.4)) == []
    assert seen(curve("correlation", -0.8, -0.6), progress=0.1) == [("inversion", 2, True)]
    idle = curve("correlation", 0.99, 0.99, fd_random=8.9)
    assert seen(idle, change=0.01) == [("identity", 2, True)]
    assert seen(idle, change=0.01, progress=0.1) == []
    assert seen(idle, change=0.05) == []
    assert seen(idle, change=0.01, nothing=12.0) == []  # small changes that help
    assert seen(curve("correlation", 0.9, 0.9, fd_random=8.9), change=0.01) == []


def test_saturation() -> None:
    level = 0.02 * 1.386
    found = saturation([1.0] + [level / 2] * 5, 1.386)
    assert found is not None
    assert (found.streak, found.due) == (5, True)
    found = saturation([level / 2] * 4, 1.386)
    assert found is not None
    assert not found.due
    assert saturation([level / 2] * 5 + [2 * level], 1.386) is None
    assert saturation([-13.0] * 9, None) is None  # a Wasserstein critic has no floor


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cyclegan_coats", 0.25),
        ("discogan_coats", 2 * 0.6931472),
        ("dualgan_coats", None),
        ("stargan_coats", None),
        ("stylegan_coats", 2 * 0.6931472),
        ("vanilla_coats", 2 * 0.6931472),
    ],
)
def test_what_an_undecided_discriminator_loses(name: str, expected: float | None) -> None:
    e = experiment(name, Path("unused"), 2)
    method = ready_method(e, build_data(e))
    assert undecided(method) == (expected and pytest.approx(expected))
    for loss in [v for v in vars(method).values() if isinstance(v, Adversarial)]:
        if loss.undecided is not None:  # the closed form is that of a D that says "half"
            half = torch.full((4,), 0.5 if expected == 0.25 else 0.0)
            assert float(loss.d(half, half)) == pytest.approx(loss.undecided)


def test_flat_and_fell_back() -> None:
    assert trend(curve("fd_random", 5, 4, 3, 2, 1)) == {}  # too few for a trend
    assert trend(curve("fd_random", 6, 5, 4, 3, 2, 1)) == {"a2b": True}
    flat = curve("fd_random", 6, 5, 4, 3, 3.2, 2.97)
    assert trend(flat) == {"a2b": False}
    assert [s.event for s in ending(flat)] == ["flat"]
    assert [s.event for s in ending(curve("fd_random", 6, 2, 3.1))] == ["fell_back"]
    assert ending(curve("fd_random", 6, 2, 2.9)) == []


def test_verdicts() -> None:
    ends = {"do_nothing": 9.0, "real_vs_real": 1.0}
    references = {row: {"a2b": {"fd_random": value}} for row, value in ends.items()}
    best = {"a2b": {"fd_random": 2.0, "images_seen": 4000}}

    def said(events: Any = (), better: Any = None, **scores: float) -> str:
        return verdict({"a2b": {"fd_random": 2.2, **scores}}, best, references, events, better)

    def event(kind: str, action: str) -> dict[str, str]:
        return {"event": kind, "name": "a2b", "action": action}

    assert said() == "learned: a2b closed 76% of the gap"
    assert said(better={"a2b": True}) == "learned: a2b closed 76% of the gap, still improving"
    assert said(better={"a2b": False}) == "learned: a2b closed 76% of the gap, flat at the end"
    assert said(fd_random=3.1) == "fell back: a2b was better at 4 kimg"
    best = {"a2b": {"fd_random": 0.5, "images_seen": 4000}}  # both no further than real pictures
    assert said(fd_random=0.9).startswith("learned: a2b closed 103% of the gap")
    best = {"a2b": {"fd_random": 2.0, "images_seen": 4000}}
    assert said(diversity=0.2) == "collapsed: a2b has 20% of the real variety"
    assert said(correlation=-0.8).startswith("inverted: a2b turns its input into the negative")
    # the random network has its say where the learned features rank
    references = {row: {"a2b": {"fd_learned": 100 * v, "fd_random": v}} for row, v in ends.items()}
    assert said(fd_learned=400.0).startswith("learned: a2b closed 50%")
    assert said(fd_learned=400.0, fd_random=9.5) == (
        "doubtful: a2b closed 50% of the gap, but to a random network it is no closer to real than "
        "doing nothing"
    )
    assert said(fd_learned=950.0).startswith("not learned")
    assert said([event("identity", "end")]) == "unchanged: a2b hands back its input"
    assert said([event("identity", "warn")]).startswith("learned")  # and it got over it
    assert said([event("collapse", "rollback")] * 2).endswith("of the gap (after 2 rollbacks)")
    assert said([event("saturated", "end")]).endswith("(with a saturated discriminator)")


# -- runs ----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _varied(monkeypatch: Any) -> None:
    """Tiny untrained networks make one picture again and again; these make noise instead."""

    def sample(self: VanillaGAN, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(n, 3, 32, 32, generator=generator) * 2 - 1

    monkeypatch.setattr(VanillaGAN, "sample", sample)


def spoil(monkeypatch: Any, cls: type[Method], what: str, change: Any, until: int = 99) -> None:
    """Replace what ``cls.what`` returns by ``change`` of it, before rollback number ``until``."""
    real = getattr(cls, what)

    def spoilt(self: Method, *args: Any, **kwargs: Any) -> Any:
        found = real(self, *args, **kwargs)
        return change(self, found, *args) if self.rollbacks < until else found

    monkeypatch.setattr(cls, what, spoilt)


def constant(method: Method, made: Tensor, *_: Any) -> Tensor:
    return torch.zeros_like(made) if method.batches > 4 else made


def invert(method: Method, made: Tensor, x: Tensor, to: str) -> Tensor:
    return -x


def identity(method: Method, made: Tensor, x: Tensor, to: str) -> Tensor:
    return x


def certain(method: Method, found: dict[str, Tensor], *_: Any) -> dict[str, Tensor]:
    return {"gan": found["gan"] * 0 + 1e-3}


def broken_loss(method: Method, found: dict[str, Tensor], *_: Any) -> dict[str, Tensor]:
    return {"gan": found["gan"] * (torch.nan if method.batches == 6 else 1)}


def broken_gradient(method: Method, found: dict[str, Tensor], *_: Any) -> dict[str, Tensor]:
    if method.batches == 6:
        found["gan"].register_hook(lambda grad: grad * torch.nan)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cls", "what", "change", "event"),
    [
        ("vanilla_coats", VanillaGAN, "d_losses", certain, "saturated"),
        ("cyclegan_coats", CycleGAN, "translate", identity, "identity"),
    ],
)
def test_a_warning_is_given_once(
    name: str, cls: Any, what: str, change: Any, event: str, tmp_path: Path, monkeypatch: Any,
    capsys: Any,
) -> None:  # fmt: skip
    spoil(monkeypatch, cls, what, change)
    batches = 10 if event == "identity" else 14
    session = train(monkeypatch, experiment(name, tmp_path, batches))
    assert (session.method.batches, session.stopped) == (batches, "")
    lines = [r for r in read_lines(session.run.metrics) if r["kind"] == "health"]
    assert [(r["event"], r["action"]) for r in lines if r["event"] == event] == [(event, "warn")]
    out = capsys.readouterr().out.splitlines()
    said = [line for line in out if f"kimg, {health.MEANING[event]}" in line]
    at = next(r for r in lines if r["event"] == event)
    assert f"{at['images_seen'] / 1000:g} kimg, " in said[0]
    assert at["message"] in said[0]
    assert at["batches"] in (8, 10, 12)
    results = read_json(session.run.results)
    of_kind = [e for e in results["health"] if e["event"] == event]
    assert {e["action"] for e in of_kind} == {"warn", "end"}
    words = {
        "saturated": "with a saturated discriminator",
        "identity": "unchanged: ",
    }
    assert words[event] in results["verdict"]


def test_a_run_that_is_well_has_no_events(tmp_path: Path, monkeypatch: Any) -> None:
    session = train(monkeypatch, experiment("vanilla_coats", tmp_path, 10))
    events = read_json(session.run.results)["health"]
    assert events == []


@pytest.mark.usefixtures("no_charts")
def test_stopping_can_be_resumed(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    spoil(monkeypatch, VanillaGAN, "sample", constant)
    e = experiment("vanilla_coats", tmp_path, 14, "health.action=stop")
    monkeypatch.setattr("gansuite.catalogue.load_experiment", lambda *_: e)
    with pytest.raises(SystemExit) as exit_:
        main(["exp", "vanilla_coats"])
    assert exit_.value.code == 2
    told = capsys.readouterr().err
    assert "gansuite: Stopped at 0.024 kimg, collapsed: gen has 0% of the real variety" in told
    assert told.count("\n") == 1
    run = Run(e.run_dir)
    assert not run.results.exists()
    assert read_checkpoint(run.last)["method"]["counters"]["batches"] == 12
    session = train(monkeypatch, e)
    assert (session.method.batches, session.stopped) == (14, "")
    results = read_json(run.results)
    assert results["verdict"] == "collapsed: gen has 0% of the real variety"
    actions = [x["action"] for x in results["health"] if x["event"] == "collapse"]
    assert actions == ["stop", "end"]


class Killed(Exception):
    pass


def rolled(e: Experiment, monkeypatch: Any, *callbacks: Any) -> dict[str, Any]:
    """What must be the same whenever the run is repeated."""
    session = train(monkeypatch, e, *callbacks)
    state = read_checkpoint(session.run.last)
    best = read_checkpoint(session.run.best)["method"]
    for clocks in ("clock", "lengths", "experiment"):
        del state[clocks]
    return {**state, "best": best, "lines": session.run.metrics.read_text()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "change", "event", "at", "back"),
    [
        ("g_losses", broken_loss, "non_finite", 8, 4),
        ("sample", constant, "collapse", 12, 4),
    ],
)
def test_rolling_back_goes_on_and_is_repeatable(
    what: str, change: Any, event: str, at: int, back: int, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("gansuite.engine.rehearse", lambda *_: None)  # it calls every loss as well
    spoil(monkeypatch, VanillaGAN, what, change, until=1)
    more = ("health.action=rollback", "ema.half_life_kimg=0.005")
    e = experiment("vanilla_coats", tmp_path / "a", 14, *more)
    drawn: list[int] = []
    noise: list[Tensor] = []
    real = VanillaGAN.d_losses

    def watch(self: VanillaGAN, batch: Batch, step: Step) -> dict[str, Tensor]:
        drawn.append(hash(batch.images[0].numpy().tobytes()))
        noise.append(Step(self, ("d",), batch, 0).randn(1, 3))
        return real(self, batch, step)

    monkeypatch.setattr(VanillaGAN, "d_losses", watch)
    first = rolled(e, monkeypatch)
    monkeypatch.setattr(VanillaGAN, "d_losses", real)

    counters = first["method"]["counters"]
    assert (counters["batches"], counters["images_seen"], counters["rollbacks"]) == (14, 28, 1)
    assert len(drawn) == 14 + at - back
    # what comes after is new: other noise at the same place, pictures that go on
    assert not torch.equal(noise[back], noise[at])
    assert first["notes"]["data_ahead"] == at - back
    results = read_json(e.run_dir / "results.json")
    (done,) = [x for x in results["health"] if x["action"] == "rollback"]
    assert (done["event"], done["batches"], done["back_to"]) == (event, at, 2 * back)
    assert "(after 1 rollback" in results["verdict"]
    lines = read_lines(e.run_dir / "metrics.jsonl")
    assert [r["images_seen"] for r in lines if r["kind"] == "train"] == list(range(4, 29, 4))
    assert [r["event"] for r in lines if r["kind"] == "health"] == [event]
    for part in ("networks", "averages", "optimizers"):
        for t in tensors([first["method"][part], first["best"][part]]):
            assert t.isfinite().all()

    if event != "collapse":
        return
    # and it is a function of the run alone, also if it is asked to stop, and saved, between the
    # checkpoint to go back to and the symptom
    e = experiment("vanilla_coats", tmp_path / "b", 14, *more)
    for batch in (back + 1, back + 3):  # it is noticed one batch later

        def stop(method: Any, batch: int = batch) -> None:
            if method.rollbacks == 0 and method.batches == batch:
                os.kill(os.getpid(), signal.SIGTERM)

        assert train(monkeypatch, e, EachBatch(stop)).stopped == "SIGTERM"
        assert read_checkpoint(Run(e.run_dir).last)["interim"]
    # or killed after it went back
    for batch in (back + 3, back + 6):  # before and after the next checkpoint

        def kill(method: Any, batch: int = batch) -> None:
            if method.rollbacks == 1 and method.batches == batch:
                raise Killed

        with pytest.raises(Killed):
            train(monkeypatch, e, EachBatch(kill))
    assert difference(rolled(e, monkeypatch), first) == ""


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value
    return [t for v in inner for t in tensors(v)] if isinstance(value, dict | list) else []


@pytest.mark.slow
def test_retries_end(tmp_path: Path, monkeypatch: Any) -> None:
    spoil(monkeypatch, VanillaGAN, "g_losses", broken_loss)
    e = experiment("vanilla_coats", tmp_path, 14, "health.action=rollback", "health.retries=2")
    with pytest.raises(NotFinite, match=r"After 2 rollback\(s\): .* 'loss/g/gan' is not finite"):
        train(monkeypatch, e)
    run = Run(e.run_dir)
    events = [r for r in read_lines(run.metrics) if r["kind"] == "health"]
    assert [r["action"] for r in events] == ["rollback", "rollback", "stop"]
    assert read_checkpoint(run.last)["method"]["counters"]["batches"] == 4
    for file in (run.last, run.best):
        state = read_checkpoint(file)["method"]
        assert all(bool(t.isfinite().all()) for t in tensors([state["networks"]]))


@pytest.mark.slow
def test_retries_end_in_a_stop(tmp_path: Path, monkeypatch: Any) -> None:
    spoil(monkeypatch, CycleGAN, "translate", invert)
    e = experiment("cyclegan_coats", tmp_path, 12, "health.action=rollback", "health.retries=1")
    session = train(monkeypatch, e)
    assert session.stopped == "health"
    assert "Stopped at 0.032 kimg after 1 rollbacks, colours inverted: " in session.stop_reason
    counters = read_checkpoint(session.run.last)["method"]["counters"]
    assert (counters["batches"], counters["rollbacks"]) == (8, 1)
    # as promised, the same command goes on, and does not stop for the same reason again
    session = train(monkeypatch, e)
    assert (session.stopped, session.method.batches, session.method.rollbacks) == ("", 12, 1)
    events = [r["action"] for r in read_lines(session.run.metrics) if r["kind"] == "health"]
    assert events == ["rollback", "stop"]


@pytest.mark.slow
def test_a_run_that_met_a_number_that_is_none_is_resumed_with_rollbacks(
    tmp_path: Path, monkeypatch: Any
) -> None:
    spoil(monkeypatch, VanillaGAN, "g_losses", broken_gradient, until=1)
    with pytest.raises(NotFinite, match=r"or 'health.action=rollback', which resumes"):
        train(monkeypatch, experiment("vanilla_coats", tmp_path, 8))
    e = experiment("vanilla_coats", tmp_path, 8, "health.action=rollback")
    session = train(monkeypatch, e)
    assert (session.method.batches, session.method.rollbacks) == (8, 1)


def test_the_document_names_what_there_is() -> None:
    text = (Path(__file__).parents[1] / "docs" / "reading_the_curves.md").read_text()
    for event in health.MEANING:
        assert f"`{event}`" in text
    options = {k for name in method_names() for k in method_signature(name).defaults()}
    weights = {k for n in method_names() for k in method_signature(n).defaults()["weights"]}
    for key in re.findall(r"method\.([a-z_.]+\w)", text):
        first, _, rest = key.partition(".")
        assert rest in weights if first == "weights" else first in options
    for key in re.findall(r"loss/[gd]/(\w+)", text):
        assert key in weights
    for metric in re.findall(r"<c>/(\w+)", text):
        assert metric in HIGHER_IS_BETTER


# -- pages ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_charts")
def test_the_pages_tell_it(tmp_path: Path) -> None:
    common = {"images_seen": 6000, "batches": 750, "name": "a2b", "message": "a2b <i>12%</i>"}
    back = {**common, "event": "collapse", "action": "rollback", "back_to": 4000}
    warned = {**common, "event": "inversion", "action": "warn"}
    ended = {**common, "event": "flat", "action": "end"}
    runs = [make_run(tmp_path, "cyclegan", 0), make_run(tmp_path, "dualgan", 0, finished=False)]
    results = read_json(runs[0] / "results.json")
    (runs[0] / "results.json").write_text(json.dumps({**results, "health": [back, ended]}))
    with (runs[1] / "metrics.jsonl").open("a") as lines:  # no results yet
        lines.write(json.dumps({"kind": "health", **warned}) + "\n")
    first, second = (write_report(run).read_text() for run in runs)
    told = "collapsed at 6,000 images: rolled back to 4,000 images"
    assert told in first
    assert "a2b &lt;i&gt;12%&lt;/i&gt;" in first
    assert "flat at" not in first
    assert "colours inverted at 6,000 images" in second
    comparison = gather("demo", tmp_path, [read_entry(run) for run in runs])
    text = write_page(comparison, tmp_path / "out").read_text()
    assert told in text
    assert "colours inverted at 6,000 images" in text
    assert "What went wrong" not in write_report(make_run(tmp_path, "vanilla", 0)).read_text()

"""2N batches equal N, an interruption of any kind, and N: every tensor and every line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import EachBatch, command, difference, experiment, train

from gansuite import engine
from gansuite.callbacks.training import TrainingRun
from gansuite.errors import STOPPED, leaving_when_asked
from gansuite.runs import Run, read_checkpoint, read_lines

CASES = {
    "cyclegan": ("cyclegan_coats",),  # with its pools full; in process: see test_contract.py
    # batch norm, averages, two batches per turn of the generator
    "dcgan": (
        "vanilla_coats",
        "method.n_critic=2",
        "ema.half_life_kimg=0.005",
        "method.fresh_fakes=2",
        "method.dequantise=true",
    ),
    # dropout, clipping, chunks, another optimiser
    "mlp": (
        *(
            "vanilla_coats",
            "method.network=mlp",
            "method.latent=unit_uniform",
            "optim.d.kind=rmsprop_tf",
        ),
        *("optim.d.clip=0.5", "trainer.accumulate=2", "budget.decay_from=0.25"),
    ),
}
BATCHES = 8  # logged every 2, evaluated and saved every 4


class Killed(Exception):
    pass


def state(run: Path) -> dict[str, Any]:
    """All that two runs must share, bit for bit."""
    found = read_checkpoint(run / "checkpoints" / "last.ckpt")
    for clocks in ("clock", "lengths", "experiment"):
        del found[clocks]
    best = read_checkpoint(run / "checkpoints" / "best.ckpt")["method"]
    return {**found, "best": best, "lines": (run / "metrics.jsonl").read_text()}


def undisturbed(case: str, out: Path, monkeypatch: Any, *more: str) -> dict[str, Any]:
    name, *overrides = CASES[case]
    session = train(monkeypatch, experiment(name, out, BATCHES, *overrides, *more))
    assert session.method.batches == BATCHES
    return state(session.run.path)


def at(batch: int, do: Any) -> EachBatch:
    return EachBatch(lambda method: do() if method.batches == batch else None)


def kill() -> None:
    raise Killed


@pytest.mark.slow
@pytest.mark.parametrize("case", ["dcgan", "mlp"])
def test_resumes_bit_for_bit(case: str, tmp_path: Path, monkeypatch: Any) -> None:
    expected = undisturbed(case, tmp_path / "a", monkeypatch)
    counters = expected["method"]["counters"]
    assert counters["batches"] == BATCHES
    assert len(expected["lines"].splitlines()) == BATCHES / 2 + BATCHES / 4
    if case == "dcgan":
        assert counters["update_counts"] == {"g": BATCHES // 2, "d": BATCHES}
        assert expected["method"]["averages"]["weights"].keys() == {"g"}

    name, *overrides = CASES[case]
    e = experiment(name, tmp_path / "b", BATCHES, *overrides)
    with pytest.raises(Killed):  # the state of batch 7 is lost, the line of batch 6 too
        train(monkeypatch, e, at(7, kill))
    session = train(monkeypatch, e)
    assert difference(state(session.run.path), expected) == ""


def test_a_signal_ends_the_batch_saves_and_resumes(tmp_path: Path, monkeypatch: Any) -> None:
    number = signal.SIGUSR1  # as SIGTERM and SIGUSR2, see test_processes
    expected = undisturbed("dcgan", tmp_path / "a", monkeypatch)
    name, *overrides = CASES["dcgan"]
    e = experiment(name, tmp_path / "b", BATCHES, *overrides)
    before = signal.getsignal(number)
    session = train(monkeypatch, e, at(4, lambda: os.kill(os.getpid(), number)))
    assert signal.getsignal(number) is before
    # the signal comes after the callback that looks for it: the next batch still runs
    assert (session.stopped, session.method.batches) == (number.name, 5)
    assert read_checkpoint(session.run.last)["method"]["counters"]["batches"] == 5
    assert not session.run.results.exists()
    session = train(monkeypatch, e)
    assert session.stopped == ""
    assert difference(state(session.run.path), expected) == ""


def test_a_signal_in_the_last_evaluation_leaves_resumably(tmp_path: Path, monkeypatch: Any) -> None:
    e = experiment("vanilla_coats", tmp_path, 4)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "finish", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as ended, leaving_when_asked():
            train(monkeypatch, e)
    assert ended.value.code == STOPPED
    run = Run(e.run_dir)
    assert run.resumable
    assert not run.done
    assert not run.held()
    assert train(monkeypatch, e).stopped == ""
    assert run.done


def test_an_interruption_after_the_last_batch_adds_nothing(
    tmp_path: Path, monkeypatch: Any
) -> None:
    e = experiment("vanilla_coats", tmp_path, 4)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "finish", lambda self, trainer: kill())
        with pytest.raises(Killed):
            train(monkeypatch, e)
    run = Run(e.run_dir)
    lines = run.metrics.read_bytes()
    assert not engine.is_done(e)
    session = train(monkeypatch, e)
    assert session.method.batches == 4
    assert run.metrics.read_bytes() == lines
    assert engine.is_done(e)
    results = json.loads(run.results.read_text())
    last = [r for r in read_lines(run.metrics) if r["kind"] == "eval"][-1]
    assert results["final"]["gen"]["swd"] == last["gen/swd"]
    assert results["updates"] == {"g": 4, "d": 4}


# -- processes -----------------------------------------------------------------------------------


def start(out: Path, case: str) -> subprocess.Popen[bytes]:
    """40 batches, logged every 2, saved every 8 or 16, scored every 20 or 40."""
    name, *overrides = CASES[case]
    rare = ("evaluate.every_kimg=0.08", "log.checkpoint_every_kimg=0.032")
    out.mkdir(exist_ok=True)
    return subprocess.Popen(command(experiment(name, out, 40, *overrides, *rare), out))


def interrupt(process: subprocess.Popen[bytes], run: Path, number: int) -> int:
    """Send a signal between two checkpoints; returns the exit status."""
    lines, checkpoint = run / "metrics.jsonl", run / "checkpoints" / "last.ckpt"
    least = 1 << 30
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        size = lines.stat().st_size if lines.exists() else 0
        least = min(size, least)
        if checkpoint.exists() and size > least + 150:
            process.send_signal(number)
            break
        time.sleep(0.001)
    return process.wait(60)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["cyclegan", "dcgan"])
def test_killed_processes_resume_bit_for_bit(case: str, tmp_path: Path) -> None:
    whole, cut = tmp_path / "a", tmp_path / "b"
    name = CASES[case][0]
    assert start(whole, case).wait(300) == 0
    expected = state(whole / name / "seed0")
    run = cut / name / "seed0"
    assert interrupt(start(cut, case), run, signal.SIGKILL) == -signal.SIGKILL
    assert read_checkpoint(run)["method"]["counters"]["batches"] < 40
    assert not (run / "results.json").exists()
    # resumed, and asked to stop at once
    assert interrupt(start(cut, case), run, signal.SIGTERM) == 75
    assert read_checkpoint(run)["method"]["counters"]["batches"] < 40
    assert start(cut, case).wait(300) == 0
    assert difference(state(run), expected) == ""
    assert (run / "results.json").exists()

"""A comparison whose runs are jobs of a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import fake_slurm
import pytest
from gate import Gate
from helpers import experiment
from test_compare_run import TINY

from gansuite import engine
from gansuite.compare.executors import child, slurm
from gansuite.compare.executors.options import Shape, SlurmOptions, shape_of, take_options
from gansuite.compare.executors.script import write_script
from gansuite.compare.executors.task import Task
from gansuite.compare.jobs import Job
from gansuite.compare.overview import Overview
from gansuite.compare.plan import make_plan
from gansuite.compare.run import Runner, StopRequest, compare
from gansuite.errors import STOPPED, UserError
from gansuite.processes import LOST
from gansuite.runs import write_json

# -- what is asked for -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("slurm.partitoin=a", "There is no key 'slurm.partitoin'; did you mean 'partition'?"),
        ("slurm.timeout_min=0", "'slurm.timeout_min' is '0'; it must be a whole number, 1 or more"),
        ("slurm.gpus_per_node=x", "'slurm.gpus_per_node' is 'x'; it must be a whole number, 0 or"),
        ("slurm.mem_gb=nan", "'slurm.mem_gb' is 'nan'; it must be a number above 0"),
        ("slurm.setup=a\nb", "'slurm.setup' has several lines"),
        ("slurm.nodes=0", "'slurm.nodes' is '0'; it must be a whole number, 1 or more"),
        ("slurm.signal_delay_s=14400", "no less than the 240 min of 'slurm.timeout_min'"),
    ],
)
def test_what_is_refused(given: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        take_options(["cyclegan_coats", given], "slurm")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_are_taken_out() -> None:
    words = ["a", "slurm.partition=gpu", "seeds=0", "slurm.timeout_min=1", "slurm.mem_gb=1.5"]
    rest, options = take_options(words, "slurm")
    assert rest == ["a", "seeds=0"]
    assert options == SlurmOptions(partition="gpu", timeout_min=1, mem_gb=1.5)
    assert [options.notice, SlurmOptions().notice] == [30, 120]
    with pytest.raises(UserError, match=r"'slurm.partition' is of no use .* give --on slurm"):
        take_options(words, "local")
    rest, options = take_options(["a", "slurm.nodes=2"], "slurm")
    assert (rest, options.nodes) == (["a", "trainer.num_nodes=2"], 2)
    with pytest.raises(UserError, match=r"'slurm.nodes' and 'trainer.num_nodes' are the same"):
        take_options(["a", "slurm.nodes=2", "trainer.num_nodes=4"], "slurm")


def shape(given: Sequence[Sequence[str]], options: SlurmOptions) -> Shape:
    more = ("data.batch=8", "trainer.accelerator=auto")
    made = [experiment("vanilla_coats", Path(), 1, *more, *words) for words in given]
    return shape_of(made, options)


TWO = "trainer.num_nodes=2"
CPU = "trainer.accelerator=cpu"
SHAPES: dict[str, Any] = {
    "one GPU": ([()], {}, (1, 1, 1)),
    "the CPU": ([(CPU,)], {}, (1, 1, 0)),
    "four on a node": ([("trainer.devices=4",), ()], {}, (1, 1, 4)),
    "two nodes": ([(TWO,)], {}, (2, 1, 1)),
    "two nodes of four": ([(TWO,)], {"gpus_per_node": 4}, (2, 4, 4)),
    "four on each": ([(TWO, "trainer.devices=4")], {}, (2, 4, 4)),
    "CPUs of two nodes": ([(TWO, CPU, "trainer.devices=2")], {}, (2, 2, 0)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_what_a_run_takes(case: str) -> None:
    given, options, expected = SHAPES[case]
    found = shape(given, SlurmOptions(**options))
    assert dataclasses.astuple(found) == expected
    nodes, tasks, gpus = expected
    launcher = found.launcher(SlurmOptions(cpus_per_task=3))
    assert bool(launcher) == (nodes > 1)
    if launcher:
        assert {f"--nodes={nodes}", f"--ntasks={nodes * tasks}", "--cpus-per-task=3"} < {*launcher}
        assert (f"--gpus-per-node={gpus}" in launcher) == bool(gpus)


def test_runs_of_one_array_have_one_shape() -> None:
    with pytest.raises(UserError, match=r"have 'trainer.num_nodes' 1 and 2, but jobs of one array"):
        shape([(), (TWO,)], SlurmOptions())


@pytest.mark.parametrize("lacks", ["sbatch", "submitit"])
def test_what_is_not_installed(lacks: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if lacks == "submitit":
        fake_slurm.install(here / "bin")
        monkeypatch.setattr(slurm, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(here / "bin"))
    with pytest.raises(UserError) as caught:
        compare(["cyclegan_coats", "seeds=0"], on="slurm", stream=io.StringIO())
    told = {"sbatch": "There is no 'sbatch' here", "submitit": "pip install 'gansuite[cluster]'"}
    assert told[lacks] in str(caught.value)
    assert not (here / "runs").exists()


def test_only_a_cluster_is_not_waited_for() -> None:
    with pytest.raises(UserError, match="--submit-only is for --on slurm"):
        compare(["cyclegan_coats"], submit_only=True, stream=io.StringIO())


def test_a_child_is_told_of_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = {"SLURM_PROCID": "3", "SLURM_JOB_ID": "9", "RANK": "1", "TORCHELASTIC_RUN_ID": "x"}
    kept = {"SLURM_CONF": "/c", "SLURM_TMPDIR": "/t", "CUDA_VISIBLE_DEVICES": "1"}
    for name, value in {**foreign, **kept}.items():
        monkeypatch.setenv(name, value)
    found = child.own_environment()
    assert not foreign.keys() & found.keys()
    assert kept.items() <= found.items()
    assert found["PATH"] == os.environ["PATH"]


# -- one job ---------------------------------------------------------------------------------------

# stands for `gansuite exp`: sees a picture in each start, if told so, and stops when asked to
RUN = """\
import json, os, pathlib, signal, sys, time
path, lost = pathlib.Path(sys.argv[-1]), sys.argv[-2].startswith("lost")
steps = {"lost": 1, "lost at once": 0}.get(sys.argv[-2]) if lost else int(sys.argv[-2])
count = path / "count"
seen = int(count.read_text()) if count.exists() else 0
rank = os.environ.get("SLURM_PROCID", "")
def save():
    if rank in ("", "0"):
        count.write_text(str(seen + steps))
def leave(*_):
    save()
    print("saved")
    sys.exit(75)
signal.signal(signal.SIGUSR1 if rank else signal.SIGTERM, leave)
(path / ("ready" + rank)).touch()
if lost:
    save()
    print("gansuite: rank 3 was not heard of for 46 s; the same command resumes the run.")
    sys.exit(69)
if seen >= 2:
    (path / "results.json").write_text("{}")
    sys.exit(0)
if steps < 0:
    sys.exit("gansuite: there is no such thing.")
time.sleep(60)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`gansuite exp` is a small script; a run has seen what its file ``count`` says."""
    (tmp_path / "run.py").write_text(RUN)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / "run.py"} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(python))

    def images_seen(path: Path) -> int:
        return int((path / "count").read_text()) if (path / "count").exists() else 0

    monkeypatch.setattr("gansuite.compare.executors.task.images_seen", images_seen)
    return tmp_path


@pytest.mark.parametrize(("steps", "again"), [(1, True), (0, False)])
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_notice_brings_a_job_back_if_it_got_on(
    steps: int, again: bool, number: int, stand_in: Path
) -> None:
    run = stand_in / "run"
    task = Task([str(steps), str(run)], str(run), str(stand_in))
    came: list[bool] = []

    def notice(*_: Any) -> None:
        came.append(task.comes_again())

    before = signal.signal(signal.SIGUSR2, notice)
    try:
        when(lambda: (run / "ready").exists(), lambda: os.kill(os.getpid(), number))
        assert task() == STOPPED
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert came == [again]
    assert (run / "log.txt").read_text() == "saved\n"
    error = run / "error.txt"
    assert error.exists() != again
    if not again:
        assert "ended before anything was trained; give it longer" in error.read_text()


def test_a_job_that_is_ended_saves_and_does_not_come_back(stand_in: Path) -> None:
    run = stand_in / "run"
    task = Task(["1", str(run)], str(run), str(stand_in))
    asked = signal.getsignal(signal.SIGTERM)
    when(lambda: (run / "ready").exists(), lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert task() == STOPPED
    assert signal.getsignal(signal.SIGTERM) is asked
    assert not (run / "error.txt").exists()
    (run / "count").write_text("2")
    assert task() == 0  # the next start finishes
    assert Task(["-1", str(run)], str(run), str(stand_in))() == 0  # and a further one does nothing
    other = stand_in / "other"
    assert Task(["-1", str(other)], str(other), str(stand_in))() == 1
    assert (other / "error.txt").read_text() == "there is no such thing.\n"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the jobs of executables that stand for SLURM's are kept."""
    return fake_slurm.use(tmp_path, monkeypatch)


@pytest.mark.parametrize("steps", ["1", "-1", "lost", "lost at once"])
def test_a_run_on_several_nodes_is_started_by_srun(
    steps: str, fake: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four processes on two nodes: asked to stop, failing, or ended because one of them is gone."""
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    run = stand_in / "run"
    shape = Shape(2, 2, 0)
    task = Task([steps, str(run)], str(run), str(stand_in), shape.launcher(SlurmOptions()))
    ready = [run / f"ready{rank}" for rank in range(4)]

    def ask() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    if steps == "1":
        when(lambda: all(file.exists() for file in ready), ask)
    expected = {"1": STOPPED, "-1": 1}.get(steps, LOST)
    assert task() == expected
    assert all(file.exists() for file in ready)
    log = (run / "log.txt").read_text()
    assert log.count("saved") == (4 if expected == STOPPED else 0), log
    assert (run / "error.txt").exists() == (steps in ("-1", "lost at once"))
    assert task.lost == (steps == "lost")


def test_submitit_is_given_what_is_to_come_back(stand_in: Path) -> None:
    submitit = pytest.importorskip("submitit")
    run = stand_in / "run"
    run.mkdir()
    (run / "count").write_text("2")
    executor = submitit.AutoExecutor(folder=stand_in / "jobs", cluster="debug")
    job = executor.submit(Task(["1", str(run)], str(run), str(stand_in)))
    assert job.result() == 0
    task = Task(["1", str(run)], str(run), str(stand_in))
    again = task.checkpoint()  # before it has begun there is nothing to wait for
    assert again.function.plain() == task.plain()
    assert Task.__submitit_checkpoint__ is Task.checkpoint


def when(reached: Callable[[], bool], act: Callable[[], None]) -> None:
    """Call ``act`` from another thread once ``reached``."""

    def wait() -> None:
        while not reached():
            time.sleep(0.01)
        act()

    threading.Thread(target=wait, daemon=True).start()


# -- a script --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_a_script_for_sbatch(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(["cyclegan_coats", "seeds=0,1,2", "budget.kimg=1", "trainer.accelerator=cpu"])
    jobs = [Job(planned) for planned in plan.runs]
    options = SlurmOptions(partition="debug", setup="module load cuda", mem_gb=8, parallel=2)
    script = write_script(jobs, plan.folder, options)
    lines = script.read_text().splitlines()
    flags = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in lines
        if line.startswith("#SBATCH")
    )
    for key, value in flags.items():
        assert key in fake_slurm.FLAGS, key
        assert value == "" or fake_slurm.FLAGS[key], key
    assert flags["array"] == "0-2%2"
    assert flags["signal"] == "B:USR2@120"
    assert flags["mem"] == "8192M"
    assert "gpus-per-node" not in flags
    assert lines[-2] == "module load cuda"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    listed = json.loads((script.parent / "tasks.json").read_text())
    assert [Task(**entry).plain()["path"] for entry in listed] == [
        str(job.path.absolute()) for job in jobs
    ]
    gpu = make_plan(["cyclegan_coats", "seeds=0", "budget.kimg=1", "name=gpu"])
    script = write_script([Job(gpu.runs[0])], gpu.folder, SlurmOptions())
    assert "#SBATCH --gpus-per-node=1" in script.read_text()
    wide = make_plan(["cyclegan_coats", "seeds=0", "budget.kimg=1", "name=wide", TWO])
    script = write_script([Job(wide.runs[0])], wide.folder, SlurmOptions(gpus_per_node=4))
    told = ("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4")
    assert all(f"#SBATCH {flag}\n" in script.read_text() for flag in told)
    (entry,) = json.loads((script.parent / "tasks.json").read_text())
    assert {"srun", "--nodes=2", "--ntasks=8", "--gpus-per-node=4"} < set(entry["launcher"])


# -- five hundred runs -----------------------------------------------------------------------------

STATES = ("done", "failed")
NEEDS = 3  # pictures that a run of the simulated cluster sees before it is done


class Simulated:
    """A cluster in this process: at each question time passes, and its jobs get on, are pre-empted,
    reach their limit, die with their node, fail, or are forgotten about."""

    def __init__(self, parallel: int, seed: int) -> None:
        self.parallel, self.draw = parallel, random.Random(seed)
        self.jobs: dict[str, Path] = {}
        self.state: dict[str, str] = {}
        self.images: dict[Path, int] = {}
        self.done: list[Path] = []
        self.stuck: dict[Path, int] = {}  # failed, or got no further: which command's job
        self.by: dict[str, int] = {}
        self.command, self.answered = 0, False
        self.since: dict[str, int] = {}  # what its run had seen when a job was submitted
        self.questions = self.submissions = 0

    def submit(self, tasks: Sequence[Task], shape: Shape) -> list[str]:
        assert shape == Shape(1, 1, 1)
        self.submissions += 1
        names = [f"{self.submissions}_{i}" for i in range(len(tasks))]
        for name, task in zip(names, tasks, strict=True):
            path = Path(task.path)
            live = [n for n, p in self.jobs.items() if p == path and n in self.state]
            assert all(self.state[n] not in ("PENDING", "RUNNING") for n in live)
            assert path not in self.done
            # what has failed is tried again by another command alone
            assert self.stuck.pop(path, -1) < self.command
            self.jobs[name], self.state[name] = path, "PENDING"
            self.since[name], self.by[name] = self.images.get(path, 0), self.command
        return names

    def states(self, jobs: Iterable[str]) -> dict[str, str] | None:
        self.questions += 1
        if self.answered and self.draw.random() < 0.05:
            return None
        self.answered = True
        for name in [name for name, state in self.state.items() if state == "RUNNING"]:
            self._pass(name, self.jobs[name])
        waiting = [name for name, state in self.state.items() if state == "PENDING"]
        running = sum(state == "RUNNING" for state in self.state.values())
        for name in waiting[: self.parallel - running]:
            self.state[name] = "RUNNING"
        return dict(self.state)

    def _pass(self, name: str, path: Path) -> None:
        what = self.draw.choices(
            ("on", "preempted", "TIMEOUT", "NODE_FAIL", "gone", "failed"), (60, 10, 10, 5, 5, 1)
        )[0]
        if what == "failed":
            child.note_failure(path, "The weights are not finite.")
            self.stuck[path] = self.by[name]
            self.state[name] = "FAILED"
            return
        self.images[path] = self.images.get(path, 0) + self.draw.choice((0, 1, 1, 2))
        if self.images[path] >= NEEDS:
            assert not (path / "results.json").exists()
            write_json(path / "results.json", {})
            self.done.append(path)
            self.state[name] = "COMPLETED"
        elif what == "preempted":
            self.state[name] = "PENDING"
        elif what != "on":
            if self.images[path] == self.since[name]:
                self.stuck[path] = self.by[name]
            if what == "gone":
                del self.state[name]
            else:
                self.state[name] = what


@pytest.mark.parametrize("runs", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_every_run_ends_once(runs: int, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Simulated(parallel=runs // 8, seed=0)
    monkeypatch.setattr(slurm, "images_seen", lambda path: cluster.images.get(path.absolute(), 0))
    monkeypatch.setattr("gansuite.files.os.fsync", lambda handle: None)
    monkeypatch.setattr("gansuite.compare.run._TICK", 0.0)
    monkeypatch.setattr(slurm.Slurm, "every", 0.0)
    monkeypatch.setattr("gansuite.compare.overview.Overview.update", lambda self, jobs: None)
    first = make_plan(["vanilla_coats", "seeds=0", "budget.kimg=1", "name=c"]).runs[0]
    planned = [
        dataclasses.replace(first, experiment=first.experiment.model_copy(update={"seed": k}))
        for k in range(runs)
    ]
    folder, said = here / "runs/c", io.StringIO()
    sizes: list[int] = []

    def follow(questions: float) -> list[Job]:
        """One command, which is asked to leave after so many questions."""
        jobs = [Job(p) for p in planned]
        asked = StopRequest()
        cluster.command, cluster.answered = cluster.command + 1, False
        with slurm.Slurm(Path("runs/c"), SlurmOptions(), lambda line: None, cluster) as executor:
            poll, until = executor.poll, cluster.questions + questions

            def counted(jobs: Sequence[Job]) -> list[Job]:
                if cluster.questions >= until:
                    asked.name = "SIGINT"
                sizes.append(tracemalloc.get_traced_memory()[0])
                return poll(jobs)

            executor.poll = counted  # type: ignore[method-assign]
            Runner(jobs, executor, Overview(said, "fd_random"), asked).run()
        return jobs

    tracemalloc.start()
    try:
        for _ in range(3):
            assert any(job.state in ("queued", "running") for job in follow(8))
        jobs = follow(math.inf)
    finally:
        tracemalloc.stop()
    assert len(cluster.done) == len(set(cluster.done)) > runs // 2
    found = {state: {j.path.absolute() for j in jobs if j.state == state} for state in STATES}
    assert found["done"] == set(cluster.done)
    assert found["failed"] == cluster.stuck.keys()
    assert sum(map(len, found.values())) == runs
    for job in jobs:
        assert (job.path / "results.json").exists() == (job.state == "done")
        assert (job.path / "error.txt").exists() == (job.state == "failed")
    # from when all are submitted on: what this cluster remembers, and the lines said
    assert sizes[-1] - sizes[8] < 3000 * runs
    assert json.loads((folder / "slurm/jobs.json").read_text()).keys() == {
        f"vanilla_coats/seed{k}" for k in range(runs)
    }


# -- the commands ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake")
def test_a_partition_that_is_none(here: Path) -> None:
    pytest.importorskip("submitit")
    arguments = ["vanilla_coats", "seeds=0,1", "name=c", "slurm.partition=nope", *TINY]
    with pytest.raises(UserError) as caught:
        compare(arguments, on="slurm", stream=io.StringIO())
    assert str(caught.value) == (
        "SLURM takes no such jobs: Batch job submission failed: Invalid partition name specified; "
        "see 'sinfo'."
    )
    assert not (here / "runs/c/slurm/jobs.json").exists()


def test_states_are_asked_of_squeue_and_then_of_sacct(fake: Path) -> None:
    for name, state in {"7_0": "RUNNING", "7_1": "CANCELLED by 0", "7_2": "TIMEOUT"}.items():
        (fake / name).mkdir()
        (fake / name / "state").write_text(state)
    (fake / "7_2" / "forgotten").touch()
    cluster = slurm.Submitit(fake, "c", SlurmOptions())
    expected = {"7_0": "RUNNING", "7_1": "CANCELLED", "7_2": "TIMEOUT"}
    assert cluster.states(["7_0", "7_2", "7_3"]) == expected
    (fake / "silent").touch()
    assert cluster.states(["7_0"]) is None


def test_a_second_command_waits_for_the_first(here: Path) -> None:
    with slurm.Slurm(here / "c", SlurmOptions(), print):
        other = slurm.Slurm(here / "c", SlurmOptions(), print)
        with pytest.raises(UserError, match=r"Another command submits the runs of .*/c already"):
            other.__enter__()


def boards(folder: Path) -> list[bytes]:
    return [(folder / "c" / f"leaderboard.{suffix}").read_bytes() for suffix in ("md", "csv")]


@pytest.mark.slow
@pytest.mark.usefixtures("no_charts")
def test_jobs_of_executables_that_stand_for_slurms(
    tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job is told to come again and one to stop, and the command is left and given again; the
    tables are those of runs that nobody disturbs."""
    pytest.importorskip("submitit")
    arguments = ["vanilla_coats", "seeds=0,1", "budget.kimg=0.06", "name=c", *TINY]
    arguments += ["evaluate.learned=false", "evaluate.best_by=fd_random", "rank_by=fd_random"]
    for planned in make_plan([*arguments, f"out={tmp_path / 'whole'}"]).runs:
        engine.train(planned.experiment)
    assert compare([*arguments, f"out={tmp_path / 'whole'}"], stream=io.StringIO()) == 0
    gate = Gate(tmp_path / "gate", 3)
    paths = [str(gate.path), str(Path(slurm.__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setattr(slurm.Slurm, "every", 0.3)
    told: list[str] = []

    def interfere() -> None:
        try:
            for job, number in (("7_0", "USR2"), ("7_1", "TERM")):
                until(lambda job=job: gate.waiting(job))  # type: ignore[misc]
                subprocess.run(["scancel", f"--signal={number}", job], check=True)
            until(lambda: gate.waiting("7_0", 1) and gate.waiting("8"))
            told.append((fake / "7_0/starts").read_text())
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    def go_on() -> None:
        try:
            until(lambda: followed in said.getvalue())
        finally:
            gate.open()

    followed = "2 jobs of an earlier command go on; they are followed."
    cut = [*arguments, f"out={tmp_path / 'cut'}", "slurm.parallel=2"]
    said = io.StringIO()
    try:
        other = threading.Thread(target=interfere, daemon=True)
        other.start()
        assert compare(cut, on="slurm", stream=said) == STOPPED
        other.join()
        assert told == [".."]
        assert "Stopped by SIGINT; the jobs go on, and the same command follows" in said.getvalue()
        threading.Thread(target=go_on, daemon=True).start()
        assert compare(cut, on="slurm", stream=said) == 0, said.getvalue()
        until(lambda: all((p / "state").read_text() == "COMPLETED" for p in fake_slurm.tasks(fake)))
    finally:
        for file in fake.glob("*/pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGKILL)
    assert followed in said.getvalue()
    logs = [p.read_text() for p in (tmp_path / "cut").glob("c/*/seed*/log.txt")]
    assert [text.count("Stopped by SIGTERM") for text in logs] == [1, 1]
    assert [text.count("Verdict") for text in logs] == [1, 1]
    assert boards(tmp_path / "cut") == boards(tmp_path / "whole")
    assert not [p for p in (tmp_path / "cut").rglob(".lock") if p.read_text()]
    assert [p.name for p in fake_slurm.tasks(fake)] == ["7_0", "7_1", "8"]


def until(reached: Callable[[], bool]) -> None:
    """Wait for something that must come, however slow the machine is."""
    end = time.monotonic() + 600
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("running", "looks"), [(16, 100), (500, 4)])
def test_an_overview_of_500_runs_reads_a_bounded_amount(
    running: int, looks: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Followed for 100 s, five times a second: the files of what goes on, and of these the ends."""
    first = make_plan(["vanilla_coats", "seeds=0", "budget.kimg=1", "name=c"]).runs[0]
    jobs = [
        Job(dataclasses.replace(first, experiment=first.experiment.model_copy(update={"seed": k})))
        for k in range(500)
    ]
    for job in jobs[:running]:
        job.state = "running"
    long = jobs[0].path / "timing.jsonl"
    long.parent.mkdir(parents=True)
    long.write_text('{"kind": "train", "images_seen": 4, "images_per_second": 2.0}\n' * 20_000)
    opened, read = 0, 0

    class Counted(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal read
            found = super().read(-1 if size is None else size)
            read += len(found)
            return found

    def counted(file: Path, mode: str) -> Counted:
        nonlocal opened
        opened += 1
        return Counted(file, mode)

    now = 0.0
    monkeypatch.setattr("gansuite.compare.jobs.open", counted, raising=False)
    monkeypatch.setattr("gansuite.compare.overview.time.monotonic", lambda: now)
    said = io.StringIO()
    overview = Overview(said, "fd_random")
    sizes = []
    tracemalloc.start()
    try:
        for tick in range(500):
            now = 1 + tick / 5
            overview.update(jobs)
            if tick in (250, 499):
                sizes.append(tracemalloc.get_traced_memory()[0] - len(said.getvalue()))
    finally:
        tracemalloc.stop()
    assert opened == 2 * running * looks  # its clock, its scores
    assert read <= looks * (1 << 16)
    assert sizes[1] - sizes[0] < 200 * running
    assert "vanilla_coats seed 0  0.004/1 kimg  2 images/s" in said.getvalue()

"""Planning, running and interrupting a comparison through the command line."""

from __future__ import annotations

import errno
import io
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gansuite import catalogue, cli, config, engine
from gansuite.compare.entry import Axis
from gansuite.compare.executors import local
from gansuite.compare.jobs import Job
from gansuite.compare.overview import Overview
from gansuite.compare.plan import make_plan
from gansuite.compare.run import compare
from gansuite.errors import STOPPED, UserError
from gansuite.methods import method_names

ROOT = Path(__file__).parents[1]
TINY = [
    "data.train=32", "data.test=16", "data.batch=4", "evaluate.pictures=16", "evaluate.samples=2",
    "evaluate.every_kimg=0.04", "log.every_kimg=0.02", "log.wandb=disabled", "method.width=4",
    "method.d_width=4", "trainer.accelerator=cpu",
]  # fmt: skip


def refusal(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        make_plan(arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_plan() -> None:
    plan = make_plan(["cyclegan_coats", "dualgan_coats", "seeds=0,2", "budget.kimg=2", *TINY])
    assert plan.name == "cyclegan_coats+dualgan_coats"
    assert plan.axis == Axis("kimg", 2.0)
    assert [(r.row, r.experiment.seed, str(r.path)) for r in plan.runs] == [
        (name, seed, f"runs/{plan.name}/{name}/seed{seed}")
        for name in ("cyclegan_coats", "dualgan_coats")
        for seed in (0, 2)
    ]
    first = plan.runs[0]
    assert first.experiment.budget.kimg == 2
    assert first.experiment.log.group == plan.name
    # the arguments make the very same run
    assert catalogue.load_experiment(first.arguments[0], first.arguments[1:]) == first.experiment
    assert plan.command.startswith("gansuite compare cyclegan_coats dualgan_coats seeds=0,2 budget")
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", list(config.comparison_files()))
def test_every_comparison_file(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config.comparison_files()[name]
    # a published set that has been put there by hand
    for folder in ("trainA", "trainB", "testA", "testB"):
        (here / "horse2zebra" / folder).mkdir(parents=True)
        picture = Image.new("RGB", (8, 8), (10 * len(folder), 0, 0))
        picture.save(here / "horse2zebra" / folder / "0.png")
    monkeypatch.setenv("GANSUITE_DATA", str(here))
    assert f"NAMES={name}" in path.read_text().splitlines()[0]
    plan = make_plan([name])
    assert len(plan.runs) == len(plan.spec.experiments) * len(plan.spec.seeds)
    with pytest.raises(UserError, match="is a comparison of experiments; run it with 'gansuite co"):
        config.find_experiment(name)


def test_every_file_is_an_experiment_or_a_comparison() -> None:
    files = {p.stem for p in (ROOT / "experiments").glob("*.yaml")}
    assert files == config.experiment_files().keys() | config.comparison_files().keys()
    assert "compare_coats" in config.comparison_files()
    assert not config.experiment_files().keys() & config.comparison_files().keys()


def test_the_two_comparisons_have_every_method() -> None:
    compared = {
        name: {r.experiment.method["name"] for r in make_plan([name]).runs}
        for name in ("compare_coats", "compare_styles")
    }
    assert compared["compare_styles"] == {"adain", "cartoongan", "cyclegan", "cut"}
    assert compared["compare_coats"] == set(method_names()) - {"adain", "cartoongan"}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["cyclegan_coat"], "or folder 'cyclegan_coat'; did you mean 'cyclegan_coats'?"),
        (["compare_coat"], "did you mean 'compare_coats'?"),
        ([], "Nothing to compare"),
        (["cyclegan_coats", "seeds=a"], "the command line: 'compare.seeds.0' is 'a'; it must be a"),
        (["cyclegan_coats", "seeds=1,1"], "seeds names 1 twice"),
        (["cyclegan_coats", "seeds="], "'compare.seeds'"),
        (["cyclegan_coats", "budget.kimg=1", "budget.seconds=2"], "one budget, not kimg and secon"),
        (["cyclegan_coats", "seed=3"], "'seed' is the comparison's own"),
        (["cyclegan_coats", "jobs=0"], "'jobs' is 0; it is how many runs go on at once"),
        (
            ["cyclegan_coats", "rank_by=diversity"],
            "'rank_by' is 'diversity', by which nothing can be",
        ),
        (["cyclegan_coats", "rank_by=fid"], "rank_by is 'fid', which needs a network's weights"),
        (
            ["cyclegan_coats", "evaluate.learned=false", "evaluate.best_by=fd_random"],
            "needs 'evaluate.learned', which is off here; give rank_by=fd_random",
        ),
        (["cyclegan_coats", "name=../x"], "'name' is '../x'; it names a folder"),
        (["cyclegan_coats", "evaluate.picture=3"], "did you mean 'evaluate.pictures'?"),
        (["cyclegan_coats", "vanilla_coats"], "'budget.kimg' is 30.0 for cyclegan_coats and 128.0"),
        (
            ["cyclegan_coats", "stargan_coats", "budget.kimg=8"],
            "'data.domains' is horse,zebra for cyclegan_coats and horse,zebra,giraffe,leopard for "
            "stargan_coats; give data.domains=[",
        ),
    ],
)
def test_what_a_plan_refuses(arguments: list[str], expected: str) -> None:
    assert expected in refusal(*arguments)


@pytest.mark.usefixtures("here")
def test_unequal_budgets_are_let_pass_when_told_so() -> None:
    arguments = ["cyclegan_coats", "vanilla_coats"]
    assert "'budget.kimg' is 30.0 for cyclegan_coats and 128.0" in refusal(*arguments)
    plan = make_plan(arguments, allow_unequal=True)
    assert {(r.row, r.experiment.budget.kimg) for r in plan.runs} == {
        ("cyclegan_coats", 30.0),
        ("vanilla_coats", 128.0),
    }
    assert plan.axis is None
    assert plan.command.endswith(" --allow-unequal")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_is_closed(number: int, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(**_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("tempfile.TemporaryFile", closed)
        with pytest.raises(UserError) as caught:
            compare(["vanilla_coats", "out=there", "seeds=0"], stream=io.StringIO())
    assert str(caught.value) == (
        f"there/vanilla_coats cannot be written ({os.strerror(number)}); give a folder that can "
        f"with 'out='."
    )
    assert not list(here.iterdir())
    (here / "there").write_text("a file")
    with pytest.raises(UserError, match="there/vanilla_coats cannot be written"):
        compare(["vanilla_coats", "out=there", "seeds=0"], stream=io.StringIO())
    assert (here / "there").read_text() == "a file"


def test_a_comparison_file_is_strict(here: Path) -> None:
    file = here / "compare_mine.yaml"
    file.write_text("compare: {experiments: [cyclegan_coats], sedes: [0]}\n")
    assert "did you mean 'compare.seeds'?" in refusal(str(file))
    file.write_text("compare: {experiments: [cyclegan_coats]}\nseed: 3\n")
    assert "there is no key 'seed' in a comparison" in refusal(str(file))
    file.write_text("compare: {experiments: [cyclegan_coats], budget: {kimg: 3}}\n")
    plan = make_plan([str(file), "budget.seconds=7", "discogan_coats"])
    assert plan.axis == Axis("seconds", 7.0)
    assert [r.experiment.budget.seconds for r in plan.runs] == [7.0, 7.0]
    assert [r.experiment.budget.kimg for r in plan.runs] == [None, None]


@pytest.mark.usefixtures("here")
def test_a_flops_budget_becomes_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []

    def measure(experiment: Any) -> tuple[int, int]:
        counted.append(experiment.name)
        return {"cyclegan_coats": (10**9, 16), "discogan_coats": (25 * 10**7, 16)}[experiment.name]

    monkeypatch.setattr(engine, "measure_flops", measure)
    arguments = ["cyclegan_coats", "discogan_coats", "budget.pflop=0.0032", "seeds=0,1"]
    for _ in range(2):  # the second time from the file
        runs = make_plan(arguments).runs
        assert [r.experiment.budget.kimg for r in runs] == [3.2, 3.2, 12.8, 12.8]
    assert counted == ["cyclegan_coats", "discogan_coats"]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_measured_flops_are_those_of_a_run() -> None:
    e = catalogue.load_experiment("discogan_coats", [*TINY, "budget.kimg=0.1"])
    flops, per_batch = engine.measure_flops(e)
    assert per_batch == 8
    assert not e.run_dir.exists()
    engine.train(e)
    from gansuite.runs import read_json

    assert read_json(e.run_dir / "results.json")["cost"]["flops_per_image"] == flops


def test_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "cores", lambda: 8)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    slots = local.Slots(None)
    assert slots.count == 2
    seen = [slots.environment(i) for i in range(3)]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in seen] == ["4", "6", "4"]
    assert [e["OMP_NUM_THREADS"] for e in seen] == ["4"] * 3
    assert local.Slots(1).environment(0)["CUDA_VISIBLE_DEVICES"] == "4,6"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert local.Slots(1).environment(0)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert local.Slots(None).count == 1


@pytest.mark.usefixtures("here")
def test_how_a_run_stands() -> None:
    job = Job(make_plan(["cyclegan_coats", "budget.kimg=8"]).runs[0])
    job.path.mkdir(parents=True)
    job.look()
    assert job.line("fd_random") == "cyclegan_coats seed 0  0/8 kimg"
    timing = '{"kind": "train", "images_seen": 4000, "seconds": 50, "images_per_second": 80.0}\n'
    (job.path / "timing.jsonl").write_text(timing + '{"kind": "tra')
    evals = '{"kind": "eval", "images_seen": 4000, "a2b/fd_random": 1.234, "a2b/swd": 3}\n'
    (job.path / "metrics.jsonl").write_text(evals + '{"kind": "train", "images_seen": 4000}\n')
    job.look()
    assert job.line("fd_random") == (
        "cyclegan_coats seed 0  4/8 kimg  80 images/s  left 0:50  fd_random a2b 1.23"
    )


@pytest.mark.usefixtures("here")
def test_the_table_on_a_terminal_renews_itself(monkeypatch: Any) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    plan = make_plan(["cyclegan_coats", "budget.kimg=8", "seeds=0,1"])
    jobs = [Job(planned) for planned in plan.runs]
    jobs[0].state = "running"
    screen = Terminal()
    overview = Overview(screen, "fd_random")
    overview.update(jobs)
    written = len(screen.getvalue())
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen.getvalue())  # without the colours
    assert re.search(r"run +trained +speed +left +fd_random", shown)
    assert re.search(r"cyclegan_coats seed 0 +0/8 kimg", shown)
    assert "1 waiting" in shown
    jobs[0].state, jobs[0].reason = "failed", "no [memory] left"
    overview.event(jobs[0], jobs)
    erased, _, after = screen.getvalue()[written:].partition("[1/2] cyclegan_coats seed 0")
    assert "\x1b[1A" in erased  # the lines of the table are gone over
    assert after.startswith(" failed: no [memory] left\n")
    overview.close()
    assert screen.getvalue().endswith("\x1b[1A\x1b[2K")  # nor is anything of it left
    assert "\x1b[?25h" in screen.getvalue()  # and the cursor is back


@pytest.mark.usefixtures("here")
def test_a_log_file_gets_plain_lines() -> None:
    plan = make_plan(["cyclegan_coats", "budget.kimg=8", "seeds=0,1"])
    jobs = [Job(planned) for planned in plan.runs]
    jobs[0].state = "running"
    file = io.StringIO()
    overview = Overview(file, "fd_random")
    overview.event(jobs[0], jobs)
    jobs[0].last_line = -1e9
    overview.update(jobs)
    overview.update(jobs)  # not again so soon
    jobs[0].state = "done"
    overview.event(jobs[0], jobs)
    overview.close()
    assert file.getvalue() == (
        "cyclegan_coats seed 0 begins\n"
        "cyclegan_coats seed 0  0/8 kimg\n"
        "[1/2] cyclegan_coats seed 0 done\n"
    )


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gansuite", "compare", *arguments]


# the embedded set with one run of each kind: one that makes pictures, one that translates
ARGUMENTS = ("vanilla_coats", "discogan_coats", "budget.kimg=0.4", "name=c", *TINY)
RARE = (
    *("evaluate.every_kimg=0.2", "evaluate.learned=false", "evaluate.best_by=fd_random"),
    "rank_by=fd_random",
)
POINTS = 44  # of both runs: 20 at which losses are logged, 2 scores


def points(folder: Path) -> int:
    """How many points of their log the runs below a folder have passed."""
    return sum(f.read_bytes().count(b"\n") for f in folder.rglob("timing.jsonl"))


@pytest.mark.slow
def test_killed_at_random_moments_the_tables_are_the_same(tmp_path: Path) -> None:
    boards = [f"leaderboard.{suffix}" for suffix in ("md", "csv", "tex")]
    arguments = (*ARGUMENTS, *RARE)
    whole = subprocess.run(
        command(*arguments, f"out={tmp_path / 'whole'}"), capture_output=True, text=True
    )
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "[2/2]" in whole.stdout
    assert points(tmp_path / "whole") == POINTS
    cut = command(*arguments, f"out={tmp_path / 'cut'}", "jobs=2")
    moments = sorted(random.Random(0).sample(range(1, 3 * POINTS // 4), 3))
    stopped = []
    signals = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT)
    for number, moment in zip(signals, moments, strict=True):
        process = subprocess.Popen(cut, stdout=subprocess.PIPE, text=True)
        # a moment of the work and not of the clock, so that it is there on every machine
        while process.poll() is None and points(tmp_path / "cut") < moment:
            time.sleep(0.1)
        process.send_signal(number)
        assert process.stdout is not None
        told = process.stdout.read()
        stopped.append(process.wait())
        if stopped[-1] == STOPPED:
            assert f"Stopped by {number.name}; the same command resumes it." in told
        else:  # the runs were done; while it writes the page it is a command like any other
            assert stopped[-1] in (0, -number, 128 + number)
    assert STOPPED in stopped
    resumed = subprocess.run(cut, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    for board in boards:
        pair = [(tmp_path / folder / "c" / board).read_bytes() for folder in ("whole", "cut")]
        assert pair[0] == pair[1]
    again = subprocess.run(cut, capture_output=True, text=True)
    assert again.returncode == 0
    assert "2 runs, 2 done" in again.stdout
    assert "begins" not in again.stdout


@pytest.mark.slow
def test_a_failing_run_is_reported_and_does_not_stop_the_others(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = here / "runs/c/discogan_coats/seed0"
    broken.mkdir(parents=True)
    (broken / "checkpoints").write_text("in the way of the folder")
    arguments = ["discogan_coats", "vanilla_coats", "budget.kimg=0.04", "name=c", *TINY]
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", *arguments])
    assert ended.value.code == 1
    told = capsys.readouterr().out
    assert "[1/2] discogan_coats seed 0 failed: " in told
    assert "could not be written" in told
    assert "## gen" in told
    assert "discogan_coats, seed 0, failed:" in (here / "runs/c/leaderboard.md").read_text()
    assert "could not be written" in (broken / "error.txt").read_text()
    (broken / "checkpoints").unlink()
    page = here / "runs/c/vanilla_coats/seed0/report.html"
    page.unlink()  # as when it is killed between its results and its page
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", *arguments])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "2 runs, 1 done" in told
    assert "## a2b" in told
    assert not (broken / "error.txt").exists()
    assert "</html>" in page.read_text()
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", *arguments, "data.train=33"])
    assert ended.value.code == 2
    assert "was begun with another configuration" in capsys.readouterr().err
    assert os.environ["OMP_NUM_THREADS"] == "1"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("option", ["inception", "vgg"])
def test_missing_weights_are_met_before_anything_runs(option: str) -> None:
    text = refusal("cyclegan_coats", "budget.kimg=8", f"evaluate.{option}=/missing.pth")
    assert f"or leave evaluate.{option} empty" in text

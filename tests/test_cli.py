"""The commands as a person meets them: what they print, and one sentence for every mistake."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gansuite import cli, engine
from gansuite.compare import charts
from gansuite.compare.plan import make_plan
from gansuite.data.published import REGISTRY
from gansuite.runs import write_checkpoint

TINY = (
    *("data.train=16", "data.test=8", "data.batch=2", "evaluate.pictures=8", "evaluate.samples=2"),
    *("method.width=4", "method.d_width=4", "method.blocks=1"),
    *("log.wandb=disabled", "trainer.accelerator=cpu"),
    *("budget.kimg=0.032", "log.every_kimg=0.008", "evaluate.every_kimg=0.016"),
)

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: Any) -> Say:
    """Run a command; its exit code, stdout and stderr."""

    def say(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return say


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a few batches of CycleGAN."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "chart", lambda *_, **__: "")  # slow, and tested with the pages
        with pytest.raises(SystemExit) as end:
            cli.main(["exp", *tiny(out / "runs")])
        assert not end.value.code
    return out / "runs" / "cyclegan_coats" / "seed0"


def tiny(out: Path, *overrides: str) -> list[str]:
    """Eight batches, logged every two, scored every four."""
    return ["cyclegan_coats", *TINY, f"out={out}", *overrides]


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def pictures(folder: Path, count: int = 3) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def both(root: Path) -> None:
    for side in ("trainA", "trainB", "testA", "testB"):
        pictures(root / side)


# --- what goes well -----------------------------------------------------------------------------


def test_help(say: Say) -> None:
    code, out, _ = say()
    assert code == 0
    for name in ("exp", "config", "list", "check-data", "evaluate", "translate", "sample"):
        assert f"\n    {name} " in out
    assert say("--version")[0] == 0


def test_config_and_list(say: Say) -> None:
    code, out, _ = say("config", "cyclegan_coats", "seed=7")
    assert code == 0
    assert "\nseed: 7\n" in f"\n{out}"
    code, out, _ = say("list")
    assert code == 0
    for name in ("cyclegan", "vanilla", "coats", "horse2zebra", "cyclegan_coats"):
        assert f"\n  {name} " in out


def test_check_data(say: Say, here: Path) -> None:
    assert say("check-data", "cyclegan_coats")[0] == 0
    both(here / "two")
    code, out, _ = say("check-data", "cyclegan_horse2zebra", "data.root=two")
    assert code == 0
    assert "train: horse 3 (published: 1067), zebra 3 (published: 1334)" in out
    (here / "two/testB/0.png").write_bytes(b"no picture")
    code, out, _ = say("check-data", "cyclegan_horse2zebra", "data.root=two")
    assert code == 2
    assert "NOT USABLE" in out


def test_a_finished_run_is_left_alone(say: Say, trained: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    code, out, _ = say("exp", *tiny(trained.parents[1]))
    assert code == 0
    assert f"{trained} is done" in out
    assert {p: p.stat().st_mtime_ns for p in trained.rglob("*")} == before


def test_changed_configuration_is_refused_with_the_difference(say: Say, trained: Path) -> None:
    before = tree(trained)
    out = trained.parents[1]
    code, _, err = say("exp", *tiny(out, "optim.g.lr=1e-5", "seed=0"))
    assert code == 2
    assert "optim.g.lr: 0.0004 -> 1e-05" in err
    assert "another 'name='" in err
    assert "optim.d.lr: 0.0004 -> 1e-05" in err  # which refers to it
    assert tree(trained) == before
    # what changes no number is free
    code, text, _ = say("exp", *tiny(out, "log.tags=[a]"))
    assert (code, "is done" in text) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["last", "best"])
def test_evaluate_repeats_the_scores(say: Say, trained: Path, name: str, tmp_path: Path) -> None:
    file = trained / "checkpoints" / f"{name}.ckpt"
    found = engine.evaluate(file)
    results = json.loads((trained / "results.json").read_text())
    expected = results["final"] if name == "last" else results["best"]
    expected = {c: {m: v for m, v in s.items() if m != "images_seen"} for c, s in expected.items()}
    assert found["final"] == expected == found["recorded"]
    assert found["protocol"] == results["protocol"]
    code, out, _ = say("evaluate", str(file))
    assert code == 0
    assert "Equal to the scores that the run recorded." in out
    assert "real vs real" in out


def test_evaluate_tells_a_difference(say: Say, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "x" / "seed0"
    shutil.copytree(trained, run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[-1]["b2a/swd"] += 1
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "Unlike the scores that the run recorded: b2a/swd by 1." in say("evaluate", str(run))[1]
    assert "no scores to compare" in say("evaluate", str(run), "evaluate.pictures=4")[1]
    code, _, err = say("evaluate", str(run), "method.blocks=3")
    assert code == 2
    assert "method.blocks: 1 -> 3" in err


@pytest.mark.usefixtures("no_charts")
def test_translate_and_report(say: Say, trained: Path, here: Path) -> None:
    pictures(here / "in", 2)
    code, out, _ = say("translate", str(trained), "in", "out", "--to", "horse")
    assert (code, tree(here / "out")) == (0, ["0.png", "1.png"])
    assert "2 picture(s) written to out" in out
    (trained / "report.html").unlink()
    assert say("report", str(trained))[1].strip() == str(trained / "report.html")
    assert (trained / "report.html").is_file()


def test_stopped_runs_say_how_to_go_on(say: Say, monkeypatch: Any, tmp_path: Path) -> None:
    class Stopped:
        main, stopped = True, "SIGTERM"

    monkeypatch.setattr(engine, "train", lambda e: Stopped())
    monkeypatch.setattr("gansuite.compare.report.write_report", lambda run: run / "report.html")
    code, out, _ = say("exp", "cyclegan_coats", f"out={tmp_path}")
    assert code == 75
    assert "Stopped by SIGTERM; the same command resumes it." in out


# --- mistakes -----------------------------------------------------------------------------------

# case -> (words, what the sentence must say); run in the folder that `mistakes` lays out
COATS = "exp cyclegan_coats data.train=16 data.test=8"
PHOTOS = "exp cyclegan_horse2zebra data.size=32 data.load_size=32"
BAD = {
    "command": ("exq cyclegan_coats", "no 'exq'; did you mean 'exp'?"),
    "no name": ("exp", "required: NAME"),
    "option": ("exp cyclegan_coats --seed 1", "written key=value, such as seed=1"),
    "experiment": ("exp cyclegan_cats", "no experiment 'cyclegan_cats'"),
    "experiment near": ("exp cyclegan_cats", "did you mean 'cyclegan_coats'?"),
    "file": ("exp no.yaml", "no experiment file no.yaml"),
    "key": (f"{COATS} data.bacth=3", "did you mean 'data.batch'?"),
    "type": (f"{COATS} data.batch=x", "'data.batch' is 'x'"),
    "method": (f"{COATS} method.name=cyclegn", "did you mean 'cyclegan'?"),
    "data": (f"{COATS} data.name=cots", "did you mean 'coats'?"),
    "player": (f"{COATS} optim.q.lr=1", "no player of cyclegan"),
    "loss": (f"{COATS} method.loss=lsgn", "lsgan"),
    "network": (f"{COATS} method.width=0", "cyclegan cannot be built with these options: g."),
    "layers": (f"{COATS} method.blocks=-1", "'method.blocks' is -1"),
    "missing folder": (f"{PHOTOS} data.name=unpaired data.root=nowhere", "'nowhere'"),
    "empty folder": (f"{PHOTOS} data.root=hollow", "holds no pictures; accepted are .jpg"),
    "corrupt picture": (f"{PHOTOS} data.root=corrupt", "corrupt/testB/1.png"),
    "one domain": (f"{PHOTOS} data.root=half", "no 'trainB'"),
    "one coat": (f"{COATS} data.domains=[horse]", "cyclegan needs 2 domains"),
    "three coats": (f"{COATS} data.domains=[horse,zebra,giraffe]", "exactly 2 domains"),
    "size": (f"{COATS} data.size=34", "multiple of 32: 32 or 64."),
    "load size": (f"{PHOTOS} data.root=two data.load_size=30", "data.load_size is 30"),
    "chunks": (f"{COATS} trainer.accumulate=3", "use a multiple of 3"),
    "no gpu": (f"{COATS} trainer.accelerator=tpu", "'trainer.accelerator' is 'tpu'"),
    "no device": (f"{COATS} trainer.devices=0", "'trainer.devices' is 0"),
    "metric": (f"{COATS} evaluate.best_by=fd_rndom", "did you mean 'fd_random'?"),
    "no order": (f"{COATS} evaluate.best_by=diversity", "by which nothing can be ranked"),
    "weights": (f"{COATS} evaluate.inception=no.pth", "no.pth"),
    "wandb": (f"{COATS} log.wandb=online", "no W&B key: set WANDB_API_KEY"),
    "out": (f"{COATS} out=text.ckpt", "text.ckpt/cyclegan_coats/seed0 could not be made"),
    "text": ("translate text.ckpt two out", "text.ckpt is not a gansuite checkpoint"),
    "tensors": ("sample tensors.ckpt out", "tensors.ckpt holds tensors, but"),
    "module": ("evaluate module.ckpt", "module.ckpt is not a gansuite checkpoint"),
    "no checkpoint": ("translate no.ckpt two out", "no checkpoint no.ckpt"),
    "folder without": ("evaluate two", "two is a folder without checkpoints/last.ckpt"),
    "report": ("report two", "'two' is no run directory"),
    "sync": ("sync", "no offline W&B run in runs"),
    "intermixed": ("compare cyclegan_coats --allow-unequal out=x nope", "or folder 'nope'"),
    "unknown option": ("compare cyclegan_coats --allow out=x --b", "unrecognized arguments: --b;"),
    "an option nearly": ("translate a b c --devise=2", "--devise=2; did you mean '--device'?"),
    "a second folder": ("score a --data cyclegan_coats --name b c", "unrecognized arguments: c"),
    "extends": ("config three.yaml", "three.yaml: 'extends' is 3; it must be the name of a file"),
    "extends a map": ("config map.yaml", "'extends' is {'a': 1}; it must be"),
    "unknown set option": (
        "config stargan_coats_joint data.sets.x.name=coats data.sets.x.domain=[zebra]",
        "did you mean 'data.sets.x.domains'",
    ),
    "half a checkpoint": ("evaluate half.ckpt", "half.ckpt is not a whole checkpoint: it holds no"),
}


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    for root in ("two", "corrupt"):
        both(folder / root)
    (folder / "corrupt/testB/1.png").write_bytes(b"\x89PNG\r\n\x1a\njunk")
    for side in ("trainA", "testA"):
        pictures(folder / "half" / side)
    for side in ("trainA", "trainB", "testA", "testB"):
        (folder / "hollow" / side).mkdir(parents=True)
    (folder / "text.ckpt").write_text("hello")
    torch.save({"a": torch.zeros(2)}, folder / "tensors.ckpt")
    torch.save(torch.nn.Linear(2, 2), folder / "module.ckpt")
    torch.save({"gansuite": 1, "experiment": {}}, folder / "half.ckpt")
    (folder / "three.yaml").write_text("extends: 3\n")
    (folder / "map.yaml").write_text("extends: {a: 1}\n")
    return folder


@pytest.mark.parametrize("case", BAD)
def test_mistakes(case: str, mistakes: Path, say: Say, monkeypatch: Any) -> None:
    words, expected = BAD[case]
    monkeypatch.chdir(mistakes)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(mistakes / "none"))
    before = tree(mistakes)
    code, _, err = say(*words.split())
    assert code == 2
    assert expected in err
    assert err.startswith("gansuite: ")
    assert err.count("\n") == 1  # one line, no traceback
    assert tree(mistakes) == before


def test_a_file_that_is_no_text_is_listed_as_such(say: Say, here: Path) -> None:
    (here / "experiments").mkdir()
    (here / "experiments/a.yaml").write_bytes(b"# caf\xe9\n")
    (here / "experiments/b.yaml").write_text("\n")
    code, out, _ = say("list")
    assert code == 0
    assert re.search(r"^  a +\(experiments/a.yaml is not a text file in UTF-8\)$", out, re.M)


def test_results_without_checkpoints_are_not_made_again(
    say: Say, trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs/cyclegan_coats/seed0"
    shutil.copytree(trained, run)
    shutil.rmtree(run / "checkpoints")
    for lines in (run / "metrics.jsonl", None):
        before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
        code, out, _ = say("exp", *tiny(tmp_path / "runs"))
        assert (code, f"{run} is done" in out) == (0, True)
        code, _, err = say("exp", *tiny(tmp_path / "runs", "optim.g.lr=1e-5"))
        assert (code, "optim.g.lr: 0.0004 -> 1e-05" in err) == (2, True)
        assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before
        if lines:
            lines.unlink()
    plan = make_plan([*tiny(tmp_path), "name=runs"])
    assert plan.runs[0].path == run
    assert plan.runs[0].done


def test_a_checkpoint_or_record_that_is_damaged(say: Say, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "x" / "seed0"
    shutil.copytree(trained, run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('3\n{"kind": "eval"}\n')
    code, out, _ = say("evaluate", str(run))
    assert (code, "Equal to the scores" in out) == (0, True)
    pictures(tmp_path / "in", 1)
    file = run / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    notes = content.pop("notes")
    write_checkpoint(file, content)
    code, _, err = say("evaluate", str(run))
    assert (code, err.count("\n"), "it holds no 'notes'" in err) == (2, 1, True)
    content["experiment"]["method"]["colour"] = 1
    write_checkpoint(file, {**content, "notes": notes})
    for words in (["translate", str(run), str(tmp_path / "in"), str(tmp_path / "out")],
                  ["evaluate", str(run)]):  # fmt: skip
        code, _, err = say(*words)
        assert (code, err.count("\n"), "'method.colour'" in err) == (2, 1, True), err


def test_indivisible_batch_is_met_before_a_process_is_launched(
    say: Say, here: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(engine, "build_data", lambda e: pytest.fail("data were touched"))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("launched"))
    code, _, err = say("exp", "cyclegan_coats", "trainer.devices=3", "trainer.accelerator=cpu")
    assert (code, tree(here)) == (2, [])
    assert "'data.batch' is 4 for all processes together, which 3 process(es)" in err
    started = {"RANK": 1, "WORLD_SIZE": 5, "LOCAL_RANK": 1, "MASTER_ADDR": "h", "MASTER_PORT": 9}
    for name, value in started.items():
        monkeypatch.setenv(name, str(value))
    assert "5 process(es)" in say("exp", "cyclegan_coats", "trainer.devices=5")[2]


def test_a_metric_that_cannot_rank_is_refused_before_data_are_touched(
    say: Say, here: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(engine, "build_data", lambda e: pytest.fail("data were touched"))
    for command in ("exp", "config"):
        code, _, err = say(command, "cyclegan_coats", "evaluate.best_by=fd_rndom")
        assert (code, tree(here), "did you mean 'fd_random'?" in err) == (2, [], True)


def test_absent_data_without_a_network(say: Say, here: Path, monkeypatch: Any) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError("no network")

    monkeypatch.delenv("GANSUITE_DATA", raising=False)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    code, _, err = say("exp", "cyclegan_horse2zebra")
    archive = REGISTRY["horse2zebra"].archive
    assert (code, tree(here)) == (2, [])
    for part in (*archive.urls, str(archive.size), archive.sha256, "'data/horse2zebra.zip'"):
        assert part in err
    assert err.count("\n") == 1


def test_out_of_memory_names_the_settings(say: Say, here: Path, monkeypatch: Any) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    words = tiny(here / "runs")
    with monkeypatch.context() as patch:
        patch.setattr("gansuite.methods.cyclegan.CycleGAN.g_losses", full)
        code, _, err = say("exp", *words)
    assert code == 2
    for key in ("'data.batch' 2", "'data.size' 32", "'trainer.accumulate' (now 1)"):
        assert key in err
    assert tree(here) == []  # so another batch size is not "another configuration"
    with monkeypatch.context() as patch:  # what another error says is not hidden
        patch.setattr("gansuite.methods.cyclegan.CycleGAN.g_losses", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cli.main(["exp", *words])


@pytest.mark.slow
def test_the_installed_command(here: Path) -> None:
    command = [sys.executable, "-m", "gansuite", "exp", "cyclegan_cots"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "did you mean 'cyclegan_coats'?" in done.stderr


def test_make() -> None:
    folder = Path(__file__).resolve().parents[1]

    def make(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True)

    if shutil.which("make") is None:
        pytest.skip("no make here")
    assert "make exp" in make("help").stdout
    done = make("exp")  # says so before anything is installed
    assert "Installing" not in done.stdout
    assert done.returncode == 2
    assert "Say which: make exp NAME=cyclegan_coats" in done.stdout + done.stderr


def test_too_little_memory_to_load_torch_is_one_sentence(monkeypatch: Any, capsys: Any) -> None:
    def fail(*_: Any) -> None:
        raise ImportError("libtorch_cuda.so: failed to map segment from shared object")

    monkeypatch.setattr("gansuite.commands.config", fail)
    with pytest.raises(SystemExit) as end:
        cli.main(["config", "vanilla_coats"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said == "gansuite: there is too little memory to begin with (ulimit -v)\n"

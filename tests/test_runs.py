"""The run directory: never half-written, one process at a time, honest about what is in it."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import command, experiment, train
from lightning import Callback
from PIL import Image

from gansuite import engine, runs
from gansuite.devices import settled
from gansuite.errors import UserError
from gansuite.imaging import save_picture
from gansuite.runs import (
    Run,
    read_checkpoint,
    read_lines,
    write_checkpoint,
    write_json,
    write_text,
)

CONTENT = {"weights": torch.arange(200_000.0), "more": {"a": [1, "b", None]}}


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


# --- writing --------------------------------------------------------------------------------------


def no_space(*args: Any, **kwargs: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class NoSpace:
    """A file whose device is full after 100 kB, as `torch.save` meets it."""

    def __init__(self, file: Any) -> None:
        self.file, self.left = file, 100_000

    def write(self, data: Any) -> int:
        self.left -= memoryview(data).nbytes
        if self.left < 0:
            no_space()
        return int(self.file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("where", ["fsync", "save", "write", "limit"])
def test_a_full_disk_leaves_the_last_checkpoint(
    where: str, tmp_path: Path, monkeypatch: Any
) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    write_checkpoint(path, {**CONTENT, "turn": 1})
    before = path.read_bytes()
    real = torch.save
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        if where == "fsync":
            patch.setattr(os, "fsync", no_space)
        elif where == "save":
            patch.setattr(torch, "save", no_space)
        elif where == "write":
            patch.setattr(torch, "save", lambda value, file: real(value, NoSpace(file)))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(UserError) as caught:
                write_checkpoint(path, {**CONTENT, "turn": 2})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    reason = "File too large" if where == "limit" else "the disk is full"
    assert str(caught.value) == (
        f"{path} could not be written ({reason}); the previous one is kept; "
        f"make room and repeat the command."
    )
    assert path.read_bytes() == before
    assert read_checkpoint(path)["turn"] == 1
    assert tree(tmp_path) == ["checkpoints", "checkpoints/last.ckpt"]


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), runs.replacing(tmp_path / "x"):
        raise RuntimeError("mine, while writing")
    with pytest.raises(UserError, match="theirs"), runs.replacing(tmp_path / "x"):
        raise UserError("theirs")
    assert tree(tmp_path) == []


def test_files_get_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_json(tmp_path / "x.json", {"ä": [1.5]})
    assert (tmp_path / "x.json").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert runs.read_json(tmp_path / "x.json") == {"ä": [1.5]}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a small disk")
def test_a_run_on_a_disk_that_fills_up(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no mounting here")
    words = command(experiment("cyclegan_coats", disk / "runs", 12, "evaluate.samples=1"), tmp_path)
    try:
        seen = set()
        for size in ("100k", "1m", "2m"):
            subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
            done = subprocess.run(words, capture_output=True, text=True)
            assert done.returncode in (0, 2), done.stderr
            assert done.stderr.count("\n") == (done.returncode == 2)
            left = [p for p in disk.rglob(".*") if p.name != ".lock"]
            assert left == []
            for file in disk.rglob("*.ckpt"):
                read_checkpoint(file)
            seen.add(done.returncode)
        assert 2 in seen
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0
        assert (disk / "runs/cyclegan_coats/seed0/results.json").is_file()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- reading --------------------------------------------------------------------------------------


def test_checkpoints_that_are_none(tmp_path: Path) -> None:
    good = tmp_path / "run" / "checkpoints" / "best.ckpt"
    write_checkpoint(good, CONTENT)
    assert torch.equal(read_checkpoint(tmp_path / "run")["weights"], CONTENT["weights"])
    (tmp_path / "cut.ckpt").write_bytes(good.read_bytes()[:100_000])
    (tmp_path / "empty.ckpt").write_bytes(b"")
    torch.save({"gansuite": 99}, tmp_path / "newer.ckpt")
    for name, expected in (
        ("cut.ckpt", "not a gansuite checkpoint, or it is damaged"),
        ("empty.ckpt", "not a gansuite checkpoint, or it is damaged"),
        ("newer.ckpt", "has checkpoint format 99"),
        ("none.ckpt", "There is no checkpoint"),
        (".", "is a folder without checkpoints/last.ckpt"),
    ):
        with pytest.raises(UserError, match=expected):
            read_checkpoint(tmp_path / name)


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.append(run.metrics, {"kind": "train", "images_seen": 4})
    lengths = run.lengths()
    run.append(run.metrics, {"kind": "eval", "images_seen": 8, "a2b/swd": 1.5, "a2b/l1": 2.0})
    assert run.scores_at(8) == {"a2b": {"swd": 1.5, "l1": 2.0}}
    assert run.scores_at(4) is None
    run.metrics.write_bytes(run.metrics.read_bytes() + b'{"kind": "tr\xff')
    assert [r["images_seen"] for r in read_lines(run.metrics)] == [4, 8]
    run.rewind(lengths)
    assert [r["images_seen"] for r in read_lines(run.metrics)] == [4]
    run.rewind({})
    assert read_lines(run.metrics) == []


# --- one directory, one run -----------------------------------------------------------------------


def test_two_starts_at_once(tmp_path: Path) -> None:
    e = experiment("cyclegan_coats", tmp_path, 4)
    first, second = Run(e.run_dir), Run(e.run_dir)
    first.begin(e)
    with pytest.raises(UserError, match=r"Another process is running in .*'name=' or 'seed='"):
        second.begin(e)
    second.abandon()  # must not take the first one's folder away
    assert (e.run_dir / "config.yaml").is_file()
    first.abandon()
    assert tree(tmp_path) == []


@pytest.mark.slow
def test_two_processes_at_once(tmp_path: Path) -> None:
    words = command(experiment("vanilla_coats", tmp_path / "runs", 8), tmp_path)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(words, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    ends = [(*p.communicate(), p.returncode) for p in both]
    done = [e for e in ends if e[2] == 0]
    assert done
    for _, err, code in ends:
        assert code == 0 or (code == 2 and "Another process is running in" in err)
    seen = [
        r["images_seen"] for r in read_lines(tmp_path / "runs/vanilla_coats/seed0/metrics.jsonl")
    ]
    assert seen == sorted(seen)
    assert max(seen) == 16


def test_unreadable_config(tmp_path: Path) -> None:
    e = experiment("cyclegan_coats", tmp_path, 4)
    run = Run(e.run_dir)
    run.begin(e)
    (run.path / "config.yaml").write_bytes(b"\xff\xfe: [")
    run.refuse_changes(e)  # nothing was recorded, nothing is lost
    run.append(run.metrics, {"kind": "train", "images_seen": 4})
    with pytest.raises(UserError, match=r"config.yaml cannot be read; move .*seed0 away"):
        run.refuse_changes(e)
    run.abandon()
    assert run.metrics.is_file()  # a record is never removed


@pytest.mark.parametrize(
    ("override", "refused"),
    [
        ("seed=1", ""),  # another directory
        ("log.every_kimg=9", ""),
        ("data.workers=2", ""),
        ("trainer.devices=2", ""),
        ("data.batch=4", "data.batch: 2 -> 4"),
        ("ema.half_life_kimg=1", "ema.half_life_kimg: 0.5 -> 1.0"),
        ("method.weights.cycle=5", "method.weights.cycle: 10.0 -> 5.0"),
        ("evaluate.pictures=5", "evaluate.pictures: 8 -> 5"),
    ],
)
def test_what_may_change(override: str, refused: str, tmp_path: Path) -> None:
    before = experiment("cyclegan_coats", tmp_path, 4)
    after = experiment("cyclegan_coats", tmp_path, 4, override)
    run = Run(before.run_dir)
    run.begin(before)
    run.append(run.metrics, {"kind": "train", "images_seen": 4})
    if refused:
        with pytest.raises(UserError) as caught:
            Run(after.run_dir).refuse_changes(after)
        assert f"configuration: {refused}. Give the same values" in str(caught.value)
    else:
        Run(after.run_dir).refuse_changes(after)


class Fail(Callback):
    """Raises after ``batches``."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if pl_module.batches == self.batches:
            raise RuntimeError("killed")


@pytest.mark.slow
def test_a_whole_run(tmp_path: Path, monkeypatch: Any) -> None:
    e = experiment("cyclegan_coats", tmp_path / "a", 10)
    train(monkeypatch, e)
    run = Run(e.run_dir)
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == settled(e).plain()
    (environment,) = runs.environments(run.path)
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert environment["device"].startswith("1 x cpu")
    assert environment["threads"] == torch.get_num_threads()
    assert {"python", "commit", "platform", "command"} <= environment.keys()

    results = runs.read_json(run.results)
    assert results["experiment"] == "cyclegan_coats"
    assert (results["seed"], results["images_seen"], results["batches"]) == (0, 40, 10)
    assert results["protocol"]["id"].startswith("p")
    assert results["budget"]["kimg"] == 0.04
    rows = [results["final"], results["best"], *results["references"].values()]
    assert len(rows) == 4
    for row in rows:
        assert row.keys() == {"a2b", "b2a"}
        for scores in row.values():
            assert {"fd_random", "swd", "diversity"} <= scores.keys()
            assert all(math.isfinite(v) for v in scores.values())
    assert results["best"]["a2b"]["images_seen"] in {16, 32, 40}
    for key in ("seconds", "images_per_second", "peak_memory_mb", "flops_per_image"):
        assert results["cost"][key] > 0
    assert 0 < results["cost"]["evaluation_share"] < 1
    counts = engine.load_method(run.path).parameter_counts()
    assert results["cost"]["parameters"] == counts
    assert isinstance(results["verdict"], str)

    # no clock in metrics.jsonl: an interrupted run writes the same bytes
    other = experiment("cyclegan_coats", tmp_path / "b", 10)
    with pytest.raises(RuntimeError, match="killed"):
        train(monkeypatch, other, Fail(7))
    again = Run(other.run_dir)
    assert [r["images_seen"] for r in read_lines(again.metrics)][-1] == 24  # beyond the checkpoint
    assert read_checkpoint(again.last)["method"]["counters"]["images_seen"] == 16
    train(monkeypatch, other)
    assert again.metrics.read_bytes() == run.metrics.read_bytes()
    assert json.dumps(runs.read_json(again.results)["final"]) == json.dumps(results["final"])


@pytest.mark.slow
def test_changed_pictures_are_not_mixed(tmp_path: Path, monkeypatch: Any) -> None:
    e = experiment("cyclegan_coats", tmp_path, 8, "evaluate.learned=false", "evaluate.best_by=swd")
    with pytest.raises(RuntimeError, match="killed"):
        train(monkeypatch, e, Fail(5))
    monkeypatch.setattr("gansuite.data.sources.coats.Coats.digest", lambda self: "another")
    with pytest.raises(UserError, match="have changed since"):
        train(monkeypatch, e)


@pytest.mark.slow
def test_a_metric_that_no_comparison_has_cannot_pick_the_best(tmp_path: Path) -> None:
    options = ("evaluate.learned=false", "evaluate.best_by=psnr")
    run = engine.train(experiment("cyclegan_coats", tmp_path, 1, *options)).run
    assert runs.read_json(run.results)["best"]
    with pytest.raises(UserError) as caught:
        engine.train(experiment("vanilla_coats", tmp_path, 1, *options))
    text = str(caught.value)
    assert text.startswith("'evaluate.best_by' is 'psnr', which no comparison of this run has")
    assert "(they have: fd_random, kd_random, swd, " in text
    assert not (tmp_path / "vanilla_coats").exists()


@pytest.mark.parametrize("name", ["strip_a2b_fake.png", "000000128.jpg", "last.ckpt"])
def test_what_a_killed_writer_leaves_goes_at_the_next_start(name: str, tmp_path: Path) -> None:
    """Whatever writes it: pictures, checkpoints and texts share one writer."""
    run = Run(tmp_path)
    folder = run.last.parent if name.endswith("ckpt") else tmp_path / "samples"

    def write() -> None:
        if name.endswith("ckpt"):
            write_text(folder / name, "whole")
        else:
            save_picture(Image.new("RGB", (8, 8)), folder / name)

    if (child := os.fork()) == 0:  # killed when the file is whole, and not yet in its place
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        write()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert len(list(folder.iterdir())) == 1
    run.clean()
    assert not list(folder.iterdir())
    write()
    assert [p.name for p in folder.iterdir()] == [name]

"""Runs that are kept elsewhere: fsspec's memory, and an S3 server in this process."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_slurm
import fsspec
import pytest
from helpers import EachBatch, command, difference, experiment, train, untrained
from PIL import Image

from gansuite import engine, files
from gansuite.catalogue import load_experiment
from gansuite.cli import main
from gansuite.compare.executors import slurm
from gansuite.config import Experiment
from gansuite.errors import UserError
from gansuite.runs import Run, fetched, publish, read_checkpoint, read_json, remote
from gansuite.runs.lease import EXPIRES, JOB, START, statement
from gansuite.runs.remote import Held, Remote

TINY = (
    *("evaluate.learned=false", "evaluate.best_by=fd_random", "evaluate.pictures=2"),
    *("log.loggers=[]", "log.every_kimg=0.002", "log.checkpoint_every_kimg=0.004"),
)
"""A line for each batch, a checkpoint for every second."""
NAME = "vanilla_coats"
AT = f"bucket/runs/{NAME}/seed0"


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: Any) -> Iterator[Any]:
    """An empty memory file system, and an empty cache."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    another_machine(tmp_path / "a", monkeypatch)
    yield store
    store.store.clear()


def another_machine(cache: Path, monkeypatch: Any) -> None:
    """From now on nothing is known that was not sent."""
    monkeypatch.setenv("GANSUITE_CACHE", str(cache))


def there(out: str = "memory://bucket/runs", batches: int = 4) -> Experiment:
    return experiment(NAME, Path(), batches, *TINY).model_copy(update={"out": out})


def kept(store: Any, name: str, at: str = AT) -> bytes:
    return bytes(store.cat_file(f"{at}/{name}"))


def cut_off(e: Experiment, batch: int, monkeypatch: Any) -> None:
    """Train until something raises after ``batch`` batches."""

    def stop(method: Any) -> None:
        if method.batches == batch:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(monkeypatch, e, EachBatch(stop))


def same_run(a: Path, b: Path) -> None:
    """Two runs have come to the same, to the last bit."""
    for name in ("metrics.jsonl", "samples/final.jpg"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    x, y = read_checkpoint(a), read_checkpoint(b)
    for part in ("method", "rank_state", "lengths", "precision", "data"):
        x[part].pop("timing.jsonl", None) if part == "lengths" else None
        y[part].pop("timing.jsonl", None) if part == "lengths" else None
        assert difference(x[part], y[part], part) == ""
    x, y = read_json(a / "results.json"), read_json(b / "results.json")
    for part in ("final", "best", "references", "images_seen", "protocol"):
        assert x[part] == y[part]


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "folder"),
    [
        ("s3://bucket/runs/", "s3/bucket/runs"),
        ("S3://bucket/runs", "s3/bucket/runs"),
        ("memory://x", "memory/x"),
        ("file:///shared/runs", "/shared/runs"),
        ("runs/a", None),
        ("/x/y", None),
    ],
)
def test_an_address_and_its_copy(
    address: str, folder: str | None, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("GANSUITE_CACHE", str(tmp_path))
    found = files.local_path(address)
    if folder is None or folder.startswith("/"):
        assert found == Path(folder or address)
        assert files.address_of(found) == ""
        assert not files.is_address(address)
    else:
        assert found == tmp_path / "remote" / folder
        assert files.address_of(found) == address.lower().rstrip("/")
        assert files.address_of(found / "a" / "seed0") == f"{address.lower().rstrip('/')}/a/seed0"


@pytest.mark.parametrize("out", ["s3://", "s3://bucket/../x", "memory:///"])
def test_no_address(out: str) -> None:
    with pytest.raises(UserError, match=r"'out' is .*, which is no address"):
        load_experiment(NAME, [f"out={out}"])


# --- a run --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_is_cut_off_goes_on_from_another_machine(
    memory: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    e = there()
    cut_off(e, 3, monkeypatch)
    before = json.loads(kept(memory, "metrics.jsonl").splitlines()[-1])
    assert before["images_seen"] == 6  # the line of batch 3, behind the checkpoint at batch 2
    assert not memory.exists(f"{AT}/.lock")
    another_machine(tmp_path / "b", monkeypatch)
    copy = engine.train(e).run.path
    assert copy.is_relative_to(tmp_path / "b")
    alone = engine.train(experiment(NAME, tmp_path, 4, *TINY)).run.path
    same_run(copy, alone)
    for path in copy.rglob("*.*"):
        if path.is_file() and not path.name.startswith("."):
            assert kept(memory, path.relative_to(copy).as_posix()) == path.read_bytes()
    another_machine(tmp_path / "c", monkeypatch)
    assert engine.is_done(e)
    same_run(e.run_dir, alone)


@pytest.mark.slow
@pytest.mark.parametrize("sent", ["always", "at the end"])
def test_at_every_moment_what_is_there_can_be_resumed(
    sent: str, memory: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Whatever of a push has arrived when the machine dies; also of the only one, where the address
    could not be reached before."""
    if sent != "always":
        push = Held.push
        monkeypatch.setattr(
            Held, "push", lambda self, only=None, needed=True: needed and push(self, only)
        )
    states: list[dict[str, Any]] = []
    put = Remote._put

    def noted(self: Remote, *words: Any) -> None:
        put(self, *words)
        states.append(dict(memory.store))

    monkeypatch.setattr(Remote, "_put", noted)
    e = there()
    engine.train(e)
    found = []
    for i, state in enumerate(states):
        memory.store.clear()
        memory.store.update({k: v for k, v in state.items() if not k.endswith(".lock")})
        another_machine(tmp_path / f"after{i}", monkeypatch)
        run = Run(e.run_dir)
        run.refresh()
        if run.resumable:
            content, fault = run.newest(e)
            # the one before may have come alone
            assert fault == "" or fault.startswith("There is no checkpoint ")
            found.append(content["method"]["counters"]["batches"])
        if run.done:
            assert found[-1] == 4
    assert set(found) == ({2, 4} if sent == "always" else {4})  # saved again at the end
    assert found == sorted(found)


def test_where_a_put_is_not_whole_a_file_is_moved_into_its_place(
    memory: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(remote, "_WHOLE", ())
    seen: list[str] = []
    put_file = type(memory).put_file
    monkeypatch.setattr(
        type(memory),
        "put_file",
        lambda self, a, b, *c, **d: (seen.append(b), put_file(self, a, b, *c, **d))[1],
    )
    path = files.local_path("memory://bucket/run")
    path.mkdir(parents=True)
    (path / "metrics.jsonl").write_text("{}\n")
    Remote(path).push()
    assert [name.rpartition(".")[2] for name in seen] == ["part"]
    assert Remote(path).names() == ["metrics.jsonl"]
    (path / "metrics.jsonl").write_text("{}\n{}\n")
    Remote(path).push()
    assert kept(memory, "metrics.jsonl", "bucket/run") == b"{}\n{}\n"
    assert memory.find("bucket") == ["/bucket/run/metrics.jsonl"]


def test_only_what_has_changed_is_copied_and_sent(
    memory: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    path = files.local_path("memory://bucket/run")
    last, previous = path / "checkpoints/last.ckpt", path / "checkpoints/last.prev.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes(b"1")
    (path / "config.yaml").write_text("a: 1\n")
    (path / "slurm").mkdir()
    (path / "slurm/jobs.json").write_text("{}")  # stays here, and stays
    done: list[tuple[str, ...]] = []
    put, get = Remote._put, Remote._get
    monkeypatch.setattr(Remote, "_put", lambda s, n, a: (done.append((n, a)), put(s, n, a))[1])
    monkeypatch.setattr(Remote, "_get", lambda s, n: (done.append((n,)), get(s, n))[1])
    here = Remote(path)
    here.push()
    assert done == [("config.yaml", None), ("checkpoints/last.ckpt", None)]
    os.replace(last, previous)
    last.write_bytes(b"22")
    here.push()  # the one before is copied there, and not sent again
    assert done[2:] == [
        ("checkpoints/last.prev.ckpt", "checkpoints/last.ckpt"),
        ("checkpoints/last.ckpt", None),
    ]
    assert kept(memory, "checkpoints/last.prev.ckpt", "bucket/run") == b"1"
    here.push()
    assert not here.pull()
    assert len(done) == 4
    memory.pipe_file("bucket/run/config.yaml", b"a: 2\n")  # by another machine
    memory.rm_file("bucket/run/checkpoints/last.prev.ckpt")
    assert here.pull()
    assert done[4:] == [("config.yaml",)]
    assert (path / "config.yaml").read_text() == "a: 2\n"
    assert not previous.exists()
    assert (path / "slurm/jobs.json").exists()
    another_machine(tmp_path / "b", monkeypatch)
    assert fetched("memory://bucket/run", checkpoints=False) != path
    assert [n for n, *_ in done[5:]] == ["config.yaml"]


def test_a_run_goes_on_while_it_cannot_be_sent(
    memory: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    e = there()

    def broken(*_: Any) -> None:
        raise ConnectionError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "put_file", broken)
        with pytest.raises(UserError, match=r"no route to host.*kept in .*same command sends it"):
            engine.train(e)
    err = capsys.readouterr().err
    assert err.count("no route to host") == 1
    assert not memory.exists(f"{AT}/metrics.jsonl")
    assert Run(e.run_dir).done
    assert engine.is_done(e)  # which sends it
    assert kept(memory, "results.json") == (e.run_dir / "results.json").read_bytes()


# --- who holds it -------------------------------------------------------------------------------


def elsewhere(**changed: Any) -> dict[str, Any]:
    """What the lease of a process of another machine says."""
    return {**statement("x"), "host": "node7", "boot": "other", "pid": 4242, **changed}


OVER: dict[str, dict[str, Any]] = {
    "not heard of": {"heard": time.time() - EXPIRES - 1},
    "an earlier start of this job": {"job": "7_1", "start": 0},
    "a process of this machine that is gone": {"boot": statement("")["boot"], "pid": 2**22 + 1},
}


def locked(content: dict[str, Any]) -> Remote:
    found = Remote(files.local_path("memory://bucket/run"))
    found.write_lock(content)
    return found


def test_a_live_lease_is_respected(memory: Any) -> None:
    it = locked(elsewhere())
    assert it.holder().startswith("process 4242 on node7")
    with pytest.raises(
        UserError, match=r"running in memory://bucket/run \(process 4242 on node7"
    ) as e:
        Held(it)
    assert re.search(
        r" s ago; should it be dead, this is free in 1\d\d s\); wait for it", str(e.value)
    )
    assert it.lock() == elsewhere(heard=it.lock()["heard"])


@pytest.mark.parametrize("case", OVER)
def test_a_lease_that_is_over_is_taken(case: str, memory: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(remote, "_SETTLE", 0)
    monkeypatch.setenv(JOB, "7_1")
    monkeypatch.setenv(START, "1")
    it = locked(elsewhere(**OVER[case]))
    assert it.holder() == ""
    held = Held(it)
    assert it.lock()["pid"] == os.getpid()
    held.close()
    assert it.lock() == {}


def test_of_two_that_begin_at_once_one_does(memory: Any, monkeypatch: Any) -> None:
    it = Remote(files.local_path("memory://bucket/run"))
    monkeypatch.setattr(Remote, "lock", late(Remote.lock, {}))
    it.write_lock(elsewhere())
    with pytest.raises(UserError, match=r"was quicker to begin in .*node7"):
        Held(it)


def late(read: Any, first: Any) -> Any:
    """A read that says ``first`` the first time, as if nothing had been written yet."""
    said: list[Any] = []

    def call(self: Any) -> Any:
        said.append(first if not said else read(self))
        return said[-1]

    return call


def test_a_run_that_was_taken_over_writes_nothing_more(
    memory: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    def take(method: Any) -> None:
        if method.batches == 1:
            memory.pipe_file(f"{AT}/.lock", json.dumps(elsewhere()).encode())

    with pytest.raises(UserError, match=r"was taken over by another process .*node7"):
        train(monkeypatch, there(), EachBatch(take))
    assert not memory.exists(f"{AT}/checkpoints/last.ckpt")  # of batch 2
    assert memory.exists(f"{AT}/.lock")


# --- what reads a run ---------------------------------------------------------------------------


def say(capsys: Any, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


@pytest.mark.slow
def test_commands_read_a_run_that_is_elsewhere(
    memory: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    engine.train(there())
    address, best = f"memory://{AT}", f"memory://{AT}/checkpoints/best.ckpt"
    memory.put_file(str(untrained("cyclegan_coats", tmp_path)), "bucket/t/seed0/checkpoints/a.ckpt")
    translator = "memory://bucket/t/seed0/checkpoints/a.ckpt"
    picture = str(tmp_path / "horse.png")
    Image.new("RGB", (32, 32), "brown").save(picture)
    made = [str(tmp_path / name) for name in ("s", "t", "m.safetensors", "shared", "z", "p")]
    for i, words in enumerate(
        [
            ("sample", address, made[0], "-n", "2", "--device", "cpu"),
            ("sample", best, made[1], "-n", "2"),
            ("export", best, made[2]),
            ("share", address, made[3]),
            ("translate", translator, picture, made[4], "--to", "zebra", "--device", "cpu"),
            ("project", best, picture, made[5], "--steps", "1", "--device", "cpu"),
            ("evaluate", address),
            ("report", address),
            ("compare", f"memory://bucket/runs/{NAME}", "name=c", "out=memory://bucket/all"),
        ]
    ):
        another_machine(tmp_path / f"reader{i}", monkeypatch)
        code, out, err = say(capsys, *words)
        assert code == 0, err
        if words[0] == "evaluate":
            assert "Equal to the scores that the run recorded." in out
    assert all(Path(path).exists() for path in made)
    assert {"config.json", "samples.jpg"} < {path.name for path in Path(made[3]).iterdir()}
    assert b"<html" in kept(memory, "report.html")
    pages = {k.rpartition("/")[2] for k in memory.find("bucket/all/c")}
    assert {"leaderboard.md", "index.html"} <= pages
    code, _, err = say(capsys, "sample", "memory://bucket/nothing", str(tmp_path / "u"))
    assert (code, err.count("\n")) == (2, 1)
    assert "There is nothing at memory://bucket/nothing" in err


def test_what_is_made_of_a_run_is_written_here(here: Path, capsys: Any) -> None:
    code, _, err = say(capsys, "sample", "runs/x/seed0", "s3://bucket/pictures")
    assert (code, err.count("\n")) == (2, 1)
    assert "'s3://bucket/pictures' is an address; give a file or a folder here" in err
    assert not list(here.iterdir())


def test_a_page_of_a_folder_here_is_sent_nowhere(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("x")
    publish(tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


# --- what is wrong ------------------------------------------------------------------------------


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    another_machine(tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    fsspec.registry.target.pop("s3", None) if hasattr(fsspec.registry, "target") else None
    fsspec.registry._registry.pop("s3", None) if hasattr(fsspec.registry, "_registry") else None
    code, _, err = say(capsys, "sample", "s3://bucket/runs/x/seed0", str(tmp_path / "o"))
    assert (code, err.count("\n")) == (2, 1)
    assert "needs a package that is not installed: pip install 'gansuite[remote]'" in err
    code, _, err = say(capsys, "sample", "nosuch://bucket/x/seed0", str(tmp_path / "o"))
    assert (code, err.count("\n")) == (2, 1)
    assert "fsspec knows no protocol 'nosuch'" in err


# --- S3 -----------------------------------------------------------------------------------------


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: Any) -> Iterator[Any]:
    """A bucket of a server in this process, and an empty cache."""
    server_of = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:{1}".format(*server.get_host_and_port()),
    }.items():
        monkeypatch.setenv(name, value)
    reset = urllib.request.Request(
        os.environ["AWS_ENDPOINT_URL"] + "/moto-api/reset", method="POST"
    )
    urllib.request.urlopen(reset).close()
    another_machine(tmp_path / "a", monkeypatch)
    fresh()
    store, _ = remote.file_system("s3://bucket")
    store.mkdir("bucket")
    yield store
    server.stop()
    fresh()


def fresh() -> None:
    """Connections made before are forgotten."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.slow
def test_a_run_on_s3(s3: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """Cut off, resumed elsewhere; and a comparison there whose runs are jobs of a cluster."""
    pytest.importorskip("submitit")
    e = there("s3://bucket/runs")
    cut_off(e, 3, monkeypatch)
    another_machine(tmp_path / "b", monkeypatch)
    copy = engine.train(e).run.path
    same_run(copy, engine.train(experiment(NAME, tmp_path, 4, *TINY)).run.path)
    assert kept(s3, "metrics.jsonl") == (copy / "metrics.jsonl").read_bytes()
    assert not s3.exists(f"{AT}/.lock")
    (tmp_path / "c").mkdir()
    file = command(e, tmp_path / "c")[-1]
    words = ("compare", file, "name=c", "out=s3://bucket/all", "budget.kimg=0.008")
    words = (*words, "rank_by=fd_random")
    fake = fake_slurm.use(tmp_path, monkeypatch)
    monkeypatch.setattr(slurm.Slurm, "every", 0.3)
    code, out, err = say(capsys, *words, "--on", "slurm")
    assert code == 0, out + err
    assert f"The jobs of s3://bucket/all/c and their copies of its runs are in {tmp_path}" in out
    assert [task.name for task in fake_slurm.tasks(fake)] == ["7"]
    at = f"bucket/all/c/{NAME}/seed0"
    another_machine(tmp_path / "d", monkeypatch)
    code, out, err = say(capsys, *words)
    assert code == 0, out + err
    assert "1 runs, 1 done" in out
    assert json.loads(kept(s3, "results.json", at))["images_seen"] == 8
    assert any(name.endswith(".html") for name in s3.find("bucket/all/c", maxdepth=1))


@pytest.mark.slow
def test_a_bucket_that_cannot_be_used(
    s3: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    from moto import settings
    from moto.core.responses import ActionAuthenticatorMixin

    def refused(out: str) -> str:
        (tmp_path / "x").mkdir(exist_ok=True)
        begun = time.monotonic()
        code, _, err = say(capsys, *command(there(out), tmp_path / "x")[3:])
        assert (code, err.count("\n")) == (2, 1), err
        assert time.monotonic() < begun + 60
        return err

    assert "there is no such bucket" in refused("s3://nothing/runs")
    s3.pipe_file(f"{AT}/.lock", json.dumps(elsewhere()).encode())
    assert "Another process is running in s3://bucket/runs" in refused("s3://bucket/runs")
    with monkeypatch.context() as patch:
        patch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0.0)
        patch.setattr(ActionAuthenticatorMixin, "request_count", 0)
        assert "The AWS Access Key Id you provided does not exist" in refused("s3://bucket/runs")
    fresh()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "Could not connect to the endpoint URL" in refused("s3://bucket/runs")

"""Who holds a folder, on this machine and on others that share it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import experiment

from gansuite.errors import UserError
from gansuite.runs import Run, lease
from gansuite.runs.lease import EXPIRES, Lease


def elsewhere(file: Path, age: float, **more: Any) -> None:
    """What a process of another host has left."""
    content = {"host": "node7", "boot": "b", "pid": 41, "job": "", "heard": time.time() - age}
    file.write_text(json.dumps({**content, "token": "x", **more}))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


def test_one_holder_at_a_time(file: Path) -> None:
    first, second = Lease(file), Lease(file)
    assert first.take() == ""
    told = second.take()
    assert f"process {os.getpid()} on " in told
    assert "dead" not in told  # its end would be noticed at once
    assert second.take() == first.holder() == second.holder()
    second.release()  # of nothing
    assert second.take()
    first.release()
    assert file.read_bytes() == b""
    assert first.holder() == ""
    assert second.take() == ""
    second.release()


@pytest.mark.parametrize(
    ("age", "held"), [(0, True), (EXPIRES - 5, True), (EXPIRES + 5, False), (-EXPIRES - 5, False)]
)
def test_a_lease_of_another_host_counts_while_it_is_renewed(
    age: float, held: bool, file: Path
) -> None:
    elsewhere(file, age, job="12_3")
    mine = Lease(file)
    told = mine.take()
    assert bool(told) == held
    if held:
        assert "process 41 on node7, job 12_3, heard of " in told
        times = re.search(
            r"heard of (\d+) s ago; should it be dead, this is free in (\d+) s$", told
        )
        assert times is not None
        assert abs(int(times[1]) + int(times[2]) - EXPIRES) <= 1  # both are rounded
        assert json.loads(file.read_text())["pid"] == 41
    else:
        assert json.loads(file.read_text())["pid"] == os.getpid()
    mine.release()


def test_a_run_names_who_holds_it(tmp_path: Path) -> None:
    e = experiment("cyclegan_coats", tmp_path, 4)
    e.run_dir.mkdir(parents=True)
    elsewhere(e.run_dir / ".lock", 3)
    with pytest.raises(UserError, match=r"Another process is running in .* \(process 41 on node7"):
        Run(e.run_dir).begin(e)
    assert Run(e.run_dir).held()


@pytest.mark.parametrize("left", ["a boot of this machine", "the same job", "half a line"])
def test_what_is_taken_over_at_once(left: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    boot = lease._boot()
    assert boot
    own: dict[str, Any] = {"job": "99", "start": 1}
    elsewhere(file, 0, **({"boot": boot} if left == "a boot of this machine" else own))
    if left == "half a line":
        file.write_text(file.read_text()[:40])
    mine = Lease(file)
    assert mine.take() == ""
    assert json.loads(file.read_text())["job"] == "99"
    mine.release()


def test_two_commands_of_one_job_are_two(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    elsewhere(file, 0, job="99", start=0)
    assert "process 41 on node7, job 99" in Lease(file).take()


def test_a_killed_process_leaves_nothing(file: Path) -> None:
    code = "import os, sys, pathlib; from gansuite.runs.lease import Lease\n"
    code += "assert not Lease(pathlib.Path(sys.argv[1])).take(); os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", code, str(file)])
    assert killed.returncode == -9
    assert json.loads(file.read_text())["pid"] != os.getpid()
    assert Lease(file).holder() == ""


def test_without_flock_the_lease_alone_counts(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_flock", lambda handle: None)
    first, second = Lease(file), Lease(file)
    assert first.take() == ""
    assert second.take() != ""
    first.release()
    assert second.take() == ""
    second.release()


def test_it_is_renewed_and_ends(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "EVERY", 0.001)
    mine = Lease(file)
    assert mine.take() == ""
    first = json.loads(file.read_text())["heard"]
    end = time.monotonic() + 20
    while json.loads(file.read_text() or "{}").get("heard", first) <= first:
        assert time.monotonic() < end
    mine.release()
    while [t for t in threading.enumerate() if t.name == "lease"]:
        assert time.monotonic() < end
    assert file.read_bytes() == b""


def test_a_run_that_was_taken_over_writes_nothing_more(tmp_path: Path) -> None:
    e = experiment("cyclegan_coats", tmp_path, 4)
    run = Run(e.run_dir)
    run.begin(e)
    run.append(run.metrics, {"kind": "train", "images_seen": 4})
    before = run.metrics.read_bytes()
    elsewhere(e.run_dir / ".lock", 0)  # as while this process was suspended
    for write in (lambda: run.append(run.metrics, {"kind": "train"}), run.lengths):
        with pytest.raises(UserError, match=r"was taken over by .*process 41 on node7.* nothing m"):
            write()
    assert run.metrics.read_bytes() == before
    run.release()
    assert json.loads((e.run_dir / ".lock").read_text())["pid"] == 41  # it is the other's


def test_a_renewal_and_the_end_do_not_meet(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is let go while its thread is about to write: nothing is raised in the thread, and
    nothing is written after the end."""
    begun, go_on = threading.Event(), threading.Event()
    raised: list[threading.ExceptHookArgs] = []

    def slowly(token: str) -> dict[str, Any]:
        if threading.current_thread().name == "lease":
            begun.set()
            go_on.wait(0.3)  # until the lease is let go, if it can be meanwhile
        return statement(token)

    statement = lease.statement
    monkeypatch.setattr(lease, "statement", slowly)
    monkeypatch.setattr(lease, "EVERY", 0.001)
    monkeypatch.setattr(threading, "excepthook", raised.append)
    mine = Lease(file)
    assert mine.take() == ""
    assert begun.wait(20)
    mine.release()
    go_on.set()
    for thread in [t for t in threading.enumerate() if t.name == "lease"]:
        thread.join(20)
    assert raised == []
    assert file.read_bytes() == b""

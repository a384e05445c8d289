"""Ranks that torchrun has started on two nodes: what they come to, and what happens when one is
gone."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import namespaces
import pytest
import ranks
import torch
from helpers import command, difference, experiment, train
from namespaces import Node
from ranks import child, together

from gansuite import processes
from gansuite.errors import UserError
from gansuite.processes import LOST, heartbeat
from gansuite.runs import read_checkpoint, read_lines

TINY = (
    *("trainer.precision=64-true", "log.checkpoint_every_kimg=0.004", "evaluate.learned=false"),
    *("method.g_norm=none", "method.d_norm=none", "evaluate.pictures=2"),
    *("evaluate.every_kimg=0.032", "evaluate.best_by=fd_random", "log.loggers=[]"),
)
BATCHES = 16
LIMIT = 60  # seconds that a rank may outlive another


class Start:
    """One start of torchrun on each node, ended on leaving; what the ranks print, not torchrun, is
    kept apart."""

    def __enter__(self) -> Start:
        return self

    def __exit__(self, *_: object) -> None:
        for agent in self.agents:
            agent.terminate()
        for agent in self.agents:
            agent.join()

    def __init__(self, pair: tuple[Node, Node], words: list[str], folder: Path) -> None:
        self.agents = []
        for i, node in enumerate(pair):
            begin = ["--nnodes=2", "--nproc-per-node=1", f"--node-rank={i}", "--redirects=3"]
            begin += [f"--master-addr={pair[0].address}", "--master-port=29500"]
            begin += [f"--log-dir={folder / str(i)}", *words[1:]]
            log, network = folder / f"{i}.txt", {"GLOO_SOCKET_IFNAME": node.interface}
            self.agents.append(child(torchrun, node.name, begin, log=log, **network))
        self.folder = folder

    def rank(self, i: int) -> int:
        """The process of rank ``i``."""
        agent = self.agents[i].pid
        return int(Path(f"/proc/{agent}/task/{agent}/children").read_text().split()[0])

    def codes(self) -> list[int | None]:
        for agent in self.agents:
            agent.join(300)
        return [agent.exitcode for agent in self.agents]

    def said(self, i: int) -> str:
        """What rank ``i`` has printed on stderr."""
        (file,) = (self.folder / str(i)).rglob("stderr.log")
        return file.read_text()

    def all_said(self) -> str:
        return "\n".join(file.read_text() for file in self.folder.rglob("*.*"))


def torchrun(node: str, words: list[str]) -> None:
    """For `child`: the command of that name, on a node."""
    from torch.distributed import run

    namespaces.enter(node)
    run.main(words)


def state(run: Path) -> Any:
    content = read_checkpoint(run)
    return {k: content[k] for k in ("method", "rank_state")}, (run / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_two_nodes(tmp_path: Path, monkeypatch: Any) -> None:
    """Each rank is killed once; the command that was begun three times comes to what two processes
    come to that nobody disturbs, and, but for rounding, to what one does; so does one process that
    goes on where two were killed."""
    if why := namespaces.missing():
        pytest.skip(why)
    for out in ("two", "whole", "one"):
        (tmp_path / out).mkdir()
    name = "vanilla_coats"
    e = experiment(name, tmp_path / "two", BATCHES, "trainer.num_nodes=2", *TINY)
    whole = experiment(name, tmp_path / "whole", BATCHES, "trainer.devices=2", *TINY)
    together(2, ranks.train, whole, folder=tmp_path)
    words, run = command(e, tmp_path / "two"), e.run_dir
    with namespaces.nodes() as pair:
        for killed, lines in ((1, 3), (0, 6)):
            with Start(pair, words, folder(tmp_path / f"killed{killed}")) as start:
                wait_for_lines(start, run / "metrics.jsonl", lines)
                os.kill(start.rank(killed), signal.SIGKILL)
                begun = time.monotonic()
                assert start.codes() == [1, 1]
                assert time.monotonic() < begun + LIMIT
            told = start.said(1 - killed)
            assert told.startswith("gansuite: "), told
            assert told.endswith(f"; {processes.RESUMES}.\n")
            assert told.count("\n") == 1
            assert f"exitcode  : {LOST}" in (start.folder / f"{1 - killed}.txt").read_text()
            if killed == 1:
                shutil.copytree(tmp_path / "two", tmp_path / "one", dirs_exist_ok=True)
        with Start(pair, words, folder(tmp_path / "resumed")) as start:
            assert start.codes() == [0, 0], start.all_said()
    assert difference(state(run), state(whole.run_dir)) == ""
    alone = train(monkeypatch, experiment(name, tmp_path / "alone", BATCHES, *TINY))
    fewer = train(monkeypatch, experiment(name, tmp_path / "one", BATCHES, *TINY))
    for other in (run, fewer.run.path):
        a, b = (read_checkpoint(path)["method"] for path in (other, alone.run.path))
        for part in ("networks", "averages"):
            torch.testing.assert_close(a[part], b[part], rtol=0, atol=1e-6)
        assert a["counters"] == b["counters"]
        for x, y in zip(*(losses(path) for path in (other, alone.run.path)), strict=True):
            assert x == pytest.approx(y, rel=1e-3, abs=1e-5)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def losses(run: Path) -> list[dict[str, Any]]:
    lines = read_lines(run / "metrics.jsonl")
    return [{k: v for k, v in x.items() if k != "kind"} for x in lines if x.get("kind") == "train"]


def wait_for_lines(start: Start, file: Path, count: int) -> None:
    limit = time.monotonic() + 200
    while time.monotonic() < limit and all(agent.is_alive() for agent in start.agents):
        if file.is_file() and file.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.002)
    raise AssertionError(start.all_said())


# --- signs of life ------------------------------------------------------------------------------


class Table:
    """A store in this process; ``broken`` does not answer any more."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.broken = False

    def set(self, key: str, value: str) -> None:
        if self.broken:
            raise RuntimeError("Connection reset by peer")
        self.values[key] = value

    def get(self, key: str) -> bytes:
        return self.values[key].encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)


def beat(rank: int, store: Table, lost: list[str], world: int = 3) -> heartbeat.Heartbeat:
    found = heartbeat.Heartbeat(rank, world, lambda: store, lost.append)
    found._over = Steps(found)  # type: ignore[assignment]
    return found


class Steps(threading.Event):
    """The judge's wait, without waiting: ``each`` is called with the number of every step."""

    def __init__(self, beat: heartbeat.Heartbeat) -> None:
        super().__init__()
        self.beat, self.count = beat, 0
        self.each: Any = lambda step: None

    def wait(self, timeout: float | None = None) -> bool:
        self.count += 1
        self.each(self.count)
        return self.is_set() or self.count > 1000


def test_a_rank_that_falls_silent_is_lost_and_everyone_is_told(monkeypatch: Any) -> None:
    monkeypatch.setenv("GANSUITE_HEARTBEAT", "10")
    monkeypatch.setattr(heartbeat, "EVERY", 0.0)
    store, lost = Table(), []
    first = beat(0, store, lost)

    def each(step: int) -> None:
        if step <= 20:  # rank 1 is alive for 20 s
            store.set("1", str(step))
        first._listen(store)

    first._over.each = each  # type: ignore[attr-defined]
    first._judge()
    assert lost == ["rank 1 was not heard of for 11 s"]
    assert first._over.count == 30  # type: ignore[attr-defined]
    first._speak()  # leaves word
    other = beat(1, store, lost)
    other._listen(store)
    other._judge()
    assert lost[1:] == lost[:1]


def test_a_rank_that_has_not_begun_is_given_longer(monkeypatch: Any) -> None:
    monkeypatch.setenv("GANSUITE_HEARTBEAT", "10")
    monkeypatch.setattr(heartbeat, "EVERY", 0.0)
    lost: list[str] = []
    first = beat(0, Table(), lost)
    first._judge()
    assert lost == ["rank 1 was not heard of for 51 s"]


def test_a_rank_that_is_done_is_not_missed(monkeypatch: Any) -> None:
    monkeypatch.setenv("GANSUITE_HEARTBEAT", "10")
    store, lost = Table(), []
    second = beat(1, store, lost)
    second._word = heartbeat._DONE
    second._speak()
    assert store.values == {"1": "done"}
    first = beat(0, store, lost)
    first._over.each = lambda step: first._listen(store)  # type: ignore[attr-defined]
    first._judge()
    assert lost == []


def test_a_rank_that_fails_leaves_word(monkeypatch: Any) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    store = Table()
    monkeypatch.setattr(heartbeat, "connect", lambda cluster: store)
    with pytest.raises(ValueError, match="no picture"), processes.watching_others():
        raise ValueError("z.png is no picture")
    assert store.values == {
        "1": "done",
        "lost": "rank 1 ended with ValueError: z.png is no picture",
    }
    store.values.clear()
    with pytest.raises(RuntimeError), processes.watching_others():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    assert "lost" not in store.values
    store.broken = True  # silence, and no error
    with processes.watching_others():
        pass


@pytest.mark.parametrize("name", ["GANSUITE_HEARTBEAT", "GANSUITE_TIMEOUT"])
def test_times_are_seconds(name: str, monkeypatch: Any) -> None:
    monkeypatch.setenv(name, "1 min")
    with pytest.raises(UserError, match=f"{name} is '1 min'; it must be a whole number of seconds"):
        heartbeat.silence() and heartbeat.longest()


SAID = {
    "lost": (
        RuntimeError(
            "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer "
            "[10.0.0.2]:41000. This may indicate a remote worker crash"
        ),
        (LOST, "gansuite: another process of this run is gone (Connection closed by peer "),
    ),
    "bad input": (UserError("z.png is no picture."), (2, "gansuite: z.png is no picture.\n")),
}


@pytest.mark.parametrize("case", SAID)
def test_what_a_rank_says_is_said_once_on_each_node(
    case: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    left: list[int] = []
    monkeypatch.setattr(processes, "_leave", lambda code: left.append(code))
    monkeypatch.setattr(processes.distributed, "is_initialized", lambda: True)
    error, (code, text) = SAID[case]
    for rank in ("0", "1"):
        own = {"RANK": rank, "WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "x"}
        own["TORCHELASTIC_ERROR_FILE"] = str(tmp_path / rank / "error.json")
        for name, value in own.items():
            monkeypatch.setenv(name, value)
        processes.fail(2 if code == 2 else 1, error)
    err = capsys.readouterr().err
    assert err.startswith(text), err
    assert err.count("gansuite: ") == 1
    assert left[0] == code

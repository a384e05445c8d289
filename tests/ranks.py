"""Processes that have everything imported: children of a server that has done so once, for tests in
which how a process was started is not what is shown.

``together(2, target, *words)`` calls a function in two ranks of one run, as torchrun starts them.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from gansuite.config import Experiment

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["gansuite.cli", "gansuite.engine", "gansuite.compare.report", "torch.distributed.run"]
)


def child(target: Callable[..., Any], *words: Any, log: Path, **environment: str) -> BaseProcess:
    """``target(*words)`` in a process of its own, begun; what it prints goes to ``log``."""
    whole = {**os.environ, **environment}
    process = _context.Process(target=_call, args=(target, words, str(log), whole))
    process.start()
    return process


def _call(target: Callable[..., Any], words: Any, log: str, environment: dict[str, str]) -> None:
    import torch

    os.environ.clear()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(file, number)
    torch.set_num_threads(1)
    try:
        target(*words)
    except Exception:  # multiprocessing says it on the stream that pytest has captured
        traceback.print_exc()
        raise SystemExit(1) from None


def together(world: int, target: Callable[..., Any], *words: Any, folder: Path) -> None:
    """``target(*words)`` in ``world`` ranks on this machine, to the end of all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [folder / f"rank{rank}.txt" for rank in range(world)]
    own = {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    own |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    family = [
        child(target, *words, log=log, RANK=str(rank), LOCAL_RANK=str(rank), **own)
        for rank, log in enumerate(logs)
    ]
    for process in family:
        process.join()
    told = "\n".join(log.read_text() for log in logs)
    assert [process.exitcode for process in family] == [0] * world, told


def train(experiment: Experiment) -> None:
    """For `together`. No thread is left that might need the interpreter at its end."""
    from gansuite import engine, processes

    engine.train(experiment)
    processes.part()
    threads = [file.read_text() for file in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in threads if "gloo" in name]

"""The processes of one run: who started this one, the parent that starts and watches them, and
what they tell one another.

``gansuite exp`` on several devices trains in children, one per rank; the command itself only
watches (`watch`). Whichever rank raises, is killed or crashes, the others are ended, one sentence
names the rank and its reason, and nothing outlives the command. Ranks that ``torchrun`` or ``srun``
has started, on one node or on several, watch one another (`heartbeat`).
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import torch
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from torch import distributed

from gansuite.errors import RESUMES, SCHEDULER, STOPPED
from gansuite.processes import heartbeat
from gansuite.processes.together import Together

_OURS = "GANSUITE_RANK"  # <pid of the parent>:<rank>:<world>:<folder for reasons>
_POLL = 0.1  # seconds between two looks at the children
_GRACE = 5.0  # seconds the others have to end by themselves once a rank has failed
_STEP_MAX = 1 << 31  # SLURM numbers batch scripts, interactive shells, ... from above this
LOST = 69
"""Exit code of a rank that ends because another one is gone."""

_KNOWN: set[tuple[int, str]] = set()  # (this process, its parent), once seen to be so

T = TypeVar("T")


@dataclass(frozen=True)
class Launch:
    """How a launcher started this process. ``world`` and ``local`` (processes of this node) are
    None where it does not say; ``folder`` takes the reason of a failure, for our own parent."""

    by: str
    rank: int
    world: int | None = None
    local: int | None = None
    folder: Path | None = None


def launched() -> Launch | None:
    """The launcher that started this very process; None for a process started by hand.

    A variable counts only as part of what its launcher sets, so that none left over from
    elsewhere (``LOCAL_RANK`` in a shell, ``SLURM_PROCID`` in a batch script) is believed. The
    launcher nearest to the process comes first: torchrun may run inside srun.
    """
    own = os.environ.get(_OURS, "").split(":", 3)
    if own[0] == str(os.getppid()):
        _KNOWN.add((os.getpid(), own[0]))  # also after that parent is gone
    if len(own) == 4 and (os.getpid(), own[0]) in _KNOWN:
        return Launch("gansuite", int(own[1]), int(own[2]), int(own[2]), Path(own[3]))
    local = next(iter(_numbers("LOCAL_WORLD_SIZE")), None)
    if os.environ.get("TORCHELASTIC_RUN_ID") and (n := _numbers("RANK", "WORLD_SIZE")):
        return Launch("torchrun", n[0], n[1], local)
    n = _numbers("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID", "SLURM_NNODES")
    # a shell on a terminal of srun starts what it likes, once
    if n and n[2] < _STEP_MAX and "SLURM_PTY_PORT" not in os.environ:
        return Launch("srun", n[0], n[1], max(1, n[1] // max(1, n[3])))
    if not all(os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT")):
        return None
    if n := _numbers("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        return Launch("env", n[0], n[1], local)
    if n := _numbers("NODE_RANK", "LOCAL_RANK"):  # Lightning's launcher, from a script
        return Launch("lightning", n[0] + n[1])  # 0 is rank 0, and nothing more is asked
    return None


def _numbers(*names: str) -> list[int]:
    """The values of all these variables; none if one is missing or no number."""
    found = [os.environ.get(name, "") for name in names]
    return [int(value) for value in found] if all(map(str.isdecimal, found)) else []


def is_main() -> bool:
    """Whether this process is rank 0 (known before any process group exists)."""
    me = launched()
    return me is None or me.rank == 0


def cluster() -> ClusterEnvironment:
    """What Lightning must know of the launcher. SLURM's requeueing is left to SLURM: a run is
    resumed from its own checkpoint by the same command."""
    me = launched()
    if me is not None and me.by == "torchrun":
        return TorchElasticEnvironment()
    if me is not None and me.by == "srun":
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment()


def strategy() -> Together:
    """How several processes train together; a rank may wait for another as long as
    `heartbeat.longest`."""
    return Together(timeout=heartbeat.longest())


# -- a rank and its parent -------------------------------------------------------------------


def _ours() -> Launch | None:
    me = launched()
    return me if me is not None and me.folder is not None else None


def watched() -> bool:
    """Whether our own parent watches this process."""
    return _ours() is not None


def end_with_parent() -> None:
    """End this rank at once when its parent is gone: a thread waits for the end of stdin."""

    def wait() -> None:
        with contextlib.suppress(OSError, ValueError):
            while os.read(0, 1024):
                pass
        _leave(1)

    if watched():
        threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


def ready() -> None:
    """Rank 0 has checked everything that it can alone: the other ranks may start."""
    me = _ours()
    if me is not None and me.folder is not None and me.rank == 0:
        (me.folder / "ready").touch()


def fail(code: int, error: BaseException) -> None:
    """Say why this rank ends, to our own parent where it has one, and end it; a process alone goes
    on.

    The reason is written before the connections to the other ranks close, so the first reason is
    the cause and later ones follow from it. A rank that only lost another says so in a sentence,
    once on each node, and leaves with `LOST`.
    """
    me = launched()
    if me is None or me.folder is None:
        if me is not None and (me.world or 1) > 1 and code in (1, 2):
            _fail_among_others(code, error)
        return
    reason = {
        "at": time.monotonic(),
        "code": code,
        "text": str(error) if code == 2 else _named(error),
        "lost": is_loss(error),
        "trace": "".join(traceback.format_exception(error)) if code == 1 else "",
    }
    with contextlib.suppress(OSError):
        part = me.folder / f"{me.rank}.part"
        part.write_text(json.dumps(reason))
        part.rename(me.folder / f"{me.rank}.json")
    _leave(code)


def _fail_among_others(code: int, error: BaseException) -> None:
    if code == 1 and is_loss(error):
        reason = re.sub(r"^\[.*?\] *|\. (This|Original).*", "", _first_line(error))
        _lost(f"another process of this run is gone ({reason.rstrip('.')})")
    elif code == 2 and _first_here("input"):
        print(f"gansuite: {error}", file=sys.stderr)
    elif code == 1:
        traceback.print_exception(error)
    leave(code)


def _lost(why: str) -> None:
    if _first_here("lost"):
        print(f"gansuite: {why}; {RESUMES}.", file=sys.stderr)
    _leave(LOST)


def _first_here(what: str) -> bool:
    """Whether no other rank that the same torchrun has started on this node was here before."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # <folder of this start>/<local rank>/...
    try:
        if file:
            (Path(file).parents[1] / f"gansuite-{what}").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        pass
    return True


@contextlib.contextmanager
def watching_others(release: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Inside, a rank that a launcher has started ends with a sentence when another one is gone,
    also while it waits for that one; ``release`` is called before. See `heartbeat`.

    Without an own parent to tell it, that is all it can know of ranks on other nodes.
    """
    me = launched()
    if me is None or me.folder is not None or (me.world or 1) == 1 or me.by == "lightning":
        yield
        return

    def lost(why: str) -> None:
        last = threading.Thread(target=release, daemon=True)
        last.start()
        last.join(_GRACE)  # what it writes to may be lost as well
        _lost(why)

    assert me.world is not None
    beat = heartbeat.Heartbeat(me.rank, me.world, lambda: heartbeat.connect(cluster()), lost)
    beat.begin()
    try:
        yield
    except BaseException as error:
        beat.end("" if is_loss(error) else f"rank {me.rank} ended with {_named(error)}")
        raise
    beat.end()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _named(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(": ")


def is_loss(error: BaseException) -> bool:
    """Whether ``error`` says only that another rank is gone."""
    text = r"gloo[/\\]|Connection (closed|reset)|nccl(Remote|System)Error|Broken pipe|TCPStore"
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and re.search(text, str(error)) is not None
    )


def part() -> None:
    """End the connections to the other ranks, as the last thing a rank does that ends well.

    Gloo's threads drop the tensors they have sent, which are Python's. One that comes to it only
    while the interpreter ends aborts the process (pytorch/pytorch#190489); here they are joined.
    """
    if _several():
        _group_of.cache_clear()
        distributed.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process with ``code``; one that is still connected to others without destructors."""
    if not _several():
        raise SystemExit(code)
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End without destructors, which would wait for ranks that are gone or complain of them."""
    for child in multiprocessing.active_children():
        with contextlib.suppress(OSError):
            child.kill()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def watch(command: Sequence[str], world: int) -> int:
    """Run ``command`` as ``world`` ranks on this machine; its exit code, after all have ended.

    Rank 0 begins alone and lets the others start (`ready`), so that bad input is reported once.
    Ctrl-C and the signals of a scheduler are handed on to every rank, once each. A rank that fails
    ends the command: 2 for bad input, 1 otherwise, and one sentence on stderr says which and why.
    """
    with tempfile.TemporaryDirectory(prefix="gansuite-") as folder:
        return _Ranks(command, world, Path(folder)).run()


class _Ranks:
    def __init__(self, command: Sequence[str], world: int, folder: Path) -> None:
        self.command, self.world, self.folder = command, world, folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.asked: list[int] = []
        self.ended: set[int] = set()  # by us
        # the ranks meet here, not at rank 0, whose end would tear it down under the others
        self.store = distributed.TCPStore(
            "127.0.0.1", 0, world, is_master=True, wait_for_workers=False
        )

    def run(self) -> int:
        before = {n: signal.signal(n, self._hand_on) for n in (signal.SIGINT, *SCHEDULER)}
        try:
            self._start(0)
            self._wait()
        finally:
            self._end(range(len(self.processes)))
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._conclude()

    def _start(self, rank: int) -> None:
        self.processes.append(
            subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,  # its end is how a rank knows that we are gone
                env=self._environment(rank),
                start_new_session=True,  # a Ctrl-C of the terminal comes through us alone
            )
        )

    def _environment(self, rank: int) -> Mapping[str, str]:
        foreign = ("TORCHELASTIC_", "GROUP_", "ROLE_", "LOCAL_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        return {
            **kept,
            _OURS: f"{os.getpid()}:{rank}:{self.world}:{self.folder}",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "NODE_RANK": "0",
            "WORLD_SIZE": str(self.world),
            "LOCAL_WORLD_SIZE": str(self.world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCH_CPP_LOG_LEVEL": kept.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
        }

    def _hand_on(self, number: int, frame: Any) -> None:
        self.asked.append(number)
        for process in self.processes:
            with contextlib.suppress(OSError):
                process.send_signal(number)

    def _wait(self) -> None:
        """Until all ranks have ended, or some time after one has failed."""
        failed: float | None = None
        while any(p.poll() is None for p in self.processes) or (
            len(self.processes) < self.world and self._may_start()
        ):
            if len(self.processes) == 1 and self._may_start():
                for rank in range(1, self.world):
                    self._start(rank)
            if failed is None and any(p.poll() not in (None, 0, STOPPED) for p in self.processes):
                failed = time.monotonic()
            if failed is not None and time.monotonic() > failed + _GRACE:
                return
            time.sleep(_POLL)

    def _may_start(self) -> bool:
        return (self.folder / "ready").exists() and self.processes[0].poll() is None

    def _end(self, ranks: Sequence[int]) -> None:
        for rank in ranks:
            process = self.processes[rank]
            if process.poll() is None:
                self.ended.add(rank)
                process.kill()
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()

    def _conclude(self) -> int:
        codes = [process.returncode for process in self.processes]
        reasons = {rank: self._reason(rank) for rank in range(len(codes))}
        bad = [r for r, c in enumerate(codes) if c not in (0, STOPPED) and r not in self.ended]
        if not bad:
            return codes[0]
        if self.asked and all(codes[r] == 130 or -codes[r] in self.asked for r in bad):
            print("gansuite: interrupted", file=sys.stderr)
            return 128 + self.asked[-1]
        # a rank that a signal ended is the cause; else the first that had a reason of its own
        rank = min(bad, key=lambda r: (codes[r] >= 0, reasons[r]["lost"], reasons[r]["at"]))
        reason = reasons[rank]
        sys.stderr.write(reason["trace"])
        others = [r for r in range(len(codes)) if r != rank]
        alone = all(codes[r] == 0 or reasons[r]["text"] == reason["text"] for r in others)
        name = "" if reason["code"] == 2 and alone else f"rank {rank} "
        text = f"{name.strip()}: {reason['text']}" if name else reason["text"]
        if reason["code"] != 2:
            verb = "was ended by" if codes[rank] < 0 else "failed with"
            text = f"{name}{verb} {reason['text']}; {RESUMES}."
        print(f"gansuite: {text}", file=sys.stderr)
        return int(reason["code"])

    def _reason(self, rank: int) -> dict[str, Any]:
        code = self.processes[rank].returncode
        with contextlib.suppress(OSError, ValueError):
            return cast(dict[str, Any], json.loads((self.folder / f"{rank}.json").read_text()))
        text = f"exit code {code}, and no reason" if code >= 0 else _signal(-code)
        return {"at": float("inf"), "code": 1, "text": text, "lost": False, "trace": ""}


def _signal(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    by = " (by somebody, or by the system for want of memory)" if name == "SIGKILL" else ""
    return name + by


# -- what ranks tell one another -------------------------------------------------------------


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()


@functools.lru_cache(maxsize=1)
def _group_of(world: Any) -> Any:
    return distributed.new_group(backend="gloo", timeout=heartbeat.longest())


def cpu_group() -> Any:
    """A group for objects and flags of the CPU: nothing of them passes through a GPU or waits
    for one. Every rank must come here first at the same point."""
    return _group_of(distributed.group.WORLD)


def broadcast(value: T) -> T:
    """Rank 0's ``value``, on every rank (tensors on the CPU)."""
    if not _several():
        return value
    box = [to_cpu(value)]
    distributed.broadcast_object_list(box, 0, group=cpu_group())
    return cast(T, box[0])


def gather(value: T) -> list[T]:
    """The ``value`` of every rank in their order, tensors on the CPU; empty but on rank 0."""
    if not _several():
        return [to_cpu(value)]
    main = distributed.get_rank() == 0
    found: list[Any] | None = [None] * distributed.get_world_size() if main else None
    distributed.gather_object(to_cpu(value), found, 0, group=cpu_group())
    return found or []


def all_reduce_sum(values: Sequence[float]) -> list[float]:
    """The sums of ``values`` over all ranks."""
    if not _several():
        return list(values)
    total = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(total, group=cpu_group())
    return cast(list[float], total.tolist())


def to_cpu(value: Any) -> Any:
    """``value``, a nest of plain containers, with its tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {k: to_cpu(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(to_cpu(v) for v in value)
    return value

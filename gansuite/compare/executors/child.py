"""The process of one run, ``gansuite exp ...``, whoever starts it: its environment, its output in
``log.txt``, and what its end means."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gansuite.compare.entry import ERROR_FILE, LOG_FILE
from gansuite.compare.jobs import State
from gansuite.errors import RESUMES, SCHEDULER, STOPPED, UserError
from gansuite.runs import Run, write_text

# what a launcher tells the processes that it starts itself
_LAUNCHERS = ("SLURM_", "SLURMD_", "SRUN_", "PMI_", "PMIX_", "TORCHELASTIC_", "SUBMITIT_")
_RANKS = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK"),
    *("GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME"),
    *("MASTER_ADDR", "MASTER_PORT", "GANSUITE_RANK"),
)
_KEPT = ("SLURM_CONF", "SLURM_TMPDIR")  # where things are, not who anybody is
_libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


def own_environment() -> dict[str, str]:
    """The environment of a process that nobody but this one has started: what a launcher told
    this process of ranks and jobs would be taken for the child's own."""
    return {
        key: value
        for key, value in os.environ.items()
        if key in _KEPT or not (key.startswith(_LAUNCHERS) or key in _RANKS)
    }


def threads(share: int) -> str:
    """OMP_NUM_THREADS of a run that has ``share`` processor cores: what is asked for, at most."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return str(min(share, int(wanted)) if wanted.isdigit() else share)


def cores() -> int:
    """How many processor cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _with_parent() -> None:
    """In a child: stop, resumably, when the parent is killed. Linux only; elsewhere the child goes
    on, and the next comparison waits for it."""
    _libc.prctl(1, signal.SIGTERM)


class Child:
    """The process of the run in the folder ``path``, begun by this; or, with a ``launcher``, its
    processes on several nodes, begun by that one.

    It has a session of its own, so that what a terminal or a scheduler sends to a whole group
    reaches it through this process alone.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        path: Path,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        launcher: Sequence[str] = (),
    ) -> None:
        self.path, self.launcher = path, launcher
        path.mkdir(parents=True, exist_ok=True)
        (path / ERROR_FILE).unlink(missing_ok=True)
        with open(path / LOG_FILE, "ab") as log:
            self.begun = log.tell()  # where in the log this attempt begins
            self.process = subprocess.Popen(
                [*launcher, sys.executable, "-m", "gansuite", "exp", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
                preexec_fn=_with_parent if _libc is not None else None,
            )

    def send(self, number: int) -> None:
        """A signal to the process; SIGKILL to all that it has started."""
        send = os.killpg if number == signal.SIGKILL else os.kill
        if self.launcher and number == signal.SIGTERM:
            number = signal.SIGUSR1  # means the same, and srun hands it on instead of ending
        with contextlib.suppress(ProcessLookupError):  # not Popen's: that reaps what has ended
            send(self.process.pid, number)

    def conclude(self, code: int) -> tuple[State, str]:
        """What the exit code means for the run, and why; a failure is noted in its folder. Where
        one of several nodes was lost, the run is to come again like one that was stopped."""
        run = Run(self.path)
        if code == 0 and run.done:
            return "done", ""
        # srun adds 128 to the signal that ended a process, as when it had not yet begun
        if code == STOPPED or (code - 128 if self.launcher else -code) in SCHEDULER:
            return "stopped", "it was asked to stop; the same command resumes it"
        if run.held():  # another process was quicker
            return "elsewhere", ""
        why = self._why(code)
        if self.launcher and why.endswith(f"; {RESUMES}."):
            return "stopped", why
        return "failed", note_failure(self.path, why)

    def _why(self, code: int) -> str:
        """One sentence from the log of this attempt."""
        with open(self.path / LOG_FILE, "rb") as log:
            log.seek(self.begun)
            text = log.read().decode(errors="replace")
        lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
        said = [line for line in lines if line.startswith("gansuite: ")]
        if said:
            return said[-1].removeprefix("gansuite: ")
        if code < 0:
            name = signal.Signals(-code).name
            memory = "; often the memory was full" if name == "SIGKILL" else ""
            return f"it was ended by {name}{memory}."
        if code == 0:
            return "it ended without results."
        return f"{lines[-1]}" if lines else f"it ended with code {code} and no word."


def note_failure(path: Path, reason: str) -> str:
    """``reason``, kept in the folder of the run for whoever asks later."""
    path.mkdir(parents=True, exist_ok=True)
    write_text(path / ERROR_FILE, reason + "\n")
    return reason


def images_seen(path: Path) -> int:
    """Pictures that the run in the folder ``path`` would go on from; 0 from the start."""
    run = Run(path)
    if run.resumable:
        with contextlib.suppress(UserError):
            return int(run.newest()[0]["method"]["counters"]["images_seen"])
    return 0

"""What a job of a cluster does: one start of one run, saved and started again when it is asked.

A scheduler tells the job; the run, in a session of its own, is told by the job alone. SIGUSR2 (the
notice before the time limit) and SIGUSR1 mean *save, leave, and come again*: the job requeues
itself, if anything was trained since it started. SIGTERM means *save and leave*: a job that the
cluster itself ends, or cancels, is not brought back by us. Starting again needs nothing but the
run's own checkpoint, so the very same job is put back.

``python -m gansuite.compare.executors.task TASKS.json`` does the task that is numbered
``$SLURM_ARRAY_TASK_ID``, with no other package than this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gansuite.compare.executors.child import (
    Child,
    cores,
    images_seen,
    note_failure,
    own_environment,
    threads,
)
from gansuite.errors import RESUMES, STOPPED, UserError
from gansuite.runs import Run
from gansuite.runs.lease import EXPIRES, JOB, START, job_id, start_of_job

_POLL = 0.1


class Task:
    """The run in the folder ``path`` by the command that ``arguments`` give, in ``folder``; called,
    it returns the exit code of its process. On several nodes ``launcher`` starts that process on
    each, from the first. A run that is kept elsewhere has its copy in ``cache``. Made to be
    pickled."""

    def __init__(
        self,
        arguments: Sequence[str],
        path: str,
        folder: str,
        launcher: Sequence[str] = (),
        cache: str = "",
    ) -> None:
        self.arguments, self.path, self.folder = tuple(arguments), path, folder
        self.launcher, self.cache = tuple(launcher), cache
        self._before = 0
        self.lost = False  # it ended with a node that was lost, and has got on: it may come again
        self._child: Child | None = None

    def plain(self) -> dict[str, Any]:
        """What it is made from."""
        found = {"arguments": self.arguments, "path": self.path, "folder": self.folder}
        return {**found, "launcher": self.launcher, "cache": self.cache}

    def __call__(self) -> int:
        os.chdir(self.folder)
        if self.cache:
            os.environ["GANSUITE_CACHE"] = self.cache
        path = Path(self.path)
        if Run(path).done:
            return 0
        self._wait_for(path)
        self._before = images_seen(path)
        environment = own_environment()
        environment[JOB], environment[START] = job_id(), str(start_of_job())
        environment["OMP_NUM_THREADS"] = threads(_cores())
        launcher = self.launcher
        if launcher:  # the job is all that it need know of its surroundings
            launcher = (*launcher, f"--jobid={os.environ['SLURM_JOB_ID']}")
        self._child = Child(path, self.arguments, environment, launcher)
        # SIGUSR2 is taken by who has made this task: by submitit, or by `main`
        again = signal.signal(signal.SIGUSR1, lambda *_: os.kill(os.getpid(), signal.SIGUSR2))
        leave = signal.signal(signal.SIGTERM, lambda *_: self.ask())
        try:
            code = self._code()
        finally:
            signal.signal(signal.SIGUSR1, again)
            signal.signal(signal.SIGTERM, leave)
        state, why = self._child.conclude(code)
        if state == "stopped" and why.endswith(f"; {RESUMES}."):
            self.lost = images_seen(path) > self._before
            if not self.lost:
                note_failure(path, why)
        return code

    def ask(self) -> None:
        """Have the run save and leave."""
        if self._child is not None:
            self._child.send(signal.SIGTERM)

    def comes_again(self) -> bool:
        """Ask the run to save and to leave, and wait for it; whether it is to be started again: it
        is not done, has not failed, and has seen more pictures than when this start began."""
        if self._child is None:
            return True  # it had not begun
        self.ask()
        if self._child.conclude(self._code())[0] != "stopped":
            return False
        if images_seen(Path(self.path)) > self._before:
            return True
        note_failure(
            Path(self.path),
            f"A start of {time.monotonic() - self._since:.0f} s ended before anything was trained; "
            f"give it longer ('slurm.timeout_min').",
        )
        return False

    def checkpoint(self) -> Any:
        """For submitit: what is submitted again, or None for nothing."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Task(**self.plain())) if self.comes_again() else None

    __submitit_checkpoint__ = checkpoint  # by its other name

    def _code(self) -> int:
        """The exit code of the child, once it has ended.

        A signal may call this within itself, so the child is looked at and not reaped.
        """
        assert self._child is not None
        pid, options = self._child.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
        while (end := os.waitid(os.P_PID, pid, options)) is None:
            time.sleep(_POLL)
        return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status

    def _wait_for(self, path: Path) -> None:
        """The process of an earlier job may have died with its node: its lease must run out."""
        begun = time.monotonic()
        with contextlib.suppress(UserError):  # not to be reached: the run says so itself
            while Run(path).held() and time.monotonic() < begun + EXPIRES + 30:
                time.sleep(1.0)
        self._since = time.monotonic()


def _cores() -> int:
    asked = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE") or ""
    return min(int(asked), cores()) if asked.isdigit() and int(asked) else cores()


def main(file: str) -> int:
    """Do the task of ``file`` that this job of an array stands for, and requeue the job where
    that is asked for."""
    listed = json.loads(Path(file).read_text())
    task = Task(**listed[int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))])

    def notice(*_: Any) -> None:
        if task.comes_again():
            subprocess.run(["scontrol", "requeue", job_id()], check=False, timeout=60)
        sys.exit(STOPPED)

    signal.signal(signal.SIGUSR2, notice)
    code = task()
    if task.lost:
        subprocess.run(["scontrol", "requeue", job_id()], check=False, timeout=60)
    return 0 if code == STOPPED else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

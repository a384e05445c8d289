"""Who holds a folder: one process at a time, also among hosts that share the folder.

Within one machine `flock` decides, which the end of a process frees at once. Across machines it
may say nothing, so the file names its holder and when that was last heard of: a lease that is not
renewed for `EXPIRES` seconds is over. The clocks of the hosts must agree to well below that.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import threading
import time
from pathlib import Path
from typing import IO, Any

EXPIRES = 120.0
"""Seconds after which a lease that is not renewed is over."""
EVERY = 20.0  # seconds between two renewals
JOB, START = "GANSUITE_JOB", "GANSUITE_START"  # what a scheduler calls this process, from its task
_ATTEMPTS = 5
_SIZE = 512


def job_id() -> str:
    """The scheduler's name of the job that this process is part of; "" without."""
    env = os.environ
    if JOB in env:
        return env[JOB]
    if "SLURM_ARRAY_JOB_ID" in env and "SLURM_ARRAY_TASK_ID" in env:
        return f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return env.get("SLURM_JOB_ID", "")


def start_of_job() -> int:
    """How often the scheduler had started this job before."""
    text = os.environ.get(START) or os.environ.get("SLURM_RESTART_COUNT", "")
    return int(text) if text.isdecimal() else 0


def _boot() -> str:
    """What only processes of this running system have in common; "" where it cannot be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node() if os.name == "posix" else ""


def _space() -> str:
    """What only processes that know one another's numbers have in common; "" if not known."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def statement(token: str) -> dict[str, Any]:
    """What a lease says of this process, now; ``token`` is of one holding."""
    return {
        "host": platform.node(),
        "boot": _boot(),
        "space": _space(),
        "pid": os.getpid(),
        "job": job_id(),
        "start": start_of_job(),
        "heard": time.time(),
        "token": token,
    }


def over(content: dict[str, Any]) -> bool:
    """Whether a lease that says this is over, as far as that can be told without a flock."""
    if not content or _restarted(content) or abs(_age(content)) >= EXPIRES:
        return True
    return _here(content) and not Path(f"/proc/{content.get('pid')}").exists()


def _here(content: dict[str, Any]) -> bool:
    """Whether the process of a lease is one whose number means something to this one."""
    own = (_boot(), _space())
    return all(own) and (content.get("boot"), content.get("space")) == own


def of_whom(content: dict[str, Any], wait: bool = False) -> str:
    """The process that a lease speaks of; "" for none. With ``wait``, also how long it takes until
    the lease is over if that process is dead, where this is not noticed at once."""
    if not content:
        return ""
    return _named_with_wait(content) if wait and not _here(content) else _named(content)


class Lease:
    """The lease that the file ``file`` stands for; the file itself stays, empty, when it is over.

    A later start of the same job of a scheduler takes the lease of an earlier one over at once: a
    job is started again only when its processes are gone.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._open: IO[bytes] | None = None
        self._over = threading.Event()
        self._token = ""
        self._writing = threading.RLock()

    def take(self) -> str:
        """Hold the folder from now on; "" if that could be done, else who holds it.

        Raises:
            OSError: the file cannot be made.
        """
        handle = os.fdopen(os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        for _ in range(_ATTEMPTS):
            if not (who := _holder(handle)):
                break
            time.sleep(0.04)  # it may be somebody who only looks whether the folder is held
        else:
            handle.close()
            return who
        self._token = os.urandom(8).hex()
        self._open, self._over = handle, threading.Event()
        self._renew()
        threading.Thread(target=self._beat, name="lease", daemon=True).start()
        return ""

    def holder(self) -> str:
        """Who holds the folder, this process included; "" for nobody."""
        try:
            with open(self.file, "r+b", buffering=0) as handle:
                return _holder(handle)
        except OSError:
            return ""

    def lost(self) -> str:
        """Who has taken the lease over, as after this process was suspended; "" for nobody."""
        found = _read(self.file)
        if not self._token or found is None or found.get("token") == self._token:
            return ""
        return _named(found)

    def release(self) -> None:
        """Let others have the folder."""
        self._over.set()
        with self._writing:
            if self._open is None:
                return
            if not self.lost():
                with contextlib.suppress(OSError):
                    self._open.truncate(0)
            self._open.close()
            self._open, self._token = None, ""

    def _renew(self) -> None:
        assert self._open is not None
        content = statement(self._token)
        # one write of one size: whoever reads in between sees the old or the new
        self._open.seek(0)
        self._open.write(json.dumps(content).encode().ljust(_SIZE))
        with contextlib.suppress(OSError):
            os.fsync(self._open.fileno())

    def _beat(self) -> None:
        over = self._over
        while not over.wait(EVERY):
            with self._writing, contextlib.suppress(OSError):
                if over.is_set() or self.lost():
                    return
                self._renew()


def _holder(handle: IO[bytes]) -> str:
    """Who holds the lease behind an open file; "" if it is free, with the flock then held."""
    locked = _flock(handle)
    handle.seek(0)
    content = _parsed(handle.read())
    if locked is False:
        return _named(content) if content else "a process of this machine"
    if not content:
        return ""
    if locked and content.get("boot") == _boot():
        return ""  # on this machine, and its flock is free: it is gone
    gone = _restarted(content) or abs(_age(content)) >= EXPIRES
    return "" if gone else _named_with_wait(content)


def _restarted(content: dict[str, Any]) -> bool:
    """Whether the holder was an earlier start of the job that this process is part of."""
    mine = bool(job_id()) and content.get("job") == job_id()
    return mine and _start(content) < start_of_job()


def _flock(handle: IO[bytes]) -> bool | None:
    """Whether this process has the flock now; None where there is none to be had."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN) else None
    return True


def _read(file: Path) -> dict[str, Any] | None:
    """What a lease says, {} for an empty one; None if it cannot be read now."""
    try:
        return _parsed(file.read_bytes())
    except OSError:
        return None


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _age(content: dict[str, Any]) -> float:
    heard = content.get("heard")
    return time.time() - heard if isinstance(heard, int | float) else float("inf")


def _start(content: dict[str, Any]) -> int:
    found = content.get("start")
    return found if isinstance(found, int) else 0


def _named(content: dict[str, Any]) -> str:
    job = f", job {content['job']}" if content.get("job") else ""
    heard = f", heard of {max(0.0, _age(content)):.0f} s ago"
    return f"process {content.get('pid')} on {content.get('host')}{job}{heard}"


def _named_with_wait(content: dict[str, Any]) -> str:
    """`_named`, of a process whose end would not be noticed here before its lease is over."""
    left = max(1.0, EXPIRES - _age(content))
    return f"{_named(content)}; should it be dead, this is free in {left:.0f} s"

"""Commands in processes that are forked from this one, which has imported everything: a command
costs its work and no import. What it does to itself (a crash, a hang, all memory) stays there."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import mmap
import os
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

HANG = float(os.environ.get("GANSUITE_HANG", "60"))  # seconds
_GRACE = 15.0  # seconds; a loader's worker looks every 5 whether its parent is still there
_MEMORY = 6 << 30  # bytes of addresses beyond those that a command begins with
_MODULES = (
    *("gansuite.cli", "gansuite.engine", "gansuite.compare.report", "gansuite.compare.page"),
    *("gansuite.compare.run", "gansuite.tools.translate", "gansuite.tools.sample"),
    *("gansuite.tools.score", "gansuite.data.check", "matplotlib.backends.backend_svg"),
    *("PIL.PngImagePlugin", "PIL.JpegImagePlugin", "PIL.WebPImagePlugin", "PIL.TiffImagePlugin"),
)
STARTING, TRAINING, ENDED = range(3)

# The first backward pass of a process decides whether there are threads for devices. After the
# compiler has been imported (test_compiled.py) there are, and with them no fork can go backward.
torch.zeros(1, requires_grad=True).sum().backward()


def load() -> None:
    """Import what commands use; torch must not have started a thread yet, nor may it afterwards."""
    torch.set_num_threads(1)
    for name in _MODULES:
        importlib.import_module(name)


class Board:
    """Where a training process writes how far it is, for whoever watches it."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 16)

    def write(self, phase: int, images: int) -> None:
        self._shared[:16] = struct.pack("qq", phase, images)

    def read(self) -> tuple[int, int]:
        """Phase and pictures seen."""
        phase, images = struct.unpack("qq", self._shared[:16])
        return phase, images


@dataclass(frozen=True)
class Ended:
    """How a command ended. ``code``: its exit code, minus the signal that ended it, None for one
    that was still there after `HANG` seconds. ``strays``: processes that outlived it."""

    code: int | None
    out: str
    err: str
    seconds: float
    strays: bool = False


class Command:
    """``gansuite WORDS`` in ``folder``, running in a process (and a session) of its own.

    ``board`` is kept up to date batch by batch; after ``batches`` batches the command is asked to
    stop by SIGTERM. Curves are left out of pages unless ``curves``, and features are learned in one
    pass over the pictures: both cost more than the tiny trainings.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        *,
        cache: Path,
        board: Board | None = None,
        batches: int | None = None,
        curves: bool = False,
    ) -> None:
        self.folder, self.words = folder, list(words)
        self.logs = [cache.parent / f".{os.getpid()}-{id(self)}.{n}" for n in ("out", "err")]
        self.begun = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid:
            return
        code = 70
        try:
            os.setsid()
            self._redirect()
            os.chdir(folder)
            os.environ.update(GANSUITE_CACHE=str(cache), WANDB_MODE="disabled", OMP_NUM_THREADS="1")
            _limit_memory()
            code = _call(self.words, board, batches, curves)
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _redirect(self) -> None:
        for number, path in enumerate(self.logs, 1):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            os.dup2(handle, number)
            os.close(handle)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        kind: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}
        sys.stdout, sys.stderr = (
            open(n, "w", buffering=1, closefd=False, **kind)  # noqa: SIM115 - to its end
            for n in (1, 2)
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)

    def alive(self) -> bool:
        """Whether it runs, or has ended and was not waited for."""
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found is None

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, limit: float = HANG) -> Ended:
        """How it ended; what does not end within ``limit`` seconds is killed."""
        code: int | None = None
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                break
            time.sleep(0.002)
        seconds = time.monotonic() - self.begun
        strays = self._end_group() and code is not None
        if code is None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        texts = []
        for path in self.logs:
            texts.append(path.read_text("utf-8", "surrogateescape") if path.exists() else "")
            path.unlink(missing_ok=True)
        return Ended(code, texts[0], texts[1], seconds, strays)

    def _end_group(self) -> bool:
        """End what is left of its session; whether anything was after `_GRACE`."""
        deadline = time.monotonic() + _GRACE
        try:
            while time.monotonic() < deadline and self._reaped():
                os.killpg(self.pid, 0)
                time.sleep(0.02)
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def _reaped(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False


def _limit_memory() -> None:
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + _MEMORY, now + _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _call(words: list[str], board: Board | None, batches: int | None, curves: bool) -> int:
    # further processes of a training are started as Lightning finds this one to have been
    sys.argv = ["gansuite", *words]
    main = sys.modules["__main__"]
    main.__spec__ = importlib.util.find_spec("gansuite.__main__")
    from gansuite import cli

    if board is not None or batches is not None:
        _watch(board, batches)
    from gansuite.evaluation import learned

    learned.PASSES = 1
    if not curves:
        from gansuite.compare import charts

        charts.chart = lambda *_, **__: ""  # type: ignore[assignment]
    try:
        cli.main(words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _watch(board: Board | None, batches: int | None) -> None:
    from lightning import Callback

    from gansuite import engine

    class Watcher(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            if board:
                board.write(TRAINING, pl_module.images_seen)

        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if board:
                board.write(TRAINING, pl_module.images_seen)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if board:
                board.write(TRAINING, pl_module.images_seen)
            if batches is not None and pl_module.batches >= batches:
                os.kill(os.getpid(), signal.SIGTERM)

        def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
            if board:
                board.write(ENDED, pl_module.images_seen)

    make: Callable[..., Any] = engine.make_trainer
    # first, so that a stop that is asked for after a batch is seen in it
    engine.make_trainer = lambda e, callbacks: make(e, [Watcher(), *callbacks])  # type: ignore[assignment]


def run(
    words: Sequence[str], folder: Path, *, cache: Path, limit: float = HANG, **options: Any
) -> Ended:
    """A command, to its end."""
    return Command(words, folder, cache=cache, **options).wait(limit)


def told_badly(ended: Ended) -> str:
    """What is wrong with how a command ended and what it said; "" when nothing is.

    Right: exit code 0, or 75 after a stop; or 2 with one sentence (or, from ``check-data``, its
    report) and nothing else. Nothing ends by a signal or with a traceback.
    """
    lines = [line for line in ended.err.splitlines() if line.strip()]
    if ended.code is None:
        return "hang"
    if "Traceback (most recent call last)" in ended.err + ended.out:
        return "traceback"
    if ended.code < 0:
        return "crash"
    if ended.strays:
        return "stray process"
    if ended.code in (0, 75):
        return ""
    if ended.code != 2:
        return f"exit code {ended.code}"
    if not lines and ended.out.strip():
        return ""
    said = sum(line.startswith("gansuite: ") for line in lines)
    return "" if said == 1 == len(lines) else "no single sentence"

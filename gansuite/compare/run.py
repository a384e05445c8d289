"""Run what is missing of a comparison, each run in a process of its own, then compare.

A child writes its output to ``log.txt`` in its run directory; how far it is, is read from its
``timing.jsonl`` and ``metrics.jsonl``. A run that fails leaves one sentence in ``error.txt`` and
does not stop the others; the next time it is tried again.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from gansuite.compare.entry import ERROR_FILE, LOG_FILE, read_entry
from gansuite.compare.overview import Overview
from gansuite.compare.plan import Plan, PlannedRun, make_plan
from gansuite.errors import STOPPED, UserError
from gansuite.runs import Run, write_text
from gansuite.runs.clock import clock_text

if TYPE_CHECKING:
    from gansuite.compare.collect import ComparedRuns

_TAIL = 1 << 16
State = Literal["waiting", "elsewhere", "running", "done", "failed", "stopped"]


def compare(
    arguments: Sequence[str], *, allow_unequal: bool = False, stream: TextIO | None = None
) -> int:
    """``gansuite compare ARGUMENTS``: 0, 1 if a run failed, 75 if it was asked to stop.

    Raises:
        UserError: the request is wrong, or what was found is not on equal terms.
    """
    stream = stream or sys.stdout

    def say(line: str) -> None:
        print(line, file=stream, flush=True)

    plan = make_plan(arguments, allow_unequal=allow_unequal, say=say)
    jobs = [Job(planned) for planned in plan.runs]
    waiting = [job for job in jobs if job.state == "waiting"]
    if jobs:
        say(f"{plan.name}: {len(jobs)} runs, {len(jobs) - len(waiting)} done, in {plan.folder}")
    if waiting:
        refuse_closed(plan.folder)
        with StopRequest() as asked:
            Runner(jobs, Slots(plan.jobs), Overview(stream, plan.spec.rank_by), asked).run()
        if asked.name:
            say(f"Stopped by {asked.name}; the same command resumes it.")
            return STOPPED
    from gansuite.compare.page import write_page
    from gansuite.compare.report import complete_report
    from gansuite.compare.tables import write_tables

    for job in jobs:
        if job.planned.done:
            complete_report(job.path)
    comparison = collect(plan, allow_unequal)
    files = write_tables(comparison, plan.folder)
    page = write_page(comparison, plan.folder)
    say("\n" + files[0].read_text())
    bad = [job for job in jobs if job.state in ("failed", "stopped")]
    for job in bad:
        say(f"{job.name} {job.state}: {job.reason} (its output: {job.path / LOG_FILE})")
    say(f"Tables: {', '.join(map(str, files))}")
    say(f"Page:   {page}")
    return 1 if bad else 0


def refuse_closed(folder: Path) -> None:
    """Raise `UserError` where the runs of a comparison could not be written.

    The nearest folder that is there is asked by a file that is gone again; nothing is made.
    """
    try:
        there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); give a folder that can with 'out='."
        ) from error


def collect(plan: Plan, allow_unequal: bool = False) -> ComparedRuns:
    """What the runs of a plan and the entries beside them came to."""
    from gansuite.compare.collect import gather

    found = [read_entry(p.path, p.row, p.experiment.seed) for p in plan.runs]
    return gather(
        plan.name,
        plan.folder,
        [*found, *plan.entries],
        title=plan.spec.title,
        axis=plan.axis,
        rank_by=plan.spec.rank_by,
        command=plan.command,
        allow_unequal=allow_unequal,
    )


class StopRequest:
    """Whether this process was asked to stop, by Ctrl-C, SIGTERM or the end of its terminal."""

    def __init__(self) -> None:
        self.name = ""
        self.times = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None:
                with contextlib.suppress(ValueError):  # not the main thread
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.name = self.name or signal.Signals(number).name
        self.times += 1


class Slots:
    """How many runs go on at once, and what each of them may use.

    Without a number: one per GPU, or one. With several at once each has one GPU, taken in turn,
    and its share of the processor cores; one alone has everything.
    """

    def __init__(self, jobs: int | None) -> None:
        import torch

        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        count = torch.cuda.device_count()
        self.gpus = shown.split(",")[:count] if shown else [str(i) for i in range(count)]
        self.count = jobs or max(1, len(self.gpus))

    def environment(self, slot: int) -> dict[str, str]:
        """The environment of the run in ``slot``."""
        env = dict(os.environ)
        if self.count > 1 and self.gpus:
            env["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        threads = max(1, _cores() // self.count)
        wanted = env.get("OMP_NUM_THREADS", "")
        env["OMP_NUM_THREADS"] = str(min(threads, int(wanted)) if wanted.isdigit() else threads)
        return env


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


_libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


def _with_parent() -> None:
    """In a child: stop, resumably, when the parent is killed. Linux only; elsewhere the child goes
    on, and the next comparison waits for it."""
    _libc.prctl(1, signal.SIGTERM)


@dataclass
class Job:
    """One run and how it stands."""

    planned: PlannedRun
    state: State = "waiting"
    reason: str = ""
    slot: int = 0
    process: subprocess.Popen[bytes] | None = None
    begun: int = 0  # where in the log the present attempt begins
    last_line: float = 0.0  # when a line of it was printed
    seen: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.planned.done:
            self.state = "done"

    @property
    def path(self) -> Path:
        return self.planned.path

    @property
    def name(self) -> str:
        return f"{self.planned.row} seed {self.planned.experiment.seed}"

    def start(self, slot: int, environment: Mapping[str, str]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / ERROR_FILE).unlink(missing_ok=True)
        with open(self.path / LOG_FILE, "ab") as log:
            self.begun = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gansuite", "exp", *self.planned.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,  # a Ctrl-C of the terminal reaches only this process
                preexec_fn=_with_parent if _libc is not None else None,
            )
        self.state, self.slot, self.last_line = "running", slot, time.monotonic()

    def poll(self) -> bool:
        """Look after the process; whether it has ended."""
        assert self.process is not None
        code = self.process.poll()
        if code is None:
            return False
        if code == 0 and self.planned.done:
            self.state = "done"
        elif code in (STOPPED, -signal.SIGTERM):
            self.state = "stopped"
            self.reason = "it was asked to stop; the same command resumes it"
        elif Run(self.path).held():  # another process was quicker
            self.state = "elsewhere"
        else:
            self.state, self.reason = "failed", self._why(code)
            write_text(self.path / ERROR_FILE, self.reason + "\n")
        self.process = None
        return True

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

    def look(self) -> None:
        """Read how far the run is."""
        timing = _last(self.path / "timing.jsonl", "")
        if timing:
            self.seen.update(timing)
        self.seen["scores"] = _last(self.path / "metrics.jsonl", '"eval"')

    def cells(self, rank_by: str) -> tuple[str, str, str, str]:
        """How far it is, its speed, the time left and the scores so far; "" for what is unknown."""
        budget = self.planned.experiment.budget
        images, seconds = self.seen.get("images_seen", 0), self.seen.get("seconds", 0.0)
        speed = self.seen.get("images_per_second")
        left = None
        if budget.kimg is not None:
            progress = f"{images / 1000:.3g}/{budget.kimg:g} kimg"
            left = (1000 * budget.kimg - images) / speed if speed else None
        else:
            progress = f"{seconds:.0f}/{budget.seconds:g} s"
            left = (budget.seconds or 0) - seconds
        scores = self.seen.get("scores") or {}
        found = {k.partition("/")[0]: v for k, v in scores.items() if k.endswith(f"/{rank_by}")}
        return (
            progress,
            f"{speed:.3g} images/s" if speed else "",
            "" if left is None else clock_text(max(left, 0)),
            " ".join(f"{k} {v:.3g}" for k, v in found.items()),
        )

    def line(self, rank_by: str) -> str:
        """Such as ``cyclegan_coats seed 0  3.5/8 kimg  81 images/s  left 0:54  fd_random ...``."""
        progress, speed, left, scores = self.cells(rank_by)
        left, scores = left and f"left {left}", scores and f"{rank_by} {scores}"
        return "  ".join(part for part in (self.name, progress, speed, left, scores) if part)


def _last(file: Path, holding: str) -> dict[str, Any]:
    """The last whole record of a line file whose line holds a text; {} without."""
    try:
        with open(file, "rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - _TAIL))
            lines = f.read().decode(errors="replace").splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        if holding in line:
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    return found
    return {}


class Runner:
    """Keeps the slots busy until all is done, or until it is asked to stop."""

    def __init__(
        self, jobs: Sequence[Job], slots: Slots, overview: Overview, asked: StopRequest
    ) -> None:
        self.jobs, self.slots, self.overview, self.asked = jobs, slots, overview, asked

    def run(self) -> None:
        try:
            while not self.asked.name:
                self._fill()
                if not self._in("running") and not self._in("elsewhere"):
                    return
                time.sleep(0.2)
                self._poll()
                self.overview.update(self.jobs)
        finally:
            self._stop()
            self.overview.close()

    def _in(self, state: State) -> list[Job]:
        return [job for job in self.jobs if job.state == state]

    def _fill(self) -> None:
        for job in self._in("elsewhere"):
            if not Run(job.path).held():
                job.state = "done" if job.planned.done else "waiting"
                self.overview.event(job, self.jobs)
        for job in self._in("waiting"):
            free = set(range(self.slots.count)) - {j.slot for j in self._in("running")}
            if not free:
                return
            if Run(job.path).held():
                job.state = "elsewhere"
            else:
                try:
                    job.start(min(free), self.slots.environment(min(free)))
                except OSError as error:
                    job.state = "failed"
                    job.reason = f"{job.path} cannot be written ({error.strerror})."
            self.overview.event(job, self.jobs)

    def _poll(self) -> None:
        for job in self._in("running"):
            if job.poll():
                self.overview.event(job, self.jobs)

    def _stop(self) -> None:
        """Ask what still runs to stop, and wait for it; asked twice, end it at once."""
        running = self._in("running")
        for job in running:
            _send(job, signal.SIGTERM)
        killed = False
        while running:
            if self.asked.times > 1 and not killed:
                killed = True
                for job in running:
                    _send(job, signal.SIGKILL)
            time.sleep(0.1)
            for job in running:
                code = job.process.poll() if job.process else None
                if code is not None:
                    job.state, job.process = "done" if job.planned.done else "stopped", None
            running = self._in("running")


def _send(job: Job, number: int) -> None:
    if job.process is not None:
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(job.process.pid, number)
            else:
                job.process.send_signal(number)

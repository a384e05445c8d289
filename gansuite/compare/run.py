"""Do what is missing of a comparison, each run in a process of its own, then compare.

How far a run is, is read from its ``timing.jsonl`` and ``metrics.jsonl``, wherever it goes on. A
run that fails leaves one sentence in ``error.txt`` and does not stop the others; the next time it
is tried again.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from gansuite.compare.entry import ERROR_FILE, LOG_FILE, read_entry
from gansuite.compare.executors import Executor, slurm
from gansuite.compare.executors.local import Local, Slots
from gansuite.compare.executors.options import take_options
from gansuite.compare.executors.script import write_script
from gansuite.compare.jobs import Job
from gansuite.compare.overview import Overview
from gansuite.compare.plan import Plan, make_plan
from gansuite.errors import SCHEDULER, STOPPED, UserError
from gansuite.files import address_of
from gansuite.runs import Run, publish

if TYPE_CHECKING:
    from gansuite.compare.collect import ComparedRuns

On = Literal["local", "slurm", "script"]
_TICK = 0.2  # seconds between two looks whether the command is asked to stop


def compare(
    arguments: Sequence[str],
    *,
    allow_unequal: bool = False,
    on: On = "local",
    submit_only: bool = False,
    stream: TextIO | None = None,
) -> int:
    """``gansuite compare ARGUMENTS``: 0, 1 if a run failed, 75 if it was asked to stop.

    ``on`` says who executes the runs: this process, SLURM, or whoever starts the script that is
    written. ``submit_only``: what is missing is given to SLURM, and not waited for.

    Raises:
        UserError: the request is wrong, or what was found is not on equal terms.
    """
    stream = stream or sys.stdout
    arguments, options = take_options(arguments, on)
    if submit_only and on != "slurm":
        raise UserError("--submit-only is for --on slurm; here the runs go on in this process.")
    if on == "slurm":
        slurm.check_installed()

    def say(line: str) -> None:
        print(line, file=stream, flush=True)

    plan = make_plan(arguments, allow_unequal=allow_unequal, say=say)
    jobs = [Job(planned) for planned in plan.runs]
    waiting = [job for job in jobs if job.state == "waiting"]
    if jobs:
        say(f"{plan.name}: {len(jobs)} runs, {len(jobs) - len(waiting)} done, in {plan.folder}")
    if waiting and on != "local" and (address := address_of(plan.folder)):
        say(
            f"The jobs of {address} and their copies of its runs are in {plan.folder}, which the "
            f"nodes must share ('GANSUITE_CACHE')."
        )
    if waiting and on == "script":
        refuse_closed(plan.folder)
        file = write_script(waiting, plan.folder, options)
        say(file.read_text() + f"\nThe script is {file}: start it with 'sbatch {file}'.")
        return 0
    if waiting:
        refuse_closed(plan.folder)
        with contextlib.ExitStack() as stack:
            executor: Executor = (
                stack.enter_context(slurm.Slurm(plan.folder, options, say))
                if on == "slurm"
                else Local(Slots(plan.jobs))
            )
            asked = stack.enter_context(StopRequest())
            runner = Runner(jobs, executor, Overview(stream, plan.spec.rank_by), asked)
            runner.run(follow=not submit_only)
        if asked.name:
            say(f"Stopped by {asked.name}; {executor.left}")
            return STOPPED
        if submit_only and any(job.state in ("queued", "running") for job in jobs):
            say(f"Not waited for: {executor.left}")
            return 0
    from gansuite.compare.page import write_page
    from gansuite.compare.report import complete_report
    from gansuite.compare.tables import write_tables

    for job in jobs:
        if job.planned.done:
            publish(complete_report(job.path))
    comparison = collect(plan, allow_unequal)
    files = write_tables(comparison, plan.folder)
    page = write_page(comparison, plan.folder)
    say("\n" + files[0].read_text())
    publish(*files, page)
    bad = [job for job in jobs if job.state in ("failed", "stopped")]
    for job in bad:
        publish(job.path / ERROR_FILE, job.path / LOG_FILE)
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
    """Whether this process was asked to stop, by Ctrl-C, a scheduler or the end of its terminal."""

    def __init__(self) -> None:
        self.name = ""
        self.times = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        hang_up = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []
        for number in (signal.SIGINT, *SCHEDULER, *hang_up):
            with contextlib.suppress(ValueError):  # not the main thread
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.name = self.name or signal.Signals(number).name
        self.times += 1


class Runner:
    """Has an executor do the jobs until all is done, or until it is asked to stop."""

    def __init__(
        self, jobs: Sequence[Job], executor: Executor, overview: Overview, asked: StopRequest
    ) -> None:
        self.jobs, self.executor, self.overview, self.asked = jobs, executor, overview, asked

    def run(self, follow: bool = True) -> None:
        """``follow``: until all is done; else what can be started is, and left."""
        executor, jobs, due = self.executor, self.jobs, 0.0
        try:
            while not self.asked.name:
                if time.monotonic() >= due:
                    self._tell(self._free())
                    self._tell(executor.submit(jobs))
                    going = any(job.state in ("queued", "running", "elsewhere") for job in jobs)
                    if not follow or not going:
                        return
                    due = time.monotonic() + executor.every
                time.sleep(_TICK)
                if time.monotonic() >= due:
                    self._tell(executor.poll(jobs))
                self.overview.update(jobs)
        finally:
            executor.leave(jobs, lambda: self.asked.times > 1)
            self.overview.close()

    def _tell(self, changed: Sequence[Job]) -> None:
        for job in changed:
            self.overview.event(job, self.jobs)

    def _free(self) -> list[Job]:
        """What another process has done or left."""
        changed = []
        for job in self.jobs:
            if job.state == "elsewhere" and not Run(job.path).held():
                Run(job.path).refresh(checkpoints=False)
                job.state = "done" if job.planned.done else "waiting"
                changed.append(job)
        return changed

"""Runs as jobs of a SLURM cluster, submitted as one array through submitit.

Which job stands for which run is kept in ``slurm/jobs.json`` of the comparison's folder, so that
the next command follows the jobs that live and submits none of them twice. How a job stands is
asked of ``squeue``, all of them at once (and of ``sacct``, where there is one, for those that it
has forgotten); whether a run is done is for its own folder to say.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from gansuite.compare.entry import ERROR_FILE
from gansuite.compare.executors.child import images_seen, note_failure
from gansuite.compare.executors.options import Shape, SlurmOptions, shape_of
from gansuite.compare.executors.script import FOLDER, task_of
from gansuite.compare.executors.task import Task
from gansuite.compare.jobs import Job
from gansuite.errors import UserError
from gansuite.runs import Run, read_json, write_json
from gansuite.runs.lease import Lease

# of a job that may yet do something; COMPLETING also on its way back into the queue
_RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
_QUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT")
_NO_LIMIT = 1_000_000  # of restarts: progress is what counts
# the task of a job of several nodes, which starts the processes of the run on all of them
_FIRST_NODE = ["--nodes=1", "--ntasks=1", "--overlap"]
_SURE = 2  # looks that must find a job ended: a folder that is shared shows results with a delay


class Cluster(Protocol):
    """What is asked of a scheduler."""

    def submit(self, tasks: Sequence[Task], shape: Shape) -> list[str]:
        """The ids of the jobs of this ``shape`` that do ``tasks``, in their order."""

    def states(self, jobs: Iterable[str]) -> dict[str, str] | None:
        """How these jobs stand, in SLURM's words, as far as it is known; None for no answer."""


def check_installed() -> None:
    """Raise `UserError` unless jobs can be submitted from here."""
    for program in ("sbatch", "srun", "squeue"):
        if shutil.which(program) is None:
            raise UserError(
                f"There is no '{program}' here: --on slurm is for a machine of a SLURM cluster "
                f"that takes jobs; --on script writes a script for it."
            )
    if find_spec("submitit") is None:
        raise UserError(
            "--on slurm needs the package submitit: install it with pip install "
            "'gansuite[cluster]', or give --on script, which needs nothing."
        )


class Submitit:
    """The cluster that ``sbatch`` and ``squeue`` of this machine speak to."""

    def __init__(self, folder: Path, name: str, options: SlurmOptions) -> None:
        self.folder, self.name, self.options = folder, name, options

    def submit(self, tasks: Sequence[Task], shape: Shape) -> list[str]:
        import submitit

        o = self.options
        executor = submitit.AutoExecutor(
            folder=self.folder, cluster="slurm", slurm_max_num_timeout=_NO_LIMIT
        )
        wanted: dict[str, Any] = {
            "name": self.name,
            "timeout_min": o.timeout_min,
            "nodes": shape.nodes,
            "tasks_per_node": shape.tasks,
            "cpus_per_task": o.cpus_per_task,
            "gpus_per_node": shape.gpus or None,
            "mem_gb": o.mem_gb,
            "slurm_partition": o.partition,
            "slurm_account": o.account,
            "slurm_qos": o.qos,
            "slurm_constraint": o.constraint,
            "slurm_array_parallelism": o.parallel,
            "slurm_signal_delay_s": o.notice,
            "slurm_setup": [o.setup] if o.setup else None,
            "slurm_additional_parameters": {"requeue": True},
            "slurm_srun_args": _FIRST_NODE if shape.nodes > 1 else None,
        }
        executor.update_parameters(**{k: v for k, v in wanted.items() if v not in (None, "")})
        try:
            with executor.batch():
                jobs = [executor.submit(task) for task in tasks]
        except (submitit.core.utils.FailedJobError, OSError) as error:
            said = re.findall(r"sbatch: error: (.*)", str(error)) or [str(error)]
            reason = " ".join(said[-1].split()).rstrip(".")
            raise UserError(f"SLURM takes no such jobs: {reason}; see 'sinfo'.") from error
        return [str(job.job_id) for job in jobs]

    def states(self, jobs: Iterable[str]) -> dict[str, str] | None:
        told = _output("squeue", "-h", "-r", "-t", "all", "--me", "-o", "%i|%T")
        if told is None:
            return None
        found = _pairs(told)
        missing = sorted({job for job in jobs if job not in found})
        if missing and shutil.which("sacct"):
            ended = _output("sacct", "-n", "-P", "-X", "-o", "JobID,State", "-j", ",".join(missing))
            found |= {k: v for k, v in _pairs(ended or "").items() if k in missing}
        return found


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _pairs(text: str) -> dict[str, str]:
    lines = [line.strip().partition("|") for line in text.splitlines()]
    return {job: state.split()[0] for job, bar, state in lines if bar and state.strip()}


class Slurm:
    """One job for each run. Left, the jobs go on, and the next command takes them up again.

    Raises:
        UserError: another command follows this comparison, or SLURM refuses.
    """

    every = 5.0
    left = "the jobs go on, and the same command follows them again ('scancel' ends them)."

    def __init__(
        self,
        folder: Path,
        options: SlurmOptions,
        say: Callable[[str], None],
        cluster: Cluster | None = None,
    ) -> None:
        self.folder, self.options, self.say, self.cluster = folder / FOLDER, options, say, cluster
        self.name = folder.name
        self._file = self.folder / "jobs.json"
        self._known: dict[str, dict[str, Any]] = {}  # run -> its job, and where it was then
        self._ended: dict[str, int] = {}  # job -> how often it was found ended
        self._lease = Lease(self.folder / ".lock")
        self._adopted = False

    def __enter__(self) -> Slurm:
        self.folder.mkdir(parents=True, exist_ok=True)
        if holder := self._lease.take():
            raise UserError(
                f"Another command submits the runs of {self.folder.parent} already ({holder}); "
                f"wait for it, or stop it: the jobs go on."
            )
        if self._file.is_file():
            with contextlib.suppress(UserError):  # cut off: all that lives is held by its lease
                self._known = read_json(self._file)
        return self

    def __exit__(self, *_: object) -> None:
        self._lease.release()

    def submit(self, jobs: Sequence[Job]) -> list[Job]:
        if self.cluster is None:
            self.cluster = Submitit(self.folder, self.name, self.options)
        if not self._adopted:
            self._adopt(jobs)
            self._adopted = True
        new, changed = [], []
        for job in [job for job in jobs if job.state == "waiting"]:
            if job.planned.done:  # since it was looked at
                job.state = "done"
            elif Run(job.path).held():
                job.state = "elsewhere"
            else:
                new.append(job)
                continue
            changed.append(job)
        if new:
            self._submit(new)
        return changed

    def _adopt(self, jobs: Sequence[Job]) -> None:
        """Follow the jobs of an earlier command that still live."""
        known = [job for job in jobs if job.state == "waiting" and self._key(job) in self._known]
        if not known:
            return
        states = self._cluster.states(self._id(job) for job in known)
        if states is None:
            raise UserError(
                "squeue does not answer, so nobody knows which jobs of this comparison still "
                "live; try again when it does."
            )
        found = [job for job in known if states.get(self._id(job)) in (*_RUNNING, *_QUEUED)]
        for job in found:
            running = states[self._id(job)] in _RUNNING
            job.state = "running" if running else "queued"
        if found:
            self.say(f"{len(found)} jobs of an earlier command go on; they are followed.")

    def _submit(self, new: Sequence[Job]) -> None:
        shape = shape_of([job.planned.experiment for job in new], self.options)
        for job in new:
            (job.path / ERROR_FILE).unlink(missing_ok=True)
        images = [images_seen(job.path) for job in new]
        # a Ctrl-C must not end sbatch between its submitting and its saying so
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        try:
            tasks = [task_of(job, shape, self.options) for job in new]
            ids = self._cluster.submit(tasks, shape)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for job, name, seen in zip(new, ids, images, strict=True):
            self._known[self._key(job)] = {"job": name, "images_seen": seen}
            job.state = "queued"
        write_json(self._file, self._known)
        array = ids[0].partition("_")[0]
        self.say(
            f"{len(ids)} run(s) submitted as job {array}, {self.options.parallel} at once; "
            f"what they print is in {self.folder}"
        )

    def poll(self, jobs: Sequence[Job]) -> list[Job]:
        mine = [job for job in jobs if job.state in ("queued", "running")]
        states = self._cluster.states(self._id(job) for job in mine) if mine else {}
        if states is None:  # for the moment
            return []
        changed = []
        for job in mine:
            before, state = job.state, states.get(self._id(job), "")
            if job.planned.done:
                job.state = "done"
            elif state in _RUNNING or state in _QUEUED:
                job.state = "running" if state in _RUNNING else "queued"
                self._ended.pop(self._id(job), None)
            else:
                self._end(job, state)
            if job.state != before:
                changed.append(job)
        return changed

    def _end(self, job: Job, state: str) -> None:
        """Its job has ended and the run is not done: it comes again as long as it gets on."""
        name = self._id(job)
        self._ended[name] = self._ended.get(name, 0) + 1
        with contextlib.suppress(OSError):
            list(job.path.iterdir())  # has a shared folder looked up anew
        if self._ended[name] < _SURE or job.planned.done:
            return
        error = job.path / ERROR_FILE
        if error.is_file():
            job.state, job.reason = "failed", error.read_text(errors="replace").strip()
        elif state == "CANCELLED":
            job.state, job.reason = "stopped", f"job {name} was cancelled"
        elif Run(job.path).held():
            job.state = "elsewhere"
        elif images_seen(job.path) > self._known[self._key(job)]["images_seen"]:
            job.state = "waiting"
        else:
            job.state = "failed"
            how = f" ({state})" if state else ""
            reason = f"Job {name} ended{how} before anything was trained; see {self.folder}."
            job.reason = note_failure(job.path, reason)

    def leave(self, jobs: Sequence[Job], urgent: Callable[[], bool]) -> None:
        """The jobs are the cluster's."""

    @property
    def _cluster(self) -> Cluster:
        assert self.cluster is not None
        return self.cluster

    def _key(self, job: Job) -> str:
        return job.path.relative_to(self.folder.parent).as_posix()

    def _id(self, job: Job) -> str:
        return str(self._known[self._key(job)]["job"])

"""Runs by a script for ``sbatch``, which needs no other package on the way."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from gansuite.compare.executors.options import Shape, SlurmOptions, shape_of
from gansuite.compare.executors.task import Task
from gansuite.compare.jobs import Job
from gansuite.files import cache_folder
from gansuite.runs import is_remote, write_text

FOLDER = "slurm"
"""Within the folder of a comparison: what its jobs are made of, and what they print."""


def task_of(job: Job, shape: Shape, options: SlurmOptions) -> Task:
    """What a job of the cluster does for ``job``."""
    path, folder = str(job.path.absolute()), str(Path.cwd())
    cache = str(cache_folder().absolute()) if is_remote(job.path) else ""
    return Task(job.planned.arguments, path, folder, shape.launcher(options), cache)


def write_script(jobs: Sequence[Job], folder: Path, options: SlurmOptions) -> Path:
    """Write the tasks of ``jobs`` and the script that does them as a job array; the script."""
    tasks, script = folder / FOLDER / "tasks.json", folder / FOLDER / "submit.sh"
    shape = shape_of([job.planned.experiment for job in jobs], options)
    listed = [task_of(job, shape, options).plain() for job in jobs]
    write_text(tasks, json.dumps(listed, indent=1) + "\n")
    flags = {
        "job-name": folder.name,
        "array": f"0-{len(jobs) - 1}%{options.parallel}",
        "time": options.timeout_min,
        # B: the notice goes to the task below, which the batch shell has become
        "signal": f"B:USR2@{options.notice}",
        "output": (folder / FOLDER / "%A_%a.out").absolute(),
        "open-mode": "append",
        "nodes": shape.nodes,
        "ntasks-per-node": shape.tasks,
        "cpus-per-task": options.cpus_per_task,
        "gpus-per-node": shape.gpus or None,
        "mem": None if options.mem_gb is None else f"{round(options.mem_gb * 1024)}M",
        "partition": options.partition or None,
        "account": options.account or None,
        "qos": options.qos or None,
        "constraint": options.constraint or None,
    }
    lines = ["#!/bin/bash", "#SBATCH --requeue"]
    lines += [f"#SBATCH --{k}={shlex.quote(str(v))}" for k, v in flags.items() if v is not None]
    lines += [options.setup] if options.setup else []
    command = [sys.executable, "-m", "gansuite.compare.executors.task", str(tasks.absolute())]
    write_text(script, "\n".join([*lines, f"exec {shlex.join(command)}", ""]))
    return script

"""Runs by a script for ``sbatch``, which needs no other package on the way."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from gansuite.compare.executors.options import SlurmOptions
from gansuite.compare.executors.task import Task
from gansuite.compare.jobs import Job
from gansuite.runs import write_text

FOLDER = "slurm"
"""Within the folder of a comparison: what its jobs are made of, and what they print."""


def task_of(job: Job) -> Task:
    """What a job of the cluster does for ``job``."""
    return Task(job.planned.arguments, str(job.path.absolute()), str(Path.cwd()))


def gpus(jobs: Sequence[Job], options: SlurmOptions) -> int:
    """GPUs of each run: what is asked for, else 1 unless all are told to stay on the CPU."""
    if options.gpus_per_node is not None:
        return options.gpus_per_node
    return int(any(job.planned.experiment.trainer.accelerator != "cpu" for job in jobs))


def write_script(jobs: Sequence[Job], folder: Path, options: SlurmOptions) -> Path:
    """Write the tasks of ``jobs`` and the script that does them as a job array; the script."""
    tasks, script = folder / FOLDER / "tasks.json", folder / FOLDER / "submit.sh"
    listed = [task_of(job).plain() for job in jobs]
    write_text(tasks, json.dumps(listed, indent=1) + "\n")
    flags = {
        "job-name": folder.name,
        "array": f"0-{len(jobs) - 1}%{options.parallel}",
        "time": options.timeout_min,
        # B: the notice goes to the task below, which the batch shell has become
        "signal": f"B:USR2@{options.notice}",
        "output": (folder / FOLDER / "%A_%a.out").absolute(),
        "open-mode": "append",
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": options.cpus_per_task,
        "gpus-per-node": gpus(jobs, options) or None,
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

"""What a cluster is asked for: the ``slurm.*`` keys of the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from gansuite.config import Experiment
from gansuite.errors import UserError, nearest

_KEY = re.compile(r"slurm\.([\w.]*)=(.*)", re.DOTALL)
_COUNTS = ("timeout_min", "parallel", "nodes", "cpus_per_task", "gpus_per_node", "signal_delay_s")


@dataclass(frozen=True)
class SlurmOptions:
    """``timeout_min`` is the limit of one start, not of a run, which is started again until its
    budget is used up; ``signal_delay_s`` before it the run is told to save and leave. ``parallel``
    runs go on at once. What is None or "" is left to the cluster, but for ``nodes`` of each run
    (``trainer.num_nodes``) and ``gpus_per_node`` (`shape_of`)."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    timeout_min: int = 240
    parallel: int = 16
    nodes: int | None = None
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    signal_delay_s: int | None = None
    setup: str = ""

    @property
    def notice(self) -> int:
        """Seconds before the limit at which a run is told to save and leave."""
        return self.signal_delay_s or min(120, 30 * self.timeout_min)


def take_options(arguments: Sequence[str], on: str) -> tuple[list[str], SlurmOptions]:
    """``arguments`` without those of the cluster, and these. The nodes of a run are told to the
    run as well.

    Raises:
        UserError: an unknown key, a value that is none, or a key without a cluster.
    """
    rest, given = [], {}
    for argument in arguments:
        if found := _KEY.fullmatch(argument):
            given[found[1]] = found[2]
        else:
            rest.append(argument)
    known = [field.name for field in fields(SlurmOptions)]
    for key in given:
        if key not in known:
            raise UserError(
                f"There is no key 'slurm.{key}'{nearest(key, known)} ({', '.join(known)})."
            )
    if given and on == "local":
        raise UserError(
            f"'slurm.{next(iter(given))}' is of no use on this machine; give --on slurm as well."
        )
    options = SlurmOptions(**{key: _value(key, text) for key, text in given.items()})
    if options.nodes is not None:
        if [word for word in rest if word.startswith("trainer.num_nodes=")]:
            raise UserError("'slurm.nodes' and 'trainer.num_nodes' are the same; give one of them.")
        rest.append(f"trainer.num_nodes={options.nodes}")
    if options.notice >= 60 * options.timeout_min:
        raise UserError(
            f"'slurm.signal_delay_s' is {options.notice}, no less than the "
            f"{options.timeout_min} min of 'slurm.timeout_min': no time would be left to train."
        )
    return rest, options


@dataclass(frozen=True)
class Shape:
    """What each run takes: ``nodes``, and on each of them ``tasks`` processes that SLURM starts and
    ``gpus``. On one node it is one process, which starts the others itself."""

    nodes: int
    tasks: int
    gpus: int

    def launcher(self, options: SlurmOptions) -> list[str]:
        """What starts the processes of a run on several nodes, within its job; [] on one. They
        watch one another (`gansuite.processes`): the end of one is no reason to kill the others,
        which may still be writing."""
        if self.nodes == 1:
            return []
        words = {
            "nodes": self.nodes,
            "ntasks": self.nodes * self.tasks,
            "ntasks-per-node": self.tasks,
            "cpus-per-task": options.cpus_per_task,
            "gpus-per-node": self.gpus or None,
            "kill-on-bad-exit": 0,
            "wait": 0,
        }
        return ["srun", "--overlap", *(f"--{k}={v}" for k, v in words.items() if v is not None)]


def shape_of(experiments: Sequence[Experiment], options: SlurmOptions) -> Shape:
    """The shape of runs that are one array. GPUs are as many as are asked for; else those of
    ``trainer.devices``, 1 where it does not say, and none if all runs are told to stay on the CPU.

    Raises:
        UserError: the runs are of several shapes.
    """
    trainers = [e.trainer for e in experiments]
    devices = {1 if t.devices == "auto" else int(t.devices) for t in trainers}
    gpus = options.gpus_per_node
    if gpus is None:
        gpus = max(devices) if any(t.accelerator != "cpu" for t in trainers) else 0
    if all(t.num_nodes == 1 for t in trainers):
        return Shape(1, 1, gpus)
    for key in ("num_nodes", "devices"):
        found = sorted({str(getattr(t, key)) for t in trainers})
        if len(found) > 1:
            raise UserError(
                f"The runs have 'trainer.{key}' {' and '.join(found)}, but jobs of one array are "
                f"of one shape; give 'trainer.{key}=' for all of them."
            )
    auto = trainers[0].devices == "auto"
    return Shape(trainers[0].num_nodes, max(1, gpus) if auto else max(devices), gpus)


def _value(key: str, text: str) -> Any:
    if key == "mem_gb":
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number > 0):
            raise UserError(f"'slurm.mem_gb' is '{text}'; it must be a number above 0.")
        return number
    if key not in _COUNTS:
        if "\n" in text:
            raise UserError(f"'slurm.{key}' has several lines; it must be one.")
        return text
    least = 0 if key == "gpus_per_node" else 1
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < least:
        raise UserError(f"'slurm.{key}' is '{text}'; it must be a whole number, {least} or more.")
    return int(text)

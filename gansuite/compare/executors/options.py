"""What a cluster is asked for: the ``slurm.*`` keys of the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from gansuite.errors import UserError, nearest

_KEY = re.compile(r"slurm\.([\w.]*)=(.*)", re.DOTALL)
_COUNTS = ("timeout_min", "parallel", "nodes", "cpus_per_task", "gpus_per_node", "signal_delay_s")


@dataclass(frozen=True)
class SlurmOptions:
    """``timeout_min`` is the limit of one start, not of a run, which is started again until its
    budget is used up; ``signal_delay_s`` before it the run is told to save and leave. ``parallel``
    runs go on at once. What is None or "" is left to the cluster; ``gpus_per_node`` is 1 unless
    the runs are told to stay on the CPU."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    timeout_min: int = 240
    parallel: int = 16
    nodes: int = 1
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
    """``arguments`` without those of the cluster, and these.

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
    if options.nodes != 1:
        raise UserError(
            f"'slurm.nodes' is {options.nodes}, but a run of a comparison stays on one node, where "
            f"it takes what 'slurm.gpus_per_node' gives; start one over several nodes with srun or "
            f"torchrun ('gansuite exp')."
        )
    if options.notice >= 60 * options.timeout_min:
        raise UserError(
            f"'slurm.signal_delay_s' is {options.notice}, no less than the "
            f"{options.timeout_min} min of 'slurm.timeout_min': no time would be left to train."
        )
    return rest, options


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

"""How many devices and processes an experiment takes, and which device a tool computes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gansuite import processes
from gansuite.config import Experiment
from gansuite.errors import UserError

AMPERE = (8, 0)
"""The compute capability from which on GPUs compute in bf16."""


def settled(experiment: Experiment, begun: Mapping[str, Any] | None = None) -> Experiment:
    """``experiment`` with what ``auto`` in its ``trainer`` section stands for on this machine, but
    for the number of devices; in a run that has begun, what it was ``begun`` with."""
    t, begun = experiment.trainer, begun or {}
    gpu = bool(_gpus(experiment))
    precision: Any = t.precision
    if precision == "auto":
        ampere = gpu and torch.cuda.get_device_capability() >= AMPERE
        precision = begun.get("precision", "bf16-mixed" if ampere else "32-true")
    layout = t.channels_last
    if layout == "auto":
        apple = t.accelerator in ("auto", "mps") and torch.backends.mps.is_available()
        faster = not apple and (not gpu or precision in ("bf16-mixed", "16-mixed"))
        layout = begun.get("channels_last", faster)
    found = t.model_copy(update={"precision": precision, "channels_last": layout})
    return experiment.model_copy(update={"trainer": found})


def processes_of(experiment: Experiment) -> tuple[int, int]:
    """``devices`` for Lightning, and how many processes there will be on all nodes.

    ``devices: auto`` is what a launcher has started on this node, else as many GPUs as can share
    the batch evenly (`idle_devices` tells how many are left over), else 1.

    Raises:
        UserError: the global batch cannot be shared out evenly among them, or they are not those
            that a launcher has started.
    """
    t, batch = experiment.trainer, experiment.data["batch"]
    me = processes.launched()
    if t.num_nodes > 1 and (me is None or me.world is None):
        raise UserError(
            f"'trainer.num_nodes' is {t.num_nodes}, but no launcher has started this process, so "
            f"nobody would come from the other nodes: start it with torchrun or srun."
        )
    if t.devices != "auto":
        devices = int(t.devices)
    elif me is not None and me.world is not None:
        devices = me.local or max(1, me.world // t.num_nodes)
    else:
        shared = range(max(1, _gpus(experiment)), 0, -1)
        devices = next((n for n in shared if batch % (n * t.accumulate) == 0), 1)
    world = devices * t.num_nodes
    if me is not None and me.world is not None and me.world != world:
        raise UserError(
            f"{me.by} has started {me.world} process(es), but 'trainer.devices' x "
            f"'trainer.num_nodes' is {devices} x {t.num_nodes}; make them equal."
        )
    if batch % (world * t.accumulate):
        raise UserError(
            f"'data.batch' is {batch} for all processes together, which {world} process(es) x "
            f"{t.accumulate} chunk(s) cannot share; use a multiple of {world * t.accumulate}."
        )
    return devices, world


def _gpus(experiment: Experiment) -> int:
    wanted = experiment.trainer.accelerator in {"auto", "gpu", "cuda"}
    return torch.cuda.device_count() if wanted else 0


def idle_devices(experiment: Experiment) -> str:
    """What to say when ``devices: auto`` takes fewer GPUs than there are; "" otherwise."""
    t, gpus = experiment.trainer, _gpus(experiment)
    used = processes_of(experiment)[0]
    if t.devices != "auto" or used >= gpus:
        return ""
    return (
        f"trainer.devices=auto takes {used} of {gpus} GPUs: no more can share data.batch="
        f"{experiment.data['batch']} evenly"
        + (f" in {t.accumulate} chunks each." if t.accumulate > 1 else ".")
    )


def launches(experiment: Experiment) -> bool:
    """Whether the command has to start the ranks of this experiment itself."""
    return processes_of(experiment)[1] > 1 and processes.launched() is None


def choose_device(name: str) -> torch.device:
    """The device called ``name``; "auto" is a GPU where there is one.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        known = {
            "cpu": 1,
            "cuda": torch.cuda.device_count(),
            "mps": int(torch.backends.mps.is_available()),
        }[device.type]
    except (RuntimeError, KeyError) as error:
        raise UserError(f"'{name}' is no device; give auto, cpu, cuda, cuda:1 or mps.") from error
    if (device.index or 0) >= known:
        raise UserError(f"There is no device '{name}' here; --device auto takes what there is.")
    return device


def first_gpus(count: int) -> list[torch.device]:
    """The first ``count`` GPUs.

    Raises:
        UserError: there are not as many.
    """
    found = torch.cuda.device_count()
    if not 1 <= count <= found:
        raise UserError(f"--devices is {count}, and there are {found} GPUs here; leave it out.")
    return [torch.device("cuda", i) for i in range(count)]

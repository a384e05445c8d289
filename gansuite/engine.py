"""Experiment -> data, method, Trainer, run directory. The only place that builds a Trainer."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

from gansuite import config as configuration
from gansuite.callbacks.budget import Budget
from gansuite.callbacks.checkpoint import Checkpoint, Resume
from gansuite.callbacks.cost import CountFlops
from gansuite.callbacks.evaluate import Evaluate
from gansuite.callbacks.finish import Finish
from gansuite.callbacks.progress import Progress
from gansuite.callbacks.record import LogLosses, Recorder
from gansuite.callbacks.samples import Samples
from gansuite.callbacks.session import Session
from gansuite.callbacks.sinks import open_sinks
from gansuite.config import Experiment
from gansuite.data import SOURCES, DataModule, Source, build_source, describe_sources
from gansuite.data.spec import DataSpec
from gansuite.errors import UserError
from gansuite.methods import method_class, method_names
from gansuite.methods.base import Method, Plan
from gansuite.networks.layers import prefers_channels_last
from gansuite.rng import derive
from gansuite.runs import Run, environment, is_main, read_checkpoint, write_json

SCHEMAS = configuration.Schemas(
    methods=method_names(),
    method=method_class,
    sources=list(SOURCES),
    source=lambda name: SOURCES[name],
)


def load_experiment(name: str, overrides: Sequence[str] = ()) -> Experiment:
    """The validated experiment of that name with ``key=value`` overrides."""
    return configuration.load(name, overrides, SCHEMAS)


def cache_folder() -> Path:
    """Where decoded pictures are kept: $GANSUITE_CACHE, else the user's cache folder."""
    if "GANSUITE_CACHE" in os.environ:
        return Path(os.environ["GANSUITE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gansuite"


def build_source_of(experiment: Experiment) -> Source:
    """The source of an experiment's pictures; nothing is read yet."""
    own = experiment.data.keys() - configuration.DataOptions.model_fields.keys()
    return build_source(**{k: experiment.data[k] for k in own})


def inventory() -> dict[str, list[tuple[str, str]]]:
    """What ``gansuite list`` shows: methods, data sets and experiments with one line each."""
    methods = [
        (name, ((method_class(name).__doc__ or "").strip().splitlines() or [""])[0])
        for name in method_names()
    ]
    experiments = []
    for name, path in configuration.experiment_files().items():
        first = path.read_text().splitlines()[0] if path.stat().st_size else ""
        experiments.append((name, first.lstrip("# ").partition("  ")[0]))
    return {
        "Methods (method.name)": methods,
        "Data sets (data.name)": list(describe_sources()),
        "Experiments (make exp NAME=...)": experiments,
    }


def is_done(experiment: Experiment) -> bool:
    """Whether this run has reached its end with this very configuration.

    Raises:
        UserError: it exists with another one.
    """
    run = Run(experiment.run_dir)
    run.refuse_changes(experiment)
    return run.results.is_file() and run.last.is_file()


def build_data(experiment: Experiment) -> DataModule:
    """The data module of an experiment, checked against what its method needs."""
    common = {k: experiment.data[k] for k in configuration.DataOptions.model_fields}
    cls = method_class(experiment.method["name"])
    source = build_source_of(experiment)
    try:
        return DataModule(source, cls.needs, seed=experiment.seed, cache=cache_folder(), **common)
    except UserError as error:
        text = str(error).replace("this method", experiment.method["name"])
        raise UserError(text) from error


def build_method(options: Mapping[str, Any], spec: DataSpec, seed: int) -> Method:
    """A fresh method for ``spec``; its initial weights are a function of ``seed`` alone.

    Raises:
        UserError: the size does not fit the networks; the nearest sizes that do are named.
    """
    options = dict(options)
    cls = method_class(options.pop("name"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init"))
        method = cls(spec, **options)
    stride = method.stride
    if spec.size % stride:
        below = max(spec.size // stride * stride, stride)
        raise UserError(
            f"'data.size' is {spec.size}, but {method.title} with these options needs a multiple "
            f"of {stride}: {below} or {below + stride}."
        )
    return method


def load_method(path: str | Path, weights: str = "auto") -> Method:
    """The trained method in a checkpoint, in eval mode with its ``raw`` or ``ema`` weights
    ("auto": ema where there is one). Needs nothing but the file.

    Raises:
        UserError: no gansuite checkpoint, or one of a method this version does not have.
    """
    content = read_checkpoint(path)
    options, spec = content["experiment"]["method"], DataSpec.from_dict(content["data"])
    if options["name"] not in method_names():
        raise UserError(f"{path} holds a '{options['name']}', which is no method here.")
    method = build_method(options, spec, seed=0)
    method.load_weights(content["method"])
    if weights == "ema" and not method.has_averages():
        raise UserError(f"{path} holds no averaged weights; use weights=raw.")
    if weights != "raw":
        method.adopt_averages()
    return method.eval().requires_grad_(False)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks: up to 1.8 times faster steps on a CPU, same numbers."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
    libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
    libc.mallopt(-2, 64 << 20)  # M_TOP_PAD


def make_plan(experiment: Experiment, data: DataModule) -> Plan:
    """What the experiment asks of its method."""
    return Plan(
        seed=experiment.seed,
        images_per_batch=data.images_per_batch,
        optim=experiment.optim,
        budget=experiment.budget,
        ema=experiment.ema,
        accumulate=experiment.trainer.accumulate,
        fused=experiment.trainer.precision != "16-mixed",
    )


def check_processes(experiment: Experiment, world: int) -> None:
    """Raise `UserError` when the global batch cannot be shared out evenly."""
    batch, accumulate = experiment.data["batch"], experiment.trainer.accumulate
    if batch % (world * accumulate):
        raise UserError(
            f"'data.batch' is {batch} for all processes together, which {world} process(es) x "
            f"{accumulate} chunk(s) cannot share; use a multiple of {world * accumulate}."
        )


def make_trainer(experiment: Experiment, callbacks: list[Any]) -> Trainer:
    """A Trainer that only computes: files, loggers, bars and checkpoints are the callbacks'."""
    t = experiment.trainer
    accelerator: str = t.accelerator
    devices: int | str = t.devices
    if devices == "auto" and (accelerator == "cpu" or not torch.cuda.is_available()):
        devices = 1
    # processes that a launcher (torchrun, SLURM) has started already
    launched = int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1)
    gpus = torch.cuda.device_count() if accelerator != "cpu" else 0
    local = gpus or 1 if devices == "auto" else int(devices)
    several = max(launched, local * t.num_nodes) > 1
    if several:
        check_processes(experiment, local * t.num_nodes)
    else:
        check_processes(experiment, 1)
    try:
        return Trainer(
            accelerator=accelerator,
            devices=devices,
            num_nodes=t.num_nodes,
            # alternating players leave parameters unused in every backward
            strategy="ddp_find_unused_parameters_true" if several else "auto",
            precision=t.precision,
            deterministic=t.deterministic,
            sync_batchnorm=t.sync_batchnorm,
            max_epochs=-1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(f"The trainer settings do not fit this machine: {error}") from error


def quiet() -> None:
    """Keep Lightning's banners and tips out of the log; the run prints what matters itself."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning_utilities"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", category=UserWarning, module="torch.nn.parallel")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")


def train(experiment: Experiment) -> Session:
    """Run an experiment from the start, or from where it was interrupted.

    Returns the session; ``session.stopped`` names the signal if the run was asked to stop.

    Raises:
        UserError: one sentence; nothing half-written is left.
    """
    keep_freed_memory()
    quiet()
    run = Run(experiment.run_dir)
    if is_main():
        run.refuse_changes(experiment)
    data = build_data(experiment)
    method = build_method(experiment.method, data.spec, experiment.seed)
    if experiment.trainer.channels_last and prefers_channels_last(method):
        method = method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    method.follow(make_plan(experiment, data))
    session = Session(experiment, data, method, run)
    recorder = Recorder(session)
    progress = Progress(session)
    e = experiment
    checkpoint = Checkpoint(session, e.log.checkpoint_every_kimg or e.evaluate.every_kimg)
    callbacks: list[Any] = [
        Budget(session),
        CountFlops(session),
        LogLosses(session, recorder),
        Evaluate(session, recorder, checkpoint),
        Samples(session, recorder),
        checkpoint,
        Finish(session, recorder),
        progress,
    ]
    if run.last.is_file():
        callbacks.insert(0, Resume(session, run.last))
    trainer = make_trainer(experiment, callbacks)
    if is_main():
        run.begin(experiment)
        write_json(run.path / "environment.json", environment(_device_name(trainer)))
        recorder.sinks = open_sinks(experiment, run)
        if not run.last.is_file():
            run.rewind({})
    data.setup()
    trainer.fit(method, datamodule=data)
    return session


def _device_name(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return f"{trainer.world_size} x {torch.cuda.get_device_name(device)}"
    return f"{trainer.world_size} x {device.type} ({platform.machine()}, {os.cpu_count()} cores)"


"""Experiment -> data, method, Trainer, run directory. The only place that builds a Trainer."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import inspect
import logging
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException

from gansuite import catalogue, processes
from gansuite import config as configuration
from gansuite.callbacks.cost import OnlyCountFlops
from gansuite.callbacks.evaluate import Comparisons
from gansuite.callbacks.initial import read_initial
from gansuite.callbacks.session import Session
from gansuite.callbacks.training import TrainingRun
from gansuite.config import Experiment
from gansuite.core.compiled import check_compiler
from gansuite.core.settings import Settings
from gansuite.data import DataModule, Source, build_source, check
from gansuite.data.check import Report
from gansuite.data.spec import DataSpec
from gansuite.devices import idle_devices, processes_of, settled
from gansuite.errors import UserError
from gansuite.evaluation.evaluator import Evaluator
from gansuite.files import cache_folder
from gansuite.loggers.run import named_loggers
from gansuite.losses.precision import full_float32
from gansuite.methods import method_class, method_names
from gansuite.methods.base import Method
from gansuite.networks.layers import prefers_channels_last
from gansuite.networks.recompute import recompute_
from gansuite.processes import is_main
from gansuite.rehearsal import rehearse
from gansuite.rng import derive
from gansuite.runs import (
    Run,
    environment,
    find_checkpoint,
    fitting,
    read_checkpoint,
)


def build_source_of(experiment: Experiment) -> Source:
    """The source of an experiment's pictures; nothing is read yet."""
    own = experiment.data.keys() - configuration.DataOptions.model_fields.keys()
    source = build_source(**{k: experiment.data[k] for k in own})
    source.expect(experiment.data["channels"])
    return source


def is_done(experiment: Experiment) -> bool:
    """Whether this run has reached its end with this very configuration.

    Raises:
        UserError: it exists with another one.
    """
    run = Run(experiment.run_dir)
    run.refresh()
    run.refuse_changes(experiment)
    return run.done


def check_data(experiment: Experiment) -> Report:
    """What is found of an experiment's data, and whether its method can be trained on them."""
    report = check.check_data(build_source_of(experiment))
    if report.ok:
        try:
            build_data(experiment).check_tests()
        except UserError as error:
            report.problems.append(str(error))
    return report


def build_data(experiment: Experiment) -> DataModule:
    """The data module of an experiment, checked against what its method needs."""
    common = {k: experiment.data[k] for k in configuration.DataOptions.model_fields}
    cls = method_class(experiment.method["name"])
    source = build_source_of(experiment)
    try:
        data = DataModule(source, cls.needs, seed=experiment.seed, cache=cache_folder(), **common)
        data.spec  # noqa: B018 - here what the data lack is said of the method
        return data
    except UserError as error:
        text = str(error).replace("this method", experiment.method["name"])
        raise UserError(text) from error


def build_method(options: Mapping[str, Any], spec: DataSpec, seed: int) -> Method:
    """A fresh method for ``spec``; its initial weights are a function of ``seed`` alone.

    Raises:
        UserError: the size does not fit the networks; the nearest sizes that do are named.
    """
    options = dict(options)
    name = options.pop("name")
    cls = method_class(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init"))
        try:
            method = cls(spec, **options)
        except (ValueError, RuntimeError, ArithmeticError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{name} cannot be built with these options: {reason}.") from error
    for key, parameter in method.named_parameters():
        if not parameter.numel():
            raise UserError(f"{name} cannot be built with these options: {key} would be empty.")
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
    content = read_checkpoint(path, needs=("experiment", "data", "method"))
    with fitting(path):
        options, spec = content["experiment"]["method"], DataSpec.from_dict(content["data"])
    if options["name"] not in method_names():
        raise UserError(f"{path} holds a '{options['name']}', which is no method here.")
    known = inspect.signature(method_class(options["name"])).parameters
    for key in options.keys() - known.keys() - {"name"}:
        raise UserError(
            f"{path} was trained with 'method.{key}', which {options['name']} does not have here; "
            f"use the version of gansuite that trained it."
        )
    with fitting(path):
        method = build_method(options, spec, seed=0)
        if content["experiment"].get("trainer", {}).get("channels_last") is True:
            method = _laid_out(method)  # as in training: rounded in the same way
        method.load_weights(content["method"])
    if weights == "ema" and not method.averages:
        raise UserError(f"{path} holds no averaged weights; use --weights raw.")
    if weights != "raw":
        method.adopt_averages()
    with fitting(path):
        method.assert_finite()
    return method.eval().requires_grad_(False)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks: up to 1.8 times faster steps on a CPU, same numbers."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
    libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
    libc.mallopt(-2, 64 << 20)  # M_TOP_PAD
    libc.mallopt(-4, 0)  # M_MMAP_MAX: also what is above the threshold, of which 32 MB is the limit


def make_settings(experiment: Experiment, data: DataModule) -> Settings:
    """What the experiment asks of its method."""
    return Settings(
        seed=experiment.seed,
        images_per_batch=data.images_per_batch,
        optim=experiment.optim,
        budget=experiment.budget,
        ema=experiment.ema,
        accumulate=experiment.trainer.accumulate,
        fused=settled(experiment).trainer.precision != "16-mixed",
        graphs=experiment.trainer.graphs,
        compile=experiment.trainer.compile,
        mixed_penalties=experiment.trainer.penalties == "mixed",
        freeze=experiment.freeze,
    )


def make_trainer(experiment: Experiment, callbacks: list[Any]) -> Trainer:
    """A Trainer that only computes: what is logged and saved, and when, is `TrainingRun`'s."""
    t = settled(experiment).trainer
    cuda = t.accelerator not in {"cpu", "mps"} and torch.cuda.is_available()
    if t.precision == "16-mixed" and not cuda:  # Lightning would take bf16-mixed without a word
        raise UserError(
            "'trainer.precision' is 16-mixed, which needs a CUDA device; use bf16-mixed or 32-true."
        )
    if t.graphs and not cuda:
        raise UserError("'trainer.graphs' is true, which needs a CUDA device; set it to false.")
    if t.graphs and t.precision == "16-mixed":  # its loss scale is read on the host
        raise UserError(
            "'trainer.graphs' is true, which 16-mixed has no place in; use bf16-mixed or 32-true."
        )
    if t.penalties == "mixed" and t.precision != "bf16-mixed":
        raise UserError(
            f"'trainer.penalties' is mixed, which is for bf16-mixed, and 'trainer.precision' is "
            f"{t.precision}; set one of them as the other asks."
        )
    if t.compile and t.recompute:
        raise UserError(
            "'trainer.compile' and 'trainer.recompute' are both true; a compiled network decides "
            "by itself what it computes again: set one of them to false."
        )
    devices, world = processes_of(experiment)
    before = torch.are_deterministic_algorithms_enabled()
    try:
        return Trainer(
            accelerator=t.accelerator,
            devices=devices,
            num_nodes=t.num_nodes,
            strategy=processes.strategy() if world > 1 else "auto",
            plugins=[processes.cluster()],
            # where Lightning looks for checkpoints of its own, which no run has
            default_root_dir=experiment.run_dir,
            precision=cast(Any, t.precision),
            # told only where that changes something: it imports PyTorch's compiler
            deterministic=t.deterministic or (False if before else None),
            sync_batchnorm=t.sync_batchnorm,
            max_epochs=-1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            logger=False,
            log_every_n_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        reason = " ".join(str(error).split()).rstrip(".!")
        raise UserError(f"The trainer settings do not fit this machine: {reason}.") from error


def quiet() -> None:
    """Keep Lightning's banners and tips out of the log; the run prints what matters itself."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning_utilities"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")


def train(experiment: Experiment) -> Session:
    """Run an experiment from the start, or from where it was interrupted.

    Returns the session; ``session.stopped`` names the signal if the run was asked to stop, or is
    "health" if it stopped itself, for the reason in ``session.stop_reason``.

    Raises:
        UserError: one sentence; nothing half-written is left.
    """
    keep_freed_memory()
    allow_open_files()
    quiet()
    run = Run(experiment.run_dir)
    if is_main():
        run.refuse_changes(experiment)
    experiment = settled(experiment, run.begun)
    if is_main():
        named_loggers(experiment)  # what is missing is told before anything is read
    processes_of(experiment)  # before anything is downloaded or launched
    data = build_data(experiment)
    session = Session(experiment, data, rehearsed_method(experiment, data), run)
    if experiment.init_from and is_main() and not run.resumable:
        session.initial = read_initial(experiment, session.method)
    trainer = make_trainer(experiment, [TrainingRun(session)])
    if experiment.trainer.compile:
        check_compiler(trainer.strategy.root_device)
    try:
        data.setup()  # every picture is read before anything is written
        if is_main():
            run.begin(experiment)
            run.saw(environment(_device_name(trainer)))
            for line in run.notices:
                print(line, flush=True)
            session.loggers.open(run.images_seen)
            trainer.loggers = session.loggers.all
            if not run.resumable:
                run.rewind({})
            if told := idle_devices(experiment):
                print(told, flush=True)
        processes.ready()
        with processes.watching_others(run.release):
            trainer.fit(session.method, datamodule=data)
        run.push()
    except BaseException as error:
        run.abandon()
        if any(isinstance(e, KeyboardInterrupt) for e in _behind(error)):
            # Lightning makes an exit without a word of it, a file being written an error
            raise KeyboardInterrupt from None
        if isinstance(error, Exception) and _out_of_files(error):
            raise UserError(
                f"There are too few open files for 'data.workers' {data.workers}: lower it, or "
                f"raise the limit (ulimit -n)."
            ) from error
        if isinstance(error, RuntimeError | MemoryError | OSError) and _out_of_memory(error):
            raise UserError(
                f"There is not enough memory for 'data.batch' {data.batch} at 'data.size' "
                f"{data.size}: raise 'trainer.accumulate' (now "
                f"{experiment.trainer.accumulate}), which computes a batch in so many chunks, "
                f"or lower 'data.batch' or 'data.size'."
            ) from error
        raise
    finally:
        run.release()
    return session


def measure_flops(experiment: Experiment) -> tuple[int, int]:
    """FLOPs per real picture (as in ``results.json``) and pictures per batch.

    Trains one period of the method's updates and lazy terms; nothing is scored, written or kept.
    """
    quiet()
    data = build_data(experiment)
    method = rehearsed_method(experiment, data)
    session = Session(experiment, data, method, Run(experiment.run_dir))
    trainer = make_trainer(experiment, [OnlyCountFlops(session)])
    trainer.fit(method, datamodule=data)
    return session.notes["flops_per_image"], data.images_per_batch


def ready_method(experiment: Experiment, data: DataModule) -> Method:
    """The method of an experiment, built for its data and told its settings."""
    return _ready(experiment, data, data.spec)


def rehearsed_method(experiment: Experiment, data: DataModule) -> Method:
    """`ready_method`, whose losses are known to accept the size and the number of pictures."""
    method, t = ready_method(experiment, data), experiment.trainer
    world = processes_of(experiment)[1]
    together = data.batch // t.accumulate // (1 if t.sync_batchnorm else world)
    rehearse(method, together, lambda spec: _ready(experiment, data, spec))
    return method


def _ready(experiment: Experiment, data: DataModule, spec: DataSpec) -> Method:
    method = build_method(experiment.method, spec, experiment.seed)
    if settled(experiment).trainer.channels_last:
        method = _laid_out(method)
    if experiment.trainer.recompute:
        recompute_(method)
    method.configure(make_settings(experiment, data))
    return method


def _laid_out(method: Method) -> Method:
    """Channels last, where that pays."""
    return method.to(memory_format=torch.channels_last) if prefers_channels_last(method) else method


def _out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        told in text for told in ("allocate memory", "not enough memory", "can't start new thread")
    )


def _out_of_files(error: BaseException) -> bool:
    """Whether a limit on open files is behind ``error``, however it has been wrapped."""
    return any(
        getattr(e, "errno", None) in (errno.EMFILE, errno.ENFILE)
        or "too many open files" in str(e).lower()
        for e in _behind(error)
    )


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """``error``, and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def allow_open_files() -> None:
    """Raise this process's limit on open files to what it is allowed: loader workers hand over
    every tensor as one."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


# what may differ between training and scoring again
_EVALUATE = ("data.root", "data.workers", "evaluate.", "health", "trainer.accelerator")


def evaluate(
    path: str | Path,
    overrides: Sequence[str] = (),
    prepare: Callable[[Method], Any] = lambda method: None,
) -> dict[str, Any]:
    """Score a checkpoint as its run did: rebuilds data, method and protocol from the file.
    ``prepare`` is called with the method before it makes pictures.

    Returns ``experiment``, ``seed``, ``images_seen``, ``weights``, ``protocol``, ``references``
    and ``final`` as in ``results.json``, and ``recorded``: the scores that the run noted at the
    same point, or None where there are none under this protocol and on these data.

    Raises:
        UserError: no checkpoint, other data, or an override of what the checkpoint fixes.
    """
    file = find_checkpoint(path)
    content = read_checkpoint(file, needs=("experiment", "data", "method", "notes"))
    layers = [(str(file), content["experiment"]), *configuration.read_overrides(overrides)]
    e = configuration.resolve(layers, catalogue.schemas())
    for change in configuration.difference(content["experiment"], e.plain()):
        if not change.startswith(_EVALUATE):
            raise UserError(
                f"A checkpoint is scored as it was trained; only 'data.root' and 'evaluate.*' "
                f"may be given, not {change}."
            )
    data = build_data(e)
    cuda = e.trainer.accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    evaluator = Evaluator.of(e.evaluate, data, device=device)
    method = ready_method(e, data)
    with fitting(file):
        method.load_weights(content["method"])
    method.to(device)
    method.on_fit_start()  # the averaged weights follow to the device
    with full_float32(), method.evaluating(e.evaluate.weights) as weights:
        with fitting(file):
            method.assert_finite()
        prepare(method)
        found = Comparisons(Session(e, data, method, Run(file.parent.parent)))()
    images_seen = content["method"]["counters"]["images_seen"]
    notes = content["notes"]
    folder = file.suffix == ".safetensors"  # of a model, with its scores; else that of a run
    recorded = notes["final"] or None if folder else Run(file.parent.parent).scores_at(images_seen)
    same = evaluator.protocol.id == notes["protocol"]["id"]
    same = same and data.spec.digest == content["data"]["digest"]
    return {
        "experiment": e.name,
        "seed": e.seed,
        "images_seen": images_seen,
        "weights": weights,
        "protocol": evaluator.report(),
        "references": notes["references"] if same else {},
        "final": evaluator.scores(found),
        "recorded": recorded if same else None,
    }


def largest_difference(
    a: Mapping[str, Mapping[str, float]], b: Mapping[str, Mapping[str, float]]
) -> tuple[str, float]:
    """The score in which two sets of scores differ most, and by how much; 0 when they are equal."""
    flat = [{f"{n}/{m}": v for n, row in rows.items() for m, v in row.items()} for rows in (a, b)]
    missing = float("inf")
    by = {k: abs(flat[0].get(k, missing) - flat[1].get(k, -missing)) for k in flat[0] | flat[1]}
    return max(by.items(), key=lambda item: item[1])


def _device_name(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return f"{trainer.world_size} x {torch.cuda.get_device_name(device)}"
    return f"{trainer.world_size} x {device.type} ({platform.machine()}, {os.cpu_count()} cores)"

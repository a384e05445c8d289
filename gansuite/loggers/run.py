"""The loggers of a run: its own files, which are the truth, and those that ``log.loggers`` names,
which hold what the files hold. All are Lightning's; the step is ``images_seen`` throughout."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from gansuite.config import Experiment
from gansuite.errors import UserError
from gansuite.loggers.account import NO_KEY, has_wandb_key, wandb_mode
from gansuite.runs import Run, read_lines

COST = "cost/"
"""How values begin that depend on the clock."""
# loggers whose packages, of the same name, may be missing
_NEEDS = ("tensorboard", "mlflow")
_PICTURE = "picture"


def kind_of(metrics: Mapping[str, Any]) -> str:
    """``train`` for the means of a log interval, ``eval`` for scores."""
    return "train" if any(key.startswith("loss/") for key in metrics) else "eval"


def named_loggers(experiment: Experiment) -> list[str]:
    """The names in ``log.loggers``, each once, without a W&B that is disabled.

    Raises:
        UserError: a package is missing, or W&B shall be online without a key.
    """
    named: list[str] = list(dict.fromkeys(experiment.log.loggers))
    for name in named:
        if name in _NEEDS and importlib.util.find_spec(name) is None:
            raise UserError(
                f"'log.loggers' names {name}, which is not installed: "
                f"pip install 'gansuite[{name}]'."
            )
    if "wandb" in named:
        mode = wandb_mode(experiment.log.wandb)
        if mode == "online" and not has_wandb_key():
            raise UserError(f"'log.wandb' is online, but {NO_KEY}; or use log.wandb=offline.")
        if mode == "disabled":
            named.remove("wandb")
    return named


def _opened(name: str, experiment: Experiment, run: Run) -> Any:
    if name == "wandb":  # each with its package, which takes a while
        from gansuite.loggers.wandb import Wandb

        return Wandb(experiment, run)
    from gansuite.loggers.local import Csv, MLflow, TensorBoard

    classes: dict[str, Any] = {"csv": Csv, "mlflow": MLflow, "tensorboard": TensorBoard}
    return classes[name](experiment, run)


class RunLogger(Logger):
    """A line of ``metrics.jsonl`` and one of ``timing.jsonl`` for every call.

    What begins with ``cost/`` goes into the latter. ``step`` is the number of real pictures seen.
    Both files are cut back to a checkpoint by `Run.rewind`.
    """

    def __init__(self, run: Run, images_per_batch: int) -> None:
        super().__init__()
        self.run, self.images_per_batch = run, images_per_batch

    @property
    def name(self) -> str:
        return self.run.path.parent.name

    @property
    def version(self) -> str:
        return self.run.path.name

    @property
    def save_dir(self) -> str:
        return str(self.run.path)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        assert step is not None
        position: dict[str, Any] = {"kind": kind_of(metrics), "images_seen": step}
        values = {k: v for k, v in metrics.items() if not k.startswith(COST)}
        timing = {k.removeprefix(COST): v for k, v in metrics.items() if k.startswith(COST)}
        batches = {"batches": step // self.images_per_batch}
        self.run.append(self.run.metrics, {**position, **batches, **values})
        self.run.append(self.run.timing, {**position, **timing})
        self.run.push(lines=True, needed=False)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``config.yaml`` has them."""


class Loggers:
    """The loggers of a run, on rank 0; elsewhere, and before `open`, there are none.

    ``all`` is what the Trainer is given. The others follow the run's files: one that is opened or
    that sees the run go back to a checkpoint is begun anew and filled from them. A server forgets
    nothing (``continues``): what it has been sent before is not sent again.
    """

    def __init__(self, experiment: Experiment, run: Run, images_per_batch: int) -> None:
        self.experiment, self.run = experiment, run
        self.images_per_batch = images_per_batch
        self.all: list[Any] = []
        self._names: list[str] = []
        self._has: list[set[tuple[str, int]]] = []  # of each, (kind, images seen)

    def open(self, images_seen: int | None) -> None:
        """Open all; the run goes on from a checkpoint at ``images_seen`` (None: begins).

        Raises:
            UserError: as `named_loggers`, or W&B does not start.
        """
        self._names = named_loggers(self.experiment)
        self.all.append(RunLogger(self.run, self.images_per_batch))
        self._has.append(set())
        for name in self._names:
            self.all.append(_opened(name, self.experiment, self.run))
            self._has.append(self._filled(self.all[-1], images_seen))

    def rewind(self, images_seen: int) -> None:
        """The run has gone back to its checkpoint at ``images_seen``."""
        for i, name in enumerate(self._names, 1):
            if not _continues(self.all[i]):
                self.all[i].finalize("failed")
                self.all[i] = _opened(name, self.experiment, self.run)
                self._has[i] = self._filled(self.all[i], images_seen)

    def log(self, metrics: Mapping[str, float], images_seen: int) -> None:
        """Losses or scores, and ``cost/...``, to all of them."""
        self._give(kind_of(metrics), dict(metrics), images_seen)

    def picture(self, path: Path, images_seen: int) -> None:
        """A grid of samples, to those that take pictures."""
        self._give(_PICTURE, path, images_seen)

    def results(self, results: Mapping[str, Any]) -> None:
        """The content of ``results.json``, to those that take it."""
        for logger in self.all:
            if hasattr(logger, "log_results"):
                logger.log_results(results)

    def _give(self, kind: str, value: Any, images_seen: int) -> None:
        for logger, has in zip(self.all, self._has, strict=True):
            if (kind, images_seen) not in has:
                _log(logger, kind, value, images_seen)

    def _filled(self, logger: Any, images_seen: int | None) -> set[tuple[str, int]]:
        """Give ``logger`` what the files hold up to ``images_seen``; what it has now."""
        has = set()
        for at, kind, value in _recorded(self.run):
            if _continues(logger):
                has.add((kind, at))
            elif images_seen is not None and at <= images_seen:
                has.add((kind, at))
                _log(logger, kind, value, at)
        return has


def _continues(logger: Any) -> bool:
    return getattr(logger, "continues", False)


def _log(logger: Any, kind: str, value: Any, images_seen: int) -> None:
    if kind != _PICTURE:
        logger.log_metrics(value, images_seen)
    elif hasattr(logger, "log_picture"):
        logger.log_picture(value, images_seen)


def _recorded(run: Run) -> list[tuple[int, str, Any]]:
    """(images seen, kind, values or path) of each line and picture of a run, in order."""
    clock = {
        (r.pop("kind"), r.pop("images_seen")): {COST + k: v for k, v in r.items()}
        for r in read_lines(run.timing)
    }
    found: list[tuple[int, str, Any]] = []
    for r in read_lines(run.metrics):
        if r["kind"] != "health":  # words; the results have them
            at, kind = r["images_seen"], r["kind"]
            values = {k: v for k, v in r.items() if "/" in k}
            found.append((at, kind, values | clock.get((kind, at), {})))
    for path in (run.path / "samples").glob("*.jpg"):
        if path.stem.isdigit():
            found.append((int(path.stem), _PICTURE, path))
    return sorted(found, key=lambda event: (event[0], event[1] == _PICTURE))

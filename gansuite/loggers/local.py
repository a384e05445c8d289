"""TensorBoard, CSV and MLflow in folders of the run directory: Lightning's own loggers, each begun
anew when it is opened (`gansuite.loggers.run.Loggers` fills it again)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger
from PIL import Image

from gansuite.config import Experiment
from gansuite.runs import Run


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


class TensorBoard(TensorBoardLogger):
    """``tensorboard/``: all values and the grids of samples."""

    def __init__(self, experiment: Experiment, run: Run) -> None:
        folder = _emptied(run.path / "tensorboard")
        super().__init__(run.path, name=folder.name, version="", default_hp_metric=False)

    def log_picture(self, path: Path, step: int) -> None:
        """A grid of samples."""
        with Image.open(path) as image:
            array = np.asarray(image.convert("RGB"))
        self.experiment.add_image("samples", array, step, dataformats="HWC")


class Csv(CSVLogger):
    """``csv/metrics.csv``: a row for each line of ``metrics.jsonl``, which like that knows no
    clock, so that a resumed run has the same bytes as an undisturbed one."""

    def __init__(self, experiment: Experiment, run: Run) -> None:
        folder = _emptied(run.path / "csv")
        super().__init__(run.path, name=folder.name, version="", flush_logs_every_n_steps=1)

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        super().log_metrics({k: v for k, v in metrics.items() if not k.startswith("cost/")}, step)


class MLflow(MLFlowLogger):
    """``mlflow/``: MLflow's store of files, with one run whose id is kept; needs no server."""

    def __init__(self, experiment: Experiment, run: Run) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions refuse it
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        folder = (run.path / "mlflow").resolve()
        found = next(folder.glob("[0-9]*/*/meta.yaml"), None)  # <experiment>/<run>/
        if found is not None:
            for part in ("metrics", "artifacts"):
                _emptied(found.parent / part).mkdir()  # without them it is no run
        e = experiment
        super().__init__(
            experiment_name=e.log.project,
            run_name=f"{e.method['name']}-{e.data['name']}-{e.seed}",
            tracking_uri=folder.as_uri(),
            tags={"method": e.method["name"], "data": e.data["name"], "seed": str(e.seed)},
            run_id=found.parent.name if found else None,
        )
        self._complete = False
        if found is None:
            self.log_hyperparams(e.plain())
        self.experiment.update_run(self.run_id, status="RUNNING")

    def log_picture(self, path: Path, step: int) -> None:
        """A grid of samples."""
        self.experiment.log_artifact(self.run_id, str(path), "samples")

    def log_results(self, results: Mapping[str, Any]) -> None:
        """The verdict of a run that has come to its end, as a tag."""
        self.experiment.set_tag(self.run_id, "verdict", results["verdict"])
        self._complete = True

    def finalize(self, status: str = "success") -> None:
        # Lightning calls everything a success that it has taken down, also after a failure
        super().finalize("success" if self._complete else "failed")

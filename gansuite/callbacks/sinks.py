"""W&B and TensorBoard beside the run's own files, which stay the truth."""

from __future__ import annotations

import hashlib
import netrc
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from gansuite.callbacks.record import Sink
from gansuite.config import Experiment
from gansuite.errors import UserError
from gansuite.runs import Run, read_lines


Mode = Literal["online", "offline", "disabled"]


def wandb_mode(wanted: Literal["auto", "online", "offline", "disabled"]) -> Mode:
    """The mode for ``log.wandb``; never asks. "auto" is online only with a key at hand."""
    if wanted != "auto":
        return wanted
    if os.environ.get("WANDB_MODE") in {"offline", "disabled", "dryrun"}:
        return "disabled" if os.environ["WANDB_MODE"] == "disabled" else "offline"
    return "online" if has_wandb_key() else "offline"


def has_wandb_key() -> bool:
    """Whether a W&B key is in the environment or in the user's netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def run_id(run: Run) -> str:
    """The W&B id of a run directory: always the same for the same folder."""
    return hashlib.blake2b(str(run.path.resolve()).encode(), digest_size=6).hexdigest()


class WandbSink:
    """One W&B run per run directory; every record carries ``images_seen``, the only x axis.

    An offline run that is resumed is written anew from ``metrics.jsonl``, so that one folder holds
    the whole history and nothing twice; an online one is continued under its id.
    """

    def __init__(
        self, experiment: Experiment, run: Run, mode: Literal["online", "offline"]
    ) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        e = experiment
        folder = run.path / "wandb"
        replay = mode == "offline" and folder.is_dir()
        if replay:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._wandb = wandb
        self.run = wandb.init(
            mode=mode,
            dir=str(run.path),
            id=run_id(run),
            resume="allow" if mode == "online" else None,
            project=e.log.project,
            group=e.log.group or f"{e.data['name']}",
            job_type=e.method["name"],
            name=f"{e.method['name']}-{e.data['name']}-{e.seed}",
            tags=[e.method["name"], e.data["name"], *e.log.tags],
            config=e.plain(),
            settings=wandb.Settings(console="off", disable_git=True, x_disable_stats=True),
        )
        self.run.define_metric("images_seen")
        self.run.define_metric("*", step_metric="images_seen")
        if replay:
            for record in read_lines(run.metrics):
                self.log(record)

    def log(self, record: Mapping[str, Any]) -> None:
        self.run.log({k: v for k, v in record.items() if k != "kind"})

    def picture(self, path: Path, images_seen: int) -> None:
        self.run.log({"samples": self._wandb.Image(str(path)), "images_seen": images_seen})

    def finish(self, results: Mapping[str, Any] | None) -> None:
        if results is not None:
            for name, scores in results["final"].items():
                for metric, value in scores.items():
                    self.run.summary[f"final/{name}/{metric}"] = value
            for key, value in results["cost"].items():
                self.run.summary[f"cost/{key}"] = value
            self.run.summary["verdict"] = results["verdict"]
        self.run.finish(quiet=True)


class TensorBoardSink:
    """Scalars and grids for TensorBoard, x axis ``images_seen``."""

    def __init__(self, run: Run) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "log.tensorboard=true needs TensorBoard: pip install 'gansuite[tensorboard]'."
            ) from error
        self.writer = SummaryWriter(str(run.path / "tensorboard"))

    def log(self, record: Mapping[str, Any]) -> None:
        at = int(record["images_seen"])
        for key, value in record.items():
            if "/" in key:
                self.writer.add_scalar(key, value, at)

    def picture(self, path: Path, images_seen: int) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            array = np.asarray(image.convert("RGB"))
        self.writer.add_image("samples", array, images_seen, dataformats="HWC")

    def finish(self, results: Mapping[str, Any] | None) -> None:
        self.writer.close()


def open_sinks(experiment: Experiment, run: Run) -> list[Sink]:
    """The sinks an experiment asks for; called on rank 0 only."""
    sinks: list[Sink] = []
    mode = wandb_mode(experiment.log.wandb)
    if mode != "disabled":
        sinks.append(WandbSink(experiment, run, mode))
    if experiment.log.tensorboard:
        sinks.append(TensorBoardSink(run))
    return sinks

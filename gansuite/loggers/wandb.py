"""W&B: Lightning's `WandbLogger` with ``images_seen`` as its only x axis."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from gansuite.config import Experiment
from gansuite.errors import UserError
from gansuite.loggers.account import load_wandb, wandb_mode
from gansuite.runs import Run

_PICTURES = 32
_HEALTH = ("images_seen", "event", "name", "action", "message")
_STRIPS = ("source", "fake", "truth")


def run_id(run: Run) -> str:
    """The W&B id of a run directory: always the same for the same folder."""
    return hashlib.blake2b(str(run.path.resolve()).encode(), digest_size=6).hexdigest()


def worth_sending(index: int) -> bool:
    """Which pictures of a run go to a server: the first 32, then half of the next 32, a quarter of
    the next 64 and so on, so that a run of any length sends about a hundred."""
    return index < _PICTURES or index % (1 << (index // _PICTURES).bit_length()) == 0


class Wandb(WandbLogger):
    """One W&B run per run directory. Offline, its folder is begun anew; ``online`` it is continued
    under its id, and what was sent stays (``continues``).

    Raises:
        UserError: W&B does not start, and is not allowed to be offline instead.
    """

    def __init__(self, experiment: Experiment, run: Run) -> None:
        wanted = experiment.log.wandb
        mode = wandb_mode(wanted)
        assert mode != "disabled"
        wandb = load_wandb()
        try:
            begun = _init(experiment, run, mode)
        except wandb.Error as error:
            reason = " ".join(str(error).split()).rstrip(".")
            if wanted == "online" or mode == "offline":
                raise UserError(f"W&B does not start ({reason}); use log.wandb=offline.") from error
            print(f"W&B is not reached ({reason}): recording offline, 'gansuite sync' sends it")
            mode, begun = "offline", _init(experiment, run, "offline")
        super().__init__(experiment=begun, project=experiment.log.project)
        self.continues = mode == "online"
        self.path = run.path
        self._complete = self._ended = False

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.experiment.log({**metrics, "images_seen": step})

    def log_picture(self, path: Path, step: int) -> None:
        """A grid of samples."""
        earlier = [p for p in path.parent.glob("*.jpg") if p.stem.isdigit() and p < path]
        if worth_sending(len(earlier)):
            self.log_metrics({"samples": load_wandb().Image(str(path))}, step)

    def log_results(self, results: Mapping[str, Any]) -> None:
        """The summary of a run that has come to its end, its alarms and its pictures."""
        summary = self.experiment.summary
        for name, scores in results["final"].items():
            for metric, value in scores.items():
                summary[f"final/{name}/{metric}"] = value
        for key, value in results["cost"].items():
            summary[f"cost/{key}"] = value
        summary["verdict"] = results["verdict"]
        summary["health"] = [event["event"] for event in results["health"]]
        at = results["images_seen"]
        events = [[event.get(key, "") for key in _HEALTH] for event in results["health"]]
        self._send("health_events", _HEALTH, events, at)
        # the test pictures that were scored last: input, what was made of it, and the truth where
        # it is known; runs of one group have the same rows
        image = load_wandb().Image
        pictures = [
            [name, i, *(image(tile) if tile else None for tile in tiles)]
            for name in results["final"]
            for i, tiles in enumerate(_side_by_side(self.path / "samples", name))
        ]
        self._send("pictures", ("comparison", "picture", *_STRIPS), pictures, at)
        self._complete = True

    def finalize(self, status: str) -> None:
        if not self._ended:
            self._ended = True
            self.experiment.finish(exit_code=0 if self._complete else 1)

    def _send(self, key: str, columns: Sequence[str], rows: list[list[Any]], at: int) -> None:
        """A table, unless it is empty."""
        if rows:
            with _staged_in(self.path / "wandb"):
                self.log_table(key, columns=list(columns), data=rows, step=at)


def _init(experiment: Experiment, run: Run, mode: Literal["online", "offline"]) -> Any:
    # Lightning's own call of `wandb.init` names another x axis for all values
    wandb, e, folder = load_wandb(), experiment, run.path / "wandb"
    if mode == "offline":
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # offline is offline, whoever wants it
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    begun = wandb.init(
        mode=mode,
        dir=str(run.path),
        id=run_id(run),
        resume="allow" if mode == "online" else None,
        project=e.log.project,
        group=e.log.group or e.data["name"],
        job_type=e.method["name"],
        name=f"{e.method['name']}-{e.data['name']}-{e.seed}",
        tags=[e.method["name"], e.data["name"], *e.log.tags],
        config=e.plain(),
        settings=wandb.Settings(console="off", disable_git=True, x_disable_stats=True),
    )
    begun.define_metric("images_seen")
    begun.define_metric("*", step_metric="images_seen")
    return begun


@contextlib.contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Inside, W&B keeps the pictures of a table in the run's own folder, from which they are sent
    later, and not in the user's."""
    own = "WANDB_DATA_DIR" not in os.environ
    if own:
        os.environ["WANDB_DATA_DIR"] = str(folder.resolve())
    try:
        yield
    finally:
        if own:
            del os.environ["WANDB_DATA_DIR"]


def _side_by_side(folder: Path, name: str) -> Iterator[tuple[Image.Image | None, ...]]:
    """(source, fake, truth) of each picture in the strips of a comparison; None where unknown."""
    columns = []
    for kind in _STRIPS:
        file = folder / f"strip_{name}_{kind}.png"
        tiles: list[Image.Image] = []
        if file.is_file():
            with Image.open(file) as strip:
                side = strip.height
                boxes = [(x, 0, x + side, side) for x in range(0, strip.width, side)]
                tiles = [strip.crop(box) for box in boxes]
        columns.append(tiles)
    return itertools.zip_longest(*columns)

"""W&B and TensorBoard beside the run's own files, which stay the truth."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import netrc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from PIL import Image

from gansuite.callbacks.record import Sink
from gansuite.config import Experiment
from gansuite.errors import UserError
from gansuite.runs import Run, read_lines

Mode = Literal["online", "offline", "disabled"]
_PICTURES = 32
_FORMERLY = "https://api.wandb.ai"
NO_KEY = "there is no W&B key: set WANDB_API_KEY or run 'wandb login'"


def wandb_mode(wanted: Literal["auto", "online", "offline", "disabled"]) -> Mode:
    """The mode for ``log.wandb``; never asks. "auto" is online only with a key at hand."""
    if wanted != "auto":
        return wanted
    if os.environ.get("WANDB_MODE") in {"offline", "disabled", "dryrun"}:
        return "disabled" if os.environ["WANDB_MODE"] == "disabled" else "offline"
    return "online" if has_wandb_key() else "offline"


def load_wandb() -> Any:
    """The package, imported with its reports of errors and use switched off: its service sends
    them from offline runs, too. ``WANDB_ERROR_REPORTING=true`` keeps them for online runs."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb


def has_wandb_key() -> bool:
    """Whether a W&B key is in the environment or, for the server in use, in the user's netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    wandb = load_wandb()
    server = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    known = {server}
    if server == wandb.Settings().base_url:
        known.add(_FORMERLY)  # the same service; keys are still found under its former name
    hosts = {x for url in known for x in (urlparse(url).netloc, urlparse(url).hostname) if x}
    named = os.environ.get("NETRC")
    try:
        keys = netrc.netrc(named and os.path.expanduser(named))
    except (OSError, netrc.NetrcParseError):
        return False
    return any(keys.authenticators(host) is not None for host in hosts)


def run_id(run: Run) -> str:
    """The W&B id of a run directory: always the same for the same folder."""
    return hashlib.blake2b(str(run.path.resolve()).encode(), digest_size=6).hexdigest()


class _Once:
    """What a run has recorded before it was taken up again.

    The batches after the last checkpoint are trained once more, with the same result; what was
    sent of them must not be sent twice.
    """

    def __init__(self, run: Run) -> None:
        clock: dict[tuple[str, int], dict[str, Any]] = {}
        for r in read_lines(run.timing):
            position = (r.pop("kind"), r.pop("images_seen"))
            clock[position] = {f"cost/{k}": v for k, v in r.items()}
        self.records = [
            {**r, **clock.get((r["kind"], r["images_seen"]), {})}
            for r in read_lines(run.metrics)
            if r["kind"] != "health"  # words; the results have them
        ]
        samples = (run.path / "samples").glob("*.jpg")
        self.pictures = {int(p.stem): p for p in sorted(samples) if p.stem.isdigit()}
        self._seen = {(r["kind"], r["images_seen"]) for r in self.records}
        self._seen |= {("picture", at) for at in self.pictures}

    def sent(self, kind: str, images_seen: int) -> bool:
        return (kind, images_seen) in self._seen


def worth_sending(index: int) -> bool:
    """Which pictures of a run go to a server: the first 32, then half of the next 32, a quarter of
    the next 64 and so on, so that a run of any length sends about a hundred."""
    return index < _PICTURES or index % (1 << (index // _PICTURES).bit_length()) == 0


class WandbSink:
    """One W&B run per run directory; every record carries ``images_seen``, the only x axis.

    An offline run that is resumed is written anew from the run's own files, so that one folder
    holds the whole history and nothing twice; an online one is continued under its id.
    """

    def __init__(
        self, experiment: Experiment, run: Run, mode: Literal["online", "offline"]
    ) -> None:
        if mode == "offline":
            os.environ["WANDB_ERROR_REPORTING"] = "false"  # offline is offline, whoever wants it
        wandb = load_wandb()
        e = experiment
        folder = run.path / "wandb"
        before = _Once(run)
        if mode == "offline":
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = run.path
        self._image, self._table = wandb.Image, wandb.Table
        self.run = wandb.init(
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
        self.run.define_metric("images_seen")
        self.run.define_metric("*", step_metric="images_seen")
        self._before: _Once | None = None
        if mode == "offline":
            self._replay(before)
        self._before = before

    def _replay(self, before: _Once) -> None:
        pictures = dict(before.pictures)
        for record in before.records:
            for at in [n for n in pictures if n < record["images_seen"]]:
                self.picture(pictures.pop(at), at)
            self.log(record)
        for at, path in pictures.items():
            self.picture(path, at)

    def log(self, record: Mapping[str, Any]) -> None:
        if self._before is None or not self._before.sent(record["kind"], record["images_seen"]):
            self.run.log({k: v for k, v in record.items() if k == "images_seen" or "/" in k})

    def picture(self, path: Path, images_seen: int) -> None:
        if self._before is None or not self._before.sent("picture", images_seen):
            earlier = [p for p in path.parent.glob("*.jpg") if p.stem.isdigit() and p < path]
            if worth_sending(len(earlier)):
                self.run.log({"samples": self._image(str(path)), "images_seen": images_seen})

    def finish(self, results: Mapping[str, Any] | None) -> None:
        if results is not None:
            for name, scores in results["final"].items():
                for metric, value in scores.items():
                    self.run.summary[f"final/{name}/{metric}"] = value
            for key, value in results["cost"].items():
                self.run.summary[f"cost/{key}"] = value
            self.run.summary["verdict"] = results["verdict"]
            health = results.get("health", [])
            self.run.summary["health"] = [said["event"] for said in health]
            rows = [[said.get(key, "") for key in _HEALTH] for said in health]
            self._send("health_events", _HEALTH, rows, results["images_seen"])
            self._compare_pictures(results)
        self.run.finish(exit_code=1 if results is None else 0)

    def _compare_pictures(self, results: Mapping[str, Any]) -> None:
        """A table of the test pictures that were scored last: a row has one picture's input, what
        was made of it, and the truth where it is known. Runs of one group have the same rows."""
        rows = [
            [name, i, *(self._image(tile) if tile else None for tile in tiles)]
            for name in results["final"]
            for i, tiles in enumerate(_side_by_side(self.path / "samples", name))
        ]
        self._send("pictures", ("comparison", "picture", *_STRIPS), rows, results["images_seen"])

    def _send(self, key: str, columns: Sequence[str], rows: list[list[Any]], at: int) -> None:
        """A table, unless it is empty."""
        if rows:
            table = self._table(columns=list(columns), data=rows)
            with _staged_in(self.path / "wandb"):
                self.run.log({key: table, "images_seen": at})


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


_HEALTH = ("images_seen", "event", "name", "action", "message")
_STRIPS = ("source", "fake", "truth")


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


class TensorBoardSink:
    """Scalars and grids for TensorBoard, x axis ``images_seen``."""

    def __init__(self, run: Run) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "log.tensorboard=true needs TensorBoard: pip install 'gansuite[tensorboard]'."
            ) from error
        self._before = _Once(run)
        self.writer = SummaryWriter(str(run.path / "tensorboard"))

    def log(self, record: Mapping[str, Any]) -> None:
        at = int(record["images_seen"])
        if self._before.sent(record["kind"], at):
            return
        for key, value in record.items():
            if "/" in key:
                self.writer.add_scalar(key, value, at)

    def picture(self, path: Path, images_seen: int) -> None:
        if self._before.sent("picture", images_seen):
            return
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            array = np.asarray(image.convert("RGB"))
        self.writer.add_image("samples", array, images_seen, dataformats="HWC")

    def finish(self, results: Mapping[str, Any] | None) -> None:
        self.writer.close()


def open_sinks(experiment: Experiment, run: Run) -> list[Sink]:
    """The sinks an experiment asks for; called on rank 0 only.

    Raises:
        UserError: W&B shall be online without a key or a connection, or TensorBoard is missing.
    """
    sinks: list[Sink] = []
    wanted = experiment.log.wandb
    mode = wandb_mode(wanted)
    if mode == "online" and not has_wandb_key():
        raise UserError(f"'log.wandb' is online, but {NO_KEY}; or use log.wandb=offline.")
    if mode != "disabled":
        sinks.append(_open_wandb(experiment, run, mode, forced=wanted == "online"))
    if experiment.log.tensorboard:
        sinks.append(TensorBoardSink(run))
    return sinks


def _open_wandb(
    experiment: Experiment, run: Run, mode: Literal["online", "offline"], forced: bool
) -> WandbSink:
    wandb = load_wandb()
    try:
        return WandbSink(experiment, run, mode)
    except wandb.Error as error:
        reason = " ".join(str(error).split()).rstrip(".")
        if forced or mode == "offline":
            raise UserError(f"W&B does not start ({reason}); use log.wandb=offline.") from error
        print(f"W&B is not reached ({reason}): recording offline, 'gansuite sync' sends it later")
        return WandbSink(experiment, run, "offline")


def sync(folders: Sequence[Path]) -> Iterator[Path]:
    """Send the offline W&B runs in and below ``folders``; yields each when it is done.

    Raises:
        UserError: there is none, or no key, or the server does not take it.
    """
    found = [p for folder in folders for p in sorted(folder.glob("**/wandb/offline-run-*"))]
    if not found:
        raise UserError(f"There is no offline W&B run in {', '.join(map(str, folders))}.")
    if not has_wandb_key():
        raise UserError(f"{len(found)} offline W&B run(s) wait, but {NO_KEY}.")
    for path in found:
        command = [sys.executable, "-m", "wandb", "sync", "--include-synced", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            told = (done.stderr + done.stdout).strip().splitlines() or ["no reason given"]
            raise UserError(f"{path} could not be sent ({told[-1]}).")
        yield path

"""The run directory: what is in it, how it is written without ever being half-written, and how it
is read back. ``runs/<experiment>/seed<k>/`` holds

- ``config.yaml``, ``environment.json``: what ran, and on what;
- ``metrics.jsonl``: one line per log interval, evaluation or alarm, x axis ``images_seen``. No
  clock is in it, so that a resumed run writes the same bytes as an undisturbed one;
- ``timing.jsonl``: what the clock said at the same points;
- ``results.json``, ``samples/``, ``checkpoints/{last,best}.ckpt``, ``report.html``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
import yaml

from gansuite.config import Experiment, difference
from gansuite.errors import UserError

CHECKPOINT_FORMAT = 1
# what may differ when a run is resumed: none of it changes a number, but for a guard that rolls
# back, which the results tell
_FREE = (
    "log.",
    "guard",
    "out",
    "data.workers",
    "data.root",
    "trainer.devices",
    "trainer.num_nodes",
)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write ``path`` through a temporary file beside it: the old content or the new, never half.

    Raises:
        UserError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except (OSError, RuntimeError) as error:
        # torch.save hides the failed write behind a RuntimeError of its own
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        full = cause.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else cause.strerror or str(cause)
        kept = "; the previous one is kept" if path.exists() else ""
        raise UserError(
            f"{path} could not be written ({reason}){kept}; make room and repeat the command."
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Save tensors and plain containers, atomically."""
    with replacing(path) as file:
        torch.save({"gansuite": CHECKPOINT_FORMAT, **content}, file)


def find_checkpoint(path: str | Path) -> Path:
    """The file of a checkpoint: ``path`` itself, or the last one of the run folder ``path``.

    Raises:
        UserError: there is none.
    """
    path = Path(path)
    if path.is_dir():
        inside = [path / "checkpoints" / f"{n}.ckpt" for n in ("last", "best")]
        found = next((p for p in inside if p.is_file()), None)
        if found is None:
            raise UserError(f"{path} is a folder without checkpoints/last.ckpt.")
        return found
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}.")
    return path


def read_checkpoint(
    path: str | Path, map_location: str = "cpu", needs: Sequence[str] = ()
) -> dict[str, Any]:
    """Load a checkpoint with ``weights_only=True``.

    Raises:
        UserError: there is no such file, it is no gansuite checkpoint, or lacks one of ``needs``.
    """
    path = find_checkpoint(path)
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} is not a gansuite checkpoint, or it is damaged "
            f"({type(error).__name__}); give a file such as runs/NAME/seed0/checkpoints/last.ckpt."
        ) from error
    if not isinstance(content, dict) or "gansuite" not in content:
        raise UserError(f"{path} holds tensors, but is not a gansuite checkpoint.")
    if content["gansuite"] != CHECKPOINT_FORMAT:
        raise UserError(
            f"{path} has checkpoint format {content['gansuite']}; this version reads "
            f"{CHECKPOINT_FORMAT}."
        )
    for key in needs:
        if key not in content:
            raise UserError(f"{path} is not a whole checkpoint: it holds no '{key}'; give another.")
    return cast(dict[str, Any], content)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a ``.jsonl`` file; what is no record, as a line cut off, is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            record = json.loads(line)
            if isinstance(record, dict):
                records.append(record)
    return records


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object.")
    return content


def environment(device: str) -> dict[str, Any]:
    """Versions, commit and machine, for ``environment.json``."""
    packages = ("gansuite", "torch", "torchvision", "lightning", "torchmetrics", "numpy", "wandb")
    versions = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "packages": versions,
        "commit": _commit(),
        "device": device,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "command": shlex.join(["gansuite", *sys.argv[1:]]),
    }


def _commit() -> str | None:
    folder = Path(__file__).resolve().parents[1]
    try:
        text = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return text.strip() or None


class Clock:
    """Seconds of training and of evaluation, across interruptions."""

    def __init__(self) -> None:
        self.train = 0.0
        self.evaluation = 0.0
        self._since: float | None = None

    def start(self) -> None:
        self._since = time.perf_counter()

    def now(self) -> float:
        """Training seconds so far."""
        running = time.perf_counter() - self._since if self._since is not None else 0.0
        return self.train + running

    def stop(self) -> None:
        self.train = self.now()
        self._since = None

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Time spent inside counts as evaluation."""
        running = self._since is not None
        self.stop()
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.evaluation += time.perf_counter() - begin
            if running:
                self.start()


class Run:
    """One run directory, opened by rank 0 for writing and by the other ranks for its paths."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Any = None
        self._made: list[Path] = []

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def timing(self) -> Path:
        return self.path / "timing.jsonl"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def recorded(self) -> bool:
        """Whether there is anything to resume or to lose."""
        lines = self.lengths()[self.metrics.name]
        return self.last.is_file() or self.done or bool(lines)

    @property
    def done(self) -> bool:
        """Whether it has results, which are written last of all."""
        return self.results.is_file()

    def refuse_changes(self, experiment: Experiment) -> None:
        """Raise `UserError` with a diff when the run exists with another configuration."""
        if not self.recorded:
            return
        file = self.path / "config.yaml"
        try:
            old = yaml.safe_load(file.read_text())
        except (OSError, ValueError, yaml.YAMLError):
            old = None
        if not isinstance(old, dict):
            raise UserError(f"{file} cannot be read; move {self.path} away to start again.")
        changed = [d for d in difference(old, experiment.plain()) if not d.startswith(_FREE)]
        if changed:
            raise UserError(
                f"{self.path} was begun with another configuration: {'; '.join(changed)}. "
                f"Give the same values to resume it, another 'name=' for a new run, or remove "
                f"the folder."
            )

    def begin(self, experiment: Experiment) -> None:
        """Create the directory or take it up again; one process at a time.

        Raises:
            UserError: another process runs in it, or its configuration differs.
        """
        self.refuse_changes(experiment)
        made = [p for p in (self.path, *self.path.parents) if not p.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / ".lock", "w")  # noqa: SIM115 - held until `release`
        except OSError as error:
            _remove_empty(made)
            raise UserError(f"{self.path} could not be made ({error.strerror}).") from error
        if not _hold(lock):
            lock.close()
            raise UserError(
                f"Another process is running in {self.path}; wait for it, or give 'name=' or "
                f"'seed=' for a run of its own."
            )
        self._lock, self._made = lock, made
        write_text(self.path / "config.yaml", experiment.yaml())

    def held(self) -> bool:
        """Whether a process is running in this directory."""
        try:
            with open(self.path / ".lock", "r+") as lock:
                return not _hold(lock)
        except OSError:
            return False

    def abandon(self) -> None:
        """After a failure: a directory that `begin` made and that holds no record goes again."""
        if self._made and not self.recorded:
            shutil.rmtree(self.path, ignore_errors=True)
            _remove_empty(self._made)

    def release(self) -> None:
        """Let other processes have the directory."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def scores_at(self, images_seen: int) -> dict[str, dict[str, float]] | None:
        """The scores noted at ``images_seen``, comparison -> metric -> value; None without."""
        for record in reversed(read_lines(self.metrics)):
            if record.get("kind") == "eval" and record.get("images_seen") == images_seen:
                found: dict[str, dict[str, float]] = {}
                for key, value in record.items():
                    name, slash, metric = key.partition("/")
                    if slash:
                        found.setdefault(name, {})[metric] = value
                return found
        return None

    def append(self, file: Path, record: Mapping[str, Any]) -> None:
        """Add one line; the disk being full is one clear sentence."""
        try:
            with file.open("a") as f:
                f.write(json.dumps(record) + "\n")
        except OSError as error:
            raise UserError(f"{file} could not be written ({error.strerror}).") from error

    def lengths(self) -> dict[str, int]:
        """Bytes of the line files, for the checkpoint."""
        return {f.name: f.stat().st_size if f.exists() else 0 for f in (self.metrics, self.timing)}

    def rewind(self, lengths: Mapping[str, int]) -> None:
        """Cut the line files back to what they were when the checkpoint was taken."""
        for file in (self.metrics, self.timing):
            if file.exists():
                os.truncate(file, lengths.get(file.name, 0))


def _hold(file: Any) -> bool:
    try:
        import fcntl
    except ImportError:  # no advisory locks on this system
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()

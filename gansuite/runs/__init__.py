"""The run directory: what is in it, how it is written without ever being half-written, and how it
is read back. ``runs/<experiment>/seed<k>/`` holds

- ``config.yaml``, ``environment.json``: what ran, and on what (one entry for every environment);
- ``metrics.jsonl``: one line per log interval, evaluation or alarm, x axis ``images_seen``. No
  clock is in it, so that a resumed run writes the same bytes as an undisturbed one;
- ``timing.jsonl``: what the clock said at the same points;
- ``results.json``, ``samples/``, ``checkpoints/{last,last.prev,best}.ckpt``, ``report.html``.

A run that is kept elsewhere (``out=s3://...``) has its copy here: `gansuite.runs.remote`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import yaml

from gansuite.config import Experiment, difference
from gansuite.errors import NotFinite, UserError
from gansuite.files import (
    read_json,
    replacing,
    sync_folder,
    write_json,
    write_text,
)
from gansuite.runs.clock import Clock
from gansuite.runs.environment import changes, environment, environments, mixtures
from gansuite.runs.lease import Lease
from gansuite.runs.remote import LINES, Held, Remote, fetched, is_remote, publish
from gansuite.runs.schema import check_checkpoint, read_lines
from gansuite.runs.seal import Sealing, digest_of, examine
from gansuite.runs.weights import NAME, read_weights

__all__ = [
    "Clock",
    "environment",
    "environments",
    "fetched",
    "is_remote",
    "mixtures",
    "publish",
    "read_json",
    "read_lines",
    "replacing",
    "write_json",
    "write_text",
]

CHECKPOINT_FORMAT = 2
"""Format 1 had no digest of its own; it is read, and judged by the CRCs of its archive."""
PARTS = ("experiment", "data", "method", "rank_state", "precision", "clock", "lengths", "notes")
"""What a run is resumed from."""
# as `replacing` names what it has not finished
_TEMPORARY = re.compile(r"\.[\w.-]+\.(ckpt|html|jpg|json|png|yaml)\.[a-z0-9_]{8}")
# what may differ when a run is resumed: none of it changes a number, but for a rollback,
# , which the results tell
_FREE = (
    "log.",
    "health",
    "out",
    "data.workers",
    "data.root",
    "trainer.devices",
    "trainer.num_nodes",
)


def write_checkpoint(path: Path, content: Mapping[str, Any], keep: Path | None = None) -> None:
    """Save tensors and plain containers with a digest, atomically; ``keep`` as in `replacing`."""
    import torch  # where it is needed: a run is looked up without it

    with replacing(path, keep) as file:
        sealing = Sealing(file)
        torch.save({"gansuite": CHECKPOINT_FORMAT, **content}, cast(IO[bytes], sealing))
        sealing.close_with_seal()


def find_checkpoint(path: str | Path) -> Path:
    """The file of a checkpoint: ``path`` itself, the last one of the run folder ``path``, or the
    weights of the model folder ``path``. An address is copied to this machine.

    Raises:
        UserError: there is none.
    """
    path = fetched(path)
    if path.is_dir():
        inside = [path / "checkpoints" / f"{n}.ckpt" for n in ("last", "last.prev", "best")]
        found = next((p for p in (*inside, path / NAME) if p.is_file()), None)
        if found is None:
            raise UserError(f"{path} is a folder without checkpoints/last.ckpt.")
        return found
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}.")
    return path


def read_checkpoint(
    path: str | Path, map_location: str = "cpu", needs: Sequence[str] = ()
) -> dict[str, Any]:
    """Load a checkpoint with ``weights_only=True``, after its digest has been verified.

    Raises:
        UserError: there is no such file, it is no gansuite checkpoint, it is damaged, a value in
            it is not of its type, or it lacks one of ``needs``.
    """
    import torch

    path = find_checkpoint(path)
    if path.suffix == ".safetensors":
        content = read_weights(path)
        _check(content, needs, path)
        return content
    try:
        with path.open("rb") as file:
            state = examine(file)
            if state == "damaged":
                raise _damaged(path)
            file.seek(0)
            content = torch.load(file, map_location=map_location, weights_only=True)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{path} is not a gansuite checkpoint, or it is damaged "
            f"({type(error).__name__}); give a file such as runs/NAME/seed0/checkpoints/last.ckpt."
        ) from error
    if not isinstance(content, dict) or "gansuite" not in content:
        raise UserError(f"{path} holds tensors, but is not a gansuite checkpoint.")
    known = content["gansuite"]
    if known not in (1, CHECKPOINT_FORMAT) or not isinstance(known, int):
        raise UserError(
            f"{path} has checkpoint format {known}; this version reads up to {CHECKPOINT_FORMAT}."
        )
    if known > 1 and state == "unsealed":
        raise _damaged(path)
    _check(content, needs, path)
    return content


def _check(content: dict[str, Any], needs: Sequence[str], path: Path) -> None:
    for key in needs:
        if key not in content:
            raise UserError(f"{path} is not a whole checkpoint: it holds no '{key}'; give another.")
    check_checkpoint(content, path)


@contextlib.contextmanager
def fitting(path: object) -> Iterator[None]:
    """Inside, the content of the checkpoint ``path`` is put where it belongs.

    Raises:
        UserError: it does not fit, as when a tensor has another shape.
    """
    import torch

    try:
        yield
    except NotFinite as error:
        raise UserError(f"{path} holds weights that are not finite; give another.") from error
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")[:300]
        raise UserError(
            f"{path} does not fit the method that it is of ({reason}); give another."
        ) from error


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path} is damaged: its bytes are not those that were written; give another, such as "
        f"the last.prev.ckpt of its run."
    )


class Run:
    """One run directory, opened by rank 0 for writing and by the other ranks for its paths."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notices: list[str] = []  # what `begin` has to say
        self._lease = Lease(path / ".lock")
        self._held: Held | None = None  # the run there, of which this is a copy
        self._made: list[Path] = []
        self.images_seen: int | None = None  # by its checkpoint, when it is resumed

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def previous(self) -> Path:
        """The checkpoint before the last, for when that is damaged."""
        return self.path / "checkpoints" / "last.prev.ckpt"

    @property
    def resumable(self) -> bool:
        return self.last.is_file() or self.previous.is_file()

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
        lines = self.metrics.is_file() and self.metrics.stat().st_size > 0
        return self.resumable or self.done or lines

    @property
    def done(self) -> bool:
        """Whether it has results, which are written last of all."""
        return self.results.is_file()

    @property
    def _config(self) -> dict[str, Any]:
        """The content of ``config.yaml``; {} where it cannot be read."""
        try:
            found = yaml.safe_load((self.path / "config.yaml").read_text())
        except (OSError, ValueError, yaml.YAMLError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def begun(self) -> dict[str, Any]:
        """The ``trainer`` section it was begun with; {} of a run that was not."""
        found = self._config.get("trainer") if self.recorded else None
        return found if isinstance(found, dict) else {}

    def refuse_changes(self, experiment: Experiment) -> None:
        """Raise `UserError` with a diff when the run exists with another configuration."""
        if not self.recorded:
            return
        old = self._config
        if not old:
            raise UserError(
                f"{self.path / 'config.yaml'} cannot be read; move {self.path} away to start again."
            )
        if changed := _changed(old, experiment):
            raise UserError(
                f"{self.path} was begun with another configuration: {'; '.join(changed)}. "
                f"Give the same values to resume it, another 'name=' for a new run, or remove "
                f"the folder."
            )

    def begin(self, experiment: Experiment) -> None:
        """Create the directory or take it up again; one process at a time.

        What a killed process left half-written goes; a damaged last checkpoint is replaced by the
        one before, which ``notices`` says.

        Raises:
            UserError: another process runs in it, its configuration differs, or it has checkpoints
                of which none can be resumed.
        """
        self.refuse_changes(experiment)
        made = [p for p in (self.path, *self.path.parents) if not p.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            holder = self._lease.take()
        except OSError as error:
            _remove_empty(made)
            raise UserError(f"{self.path} could not be made ({error.strerror}).") from error
        if holder:
            raise UserError(
                f"Another process is running in {self.path} ({holder}); wait for it, or give "
                f"'name=' or 'seed=' for a run of its own."
            )
        self._made = made
        if is_remote(self.path):
            remote = Remote(self.path)
            self._held = Held(remote)
            remote.pull()
            self.refuse_changes(experiment)
        self.tidy()
        if self.resumable:
            self._resume(experiment)
        write_text(self.path / "config.yaml", experiment.yaml())

    def tidy(self) -> None:
        """Remove what a killed process was writing; only while this one holds the directory."""
        for folder in (self.path, self.last.parent, self.path / "samples"):
            for file in folder.glob(".*"):
                if _TEMPORARY.fullmatch(file.name) and file.is_file() and not file.is_symlink():
                    with contextlib.suppress(OSError):
                        file.unlink()

    def clean(self) -> None:
        """`tidy`, unless a process runs in the directory."""
        lease = Lease(self.path / ".lock")
        with contextlib.suppress(OSError):
            if not lease.take():
                self.tidy()
                lease.release()

    def _resume(self, experiment: Experiment) -> None:
        content, fault = self.newest(experiment)
        self.images_seen = content["method"]["counters"]["images_seen"]
        if fault:
            os.replace(self.previous, self.last)
            why, at = fault.partition(";")[0].rstrip("."), f"{self.images_seen / 1000:g} kimg"
            self.notices.append(f"{why}; going on from the checkpoint before it, at {at}.")

    def newest(self, experiment: Experiment | None = None) -> tuple[dict[str, Any], str]:
        """The content of ``last.ckpt`` and ""; or of the checkpoint before it, and why.

        Given the ``experiment``, it must be of that, and fit the line files.

        Raises:
            UserError: neither can be used (the sentence is about the last), or one is of another
                run.
        """
        fault: UserError | None = None
        for file in (self.last, self.previous):
            try:
                content = read_checkpoint(file, needs=PARTS)
            except UserError as error:
                fault = fault or error
                continue
            if experiment is None:
                return content, str(fault or "")
            if changed := _changed(content["experiment"], experiment):
                raise UserError(
                    f"{file} is of another run ({'; '.join(changed)}); put this run's own back, "
                    f"or remove {self.path} to start again."
                )
            try:
                self._check_lines(content)
            except UserError as error:
                fault = fault or error
                continue
            return content, str(fault or "")
        assert fault is not None
        raise fault

    def _check_lines(self, content: Mapping[str, Any]) -> None:
        """Raise `UserError` unless the line files begin with what the checkpoint relies on."""
        for file in self._line_files:
            size, digest = _length(content["lengths"], file)
            found = file.stat().st_size if file.is_file() else 0
            wrong = f"has {found} bytes, of {size}" if found < size else ""
            if digest and not wrong:
                with file.open("rb") as f:
                    if digest_of(f, size) != (size, digest):
                        wrong = "has other lines than those"
            if wrong:
                raise UserError(
                    f"{file} {wrong} that its checkpoint relies on; put the file back, or remove "
                    f"{self.path} to start again."
                )

    def saw(self, now: Mapping[str, Any]) -> None:
        """Add an environment to ``environment.json`` if it is another than the last one."""
        before = (environments(self.path) or [{}]) if self.resumable else []
        if before and {k: v for k, v in before[-1].items() if k != "from_images"} == dict(now):
            return
        if before and (changed := changes(before[-1], now)):
            self.notices.append(
                f"{self.path} was begun under another environment ({', '.join(changed)}): its "
                f"results will not be called bit-exact."
            )
        entry = {"from_images": self.images_seen or 0, **now}
        write_json(self.path / "environment.json", [*before, entry])

    def held(self) -> bool:
        """Whether a process is running in this directory, here or on another host."""
        if self._lease.holder():
            return True
        return is_remote(self.path) and bool(Remote(self.path).holder())

    def refresh(self, checkpoints: bool = True) -> None:
        """Bring the copy of a run that is kept elsewhere up to date; any other is as it is.

        Raises:
            UserError: it cannot be reached.
        """
        if is_remote(self.path):
            Remote(self.path).refresh(checkpoints)

    def push(self, lines: bool = False, needed: bool = True) -> None:
        """Send what has changed to where the run is kept: all, or only its ``lines``. Without
        ``needed`` what does not arrive is sent the next time.

        Raises:
            UserError: it is ``needed``, and cannot be reached or was taken over.
        """
        if self._held is not None:
            self._held.push(LINES if lines else None, needed=needed)
            if needed:
                self._still_mine()

    def _still_mine(self) -> None:
        """Raise `UserError` if another process took over, as after this one was suspended."""
        if other := self._lease.lost() or (self._held.lost() if self._held else ""):
            raise UserError(
                f"{self.path} was taken over by another process ({other}) while this one was not "
                f"heard of; it writes nothing more."
            )

    def abandon(self) -> None:
        """After a failure: a directory that `begin` made and that holds no record goes again."""
        if self._made and not self.recorded:
            shutil.rmtree(self.path, ignore_errors=True)
            _remove_empty(self._made)

    def release(self) -> None:
        """Let other processes have the directory."""
        if self._held is not None:
            self._held.close()
            self._held = None
        self._lease.release()

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
        self._still_mine()
        try:
            with file.open("a") as f:
                f.write(json.dumps(record) + "\n")
        except OSError as error:
            raise UserError(f"{file} could not be written ({error.strerror}).") from error

    def lengths(self) -> dict[str, tuple[int, str]]:
        """Bytes of the line files and their digests, for the checkpoint; these bytes are on the
        disk before it."""
        self._still_mine()
        found = {}
        for file in self._line_files:
            if file.exists():
                with file.open("rb") as f:
                    os.fsync(f.fileno())
                    found[file.name] = digest_of(f)
        sync_folder(self.path)
        return found

    def rewind(self, lengths: Mapping[str, Any]) -> None:
        """Cut the line files back to what they were when the checkpoint was taken; a shorter one
        is left as it is."""
        for file in self._line_files:
            size, _ = _length(lengths, file)
            if file.exists() and file.stat().st_size > size:
                os.truncate(file, size)

    @property
    def _line_files(self) -> tuple[Path, Path]:
        return self.metrics, self.timing


def _length(lengths: Mapping[str, Any], file: Path) -> tuple[int, str]:
    """Bytes and digest of a line file, as in a checkpoint; earlier versions kept no digest."""
    entry = lengths.get(file.name, 0)
    return (entry, "") if isinstance(entry, int) else (entry[0], entry[1])


def _changed(old: Mapping[str, Any], experiment: Experiment) -> list[str]:
    given, begun = experiment.plain(), old.get("trainer")
    if isinstance(begun, dict):  # "auto" goes on as the run was begun
        asked = given["trainer"]
        given["trainer"] = asked | {k: begun[k] for k in begun if asked.get(k) == "auto"}
    return [d for d in difference(old, given) if not d.startswith(_FREE)]


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()

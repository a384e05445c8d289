"""Runs that are kept elsewhere: ``out=s3://bucket/runs`` or any other folder that fsspec knows.

A run is written and read in its copy, a folder of the cache (`gansuite.files.local_path`), which is
brought to what the address holds before it is read or resumed (`refresh`), and which a run that is
going on sends there (`Held.push`): its line files whenever it logs, all of it at every checkpoint
and at its end. What relies on other files goes last (the line files, then ``last.ckpt``, then
``results.json``) and each file appears as a whole, so that what lies there can be resumed from at
every moment.

What lies at the address counts. A copy is ahead of it only as long as nothing has changed there
since the two were equal, as `_RECORD` in the copy remembers.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Container, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from gansuite.errors import UserError
from gansuite.files import address_of, is_address, local_path, replacing, write_json
from gansuite.runs.lease import EVERY, Lease, of_whom, over, statement

_RECORD = ".remote.json"
_LOCK = ".lock"
_JOBS = "slurm"
_LAST = ("checkpoints/last.prev.ckpt", "checkpoints/last.ckpt", "results.json")
_FILES = (".ckpt", ".safetensors", ".onnx", ".pt2")
_OWN = ("error.txt", "log.txt")  # of whoever starts a run on this machine
LINES = ("metrics.jsonl", "timing.jsonl")
_SETTLE = 1.0  # seconds after which a lease that was taken over is read back
# where a file appears as a whole when it is put; elsewhere it is moved into its place
_WHOLE = ("abfs", "abfss", "adl", "az", "gcs", "gs", "memory", "oci", "oss", "s3", "s3a")
_S3: Any = {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 1}}
_EXTRAS = {"s3": "remote", "s3a": "remote"}


def is_remote(path: Path) -> bool:
    """Whether ``path`` is (in) the copy of something that lies elsewhere."""
    return bool(address_of(path))


def fetched(path: str | Path, checkpoints: bool = True) -> Path:
    """Where the run, model or file ``path`` lies on this machine; of an address, after what has
    changed there was copied (without ``checkpoints``, all but these).

    Raises:
        UserError: it cannot be reached, or nothing is there.
    """
    if not is_address(str(path)):
        return Path(path)
    try:
        local = local_path(str(path))
    except ValueError as error:
        raise UserError(f"{path} is no address ({error}).") from None
    folder = local
    if local.suffix in _FILES:
        folder = local.parent.parent if local.suffix == ".ckpt" else local.parent
    remote = Remote(folder)
    seeds = {name.partition("/")[0] for name in remote.names()}
    runs = [folder / seed for seed in sorted(seeds) if re.fullmatch(r"seed\d+", seed)]
    # a run is the unit that one process writes, and the others do not touch meanwhile
    found = [Remote(run).refresh(checkpoints) for run in runs] or [remote.refresh(checkpoints)]
    if not any(found):
        raise UserError(f"There is nothing at {path}; give the address of a run, or of a file.")
    return local


@contextlib.contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Inside, errors of fsspec and of what is behind it become one sentence."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        kind = address.partition("://")[0]
        extra = f"gansuite[{_EXTRAS[kind]}]" if kind in _EXTRAS else ""
        way = f"pip install '{extra}'" if extra else str(error)
        raise UserError(f"{address} needs a package that is not installed: {way}.") from error
    except Exception as error:  # each protocol has its own
        if isinstance(error, ValueError) and "rotocol not known" in str(error):
            reason = f"fsspec knows no protocol '{address.partition('://')[0]}'"
        elif isinstance(error, FileNotFoundError):
            reason = "there is no such bucket or folder"
        else:
            said = " ".join(str(error).split())[:200].rstrip(".")
            reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
        raise UserError(
            f"{address} cannot be used ({reason}); see that it is there, that this machine reaches "
            f"it, and that its credentials are right."
        ) from error


def file_system(address: str) -> tuple[Any, str]:
    """What reaches ``address``, and what it calls it."""
    import fsspec

    kind = address.partition("://")[0]
    options: dict[str, Any] = {}
    if kind in ("s3", "s3a"):
        options = {"use_listings_cache": False, "config_kwargs": _S3}
    found, root = fsspec.core.url_to_fs(address, **options)
    if kind in ("s3", "s3a"):
        found.retries = 2  # of its own, on top of botocore's
    return found, str(root).rstrip("/")


class Remote:
    """The folder ``path`` in the cache and the one that it is the copy of.

    Raises:
        UserError: the latter cannot be reached (of every method).
    """

    def __init__(self, path: Path) -> None:
        self.path, self.address = path, address_of(path)
        with _reaching(self.address):
            self._fs, self._root = file_system(self.address)
        self._whole = self.address.partition("://")[0] in _WHOLE
        self._record = path / _RECORD

    # -- what is there -----------------------------------------------------------------------

    def _key(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _versions(self) -> dict[str, str]:
        """The files there, by their names in the folder, and what tells their versions apart."""
        with _reaching(self.address):
            try:
                self._fs.invalidate_cache()
                found = self._fs.find(self._root, detail=True)
            except FileNotFoundError:
                return {}
        start = self._root.strip("/") + "/"
        keys = {key.lstrip("/").removeprefix(start): info for key, info in found.items()}
        return {n: _version(i) for n, i in keys.items() if not _hidden(n)}

    def names(self) -> list[str]:
        """The files there."""
        return list(self._versions())

    def _recorded(self) -> dict[str, Any]:
        """name -> [its version there, how it looked here], when both were equal; {} if unknown."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._record.read_text())
            if isinstance(found, dict):
                return found
        return {}

    def _here(self) -> dict[str, Path]:
        found = (p for p in self.path.rglob("*") if p.is_file() and not p.is_symlink())
        named = ((p.relative_to(self.path).as_posix(), p) for p in found)
        return {name: path for name, path in named if not _hidden(name)}

    # -- here from there ---------------------------------------------------------------------

    def refresh(self, checkpoints: bool = True) -> bool:
        """Bring the copy up to date, unless a process of this machine writes in it; whether there
        is anything. A copy that is ahead is sent instead."""
        self.path.mkdir(parents=True, exist_ok=True)
        own = Lease(self.path / _LOCK)
        if own.take():
            return True
        try:
            if self.pull(checkpoints):
                return bool(self._here())
            if self._changed() and not self.holder():
                with contextlib.closing(Held(self)) as held:
                    held.push()
            return bool(self._here())
        finally:
            own.release()

    def pull(self, checkpoints: bool = True) -> bool:
        """Copy what has changed there since both were equal; whether anything has."""

        def wanted(name: str) -> bool:
            return name not in _OWN and (checkpoints or not name.endswith(".ckpt"))

        record = self._recorded()
        versions = {n: version for n, version in self._versions().items() if wanted(n)}
        before = {n: entry for n, entry in record.items() if wanted(n)}
        if {n: version for n, (version, _) in before.items()} == versions:
            return False
        self._record.unlink(missing_ok=True)  # cut off in between, nothing is known
        here = self._here()
        for name, version in versions.items():
            known = record.get(name)
            if known is None or known[0] != version or _look(here.get(name)) != known[1]:
                self._get(name)
            record[name] = [version, _look(self.path / name)]
        for name in filter(wanted, {*here, *before} - versions.keys()):
            (self.path / name).unlink(missing_ok=True)
            record.pop(name, None)
        write_json(self._record, record)
        return True

    def _get(self, name: str) -> None:
        with (
            replacing(self.path / name, durable=False) as file,
            _reaching(self.address),
            self._fs.open(self._key(name), "rb") as there,
        ):
            shutil.copyfileobj(there, file, 1 << 22)

    # -- there from here ---------------------------------------------------------------------

    def _changed(self, only: Container[str] | None = None) -> list[str]:
        """The files here (of ``only``) that are others than when both were equal, in the order to
        send them."""
        record = self._recorded()
        here = {n: p for n, p in self._here().items() if (n in only if only else n not in _OWN)}
        found = [n for n, p in here.items() if record.get(n, ["", None])[1] != _look(p)]
        return sorted(found, key=lambda n: (_LAST.index(n) + 1 if n in _LAST else 0, n))

    def push(self, only: Container[str] | None = None) -> None:
        """Send what has changed here (of the files ``only``), what relies on others last."""
        record, sent = self._recorded(), []
        for name in self._changed(only):
            look = _look(self.path / name)
            # moved aside here: it need not be sent again
            aside = next((n for n, (_, known) in record.items() if known == look), None)
            self._put(name, aside)
            record[name] = ["", look]
            sent.append(name)
        gone = [] if only is not None else sorted(record.keys() - self._here().keys())
        for name in gone:
            with _reaching(self.address), contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._key(name))
            del record[name]
        if sent or gone:
            versions = self._versions()
            for name in sent:
                record[name][0] = versions.get(name, "")
            write_json(self._record, record)

    def _put(self, name: str, same: str | None) -> None:
        key = self._key(name)
        target = key if self._whole else f"{key}.{os.urandom(4).hex()}.part"
        with _reaching(self.address):
            if not self._whole:
                self._fs.makedirs(key.rpartition("/")[0], exist_ok=True)
            if same is not None:
                self._fs.copy(self._key(same), target)
            else:
                self._fs.put_file(str(self.path / name), target)
            if target != key:
                self._fs.mv(target, key)

    # -- who holds it ------------------------------------------------------------------------

    def holder(self) -> str:
        """Which other process holds the run there; "" for none."""
        content = self.lock()
        return "" if over(content) else of_whom(content)

    def lock(self) -> dict[str, Any]:
        """What the lease there says; {} without."""
        with _reaching(self.address):
            try:
                found = json.loads(self._fs.cat_file(self._key(_LOCK)))
            except (FileNotFoundError, ValueError):
                return {}
        return found if isinstance(found, dict) else {}

    def write_lock(self, content: Mapping[str, Any], new: bool = False) -> None:
        """``new``: only if there is none, where the protocol can tell."""
        data = json.dumps(content).encode()
        with _reaching(self.address):
            if not self._whole:
                self._fs.makedirs(self._root, exist_ok=True)
            try:
                how = {"mode": "create"} if new else {}
                self._fs.pipe_file(self._key(_LOCK), data, **how)
            except FileExistsError:
                pass  # who has written it is read back
            except (NotImplementedError, TypeError):  # no such mode here
                self._fs.pipe_file(self._key(_LOCK), data)

    def remove_lock(self) -> None:
        with _reaching(self.address), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._key(_LOCK))


class Held:
    """The lease of a run that lies elsewhere, and what the process that has it sends there.

    Raises:
        UserError: another process has it.
    """

    def __init__(self, remote: Remote) -> None:
        self.remote, self.path = remote, remote.path
        self._over = threading.Event()
        self._writing = threading.RLock()
        self._lost = ""
        self._told = False
        self._token = os.urandom(8).hex()
        before = remote.lock()
        if before and not over(before):
            raise UserError(
                f"Another process is running in {remote.address} ({of_whom(before, wait=True)}); "
                f"wait for it, or give 'name=' or 'seed=' for a run of its own."
            )
        if before:
            remote.remove_lock()
        remote.write_lock(statement(self._token), new=True)
        if before:
            time.sleep(_SETTLE)  # whoever found it over at the same time has written by now
        if other := self._other():
            raise UserError(
                f"Another process was quicker to begin in {remote.address} ({other}); wait for it."
            )
        threading.Thread(target=self._beat, name="remote-lease", daemon=True).start()

    def _other(self) -> str:
        content = self.remote.lock()
        return "" if content.get("token") == self._token else of_whom(content) or "it is gone"

    def _beat(self) -> None:
        while not self._over.wait(EVERY):
            with self._writing, contextlib.suppress(UserError):  # not to be reached for the moment
                if self._over.is_set():
                    return
                if other := self._other():
                    self._lost = other
                    return
                self.remote.write_lock(statement(self._token))

    def lost(self) -> str:
        """Who has taken the run over; "" for nobody."""
        return self._lost

    def push(self, only: Container[str] | None = None, *, needed: bool = True) -> None:
        """`Remote.push`, while the run is still this process's. What is not ``needed`` may fail
        with a word: the next time sends all that has changed."""
        try:
            self._lost = self._lost or self._other()
            if not self._lost:
                self.remote.push(only)
                self._told = False
        except UserError as error:
            if needed:
                raise UserError(
                    f"{str(error).rstrip('.')}; what was not sent is kept in {self.path}, and the "
                    f"same command sends it."
                ) from error
            if not self._told:
                later = f"What was not sent is kept in {self.path} and sent with what comes next."
                print(f"gansuite: {error} {later}", file=sys.stderr, flush=True)
            self._told = True

    def close(self) -> None:
        """Let other processes have it."""
        self._over.set()
        with self._writing, contextlib.suppress(UserError):  # no renewal comes after the end
            if not self._lost and not self._other():
                self.remote.remove_lock()


def publish(*files: Path) -> None:
    """Send single files that lie in a copy, such as a page that was written of a run."""
    for file in files:
        if is_remote(file) and file.is_file():
            Remote(file.parent).push([file.name])


def _version(info: Mapping[str, Any]) -> str:
    names = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
    mark = next((info[n] for n in names if info.get(n)), "")
    return f"{info.get('size')}:{mark}"


def _look(file: Path | None) -> list[int] | None:
    """What changes when a file of this machine does, and not when it is renamed."""
    try:
        found = os.stat(file) if file is not None else None
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ino] if found is not None else None


def _hidden(name: str) -> bool:
    """Locks, records and what is being written, also inside a hidden folder; what the jobs of a
    cluster are made of, which only their machines share."""
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith(".") or part == _JOBS for part in parts)
    return hidden or name.endswith(".part")

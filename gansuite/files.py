"""Files that are never half-written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gansuite.errors import UserError

_ADDRESS = re.compile(r"([a-zA-Z][\w+.-]*)://(.*)", re.DOTALL)
_LOCAL = ("file", "local")


def cache_folder() -> Path:
    """Where decoded pictures and copies of remote folders are kept: $GANSUITE_CACHE, else the
    user's cache folder."""
    if "GANSUITE_CACHE" in os.environ:
        return Path(os.environ["GANSUITE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gansuite"


def is_address(text: str) -> bool:
    """Whether ``text`` names a folder as fsspec does, such as ``s3://bucket/runs``, that is not of
    this machine."""
    found = _ADDRESS.fullmatch(text)
    return found is not None and found[1].lower() not in _LOCAL


def local_path(text: str) -> Path:
    """Where the folder ``text`` lies on this machine: of an address, its copy in the cache.

    Raises:
        ValueError: the address names no folder.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return Path(text)
    kind, rest = found[1].lower(), found[2]
    if kind in _LOCAL:
        return Path("/", rest)
    parts = rest.strip("/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError("an address is protocol://folder/folder")
    return cache_folder().absolute().joinpath("remote", kind, *parts)


def address_of(path: Path) -> str:
    """The address of which ``path`` is the copy; "" for a path that is none."""
    try:
        parts = path.absolute().relative_to(cache_folder().absolute() / "remote").parts
    except ValueError:
        return ""
    return f"{parts[0]}://{'/'.join(parts[1:])}" if len(parts) > 1 else ""


@contextlib.contextmanager
def replacing(path: Path, keep: Path | None = None, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Write ``path`` through a temporary file beside it: the old content or the new, never half.

    ``keep``: where the old file goes; killed in between, that is the only one. ``durable``: it
    outlasts a loss of power, which costs milliseconds per file.

    Raises:
        UserError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
        temporary = None
        if durable:
            sync_folder(path.parent)
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
        way = "choose another place or mend this one"
        if full or cause.errno == errno.EFBIG:
            way = "make room and repeat the command"
        raise UserError(f"{path} could not be written ({reason}){kept}; {way}.") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def sync_folder(folder: Path) -> None:
    """The names in a folder outlast a loss of power, where the system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


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

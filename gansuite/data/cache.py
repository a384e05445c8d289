"""Files two processes may want at once: a lock, and the cache of decoded pictures."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np

from gansuite.errors import UserError

if sys.platform == "win32":
    import msvcrt

    def _hold(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
else:
    import fcntl

    def _hold(file: IO[bytes]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)


_DIGEST_BYTES = 32
_BLOCK = 1 << 24


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``; waits for another holder, survives a killed one.

    The operating system drops the lock with the process, and the file goes when it is released.
    """
    while True:
        file = open(path, "wb")  # noqa: SIM115
        _hold(file)
        try:
            # the former holder may have removed the file between our open and our lock
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        except FileNotFoundError:
            pass
        file.close()
    try:
        yield
    finally:
        if sys.platform == "win32":  # an open file cannot be removed there
            file.close()
        with contextlib.suppress(OSError):
            path.unlink()
        file.close()


def cached_array(
    folder: Path | None, name: str, shape: tuple[int, ...], fill: Callable[[np.ndarray], None]
) -> np.ndarray:
    """A uint8 array of ``shape`` that ``fill`` writes into, kept as ``folder/name.npy``.

    Without a folder it lives in memory. With one it is filled once, whole or not at all (written
    aside, then renamed), by one process while others wait, and is read through a memory map. Behind
    the array lies a digest of the name and of all before it: a file that does not agree with its
    digest is filled again, and one line on stderr says so.
    Raises :class:`UserError` when the folder cannot be written or the disk is full.
    """
    if folder is None:
        array = np.empty(shape, np.uint8)
        fill(array)
        return array
    path = folder / f"{name}.npy"
    found = _open(path, shape)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / f".{name}.lock"):
            found = _open(path, shape)
            if found is None:
                if path.exists():
                    print(f"the picture cache '{path}' is damaged: made again", file=sys.stderr)
                _write(path, shape, fill)
                found = np.load(path, mmap_mode="r")
    except OSError as error:
        raise UserError(
            f"the picture cache '{folder}' cannot be written ({error.strerror or error}); "
            f"it needs {int(np.prod(shape)) / 1e6:.0f} MB, set GANSUITE_CACHE to another folder"
        ) from error
    return found


def _open(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array in ``path``; None where there is none, or not this one, or a damaged one."""
    try:
        array = np.load(path, mmap_mode="r")
        with open(path, "rb") as file:
            file.seek(-_DIGEST_BYTES, os.SEEK_END)
            whole = file.read() == _digest(path, path.name, file.tell() - _DIGEST_BYTES)
    except (OSError, ValueError, EOFError):
        return None
    return array if whole and array.shape == shape and array.dtype == np.uint8 else None


def _digest(path: Path, name: str, size: int) -> bytes:
    """SHA-256 of ``name`` and of the digests of the blocks of the first ``size`` bytes."""

    def block(start: int) -> bytes:
        with open(path, "rb", buffering=0) as file:
            file.seek(start)
            return hashlib.sha256(file.read(min(_BLOCK, size - start))).digest()

    # hashing leaves the interpreter's lock alone
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        blocks = pool.map(block, range(0, size, _BLOCK))
        return hashlib.sha256(b"".join([name.encode(), *blocks])).digest()


def _write(path: Path, shape: tuple[int, ...], fill: Callable[[np.ndarray], None]) -> None:
    # the lock is held, so one name will do, and what a killed process left is overwritten
    temporary = path.with_name(f".building-{path.name}")
    try:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        # blocks are allocated first: a full disk is an error here, a killed process (SIGBUS) later
        size = os.path.getsize(temporary)
        with open(temporary, "r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size + _DIGEST_BYTES)
        fill(array)
        array.flush()
        del array
        with open(temporary, "r+b") as file:
            file.seek(size)
            file.write(_digest(temporary, path.name, size))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

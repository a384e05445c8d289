"""A digest behind a checkpoint, so that a flipped bit is found and not trained on.

`torch.save` stores a CRC with every record and `torch.load` checks none. The SHA-256 of all bytes
follows the zip archive, which readers of archives pass over; 0.2 s for 200 MB on one core.
"""

from __future__ import annotations

import hashlib
import zipfile
from typing import Any, BinaryIO, Literal

_MARK = b"\ngansuite sha256 "
_SIZE = len(_MARK) + 64 + 1
_CHUNK = 1 << 20

State = Literal["whole", "damaged", "unsealed"]


class Sealing:
    """A file for `torch.save` that digests what is written through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close_with_seal(self) -> None:
        """Append the digest of all that was written."""
        self._file.write(_seal(self._digest.hexdigest()))


def _seal(digest: str) -> bytes:
    return _MARK + digest.encode() + b"\n"


def digest_of(file: BinaryIO, limit: int | None = None) -> tuple[int, str]:
    """Number and SHA-256 of the bytes that follow in ``file``, at most ``limit``."""
    digest, size = hashlib.sha256(), 0
    while part := file.read(_CHUNK if limit is None else min(_CHUNK, limit - size)):
        digest.update(part)
        size += len(part)
    return size, digest.hexdigest()


def examine(file: BinaryIO) -> State:
    """Whether the bytes of a checkpoint are those that were written.

    A file without a digest is judged by the CRCs of its archive: "damaged", or "unsealed", which
    also stands for what is no archive at all.
    """
    end = file.seek(0, 2)
    file.seek(max(0, end - _SIZE))
    tail = file.read()
    if tail.startswith(_MARK):
        file.seek(0)
        expected = _seal(digest_of(file, end - _SIZE)[1])
        return "whole" if expected == tail else "damaged"
    try:
        with zipfile.ZipFile(file) as archive:
            return "damaged" if archive.testzip() is not None else "unsealed"
    except Exception:  # whatever a reader of archives makes of other bytes
        return "unsealed"

"""What the networks see in real pictures, kept in a folder: every run on the same data would look
again."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansuite.errors import UserError
from gansuite.files import replacing


def kept_vectors(
    folder: Path | None,
    network: str,
    device: torch.device,
    images: Tensor,
    look: Callable[[Tensor], Tensor],
) -> Tensor:
    """``look(images)``, float64 [N, d] on the CPU: what ``network`` (its id) on ``device`` sees in
    uint8 ``images``; computed once for equal pictures, code and machine, read from ``folder`` after
    that. None keeps nothing, and so does a folder that cannot be written."""
    if folder is None:
        return look(images)
    path = folder / f"seen-{digest(device, [network], images)}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        found = np.load(path)
        if found.dtype == np.float64 and found.ndim == 2 and len(found) == len(images):
            return torch.from_numpy(found)
    vectors = look(images)
    with contextlib.suppress(UserError), replacing(path, durable=False) as file:
        np.save(file, vectors.numpy())
    return vectors


def digest(device: torch.device, facts: list[Any], *pictures: Tensor | None) -> str:
    """Of the facts, the pictures, the code of this package, and the machine that rounds."""
    machine = [
        torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        torch.backends.cpu.get_cpu_capability(),
        torch.get_num_threads(),
        torch.__version__,
    ]
    shapes = [None if x is None else [str(x.dtype), *x.shape] for x in pictures]
    key = hashlib.sha256(json.dumps([_code(), machine, facts, shapes], sort_keys=True).encode())
    for x in pictures:
        if x is not None:
            key.update(x.cpu().contiguous().numpy().data)
    return key.hexdigest()[:20]


@cache
def _code() -> str:
    """The digest of this package's source: whoever changes a metric changes the numbers."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()

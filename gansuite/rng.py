"""Named random generators.

Every random draw of the project is a pure function of (seed, purpose, position): nothing depends
on the state of a global generator, on workers or on how often a run was interrupted. Draws that
belong to a batch are made for the *global* batch and sliced by rank, so that ranks differ from one
another and several processes together still equal one.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive(seed: int, purpose: str, *position: int) -> int:
    """A 63-bit seed from (seed, purpose, position), equal on every machine."""
    text = "/".join([str(int(seed)), purpose, *(str(int(p)) for p in position)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def torch_generator(
    seed: int, purpose: str, *position: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A torch generator on ``device`` for (seed, purpose, position)."""
    return torch.Generator(device=device).manual_seed(derive(seed, purpose, *position))


def numpy_generator(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """A NumPy generator (PCG64) for (seed, purpose, position)."""
    return np.random.default_rng(derive(seed, purpose, *position))


def seed_device(seed: int, device: torch.device) -> None:
    """Seed the default generators of the CPU and of ``device``.

    `torch.manual_seed` does so for every kind of device, and for one that is not in use it keeps
    the call and the traceback of its caller: 3 ms each time, and a list that grows.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)

"""What a page that shows models asks of them: a picture translated at a bounded size, a picture of
a seed; and how long it took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gansuite.data.images import resize_uint8
from gansuite.errors import UserError
from gansuite.imaging import Picture, to_bytes
from gansuite.rng import torch_generator
from gansuite.tools.sample import between
from gansuite.tools.style import Style
from gansuite.tools.tiles import Tiles
from gansuite.tools.translate import (
    device_of,
    from_network,
    in_tiles,
    padded_size,
    run,
    to_network,
)

LARGEST = 2048
"""Pixels of the longer side of what is worked on."""
_TILED = 1024  # what is longer is translated in tiles
_TILE, _OVERLAP = 512, 64
MOST_SEED = 2**31 - 1


@dataclass(frozen=True)
class Made:
    """A picture, and the seconds that the model took for it."""

    picture: Picture
    seconds: float

    @property
    def said(self) -> str:
        """Such as "64 × 48, 12 ms"."""
        height, width = self.picture.colour.shape[:2]
        took = f"{self.seconds:.1f} s" if self.seconds >= 1 else f"{1000 * self.seconds:.0f} ms"
        return f"{width} × {height}, {took}"


def names_of(paths: Sequence[str]) -> list[str]:
    """For each path as few of its last parts as tell it from the others, such as
    "cyclegan_coats/seed0"."""
    parts = [[part for part in str(path).split("/") if part not in ("", ".")] for path in paths]
    found = []
    for own in parts:
        count = 2 if own[-1].startswith("seed") else 1
        others = [other for other in parts if other != own]
        while count < len(own) and any(other[-count:] == own[-count:] for other in others):
            count += 1
        found.append("/".join(own[-count:]))
    return found


def translated(
    model: Any, picture: Picture, to: str | Style, *, as_trained: bool = True, name: str = "it"
) -> Made:
    """``picture`` in the domain or style ``to``, with its alpha and bits.

    ``as_trained``: its shorter side is brought to the size of training, the scale that the model
    knows; else it keeps its own. Its longer side is `LARGEST` at most, above 1024 in tiles.
    ``name``: what it is called where the model fails.

    Raises:
        UserError: it does not fit into the memory, or the model's answer is not finite.
    """
    size = _worked(picture, model.spec.size if as_trained else None)
    seen = resized(picture, size)
    x = to_network(seen, model.spec.channels, padded_size(size, model.stride))[None]
    tiled = max(size) > _TILED and not getattr(model, "fixed", False)
    call = partial(run, model, to=to, device=device_of(model), first=Path(name))
    begun = time.perf_counter()
    made = (
        in_tiles(Tiles.of(_TILE, _OVERLAP, model.stride), x, call, to, model) if tiled else call(x)
    )
    seconds = time.perf_counter() - begun
    return Made(from_network(made[0], seen, None), seconds)


def _worked(picture: Picture, shorter: int | None) -> tuple[int, int]:
    height, width = picture.colour.shape[:2]
    factor = 1.0 if shorter is None else shorter / min(height, width)
    factor = min(factor, LARGEST / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def bounded(picture: Picture) -> Picture:
    """``picture``, reduced where its longer side is more than `LARGEST`."""
    return resized(picture, _worked(picture, None))


def resized(picture: Picture, size: tuple[int, int]) -> Picture:
    """``picture`` with sides ``size`` (height, width), bicubic and antialiased."""
    if picture.colour.shape[:2] == size:
        return picture
    alpha = picture.alpha
    return replace(
        picture,
        colour=_resized(picture.colour, size),
        alpha=None if alpha is None else _resized(alpha[:, :, None], size)[:, :, 0],
    )


def _resized(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if array.dtype == np.uint8:
        return resize_uint8(array, size)
    planes = []  # Pillow has no 16 bits
    for plane in np.moveaxis(array, 2, 0):
        x = torch.from_numpy(plane.astype(np.float32))[None, None]
        made = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False)[0, 0]
        planes.append(made.round().clamp(0, np.iinfo(array.dtype).max).numpy().astype(array.dtype))
    return np.stack(planes, 2)


def sampled(
    model: Any, seed: Any, *, towards: Any = None, share: float = 0.0, truncation: float = 1.0
) -> Made:
    """The picture of ``seed``, as `gansuite sample --seeds`; ``share`` of the way to that of the
    seed ``towards`` as in its walk. ``truncation``: of a model that has it.

    Raises:
        UserError: a seed is no whole number of 0 or more, or the picture is not finite.
    """
    seeds = [_seed(seed), _seed(seed if towards is None else towards)]
    begun = time.perf_counter()
    with torch.inference_mode():
        if share and seeds[0] != seeds[1] and hasattr(model, "z_from"):
            a, b = (model.z_from(1, torch_generator(s, "sample")) for s in seeds)
            made = between(model, a, b, [share], truncation)
        else:
            more = {"truncation_psi": truncation} if truncates(model) else {}
            made = model.sample(1, torch_generator(seeds[0], "sample"), **more)
    seconds = time.perf_counter() - begun
    return Made(_whole(made), seconds)


def truncates(model: Any) -> bool:
    """Whether it has a truncation."""
    return getattr(model, "has_styles", False) or getattr(model, "truncates", False)


def _whole(images: Tensor) -> Picture:
    if not images.isfinite().all():
        raise UserError("the model's pictures are not finite: its weights are broken")
    return Picture(to_bytes(images.float())[0])


def _seed(value: Any) -> int:
    number = -1 if value is None else value
    if number != int(number) or not 0 <= number <= MOST_SEED:
        raise UserError(f"A seed is a whole number from 0 to {MOST_SEED}.")
    return int(number)

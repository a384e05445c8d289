"""Draw pictures from a model that makes them from noise, and walk and mix between them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gansuite.errors import UserError
from gansuite.imaging import (
    Picture,
    contact_sheet,
    grid,
    picture_image,
    save_picture,
    shown,
    to_bytes,
)
from gansuite.methods._unconditional import slerp
from gansuite.networks.stylegan2 import StyleGenerator, style_mixing_grid
from gansuite.rng import torch_generator
from gansuite.stacks import is_stack
from gansuite.tools.video import check_animation, write_animation

_ON_SHEET = 256
_MOST_SEEDS = 100_000


def read_seeds(text: str) -> list[int]:
    """The seeds in a text such as "1,5-9", in order.

    Raises:
        UserError: it is no list of whole numbers and ranges from 0 up.
    """
    found: list[int] = []
    for part in text.split(","):
        both = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
        first, last = (int(both[1]), int(both[2] or both[1])) if both else (1, 0)
        if last < first or last - first > _MOST_SEEDS:
            raise UserError(f"--seeds is '{text}'; it is numbers and ranges, such as 1,5-9.")
        found += range(first, last + 1)
    return list(dict.fromkeys(found))


@torch.inference_mode()
def sample(
    method: Any,
    n: int,
    output: Path,
    *,
    seed: int = 0,
    seeds: Sequence[int] = (),
    truncation: float | None = None,
    interpolate: Path | None = None,
    steps: int = 24,
    mix: bool = False,
    batch: int = 16,
    device: torch.device | str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write ``n`` pictures ``000000.png`` ... and ``sheet.jpg`` (the first 256 of them at once);
    of other numbers of channels than 1 and 3 ``000000.npy``, and on the sheet the first three.

    Returns the files written, the sheet last. Picture i depends on (model, seed, batch, i), not on
    ``n``: whole batches are drawn and the rest is dropped. ``device`` moves the method there.

    ``seeds``: one picture of each, ``seed1.png`` ..., in place of ``n`` of one seed.
    ``truncation``: how far from the mean style w they are (1: as drawn; StyleGAN, appendix B).
    ``interpolate``: a walk from each picture to the next and back to the first, ``steps`` frames
    each at 24 a second, to a .gif, .webp or .mp4: straight in w, or without styles in z along great
    circles. ``mix``: of several seeds, the first half in rows and the others in columns, with the
    coarse styles of the row and the fine ones of the column; ``mix_K.jpg``, K layers of the row's.

    Raises UserError when ``n`` is not positive, the method only translates, it has no latents of
    the kind that is asked for, or a file cannot be written.
    """
    if n < 1:
        raise UserError(f"cannot draw {n} pictures; ask for 1 or more")
    if method.task != "generate":
        raise UserError(
            "this model translates pictures, it does not invent them; use `gansuite translate`"
        )
    if Path(output).is_file():
        raise UserError(f"'{output}' is a file; give a folder for the pictures")
    _check(method, seeds, n, truncation, interpolate, steps, mix)
    if device is not None and isinstance(method, nn.Module):
        method.to(device)
    more = {} if truncation is None else {"truncation_psi": truncation}
    written: list[Path] = []
    kept: list[Tensor] = []
    total = len(seeds) or n
    suffix = ".npy" if is_stack(method.spec.channels) else ".png"
    for start in range(0, total, batch):
        if seeds:
            group = seeds[start : start + batch]
            names = [f"seed{number}" for number in group]
            parts = [method.sample(1, torch_generator(s, "sample"), **more) for s in group]
            images = torch.cat(parts).float().cpu()
        else:
            names = [f"{i:06d}" for i in range(start, start + batch)]
            drawn = method.sample(batch, torch_generator(seed, "sample", start), **more)
            images = drawn.float().cpu()[: n - start]
        if not images.isfinite().all():
            raise UserError("the model's pictures are not finite: its weights are broken")
        kept += [images[: max(0, _ON_SHEET - start)]]
        for name, pixels in zip(names, to_bytes(images), strict=False):
            path = Path(output) / f"{name}{suffix}"
            save_picture(picture_image(Picture(pixels)), path)
            written.append(path)
        progress(len(written), total)
    if mix:
        written += _mixed(method, seeds, Path(output), 1.0 if truncation is None else truncation)
    if interpolate is not None:
        keys = _latents(method, seeds, n, seed, batch)
        frames = _walk(method, keys, steps, 1.0 if truncation is None else truncation, batch)
        write_animation(interpolate, frames)
        written.append(interpolate)
    first = torch.cat(kept)
    sheet = contact_sheet(first, columns=math.ceil(math.sqrt(len(first))))
    save_picture(sheet, Path(output) / "sheet.jpg")
    return [*written, Path(output) / "sheet.jpg"]


def _check(
    method: Any,
    seeds: Sequence[int],
    n: int,
    truncation: float | None,
    interpolate: Path | None,
    steps: int,
    mix: bool,
) -> None:
    """Raise `UserError` unless the method has what is asked for."""
    styles = getattr(method, "has_styles", False)
    truncates = styles or getattr(method, "truncates", False)
    title = getattr(method, "title", "this model")
    for asked, able, what in (
        (truncation is not None, truncates, "--truncation"),
        (mix, styles, "--mix"),
    ):
        if asked and not able:
            raise UserError(
                f"{title} has no styles between its latents and its pictures, so there is no "
                f"{what}; a stylegan has."
            )
    if truncation is not None and not -10 <= truncation <= 10:
        raise UserError(f"--truncation is {truncation:g}; 0 is the mean picture, 1 as drawn.")
    if mix and len(seeds) < 2:
        raise UserError("--mix needs two seeds or more, such as --seeds 1-8: rows, then columns.")
    if interpolate is not None:
        if not hasattr(method, "z_from"):
            raise UserError(f"{title} has no latents to walk through; leave --interpolate out.")
        if steps < 1:
            raise UserError(f"--steps is {steps}; give 1 or more frames from picture to picture.")
        if (len(seeds) or n) < 2:
            raise UserError("--interpolate needs two pictures or more: --seeds 1,2, or -n 8.")
        check_animation(interpolate)


def _latents(method: Any, seeds: Sequence[int], n: int, seed: int, batch: int) -> Tensor:
    """The latents [N, z_dim] of the pictures that were drawn."""
    if seeds:
        return torch.cat([method.z_from(1, torch_generator(s, "sample")) for s in seeds])
    starts = range(0, n, batch)
    drawn = [method.z_from(batch, torch_generator(seed, "sample", start)) for start in starts]
    return torch.cat(drawn)[:n]


def _walk(
    method: Any, keys: Tensor, steps: int, truncation: float, batch: int
) -> Iterator[np.ndarray]:
    """uint8 frames [H, W, C] from each of ``keys`` to the next, and to the first again."""
    for a, b in itertools.pairwise([*keys, keys[0]]):
        shares = [i / steps for i in range(steps)]
        found = between(method, a[None], b[None], shares, truncation, batch)
        yield from shown(found.float())


def between(
    method: Any, a: Tensor, b: Tensor, shares: Sequence[float], truncation: float, batch: int = 16
) -> Tensor:
    """Pictures [len(shares), C, H, W] at these shares of the way from latent ``a`` to ``b``, each
    [1, z_dim]: straight in w, or without styles in z along great circles if it is Gaussian."""
    if method.has_styles:
        g = cast(StyleGenerator, method.g)
        a, b = (g.styles(z, truncation_psi=truncation) for z in (a, b))
        path = torch.cat([torch.lerp(a, b, share) for share in shares])
        found = [g.synthesis(ws, noise="const") for ws in path.split(batch)]
        return torch.cat(found).clamp(-1, 1)
    way = slerp if method.latent == "normal" else torch.lerp
    path = torch.cat([way(a, b, share) for share in shares])
    more = (truncation,) if getattr(method, "truncates", False) else ()
    return torch.cat([method.pictures(part, *more) for part in path.split(batch)])


def _mixed(method: Any, seeds: Sequence[int], output: Path, truncation: float) -> list[Path]:
    z = torch.cat([method.z_from(1, torch_generator(s, "sample")) for s in seeds])
    half = (len(seeds) + 1) // 2
    layers = method.g.num_ws
    cutoffs = sorted({max(1, layers * part // 4) for part in (1, 2, 3)})
    rows, columns, mixed = style_mixing_grid(
        method.g, z[:half], z[half:], cutoffs, truncation_psi=truncation
    )
    corner = torch.ones_like(rows[:1])
    written = []
    for cutoff, pictures in zip(cutoffs, mixed, strict=True):
        lines = [("", torch.cat([corner, columns]).clamp(-1, 1).cpu())]
        lines += [
            (f"seed {seeds[i]}", torch.cat([rows[i : i + 1], pictures[i]]).clamp(-1, 1).cpu())
            for i in range(half)
        ]
        path = output / f"mix_{cutoff}.jpg"
        save_picture(grid(lines, columns_max=len(columns) + 1), path)
        written.append(path)
    return written

"""Draw pictures from a model that makes them from noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from gansuite.errors import UserError
from gansuite.imaging import contact_sheet, save_picture, to_bytes
from gansuite.rng import torch_generator

_ON_SHEET = 256


@torch.inference_mode()
def sample(
    method: Any,
    n: int,
    output: Path,
    *,
    seed: int = 0,
    batch: int = 16,
    device: torch.device | str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write ``n`` pictures ``000000.png`` ... and ``sheet.jpg`` (the first 256 of them at once).

    Returns the files written, the sheet last. Picture i depends on (model, seed, batch, i), not on
    ``n``: whole batches are drawn and the rest is dropped. ``device`` moves the method there.

    Raises UserError when ``n`` is not positive, the method only translates, or the folder cannot be
    written.
    """
    if n < 1:
        raise UserError(f"cannot draw {n} pictures; ask for 1 or more")
    if method.task != "generate":
        raise UserError(
            "this model translates pictures, it does not invent them; use `gansuite translate`"
        )
    if Path(output).is_file():
        raise UserError(f"'{output}' is a file; give a folder for the {n} pictures")
    if device is not None and isinstance(method, nn.Module):
        method.to(device)
    written: list[Path] = []
    kept: list[torch.Tensor] = []
    for start in range(0, n, batch):
        generator = torch_generator(seed, "sample", start)
        images = method.sample(batch, generator).float().cpu()[: n - start]
        if not images.isfinite().all():
            raise UserError("the model's pictures are not finite: its weights are broken")
        kept += [images[: max(0, _ON_SHEET - start)]]
        for pixels in to_bytes(images):
            path = Path(output) / f"{len(written):06d}.png"
            save_picture(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), path)
            written.append(path)
        progress(len(written), n)
    shown = torch.cat(kept)
    sheet = contact_sheet(shown, columns=math.ceil(math.sqrt(len(shown))))
    save_picture(sheet, Path(output) / "sheet.jpg")
    return [*written, Path(output) / "sheet.jpg"]

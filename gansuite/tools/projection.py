"""`gansuite project`: the latent of a generator whose picture comes closest to a given one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansuite.data.images import read_image, resize_uint8
from gansuite.errors import UserError
from gansuite.files import replacing, write_json
from gansuite.imaging import grid, save_picture, strip
from gansuite.methods._unconditional import Unconditional
from gansuite.networks.stylegan2 import StyleGenerator, descend
from gansuite.networks.stylegan2 import project as project_styles
from gansuite.rng import torch_generator
from gansuite.stacks import is_stack

_DRAWN = 256  # latents of which the nearest is the start, where there are no styles


def pyramid_mse(made: Tensor, wanted: Tensor) -> Tensor:
    """The mean squared difference of [N, C, H, W], at full, half, quarter ... size down to 8
    pixels, mean of all: pixels alone reward a blur."""
    found = [F.mse_loss(made, wanted)]
    while min(made.shape[2:]) >= 16:
        made, wanted = F.avg_pool2d(made, 2), F.avg_pool2d(wanted, 2)
        found.append(F.mse_loss(made, wanted))
    return torch.stack(found).mean()


def project(
    method: Any,
    picture: Path,
    output: Path,
    *,
    steps: int = 500,
    seed: int = 0,
    lr: float = 0.1,
    device: torch.device | str | None = None,
) -> dict[str, Any]:
    """Write to the folder ``output`` what ``method`` can make that is nearest to ``picture``:
    ``projected.png``, ``beside.jpg`` (the picture and it), ``latent.npy`` (w [w_dim] of a
    StyleGAN, z [z_dim] of others), ``loss.json`` and ``loss.png``. Returns the content of
    ``loss.json``.

    The picture is cropped to its central square and resized. The loss is `pyramid_mse`; by Adam,
    in w from its mean (StyleGAN2, appendix D), in z from the nearest of 256 drawn. The same
    ``seed`` gives the same result.

    Raises:
        UserError: no generator with latents, no picture, or fewer than one step.
    """
    if not isinstance(method, Unconditional):
        title = getattr(method, "title", "this model")
        raise UserError(f"{title} has no latents, so that nothing can be projected into them.")
    if steps < 1 or not 0 < lr <= 100:
        raise UserError(f"--steps {steps} --lr {lr:g}: give 1 step or more and a positive rate.")
    if is_stack(method.spec.channels):
        raise UserError("Only grey and colour pictures are projected; this model makes others.")
    array = read_image(picture, method.spec.channels)
    side = min(array.shape[:2])
    top, left = ((length - side) // 2 for length in array.shape[:2])
    square = resize_uint8(array[top : top + side, left : left + side], method.spec.size)
    if device is not None and isinstance(method, nn.Module):
        method.to(device)
    wanted = torch.from_numpy(square.copy()).permute(2, 0, 1)[None].to(method.device)
    image = method.scaled(wanted)
    source = torch_generator(seed, "project")
    if method.has_styles:
        found = project_styles(
            cast(StyleGenerator, method.g),
            image,
            steps,
            loss=pyramid_mse,
            lr=lr,
            seed=seed,
        )
    else:
        make: Callable[[Tensor], Tensor] = method.pictures
        with torch.no_grad():
            drawn = method.z_from(_DRAWN, source)
            near = (x[None] for z in drawn.split(32) for x in make(z))
            each = [pyramid_mse(x, image) for x in near]
        start = drawn[int(torch.stack(each).argmin())][None]
        found = descend(
            make, start, image, steps, loss=pyramid_mse, lr=lr, wander=0.05, source=source
        )
    losses = [round(float(x), 8) for x in found.losses]
    if not all(map(np.isfinite, losses)):
        raise UserError("the model's pictures are not finite: its weights are broken")
    made = found.images.float().clamp(-1, 1).cpu()
    final = float(pyramid_mse(made, image.float().cpu()))
    beside = grid([("picture", image.float().cpu()), ("projected", made)])
    told = {
        "picture": str(picture),
        "latent": "w" if method.has_styles else "z",
        "loss": "pyramid_mse",
        "seed": seed,
        "steps": steps,
        "lr": lr,
        "first": losses[0],
        "final": final,
        "losses": losses,
    }
    save_picture(strip(made), output / "projected.png")
    save_picture(beside, output / "beside.jpg")
    with replacing(output / "latent.npy", durable=False) as file:
        np.save(file, found.w[0].float().cpu().numpy())
    write_json(output / "loss.json", told)
    _draw(losses, output / "loss.png")
    return told


def _draw(losses: list[float], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(range(1, len(losses) + 1), losses, color="#4477aa")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (pyramid MSE)")
    with replacing(path, durable=False) as file:
        figure.savefig(file, format="png", dpi=120)

"""Stylised pictures, scored twice: how much of the content is kept, and how much of the style is
reached. Each alone is won by a trivial output, doing nothing or a copy of the style, so the two are
read together and beside these (`style_rows`). Pictures are uint8 [N, 1 or 3, H, W].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.image import StructuralSimilarityIndexMeasure
from torchmetrics.utilities.data import dim_zero_cat

from gansuite.evaluation.comparison import check_images, rgb
from gansuite.evaluation.features import CHUNK, STAGES, RandomVGG16, exact


class ContentKept(StructuralSimilarityIndexMeasure):
    """SSIM of the stylised pictures to the contents, -1 to 1: 1 for doing nothing."""

    higher_is_better = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(data_range=255.0, **kwargs)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """The stylised pictures and the contents, in one order."""
        super().update(preds.double(), target.double())


class StyleReached(Metric):
    """How far the statistics of the stylised pictures are from those of the style, from 0 up.

    The mean and the deviation of every channel after each stage of the network that scores. With
    the mean m over the style pictures, sum over stages of mean |s(y) - m|^2 / |m|^2, over pictures.
    With references, one for each picture, its own statistics stand in for m.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    made: list[Tensor]
    style: list[Tensor]

    def __init__(self, network: RandomVGG16, *, references: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._network = (network,)  # in a tuple: not a part of this module
        self.references = references
        self.add_state("made", default=[], dist_reduce_fx="cat")
        self.add_state("style", default=[], dist_reduce_fx="cat")

    def update(self, imgs: Tensor, real: bool) -> None:
        """Add stylised pictures, or (``real``) pictures of the style."""
        found = style_statistics(self._network[0], imgs)
        (self.style if real else self.made).append(found)

    def compute(self) -> Tensor:
        made, style = dim_zero_cat(self.made), dim_zero_cat(self.style)
        if self.references and len(made) != len(style):
            raise ValueError(f"{len(made)} pictures need as many references, not {len(style)}")
        wanted = style if self.references else style.mean(0, keepdim=True)
        sizes = [2 * widths[-1] for widths in STAGES]
        parts = zip(made.split(sizes, 1), wanted.split(sizes, 1), strict=True)
        ratios = [(a - b).square().sum(1) / b.square().sum(1) for a, b in parts]
        return torch.stack(ratios).sum(0).mean()


@torch.no_grad()
def style_statistics(network: RandomVGG16, images: Tensor) -> Tensor:
    """float64 [N, 2 * channels of all stages] on the CPU: means, then deviations, by stages."""
    check_images(images)
    found = []
    for chunk in images.split(CHUNK):
        x = rgb(chunk).to(network.device()).float() / 127.5 - 1
        parts = []
        with exact(x.device):
            for number, stage in enumerate(network.stages):
                x = stage(F.max_pool2d(x, 2) if number else x)
                variance, mean = torch.var_mean(x, (2, 3), correction=0)
                parts += [mean, variance.sqrt()]
        found.append(torch.cat(parts, 1).cpu().double())
    return torch.cat(found)


def style_rows(
    source: Tensor, made: Tensor, style: Tensor, network: RandomVGG16
) -> dict[str, dict[str, float]]:
    """``content_kept`` and ``style_reached`` of ``made``, of doing nothing and of a copy of the
    ``style`` in the place of each picture."""
    outputs = {
        "made": made,
        "do_nothing": source,
        "copy_the_style": style[torch.arange(len(source)) % len(style)],
    }
    rows = {}
    for name, pictures in outputs.items():
        kept, reached = ContentKept(), StyleReached(network)
        kept.update(pictures, source)
        reached.update(style, real=True)
        reached.update(pictures, real=False)
        rows[name] = {
            "content_kept": float(torch.as_tensor(kept.compute())),
            "style_reached": float(reached.compute()),
        }
    return rows

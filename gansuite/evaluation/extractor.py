"""The networks that look at pictures in one evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from gansuite.evaluation.features import Inception, RandomVGG16
from gansuite.evaluation.perceptual import LPIPS


@dataclass(frozen=True)
class Extractor:
    """The random network always, the others where their weights are given.

    Not a Module, so it cannot slip into a checkpoint, an optimizer or an average.
    """

    random: RandomVGG16
    inception: Inception | None = None
    vgg: LPIPS | None = None

    def ids(self) -> dict[str, str]:
        """What the protocol calls them; empty for one that is not there."""
        return {
            "extractor": self.random.id,
            "inception": self.inception.id if self.inception else "",
            "vgg": self.vgg.id if self.vgg else "",
        }


def build_extractor(
    *, seed: int = 0, device: torch.device | str = "cpu", inception: str = "", vgg: str = ""
) -> Extractor:
    """The random network on ``device``, and those whose files of weights are given."""
    return Extractor(
        RandomVGG16(seed).to(device),
        Inception(Path(inception)).to(device) if inception else None,
        LPIPS(Path(vgg)).to(device) if vgg else None,
    )

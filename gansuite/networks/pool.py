"""The history of generated pictures CycleGAN's discriminators see (Shrivastava et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from gansuite.draws import Draws


class ImagePool:
    """Up to ``size`` earlier fakes; size 0 passes pictures through.

    While it fills, pictures are stored and returned. Then each new picture is, with probability
    one half, exchanged for a random stored one; otherwise it is returned and not stored.
    """

    def __init__(self, size: int = 50) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def query(self, images: Tensor, draws: Draws) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W], detached copies. The stored pictures follow the device
        and type of ``images``: those of a checkpoint come on the CPU."""
        if self.size == 0:
            return images.detach()
        self.images = [image.to(images) for image in self.images]
        out = []
        for new, (chance, place) in zip(
            images.detach(), draws.chances(len(images), 2), strict=True
        ):
            if len(self.images) < self.size:
                self.images.append(new.clone())
            elif chance > 0.5:
                i = int(place * self.size)
                self.images[i], new = new.clone(), self.images[i]
            out.append(new)
        return torch.stack(out)

    def state_dict(self) -> dict[str, Tensor]:
        """{"images": [k, C, H, W]}, or an empty tensor while nothing is stored."""
        return {"images": torch.stack(self.images) if self.images else torch.empty(0)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what ``state_dict`` returned, at most ``size`` pictures of it."""
        self.images = [image.clone() for image in state["images"][: self.size]]

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
        self.images = torch.empty(0)  # [size, C, H, W] from the first query on
        self.stored = torch.zeros((), dtype=torch.long)  # of which so many are pictures

    def query(self, images: Tensor, draws: Draws) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W], detached copies. The stored pictures follow the device
        and type of ``images``: those of a checkpoint come on the CPU."""
        n, size, images = len(images), self.size, images.detach()
        if size == 0:
            return images
        if not len(self.images):
            self.images = images.new_zeros(size, *images.shape[1:])
        self.images, self.stored = self.images.to(images), self.stored.to(images.device)
        drawn = draws.decided(
            lambda d: torch.tensor([[c > 0.5, int(p * size)] for c, p in d.chances(n, 2)])
        )
        out = []
        for new, (chosen, place) in zip(images.split(1), drawn, strict=True):
            fills = self.stored < size
            at = torch.where(fills, self.stored, place).view(1)
            old = self.images.index_select(0, at)
            kept = fills | chosen.bool()
            out.append(torch.where(kept & ~fills, old, new))
            self.images.index_copy_(0, at, torch.where(kept, new, old))
            self.stored += fills
        return torch.cat(out)

    def state_dict(self) -> dict[str, Tensor]:
        """{"images": [k, C, H, W]}, or an empty tensor while nothing is stored."""
        return {"images": self.images[: int(self.stored)].clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what ``state_dict`` returned, at most ``size`` pictures of it."""
        found = state["images"][: self.size]
        self.images, self.stored = torch.empty(0), torch.tensor(len(found))
        if len(found):
            self.images = found.new_zeros(self.size, *found.shape[1:])
            self.images[: len(found)] = found

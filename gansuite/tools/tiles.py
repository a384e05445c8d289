"""A picture that is too large for the memory, translated in overlapping tiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gansuite.errors import UserError

_FAINT = 1e-6  # of the weight of a tile's outermost pixels: they count where no other tile reaches


@dataclass(frozen=True)
class Tiles:
    """Squares of ``side`` pixels, each of which shares ``overlap`` with the next."""

    side: int
    overlap: int

    @classmethod
    def of(cls, side: int, overlap: int, stride: int) -> Tiles:
        """Both in multiples of ``stride``, rounded up.

        Raises:
            UserError: tiles that are no larger than what they share.
        """
        if overlap < 0 or side < 16 or side < 2 * overlap:
            raise UserError(
                f"--tile {side} --overlap {overlap}: a tile has 16 pixels or more, and at least "
                f"twice the overlap"
            )
        side, overlap = (math.ceil(n / stride) * stride for n in (side, overlap))
        if side <= overlap:
            raise UserError(f"this model needs multiples of {stride}; give a larger --tile")
        return cls(side, overlap)

    def starts(self, length: int) -> list[int]:
        """Where the tiles of a side of ``length`` pixels begin; the last one ends with it."""
        last, step = max(0, length - self.side), self.side - self.overlap
        return [*range(0, last, step), last]

    def ramp(self, length: int) -> Tensor:
        """The weight of each of ``length`` pixels of a tile: nothing in the outer quarter of the
        overlap, where the network misses its surroundings, all from the third quarter on."""
        place = torch.arange(length) + 0.5
        edge = torch.minimum(place, length - place)
        quarter = max(self.overlap / 4, 0.25)
        return ((edge - quarter) / (2 * quarter)).clamp(_FAINT, 1)

    def translate(self, x: Tensor, call: Callable[[Tensor], Tensor]) -> Tensor:
        """``call`` of ``x`` [N, C, H, W], tile by tile; in an overlap the means of the tiles, each
        by its `ramp`. Only one tile at a time is handed to ``call``."""
        height, width = x.shape[2:]
        made = torch.zeros_like(x)
        total = x.new_zeros(height, width)
        for top in self.starts(height):
            for left in self.starts(width):
                here = (..., slice(top, top + self.side), slice(left, left + self.side))
                part = call(x[here])
                weight = torch.outer(self.ramp(part.shape[2]), self.ramp(part.shape[3]))
                made[here] += part * weight
                total[here] += weight
        return made.div_(total)

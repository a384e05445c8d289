"""A picture that is too large for the memory, translated in overlapping tiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gansuite.errors import UserError
from gansuite.networks.layers import SharedStatistics

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

    def sample(self, x: Tensor, stride: int) -> Tensor:
        """Parts of the picture ``x`` [1, C, H, W] that lie evenly all over it, [N, C, h, w], about
        as much in all as four tiles."""
        height, width = x.shape[2:]
        least = max(self.side // 4, 2 * stride, 64)
        part = math.ceil(least / stride) * stride
        h, w = min(part, height), min(part, width)
        many = max(1, round(4 * self.side**2 / (h * w)))
        rows = min(max(1, round(math.sqrt(many * height / width))), math.ceil(height / h))
        columns = min(max(1, many // rows), math.ceil(width / w))

        def middles(length: int, part: int, count: int) -> list[int]:
            return [
                round((length - part) / 2 + (i - (count - 1) / 2) * length / count)
                for i in range(count)
            ]

        tops, lefts = middles(height, h, rows), middles(width, w, columns)
        tops = [min(max(0, top), height - h) for top in tops]
        lefts = [min(max(0, left), width - w) for left in lefts]
        return torch.cat([x[..., t : t + h, s : s + w] for t in tops for s in lefts])

    def translate_alike(self, x: Tensor, call: Callable[[Tensor], Tensor], stride: int) -> Tensor:
        """`translate`, of each picture apart, whose instance norms take the statistics of a
        `sample` of the picture: each tile's own would give each tile another tint."""
        made = []
        for picture in x.split(1):
            shared = SharedStatistics()
            with shared.gathering():
                call(self.sample(picture, stride))

            def alike(part: Tensor, shared: SharedStatistics = shared) -> Tensor:
                with shared.using():
                    return call(part)

            made.append(self.translate(picture, alike))
        return torch.cat(made)

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

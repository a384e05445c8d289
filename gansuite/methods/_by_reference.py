"""What methods share that take the style of a reference picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from gansuite.data.spec import Batch, DataSpec, Needs
from gansuite.errors import UserError
from gansuite.methods._one_way import Direction, OneWay
from gansuite.methods.base import Inference


class ByReference(OneWay):
    """From one domain into the style of a picture of the other.

    The generator ``g`` has ``g.code(picture)``, of which any convex sum is a code, and
    ``g(x, code)``. `translate` has no reference, so each picture takes, by a checksum of its own,
    one of the first ``references`` pictures of the target domain that were trained on.
    """

    needs = Needs(view="unpaired", domains=2)
    by_reference = True

    references: Tensor
    known: Tensor

    def __init__(
        self,
        spec: DataSpec,
        weights: Mapping[str, float],
        direction: Direction,
        references: int,
    ) -> None:
        super().__init__(spec, weights, direction)
        if references < 1:
            raise UserError(f"'method.references' is {references}, it must be at least 1.")
        shape = (references, spec.channels, spec.size, spec.size)
        self.register_buffer("references", torch.zeros(shape, dtype=torch.uint8))
        self.register_buffer("known", torch.zeros((), dtype=torch.long))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Keep the first references, those of the whole global batch."""
        _, styles = self.pair(self.prepared(batch))
        size = len(styles) * self.world
        first, last = self.batches * size, min((self.batches + 1) * size, len(self.references))
        if first < last:
            found = ((self.gathered(styles) + 1) * 127.5).round().to(torch.uint8)
            self.references[first:last] = found[: last - first]
            self.known.fill_(last)

    def stylize(
        self, x: Tensor, references: Sequence[tuple[Tensor, float]], strength: float = 1.0
    ) -> Tensor:
        """By a convex sum of the references' codes and, with share 1 - strength, of x's own."""
        g: Any = self.network("g")
        total = sum(share for _, share in references)
        code = (1 - strength) * g.code(x)
        for picture, share in references:
            code = code + strength * share / total * g.code(picture)
        return cast(Tensor, g(x, code))

    def reference_of(self, x: Tensor) -> Tensor:
        """The pictures [N, C, H, W] that `translate` gives ``x`` the style of; before the first
        batch its own."""
        if not self.known:
            return x
        sums = ((x.double() + 1) * 127.5).round().long().sum((1, 2, 3))
        return self.scaled(self.references[sums % self.known])

    def styled(self, x: Tensor, reference: Tensor, strength: Any = 1.0) -> Tensor:
        """``x`` in the style of one ``reference``; ``strength``: a number or a tensor of one."""
        return self.stylize(x, [(reference, 1.0)], strength)

    def inference(self, to: str) -> Inference:
        return Inference(
            self.network("g"),
            lambda image, reference, strength: self.styled(image, reference, strength),
            "styled",
            image="picture",
            reference="picture",
            strength="share",
        )

    def translate(self, x: Tensor, to: str) -> Tensor:
        self.reachable(to)
        return self.styled(x, self.reference_of(x))

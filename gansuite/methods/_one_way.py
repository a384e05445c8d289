"""What methods share that translate one way only: from a source domain to a target domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from gansuite.data.spec import Batch, DataSpec
from gansuite.errors import UserError
from gansuite.methods.base import Method

Direction = Literal["ab", "ba"]


class OneWay(Method):
    """Two domains, and one generator ``g`` from the first to the second (``ab``) or back."""

    task = "translate"

    def __init__(self, spec: DataSpec, weights: Mapping[str, float], direction: Direction) -> None:
        super().__init__(spec, weights)
        self.ends = (0, 1) if direction == "ab" else (1, 0)  # source, target

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.spec.domains[self.ends[1]],)

    def pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The pictures of the source domain and those of the target domain."""
        source, target = self.ends
        return batch.images[source], batch.images[target]

    def reachable(self, to: str) -> None:
        """Raise UserError unless ``to`` is the target."""
        if to not in self.targets:
            source, target = (self.spec.domains[i] for i in self.ends)
            raise UserError(
                f"This {self.title} translates {source} to {target}, not to '{to}'; "
                f"'method.direction' chooses the way."
            )

    def translate(self, x: Tensor, to: str) -> Tensor:
        self.reachable(to)
        made: Tensor = self.network("g")(x)
        return made

"""What methods share that translate one way only: from a source domain to a target domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from gansuite.data.module import DataModule
from gansuite.data.spec import Batch, DataSpec
from gansuite.errors import UserError
from gansuite.evaluation.learned import learned_classifier
from gansuite.losses.perceptual import VGG, blank
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

    def setup(self, stage: str) -> None:
        """Perceptual networks that are a classifier of the domains learn from the training pictures
        before the first batch, or are read from the cache; a checkpoint holds them.

        Raises:
            UserError: the Trainer has no `DataModule`.
        """
        super().setup(stage)
        parts = (self, *self.averages.modules.values())
        found = [m for part in parts for m in part.modules() if isinstance(m, VGG) and blank(m)]
        if stage != "fit" or not found:
            return
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, DataModule):
            raise UserError(
                "'method.network' is classifier, which learns from the pictures of a "
                "gansuite.DataModule: give one to fit, or take random_vgg."
            )
        seed = self.hparams.get("network_seed", 0)
        state = learned_classifier(data, found[0].last, found[0].width, seed)
        for network in found:
            network.load_state_dict(state)

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

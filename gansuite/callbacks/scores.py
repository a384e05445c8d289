"""`Evaluate`: scores of a method under anybody's Trainer, at each of its validations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import nn
from torchmetrics import Metric, MetricCollection

from gansuite.evaluation.comparison import to_uint8
from gansuite.evaluation.features import RandomVGG16
from gansuite.evaluation.metrics import (
    Diversity,
    FrechetDistance,
    KernelDistance,
    PrecisionRecall,
    SetMetric,
)


def distances(feature: nn.Module | None = None, name: str = "random") -> MetricCollection:
    """Frechet and kernel distance, precision, recall and diversity on the vectors of ``feature``:
    uint8 [N, C, H, W] -> [N, d]. Without one: a seeded, untrained VGG-16."""
    feature = feature or RandomVGG16(0)
    return MetricCollection(
        {
            f"fd_{name}": FrechetDistance(feature),
            f"kd_{name}": KernelDistance(feature),
            "precision_recall": PrecisionRecall(feature),
            "diversity": Diversity(feature),
        },
        compute_groups=False,
    )


class Evaluate(Callback):
    """Scores what a method makes of the validation pictures, for each direction apart: ``a2b`` and
    ``b2a`` of two domains, ``to_<domain>`` of more, ``gen`` of a generator.

    ``metrics``: makes a `MetricCollection` for each direction (default: `distances`). Metrics of
    two sets (`SetMetric`) are given all made and all real pictures of the target domain; others
    are called as torchmetrics' FID is, ``update(imgs, real=...)``. The values are logged as
    ``<direction>/<metric>`` through ``log_dict``, reduced over all processes.

        trainer = Trainer(max_steps=1000, val_check_interval=200, callbacks=[Evaluate()])
    """

    def __init__(self, metrics: Callable[[], MetricCollection] = distances) -> None:
        self.make = metrics
        self.collections: dict[str, MetricCollection] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for collection in self.collections.values():
            collection.reset()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for direction, sides in (outputs or {}).items():
            if direction not in self.collections:
                self.collections[direction] = self.make().to(pl_module.device)
            for metric in self.collections[direction].values():
                self._update(metric, sides)

    @staticmethod
    def _update(metric: Metric, sides: Mapping[str, Any]) -> None:
        for side in ("fake", "real"):
            pictures = sides[side]
            if len(pictures):
                seen = to_uint8(pictures)
                seen = seen.cpu() if isinstance(metric, SetMetric) else seen
                metric.update(seen, real=side == "real")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for direction, collection in self.collections.items():
            for key, value in collection.compute().items():
                pl_module.log(f"{direction}/{key}", value.float())

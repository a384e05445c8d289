"""`Evaluate`: scores of a method under anybody's Trainer, at each of its validations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics import MetricCollection

from gansuite.evaluation.comparison import to_uint8
from gansuite.evaluation.evaluator import Evaluator
from gansuite.evaluation.extractor import build_extractor
from gansuite.evaluation.metrics import SetMetric
from gansuite.evaluation.protocol import Protocol
from gansuite.evaluation.score import SetScores

METRICS = ("fd_random", "kd_random", "precision", "recall", "diversity")
"""What is scored unless something else is asked for: it needs no weights and no training."""


class Evaluate(Callback):
    """Scores what a method makes of the validation pictures, for each direction apart: ``a2b`` and
    ``b2a`` of two domains, ``to_<domain>`` of more, ``gen`` of a generator.

    ``metrics``: an `Evaluator`, whose metrics of two sets are scored (default: `METRICS`, on a
    seeded, untrained VGG-16), or what makes a `MetricCollection` for each direction: metrics of two
    sets, called as torchmetrics' FID is, ``update(imgs, real=...)``, with all made and all real
    pictures of the target domain. The values are logged as ``<direction>/<metric>`` through
    ``log``, reduced over all processes.

        trainer = Trainer(max_steps=1000, val_check_interval=200, callbacks=[Evaluate()])
    """

    def __init__(self, metrics: Evaluator | Callable[[], MetricCollection] | None = None) -> None:
        self.metrics = metrics
        self.directions: dict[str, SetScores | MetricCollection] = {}

    def _of(self, direction: str, pl_module: LightningModule, real: Tensor) -> Any:
        if direction not in self.directions:
            if self.metrics is None:
                channels, size = real.shape[1], real.shape[-1]
                extractor = build_extractor(channels=channels)
                self.metrics = Evaluator(
                    Protocol.of(extractor, size=size, channels=channels, metrics=METRICS), extractor
                )
            self.directions[direction] = (
                self.metrics.sets()
                if isinstance(self.metrics, Evaluator)
                else self.metrics().to(pl_module.device)
            )
        return self.directions[direction]

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for scores in self.directions.values():
            scores.reset()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        found: Mapping[str, Mapping[str, Tensor]] = outputs or {}
        for direction, sides in found.items():
            scores = self._of(direction, pl_module, sides["real"])
            for side in ("fake", "real"):
                if not len(sides[side]):
                    continue
                seen = to_uint8(sides[side])
                if isinstance(scores, SetScores):
                    scores.update(seen.cpu(), real=side == "real")
                    continue
                for metric in scores.values():
                    here = seen.cpu() if isinstance(metric, SetMetric) else seen
                    metric.update(here, real=side == "real")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for direction, scores in self.directions.items():
            found: Mapping[str, Any]
            found = scores.compute()[0] if isinstance(scores, SetScores) else scores.compute()
            for key, value in found.items():
                pl_module.log(f"{direction}/{key}", float(value))

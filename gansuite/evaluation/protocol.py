"""Everything that changes a score, in one frozen record with an id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from gansuite.errors import UserError, nearest
from gansuite.evaluation.table import HIGHER_IS_BETTER, NEEDS, OFFLINE

if TYPE_CHECKING:
    from gansuite.evaluation.extractor import Extractor

__all__ = ["HIGHER_IS_BETTER", "NEEDS", "OFFLINE", "Protocol", "difference"]


@dataclass(frozen=True)
class Protocol:
    """How scores were made. Numbers with different ``id`` do not belong in one table.

    ``version`` grows whenever the code of a metric changes a number (2: SSIM is torchmetrics', the
    kernel distance knows no subsets, the inception score shuffles). ``samples``: at most so many
    pictures on each side, the first ones of ``split`` in file order. ``weights``: which weights of
    the method, ``raw``, ``ema`` or ``auto`` (ema where the method keeps one). ``extractor``,
    ``inception``, ``vgg``, ``learned``, ``dino`` and ``clip`` name the networks with the hash of
    their weights; ``style``: whether the content kept and the style reached are asked for.
    ``metrics``: those asked for; one that has no meaning for a comparison (PSNR without a truth) is
    absent from its scores.
    ``fid_small``: report FID also below 2048 pictures, where it mostly measures their number.
    ``swd_repeats``: the paper has 4; both sets meet the same directions, so more of them change the
    distance by about 4 % and cost as much as all other metrics together. ``ppl_epsilon``: the step
    in latent space, from its ends.
    """

    extractor: str
    size: int
    channels: int = 3
    samples: int = 128
    split: str = "test"
    weights: str = "auto"
    metrics: tuple[str, ...] = OFFLINE
    inception: str = ""
    vgg: str = ""
    learned: str = ""
    dino: str = ""
    clip: str = ""
    style: bool = False
    fid_small: bool = False
    resize: str = "bicubic antialiased, whole picture"
    seed: int = 0
    swd_patches: int = 128
    swd_directions: int = 128
    swd_repeats: int = 1
    swd_smallest: int = 16
    precision_recall_k: int = 3
    density_coverage_k: int = 5
    inception_splits: int = 10
    ppl_epsilon: float = 1e-4
    version: int = 2

    def __post_init__(self) -> None:
        for metric in self.metrics:
            if metric not in HIGHER_IS_BETTER:
                raise UserError(
                    f"evaluate.metrics: there is no metric '{metric}'"
                    + nearest(metric, HIGHER_IS_BETTER)
                )
            option = NEEDS.get(metric)
            if option and not getattr(self, option):
                raise UserError(
                    f"evaluate.metrics: '{metric}' is not there without evaluate.{option}; set it"
                )
        if self.weights not in ("raw", "ema", "auto"):
            raise UserError(f"evaluate.weights: raw, ema or auto, not '{self.weights}'")
        if self.samples < 2:
            raise UserError(f"evaluate.samples: at least 2, not {self.samples}")

    @classmethod
    def of(cls, extractor: Extractor, **settings: Any) -> Protocol:
        """The protocol of these networks; all their metrics unless ``metrics`` is given."""
        given: dict[str, Any] = {**settings, **extractor.ids()}
        there = tuple(m for m in HIGHER_IS_BETTER if m not in NEEDS or given.get(NEEDS[m]))
        return cls(**{**given, "metrics": tuple(settings.get("metrics", there))})

    @property
    def id(self) -> str:
        """``p<version>-`` and ten hexadecimal digits, a hash of all fields but those at their
        defaults, so that a later field whose default changes no number changes no id.

        The order in which metrics are listed does not count.
        """
        usual = {f.name: f.default for f in fields(self) if f.name not in ("version", "metrics")}
        content = {**self.to_dict(), "metrics": sorted(self.metrics)}
        content = {k: v for k, v in content.items() if k not in usual or v != usual[k]}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return f"p{self.version}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain containers."""
        return {**asdict(self), "metrics": list(self.metrics)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Protocol:
        """The reverse of ``to_dict``; an ``id`` in it is ignored. UserError for unknown fields."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in content.items() if k != "id"}
        if unknown := sorted(set(values) - known):
            raise UserError(f"protocol: unknown field '{unknown[0]}', made by another version")
        return cls(**{**values, "metrics": tuple(values.get("metrics", OFFLINE))})


def difference(a: Protocol, b: Protocol) -> list[str]:
    """The fields in which two protocols differ, in words: ``["size: 64 against 128"]``."""
    lines = []
    for field in fields(Protocol):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name == "metrics":
            for metrics, others, side in ((x, y, "first"), (y, x, "second")):
                if extra := [m for m in metrics if m not in others]:
                    lines.append(f"metrics: {', '.join(extra)} only in the {side}")
        elif x != y:
            lines.append(f"{field.name.replace('_', ' ')}: {x!r} against {y!r}")
    return lines

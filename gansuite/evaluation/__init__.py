"""Scores that can be compared: one protocol, one code path for every method."""

from typing import TYPE_CHECKING

from gansuite.evaluation.protocol import HIGHER_IS_BETTER, OFFLINE, Protocol, difference
from gansuite.lazy import attributes

if TYPE_CHECKING:
    from gansuite.evaluation.comparison import Comparison, to_uint8
    from gansuite.evaluation.evaluator import Evaluator
    from gansuite.evaluation.extractor import Extractor, build_extractor, extractor_of
    from gansuite.evaluation.score import Statistics, reference_rows
else:
    __getattr__ = attributes(
        __name__,
        {
            "Comparison": "comparison",
            "to_uint8": "comparison",
            "Evaluator": "evaluator",
            "Extractor": "extractor",
            "build_extractor": "extractor",
            "extractor_of": "extractor",
            "Statistics": "score",
            "reference_rows": "score",
        },
    )

__all__ = [
    "HIGHER_IS_BETTER",
    "OFFLINE",
    "Comparison",
    "Evaluator",
    "Extractor",
    "Protocol",
    "Statistics",
    "build_extractor",
    "difference",
    "extractor_of",
    "reference_rows",
    "to_uint8",
]

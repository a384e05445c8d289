"""Scores that can be compared: one protocol, one code path for every method."""

from gansuite.evaluation.comparison import Comparison, to_uint8
from gansuite.evaluation.features import (
    Extractor,
    build_extractor,
    check_inception,
    fetch_metrics,
)
from gansuite.evaluation.protocol import HIGHER_IS_BETTER, OFFLINE, Protocol, difference
from gansuite.evaluation.score import Statistics, reference_rows, score

__all__ = [
    "HIGHER_IS_BETTER",
    "OFFLINE",
    "Comparison",
    "Extractor",
    "Protocol",
    "Statistics",
    "build_extractor",
    "check_inception",
    "difference",
    "fetch_metrics",
    "reference_rows",
    "score",
    "to_uint8",
]

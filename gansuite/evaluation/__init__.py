"""Scores that can be compared: one protocol, one code path for every method."""

from gansuite.evaluation.comparison import Comparison, to_uint8
from gansuite.evaluation.extractor import Extractor, build_extractor, extractor_of
from gansuite.evaluation.protocol import HIGHER_IS_BETTER, OFFLINE, Protocol, difference
from gansuite.evaluation.score import Statistics, reference_rows, score, training_pictures

__all__ = [
    "HIGHER_IS_BETTER",
    "OFFLINE",
    "Comparison",
    "Extractor",
    "Protocol",
    "Statistics",
    "build_extractor",
    "difference",
    "extractor_of",
    "reference_rows",
    "score",
    "to_uint8",
    "training_pictures",
]

"""What scores, in one piece: networks, protocol, references, and the real side of every comparison.

The evaluation of a run, `gansuite evaluate`, `gansuite score` and `gansuite.Evaluate` are users of
one `Evaluator`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from gansuite.config import Evaluate
from gansuite.data.module import DataModule
from gansuite.evaluation.comparison import Comparison
from gansuite.evaluation.extractor import Extractor, extractor_of
from gansuite.evaluation.kept import kept_reference_rows
from gansuite.evaluation.learned import LearnedFeatures
from gansuite.evaluation.protocol import Protocol
from gansuite.evaluation.score import SetScores, Statistics, score
from gansuite.evaluation.style import has_style

Rows = dict[str, dict[str, dict[str, float]]]
"""Reference row -> comparison -> metric -> score."""


class Evaluator:
    """Scores comparisons under ``protocol`` with the networks of ``extractor``.

    ``data``: where the training pictures of the reference rows come from; without them only the
    rows that need none are there. What is computed of the real pictures of a comparison is kept by
    its name.
    """

    def __init__(
        self, protocol: Protocol, extractor: Extractor, data: DataModule | None = None
    ) -> None:
        self.protocol, self.extractor, self.data = protocol, extractor, data
        self._cache = data.cache if data else None
        self._real: dict[str, Statistics] = {}
        if protocol.style:
            extractor.style.folder = self._cache

    @classmethod
    def of(
        cls,
        options: Evaluate,
        data: DataModule,
        *,
        device: torch.device | str = "cpu",
        learned: LearnedFeatures | None = None,
        note: Callable[[str], None] = lambda line: None,
    ) -> Evaluator:
        """What ``evaluate`` asks for on these data; ``learned`` and ``note`` as `extractor_of`."""
        extractor = extractor_of(options, data, device=device, learned=learned, note=note)
        spec = data.spec
        protocol = Protocol.of(
            extractor,
            size=spec.size,
            channels=spec.channels,
            samples=options.pictures,
            weights=options.weights,
            style=has_style(spec.domains) if options.style == "auto" else options.style,
        )
        return cls(protocol, extractor, data)

    def report(self) -> dict[str, Any]:
        """The protocol with its id, as ``results.json`` holds it."""
        return {"id": self.protocol.id, **self.protocol.to_dict()}

    def score(self, comparison: Comparison) -> dict[str, float]:
        """The metrics of one comparison; see `score.score`."""
        return score(comparison, self.protocol, self.extractor, real=self._statistics(comparison))

    def scores(self, comparisons: Iterable[Comparison]) -> dict[str, dict[str, float]]:
        """comparison -> metric -> score."""
        return {c.name: self.score(c) for c in comparisons}

    def references(self, comparisons: Iterable[Comparison]) -> Rows:
        """The rows that every table carries; see `score.reference_rows`."""
        rows: Rows = {"do_nothing": {}, "real_vs_real": {}}
        for c in comparisons:
            found = kept_reference_rows(
                self._cache,
                c,
                self.protocol,
                self.extractor,
                train=self._training(c),
                real=self._statistics(c),
            )
            for row, scores in found.items():
                rows.setdefault(row, {})[c.name] = scores
        return rows

    def sets(self) -> SetScores:
        """The metrics of two sets, for pictures that come batch by batch, in every process its
        own."""
        return SetScores(self.protocol, self.extractor, keep_real=False, sync=True)

    def _statistics(self, c: Comparison) -> Statistics:
        if c.name not in self._real:
            self._real[c.name] = Statistics(c.real, self.protocol, self.extractor, self._cache)
        return self._real[c.name]

    def _training(self, c: Comparison) -> Tensor | None:
        """Training pictures of the target: as many as there are fakes, and where all domains are
        the target (of a generator) enough to fit a Gaussian."""
        if self.data is None:
            return None
        count, spec = len(c.fake), self.data.spec
        if c.target is None:
            count = max(count, min(1024, 2**26 // (spec.channels * spec.size**2)))
        return self.data.pictures("train", c.target, count)

"""Reference rows, kept in a folder: they are a function of the real pictures, and every run on the
same data would compute them again."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from gansuite.errors import UserError
from gansuite.evaluation.comparison import Comparison
from gansuite.evaluation.extractor import Extractor
from gansuite.evaluation.protocol import Protocol
from gansuite.evaluation.score import Statistics, reference_rows
from gansuite.evaluation.seen import digest
from gansuite.runs import write_json

Rows = dict[str, dict[str, float]]


def kept_reference_rows(
    folder: Path | None,
    comparison: Comparison,
    protocol: Protocol,
    extractor: Extractor,
    *,
    train: Tensor | None = None,
    real: Statistics | None = None,
) -> Rows:
    """`reference_rows`, computed once for equal pictures, protocol, code and machine; read from
    ``folder`` after that. None keeps nothing, and so does a folder that cannot be written."""

    def compute() -> Rows:
        return reference_rows(comparison, protocol, extractor, train=train, real=real)

    if folder is None:
        return compute()
    path = folder / f"references-{_key(comparison, protocol, extractor, train)}.json"
    if (rows := _read(path)) is None:
        rows = compute()
        with contextlib.suppress(UserError):
            write_json(path, rows)
    return rows


def _key(c: Comparison, protocol: Protocol, extractor: Extractor, train: Tensor | None) -> str:
    """All that the rows depend on. Not on what was generated, but for how many there are."""
    facts: list[Any] = [protocol.to_dict(), extractor.ids(), c.name, len(c.fake)]
    facts.append(c.reference is not None)  # in the rows it is a picture of ``train``
    pictures = (c.real, c.source, c.truth, c.mask, train)
    return digest(extractor.random.device(), facts, *pictures)


def _read(path: Path) -> Rows | None:
    """What was kept; None where there is nothing or it is damaged."""
    try:
        rows = json.loads(path.read_text())
        return {row: {m: float(v) for m, v in scores.items()} for row, scores in rows.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return None

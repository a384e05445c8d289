"""Intervals in pictures: a pure function of how many were seen, so a resumed run keeps them."""

from __future__ import annotations


def crossed(every: float | None, before: int, after: int) -> bool:
    """Whether a multiple of ``every`` pictures lies in (before, after]; never for None."""
    return every is not None and after // every > before // every

"""All sources by name."""

from __future__ import annotations

from typing import Any

from gansuite.data.registry import REGISTRY_SOURCES
from gansuite.data.sources import Coats, Folders, Labelled, Paired, Source, Unpaired
from gansuite.data.tables import Attributes
from gansuite.data.torchvision_sets import CelebA, Cifar10, FashionMnist, Mnist
from gansuite.errors import UserError, nearest

_CLASSES: tuple[type[Source], ...] = (
    Coats,
    Unpaired,
    Folders,
    Paired,
    Labelled,
    Attributes,
    Mnist,
    FashionMnist,
    Cifar10,
    CelebA,
    *REGISTRY_SOURCES,
)
SOURCES: dict[str, type[Source]] = {source.name: source for source in _CLASSES}


def build_source(name: str, **options: Any) -> Source:
    """The source ``name`` with ``options``, the keyword arguments of its ``__init__``.

    Raises :class:`UserError` for an unknown name, with the nearest one.
    """
    if name not in SOURCES:
        raise UserError(
            f"data.name: unknown data '{name}'{nearest(name, SOURCES)} "
            f"(`gansuite list` shows all {len(SOURCES)})"
        )
    return SOURCES[name](**options)


def describe_sources() -> list[tuple[str, str]]:
    """(name, one line about it) of every source, for ``gansuite list``."""
    return [(name, source.summary) for name, source in SOURCES.items()]

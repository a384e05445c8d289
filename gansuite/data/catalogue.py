"""All sources by name. Names, summaries and options are known without importing a source."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gansuite import signatures
from gansuite.config import checked_options
from gansuite.data.published import REGISTRY
from gansuite.errors import UserError, nearest
from gansuite.signatures import Signature, Unreadable

if TYPE_CHECKING:
    from gansuite.data.sources.base import Source

_CLASSES = {  # name -> module in gansuite.data.sources, class in it
    "coats": ("coats", "Coats"),
    "unpaired": ("unpaired", "Unpaired"),
    "folders": ("folders", "Folders"),
    "paired": ("paired", "Paired"),
    "labelled": ("labelled", "Labelled"),
    "attributes": ("attributes", "Attributes"),
    "mnist": ("mnist", "Mnist"),
    "fashion_mnist": ("mnist", "FashionMnist"),
    "cifar10": ("cifar10", "Cifar10"),
    "celeba": ("celeba", "CelebA"),
    "joint": ("joint", "Joint"),
    **dict.fromkeys(REGISTRY, ("registry", "RegistrySet")),
}


def _where(name: str) -> tuple[str, str]:
    module, cls = _CLASSES[name]
    return f"gansuite.data.sources.{module}", cls


class _Sources(Mapping[str, "type[Source]"]):
    """The classes; each is imported when it is asked for."""

    def __getitem__(self, name: str) -> type[Source]:
        module, cls = _where(name)
        found = importlib.import_module(module)
        if name in REGISTRY:
            return found.REGISTRY_SOURCES[name]
        return getattr(found, cls)

    def __contains__(self, name: object) -> bool:
        return name in _CLASSES

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


SOURCES: Mapping[str, type[Source]] = _Sources()


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


def source_signature(name: str) -> Signature:
    """The options of source ``name``."""
    try:
        return signatures.of_source(*_where(name))
    except Unreadable:
        return signatures.of_class(SOURCES[name])


def joint_options(sets: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The ``name`` and all options of each of the ``sets`` of a joint source, validated.

    Raises:
        UserError: one sentence that names the key and the nearest match.
    """
    if len(sets) < 2:
        raise UserError("data.sets has fewer than two sets; for one, name it in data.name")
    found = {}
    others = [name for name in SOURCES if name != "joint"]
    for key, options in sets.items():
        name = options.get("name")
        if not isinstance(name, str) or name not in others:
            raise UserError(
                f"data.sets.{key}.name is {name!r}, it must be one of the other data sets"
                f"{nearest(str(name), others)}"
            )
        own = {k: v for k, v in options.items() if k != "name"}
        checked = checked_options(source_signature(name), name, own, f"data.sets.{key}")
        found[key] = {"name": name, **checked}
    return found


def describe_sources() -> list[tuple[str, str]]:
    """(name, one line about it) of every source, for ``gansuite list``."""
    return [
        (
            name,
            REGISTRY[name].summary
            if name in REGISTRY
            else signatures.constant(*_where(name), "summary"),
        )
        for name in SOURCES
    ]

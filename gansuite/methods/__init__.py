"""One file per method. A file here is a method: nothing else has to know of it.

A method of another package is found by its entry point in the group ``gansuite.methods``:

    [project.entry-points."gansuite.methods"]
    mygan = "mypkg.mygan:MyGAN"

Names, summaries and options are known without importing a method.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from gansuite import signatures
from gansuite.errors import UserError, nearest
from gansuite.signatures import Signature, Unreadable

if TYPE_CHECKING:
    from gansuite.methods.base import Method

GROUP = "gansuite.methods"


def method_names() -> list[str]:
    """The methods there are, by name: the modules of this package, and the entry points."""
    return sorted({*_own(), *_outside()})


def method_class(name: str) -> type[Method]:
    """The class of method ``name``.

    Raises:
        UserError: there is none, two packages give it, or its entry point leads to none.
    """
    from gansuite.methods.base import Method

    point = _find(name)
    if point is not None:
        where = f"The method '{name}' of {_package(point)} ({point.value})"
        try:
            cls = point.load()
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise UserError(
                f"{where} cannot be imported: {reason}; mend that package or uninstall it."
            ) from error
        if not (inspect.isclass(cls) and issubclass(cls, Method)):
            raise UserError(f"{where} is no Method; its entry point must name a subclass of it.")
        return cls
    module = importlib.import_module(f"{__name__}.{name}")
    found = [
        c
        for _, c in inspect.getmembers(module, inspect.isclass)
        if issubclass(c, Method) and c.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise UserError(f"gansuite/methods/{name}.py must define one Method, not {len(found)}.")
    return found[0]


def method_signature(name: str) -> Signature:
    """The options of method ``name``; raises as `method_class` does."""
    point = _find(name)
    try:
        return signatures.of_source(*_text(name, point))
    except Unreadable:
        return signatures.of_class(method_class(name))


def describe_methods() -> list[tuple[str, str]]:
    """(name, its first sentence) of every method, or what is wrong with it; for `gansuite list`."""
    found = []
    for name in method_names():
        try:
            summary = signatures.summary(*_text(name, _find(name)))
        except UserError as error:
            summary = f"({error})"
        except Unreadable:
            summary = f"({_outside()[name][0].value})" if name in _outside() else ""
        found.append((name, summary))
    return found


def _own() -> list[str]:
    return [
        m.name
        for m in pkgutil.iter_modules(__path__)
        if m.name != "base" and not m.name.startswith("_")
    ]


@cache
def _outside() -> dict[str, list[EntryPoint]]:
    """The entry points of each name; one that is installed twice over counts once."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if point.value not in [p.value for p in found.setdefault(point.name, [])]:
            found[point.name].append(point)
    return found


def _find(name: str) -> EntryPoint | None:
    """The entry point of method ``name``; None for one of ours."""
    if name not in method_names():
        raise UserError(f"There is no method '{name}'{nearest(name, method_names())}.")
    points = _outside().get(name, [])
    if points and name in _own():
        raise UserError(
            f"{_package(points[0])} gives a method '{name}', which is the name of a built-in one; "
            f"give its entry point another name."
        )
    if len(points) > 1:
        raise UserError(
            f"Both {_package(points[0])} and {_package(points[1])} give a method '{name}'; "
            f"uninstall one."
        )
    return points[0] if points else None


def _package(point: EntryPoint) -> str:
    return f"package {point.dist.name}" if point.dist else "another package"


def _text(name: str, point: EntryPoint | None) -> tuple[str, str | None]:
    """The module of a method and the name of its class, where the name is known."""
    if point is None:
        return f"{__name__}.{name}", None
    found = re.fullmatch(r"([\w.]+):(\w+)", point.value.replace(" ", ""))
    if found is None:
        raise Unreadable(point.value)
    return found[1], found[2]

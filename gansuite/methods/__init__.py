"""One file per method. A file here is a method: nothing else has to be told about it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from gansuite.errors import UserError, nearest
from gansuite.methods.base import Method


def method_names() -> list[str]:
    """The methods there are: the modules of this package, by name."""
    found = (m.name for m in pkgutil.iter_modules(__path__))
    return sorted(n for n in found if n != "base" and not n.startswith("_"))


def method_class(name: str) -> type[Method]:
    """The one `Method` that module ``name`` defines."""
    if name not in method_names():
        raise UserError(f"There is no method '{name}'{nearest(name, method_names())}.")
    module = importlib.import_module(f"{__name__}.{name}")
    found = [
        c
        for _, c in inspect.getmembers(module, inspect.isclass)
        if issubclass(c, Method) and c.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise UserError(f"gansuite/methods/{name}.py must define one Method, not {len(found)}.")
    return found[0]

"""Importing late (PEP 562) and importing fast."""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def attributes(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of ``package``: ``homes`` gives the module in it that defines a name, or
    that is called so and is meant itself."""

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        home = importlib.import_module(f"{package}.{homes[name]}")
        found = home if homes[name].rpartition(".")[2] == name else getattr(home, name)
        setattr(sys.modules[package], name, found)
        return found

    return find


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Inside, no garbage is looked for: the half million objects that PyTorch and Lightning bring
    are none, and looking for it among them takes a fifth of the time of their import."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # and back, to the oldest: else the first three collections look at all of it
        gc.unfreeze()
        if was:
            gc.enable()

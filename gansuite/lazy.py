"""Importing late (PEP 562) and importing fast."""

from __future__ import annotations

import contextlib
import gc
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
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
    """Inside, for the imports of a command, no garbage is looked for: the half million objects that
    PyTorch and Lightning bring are none, and looking for it among them takes a fifth of the time of
    their import. Nor is imported what only metrics of text and sound need (`lean`)."""
    was = gc.isenabled()
    gc.disable()
    try:
        with lean():
            yield
    finally:
        gc.freeze()  # and back, to the oldest: else the first three collections look at all of it
        gc.unfreeze()
        if was:
            gc.enable()


@contextlib.contextmanager
def lean() -> Iterator[None]:
    """Inside, an import of torchmetrics does without what it looks for beside PyTorch: transformers
    for texts, matplotlib for plots, and ``scipy.signal`` in case an old package wants it. These
    are half of the memory and of the time of importing Lightning, which imports it."""
    cache_class: Any = None
    with contextlib.suppress(ImportError):
        from lightning_utilities.core.imports import RequirementCache as cache_class
    check = getattr(cache_class, "_check_available", None)  # theirs, and not promised
    if check is None or "torchmetrics" in sys.modules:
        yield
        return

    def checked(cache: Any) -> None:
        wanted = re.match(r"\w+", cache.requirement or cache.module or "")
        if wanted and wanted[0] in ("transformers", "matplotlib"):
            cache.available, cache.message = False, f"{wanted[0]} is left out"
        check(cache)

    signal = ModuleType("scipy.signal")
    signal.hamming = None  # type: ignore[attr-defined]
    stands_in = sys.modules.setdefault("scipy.signal", signal) is signal
    cache_class._check_available = checked
    try:
        yield
    finally:
        cache_class._check_available = check
        if stands_in:
            del sys.modules["scipy.signal"]
            if (scipy := sys.modules.get("scipy")) and vars(scipy).get("signal") is signal:
                del scipy.signal

"""Importing late (PEP 562) and importing fast."""

from __future__ import annotations

import contextlib
import gc
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec, spec_from_loader
from types import ModuleType, SimpleNamespace
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
    their import. Nor is imported what only metrics of text and sound need (`lean`), nor PyTorch's
    compiler before something is compiled (`without_compiler`)."""
    was = gc.isenabled()
    gc.disable()
    try:
        with lean(), without_compiler():
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


COMPILER = "torch._dynamo"


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """Inside, and from then on, PyTorch's compiler is imported when something is compiled and not
    because torchvision, Lightning and every optimizer ask it whether something is: that costs
    150 MB and a second. Until then a module answers that nothing is; it becomes the real one when
    it is asked for anything else. Does nothing where the compiler is imported already."""
    late = None if COMPILER in sys.modules else _late_compiler()
    if late is None:
        yield
        return
    utils = ModuleType(f"{COMPILER}.utils")  # which torchvision imports for one name
    utils.is_compile_supported = lambda device: False  # type: ignore[attr-defined]
    sys.modules[COMPILER], sys.modules[utils.__name__] = late, utils
    sys.meta_path.insert(0, _Parts())
    try:
        yield
    finally:
        if sys.modules.get(utils.__name__) is utils:
            del sys.modules[utils.__name__]


class _OptimizedModule:
    """What nothing is an instance of before something is compiled."""


class _Late(ModuleType):
    """A package that is imported when something is asked of it that is not in `ANSWERS`."""

    ANSWERS: Mapping[str, Any] = {
        "OptimizedModule": _OptimizedModule,
        "disable": lambda fn, *args, **kwargs: fn,
        "graph_break": lambda *args, **kwargs: None,
        "trace_rules": SimpleNamespace(clear_lru_cache=lambda: None),
    }

    def __getattr__(self, name: str) -> Any:
        if name in self.ANSWERS:
            return self.ANSWERS[name]
        if not name.startswith("__"):
            _whole(self)
            return getattr(self, name)
        raise AttributeError(name)


def _late_compiler() -> _Late | None:
    spec = find_spec(COMPILER)
    if spec is None or spec.loader is None:
        return None
    late = module_from_spec(spec)
    late.__class__ = _Late
    return late  # type: ignore[return-value]


def _whole(late: ModuleType) -> None:
    """Import it after all, as the object that others hold already."""
    late.__class__ = ModuleType
    utils = sys.modules.get(f"{COMPILER}.utils")
    if utils is not None and utils.__spec__ is None:
        del sys.modules[utils.__name__]
    assert late.__spec__ is not None
    assert late.__spec__.loader is not None
    late.__spec__.loader.exec_module(late)


class _Parts(MetaPathFinder, Loader):
    """Imports the package before a part of it; the part has come with it, or is looked for."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package = sys.modules.get(COMPILER)
        if not name.startswith(f"{COMPILER}.") or not isinstance(package, _Late):
            return None
        _whole(package)
        return spec_from_loader(name, self) if name in sys.modules else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """It has been."""

"""Every test without a mark of its own is fast; one thread per process, no account, no network."""

from __future__ import annotations

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_MODE"] = "disabled"
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, browsing
from markupsafe import Markup

# or every worker and every process that a test starts compiles all of the project again
sys.dont_write_bytecode = False
SLOWER = {"slow", "gpu", "network", "slurm"}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """All of it is slow, and hypothesis takes as long to import as PyTorch."""
    fast = config.option.markexpr == "fast"
    return True if fast and collection_path.name == "test_fuzz_inputs.py" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch  # not in the process that only distributes the tests

    torch.set_num_threads(1)
    for item in items:
        if not SLOWER & {mark.name for mark in item.iter_markers()}:
            item.add_marker("fast")
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _caches_apart(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[None]:
    """Decoded pictures, and what is learned and computed from them, go to a folder of this test
    session, which all workers share, not to the user's."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if hasattr(request.config, "workerinput") else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANSUITE_CACHE", str(base / "cache"))
        yield


_rehearsed: set[str] = set()


@pytest.fixture(autouse=True)
def _rehearsals_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was rehearsed in this process without a complaint is not rehearsed again: it takes a
    quarter of a tiny run, and most tests train the same ones."""
    engine = sys.modules.get("gansuite.engine")
    if engine is None:
        return
    whole = engine.rehearsed_method

    def once(experiment: Any, data: Any) -> Any:
        key = repr((experiment.method, experiment.trainer, data.spec, data.batch))
        method = engine.ready_method(experiment, data) if key in _rehearsed else None
        method = method or whole(experiment, data)
        _rehearsed.add(key)
        return method

    monkeypatch.setattr(engine, "rehearsed_method", once)


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time of a page and is tested with the pages."""
    from gansuite.compare import charts, curves

    for module, name in ((charts, "chart"), (curves, "scatter")):
        monkeypatch.setattr(module, name, lambda *_, **__: Markup("<svg></svg>"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def browser() -> Iterator[Browser]:
    yield from browsing()

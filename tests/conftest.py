"""Every test without a mark of its own is fast; one thread per process, no account, no network."""

from __future__ import annotations

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_MODE"] = "disabled"
os.environ.setdefault("WANDB_SILENT", "true")

from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)
SLOWER = {"slow", "gpu", "network", "slurm"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not SLOWER & {mark.name for mark in item.iter_markers()}:
            item.add_marker("fast")
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _caches_apart(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded pictures go to a folder of this test session, not to the user's."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("GANSUITE_CACHE", str(folder))


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
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path

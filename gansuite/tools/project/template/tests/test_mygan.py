"""The method trains, and what it has learned can be loaded and used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gansuite.catalogue import load_experiment
from gansuite.engine import load_method, train

FILE = Path(__file__).parents[1] / "experiments" / "mygan_coats.yaml"
TINY = (
    *("data.train=8", "data.test=4", "data.batch=4", "method.width=4", "trainer.accelerator=cpu"),
    *("budget.kimg=0.008", "log.every_kimg=0.004", "evaluate.every_kimg=null"),
    *("evaluate.pictures=4", "evaluate.samples=2", "log.wandb=disabled"),
)


def test_two_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANSUITE_CACHE", str(tmp_path / "cache"))
    experiment = load_experiment(str(FILE), [*TINY, f"out={tmp_path}"])
    train(experiment)
    method = load_method(experiment.run_dir)
    with torch.no_grad():
        pictures = method.sample(3)
    assert pictures.shape == (3, 3, 32, 32)
    assert pictures.abs().max() <= 1

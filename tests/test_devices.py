"""What ``auto`` stands for on a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import experiment, train

from gansuite import engine
from gansuite.catalogue import load_experiment
from gansuite.devices import settled
from gansuite.errors import UserError
from gansuite.runs import Run


@pytest.mark.parametrize(
    ("gpus", "capability", "given", "begun", "expected"),
    [
        (0, (0, 0), [], {}, ("32-true", True)),
        (1, (8, 0), [], {}, ("bf16-mixed", True)),
        (1, (9, 0), [], {}, ("bf16-mixed", True)),
        (1, (7, 5), [], {}, ("32-true", False)),
        (1, (7, 5), ["trainer.precision=16-mixed"], {}, ("16-mixed", True)),
        (1, (8, 0), ["trainer.accelerator=cpu"], {}, ("32-true", True)),
        (1, (8, 0), ["trainer.precision=32-true"], {}, ("32-true", False)),
        (1, (8, 0), ["trainer.channels_last=false"], {}, ("bf16-mixed", False)),
        (0, (0, 0), [], {"precision": "bf16-mixed", "channels_last": True}, ("bf16-mixed", True)),
        (1, (8, 0), [], {"precision": "32-true", "channels_last": False}, ("32-true", False)),
    ],
)
def test_what_auto_stands_for(
    gpus: int,
    capability: tuple[int, int],
    given: list[str],
    begun: dict[str, Any],
    expected: tuple[str, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    e = load_experiment("vanilla_coats", ["trainer.accelerator=auto", *given])
    found = settled(e, begun)
    assert (found.trainer.precision, found.trainer.channels_last) == expected
    assert settled(found) == found


def test_a_run_says_what_it_was_begun_with_and_goes_on_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    begun = experiment("vanilla_coats", tmp_path, 1, "trainer.precision=bf16-mixed")
    session = train(monkeypatch, begun)
    assert session.run.begun["precision"] == "bf16-mixed"
    assert session.run.begun["channels_last"] is True
    asked = experiment("vanilla_coats", tmp_path, 1)
    assert asked.trainer.precision == "auto"
    run = Run(asked.run_dir)
    run.refuse_changes(asked)
    assert settled(asked, run.begun).trainer.precision == "bf16-mixed"
    assert engine.is_done(asked)
    other = experiment("vanilla_coats", tmp_path, 1, "trainer.precision=32-true")
    with pytest.raises(UserError, match=r"trainer\.precision: bf16-mixed"):
        run.refuse_changes(other)

"""A rehearsal agrees with training itself, and costs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import experiment, parameters

from gansuite import engine
from gansuite.core.settings import Settings
from gansuite.data.spec import DataSpec
from gansuite.errors import UserError
from gansuite.methods import method_names
from gansuite.methods.base import Method
from gansuite.rehearsal import _losses, rehearse

COUNTS = {split: {"a": 4, "b": 4} for split in ("train", "test")}


def ready(name: str, size: int) -> Method:
    options = experiment(f"{name}_coats", Path("runs"), 2).method
    if name == "cyclegan":
        options = {**options, "d_layers": 3}
    spec = DataSpec("x", size, 3, ("a", "b"), COUNTS, True, ("a", "b"), "0")
    method = engine.build_method(options, spec, 0)
    method.configure(Settings(seed=0, images_per_batch=2))
    return method


@pytest.mark.slow
@pytest.mark.parametrize("name", method_names())
def test_agrees_with_real_losses(name: str) -> None:
    for size in (8, 16, 24):
        try:
            method = ready(name, size)
        except UserError:
            continue
        for pictures in (1, 2):
            before = parameters(method), torch.get_rng_state()
            try:
                rehearse(method, pictures, lambda spec: ready(name, spec.size))
                said = True
            except UserError:
                said = False
            assert torch.equal(torch.get_rng_state(), before[1])
            assert all(torch.equal(v, before[0][k]) for k, v in parameters(method).items())
            try:
                _losses(method, pictures)
                works = True
            except (RuntimeError, ValueError, UserError):
                works = False
            assert said == works


def test_says_what_would_do() -> None:
    told = "cyclegan cannot be trained at 'data.size' 16 on 1 .* with 'data.size' 32 it can"
    with pytest.raises(UserError, match=told):
        rehearse(ready("cyclegan", 16), 1, lambda spec: ready("cyclegan", spec.size))
    told = "on 1 picture.* with 2 it can: raise 'data.batch'"
    with pytest.raises(UserError, match=told):
        rehearse(ready("discogan", 16), 1, lambda spec: ready("discogan", spec.size))


def test_a_fault_of_the_losses_themselves_is_left_to_training() -> None:
    method = ready("vanilla", 16)
    method.__dict__["g_losses"] = lambda batch, step: torch.zeros(2) @ torch.zeros(3)
    rehearse(method, 2, lambda spec: method)

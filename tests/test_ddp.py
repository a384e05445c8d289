"""Two processes (gloo) against one: parameters, averages, logged losses and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ddp_run
import pytest
import torch
from helpers import difference, experiment, train
from ranks import together
from torch import distributed

from gansuite import engine
from gansuite.errors import UserError
from gansuite.processes.together import Together
from gansuite.runs import read_checkpoint, read_json, read_lines

# Training turns rounding into more: Adam divides by the root of a mean of squares, so where a
# gradient is nothing but rounding (a bias before a norm), one bit becomes a whole step; so do the
# signs of an L1 loss. In double precision all of it stays far below what a mistake would show.
DOUBLE = "trainer.precision=64-true"
QUICK = ("evaluate.learned=false", "evaluate.best_by=fd_random")
CASES: dict[str, tuple[str, ...]] = {
    "cyclegan": ("cyclegan_coats", "4", DOUBLE, "method.pool=50"),  # still filling
    "pools": ("cyclegan_coats", "12", "method.pool=4"),  # each process has its own history
    "vanilla": (
        *("vanilla_coats", "12", DOUBLE, "method.g_norm=none", "method.d_norm=none"),
        *("method.n_critic=2", "method.weights.gp=1", "method.loss=wgan"),
        *("method.fresh_fakes=2", "method.dequantise=true"),
        "ema.half_life_kimg=0.01",
    ),
    "dualgan": ("dualgan_coats", "4", DOUBLE),
    "cut": ("cut_coats", "4", DOUBLE),
    "fastcut": ("fastcut_coats", "4", DOUBLE),
    "pix2pix": ("pix2pix_coats", "4", DOUBLE),
    # references gathered from both, a network that both must have learned alike
    "adain": ("adain_coats", "4", DOUBLE, "method.network=classifier"),
    # the generator alone for two batches, then both; a history that is still filling
    "cartoongan": ("cartoongan_coats", "6", DOUBLE, "method.pool=50"),
    "stargan": ("stargan_coats", "6", DOUBLE),  # labels shuffled over both
    "joint": ("stargan_coats_joint", "6", DOUBLE),
    "stylegan": (
        *("stylegan_coats", "8", DOUBLE, "method.mbstd_group=1", "data.batch=4"),
        *("method.augment=ada", "method.weights.path=2"),
    ),
    "r3gan": ("r3gan_coats", "4", DOUBLE, "method.augment_p=0.5"),  # two batches at a time
    # batch norm or statistics of the batch: not equal to one process, but the ranks stay equal
    "batchnorm": ("vanilla_coats", "6"),
    "discogan": ("discogan_coats", "6"),
}
# features that are learned from the pictures are those of one process: one case shows it
for case in CASES.keys() - {"cyclegan", "adain"}:
    CASES[case] += QUICK
LIKE_ONE = (
    *("cyclegan", "vanilla", "dualgan", "cut", "fastcut", "pix2pix", "stargan", "joint"),
    *("stylegan", "r3gan", "adain", "cartoongan"),
)


def run_on_two(out: Path, cases: dict[str, Any], stop: int = 0) -> None:
    """``cases``, one after another in the same two processes; each also killed at batch ``stop``
    and resumed, in ``out``/stopped."""
    together(2, ddp_run.main, out, cases, stop, folder=out)


def ranks(two: Path, case: str) -> list[dict[str, Any]]:
    return [torch.load(two / f"{case}-{rank}.pt", weights_only=True) for rank in (0, 1)]


def trained(found: dict[str, Any]) -> dict[str, Any]:
    """Networks and averages without the statistics of batch norm, which are each process's own."""
    average = {f"average of {k}": v for k, v in found["averages"].get("g", {}).items()}
    both = {**found["networks"], **average}
    return {k: v for k, v in both.items() if not k.endswith(("running_mean", "running_var"))}


@pytest.mark.slow
def test_two_processes(tmp_path: Path, monkeypatch: Any) -> None:
    run_on_two(tmp_path, CASES)
    for case in CASES:
        check_ranks(case, tmp_path)
    for case in LIKE_ONE:
        check_against_one(case, tmp_path, monkeypatch)


def check_ranks(case: str, two: Path) -> None:
    """Noise is drawn apart, the players stay together."""
    a, b = ranks(two, case)
    assert (a["world"], b["world"]) == (2, 2)
    assert difference(a["initial"], b["initial"]) == ""
    assert difference(a["networks"], a["initial"]) != ""
    assert difference(trained(a), trained(b)) == ""
    if "vanilla" in CASES[case][0]:
        # G's own fakes in every second batch, where it has some
        each = 1.5 if "method.fresh_fakes=2" in CASES[case] else 1
        assert len(a["noise"]) == int(CASES[case][1]) * each
        for x, y in zip(a["noise"], b["noise"], strict=True):
            assert not set(x.flatten().tolist()) & set(y.flatten().tolist())


def check_against_one(case: str, two: Path, monkeypatch: Any) -> None:
    """The same parameters, averages, logged losses and scores as one process."""
    name, batches, *overrides = CASES[case]
    session = train(monkeypatch, experiment(name, two / f"one-{case}", int(batches), *overrides))
    both, one = two / case / name / "seed0", session.run.path
    a, b = (read_checkpoint(run)["method"] for run in (both, one))
    for part in ("networks", "averages"):
        torch.testing.assert_close(a[part], b[part], rtol=0, atol=1e-6)
    assert a["counters"] == b["counters"]
    lines = [
        [line for line in read_lines(run / "metrics.jsonl") if line["kind"] != "health"]
        for run in (both, one)
    ]
    assert len(lines[0]) == len(lines[1]) == int(batches) // 2 + -(-int(batches) // 4)
    for x, y in zip(*lines, strict=True):
        assert x.pop("kind") == y.pop("kind")
        assert x == pytest.approx(y, rel=1e-3, abs=1e-5)
    # the references have seen no training: equal to the last bit
    results = [read_json(run / "results.json") for run in (both, one)]
    assert results[0]["references"] == results[1]["references"]
    assert results[0]["protocol"] == results[1]["protocol"]


@pytest.mark.slow
def test_logged_means_outlive_a_stop_inside_an_interval(tmp_path: Path) -> None:
    """Batches 3 and 4 are logged together; each process has its own part of their sums."""
    name = "vanilla_coats"
    run_on_two(tmp_path, {"saved": (name, "6", "log.checkpoint_every_kimg=0.002", *QUICK)}, stop=3)
    whole, resumed = (out / "saved" / name / "seed0" for out in (tmp_path, tmp_path / "stopped"))
    lines = [
        [line for line in read_lines(run / "metrics.jsonl") if line["kind"] == "train"]
        for run in (whole, resumed)
    ]
    assert [line["batches"] for line in lines[0]] == [2, 4, 6]
    assert lines[0] == lines[1]
    a, b = (read_checkpoint(run)["method"] for run in (whole, resumed))
    assert difference(a, b) == ""


def test_gradients_are_averaged_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a parameter that one rank has no gradient of, of one that none has, and of one in
    another memory format."""
    sizes, world = [(2, 3, 4, 4), (5,), (3,), (2,)], 2
    given = [[torch.randn(size) for size in sizes] for _ in range(world)]
    monkeypatch.setattr(Together, "world_size", world)
    flats: list[torch.Tensor] = []

    def averaged(rank: int) -> list[torch.nn.Parameter]:
        parameters = [torch.nn.Parameter(torch.zeros(size)) for size in sizes]
        parameters[0].data = parameters[0].data.contiguous(memory_format=torch.channels_last)
        for i, (p, g) in enumerate(zip(parameters, given[rank], strict=True)):
            if i != 3 and (rank, i) != (1, 2):
                p.grad = g.to(memory_format=torch.channels_last) if i == 0 else g.clone()
        Together().average(parameters)
        return parameters

    monkeypatch.setattr(distributed, "all_reduce", lambda flat: flats.append(flat.clone()))
    for rank in range(world):
        averaged(rank)
    assert len(flats) == world  # one call of each

    monkeypatch.setattr(distributed, "all_reduce", lambda flat: flat.copy_(flats[0] + flats[1]))
    for rank in range(world):
        first, second, third, fourth = averaged(rank)
        for p, i in ((first, 0), (second, 1)):
            assert p.grad is not None
            torch.testing.assert_close(p.grad, (given[0][i] + given[1][i]) / 2)
        assert first.grad.is_contiguous(memory_format=torch.channels_last)
        assert third.grad is not None
        torch.testing.assert_close(third.grad, given[0][2] / 2)
        assert fourth.grad is None


def test_a_batch_that_cannot_be_shared(tmp_path: Path) -> None:
    e = experiment("vanilla_coats", tmp_path, 1, "data.batch=3", "trainer.devices=2")
    with pytest.raises(UserError, match=r"'data.batch' is 3 .* use a multiple of 2"):
        engine.train(e)
    assert not list(tmp_path.iterdir())

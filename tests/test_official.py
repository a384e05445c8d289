"""The comparison with the published loops is one of equals: the same networks, and the same losses
from the same weights and batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import official
import pytest
import torch
from arms import CASES, OURS
from helpers import EachBatch, fit
from published import loop

from gansuite import catalogue, engine
from gansuite.data.spec import Batch, DataSpec
from gansuite.methods.base import Method
from gansuite.rng import torch_generator


def ours(method: dict[str, Any], size: int, *domains: str) -> Method:
    counts = {split: dict.fromkeys(domains, 8) for split in ("train", "test")}
    labels = domains if len(domains) > 2 else ()
    return engine.build_method(
        method, DataSpec("toy", size, 3, domains, counts, False, labels, "0"), 0
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_both_have_the_same_networks(name: str) -> None:
    case = CASES[name]
    asked = (*OURS, f"data.size={case.size}", *case.ours)
    experiment = catalogue.load_experiment(f"{case.method}_coats", asked)
    domains = experiment.data.get("domains") or ("horse", "zebra")
    with torch.device("meta"):
        theirs = loop(case.method, size=case.size, batch=case.batch, **case.published)
        method = ours(experiment.method, case.size, *domains)
    for player in ("g", "d"):
        shapes = [
            sorted(tuple(p.shape) for p in module.parameters() if p.numel() > 1)
            for module in (getattr(theirs, player), method.player(player))
        ]
        assert shapes[0] == shapes[1]
        assert shapes[0]


EQUAL = {
    "cyclegan": {"width": 4, "blocks": 1},
    "vanilla": {"width": 4},
    "discogan": {"width": 4},
    "pix2pix": {"width": 4},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EQUAL)
def test_both_have_the_same_losses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size, n = (64 if name == "discogan" else 32), 2
    theirs = loop(name, size=size, batch=n, **EQUAL[name])
    domains = ("a",) if name == "vanilla" else ("a", "b")
    more = {"norm": "batch"} if name == "pix2pix" else {}
    method = ours({"name": name, **EQUAL[name], "d_width": 4, **more}, size, *domains)
    for player in ("g", "d"):
        own = method.player(player).parameters()
        for p, q in zip(getattr(theirs, player).parameters(), own, strict=True):
            q.data.copy_(p.data)
    generator = torch_generator(0, "equal")
    x = [torch.rand(n, 3, size, size, generator=generator) * 2 - 1 for _ in domains]
    if name == "vanilla":
        z = torch.randn(n, 100, generator=generator)
        theirs.real = x[0]
        monkeypatch.setattr(theirs, "noise", lambda: z[:, :, None, None])
        monkeypatch.setattr(method, "z", lambda *_: z)
    elif name == "cyclegan":
        theirs.real_a, theirs.real_b = x
    elif name == "pix2pix":
        theirs.a, theirs.b = x
    else:
        theirs.a, theirs.b = ((each + 1) / 2 for each in x)  # in [0, 1] there
    found: list[dict[str, float]] = []
    log = EachBatch(lambda m: found.append(m.loss_means()))
    adam = {"lr": 2e-4, "betas": [0.5, 0.999]}
    fit(method, 3, callbacks=[log], optim=adam, given=[Batch(tuple(x))] * 3)
    for i, mine in enumerate(found):
        expected = {k: float(v) for k, v in theirs.step().items()}
        got = {k: mine[f"loss/{k}/total"] for k in expected if f"loss/{k}/total" in mine}
        assert got == pytest.approx({k: expected[k] for k in got}, rel=1e-5 if i == 0 else 1e-3)
        assert got


def test_the_table_says_what_was_measured(tmp_path: Path) -> None:
    """The ratio is within a round, of the median round; the share is of the ceiling's best."""

    def row(published: float, ours: float, conv: float) -> dict[str, dict[str, float]]:
        sides = {"published": published, "fp32": ours, "bf16": ours / 2}
        sides |= {"conv fp32": conv, "conv bf16": conv / 2}
        return {side: {"one": ms, "all": 2 * ms} for side, ms in sides.items()}

    facts = {"flops": 5e9, "g": 3_000_000, "d": 2_000_000}
    found = {
        "facts": dict.fromkeys(official.ARMS, facts),
        "peak_mb": dict.fromkeys(official.CEILING, 900.0),
        "times": {"as it is": [row(300, 100, 50), row(200, 100, 80), row(400, 100, 60)]},
    }
    found["times"]["kept"] = [row(150, 100, 50)]
    machine = dict.fromkeys(("command", "name", "torch", "cores", "load", "rounds"), "x")
    text = official.table({"cyclegan_64": found}, machine | {"device": "cpu"})
    assert "| cyclegan 64 | 4 | 300 | 100 | **3.00** (2.00-4.00) | **6.00** (4.00-8.00) |" in text
    assert "| cyclegan 64 | 4 | 150 | 100 | **1.50** (1.50-1.50) | **3.00** (3.00-3.00) |" in text
    assert "| cyclegan 64 | 5.000 | 5.00 / 5.00 / 5.00 | 20 / 50 / 50 | 900 / 900 / 900 |" in text
    assert "conv fp32 100, conv bf16 200" in text
    official.plot({"cyclegan_64": found}, "cpu", tmp_path / "official.png")
    assert (tmp_path / "official.png").stat().st_size > 1000
    assert json.dumps(found)

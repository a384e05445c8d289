"""Methods under an ordinary Trainer: the README's example, exact resume, loaders of one's own."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers import difference, parameters
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection

import gansuite
from gansuite import (
    CycleGAN,
    DataModule,
    Ema,
    Evaluate,
    Evaluator,
    Settings,
    StarGAN,
    UserError,
    VanillaGAN,
)
from gansuite.callbacks.scores import METRICS
from gansuite.data.spec import Batch
from gansuite.evaluation import Comparison, Protocol, build_extractor, to_uint8
from gansuite.evaluation.metrics import Diversity, FrechetDistance
from gansuite.methods import method_class, method_names

ROOT = Path(__file__).resolve().parents[1]
TINY: dict[str, Any] = {"size": 32, "batch": 2, "train": 12, "test": 5}
SMALL: dict[str, Any] = {"width": 2, "d_width": 2, "d_layers": 1}


def trainer(here: Path, steps: int, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    return L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        default_root_dir=here,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **{"logger": False, "log_every_n_steps": 2, "limit_val_batches": 0, **options},
    )


def cyclegan(data: DataModule, **options: Any) -> CycleGAN:
    torch.manual_seed(0)
    method = CycleGAN(data.spec, blocks=1, pool=2, **SMALL, **options)
    method.configure(Settings(seed=5, ema=Ema(half_life_kimg=0.004)))
    return method


def readme() -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (found,) = [block for block in blocks if "L.Trainer" in block]
    return found


def test_the_readmes_example(here: Path, monkeypatch: Any) -> None:
    """As it stands, but for its sizes."""
    text = readme()
    for pattern, small in (
        (r"size=64, batch=4", "size=32, batch=2, train=12, test=4"),
        (r"max_steps=1000", "max_steps=4, accelerator='cpu'"),
        (r"val_check_interval=500", "val_check_interval=2"),
        (r"every_n_train_steps=500", "every_n_train_steps=2"),
        (r"width=32", "width=2, d_width=2, blocks=1"),
    ):
        text, count = re.subn(pattern, small, text)
        assert count, pattern
    names: dict[str, Any] = {}
    exec(text, names)
    log = next(here.glob("logs/**/metrics.csv"))
    with log.open() as file:
        columns = set(next(csv.reader(file)))
    assert {"a2b/fd_random", "b2a/diversity"} <= columns
    predicted = names["translated"]
    assert len(predicted) == 2
    assert predicted[0]["zebra"].shape == predicted[0]["horse"].shape == (2, 3, 32, 32)
    assert names["again"].batches == 4


def test_it_says_nothing_and_logs_its_losses(here: Path) -> None:
    data = DataModule.of("coats", method=CycleGAN, **TINY)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logger = CSVLogger(here)
        run = trainer(here, 4, logger=logger)
        run.fit(cyclegan(data), data)
    told = [str(w.message) for w in caught]
    assert not [t for t in told if "overridden" in t or "transfer_batch" in t], told
    with Path(logger.log_dir, "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 3]  # every second batch
    assert all(float(row["loss/g/cycle"]) > 0 for row in rows)
    assert [float(row["lr/d"]) for row in rows] == pytest.approx([2e-4, 2e-4])
    assert run.global_step == 4  # batches, not updates
    assert run.lightning_module.update_counts == {"g": 4, "d": 4}


def saved(here: Path, steps: int, start: str | None = None) -> tuple[CycleGAN, Path]:
    data = DataModule.of("coats", method=CycleGAN, **TINY)
    keep = ModelCheckpoint(here, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    method = cyclegan(data)
    trainer(here, steps, keep).fit(method, data, ckpt_path=start)
    return method, here / f"step={steps}.ckpt"


@pytest.mark.slow
def test_lightnings_checkpoints_resume_exactly(here: Path) -> None:
    """Pool, averages, order of the pictures, noise, sums of the log interval and all."""
    whole, _ = saved(here / "whole", 5)
    _, file = saved(here / "part", 3)
    content = torch.load(file, weights_only=True)  # tensors and plain containers
    assert len(content["gansuite"]["rank_state"][0]["pool_A"]["images"]) == 2
    again, _ = saved(here / "part", 5, str(file))
    assert difference(parameters(again), parameters(whole)) == ""
    ours, theirs = (m.averages.modules["g"].state_dict() for m in (again, whole))
    assert difference(ours, theirs) == ""
    assert json.dumps(again._own_state()["ledger"], default=Tensor.tolist) == json.dumps(
        whole._own_state()["ledger"], default=Tensor.tolist
    )
    loaded = CycleGAN.load_from_checkpoint(file)
    assert (loaded.batches, loaded.hparams["blocks"]) == (3, 1)
    other, _ = saved(here / "other", 3)
    assert difference(parameters(loaded), parameters(other)) == ""


def test_metrics_of_ones_own_at_each_validation(here: Path) -> None:
    data = DataModule.of("coats", method=VanillaGAN, **TINY)
    assert [len(b.images[0]) for b in data.val_dataloader()] == [2, 2, 2, 2, 2]  # both domains

    def means(x: Tensor) -> Tensor:
        return x.double().mean((2, 3))

    def make() -> MetricCollection:
        look: Any = torch.nn.Module()
        look.forward = means
        return MetricCollection(
            {"fd": FrechetDistance(look), "spread": Diversity(look)}, compute_groups=False
        )

    method = VanillaGAN(data.spec, width=2, d_width=2, z_dim=4)
    run = trainer(here, 2, Evaluate(make), val_check_interval=1, limit_val_batches=1.0)
    run.fit(method, data)
    first = {k: float(v) for k, v in run.callback_metrics.items() if k.startswith("gen/")}
    assert first.keys() == {"gen/fd", "gen/spread"}
    (again,) = run.validate(method, data, verbose=False)
    assert {k: again[k] for k in first} == pytest.approx(first)
    batches = [method.validation_step(b, i)["gen"] for i, b in enumerate(data.val_dataloader())]
    metric = make()["fd"]
    for side in ("fake", "real"):
        for sides in batches:
            seen = sides[side].clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
            metric.update(seen, real=side == "real")
    assert float(metric.compute()) == pytest.approx(first["gen/fd"], rel=1e-5)


def test_an_evaluator_is_scored_as_it_scores_elsewhere(here: Path) -> None:
    data = DataModule.of("coats", method=VanillaGAN, **TINY)
    extractor = build_extractor()
    metrics = ("fd_random", "kd_random", "coverage", "swd")
    evaluator = Evaluator(Protocol.of(extractor, size=32, metrics=metrics), extractor)
    method = VanillaGAN(data.spec, width=2, d_width=2, z_dim=4)
    run = trainer(here, 1, Evaluate(evaluator), limit_val_batches=1.0)
    (found,) = run.validate(method, data, verbose=False)
    batches = [method.validation_step(b, i)["gen"] for i, b in enumerate(data.val_dataloader())]
    real, fake = (to_uint8(torch.cat([b[side] for b in batches])) for side in ("real", "fake"))
    expected = evaluator.score(Comparison("gen", real, fake))
    assert found == pytest.approx({f"gen/{m}": v for m, v in expected.items()}, rel=1e-5)
    (default,) = trainer(here, 1, Evaluate(), limit_val_batches=1.0).validate(
        method, data, verbose=False
    )
    assert default["gen/fd_random"] == pytest.approx(expected["fd_random"], rel=1e-5)
    assert default.keys() == {f"gen/{m}" for m in METRICS}


@pytest.mark.slow
def test_loaders_of_ones_own(here: Path) -> None:
    spec = DataModule.of("coats", method=CycleGAN, **TINY).spec
    pictures = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    a, b = pictures[:2], pictures[2:]
    made: Any = {
        "tuple": (a, b),
        "dict": {"zebra": b, "horse": a},
        "AB": {"A": a, "B": b},
        "float": [a / 127.5 - 1, b / 127.5 - 1],
    }

    def fitted(batch: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        method = CycleGAN(spec, blocks=1, pool=0, **SMALL)
        trainer(here, 2).fit(method, DataLoader([batch, batch], batch_size=None))
        assert method.images_seen == 8
        return parameters(method)

    expected = fitted(Batch((a, b)))
    for kind, batch in made.items():
        assert difference(fitted(batch), expected) == "", kind


def test_class_numbers_become_labels(here: Path) -> None:
    spec = DataModule.of(
        "coats", method=StarGAN, domains=["horse", "zebra", "giraffe"], **TINY
    ).spec
    batch = Batch.of((torch.zeros(2, 3, 32, 32), torch.tensor([2, 0])), spec.domains)
    assert batch.labels is not None
    assert batch.labels.tolist() == [[0, 0, 1], [1, 0, 0]]
    for wrong in (3, {"x": 1}, [torch.zeros(3, 3)], ["a", "b"], {"A": torch.zeros(1), "B": 2}):
        with pytest.raises(UserError, match=r"^A batch"):
            Batch.of(wrong, spec.domains)


def test_a_weight_is_given_alone_and_a_wrong_one_is_named() -> None:
    spec = DataModule.of("coats", method=CycleGAN, **TINY).spec
    method = CycleGAN(spec, blocks=1, weights={"identity": 0.0}, **SMALL)
    assert method.weights == {"gan": 1, "cycle": 10, "identity": 0}
    with pytest.raises(UserError, match=r"'method.weights.cyle' .*did you mean 'cycle'"):
        CycleGAN(spec, blocks=1, weights={"cyle": 1.0}, **SMALL)


def test_data_by_name_or_folder(here: Path) -> None:
    for domains, view in (
        (["horse"], "single"),
        (None, "unpaired"),
        (["horse", "zebra", "giraffe"], "labelled"),
    ):
        more = {} if domains is None else {"domains": domains}
        assert DataModule.of("coats", **TINY, **more).needs.view == view
    late = DataModule.of("nowhere", size=16, batch=1, method=CycleGAN)  # nothing is read yet
    with pytest.raises(UserError, match="nowhere"):
        late.prepare_data()


def test_every_public_name_is_there() -> None:
    for name in gansuite.__all__:
        assert getattr(gansuite, name) is not None
    assert {method_class(name).__name__ for name in method_names()} <= set(gansuite.__all__)
    with pytest.raises(AttributeError, match="no_such"):
        gansuite.no_such  # noqa: B018
    code = "import gansuite, sys; print(sorted({'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


TWO = """
import lightning as L, torch, gansuite, sys
from lightning.pytorch.callbacks import ModelCheckpoint
data = gansuite.DataModule.of("coats", size=32, batch=2, train=12, test=4, method=gansuite.CycleGAN)
torch.manual_seed(0)
m = gansuite.CycleGAN(data.spec, blocks=1, pool=0, width=2, d_width=2, d_layers=1)
sgd = gansuite.Optim(kind="sgd", lr=1e-3)
m.configure(gansuite.Settings(seed=5, optim={"g": sgd, "d": sgd}))
t = L.Trainer(max_steps=4, accelerator="cpu", devices=int(sys.argv[1]), precision="64-true",
    strategy="ddp_find_unused_parameters_true" if sys.argv[1] == "2" else "auto", logger=False,
    enable_progress_bar=False, enable_model_summary=False, val_check_interval=4,
    default_root_dir=sys.argv[2],
    callbacks=[gansuite.Evaluate(), ModelCheckpoint(sys.argv[2], filename="end")])
t.fit(m, data)
if t.global_rank == 0:
    scores = {k: float(v) for k, v in t.callback_metrics.items()}
    torch.save({"state": m.state_dict(), "scores": scores}, sys.argv[2] + "/found.pt")
"""


@pytest.mark.slow
def test_two_processes_equal_one(here: Path) -> None:
    (here / "two.py").write_text(TWO)
    found = []
    for devices in ("1", "2"):
        out = here / devices
        out.mkdir()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "two.py", devices, str(out)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(torch.load(out / "found.pt"))
    one, two = found
    for key, value in one["state"].items():
        torch.testing.assert_close(two["state"][key], value, rtol=0, atol=1e-9)
    assert two["scores"] == pytest.approx(one["scores"], rel=1e-3, abs=1e-3)
    assert {"a2b/fd_random", "b2a/fd_random"} <= one["scores"].keys()

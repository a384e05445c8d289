"""What every method promises, for all there are: a method added as a file and an experiment
``<method>_coats`` is tested without a change here."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers import difference, experiment
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gansuite import config as configuration
from gansuite import engine
from gansuite.callbacks.session import Session
from gansuite.methods import method_names
from gansuite.methods.base import Method
from gansuite.rng import torch_generator
from gansuite.runs import Run, read_checkpoint, read_json, read_lines
from gansuite.tools.sample import sample
from gansuite.tools.translate import translate

METHODS = method_names()
EXPERIMENTS = sorted(configuration.experiment_files())
BATCHES = 6  # StarGAN's generator has its first turn in the fifth


def test_nothing_is_left_out() -> None:
    assert {"cyclegan", "discogan", "dualgan", "stargan", "stylegan", "vanilla"} <= set(METHODS)
    assert len(EXPERIMENTS) >= 20
    assert {f"{name}_coats" for name in METHODS} <= set(EXPERIMENTS)


class Doubles(TorchDispatchMode):
    """Which operations gave a float64, that some devices (MPS) do not have."""

    found: ClassVar[set[str]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = (out,) if isinstance(out, Tensor) else tree_leaves(out)
        if any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in made):
            self.found.add(str(func))
        return out


@pytest.fixture(scope="module", params=METHODS)
def session(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A tiny run of each method, to its end."""
    out = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        real = Method.training_step

        def watched(self: Method, *args: Any) -> Any:
            with Doubles():
                return real(self, *args)

        Doubles.found.clear()
        patch.setattr(Method, "training_step", watched)
        return engine.train(tiny(request.param, out))


def test_it_trains_where_there_are_no_doubles(session: Session) -> None:
    assert Doubles.found == set()
    with Doubles():
        torch.zeros(1).double()
    assert Doubles.found.pop()


def tiny(method: str, out: Path, *more: str) -> Any:
    """Saved every 4 batches, scored at the end."""
    rare = ("ema.half_life_kimg=0.004", "ema.rampup=null", "evaluate.every_kimg=null")
    e = experiment(f"{method}_coats", out, BATCHES, *rare, *more)
    images = engine.build_data(e).images_per_batch
    return e.model_copy(
        update={"log": e.log.model_copy(update={"checkpoint_every_kimg": 4 * images / 1000})}
    )


def plain_only(value: Any, where: str = "") -> Iterator[str]:
    """Every key of a checkpoint; fails on anything but tensors and plain containers."""
    if isinstance(value, dict):
        for key, inner in value.items():
            assert type(key) in (str, int), where
            yield str(key)
            yield from plain_only(inner, f"{where}/{key}")
    elif type(value) in (list, tuple):
        for inner in value:
            yield from plain_only(inner, where)
    else:
        assert type(value) in (Tensor, str, int, float, bool, type(None)), f"{where}: {value!r}"


def made(method: Method) -> Tensor:
    """Four pictures from a generator, or in all from a translator to its first two targets."""
    with torch.no_grad():
        if method.task == "generate":
            return method.sample(4, torch_generator(0, "test"))
        size, channels = method.spec.size, method.spec.channels
        n = 4 // len(method.targets[:2])
        x = torch.rand(n, channels, size, size, generator=torch_generator(0, "test")) * 2 - 1
        return torch.cat([method.translate(x, to) for to in method.targets[:2]])


def test_it_trains_as_declared(session: Session) -> None:
    method = session.method
    assert method.batches == BATCHES
    assert (type(method).__doc__ or "").strip()
    records = [r for r in read_lines(session.run.metrics) if r["kind"] == "train"]
    logged = {tuple(key.split("/")[1:3]) for r in records for key in r if key.startswith("loss/")}
    stated = {(player, term) for player, terms in method.loss_terms.items() for term in terms}
    assert stated | {(player, "total") for player in method.players} >= logged
    assert {t for _, t in logged} - {"total"} >= {t for t, w in method.weights.items() if w}
    assert all(count > 0 for count in method.update_counts.values())
    assert all(count > 0 for count in method.parameter_counts().values())
    assert set(method.averaged) <= set(method.players)
    held = [id(p) for name in method.players for p in method.player(name).parameters()]
    assert len(set(held)) == len(held)
    counted = sum(method.parameter_counts().values())
    assert counted == sum(p.numel() for p in method.parameters())
    assert {id(p) for p in method.parameters()} == set(held)  # nothing trains unseen
    kinds = [record["kind"] for record in read_lines(session.run.metrics)]
    assert kinds.count("train") == BATCHES / 2
    assert kinds.count("eval") == 1
    for record in read_lines(session.run.metrics):
        numbers = [v for k, v in record.items() if k != "kind"]
        assert all(math.isfinite(v) for v in numbers)


def test_its_results_are_complete(session: Session) -> None:
    results = read_json(session.run.results)
    generates = session.method.task == "generate"
    domains, targets = session.method.spec.domains, session.method.targets
    names = {f"to_{domain}" for domain in targets}
    if len(domains) == 2:
        names = {{domains[1]: "a2b", domains[0]: "b2a"}[target] for target in targets}
    rows = (results["final"], results["best"], *results["references"].values())
    for row in rows:
        assert row.keys() == ({"gen"} if generates else names)
        for scores in row.values():
            assert {"swd", "fd_random", "kd_random", "coverage", "diversity"} <= scores.keys()
            assert all(math.isfinite(v) for v in scores.values())
    if session.method.period <= BATCHES:
        assert results["cost"]["flops_per_image"] > 0
    assert results["cost"]["parameters"] == session.method.parameter_counts()
    assert (session.run.path / "samples" / "final.jpg").is_file()


@pytest.mark.parametrize("name", ["last", "best"])
def test_its_checkpoint_is_all_that_is_needed(name: str, session: Session) -> None:
    path = session.run.path / "checkpoints" / f"{name}.ckpt"
    content = read_checkpoint(path)  # loads with weights_only=True
    assert "networks" in set(plain_only(content))
    keys = " ".join(plain_only(content["method"]))
    assert not [word for word in ("extractor", "vgg", "_orig_mod", "module.") if word in keys]
    alone = engine.load_method(path, "raw")
    assert not alone.training
    pictures = made(alone)
    assert pictures.shape == (4, alone.spec.channels, 32, 32)
    assert pictures.abs().max() <= 1
    if name == "last":
        with session.method.evaluating("raw"):
            assert torch.equal(pictures, made(session.method))
        with session.method.evaluating("ema"):
            assert torch.equal(made(engine.load_method(path)), made(session.method))
        assert not torch.equal(made(engine.load_method(path)), pictures)


def test_it_can_be_used(session: Session, tmp_path: Path) -> None:
    method = engine.load_method(session.run.path)
    if method.task == "generate":
        assert len(sample(method, 3, tmp_path / "out")) == 4  # and the grid
        return
    source = tmp_path / "in.png"
    Image.fromarray(np.full((333, 250, 3), 90, np.uint8)).save(source)
    (written,) = translate(method, str(source), tmp_path / "out", to=method.targets[0])
    with Image.open(written) as image:
        assert image.size == (250, 333)


def test_it_resumes_bit_for_bit(session: Session, tmp_path: Path) -> None:
    """As if it had been killed before it wrote its last checkpoint."""
    e = session.experiment.model_copy(update={"out": str(tmp_path)})
    cut = Run(e.run_dir)
    shutil.copytree(session.run.path, cut.path)
    cut.results.unlink()
    os.replace(cut.previous, cut.last)
    assert read_checkpoint(cut.last)["method"]["counters"]["batches"] == 4
    states = []
    for run in (engine.train(e).run, session.run):
        content = read_checkpoint(run.last)
        states.append([*(content[k] for k in ("method", "rank_state")), run.metrics.read_bytes()])
    assert difference(*states) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_it_trains_in_other_precisions(
    precision: str, name: str, tmp_path: Path, monkeypatch: Any
) -> None:
    dtypes = set()
    record = Method.record

    def spy(self: Method, key: str, value: Tensor) -> None:
        dtypes.add((key, value.dtype))
        record(self, key, value)

    monkeypatch.setattr(Method, "record", spy)
    e = tiny(name, tmp_path, f"trainer.precision={precision}")
    method = engine.train(e).method
    wanted = torch.float64 if precision == "64-true" else torch.float32
    assert {dtype for _, dtype in dtypes} == {wanted}, dtypes
    method.assert_finite()
    assert {p.dtype for p in method.parameters()} == {wanted}


_ran: set[str] = set()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*EXPERIMENTS} - {f"{name}_coats" for name in METHODS}))
def test_every_experiment_runs(name: str, tmp_path: Path) -> None:
    """That of each method on coats is trained above."""
    e = experiment(name, tmp_path, 2)
    alike = e.model_copy(update={"name": "", "out": ""}).yaml()
    if alike in _ran:  # they differ in nothing but the pictures, which here are coats
        return
    session = engine.train(e)
    _ran.add(alike)
    assert session.method.batches == 2
    assert session.run.results.is_file()


TOY = '''
"""A method of its own file."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gansuite.data.spec import Batch, DataSpec, Needs
from gansuite.losses.precision import full
from gansuite.methods.base import Method, Step, terms


class Toy(Method):
    """One layer against another."""

    needs = Needs(view="single")
    loss_terms = {"g": ("gan",), "d": ("gan",)}

    def __init__(
        self, spec: DataSpec, *, width: int = 8, weights: Mapping[str, float] = terms(gan=1.0)
    ) -> None:
        super().__init__(spec, weights)
        self.shape = (spec.channels, spec.size, spec.size)
        pixels = spec.channels * spec.size**2
        self.g = nn.Sequential(nn.Linear(width, pixels), nn.Tanh(), nn.Unflatten(1, self.shape))
        self.d = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 1))

    def fake(self, n: int, step: Step) -> Tensor:
        return step.fake("fake", lambda: self.g(step.randn(n, self.g[0].in_features)))

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return {"gan": -full(self.d(self.fake(len(batch.images[0]), step))).mean()}

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        (real,) = batch.images
        fake = self.fake(len(real), step)
        return {"gan": full(self.d(fake) - self.d(real)).mean()}

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        z = torch.randn(n, self.g[0].in_features, generator=generator)
        return self.g(z.to(self.device, self.dtype))
'''


@pytest.mark.slow
def test_a_method_is_one_file_and_one_experiment(tmp_path: Path) -> None:
    here = Path(__file__).parents[1]
    for part in ("gansuite", "experiments", "tests", "pyproject.toml"):
        source, target = here / part, tmp_path / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    (tmp_path / "gansuite" / "methods" / "toy.py").write_text(TOY)
    (tmp_path / "experiments" / "toy_coats.yaml").write_text(
        "# Toy on coats.   make exp NAME=toy_coats\nextends: _base/coats\nmethod: {name: toy}\n"
    )

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True
        )

    listed = run("gansuite", "list").stdout
    assert "One layer against another" in listed
    assert "toy_coats" in listed
    wrong = run("gansuite", "exp", "toy_coats", "method.widht=3")
    assert wrong.returncode == 2
    assert "did you mean 'method.width'?" in wrong.stderr
    wrong = run("gansuite", "exp", "toy_coats", "method.weights.cycle=3")
    assert wrong.returncode == 2
    assert "'method.weights.cycle' is a weight for no term of toy" in wrong.stderr
    tests = run("pytest", "-n0", "-q", "-k", "toy", "tests/test_contract.py")
    assert tests.returncode == 0, tests.stdout + tests.stderr
    (told,) = re.findall(r"^(.*) in [\d.]+s.*$", tests.stdout, re.M)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (\w+)", told)}
    assert counts.keys() - {"warning", "warnings"} == {"passed", "deselected"}, told
    # two tests have two cases
    contract = len(re.findall("^def test_it", Path(__file__).read_text(), re.M)) + 2
    assert counts["passed"] == contract

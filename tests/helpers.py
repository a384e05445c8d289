"""A toy method, a bare loop around any method, and tiny runs of real experiments."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from gansuite import catalogue, engine
from gansuite import config as configuration
from gansuite.callbacks.session import Session
from gansuite.config import Budget, Experiment, Optim
from gansuite.core.settings import Settings
from gansuite.data.spec import Batch, DataSpec
from gansuite.methods import method_class
from gansuite.methods.base import Method, Step, terms
from gansuite.runs import write_checkpoint

SIZE = 4
# options of methods that make them small, where they have them
SMALL = {
    "width": 4,
    "d_width": 4,
    "d_layers": 3,
    "blocks": 1,
    "levels": 3,
    "references": 3,
    "init": 2,
    "network_width": 4,
    "z_dim": 8,
    "w_dim": 8,
    "base": 64,
    "max_channels": 8,
    "mapping_layers": 1,
    "mbstd_group": 2,
    "curriculum": 2,
    "patches": 16,
    "exclusive": [],  # of attributes that coats do not have
}


def toy_spec() -> DataSpec:
    counts = {"train": {"x": 64}, "test": {"x": 8}}
    return DataSpec("toy", SIZE, 3, ("x",), counts, False, (), "0")


class Toy(Method):
    """Linear networks. ``turns`` and ``weights`` as the test wants them; ``log`` is what went on;
    ``after`` has the parameters after each update."""

    def __init__(
        self,
        turns: Sequence[Sequence[str]] = (("g", "d"),),
        weights: Mapping[str, float] = terms(gan=1.0),
        norm: bool = False,
    ) -> None:
        super().__init__(toy_spec(), weights)
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Linear(4, 3 * SIZE * SIZE), nn.Tanh()]
        self.g = nn.Sequential(*([nn.BatchNorm1d(4)] if norm else []), *layers)
        self.d = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 1))
        self.alternation = turns
        self.log_: list[Any] = []
        self.after: list[dict[str, Tensor]] = []
        self.forwards = 0

    def fake(self, batch: Batch, step: Step) -> Tensor:
        def make() -> Tensor:
            self.forwards += 1
            return self.g(step.randn(len(batch.images[0]), 4)).unflatten(1, (3, SIZE, SIZE))

        return step.fake("fake", make)

    def g_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        fake = self.fake(batch, step)
        self.log_.append(("g", fake.requires_grad))
        assert not any(p.requires_grad for p in self.d.parameters())
        return {"gan": (self.d(fake).float() - 1).square().mean()}

    def d_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        fake = self.fake(batch, step)
        self.log_.append(("d", fake.requires_grad))
        assert not any(p.requires_grad for p in self.g.parameters())
        real = self.d(batch.images[0]).float()
        return {"gan": (real - 1).square().mean() + self.d(fake).float().square().mean()}

    def after_update(self, update: str, step: Step) -> None:
        self.after.append(parameters(self))

    def order(self) -> str:
        return "".join(name for name, _ in self.log_)


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


class Pictures(Dataset[Batch]):
    """Batch i of ``size`` random uint8 pictures, for each of ``domains``."""

    def __init__(self, batches: int, batch: int) -> None:
        self.batches, self.batch = batches, batch

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Batch:
        if index >= self.batches:
            raise IndexError
        g = torch.Generator().manual_seed(index)
        shape = (self.batch, 3, SIZE, SIZE)
        return Batch((torch.randint(256, shape, generator=g, dtype=torch.uint8),))


def fit(
    method: Method,
    batches: int,
    *,
    batch: int = 4,
    precision: Any = "32-true",
    callbacks: Sequence[Callback] = (),
    optim: Mapping[str, Any] | None = None,
    given: Sequence[Batch] = (),
    accelerator: str = "cpu",
    **settings: Any,
) -> Method:
    """Train ``method`` for ``batches`` (of pictures of 4 pixels, or those ``given``) with nothing
    but a Trainer around it."""
    chosen = {name: Optim(**(optim or {"lr": 1e-2})) for name in method.players}
    settings.setdefault("budget", Budget(kimg=batches * batch / 1000))
    method.configure(Settings(seed=3, images_per_batch=batch, optim=chosen, **settings))
    trainer = Trainer(
        accelerator=accelerator,
        max_epochs=1,
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    data: Any = list(given) or Pictures(batches, batch)
    trainer.fit(method, DataLoader(data, batch_size=None))
    return method


class EachBatch(Callback):
    """Calls ``do(method)`` after every batch."""

    def __init__(self, do: Callable[[Any], None]) -> None:
        self.do = do

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.do(pl_module)


def experiment(name: str, out: Path, batches: int, *overrides: str) -> Experiment:
    """The experiment ``name`` made tiny: batches of 2 little coats per domain, logged every 2,
    saved and scored every 4."""
    return _tiny(name, batches, overrides).model_copy(update={"out": str(out)})


@functools.cache
def _tiny(name: str, batches: int, overrides: tuple[str, ...]) -> Experiment:
    plain = catalogue.load_experiment(name).plain()
    method, given = plain["method"], plain["data"]
    method |= {k: v for k, v in SMALL.items() if k in method}
    domains = given["domains"] if given["name"] == "coats" else ["horse", "zebra"]
    data = {"name": "coats", "size": 32, "domains": domains, "train": 16, "test": 8, "batch": 2}
    if given["name"] == "joint":
        few = {"train": 16, "test": 8}
        sets = {key: {**options, **few} for key, options in given["sets"].items()}
        data = {"name": "joint", "sets": sets, "size": 32, "batch": 2}
    needs = method_class(method["name"]).needs
    if needs.view == "paired":
        data["paired"] = True
    step = 0.002 * needs.batches * (2 if needs.view in ("unpaired", "paired") else 1)
    tiny = {
        "name": name,
        "method": method,
        "data": data,
        "optim": plain["optim"],
        "ema": plain["ema"],
        "budget": {**plain["budget"], "kimg": step * batches, "seconds": None},
        "log": {"every_kimg": 2 * step, "wandb": "disabled"},
        "evaluate": {"every_kimg": 4 * step, "pictures": 8, "samples": 2},
        "trainer": {"accelerator": "cpu"},
    }
    return configuration.resolve(
        [(name, tiny), *configuration.read_overrides(overrides)], catalogue.schemas()
    )


def untrained(name: str, folder: Path, *overrides: str) -> Path:
    """A checkpoint of an experiment made tiny, with averages where it keeps them."""
    e = experiment(name, folder, 1, *overrides)
    data = engine.build_data(e)
    method = engine.ready_method(e, data)
    with torch.no_grad():  # so that the averages are others
        averages = {n: method.network(n).state_dict() for n in method.averaged}
        method.averages.load_state_dict(
            {"weights": averages, "updated_at": {}}, {n: method.network(n) for n in averages}
        )
        for parameter in method.parameters():
            parameter.add_(0.1)
    counts: dict[str, Any] = {"update_counts": {}, "player_batches": {}, "rollbacks": 0}
    state = {
        "networks": method.state_dict(),
        "optimizers": {},
        "averages": method.averages.state_dict(),
        "counters": {"batches": 0, "images_seen": 0, **counts},
        "progress": 0.0,
    }
    notes = {"protocol": {"id": "p"}, "references": {}, "final": {}, "best": {}}
    content = {"experiment": e.plain(), "data": data.spec.to_dict(), "method": state}
    write_checkpoint(folder / f"{name}.ckpt", {**content, "notes": notes})
    return folder / f"{name}.ckpt"


def command(experiment: Experiment, folder: Path) -> list[str]:
    """What runs an experiment in a process of its own."""
    file = folder / f"{experiment.name}.yaml"
    file.write_text(experiment.yaml())
    return [sys.executable, "-m", "gansuite", "exp", str(file)]


def train(monkeypatch: Any, experiment: Experiment, *callbacks: Callback) -> Session:
    """`engine.train` with further callbacks, which come last."""
    real = engine.make_trainer
    with monkeypatch.context() as patch:
        patch.setattr(engine, "make_trainer", lambda e, c: real(e, [*c, *callbacks]))
        return engine.train(experiment)


def difference(a: Any, b: Any, where: str = "") -> str:
    """Where two nests of containers and tensors differ by a bit; "" when nowhere."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
        return "" if same else f"{where} (tensor)"
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            return f"{where}: {sorted(map(str, a.keys() ^ b.keys()))}"
        return next((d for k in a if (d := difference(a[k], b[k], f"{where}/{k}"))), "")
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return next((d for i, (x, y) in pairs if (d := difference(x, y, f"{where}/{i}"))), "")
    return "" if type(a) is type(b) and a == b else f"{where}: {a!r} != {b!r}"

"""Experiment files: precedence, strictness, and that what is printed is what runs."""

from __future__ import annotations

import copy
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pytest

from gansuite import config, engine
from gansuite.config import Experiment, Schemas, difference, load
from gansuite.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


class Toy:
    def __init__(
        self,
        spec: Any,
        *,
        width: int = 8,
        share: float = 0.5,
        mode: Literal["slow", "quick"] = "slow",
        weights: Mapping[str, float] = MappingProxyType({"gan": 1.0, "cycle": 10.0}),
    ) -> None: ...


class Files:
    def __init__(self, *, root: str, sides: list[str] = ["a", "b"]) -> None: ...  # noqa: B006


SCHEMAS = Schemas(["toy"], lambda name: Toy, ["files"], lambda name: Files)
TEXT = "method: {name: toy}\ndata: {name: files, root: x}\nbudget: {kimg: 1}\n"


@pytest.fixture
def write(here: Path) -> Any:
    def write(text: str = TEXT, name: str = "mine") -> str:
        path = here / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path.name

    return write


def read(name: str, *overrides: str) -> Experiment:
    return load(name, overrides, SCHEMAS)


def refusal(name: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        read(name, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_precedence(write: Any) -> None:
    write("seed: 1\nout: deep\nlog: {tags: [deep, er]}\noptim: {g: {lr: 1}}", "_base/deep")
    write("extends: deep\nseed: 2\nlog: {project: p}\nevaluate: {batch: 5}", "_base/low")
    name = write(TEXT + "extends: _base/low\nseed: 3\nevaluate: {pictures: 9}\n")
    e = read(name, "seed=4", "evaluate.pictures=10", "seed=5", "log.tags=[x]")
    assert (e.name, e.seed, e.out) == ("mine", 5, "deep")  # the last of two overrides
    assert e.optim["g"].lr == 1
    assert e.log.project == "p"
    assert (e.evaluate.batch, e.evaluate.pictures) == (5, 10)
    assert list(e.log.tags) == ["x"]  # a list is replaced, not appended to
    assert read(name).log.tags == ["deep", "er"]
    assert e.run_dir == Path("deep/mine/seed5")


def test_overrides_reach_interpolations(write: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("WHERE", "/pictures")
    name = write(
        "method: {name: toy, width: '${data.size}'}\n"
        "data: {name: files, size: 16, load_size: '${data.size}', root: '${oc.env:WHERE}/a'}\n"
        "optim: {g: {lr: 2e-4}, d: {lr: '${optim.g.lr}'}}\nbudget: {kimg: 1}\n"
    )
    e = read(name, "data.size=128", "optim.g.lr=1e-3")
    assert (e.method["width"], e.data["load_size"], e.data["root"]) == (128, 128, "/pictures/a")
    assert e.optim["d"].lr == 1e-3
    assert read(name).optim["d"].lr == 2e-4
    monkeypatch.delenv("WHERE")
    assert "'data.root'" in refusal(name)
    assert "Environment variable 'WHERE' not found" in refusal(name)


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001"])
def test_scientific_numbers_are_floats(write: Any, text: str) -> None:
    assert read(write(), f"optim.g.lr={text}").optim["g"].lr == 1e-4
    assert read(write(f"{TEXT}optim: {{g: {{lr: {text}}}}}\n")).optim["g"].lr == 1e-4
    assert read(write(), "method.share=1").method["share"] == 1.0


def test_nothing_can_be_changed(write: Any) -> None:
    e = read(write(), "optim.g.lr=1")
    for change in (
        lambda: setattr(e, "seed", 1),
        lambda: setattr(e.budget, "kimg", 2.0),
        lambda: setattr(e.optim["g"], "lr", 2.0),
        lambda: e.data.__setitem__("size", 3),
        lambda: e.method["weights"].update(gan=0),
        lambda: e.optim.pop("g"),
    ):
        with pytest.raises((ValueError, TypeError)):
            change()
    assert e == copy.deepcopy(e) == pickle.loads(pickle.dumps(e))


# (overrides, what the sentence must say)
BAD = {
    "misspelt section": ("bugdet.kimg=3", "no key 'bugdet'; did you mean 'budget'?"),
    "misspelt key": ("budget.king=3", "no key 'budget.king'; did you mean 'budget.kimg'?"),
    "wrong section": ("method.batch=3", "no key 'method.batch'; did you mean 'data.batch'?"),
    "no section": ("lr=3", "did you mean 'optim.g.lr'?"),
    "method key": ("method.widht=3", "did you mean 'method.width'?"),
    "data key": ("data.rot=3", "did you mean 'data.root'?"),
    "optim key": ("optim.g.lrr=3", "did you mean 'optim.g.lr'?"),
    "ema key": ("ema.halflife=3", "did you mean 'ema.half_life_kimg'?"),
    "evaluate key": ("evaluate.best=3", "did you mean 'evaluate.best_by'?"),
    "log key": ("log.wand=3", "did you mean 'log.wandb'?"),
    "trainer key": ("trainer.device=3", "did you mean 'trainer.devices'?"),
    "term": ("method.weights.cycl=3", "'method.weights.cycl' is a weight for no term of toy; did"),
    "negative": ("method.width=-1", "'method.width' is -1; it must be greater than or equal to 0."),
    "int": ("method.width=2.5", "'method.width' is 2.5; it must be a valid integer."),
    "number": ("optim.g.lr=fast", "'optim.g.lr' is 'fast'; it must be a valid number."),
    "bool": ("data.flip=1", "'data.flip' is 1; it must be a valid boolean."),
    "null": ("data.flip=null", "'data.flip' is null; it must be a valid boolean."),
    "list": ("data.sides=a", "'data.sides' is 'a'; it must be a valid list."),
    "in a list": ("data.sides=[1]", "'data.sides.0' is 1; it must be a valid string."),
    "choice": ("method.mode=fast", "'method.mode' is 'fast'; it must be 'slow' or 'quick'."),
    "union": ("trainer.devices=two", "it must be a valid integer or 'auto'."),
    "bound": ("data.batch=0", "'data.batch' is 0; it must be greater than or equal to 1."),
    "endless": ("budget.kimg=.inf", "'budget.kimg' is inf; it must be a finite number."),
    "section": ("budget=3", "'budget' is 3; it must be a valid dictionary."),
    "method": ("method.name=to", "there is no method 'to'; did you mean 'toy'? (known: toy)."),
    "method by itself": ("method=toy", "write 'method.name=toy'"),
    "data": ("data.name=file", "there is no data set 'file'; did you mean 'files'?"),
    "name": ("name=a/b", "'name' is 'a/b'; it names a folder"),
    "name up": ("name=..", "'name' is '..'; it names a folder"),
    "seed": ("seed=-1", "'seed' is -1; it must be greater than or equal to 0."),
    "two budgets": ("budget.seconds=3", "are both given; set one of them to null."),
    "no budget": ("budget.kimg=null", "are both null; give one of them."),
    "no override": ("--seed", "'--seed' is not an override; write key=value"),
    "unknown reference": ("seed=${nope.x}", "'seed': Interpolation key 'nope.x' not found."),
    "circle": ("seed=${seed}", "'seed': Recursive interpolation detected."),
    "half a value": ("seed=[1,", "'seed=[1,' cannot be read"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_overrides(write: Any, case: str) -> None:
    override, expected = BAD[case]
    message = refusal(write(), override)
    assert expected in message
    if case not in {"no override", "half a value"}:
        assert message.startswith("the command line: ")


def test_messages_name_the_file_that_is_wrong(write: Any) -> None:
    write("seed: x\n", "_base/low")
    name = write(TEXT + "extends: _base/low\n")
    assert refusal(name).startswith("_base/low.yaml: 'seed' is 'x'")
    write("seed: 1\n", "_base/low")
    assert refusal(write(TEXT + "sead: 1\n")).startswith("mine.yaml: there is no key 'sead'; did")
    text = "method: {name: toy}\ndata: {name: files}\nbudget: {kimg: 1}\n"
    assert refusal(write(text)) == "mine.yaml: the key 'data.root' is missing."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"seed: [1", "is not valid YAML in line"),
        (b"seed: 1\nseed: 2\n", "is not valid YAML in line 2"),
        (b"\xff\xfe\x00junk", "cannot be read"),
        (b"5", "cannot be read"),
        (b"- a\n", "must be a mapping"),
        (b"", "'method.name' is missing"),
        (b"extends: nope\n", "extends 'nope', but there is no file nope.yaml."),
        (b"extends: mine\n", "mine.yaml extends itself: mine.yaml -> mine.yaml."),
    ],
)
def test_broken_files(here: Path, text: bytes, expected: str) -> None:
    (here / "mine.yaml").write_bytes(text)
    assert expected in refusal("mine.yaml")


def test_printed_is_what_runs(write: Any) -> None:
    e = read(write(), "optim.g.lr=1e-5", "name=r.1e4", "log.tags=['1e4','null','a: b']")
    assert read(write(e.yaml(), "printed")) == e
    assert read(write(e.yaml(), "printed"), "seed=2") != e


def test_difference() -> None:
    old = {"a": 1, "b": {"c": [1], "d": 2}, "e": None}
    new = {"a": 1, "b": {"c": [2], "d": 2}, "f": 3}
    assert difference(old, new) == ["b.c: [1] -> [2]", "f: None -> 3"]
    assert difference(old, old) == []


FILES = sorted((ROOT / "experiments").glob("[!_]*.yaml"))
FILES = [p for p in FILES if not p.stem.startswith(config.COMPARISON)]


def test_every_experiment_is_found(monkeypatch: Any, here: Path) -> None:
    assert len(FILES) >= 3
    assert list(config.experiment_files()) == [p.stem for p in FILES]  # from any folder
    with pytest.raises(UserError, match=r"no experiment 'cyclegan_coat' .*mean 'cyclegan_coats'"):
        engine.load_experiment("cyclegan_coat")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_experiment(path: Path, here: Path, monkeypatch: Any) -> None:
    head = re.match(r"(#.*\n)+", path.read_text())
    assert head is not None
    assert f"make exp NAME={path.stem}\n" in head[0]
    e = engine.load_experiment(path.stem)
    assert e.name == path.stem
    assert e.name.startswith(e.method["name"])
    (here / "again.yaml").write_text(e.yaml())
    assert engine.load_experiment("again.yaml") == e


def test_data_folder_from_the_environment(monkeypatch: Any) -> None:
    monkeypatch.delenv("GANSUITE_DATA", raising=False)
    assert engine.load_experiment("cyclegan_horse2zebra").data["root"] == "data/horse2zebra"
    monkeypatch.setenv("GANSUITE_DATA", os.sep + "photos")
    assert engine.load_experiment("cyclegan_horse2zebra").data["root"] == "/photos/horse2zebra"

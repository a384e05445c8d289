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

from gansuite import catalogue, config
from gansuite.config import Experiment, Schemas, difference, files, load
from gansuite.errors import UserError
from gansuite.signatures import of_class

ROOT = Path(__file__).resolve().parents[1]


class Toy:
    def __init__(
        self,
        spec: Any,
        *,
        width: int = 8,
        share: float = 0.5,
        blocks: int = 3,
        dropout: float = 0.0,
        mode: Literal["slow", "quick"] = "slow",
        weights: Mapping[str, float] = MappingProxyType({"gan": 1.0, "cycle": 10.0}),
    ) -> None: ...


class Files:
    def __init__(self, *, root: str, sides: list[str] = ["a", "b"]) -> None: ...  # noqa: B006


SCHEMAS = Schemas(["toy"], lambda _: of_class(Toy), ["files"], lambda _: of_class(Files))
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
    "section as a list": ("ema=[1]", "'ema' is [1]; it must be a mapping of keys to values."),
    "section as a dash": ("ema=-", "'ema' is [None]; it must be a mapping of keys to values."),
    "negative weight": ("method.weights.gan=-1", "it must be greater than or equal to 0."),
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
    "section": ("budget=3", "'budget' is 3; it must be a mapping of keys to values."),
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
    "an age": ("budget.kimg=1e308", "'budget.kimg' is 1e+308; it must be less than or equal to"),
    "a moment": ("log.every_kimg=1e-320", "it must be greater than or equal to 0.000001."),
    "betas": ("optim.g.betas=[1,2]", "'optim.g.betas.0' is 1; it must be less than 1."),
    "nan": ("optim.g.betas=[.nan,0]", "'optim.g.betas.0' is nan; it must be a finite number."),
    "alpha": ("optim.g.alpha=-1", "'optim.g.alpha' is -1; it must be greater than or equal to 0."),
    "momentum": ("optim.g.momentum=-3", "'optim.g.momentum' is -3; it must be greater"),
    "batch": ("data.batch=1000000000", "'data.batch' is 1000000000; it must be less than or equal"),
    "size": ("data.size=1000000000", "'data.size' is 1000000000; it must be less than or equal"),
    "load size": ("data.load_size=-1", "'data.load_size' is -1; it must be greater than or equal"),
    "width": ("method.width=10000000000", "'method.width' is 10000000000; it must be less than or"),
    "blocks": (
        "method.blocks=1000",
        "'method.blocks' is 1000; it must be less than or equal to 64.",
    ),
    "share": ("method.dropout=7", "'method.dropout' is 7; it must be less than or equal to 1."),
    "huge seed": ("seed=99999999999999999999", "it must be less than 9223372036854775808."),
    "endless digits": ("seed=" + "9" * 6000, "cannot be read: Exceeds the limit"),
    "no home": ("out=~nouser/x", "'out' is '~nouser/x', which is no path (there is no such home"),
    "no out": ('out=""', "'out' is empty; it names a folder."),
    "long name": ("name=" + "a" * 300, "is made of at most 100 letters"),
    "long out": ("out=" + "a" * 300, "which is no path (File name too long)"),
    "null byte": ('data.root="a\\0b"', "'data.root' is 'a\\x00b', which has '\\x00' in it"),
    "no utf-8": ("log.project=\udcff", "An override in 'log.project=\\udcff' cannot be read: "),
    "deep value": ("seed=" + "[" * 3000 + "]" * 3000, "'seed' is nested more than 32 levels deep."),
    "deep key": (".".join("a" * 3000) + "=1", "is not an override; write key=value"),
    "itself": ("seed=&a [*a]", "'seed' is nested more than 32 levels deep."),
    "a list": ("optim=[g]", "'optim' is ['g']; it must be a mapping of keys to values."),
    "a list below": ("optim.g=[1]", "'optim.g' is [1]; it must be a mapping of keys to values."),
    "a mapping": ("data.sides={a: 1}", "'data.sides' is {'a': 1}; it must be a list."),
    "long text": ("seed=" + "a" * 100_000, "'seed' is 'aaa"),
}


UNPLACED = {
    "no override",
    "half a value",
    "endless digits",
    "no home",
    "long out",
    "deep key",
    "no utf-8",
}


@pytest.mark.parametrize("case", BAD)
def test_bad_overrides(write: Any, case: str) -> None:
    override, expected = BAD[case]
    message = refusal(write(), override)
    assert expected in message
    assert len(message) < 500
    if case not in UNPLACED:
        assert message.startswith("the command line: ")


def test_messages_name_the_file_that_is_wrong(write: Any) -> None:
    write("seed: x\n", "_base/low")
    name = write(TEXT + "extends: _base/low\n")
    assert refusal(name).startswith("_base/low.yaml: 'seed' is 'x'")
    write("seed: 1\n", "_base/low")
    assert refusal(write(TEXT + "sead: 1\n")).startswith("mine.yaml: there is no key 'sead'; did")
    text = "method: {name: toy}\ndata: {name: files}\nbudget: {kimg: 1}\n"
    assert refusal(write(text)) == "mine.yaml: the key 'data.root' is missing."


LAUGHS = b"a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + b"\n".join(
    b"%c: &%c [%s]" % (i + 1, i + 1, b", ".join([b"*%c" % i] * 10)) for i in range(97, 106)
)  # ten of ten of ten ...


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
        (b'extends: "a\\0b"\n', "extends 'a\\x00b', but there is no file"),
        (b"extends: " + b"a" * 5000, "but there is no file aaa"),
        (b"seed: 1\0", "mine.yaml is not valid YAML: unacceptable character #x0000"),
        (b"seed: " + b"9" * 5000, "Exceeds the limit"),
        (b"method:\n\tname: toy\n", "is not valid YAML in line 2"),
        (b"x: " + b"[" * 3000 + b"]" * 3000, "mine.yaml is nested more than 32 levels deep."),
        (b"x: " + b"{a: " * 3000 + b"1" + b"}" * 3000, "is nested more than 32 levels deep."),
        (b"x: &x [*x]", "is nested more than 32 levels deep."),
        (LAUGHS, "mine.yaml has more than 20000 values."),
        (b"#" * (1 << 18) + b"\n", "mine.yaml cannot be read: it has more than 256 KB."),
        (b"log: [a]\n", "mine.yaml: 'log' is ['a']; it must be a mapping of keys to values."),
    ],
)
def test_broken_files(here: Path, text: bytes, expected: str) -> None:
    (here / "mine.yaml").write_bytes(text)
    assert expected in refusal("mine.yaml")


def test_anchors_and_marks_of_byte_order_are_read(here: Path) -> None:
    text = TEXT + "optim: {g: &same {lr: 3}, d: *same}\n"
    (here / "mine.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read("mine.yaml").optim["d"].lr == 3


def test_files_are_read_once_and_count_where_they_are_nearest(write: Any, monkeypatch: Any) -> None:
    for i in range(17):  # 2 ** 17 ways to the last
        write(f"extends: [e{i + 1}, f{i + 1}]\nlog: {{project: e{i}}}\n", f"e{i}")
        write(f"extends: [e{i + 1}, f{i + 1}]\nlog: {{group: f{i}}}\n", f"f{i}")
    write("seed: 1\nout: x\n", "e17")
    write("seed: 2\n", "f17")
    opened: list[str] = []
    whole = files._read_file
    monkeypatch.setattr(files, "_read_file", lambda p: opened.append(p.name) or whole(p))
    e = read(write(TEXT + "extends: e0\n"))
    assert sorted(opened) == sorted(
        ["mine.yaml", *(f"{s}{i}.yaml" for s in "ef" for i in range(18) if (s, i) != ("f", 0))]
    )
    assert (e.seed, e.out, e.log.project, e.log.group) == (2, "x", "e0", "f1")
    # a base that two extend counts where the nearer one extends it
    write("seed: 1\n", "base")
    write("extends: base\nseed: 2\n", "left")
    write("extends: base\nout: y\n", "right")
    assert read(write(TEXT + "extends: [left, right]\n")).seed == 1
    assert read(write(TEXT + "extends: [right, left]\n")).seed == 2


def test_a_long_chain_and_what_is_no_file_are_refused(write: Any, here: Path) -> None:
    for i in range(70):
        write(f"extends: c{i + 1}\n", f"c{i}")
    write(TEXT, "c70")
    assert "is one of more than 64 files that extend another" in refusal("c0.yaml")
    os.mkfifo(here / "pipe.yaml")
    for name in ("pipe.yaml", "a\0.yaml", "x" * 5000 + ".yaml"):  # none of them hangs
        assert "There is no experiment file" in refusal(name)


def test_a_comparison_is_told_alike(write: Any) -> None:
    for text, expected in (
        ("title: '${nope}'", "compare.yaml: 'compare.title': Interpolation key 'nope' not found."),
        ('title: "a\\0b"', "'compare.title' is 'a\\x00b', which has '\\x00' in it"),
        ("budget: {kimg: 1e308}", "'compare.budget.kimg' is 1e+308; it must be less than"),
    ):
        path = Path(write(f"compare: {{{text}}}\n", "compare"))
        with pytest.raises(UserError) as caught:
            config.load_comparison(path)
        assert expected in str(caught.value)


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
    with pytest.raises(UserError, match=r"no experiment 'cyclegan_coat';.*mean 'cyclegan_coats'"):
        catalogue.load_experiment("cyclegan_coat")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_experiment(path: Path, here: Path, monkeypatch: Any) -> None:
    head = re.match(r"(#.*\n)+", path.read_text())
    assert head is not None
    assert f"make exp NAME={path.stem}\n" in head[0]
    e = catalogue.load_experiment(path.stem)
    assert e.name == path.stem
    assert e.name.startswith((e.method["name"], e.method.get("preset", e.method["name"])))
    (here / "again.yaml").write_text(e.yaml())
    assert catalogue.load_experiment("again.yaml") == e


def test_data_folder_from_the_environment(monkeypatch: Any) -> None:
    monkeypatch.delenv("GANSUITE_DATA", raising=False)
    assert catalogue.load_experiment("cyclegan_horse2zebra").data["root"] == "data/horse2zebra"
    monkeypatch.setenv("GANSUITE_DATA", os.sep + "photos")
    assert catalogue.load_experiment("cyclegan_horse2zebra").data["root"] == "/photos/horse2zebra"


# -- keys that were renamed ----------------------------------------------------------------------


def test_old_keys_are_read_with_one_line(write: Any, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("GANSUITE_RENAMED", "")
    base = write(TEXT + "guard: {action: stop, retries: 5}\nlog: {tensorboard: true}", "base")
    name = write("extends: base\nlog: {loggers: [csv]}\nhealth: {retries: 7}")
    e = read(base)
    assert (e.health.action, e.health.retries) == ("stop", 5)
    assert e.log.loggers == ["wandb", "tensorboard"]
    assert capsys.readouterr().err == (
        "gansuite: base.yaml: 'guard' is called 'health' now.\n"
        "gansuite: base.yaml: 'log.tensorboard' is called 'log.loggers' now.\n"
    )
    # a nearer layer wins, as ever
    e = read(name, "guard.action=rollback", "log.tensorboard=true")
    assert (e.health.action, e.health.retries) == ("rollback", 7)
    assert e.log.loggers == ["csv", "tensorboard"]
    assert read(name, "log.tensorboard=false").log.loggers == ["csv"]
    assert read(base, "guard.retries=1", "health.retries=3").health.retries == 3
    assert capsys.readouterr().err == ""
    assert "guard" not in e.yaml()
    assert "tensorboard:" not in e.yaml()
    with pytest.raises(UserError, match=r"command line: 'health' is 3; it must be a mapping"):
        read(name, "guard=3")
    with pytest.raises(UserError, match=r"there is no key 'log.tensorboard'"):
        read(name, "log.tensorboard=3")
    with pytest.raises(UserError, match=r"'log.loggers.0' is 'tensorbord'; it must be 'wandb', "):
        read(name, "log.loggers=[tensorbord]")

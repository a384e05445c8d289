"""What a run leaves on the disk is verified before it is trusted, and a way on is named."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EachBatch, difference, experiment, train
from test_resume import Killed, at, kill, state

from gansuite import engine, runs
from gansuite.callbacks.cost import CountFlops
from gansuite.callbacks.session import Session
from gansuite.callbacks.training import TrainingRun
from gansuite.cli import main
from gansuite.config import Experiment
from gansuite.errors import UserError
from gansuite.methods.vanilla import VanillaGAN
from gansuite.runs import Run, read_checkpoint, read_json, read_lines, write_checkpoint
from gansuite.runs.lease import Lease

BATCHES = 8
# saved every 2 batches: killed in the 7th, the last checkpoint is of batch 6, the one before of 4
OFTEN = ("log.checkpoint_every_kimg=0.004", "evaluate.every_kimg=0.012")


def tiny(out: Path, *more: str) -> Experiment:
    return experiment("vanilla_coats", out, BATCHES, *OFTEN, *more)


def flip(file: Path, position: int, bit: int = 0) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)


def files(folder: Path) -> dict[str, bytes]:
    found = {p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


@dataclass
class Runs:
    """``whole``: what an undisturbed run comes to; ``killed``: the folder of one interrupted."""

    whole: dict[str, Any]
    done: Path
    killed: Path

    def copy(self, out: Path) -> tuple[Experiment, Run]:
        """The interrupted run once more."""
        e = tiny(out)
        shutil.copytree(self.killed, e.run_dir)
        return e, Run(e.run_dir)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        done, killed = tiny(folder / "a"), tiny(folder / "b")
        train(patch, done)
        with pytest.raises(Killed):
            train(patch, killed, at(7, kill))
        yield Runs(state(done.run_dir), done.run_dir, killed.run_dir)


# -- damage --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_flipped_bit_is_met(made: Runs, tmp_path: Path) -> None:
    good, bad = made.done / "checkpoints" / "best.ckpt", tmp_path / "bad.ckpt"
    size = good.stat().st_size
    draw = random.Random(0)
    for position in (0, size - 1, size - 80, *(draw.randrange(size) for _ in range(40))):
        shutil.copy(good, bad)
        flip(bad, position, draw.randrange(8))
        with pytest.raises(UserError, match=r"bad\.ckpt is (damaged: its bytes|not a gansuite ch)"):
            read_checkpoint(bad)
    bad.write_bytes(good.read_bytes()[:-20])
    with pytest.raises(UserError, match="is damaged"):
        read_checkpoint(bad)


def test_a_checkpoint_of_an_earlier_version_is_judged_by_its_archive(tmp_path: Path) -> None:
    file, weights = tmp_path / "old.ckpt", torch.arange(20_000.0)
    torch.save({"gansuite": 1, "weights": weights}, file)
    assert torch.equal(read_checkpoint(file)["weights"], weights)
    flip(file, file.read_bytes().index(weights.numpy().tobytes()[4000:4100]))
    with pytest.raises(UserError, match="is damaged"):
        read_checkpoint(file)


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
    made: Runs, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    e, run = made.copy(tmp_path)
    assert read_checkpoint(run.previous)["method"]["counters"]["batches"] == 4
    flip(run.last, 30_000)
    with pytest.raises(UserError, match=r"last\.ckpt is damaged.*last\.prev\.ckpt of its run"):
        engine.load_method(run.path)
    session = train(monkeypatch, e)
    assert f"{run.last} is damaged: its bytes are not those that were written; going on from the " \
        "checkpoint before it, at 0.008 kimg.\n" in capsys.readouterr().out  # fmt: skip
    assert difference(state(session.run.path), made.whole) == ""


def test_two_damaged_checkpoints_are_refused(made: Runs, tmp_path: Path, monkeypatch: Any) -> None:
    e, run = made.copy(tmp_path)
    flip(run.last, 30_000)
    flip(run.previous, 30_000)
    before = files(run.path)
    with pytest.raises(UserError, match="is damaged"):
        train(monkeypatch, e)
    assert files(run.path) == before


def test_killed_between_two_checkpoints(made: Runs, tmp_path: Path, monkeypatch: Any) -> None:
    """The last has been put aside, the new one is not in its place yet."""
    e, run = made.copy(tmp_path)
    os.replace(run.last, run.previous)
    assert runs.find_checkpoint(run.path) == run.previous
    assert difference(state(train(monkeypatch, e).run.path), made.whole) == ""


# -- line files ----------------------------------------------------------------------------------


def short(run: Run) -> None:  # of the last checkpoint, but not of the one before
    size, _ = read_checkpoint(run.last)["lengths"]["metrics.jsonl"]
    os.truncate(run.metrics, size - 5)


def altered(run: Run) -> None:
    size, _ = read_checkpoint(run.last)["lengths"]["metrics.jsonl"]
    flip(run.metrics, size - 5)


@pytest.mark.parametrize("harm", [short, pytest.param(altered, marks=pytest.mark.slow)])
def test_line_files_that_fit_the_checkpoint_before(
    harm: Callable[[Run], None], made: Runs, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    e, run = made.copy(tmp_path)
    harm(run)
    session = train(monkeypatch, e)
    assert "metrics.jsonl has " in (out := capsys.readouterr().out)
    assert "; going on from the checkpoint before it, at 0.008 kimg." in out
    assert difference(state(session.run.path), made.whole) == ""


@pytest.mark.parametrize("name", ["metrics.jsonl", "timing.jsonl"])
@pytest.mark.parametrize("how", ["removed", "emptied", "altered"])
def test_line_files_that_fit_none(
    how: str, name: str, made: Runs, tmp_path: Path, monkeypatch: Any
) -> None:
    e, run = made.copy(tmp_path)
    file = run.path / name
    if how == "removed":
        file.unlink()
    elif how == "emptied":
        file.write_bytes(b"")
    else:
        flip(file, 3)
    before = files(run.path)
    with pytest.raises(UserError) as caught:
        Run(run.path).begin(e)
    found = "has other lines than those" if how == "altered" else "has 0 bytes, of"
    assert str(caught.value).startswith(f"{file} {found}")
    assert f"put the file back, or remove {run.path} to start again." in str(caught.value)
    assert files(run.path) == before


def test_lines_are_on_the_disk_before_their_checkpoint(tmp_path: Path, monkeypatch: Any) -> None:
    run, seen = Run(tmp_path), []
    run.append(run.metrics, {"kind": "train", "images_seen": 4})
    real = os.fsync

    def fsync(handle: int) -> None:
        seen.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_checkpoint(run.last, {"lengths": run.lengths()}, keep=run.previous)
    assert seen[0] == "metrics.jsonl"
    assert seen[2].startswith(".last.ckpt.")
    assert seen[3] == "checkpoints"


def test_rewinding_never_extends(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.append(run.metrics, {"kind": "train", "images_seen": 4})
    size = run.metrics.stat().st_size
    run.rewind({"metrics.jsonl": [size + 100, ""]})
    assert run.metrics.stat().st_size == size


def test_lines_of_another_type_are_no_records(tmp_path: Path) -> None:
    good = [
        {"kind": "train", "images_seen": 4, "loss/g/gan": 1},
        {"kind": "eval", "images_seen": 4, "gen/swd": None, "gen/fd": 2.5},
        {"kind": "health", "images_seen": 4, "batches": 2, "event": "collapse", "name": "gen",
         "action": "warn", "message": "so"},
    ]  # fmt: skip
    bad = [
        {"images_seen": 4},
        {"kind": "train"},
        {"kind": 3, "images_seen": 4},
        {"kind": "train", "images_seen": "4"},
        {"kind": "train", "images_seen": -4},
        {"kind": "train", "images_seen": True},
        {"kind": "train", "images_seen": 4.5},
        {"kind": "eval", "images_seen": 4, "gen/swd": "low"},
        {"kind": "eval", "images_seen": 4, "gen/swd": [1]},
        {"kind": "health", "images_seen": 4},
        [4],
    ]
    lines = [json.dumps(record) for pair in zip(bad, good * 4, strict=False) for record in pair]
    file = tmp_path / "metrics.jsonl"
    file.write_text("\n".join([*lines, "[" * 100_000, '{"kind": "tr']))
    assert read_lines(file) == (good * 4)[: len(bad)]


# -- content -------------------------------------------------------------------------------------


def wrong(path: str, value: Any) -> Any:
    return pytest.param(path.split("/"), value, id=f"{path}={value!r}"[:40])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        wrong("experiment", None),
        wrong("experiment", []),
        wrong("experiment/method", "vanilla"),
        wrong("experiment/method/name", 3),
        wrong("data/size", "32"),
        wrong("data/size", 0),
        wrong("data/domains", "zebra"),
        wrong("data/counts", [1]),
        wrong("data/digest", 5),
        wrong("method", [1]),
        wrong("method/networks", {"a": 1}),
        wrong("method/averages/weights", {"g": torch.zeros(1)}),
        wrong("method/optimizers", {"g": {"state": [], "param_groups": []}}),
        wrong("method/counters", {}),
        wrong("method/counters/batches", "6"),
        wrong("method/counters/batches", -1),
        wrong("method/counters/images_seen", 1.5),
        wrong("method/counters/update_counts", {"g": None}),
        wrong("method/progress", float("nan")),
        wrong(
            "rank_state/0/ledger", {"a\nb": {"sum": torch.zeros(1), "bad": torch.zeros(2), "n": 1}}
        ),
        wrong("rank_state/0/ledger", {"a": 3}),
        wrong("rank_state", []),
        wrong("rank_state", {}),
        wrong("precision", 3),
        wrong("clock/train", "long"),
        wrong("clock/evaluation", float("inf")),
        wrong("lengths", {"metrics.jsonl": -1}),
        wrong("lengths", {"metrics.jsonl": "all"}),
        wrong("notes", "none"),
        wrong("notes/protocol", {}),
        wrong("notes/references", {"do_nothing": 3}),
        wrong("notes/final", {"gen": {"swd": "low"}}),
        wrong("notes/best", None),
        wrong("notes/last_acted", {"log": "4"}),
        wrong("notes/health", [{"event": 1}]),
        wrong("notes/d_losses", 0.5),
        wrong("notes/flops", {"begin": 0}),
    ],
)
def test_a_value_of_another_type(path: list[str], value: Any, made: Runs, tmp_path: Path) -> None:
    content = read_checkpoint(made.killed)
    inner: Any = content
    for key in path[:-1]:
        inner = inner[int(key) if isinstance(inner, list) else key]
    inner[path[-1]] = value
    file = tmp_path / "bad.ckpt"
    write_checkpoint(file, content)
    with pytest.raises(UserError) as caught:
        read_checkpoint(file)
    text = str(caught.value)
    assert text.startswith(f"{file} is no checkpoint that can be used: ")
    assert path[0] in text
    assert "\n" not in text


def first(state: dict[str, Any]) -> dict[str, Any]:
    return next(iter(state["optimizers"]["g"]["state"].values()))


def rename(state: dict[str, Any]) -> None:
    state["networks"] = {f"x.{k}": v for k, v in state["networks"].items()}


def weights(state: dict[str, Any]) -> list[torch.Tensor]:
    found = [
        *state["networks"].values(),
        *(w for n in state["averages"]["weights"].values() for w in n.values()),
    ]
    return [w for w in found if w.is_floating_point()]


MISFITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "shape": lambda s: s["networks"].update({next(iter(s["networks"])): torch.zeros(3)}),
    "names": rename,
    "average": lambda s: s["averages"]["weights"].update({"nobody": {}}),
    "no optimiser": lambda s: s["optimizers"].pop("d"),
    "moment": lambda s: first(s).update(exp_avg=torch.zeros(3)),
    "no moment": lambda s: first(s).pop("exp_avg_sq"),
    "step": lambda s: first(s).update(step="six"),
    "parameter": lambda s: s["optimizers"]["g"]["state"].update({999: first(s)}),
    "groups": lambda s: s["optimizers"]["g"].update(param_groups=[]),
    "counters": lambda s: s["counters"].update(batches=3),
    "weights": lambda s: [w.fill_(torch.nan) for w in weights(s)],
}


QUICK = {"shape", "moment", "counters", "weights"}
EACH = [h if h in QUICK else pytest.param(h, marks=pytest.mark.slow) for h in MISFITS]


@pytest.mark.parametrize("harm", EACH)
def test_a_state_that_does_not_fit(harm: str, made: Runs, tmp_path: Path, monkeypatch: Any) -> None:
    e, run = made.copy(tmp_path)
    content = read_checkpoint(run.last)
    MISFITS[harm](content["method"])
    write_checkpoint(run.last, content)
    before = files(run.path / "checkpoints")
    with pytest.raises(UserError) as caught:
        train(monkeypatch, e)
    assert str(caught.value).startswith(str(run.last))
    assert str(caught.value).count("\n") == 0
    assert files(run.path / "checkpoints") == before
    if harm in ("shape", "names", "average", "weights"):
        for call in (engine.load_method, engine.evaluate):
            with pytest.raises(UserError, match=r"last\.ckpt (does not fit|holds weights that)"):
                call(run.last)


def test_a_checkpoint_of_another_run(made: Runs, tmp_path: Path, monkeypatch: Any) -> None:
    e, run = made.copy(tmp_path)
    other = experiment("cyclegan_coats", tmp_path, BATCHES, *OFTEN)
    write_checkpoint(run.last, {**read_checkpoint(run.last), "experiment": other.plain()})
    before = files(run.path)
    with pytest.raises(UserError) as caught:
        train(monkeypatch, e)
    text = str(caught.value)
    assert text.startswith(f"{run.last} is of another run (")
    assert "method.name: cyclegan -> vanilla" in text
    assert files(run.path) == before


# -- what is left behind -------------------------------------------------------------------------


def test_what_a_killed_process_was_writing_goes(made: Runs, tmp_path: Path) -> None:
    e, run = made.copy(tmp_path)
    ours = ["checkpoints/.last.ckpt.ab12_xyz", ".results.json.0a1b2c3d", ".config.yaml.aaaaaaaa",
            "samples/.final.jpg.zz00zz00"]  # fmt: skip
    theirs = ["checkpoints/.last.ckpt.bak", "checkpoints/last.ckpt.ab12_xyz", ".notes.abcdefgh"]
    for name in (*ours, *theirs):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text("half")
    other = Lease(run.path / ".lock")
    assert other.take() == ""
    with pytest.raises(UserError, match="Another process"):
        Run(run.path).begin(e)
    assert all((run.path / name).exists() for name in ours)  # it may be writing them
    other.release()
    run.begin(e)
    run.release()
    assert not any((run.path / name).exists() for name in ours)
    assert all((run.path / name).exists() for name in theirs)


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("page", ["none", "of a stop"])
def test_a_run_killed_before_its_page_gets_it(
    page: str, made: Runs, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    e = tiny(tmp_path)
    shutil.copytree(made.done, e.run_dir)
    file, results = e.run_dir / "report.html", e.run_dir / "results.json"
    half = e.run_dir / ".report.html.0a1b2c3d"
    half.write_text("half")
    if page == "of a stop":
        file.write_text("This run has not finished")
        earlier = results.stat().st_mtime_ns - 10**9
        os.utime(file, ns=(earlier, earlier))
    monkeypatch.setattr("gansuite.catalogue.load_experiment", lambda *_: e)
    for _ in range(2):
        with pytest.raises(SystemExit) as exit_:
            main(["exp", "vanilla_coats"])
        assert exit_.value.code == 0
        assert f"{e.run_dir} is done" in capsys.readouterr().out
        assert read_json(results)["verdict"] in file.read_text()
        assert not half.exists()
        stamp = file.stat().st_mtime_ns
    assert file.stat().st_mtime_ns == stamp


# -- environments --------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_charts")
def test_environments_are_listed_and_withdraw_the_verdict(
    made: Runs, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    assert read_json(made.done / "results.json")["bit_exact"] is True
    assert read_json(made.done / "results.json")["bit_exact_why"] == []
    e, run = made.copy(tmp_path)
    (old,) = runs.environments(run.path)
    assert old["from_images"] == 0
    del old["from_images"]
    (run.path / "environment.json").write_text(json.dumps(old))  # as earlier versions wrote it
    now = copy.deepcopy(old)
    now["packages"]["torch"], now["threads"], now["command"] = "9.9", 99, "gansuite exp more"
    monkeypatch.setattr(engine, "environment", lambda device: now)
    with pytest.raises(Killed):
        train(monkeypatch, e, at(7, kill))
    changed = f"torch {old['packages']['torch']} -> 9.9, threads {old['threads']} -> 99"
    told = f"{run.path} was begun under another environment ({changed})"
    assert capsys.readouterr().out.count(told) == 1
    train(monkeypatch, e)
    assert told not in capsys.readouterr().out  # not another one this time
    assert runs.environments(run.path) == [old, {"from_images": 12, **now}]
    results = read_json(run.results)
    assert results["bit_exact"] is False
    assert results["bit_exact_why"] == [f"resumed at 0.012 kimg under {changed}"]
    monkeypatch.setattr("gansuite.catalogue.load_experiment", lambda *_: e)
    with pytest.raises(SystemExit):
        main(["exp", "vanilla_coats"])
    assert "torch" in (page := (run.path / "report.html").read_text())
    assert "resumed at 0.012 kimg under" in page


@pytest.mark.parametrize("content", [None, "", "[3]", "[" * 100_000, "\udcff"])
def test_an_environment_that_is_not_known(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        file = tmp_path / "environment.json"
        file.write_text(content, errors="surrogateescape")
    assert runs.environments(tmp_path) == []
    assert runs.mixtures([{}, {"threads": 2}]) == ["resumed at 0 kimg under threads unknown -> 2"]


# -- nothing of the past outside the checkpoint --------------------------------------------------


@pytest.mark.slow
def test_an_interval_without_an_update_of_d_does_not_count(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """The rule of the saturated discriminator sees what this interval logged, and no more."""
    more = ("method.n_critic=1", "log.every_kimg=0.002", "log.checkpoint_every_kimg=0.002")
    rare = ("evaluate.every_kimg=null", *more)
    monkeypatch.setattr(
        VanillaGAN, "updates_in", lambda self, b: ("d", "g") if b % 2 == 0 else ("g",)
    )
    monkeypatch.setattr("gansuite.evaluation.health.SATURATED", 1e9)  # always "right"
    e = experiment("vanilla_coats", tmp_path / "a", 10, *rare)
    expected = state(train(monkeypatch, e).run.path)
    (event,) = [x for x in expected["notes"]["health"] if x["action"] == "warn"]
    assert (event["event"], event["batches"]) == ("saturated", 9)  # the fifth of batches 1, 3, ...
    e = experiment("vanilla_coats", tmp_path / "b", 10, *rare)
    for batch in (4, 7):
        with pytest.raises(Killed):
            train(monkeypatch, e, at(batch, kill))
    assert difference(state(train(monkeypatch, e).run.path), expected) == ""


@pytest.mark.slow
def test_flops_do_not_depend_on_where_it_was_killed(tmp_path: Path, monkeypatch: Any) -> None:
    more = ("method.r1_every=3", "method.path_every=2", "method.mixing=0.5",
            "method.weights.path=2", "method.weights.r1=5")  # fmt: skip
    rare = (*more, "log.checkpoint_every_kimg=0.002", "evaluate.every_kimg=null")
    monkeypatch.setattr(TrainingRun, "finish", lambda self, trainer: None)

    def flops(out: str, *kills: int) -> int:
        e = experiment("stylegan_coats", tmp_path / out, 11, *rare)
        for batch in kills:
            with pytest.raises(Killed):
                train(monkeypatch, e, at(batch, kill))
        session = train(monkeypatch, e)
        found = session.notes
        assert session.method.period == 6
        assert "flops" not in found
        return int(found["flops_per_image"])

    assert flops("a") == flops("b", 3, 5)


def test_a_warm_up_counts_as_often_as_in_the_budget(tmp_path: Path, monkeypatch: Any) -> None:
    """Turns of d alone and of both cost what they cost; how often each comes is told by `turn`."""
    rare = ("evaluate.every_kimg=null", "log.every_kimg=1")
    monkeypatch.setattr(VanillaGAN, "period", property(lambda self: 4))

    def flops(turn: Callable[[int], tuple[str, ...]], batches: int) -> int:
        monkeypatch.setattr(VanillaGAN, "updates_in", lambda self, b: turn(b))
        e = experiment("vanilla_coats", tmp_path / str(random.random()), batches, *rare)
        method = engine.build_method(e.method, engine.build_data(e).spec, 0)
        assert method.period == 4
        session = Session(e, engine.build_data(e), method, Run(tmp_path / "x"))
        counter = CountFlops(session)
        counted = {" ".join(turn(b)): [4, 4 * (7 if "g" in turn(b) else 2)] for b in range(4)}
        return counter._per_image(counted)

    # warm: 3 of 4 for d alone; later both in every batch
    assert flops(lambda b: ("d", "g") if b >= 8 or b % 4 == 3 else ("d",), 16) == round(
        (6 * 2 + 10 * 7) / (16 * 2)
    )
    assert flops(lambda b: ("d", "g") if b % 4 == 3 else ("d",), 15) == round((3 * 2 + 7) / 8)


def test_a_checkpoint_without_a_count_begins_one(tmp_path: Path, monkeypatch: Any) -> None:
    e = tiny(tmp_path)
    with pytest.raises(Killed):
        train(monkeypatch, e, EachBatch(lambda m: kill() if m.batches == 3 else None))
    run = Run(e.run_dir)
    content = read_checkpoint(run.last)
    expected = content["notes"].pop("flops_per_image")
    write_checkpoint(run.last, content)
    assert train(monkeypatch, e).notes["flops_per_image"] == expected

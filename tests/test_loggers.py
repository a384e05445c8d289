"""Lightning's loggers beside a run's own files: each is read back and holds what these hold. W&B
without an account or a network, from the file it writes."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest
import torch
from helpers import experiment, train
from lightning import Callback
from PIL import Image
from test_runs import Fail

from gansuite import runs
from gansuite.cli import main
from gansuite.config import Experiment
from gansuite.devices import settled
from gansuite.errors import UserError
from gansuite.loggers import account
from gansuite.loggers.account import wandb_mode
from gansuite.loggers.run import Loggers, RunLogger, kind_of
from gansuite.loggers.wandb import run_id, worth_sending
from gansuite.methods.vanilla import VanillaGAN
from gansuite.runs import Run, read_lines
from gansuite.tools import workspace

ROOT = Path(__file__).resolve().parents[1]
WORDS = {"samples", "pictures", "health_events"}  # keys whose rows hold pictures or tables


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def records(run: Run) -> list[Any]:
    """All records of the one offline run in ``run``; W&B's service writes the last ones a moment
    after the run has ended."""
    for _ in range(200):
        found = _read(run)
        if found and found[-1].WhichOneof("record_type") == "exit":
            break
        time.sleep(0.05)
    return found


def _read(run: Run) -> list[Any]:
    """Blocks of 32 KiB behind a header of 7 bytes; in them records in chunks, each after its
    checksum (4 bytes), length (2) and kind (1: whole, 2-4: first, middle, last)."""
    from wandb.proto import wandb_internal_pb2

    (file,) = (run.path / "wandb").glob("offline-run-*/run-*.wandb")
    data = file.read_bytes()
    assert data[:4] == b":W&B"
    at, found, parts = 7, [], b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        if not kind:
            break
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            found.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return found


def history(run: Run) -> list[dict[str, Any]]:
    """What was logged, in order, without what W&B adds."""
    rows = []
    for record in records(run):
        if record.WhichOneof("record_type") == "history":
            items = {i.key or i.nested_key[0]: i.value_json for i in record.history.item}
            rows.append({k: json.loads(v) for k, v in items.items() if not k.startswith("_")})
    return rows


def scalars(run: Run) -> list[dict[str, Any]]:
    rows = [r for r in history(run) if not r.keys() & WORDS]
    return [{k: v for k, v in r.items() if not k.startswith("cost/")} for r in rows]


def expected(run: Run) -> list[dict[str, Any]]:
    drop = ("kind", "batches")
    lines = [r for r in read_lines(run.metrics) if r["kind"] != "health"]
    return [{k: v for k, v in r.items() if k not in drop} for r in lines]


@pytest.mark.slow
def test_a_run_is_recorded_once_and_whole_also_after_an_interruption(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # a prompt would meet the end of the file
    e = experiment("cyclegan_coats", tmp_path, 10, "log.wandb=auto", "log.tags=[mine]")
    run = Run(e.run_dir)
    with pytest.raises(RuntimeError, match="killed"):
        train(monkeypatch, e, Fail(7))
    assert [r["images_seen"] for r in scalars(run)] == [8, 16, 16, 24]
    train(monkeypatch, e, Sick())

    rows = scalars(run)
    assert rows == expected(run)  # nothing dropped, nothing twice
    seen = [r["images_seen"] for r in history(run)]
    assert seen == sorted(seen)
    assert all("cost/seconds" in r for r in history(run) if not r.keys() & WORDS)
    pictures = [r["images_seen"] for r in history(run) if "samples" in r]
    assert pictures == [0, 16, 32, 40]
    sent = run.path.glob("wandb/offline-run-*/files/media/images/*")
    assert len(list(sent)) == len(pictures)
    check_table(run)
    check_events(run)

    found = {r.WhichOneof("record_type"): r for r in records(run)}
    opened = found["run"].run
    assert opened.run_id == run_id(run)
    assert (opened.project, opened.run_group, opened.job_type) == ("gansuite", "coats", "cyclegan")
    assert opened.display_name == "cyclegan-coats-0"
    assert set(opened.tags) == {"cyclegan", "coats", "mine"}
    config = {u.key: json.loads(u.value_json) for u in opened.config.update}
    assert {k: v for k, v in config.items() if not k.startswith("_")} == settled(e).plain()
    metrics = [r.metric for r in records(run) if r.WhichOneof("record_type") == "metric"]
    assert any(m.name == "images_seen" for m in metrics)
    assert any(m.glob_name == "*" and m.step_metric == "images_seen" for m in metrics)
    assert found["exit"].exit.exit_code == 0
    summary: dict[str, Any] = {}
    for r in records(run):
        for u in r.summary.update:
            summary[".".join([u.key] if u.key else u.nested_key)] = json.loads(u.value_json)
    results = runs.read_json(run.results)
    assert summary["final/a2b/fd_random"] == results["final"]["a2b"]["fd_random"]
    assert summary["verdict"] == results["verdict"]


def sent_files(run: Run) -> dict[str, Path]:
    """The files of all tables, by their name in the table's artifact."""
    artifacts = [r.artifact for r in records(run) if r.WhichOneof("record_type") == "artifact"]
    return {c.path: Path(c.local_path) for a in artifacts for c in a.manifest.contents}


@pytest.mark.slow
def test_a_workspace_has_panels_for_the_keys_that_runs_send(
    tmp_path: Path, monkeypatch: Any
) -> None:
    pytest.importorskip("wandb_workspaces")
    found: list[Run] = []
    for name in ("cyclegan_coats", "vanilla_coats"):
        e = experiment(name, tmp_path, 4, "log.wandb=offline", "log.group=mine")
        found.append(train(monkeypatch, e).run)
    assert {r.path for r in workspace.finished([tmp_path])} == {r.path for r in found}
    made = workspace.build_workspace("Mine", found, "me")
    spec = made._to_model().model_dump(mode="json", by_alias=True)
    assert (spec["displayName"], spec["entity"], spec["project"]) == ("Mine", "me", "gansuite")
    text = json.dumps(spec)
    assert '"mine"' in text  # the group is a filter
    bank = spec["spec"]["section"]["panelBankConfig"]["sections"]
    sections = {section["name"]: section["panels"] for section in bank}
    assert {"Scores over images", "Final scores", "Pictures", "Cost", "Losses"} <= sections.keys()
    lines = {k for run in found for row in history(run) for k in row}
    results = [runs.read_json(run.results) for run in found]
    bars = {f"final/{n}/{m}" for r in results for n, s in r["final"].items() for m in s}
    bars |= {f"cost/{k}" for r in results for k in r["cost"]}
    assert all(set(workspace.COST) <= r["cost"].keys() for r in results)
    drawn = set()
    for title, panels in sections.items():
        for panel in panels:
            config = panel["config"]
            keys = set(config.get("metrics") or config.get("mediaKeys") or ["pictures"])
            assert keys <= (bars if title in ("Final scores", "Cost") else lines), (title, keys)
            drawn |= keys
    assert {"a2b/fd_random", "gen/diversity", "final/b2a/psnr", "loss/g/total"} <= drawn
    assert {"pictures", "samples", "cost/images_per_second"} <= drawn


@pytest.mark.slow
def test_a_workspace_that_cannot_be_saved(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(UserError, match="There is no finished run in"):
        workspace.save_workspace("x", [tmp_path])
    run = tmp_path / "run"
    run.mkdir()
    (run / "results.json").write_text("{}")
    (run / "config.yaml").write_text("log: {project: p, group: g}")
    with pytest.raises(UserError, match=r"there is no W&B key: set WANDB_API_KEY"):
        workspace.save_workspace("x", [tmp_path])
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "wandb_workspaces" else found(n)
    )
    with pytest.raises(UserError, match=r"pip install 'gansuite\[workspace\]'"):
        workspace.build_workspace("x", workspace.finished([tmp_path]), "me")


class Sick(Callback):
    """Notes that something went wrong."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        session = next(c.session for c in trainer.callbacks if hasattr(c, "session"))
        seen = {"images_seen": 4, "batches": 2, "event": "collapse", "name": "a2b"}
        event = {**seen, "action": "warn", "message": "all alike"}
        session.notes.setdefault("health", []).append(event)


def check_events(run: Run) -> None:
    """What went wrong is a table."""
    table = json.loads(sent_files(run)["health_events.table.json"].read_text())
    assert table["columns"] == ["images_seen", "event", "name", "action", "message"]
    assert table["data"][0] == [4, "collapse", "a2b", "warn", "all alike"]


def check_table(run: Run) -> None:
    """The side-by-side pictures, logged once: each cell is the tile of the strip, bit for bit."""
    (at,) = [r["images_seen"] for r in history(run) if "pictures" in r]
    assert at == 40
    files = sent_files(run)
    assert all(run.path.resolve() in file.parents for file in files.values())
    table = json.loads(files["pictures.table.json"].read_text())
    assert table["columns"] == ["comparison", "picture", "source", "fake", "truth"]
    assert [row[:2] for row in table["data"]] == [["a2b", 0], ["a2b", 1], ["b2a", 0], ["b2a", 1]]
    for name, i, *cells in table["data"]:
        for kind, cell in zip(("source", "fake", "truth"), cells, strict=True):
            with (
                Image.open(run.path / "samples" / f"strip_{name}_{kind}.png") as strip,
                Image.open(files[cell["path"]]) as tile,
            ):
                expected = np.asarray(strip)[:, i * strip.height : (i + 1) * strip.height]
                assert np.array_equal(np.asarray(tile), expected)


def test_a_run_of_a_comparison_is_in_its_group(here: Path, monkeypatch: Any) -> None:
    from gansuite.compare.plan import make_plan

    plan = make_plan(["vanilla_coats", "seeds=0,1", "name=mine"], allow_unequal=False, say=print)
    assert [p.experiment.log.group for p in plan.runs] == ["mine", "mine"]


def test_only_so_many_pictures_are_sent() -> None:
    sent = [i for i in range(100_000) if worth_sending(i)]
    assert sent[:32] == list(range(32))
    assert sum(i < 1000 for i in sent) < 120
    assert len(sent) < 220
    gaps = [b - a for a, b in itertools.pairwise(sent)]
    assert gaps == sorted(gaps)  # ever further apart, never a hole


class Calls:
    """Stands for `wandb.init`: remembers how it was called, and what was logged."""

    def __init__(self, fail: Exception | None = None) -> None:
        self.fail, self.how, self.rows = fail, [], []  # type: ignore[var-annotated]
        self.summary: dict[str, Any] = {}

    def __call__(self, **how: Any) -> Any:
        self.how.append(how)
        if self.fail is not None and how["mode"] == "online":
            raise self.fail
        return self

    def define_metric(self, *args: Any, **kwargs: Any) -> None: ...

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def finish(self, **kwargs: Any) -> None: ...


def opened(e: Experiment, run: Run, images_seen: int | None = None) -> Loggers:
    loggers = Loggers(e, run, 4)
    loggers.open(images_seen)
    return loggers


@pytest.fixture
def calls(monkeypatch: Any) -> Calls:
    calls = Calls()
    monkeypatch.setattr("wandb.init", calls)
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [None, "true"])
def test_offline_reaches_for_nothing(wanted: str | None, tmp_path: Path) -> None:
    """In a process of its own, and with a service of its own, all of whose ways out lead to a
    proxy here: nobody knocks."""
    e = experiment("vanilla_coats", tmp_path, 4, "log.wandb=offline")
    file = tmp_path / "e.yaml"
    file.write_text(e.yaml())
    script = (
        "import sys; from gansuite import catalogue; from gansuite.runs import Run\n"
        "from gansuite.loggers.run import Loggers\n"
        "e = catalogue.load_experiment(sys.argv[1]); r = Run(e.run_dir); r.begin(e)\n"
        "s = Loggers(e, r, 2); s.open(None); s.log({'loss/g/gan': 1.0}, 4)\n"
        "s.all[1].finalize('failed')"
    )
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        ways = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        env = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY")}
        env |= {k: address for way in ways for k in (way, way.lower())}
        env.pop("WANDB_ERROR_REPORTING", None)
        env |= {} if wanted is None else {"WANDB_ERROR_REPORTING": wanted}
        done = subprocess.run(
            [sys.executable, "-c", script, str(file)], env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert list(Run(e.run_dir).path.glob("wandb/offline-run-*/run-*.wandb"))
        proxy.settimeout(0)
        with pytest.raises(BlockingIOError):  # none has connected
            proxy.accept()


def test_reports_are_off_before_the_import(monkeypatch: Any) -> None:
    seen = []

    class Finder:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "wandb":
                seen.append(os.environ.get("WANDB_ERROR_REPORTING"))

    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with contextlib.suppress(Exception):  # a second import of its parts is not what is tested
        account.load_wandb()
    assert seen == ["false"]


def test_a_key_is_looked_up_for_the_server_in_use(tmp_path: Path, monkeypatch: Any) -> None:
    import wandb

    def key(host: str) -> bool:
        (tmp_path / "netrc").write_text(f"machine {host} login user password " + "0" * 40)
        return account.has_wandb_key()

    own = urlparse(wandb.Settings().base_url).hostname
    assert own is not None
    assert key(own)
    assert key("api.wandb.ai")  # the same service, formerly
    assert not key("example.org")
    monkeypatch.setenv("WANDB_BASE_URL", "http://example.org:8080")
    assert key("example.org")
    assert key("example.org:8080")
    assert not key("api.wandb.ai")


@pytest.mark.parametrize("where", ["environment", "netrc"])
def test_online_with_a_key(where: str, calls: Calls, tmp_path: Path, monkeypatch: Any) -> None:
    assert wandb_mode("auto") == "offline"
    if where == "environment":
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    else:
        (tmp_path / "netrc").write_text("machine api.wandb.ai login user password " + "0" * 40)
    assert wandb_mode("auto") == "online"
    e = experiment("cyclegan_coats", tmp_path, 4, "log.wandb=auto")
    run = Run(e.run_dir)
    run.begin(e)
    run.append(run.metrics, {"kind": "train", "images_seen": 8, "loss/g/gan": 1.0})
    loggers = opened(e, run, 0)
    how = calls.how[0]
    assert (how["mode"], how["resume"], how["id"]) == ("online", "allow", run_id(run))
    # an online run has what was sent before: the batches that are repeated are not sent again
    assert calls.rows == []
    loggers.log({"loss/g/gan": 1.0}, 8)
    loggers.log({"a2b/swd": 2.0}, 8)
    loggers.log({"loss/g/gan": 3.0}, 12)
    assert calls.rows == [
        {"images_seen": 8, "a2b/swd": 2.0},
        {"images_seen": 12, "loss/g/gan": 3.0},
    ]
    # nor can it be taken back when the run goes back to a checkpoint
    loggers.rewind(4)
    assert len(calls.how) == 1
    for name in ("offline", "disabled"):
        monkeypatch.setenv("WANDB_MODE", name)
        assert wandb_mode("auto") == name


def test_without_a_connection(calls: Calls, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    import wandb

    calls.fail = wandb.errors.CommError("no route")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    e = experiment("cyclegan_coats", tmp_path, 4, "log.wandb=auto")
    opened(e, Run(e.run_dir))
    assert [how["mode"] for how in calls.how] == ["online", "offline"]
    assert "W&B is not reached (no route): recording offline" in capsys.readouterr().out
    forced = experiment("cyclegan_coats", tmp_path, 4, "log.wandb=online")
    with pytest.raises(UserError, match=r"W&B does not start \(no route\); use log.wandb=offline"):
        opened(forced, Run(e.run_dir))
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(UserError, match="no W&B key: set WANDB_API_KEY or run 'wandb login'"):
        opened(forced, Run(e.run_dir))
    off = experiment("cyclegan_coats", tmp_path, 4, "log.wandb=disabled")
    assert [type(x) for x in opened(off, Run(e.run_dir)).all] == [RunLogger]
    assert len(calls.how) == 3


def test_sync(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(UserError, match="no offline W&B run in"):
        list(account.sync([tmp_path]))
    folder = tmp_path / "x" / "seed0" / "wandb" / "offline-run-1-a"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match=r"1 offline W&B run\(s\) wait, but there is no W&B key"):
        list(account.sync([tmp_path]))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    commands = []

    class Done:
        returncode, stdout, stderr = 0, "", "wandb: refused\n"

    monkeypatch.setattr("subprocess.run", lambda command, **k: commands.append(command) or Done)
    assert list(account.sync([tmp_path / "x" / "seed0"])) == [folder]
    assert commands[0][-1] == str(folder)
    Done.returncode = 1
    with pytest.raises(UserError, match=r"could not be sent \(wandb: refused\)"):
        list(account.sync([tmp_path]))


# -- TensorBoard, CSV, MLflow ----------------------------------------------------------------------


def in_tensorboard(run: Run) -> tuple[dict[str, list[tuple[int, float]]], list[int]]:
    """({key: [(step, value)]} without what the clock says, the steps of the pictures)."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run.path / "tensorboard"), {"images": 0, "scalars": 0}).Reload()
    keys = [key for key in found.Tags()["scalars"] if not key.startswith("cost/")]
    scalars = {key: [(s.step, s.value) for s in found.Scalars(key)] for key in keys}
    return scalars, [i.step for i in found.Images("samples")]


def in_csv(run: Run) -> list[dict[str, float]]:
    """The rows of the table, without empty cells."""
    with (run.path / "csv" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items() if v} for row in rows]


def in_mlflow(run: Run) -> dict[str, list[tuple[int, float]]]:
    """{key: [(step, value)]} of the only run, from its files."""
    (folder,) = (run.path / "mlflow").glob("[0-9]*/*/metrics")
    found = {}
    for file in folder.rglob("*"):
        if file.is_file() and not (key := str(file.relative_to(folder))).startswith("cost/"):
            lines = [line.split() for line in file.read_text().splitlines()]
            found[key] = [(int(step), float(value)) for _, value, step, *_ in lines]
    return found


def by_key(run: Run) -> dict[str, list[tuple[int, float]]]:
    """{key: [(images seen, value)]} of ``metrics.jsonl``."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in expected(run):
        for key in row.keys() - {"images_seen"}:
            found.setdefault(key, []).append((row["images_seen"], row[key]))
    return found


@pytest.mark.slow
def test_every_logger_has_the_numbers_of_the_run_also_after_an_interruption(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """Killed behind a checkpoint (at 8 images): what was logged after it is not there twice, nor
    what a kill has kept from the disk missing."""
    pytest.importorskip("tensorboard")
    every = "log.loggers=[csv,tensorboard,csv]"
    undisturbed = train(monkeypatch, experiment("vanilla_coats", tmp_path / "a", 7, every)).run
    e = experiment("vanilla_coats", tmp_path / "b", 7, every)
    with pytest.raises(RuntimeError, match="killed"):
        train(monkeypatch, e, Fail(6))
    found = Run(e.run_dir)
    assert [row["step"] for row in in_csv(found)] == [4, 8, 8, 12]
    table = found.path / "csv" / "metrics.csv"
    table.write_text(table.read_text()[:-40])  # as after a loss of power
    for file in (found.path / "tensorboard").glob("events*"):
        file.write_bytes(file.read_bytes()[:-40])
    train(monkeypatch, e)

    assert table.read_bytes() == (undisturbed.path / "csv" / "metrics.csv").read_bytes()
    assert in_tensorboard(found) == in_tensorboard(undisturbed)
    for run in (found, undisturbed):
        renamed = [
            {"images_seen" if k == "step" else k: v for k, v in r.items()} for r in in_csv(run)
        ]
        assert renamed == expected(run)
        scalars, pictures = in_tensorboard(run)
        lines = by_key(run)
        assert scalars.keys() == lines.keys()
        for key, events in scalars.items():
            assert [s for s, _ in events] == [s for s, _ in lines[key]]
            assert [v for _, v in events] == pytest.approx([v for _, v in lines[key]], rel=1e-6)
        assert pictures == [0, 8, 14]


@pytest.mark.slow
def test_mlflow_keeps_its_run(tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("mlflow")
    e = experiment("vanilla_coats", tmp_path, 4, "log.loggers=[mlflow]")
    run = Run(e.run_dir)
    run.begin(e)
    first = opened(e, run)
    for at in (2, 4, 6):
        first.log({"loss/g/gan": at / 3, "cost/seconds": 1.0}, at)
    Image.new("RGB", (2, 2)).save(picture := tmp_path / "000000004.jpg")
    first.picture(picture, 4)
    first.all[1].finalize("success")  # by Lightning, after a signal
    assert first.all[1].experiment.get_run(first.all[1].run_id).info.status == "FAILED"
    run_id = first.all[1].run_id
    assert in_mlflow(run) == by_key(run)
    # goes on from a checkpoint at 4
    again = opened(e, run, 4)
    run.rewind({f.name: f.read_bytes().index(b"}\n", 90) + 2 for f in (run.metrics, run.timing)})
    again.log({"loss/g/gan": 9.0}, 6)
    assert again.all[1].experiment.get_run(run_id).info.status == "RUNNING"
    again.results({"verdict": "learned"})
    again.all[1].finalize("success")
    assert again.all[1].run_id == run_id
    assert in_mlflow(run)["loss/g/gan"] == [(2, 2 / 3), (4, 4 / 3), (6, 9.0)]
    client = again.all[1].experiment
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_run(run_id).data.tags["verdict"] == "learned"
    assert client.get_run(run_id).data.params["method/name"] == "vanilla"
    assert [s.step for s in client.get_metric_history(run_id, "loss/g/gan")] == [2, 4, 6]


@pytest.mark.parametrize("name", ["csv", pytest.param("wandb", marks=pytest.mark.slow)])
def test_a_rollback_takes_the_abandoned_stretch_back(name: str, tmp_path: Path) -> None:
    e = experiment("vanilla_coats", tmp_path, 4, f"log.loggers=[{name}]", "log.wandb=offline")
    run = Run(e.run_dir)
    run.begin(e)
    loggers = opened(e, run)
    loggers.log({"loss/g/gan": 1.0}, 4)
    lengths = run.lengths()
    loggers.log({"loss/g/gan": 2.0}, 8)
    run.rewind(lengths)
    loggers.rewind(4)
    loggers.log({"loss/g/gan": 3.0}, 8)
    loggers.log({"gen/swd": 4.0}, 8)
    loggers.all[1].finalize("success")
    rows = in_csv(run) if name == "csv" else [{**r, "step": r["images_seen"]} for r in scalars(run)]
    found = [(row["step"], row.get("loss/g/gan"), row.get("gen/swd")) for row in rows]
    assert found == [(4, 1.0, None), (8, 3.0, None), (8, None, 4.0)]
    assert [kind_of(r) for r in read_lines(run.metrics)] == ["train", "train", "eval"]
    assert [r["batches"] for r in read_lines(run.metrics)] == [1, 2, 2]


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_told_at_the_door(
    name: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == name else found(n, *a)
    )
    e = experiment("cyclegan_coats", tmp_path / "r", 4, f"log.loggers=[csv,{name}]")
    monkeypatch.setattr("gansuite.catalogue.load_experiment", lambda *_: e)
    with pytest.raises(SystemExit) as exit_:
        main(["exp", "cyclegan_coats"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == (
        f"gansuite: 'log.loggers' names {name}, which is not installed: "
        f"pip install 'gansuite[{name}]'.\n"
    )
    assert not (tmp_path / "r").exists()


def test_every_batch_of_an_interval_is_in_its_means(tmp_path: Path, monkeypatch: Any) -> None:
    """Also of more than 50 batches, at which a method under another Trainer logs by itself."""
    e = experiment(
        "vanilla_coats", tmp_path, 52, "log.every_kimg=0.104", "evaluate.every_kimg=null"
    )
    monkeypatch.setattr(
        VanillaGAN, "after_batch", lambda self: self.record("number", torch.tensor(self.batches))
    )
    run = train(monkeypatch, e).run
    (line,) = [r for r in read_lines(run.metrics) if r["kind"] == "train"]
    assert (line["images_seen"], line["number"]) == (104, 51 / 2)

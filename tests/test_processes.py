"""The ranks of one run: who is believed to have started them, and what happens when one fails."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import random
import re
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EachBatch, command, difference, experiment
from helpers import train as train_with
from ranks import child, together, train

from gansuite import cli, devices, engine, processes
from gansuite.callbacks import checkpoint
from gansuite.callbacks.budget import StopAtBudget
from gansuite.callbacks.memory import PeakMemory
from gansuite.config import Experiment
from gansuite.data.module import _serve_the_run
from gansuite.errors import SCHEDULER, STOPPED, UserError, leaving_when_asked
from gansuite.losses.precision import full_float32
from gansuite.runs import Clock, read_checkpoint, read_json

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SRUN = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_STEP_ID": "0", "SLURM_NNODES": "2"}
SRUN["SLURM_NTASKS_PER_NODE"] = "4"
BY_HAND = {"MASTER_ADDR": "h", "MASTER_PORT": "1", "RANK": "1", "WORLD_SIZE": "2"}
STARTED = {
    "nothing": ({}, None),
    "a rank left over": ({"RANK": "3"}, None),
    "a local rank left over": ({"LOCAL_RANK": "1"}, None),
    "a world left over": ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}, None),
    "a batch script": ({**SRUN, "SLURM_STEP_ID": ""}, None),
    "a batch step": ({**SRUN, "SLURM_STEP_ID": str(0xFFFFFFFB)}, None),
    "another's child": ({"GANSUITE_RANK": f"{os.getpid()}:1:2:/x"}, None),
    "a shell of srun": ({**SRUN, "SLURM_PTY_PORT": "40000"}, None),
    "an allocation": ({k: v for k, v in SRUN.items() if k != "SLURM_PROCID"}, None),
    "torchrun": (TORCHRUN, ("torchrun", 3, 8, 4)),
    "srun": (SRUN, ("srun", 5, 8, 4)),
    "torchrun in srun": ({**SRUN, **TORCHRUN}, ("torchrun", 3, 8, 4)),
    "a local rank in srun": ({**SRUN, "LOCAL_RANK": "0"}, ("srun", 5, 8, 4)),
    "by hand": ({**BY_HAND, "LOCAL_RANK": "1"}, ("env", 1, 2, None)),
    "half by hand": (BY_HAND, None),
    "our own": ({"GANSUITE_RANK": f"{os.getppid()}:1:2:/x"}, ("gansuite", 1, 2, 2)),
}


TINY = (
    *("evaluate.every_kimg=0.06", "evaluate.learned=false", "evaluate.best_by=fd_random"),
    *("evaluate.pictures=2", "log.loggers=[]"),
)


def clean(patch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        parts = ("RANK", "WORLD_SIZE", "MASTER_", "SLURM_", "TORCHELASTIC_")
        if any(part in name for part in parts):
            patch.delenv(name)


@pytest.mark.parametrize("case", STARTED)
def test_a_launcher_is_believed_when_it_started_this_process(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean(monkeypatch)
    monkeypatch.setattr(processes, "_KNOWN", set())
    variables, expected = STARTED[case]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    me = processes.launched()
    found = None if me is None else (me.by, me.rank, me.world, me.local)
    assert found == expected
    assert processes.is_main() == (expected is None)


def test_a_rank_stays_one_when_its_parent_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)
    monkeypatch.setattr(processes, "_KNOWN", set())
    monkeypatch.setenv("GANSUITE_RANK", f"{os.getppid()}:1:2:/x")
    assert not processes.is_main()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not processes.is_main()


@pytest.mark.parametrize("number", [*SCHEDULER, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_is_asked_of_training(number: signal.Signals, tmp_path: Path) -> None:
    class Session:
        experiment = experiment("vanilla_coats", tmp_path, 1)
        clock, peak, method = Clock(), PeakMemory(), torch.nn.Linear(1, 1)
        method.device, method.world = torch.device("cpu"), 1  # type: ignore[assignment]
        main, stopped = True, ""

    session: Any = Session()
    budget = StopAtBudget(session)
    before = signal.getsignal(number)
    budget.begin()
    try:
        os.kill(os.getpid(), number)
        budget.check()
    finally:
        budget.end()
    assert session.stopped == number.name
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SCHEDULER, ids=lambda number: number.name)
def test_a_signal_before_training_ends_the_command_resumably(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(n) for n in SCHEDULER]
    with pytest.raises(SystemExit) as ended, leaving_when_asked():
        os.kill(os.getpid(), number)
    assert ended.value.code == STOPPED
    assert capsys.readouterr().out.startswith(f"Stopped by {number.name}; the same command ")
    assert [signal.getsignal(n) for n in SCHEDULER] == before


def test_a_command_that_is_asked_twice_ends_once() -> None:
    """The second signal comes when the process has nothing to do but to end."""
    code = (
        "import atexit, os, signal, sys\n"
        "from gansuite import __main__, cli, errors\n"
        "@errors.leaving_when_asked()\n"
        "def main():\n"
        "    os.kill(os.getpid(), signal.SIGUSR2)\n"
        "cli.main = main\n"
        "for n in errors.SCHEDULER:\n"
        "    atexit.register(os.kill, os.getpid(), n)\n"
        "__main__.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == STOPPED, done.stderr
    assert done.stdout == "Stopped by SIGUSR2; the same command resumes it.\n"


def _interrupted(args: object) -> None:
    raise KeyboardInterrupt


ENDS: dict[str, Any] = {
    "well": (lambda args: 0, ["parted", 0]),
    "stopped": (lambda args: STOPPED, ["parted", STOPPED]),
    "stopped before training": (lambda args: sys.exit(STOPPED), ["at once", STOPPED]),
    "interrupted": (_interrupted, ["at once", 130]),
}


@pytest.mark.parametrize("case", ENDS)
def test_a_rank_ends_the_connections_or_ends_without_the_interpreter(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gloo's threads must not outlive the interpreter; a rank that fails waits for nobody."""
    clean(monkeypatch)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)  # further Ctrl-C stay heeded here
    call, expected = ENDS[case]
    found: list[Any] = []
    connected = [True]

    def destroy() -> None:
        found.append("parted")
        connected.clear()

    def leave(code: int) -> None:
        found.append("at once")
        raise SystemExit(code)

    monkeypatch.setattr(processes.distributed, "is_initialized", lambda: bool(connected))
    monkeypatch.setattr(processes.distributed, "destroy_process_group", destroy)
    monkeypatch.setattr(processes, "_leave", leave)
    monkeypatch.setattr(cli.commands, "list_all", call)
    with pytest.raises(SystemExit) as ended:
        cli.main(["list"])
    assert [*found, ended.value.code] == expected


@pytest.mark.slow
def test_a_second_signal_does_not_cut_the_save_off(tmp_path: Path, monkeypatch: Any) -> None:
    """SIGTERM of a scheduler and then of the job, which reaches the run while it saves."""
    save = checkpoint.save

    def asked_again(session: Any, *words: Any, **more: Any) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        save(session, *words, **more)

    def ask(method: Any) -> None:
        if method.batches == 3:
            monkeypatch.setattr(checkpoint, "save", asked_again)
            os.kill(os.getpid(), signal.SIGTERM)

    e = experiment("vanilla_coats", tmp_path, 8, *TINY, "log.checkpoint_every_kimg=1")
    with leaving_when_asked():
        session = train_with(monkeypatch, e, EachBatch(ask))
    assert session.stopped in ("SIGTERM", "SIGUSR1")
    assert read_checkpoint(e.run_dir)["method"]["counters"]["batches"] == 4


def test_slurm_does_not_requeue(monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    found: Any = processes.cluster()
    assert type(found).__name__ == "SLURMEnvironment"
    assert found.auto_requeue is False


def test_lightning_finds_no_checkpoint_of_its_own(tmp_path: Path) -> None:
    e = experiment("vanilla_coats", tmp_path, 1)
    trainer = engine.make_trainer(e, [])
    assert Path(trainer.default_root_dir) == e.run_dir


def test_nodes_need_a_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)
    e = experiment("vanilla_coats", tmp_path, 1, "trainer.num_nodes=2", "data.batch=8")
    with pytest.raises(UserError, match=r"num_nodes' is 2, but no launcher .* torchrun or srun"):
        engine.train(e)
    assert not list(tmp_path.iterdir())
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert devices.processes_of(e) == (4, 8)
    other = experiment("vanilla_coats", tmp_path, 1, "trainer.devices=2", "data.batch=8")
    with pytest.raises(UserError, match=r"torchrun has started 8 .* is 2 x 1; make them equal"):
        devices.processes_of(other)


@pytest.mark.parametrize(
    ("gpus", "batch", "chunks", "expected"),
    [(2, 1, 1, 1), (4, 8, 1, 4), (3, 8, 1, 2), (8, 12, 2, 6), (8, 12, 3, 4), (0, 8, 1, 1)],
)
def test_auto_takes_what_can_share_the_batch_and_says_so(
    gpus: int, batch: int, chunks: int, expected: int, tmp_path: Path, monkeypatch: Any
) -> None:
    clean(monkeypatch)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    more = (f"data.batch={batch}", f"trainer.accumulate={chunks}", "trainer.accelerator=auto")
    e = experiment("vanilla_coats", tmp_path, 1, *more)
    assert devices.processes_of(e) == (expected, expected)
    told = devices.idle_devices(e)
    assert bool(told) == (expected < gpus)
    if told:
        assert f"takes {expected} of {gpus} GPUs" in told
        assert f"data.batch={batch}" in told


# --- the parent and its ranks, as small scripts ---------------------------------------------------

RANK = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
folder = os.environ["GANSUITE_RANK"].split(":", 3)[3]
open(folder + "/ready", "w").close()
while rank == 0:
    time.sleep(1)
"""


def family(tmp_path: Path, script: str) -> list[str]:
    """Rank 0 lets the other start and waits for ever; rank 1 runs ``script``."""
    file = tmp_path / "rank.py"
    file.write_text(RANK + script)
    return [sys.executable, str(file)]


FAILURES = {
    "killed": (
        "os.kill(os.getpid(), signal.SIGKILL)",
        (1, "gansuite: rank 1 was ended by SIGKILL (by somebody, or by the system for want of "),
    ),
    "crash": (
        "os.kill(os.getpid(), signal.SIGSEGV)",
        (1, "gansuite: rank 1 was ended by SIGSEGV; the same command resumes the run.\n"),
    ),
    "exit": ("os._exit(3)", (1, "gansuite: rank 1 failed with exit code 3, and no reason; the ")),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", FAILURES)
def test_the_first_failure_is_the_sentence(
    case: str, tmp_path: Path, monkeypatch: Any, capfd: Any
) -> None:
    monkeypatch.setattr(processes, "_GRACE", 0.5)
    script, (code, text) = FAILURES[case]
    assert processes.watch(family(tmp_path, script), 2) == code
    err = capfd.readouterr().err
    assert err.startswith(text)
    assert err.count("\n") == 1


class Ended:
    """A process that has ended with ``code``."""

    stdin = None

    def __init__(self, code: int) -> None:
        self.returncode = code


@pytest.mark.parametrize(
    ("codes", "told", "expected"),
    [
        ((0, 0), {}, (0, "")),
        ((75, 0), {}, (75, "")),
        # the first reason counts, also when rank 0 noticed its loss before rank 1 had ended
        ((1, 1), {0: (2.0, "gloo", True), 1: (3.0, "ValueError: x", False)}, (1, "rank 1 failed")),
        ((1, 1), {0: (2.0, "a", False), 1: (3.0, "b", False)}, (1, "rank 0 failed with a;")),
        # a rank that was killed is the cause of what the others say
        ((1, -9), {0: (2.0, "gloo", True)}, (1, "rank 1 was ended by SIGKILL")),
        # every rank says the same, or only rank 0 had something to say at the end
        ((2, 2), {0: (2.0, "NaN.", False), 1: (1.0, "NaN.", False)}, (2, "NaN.")),
        ((2, 0), {0: (2.0, "Stopped.", False)}, (2, "Stopped.")),
        ((2, 1), {0: (1.0, "No.", False), 1: (2.0, "gloo", True)}, (2, "rank 0: No.")),
    ],
)
def test_which_reason_is_told(
    codes: Any, told: Any, expected: tuple[int, str], tmp_path: Path, capsys: Any
) -> None:
    family = processes._Ranks(["true"], len(codes), tmp_path)
    family.processes = [Ended(code) for code in codes]  # type: ignore[misc]
    for rank, (at, text, lost) in told.items():
        reason = {"at": at, "code": codes[rank], "text": text, "lost": lost, "trace": ""}
        (tmp_path / f"{rank}.json").write_text(processes.json.dumps(reason))
    code, sentence = expected
    assert family._conclude() == code
    err = capsys.readouterr().err
    assert err.startswith(f"gansuite: {sentence}") if sentence else err == ""
    assert err.count("\n") == bool(sentence)


# --- two ranks of a real run ----------------------------------------------------------------------


def two(tmp_path: Path, out: str, *more: str) -> Experiment:
    (tmp_path / out).mkdir(exist_ok=True)
    over = ("trainer.devices=2", "log.checkpoint_every_kimg=0.004", "data.batch=2", *TINY, *more)
    return experiment("vanilla_coats", tmp_path / out, 40, *over)


def state(run: Path) -> Any:
    content = read_checkpoint(run)
    return {k: content[k] for k in ("method", "rank_state")}, (run / "metrics.jsonl").read_bytes()


def ranks_of(pid: int) -> list[int]:
    """The children that ``pid`` has now, in the order of their ranks."""
    with contextlib.suppress(OSError):
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return sorted(map(int, found))
    return []


def command_of(words: list[str]) -> None:
    """For `child`: ``gansuite WORDS``, whose ranks are started as those of the command are."""
    sys.argv = ["gansuite", *words]
    cli.main(words)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_killed_rank_ends_the_command_which_resumes(tmp_path: Path) -> None:
    """Each rank is killed once; the command that was begun three times comes to what two processes
    come to that nobody disturbs."""
    whole = two(tmp_path, "whole")
    together(2, train, whole, folder=tmp_path / "whole")
    e = two(tmp_path, "cut")
    run, words = e.run_dir, command(e, tmp_path / "cut")[3:]
    draw = random.Random(0)

    def begin(log: str) -> BaseProcess:
        return child(command_of, words, log=tmp_path / log)

    for rank in (0, 1):
        before = (run / "metrics.jsonl").stat().st_size if run.exists() else 0
        parent = begin(f"killed{rank}")
        family: list[int] = []
        more = before + draw.randrange(600, 1200)
        while parent.is_alive():
            family = ranks_of(parent.pid or 0)
            lines = run / "metrics.jsonl"
            both = len(family) == 2 and run.joinpath("checkpoints/last.ckpt").exists()
            if both and lines.stat().st_size > more:
                break
            time.sleep(0.002)
        assert len(family) == 2
        os.kill(family[rank], signal.SIGKILL)
        parent.join(300)
        said = (tmp_path / f"killed{rank}").read_text()
        assert parent.exitcode == 1, said
        told = [line for line in said.splitlines() if line.startswith("gansuite: ")]
        assert len(told) == 1, said
        assert told[0].startswith(f"gansuite: rank {rank} was ended by SIGKILL"), said
        assert "Traceback" not in said
        assert not any(Path(f"/proc/{pid}").exists() for pid in family)
        assert read_checkpoint(run)["method"]["counters"]["batches"] < 40
    for log, expected in (("resumed", "Report: "), ("again", "is done; its report is ")):
        parent = begin(log)
        parent.join()
        said = (tmp_path / log).read_text()
        assert parent.exitcode == 0, said
        assert said.count(expected) == 1
    assert difference(state(run), state(whole.run_dir)) == ""
    assert read_json(run / "results.json")["batches"] == 40


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["UserError", "ValueError"])
def test_a_rank_that_raises_is_named_with_its_reason(kind: str, tmp_path: Path, capfd: Any) -> None:
    e = two(tmp_path, "run")
    script = tmp_path / "raise.py"
    script.write_text(
        "import os, sys\n"
        "from gansuite import cli, errors\n"
        "from gansuite.methods.base import Method\n"
        "step = Method.training_step\n"
        "def broken(self, batch, i):\n"
        "    if self.rank == 1 and self.batches == 5:\n"
        f"        raise {'errors.' * (kind == 'UserError')}{kind}('z.png is no picture.')\n"
        "    return step(self, batch, i)\n"
        "Method.training_step = broken\n"
        "cli.main(sys.argv[1:])\n"
    )
    words = command(e, tmp_path / "run")[3:]
    code = processes.watch([sys.executable, str(script), *words], 2)
    err = capfd.readouterr().err
    last = err.splitlines()[-1]
    if kind == "UserError":
        assert (code, err.count("\n")) == (2, 1), err
        assert last == "gansuite: rank 1: z.png is no picture."
    else:
        assert code == 1
        assert err.count("Traceback") == 1  # that of rank 1, for whoever mends it
        assert "gloo" not in err
        expected = "gansuite: rank 1 failed with ValueError: z.png is no picture.; "
        assert last == expected + processes.RESUMES + "."
    assert read_checkpoint(e.run_dir)["method"]["counters"]["batches"] <= 5


# --- what ranks agree on --------------------------------------------------------------------------


def test_ranks_look_at_one_another_about_once_a_second(monkeypatch: Any) -> None:
    """Ten batches a second: a look at the first, and then every ten; rank 0's clock decides."""
    looks: list[int] = []

    class Clock:
        def now(self) -> float:
            return budget._count / 10

    class Toy:
        world, batches, progress = 2, 0, 0.0

    class Session:
        clock, method, main, stopped, finished = Clock(), Toy(), True, "", False
        experiment: Any = type("E", (), {"budget": type("B", (), {"seconds": 100.0})})

    def summed(values: list[float]) -> list[float]:
        looks.append(budget._count)
        return [values[0] + (len(looks) == 4), *values[1:]]  # the other rank is asked then

    monkeypatch.setattr("gansuite.callbacks.budget.all_reduce_sum", summed)
    session: Any = Session()
    budget = StopAtBudget(session)
    while not session.stopped:
        Toy.batches = budget._count % 7  # as after rollbacks
        budget.check()
    assert looks == [1, 11, 21, 31]
    assert session.stopped == "SIGTERM"
    assert session.method.progress == pytest.approx(0.031)


def test_what_is_gathered_lies_on_the_cpu() -> None:
    made = {"a": [torch.ones(2, requires_grad=True)], "b": (1, "x"), "c": None}
    found = processes.gather(made)[0]
    assert difference(found, {"a": [torch.ones(2)], "b": (1, "x"), "c": None}) == ""
    assert not found["a"][0].requires_grad
    assert processes.broadcast(3) == 3
    assert processes.all_reduce_sum([1.0, 2.0]) == [1.0, 2.0]


def test_loader_workers_leave_ctrl_c_to_the_run(tmp_path: Path) -> None:
    e = experiment("vanilla_coats", tmp_path, 1, "data.workers=1")
    data = engine.build_data(e)
    loader = data.train_dataloader()
    batches = iter(loader)
    next(batches)
    worker: Any = batches._workers[0]  # type: ignore[attr-defined]
    for _ in range(3):
        os.kill(worker.pid, signal.SIGINT)
        for _ in range(3):
            next(batches)
    assert worker.is_alive()
    batches._shutdown_workers()  # type: ignore[attr-defined]


# --- memory and precision -------------------------------------------------------------------------


class Memory:
    """What the system tells of a process that has 100 MB: the most since the mark was set back."""

    now = most = 100_000

    def use(self, megabytes: int) -> None:
        self.most = max(self.most, self.now + 1000 * megabytes)

    def read_text(self) -> str:
        return f"VmPeak:\t  999999 kB\nVmHWM:\t  {self.most} kB\nVmRSS:\t  {self.now} kB\n"

    def write_text(self, text: str) -> None:
        assert text == "5"
        self.most = self.now


def test_peak_memory_of_training_and_evaluation_apart(monkeypatch: Any) -> None:
    memory, peak = Memory(), PeakMemory()
    for name in ("_STATUS", "_RESET"):
        monkeypatch.setattr(f"gansuite.callbacks.memory.{name}", memory)
    memory.use(400)  # before the start: counts nowhere
    peak.start(torch.device("cpu"))
    assert peak.megabytes() == {"peak_memory_mb": 102.4, "peak_memory_eval_mb": None}
    memory.use(50)
    with peak.evaluating():
        memory.use(150)
    memory.use(20)
    with contextlib.suppress(KeyError), peak.evaluating():
        memory.use(120)
        raise KeyError
    assert peak.megabytes() == {"peak_memory_mb": 153.6, "peak_memory_eval_mb": 256.0}
    memory.use(60)
    assert peak.megabytes()["peak_memory_mb"] == 163.8


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux")
def test_the_mark_of_the_system_is_set_back() -> None:
    peak = PeakMemory()
    held = int(re.findall(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024
    more = max(0, int(peak.training) - held) + (100 << 20)  # above every earlier mark
    with mmap.mmap(-1, more) as pages:  # which the system has back at once, unlike freed blocks
        pages.write(b"x" * more)
    before = peak.training
    peak.start(torch.device("cpu"))
    assert peak.training < before - 80e6
    with peak.evaluating():
        pass
    assert peak.megabytes()["peak_memory_eval_mb"] is not None


def test_peak_memory_without_a_mark_that_can_be_set_back(monkeypatch: Any) -> None:
    monkeypatch.setattr("gansuite.callbacks.memory._RESET", Path("/nowhere/refs"))
    monkeypatch.setattr("gansuite.callbacks.memory._STATUS", Path("/nowhere/status"))
    peak = PeakMemory()
    peak.start(torch.device("cpu"))
    with peak.evaluating():
        pass
    assert peak.megabytes()["peak_memory_eval_mb"] is None
    assert (peak.megabytes()["peak_memory_mb"] or 0) > 10
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert peak.megabytes()["peak_memory_mb"] == 0


def test_full_float32_is_that_inside_and_as_before_outside() -> None:
    flags = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [f.allow_tf32 for f in flags]
    try:
        for f in flags:
            f.allow_tf32 = True
        with contextlib.suppress(KeyError), full_float32():
            inside = [f.allow_tf32 for f in flags]
            raise KeyError
        assert inside == [False, False]
        assert [f.allow_tf32 for f in flags] == [True, True]
    finally:
        for f, value in zip(flags, before, strict=True):
            f.allow_tf32 = value


def test_too_few_open_files_is_one_sentence(tmp_path: Path, monkeypatch: Any) -> None:
    def fit(*_: Any, **__: Any) -> None:
        try:
            raise OSError(24, "Too many open files")
        except OSError:
            raise RuntimeError("Please call `iter(combined_loader)` first.")  # noqa: B904

    monkeypatch.setattr("lightning.Trainer.fit", fit)
    e = experiment("vanilla_coats", tmp_path, 1, "data.workers=8")
    with pytest.raises(UserError, match=r"too few open files for 'data.workers' 8: .*ulimit -n"):
        engine.train(e)
    assert not list(tmp_path.iterdir())


def test_a_second_ctrl_c_is_no_silent_exit(tmp_path: Path, monkeypatch: Any) -> None:
    def fit(*_: Any, **__: Any) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)  # as Lightning does

    monkeypatch.setattr("lightning.Trainer.fit", fit)
    with pytest.raises(KeyboardInterrupt):
        engine.train(experiment("vanilla_coats", tmp_path, 1))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker asks every 5 s")
def test_loader_workers_end_with_a_run_that_is_killed() -> None:
    asked = ctypes.c_int.from_buffer(mmap.mmap(-1, ctypes.sizeof(ctypes.c_int)))
    if not (child := os.fork()):  # what is asked holds for the process that asks
        try:
            _serve_the_run(0)
            ctypes.CDLL(None).prctl(2, ctypes.byref(asked))  # PR_GET_PDEATHSIG
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert asked.value == signal.SIGKILL

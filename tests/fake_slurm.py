"""Executables that stand for SLURM's where there is none: they check every argument and start the
tasks as processes of this machine. ``install(bin, state)`` makes them; `sys.argv[0]` tells which
one is called, ``$FAKE_SLURM`` where the jobs are kept.

The tasks of a job are started, as many at a time as it allows, by one process that ``sbatch``
leaves behind. The files of a task: ``state``, ``pid``, ``starts``, ``cancelled``, and ``requeue``
when it is to come again.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAMES = ("sbatch", "srun", "squeue", "scontrol", "sacct", "scancel")
FLAGS = {
    "array": r"0-\d+%\d+",
    "cpus-per-task": r"\d+",
    "error": r"\S+",
    "gpus-per-node": r"\d+",
    "job-name": r"[\w.+@=-]+",
    "mem": r"\d+[MG]B?",
    "nodes": r"\d+",
    "ntasks-per-node": r"\d+",
    "open-mode": "append",
    "output": r"\S+",
    "partition": r"\w+",
    "requeue": "",
    "signal": r"(B:)?USR2@\d+",
    "time": r"\d+",
    "wckey": "submitit",
}
RUN = ["-m", "gansuite", "exp"]


def install(folder: Path) -> None:
    """Executables in ``folder``, to be put first on PATH."""
    folder.mkdir()
    for name in NAMES:
        file = folder / name
        call = f'exec {sys.executable} {Path(__file__).resolve()} {name} "$@"'
        file.write_text(f"#!/bin/sh\n{call}\n")
        file.chmod(0o755)


def use(folder: Path, monkeypatch: Any) -> Path:
    """From now on these are SLURM's; where their jobs are kept."""
    install(folder / "bin")
    root = folder / "fake"
    root.mkdir()
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(root))
    return root


def fail(text: str) -> None:
    sys.exit(text)


def tasks(root: Path) -> list[Path]:
    found = (p for p in root.iterdir() if p.is_dir())
    return sorted(found, key=lambda p: tuple(map(int, p.name.split("_"))))


def sbatch(root: Path, argv: list[str]) -> None:
    if len(argv) != 1 or not Path(argv[0]).is_file():
        fail(f"sbatch: error: no script: {argv}")
    found: dict[str, str] = {}
    for line in Path(argv[0]).read_text().splitlines():
        if line.startswith("#SBATCH "):
            key, _, value = line.removeprefix("#SBATCH --").partition("=")
            value = value.strip("'")
            if key not in FLAGS or not re.fullmatch(FLAGS[key], value):
                fail(f"sbatch: error: unrecognised {line}")
            found[key] = value
    for key in ("time", "signal", "requeue", "output"):
        if key not in found:
            fail(f"sbatch: error: no --{key}")
    if found.get("partition", "debug") != "debug":
        fail(
            f"sbatch: error: invalid partition specified: {found['partition']}\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified"
        )
    number = 7 + len(list(root.glob("*.sh")))
    script = root / f"{number}.sh"
    script.write_text(Path(argv[0]).read_text())
    script.chmod(0o755)
    last, _, parallel = found.get("array", "0-0%1").removeprefix("0-").partition("%")
    names = [f"{number}_{index}" for index in range(int(last) + 1)]
    for name in names if "array" in found else [str(number)]:
        folder = root / name
        folder.mkdir()
        (folder / "state").write_text("PENDING")
    # what is left behind: it starts the tasks
    null = subprocess.DEVNULL
    command = [sys.executable, __file__, "work", str(number), parallel, found["output"]]
    subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)
    print(f"Submitted batch job {number}")


def work(root: Path, argv: list[str]) -> None:
    number, parallel, output = argv[0], int(argv[1]), argv[2]
    running: dict[Path, subprocess.Popen[bytes]] = {}
    while True:
        mine = [p for p in tasks(root) if p.name.partition("_")[0] == number]
        for folder, process in list(running.items()):
            if process.poll() is None:
                continue
            del running[folder]
            requeue = folder / "requeue"
            ended = "COMPLETED" if process.returncode == 0 else "FAILED"
            if (folder / "cancelled").exists():
                ended = "CANCELLED by 0"
            (folder / "state").write_text("PENDING" if requeue.exists() else ended)
            requeue.unlink(missing_ok=True)
        waiting = [p for p in mine if (p / "state").read_text() == "PENDING"]
        if not waiting and not running:
            return
        for folder in waiting[: max(0, parallel - len(running))]:
            index = folder.name.partition("_")[2]
            starts = folder / "starts"
            again = len(starts.read_text()) if starts.exists() else 0
            starts.write_text("." * (again + 1))
            array = {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index} if index else {}
            environment = {
                **os.environ,
                "SLURM_JOB_ID": str(1000 * int(number) + int(index)) if index else number,
                **array,
                "SLURM_NTASKS": "1",
                "SLURM_NNODES": "1",
                "SLURM_JOB_NUM_NODES": "1",
                "SLURM_PROCID": "0",
                **({"SLURM_RESTART_COUNT": str(again)} if again else {}),
                "FAKE_TASK": str(folder),
            }
            path = output.replace("%A", number).replace("%a", index).replace("%j", number)
            with open(path, "ab") as log:
                running[folder] = subprocess.Popen(
                    ["bash", str(root / f"{number}.sh")],
                    env=environment,
                    stdout=log,
                    stderr=log,
                )
            (folder / "state").write_text("RUNNING")
        time.sleep(0.05)


def srun(root: Path, argv: list[str]) -> None:
    if argv[0] == "--overlap":
        processes_of_a_run(root, argv)
    options, command = argv[:5], argv[5:]
    if [options[0], options[1], options[3]] != ["--unbuffered", "--output", "--error"]:
        fail(f"srun: error: {argv}")
    if command[:3] == ["--nodes=1", "--ntasks=1", "--overlap"]:
        command = command[3:]
    if command[1:4] != ["-u", "-m", "submitit.core._submit"] or len(command) != 5:
        fail(f"srun: error: {argv}")
    folder = Path(os.environ["FAKE_TASK"])
    process = subprocess.Popen(
        command, env={**os.environ, "SLURM_STEP_ID": "0"}, start_new_session=True
    )
    (folder / "pid").write_text(str(process.pid))
    sys.exit(process.wait())


def processes_of_a_run(root: Path, argv: list[str]) -> None:
    """The processes that a task starts on several nodes, all of them here: signals but for SIGTERM
    are handed on, and the exit code is the highest one."""
    words = [word.partition("=") for word in argv if word.startswith("--")]
    given = {key[2:]: value for key, _, value in words}
    nodes, each = int(given.pop("nodes")), int(given.pop("ntasks-per-node"))
    expected = {
        "overlap": "",
        "ntasks": str(nodes * each),
        "kill-on-bad-exit": "0",
        "wait": "0",
        "jobid": given.get("jobid", "none"),
    }
    command = argv[len(words) :]
    if given != expected or not given["jobid"].isdecimal() or command[1:4] != RUN:
        fail(f"srun: error: {argv}")
    if left := [name for name in os.environ if re.match("SLURM_(?!CONF|TMPDIR)", name)]:
        fail(f"srun: error: it is told of another step: {left}")
    family = []
    for rank in range(nodes * each):
        own = {
            "SLURM_JOB_ID": given["jobid"],
            "SLURM_STEP_ID": "1",
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank % each),
            "SLURM_NODEID": str(rank // each),
            "SLURM_NTASKS": str(nodes * each),
            "SLURM_NTASKS_PER_NODE": str(each),
            "SLURM_NNODES": str(nodes),
        }
        family.append(subprocess.Popen(command, env={**os.environ, **own}))

    def hand_on(number: int, frame: object) -> None:
        for process in family:
            process.send_signal(number)

    signal.signal(signal.SIGUSR1, hand_on)
    codes = [process.wait() for process in family]
    sys.exit(max(code if code >= 0 else 128 - code for code in codes))


def squeue(root: Path, argv: list[str]) -> None:
    if argv != ["-h", "-r", "-t", "all", "--me", "-o", "%i|%T"]:
        fail(f"squeue: error: {argv}")
    if (root / "silent").exists():
        fail("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    for folder in tasks(root):
        state = (folder / "state").read_text()
        if not (folder / "forgotten").exists():
            print(f"{folder.name}|{state.split()[0]}")


def sacct(root: Path, argv: list[str]) -> None:
    if argv[:-1] != ["-n", "-P", "-X", "-o", "JobID,State", "-j"]:
        fail(f"sacct: error: {argv}")
    for name in argv[-1].split(","):
        if (root / name).is_dir():
            print(f"{name}|{(root / name / 'state').read_text()}")


def scontrol(root: Path, argv: list[str]) -> None:
    if len(argv) != 2 or argv[0] != "requeue" or not (root / argv[1]).is_dir():
        fail(f"scontrol: error: {argv}")
    (root / argv[1] / "requeue").touch()


def scancel(root: Path, argv: list[str]) -> None:
    number, (name,) = signal.SIGTERM, [a for a in argv if not a.startswith("-")]
    given = [a for a in argv if a.startswith("-")]
    if given:
        if len(given) != 1 or not given[0].startswith("--signal="):
            fail(f"scancel: error: {argv}")
        number = signal.Signals["SIG" + given[0].partition("=")[2]]
    else:
        (root / name / "cancelled").touch()
    with contextlib.suppress(ProcessLookupError):
        os.kill(int((root / name / "pid").read_text()), number)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(os.environ["FAKE_SLURM"]), sys.argv[2:])

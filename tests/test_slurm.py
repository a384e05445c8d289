"""Comparisons on a real SLURM of two nodes, while its nodes and jobs are interfered with."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest
import slurm_node
from gate import Gate
from slurm_node import Cluster, until
from test_compare_run import TINY

from gansuite.errors import STOPPED

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(slurm_node.missing()), reason=slurm_node.missing()),
]
ROOT = Path(__file__).resolve().parents[1]
OFTEN = """\
if sys.orig_argv[1:4] == ["-m", "gansuite", "compare"]:
    from gansuite.compare.executors.slurm import Slurm
    Slurm.every = 0.5
"""


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """At which every start of a run in a job waits behind the third batch; the command that
    follows the jobs looks often."""
    gate = Gate(tmp_path / "gate", 3)
    with open(gate.path / "sitecustomize.py", "a") as code:
        code.write(OFTEN)
    return gate


@pytest.fixture
def cluster(tmp_path: Path, gate: Gate) -> Iterator[Cluster]:
    pytest.importorskip("submitit")
    paths = [str(gate.path), str(ROOT), os.environ.get("PYTHONPATH", "")]
    with slurm_node.nodes(tmp_path / "node", "n1", "n2") as cluster:
        cluster.environment["PYTHONPATH"] = os.pathsep.join(paths)
        yield cluster


class Comparison:
    """``gansuite compare`` of one set of runs, here and on the cluster."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.words = [*(sys.executable, "-m", "gansuite", "compare"), *arguments, "name=c", *TINY]

    def locally(self, *more: str) -> subprocess.Popen[bytes]:
        return self._begin("whole", [*more], dict(os.environ))

    def on(self, cluster: Cluster, *more: str) -> subprocess.Popen[bytes]:
        return self._begin("cut", ["--on", "slurm", *more], cluster.environment)

    def _begin(
        self, out: str, more: Sequence[str], environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        words = [*self.words, f"out={self.folder / out}", *more]
        log: IO[bytes]
        with open(self.folder / f"{out}.txt", "ab") as log:
            return subprocess.Popen(words, env=environment, stdout=log, stderr=log)

    def said(self, out: str) -> str:
        return (self.folder / f"{out}.txt").read_text()

    def jobs(self) -> dict[str, str]:
        """run -> its job; {} before they are submitted."""
        file = self.folder / "cut/c/slurm/jobs.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        return {run: entry["job"] for run, entry in known.items()}

    def log(self, run: str) -> str:
        return (self.folder / "cut/c" / run / "log.txt").read_text()

    def boards(self, out: str) -> list[str]:
        folder = self.folder / out / "c"
        md, csv = ((folder / f"leaderboard.{kind}").read_bytes().decode() for kind in ("md", "csv"))
        # by how many processes they were made is part of the command
        return [re.sub(r" trainer\.(devices|num_nodes)=\d", "", md), csv]


def running(cluster: Cluster, gate: Gate, ranks: int = 1) -> dict[str, str]:
    """node -> the job that trains on it and waits at the gate."""
    found = {}
    for line in cluster.said("squeue", "-h", "-r", "-t", "R", "-o", "%i|%N").splitlines():
        job, node = line.split("|")
        if gate.waiting(job, restarts(cluster, job), ranks):
            found[node] = job
    return found


def restarts(cluster: Cluster, job: str) -> int:
    return int(cluster.job(job)["Restarts"])


def test_two_methods_and_all_that_happens_to_jobs(
    tmp_path: Path, gate: Gate, cluster: Cluster
) -> None:
    """A node is drained and its job requeued, a job reaches its time limit, another is signalled, a
    node dies, the command is left and given again: the tables are those of the local executor."""
    it = Comparison(tmp_path, "vanilla_coats", "discogan_coats", "seeds=0,1", "budget.kimg=0.06")
    limits = ["slurm.parallel=2", "slurm.timeout_min=600", "slurm.signal_delay_s=170"]
    limits.append("slurm.cpus_per_task=2")  # all of a node
    first = it.on(cluster, *limits)
    until(lambda: len(running(cluster, gate)) == 2 or first.poll() is not None)
    assert first.poll() is None, it.said("cut")
    whole = it.locally("jobs=2")
    runs = {job: run for run, job in it.jobs().items()}
    drained, limited = (running(cluster, gate)[node] for node in ("n1", "n2"))

    # a job comes near its time limit, as SLURM finds out in half a minute; the rest comes meanwhile
    hours, minutes, _ = map(int, cluster.job(limited)["RunTime"].split(":"))
    cluster.control("update", f"JobId={limited}", f"TimeLimit={60 * hours + minutes + 3}")

    # a node is drained, and its job goes back into the queue
    cluster.control("update", "NodeName=n1", "State=DRAIN", "Reason=test")
    assert cluster.node("n1") == "ALLOCATED+DRAIN"
    cluster.control("requeue", drained)
    until(lambda: cluster.node("n1") == "IDLE+DRAIN")
    assert cluster.job(drained)["JobState"] == "PENDING"
    assert "Stopped by SIGTERM" in it.log(runs[drained])
    cluster.control("update", "NodeName=n1", "State=RESUME")
    until(lambda: "n1" in running(cluster, gate))

    # the other job saves, and comes again
    until(lambda: restarts(cluster, limited) == 1)
    cluster.control("update", f"JobId={limited}", "TimeLimit=600")
    told = "".join(p.read_text() for p in (tmp_path / "cut/c/slurm").glob(f"{limited}_*.err"))
    assert "Caught signal SIGUSR2" in told
    assert it.log(runs[limited]).count("Stopped by SIG") == 1
    until(lambda: "n2" in running(cluster, gate))

    # the same by hand
    job = running(cluster, gate)["n2"]
    before = restarts(cluster, job)
    cluster.said("scancel", "--signal=USR1", job)
    until(lambda: restarts(cluster, job) == before + 1)
    until(lambda: "n2" in running(cluster, gate))

    # a node dies
    job = running(cluster, gate)["n2"]
    before, saved = restarts(cluster, job), it.log(runs[job]).count("Stopped by")
    cluster.lose("n2")
    cluster.control("update", "NodeName=n2", "State=DOWN", "Reason=test")
    until(lambda: restarts(cluster, job) == before + 1)
    assert it.log(runs[job]).count("Stopped by") == saved  # it had no time for that
    cluster.begin("n2")
    until(lambda: cluster.node("n2").partition("+")[0] in ("IDLE", "ALLOCATED", "MIXED"))

    # the command is left, and follows them again
    first.send_signal(signal.SIGINT)
    assert first.wait() == STOPPED
    again = it.on(cluster, *limits)
    until(lambda: "they are followed." in it.said("cut") or again.poll() is not None)
    gate.open()
    assert again.wait() == 0, it.said("cut")
    assert whole.wait() == 0, it.said("whole")
    until(lambda: not cluster.said("squeue", "-h"))  # what the runs print behind their results
    assert "jobs of an earlier command go on; they are followed." in it.said("cut")
    assert it.boards("cut") == it.boards("whole")
    assert len(set(it.jobs().values())) == 4
    assert all(it.log(run).count("Verdict") == 1 for run in it.jobs())


def test_a_run_on_two_nodes_one_of_which_dies(tmp_path: Path, gate: Gate, cluster: Cluster) -> None:
    """One run of two processes, one on each node: told to come again, then cut off."""
    it = Comparison(tmp_path, "vanilla_coats", "seeds=0", "budget.kimg=0.06")
    limits = ("slurm.timeout_min=600", "slurm.nodes=2")
    first = it.on(cluster, *limits)
    until(lambda: running(cluster, gate, 2) or first.poll() is not None)
    assert first.poll() is None, it.said("cut")
    ((nodes, job),) = running(cluster, gate, 2).items()
    assert nodes == "n[1-2]"
    cluster.said("scancel", "--signal=USR2", job)
    until(lambda: gate.waiting(job, 1, 2) or first.poll() is not None)
    assert first.poll() is None, it.said("cut")
    whole = it.locally("trainer.devices=2")
    (run,) = it.jobs()
    assert "Stopped by SIG" in it.log(run)
    cluster.lose("n2")
    cluster.control("update", "NodeName=n2", "State=DOWN", "Reason=test")
    until(lambda: cluster.job(job)["JobState"] == "PENDING" or it.jobs()[run] != job)
    cluster.begin("n2")
    gate.open()
    assert first.wait() == 0, it.said("cut")
    assert whole.wait() == 0, it.said("whole")
    until(lambda: not cluster.said("squeue", "-h"))  # what the runs print behind their results
    assert it.boards("cut") == it.boards("whole")
    assert it.log(run).count("Verdict") == 1


def test_several_processes_on_each_of_two_nodes(
    tmp_path: Path, gate: Gate, cluster: Cluster
) -> None:
    """Their tables are those of as many processes on this machine."""
    it = Comparison(tmp_path, "vanilla_coats", "seeds=0", "budget.kimg=0.02")
    on = it.on(cluster, "slurm.nodes=2", "trainer.devices=2")
    until(lambda: running(cluster, gate, 4) or on.poll() is not None)
    assert list(running(cluster, gate, 4)) == ["n[1-2]"], it.said("cut")
    gate.open()
    whole = it.locally("trainer.devices=4")
    assert on.wait() == 0, it.said("cut")
    assert whole.wait() == 0, it.said("whole")
    assert it.boards("cut") == it.boards("whole")


def test_who_is_believed_and_what_the_cluster_refuses(tmp_path: Path, cluster: Cluster) -> None:
    code = "from gansuite import processes as p; me = p.launched(); print(me and (me.by, me.rank))"
    say = (sys.executable, "-c", code)
    assert cluster.said("salloc", "-Q", "-n", "2", *say) == "None\n"
    told = cluster.said("srun", "-n", "2", *say)
    assert sorted(told.splitlines()) == ["('srun', 0)", "('srun', 1)"]
    log = tmp_path / "batch.txt"
    cluster.said("sbatch", "--wait", "-n", "2", "-o", str(log), f"--wrap={shlex.join(say)}")
    assert log.read_text() == "None\n"

    it: Any = Comparison(tmp_path, "vanilla_coats", "seeds=0", "budget.kimg=0.06")
    assert it.on(cluster, "slurm.partition=nope").wait() == 2
    last = it.said("cut").splitlines()[-1]
    assert last.startswith("gansuite: SLURM takes no such jobs: ")
    assert "nvalid partition" in last

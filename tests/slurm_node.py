"""A SLURM of several nodes on this machine, for tests: Debian's packages slurm-wlm, munge and
iproute2, as root.

``with nodes(folder) as cluster:`` starts munged, slurmctld and, in a network namespace and with a
host name of its own each, the slurmd of every node, without systemd. It gives the environment in
which sbatch, squeue, ... speak to them, and ends all of it again. The nodes share the disk and the
numbers of processes.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import namespaces

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
HANG = 600.0  # seconds; nothing that goes on takes as long
CONF = """\
ClusterName=test
SlurmctldHost={host}({network}.254)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmdParameters=config_overrides
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
SlurmdTimeout=60
KillWait=60
MinJobAge=3000
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
"""
PARTITION = "PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1\n"


def missing() -> str:
    """Why there can be no cluster here; "" if there can be one."""
    if os.geteuid():
        return "SLURM's daemons are started as root"
    programs = [name for name in NEEDED if shutil.which(name) is None]
    if programs:
        return f"{programs[0]} is not installed (apt-get install slurm-wlm munge)"
    return namespaces.missing()


class Cluster:
    """What is asked of the daemons and done to them."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self.folder, self.names = folder, names
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.own = f"gss{os.getpid() % 99999}"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def said(self, *command: str) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=HANG
        )
        return done.stdout

    def control(self, *words: str) -> None:
        """``scontrol WORDS``, which must succeed."""
        done = subprocess.run(
            ["scontrol", *words], env=self.environment, capture_output=True, text=True, timeout=HANG
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"

    def job(self, name: str) -> dict[str, str]:
        """What is known of a job, such as its JobState and its NodeList."""
        return dict(re.findall(r"(\w+)=(\S*)", self.said("scontrol", "show", "job", name)))

    def node(self, name: str) -> str:
        """The state of a node, such as IDLE+DRAIN."""
        return re.findall(r"State=(\S+)", self.said("scontrol", "show", "node", name))[0]

    def begin(self, name: str) -> None:
        """Start the slurmd of a node, whose host name is that of the node."""
        script = f"hostname {name}; exec slurmd -D -N {name}"
        inside = ["ip", "netns", "exec", self.own + name, "unshare", "--uts", "sh", "-c", script]
        self._begin(name, inside)

    def lose(self, name: str) -> None:
        """A node dies: its slurmd and whatever that has started is gone at once."""
        found = [self.daemons[name].pid]
        for pid in found:  # a step has left the session of its daemon, not its parent
            for file in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += map(int, file.read_text().split())
        listed = subprocess.run(
            ["ip", "netns", "pids", self.own + name], capture_output=True, text=True
        )
        for pid in {*found, *map(int, listed.stdout.split())}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.daemons[name].wait(HANG)

    def _begin(self, name: str, command: list[str]) -> None:
        with open(self.folder / "log" / f"{name}.err", "ab") as log:
            self.daemons[name] = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def __enter__(self) -> Cluster:
        for name in ("state", "spool", "log"):
            (self.folder / name).mkdir(parents=True)
        network = f"10.{78 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
        host, port = platform.node().partition(".")[0], 16800 + os.getpid() % 1000
        lines = CONF.format(host=host, network=network, folder=self.folder, port=port)
        hosts = f"127.0.0.1 localhost\n{network}.254 {host}\n"
        for i, name in enumerate(self.names, 1):
            lines += f"NodeName={name} NodeHostname={name} NodeAddr={network}.{i} CPUs=2\n"
            hosts += f"{network}.{i} {name}\n"
        (self.folder / "slurm.conf").write_text(lines + PARTITION)
        version = 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1
        (self.folder / "cgroup.conf").write_text(
            f"CgroupPlugin=cgroup/v{version}\nCgroupAutomount=no\n"
        )
        self._connect(network, hosts)
        socket = Path("/run/munge/munge.socket.2")
        if not socket.exists():
            socket.parent.mkdir(exist_ok=True)
            shutil.chown(socket.parent, "munge", "munge")
            self._begin("munged", ["runuser", "-u", "munge", "--", "munged", "-F"])
            until(socket.exists)
        self._begin("slurmctld", ["slurmctld", "-D"])
        for name in self.names:
            self.begin(name)
        until(lambda: all(self.node(name) == "IDLE" for name in self.names))
        return self

    def _connect(self, network: str, hosts: str) -> None:
        """A bridge, and a cable from it into the namespace of each node."""

        def ip(*words: str) -> None:
            subprocess.run(["ip", *words], check=True, capture_output=True)

        ip("link", "add", self.own, "type", "bridge")
        ip("addr", "add", f"{network}.254/24", "dev", self.own)
        ip("link", "set", self.own, "up")
        for i, name in enumerate(self.names, 1):
            space, cable = self.own + name, f"{self.own}{i}"
            ip("netns", "add", space)
            names = Path("/etc/netns") / space  # which becomes /etc/hosts in there
            names.mkdir(parents=True)
            (names / "hosts").write_text(hosts)
            ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", cable, "master", self.own, "up")
            ip("-n", space, "addr", "add", f"{network}.{i}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            if name in self.daemons:
                self.lose(name)
            subprocess.run(["ip", "netns", "del", self.own + name], capture_output=True)
            shutil.rmtree(Path("/etc/netns") / (self.own + name), ignore_errors=True)
        subprocess.run(["ip", "link", "del", self.own], capture_output=True)
        for name in ("slurmctld", "munged"):
            if name in self.daemons:
                self.daemons[name].terminate()
                self.daemons[name].wait(HANG)


@contextlib.contextmanager
def nodes(folder: Path, *names: str) -> Iterator[Cluster]:
    """A cluster of the nodes ``names`` whose files lie in ``folder``."""
    cluster = Cluster(folder, names)
    try:
        yield cluster.__enter__()
    finally:
        cluster.__exit__()


def until(reached: Callable[[], object]) -> None:
    """Wait for something that must come, however slow the machine is."""
    end = time.monotonic() + HANG
    while not reached():
        assert time.monotonic() < end, "SLURM does not get there"
        time.sleep(0.2)

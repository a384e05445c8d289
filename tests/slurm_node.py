"""A SLURM of one node on this machine, for tests: Debian's packages slurm-wlm and munge, as root.

``with node(folder) as environment:`` starts munged, slurmctld and slurmd without systemd, gives
the environment in which sbatch, squeue, ... speak to them, and ends them again.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
CONF = """\
ClusterName=test
SlurmctldHost={host}
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
SlurmdSpoolDir={folder}/spool
SlurmdParameters=config_overrides
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
KillWait=30
MinJobAge=300
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} CPUs=2 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
"""


def missing() -> str:
    """Why there can be no node here; "" if there can be one."""
    if os.geteuid():
        return "SLURM's daemons are started as root"
    programs = [name for name in NEEDED if shutil.which(name) is None]
    return f"{programs[0]} is not installed (apt-get install slurm-wlm munge)" if programs else ""


@contextlib.contextmanager
def node(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which this machine is a cluster of one node, whose files lie in
    ``folder``."""
    for name in ("state", "spool", "log"):
        (folder / name).mkdir(parents=True)
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=platform.node().partition(".")[0], folder=folder))
    version = 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1
    (folder / "cgroup.conf").write_text(f"CgroupPlugin=cgroup/v{version}\nCgroupAutomount=no\n")
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    socket = Path("/run/munge/munge.socket.2")
    munged = None
    if not socket.exists():
        socket.parent.mkdir(exist_ok=True)
        shutil.chown(socket.parent, "munge", "munge")
        command = ["runuser", "-u", "munge", "--", "munged", "-F"]
        munged = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        _until(socket.exists)
    daemons = []
    try:
        for name in ("slurmctld", "slurmd"):
            daemons.append(
                subprocess.Popen([name, "-D"], env=environment, stderr=subprocess.DEVNULL)
            )
        _until(lambda: "idle" in _said(["sinfo", "-h", "-o", "%t"], environment))
        yield environment
    finally:
        subprocess.run(["scancel", "--me"], env=environment, check=False, timeout=30)
        _until(lambda: not _said(["squeue", "-h"], environment).strip())
        for process in [*reversed(daemons), *([munged] if munged else [])]:
            process.terminate()
        for process in daemons:
            process.wait(30)


def _said(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=30
    ).stdout


def _until(reached: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not reached():  # type: ignore[operator]
        assert time.monotonic() < end, "SLURM does not get there"
        time.sleep(0.2)

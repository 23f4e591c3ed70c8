"""A Slurm of one node, of Debian's packages. Its daemons, and what its jobs start, have name spaces of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
from harness import wait_until

CONTROLLERS = ("memory", "cpuset", "freezer", "cpu", "cpuacct", "devices")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY"}
CONTROL_GROUPS = """
CgroupPlugin=cgroup/v1
CgroupAutomount=no
CgroupMountpoint=/sys/fs/cgroup
ConstrainCores=yes
ConstrainRAMSpace=yes
ConstrainSwapSpace=no
"""
# Without munge: there is one user. KillWait: the seconds from SIGTERM to SIGKILL.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/none
CredType=cred/none
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup,task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=8
SchedulerParameters=sched_interval=2,batch_sched_delay=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 CoresPerSocket=2 RealMemory=4000
PartitionName=p Nodes={host} Default=YES MaxTime=60 OverSubscribe=FORCE:4
"""
# In name spaces of mounts, control groups and processes.
START = """
mount -t tmpfs none /sys/fs/cgroup
for controller in {controllers}; do
    mkdir "/sys/fs/cgroup/$controller" && mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" || exit 1
done
slurmctld -c -D & sleep 1
slurmd -D &
wait
"""


def absent(reason: str) -> NoReturn:
    """Skip, or fail where the tests are run for Slurm's sake."""
    if os.environ.get("CTWDS_TEST_SLURM") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def require_slurm() -> None:
    """Skip where there is none."""
    if shutil.which("slurmd") is None:
        absent("there is no Slurm here (22 MB): scripts/setup.sh --slurm installs it")
    if os.geteuid() != 0:
        absent("only root may start a Slurm whose limits bind")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@dataclass(frozen=True)
class Cluster:
    """The Slurm of a folder; `pid` is the first process of its name spaces."""

    folder: Path
    pid: int

    def run(self, *command: object, check: bool = True) -> str:
        """What a command of Slurm prints."""
        environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        done = subprocess.run(
            [str(part) for part in command],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def submit(self, *arguments: object) -> str:
        """A job's number."""
        return self.run("sbatch", "--parsable", *arguments).strip()

    def states(self, job: str) -> dict[str, str]:
        """The state of each task of a job, by its index; that of a job without tasks by ""."""
        states = {}
        for line in self.run("scontrol", "show", "job", "--oneliner", job).splitlines():
            facts = dict(fact.split("=", 1) for fact in line.split() if "=" in fact)
            states[facts.get("ArrayTaskId", "")] = facts["JobState"]
        return states

    def wait(self, job: str, seconds: float = 60) -> dict[str, str]:
        """The states of its tasks, when all have ended."""
        wait_until(lambda: set(self.states(job).values()) <= ENDED, f"job {job} has ended", seconds)
        return self.states(job)

    def mounts(self) -> list[str]:
        """The mounts of the program that the node has."""
        table = Path(f"/proc/{self.pid}/mountinfo").read_text()
        return [line for line in table.splitlines() if " fuse.ctwds-fs " in line or " ctwds-fs:" in line]

    def processes(self, program: Path) -> list[int]:
        """The processes of the program on the node, in any of its name spaces of mounts."""
        node = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for process in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # it may have ended
                if os.readlink(f"/proc/{process}/ns/pid") == node and Path(f"/proc/{process}/exe").samefile(program):
                    found.append(int(process))
        return found


def remove_groups(host: str) -> None:
    """The control groups that Slurm leaves behind. They are seen where the hierarchies are mounted."""
    for controller in CONTROLLERS:
        for folder, _, _ in os.walk(f"/sys/fs/cgroup/{controller}/slurm_{host}", topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster, until the block ends; it sees the mounts that were made before."""
    require_slurm()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().split(".")[0]
    configuration = CONFIGURATION.format(host=host, folder=folder, ports=free_ports(2))
    (folder / "slurm.conf").write_text(configuration)
    (folder / "cgroup.conf").write_text(CONTROL_GROUPS)
    start = START.format(controllers=" ".join(CONTROLLERS))
    command = ["unshare", "-m", "-C", "-p", "--fork", "--mount-proc", "--kill-child", "bash", "-c", start]
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 30
        found: Cluster | None = None
        while found is None or "idle" not in found.run("sinfo", "--noheader", check=False):
            if process.poll() is not None or time.monotonic() > deadline:
                absent(f"Slurm does not start here: {(folder / 'output').read_text()[-400:]}")
            time.sleep(0.2)
            if found is None and (pid := children.read_text().strip()):
                found = Cluster(folder, int(pid))
        yield found
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
        remove_groups(host)

"""The life of a mount as an ordinary user has it. Run as root in a mount namespace of its own (`unshare --mount`), so
that it can give that user a /dev/fuse which he may open (most machines have one) and the machine keeps its own.

    user_session.py PROGRAM FOLDER USER SCRATCH DATASET-FLAGS...

FOLDER belongs to the user. Prints what happened as JSON."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DEADLINE = 60


def offer_fuse(scratch: Path) -> None:
    """Put a device that everybody may open in the place of one that only root may."""
    there = os.stat("/dev/fuse")
    if there.st_mode & 0o006 == 0o006:
        return
    subprocess.run(["mount", "-t", "tmpfs", "ctwds-test", scratch], check=True, timeout=DEADLINE)
    os.mknod(scratch / "fuse", stat.S_IFCHR | 0o666, there.st_rdev)
    os.chmod(scratch / "fuse", 0o666)  # whatever the umask
    subprocess.run(["mount", "--bind", scratch / "fuse", "/dev/fuse"], check=True, timeout=DEADLINE)


def is_running(pid: int) -> bool:
    """Whether a process is more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Session:
    """Commands of the user, and what they did."""

    def __init__(self, program: str, folder: Path, user: int, flags: list[str]) -> None:
        self.program, self.folder, self.user, self.flags = program, folder, user, flags
        self.point = folder / "mount"
        self.happened: dict[str, Any] = {}

    def run(self, name: str, *command: object) -> None:
        """Run as the user; note the exit code and what was printed."""
        done = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            stdin=subprocess.DEVNULL,
            user=self.user,
            group=self.user,
            extra_groups=[],
            cwd="/",
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "XDG_STATE_HOME": str(self.folder / "state")},
        )
        self.happened[name] = [done.returncode, done.stdout, done.stderr]

    def mount(self, name: str, *more: str) -> None:
        """Mount; note what the mount table has then."""
        self.run(name, self.program, "mount", *self.flags, *more, self.point)
        self.happened[name].append(self.table())

    def table(self) -> list[str]:
        """The lines of the mount table for this mount."""
        with open("/proc/self/mounts", encoding="utf-8") as table:
            return [line for line in table if f" {self.point} " in line]

    def kill(self) -> None:
        """End the daemon the hard way. It may stay a zombie for as long as its parent likes."""
        pid = int(self.table()[-1].split()[0].rpartition(":")[2])
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + DEADLINE
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.002)

    def play(self) -> None:
        """Everything, in order."""
        shard = self.point / "shard-000000.tar"
        self.mount("mount")
        self.run("read", "sha256sum", shard)
        self.run("write", "touch", shard)
        try:
            os.stat(self.point)
            self.happened["root looks"] = 0
        except OSError as error:
            self.happened["root looks"] = error.errno
        busy = 'exec 7<"$1" || exit 9; "$2" unmount "$3"'
        self.run("busy", "sh", "-c", busy, "sh", shard, self.program, self.point)
        self.run("unmount", self.program, "unmount", self.point)
        self.happened["after unmount"] = self.table()
        self.mount("allow other", "--allow-other")
        self.run("forget that", self.program, "unmount", self.point)
        self.mount("again")
        self.run("fusermount3", "fusermount3", "-u", self.point)
        self.happened["after fusermount3"] = self.table()
        self.mount("once more")
        self.kill()
        self.mount("over the dead")
        self.run("read over the dead", "sha256sum", shard)
        self.kill()
        self.run("unmount the dead", self.program, "unmount", self.point)
        self.happened["after the dead"] = self.table()
        self.happened["fuse.conf allows"] = "\nuser_allow_other" in Path("/etc/fuse.conf").read_text()
        log = next((self.folder / "state").rglob("*.log")).stat()
        self.happened["log"] = [log.st_uid, stat.S_IMODE(log.st_mode)]


def main() -> None:
    """Play, and end whatever is left."""
    program, folder, user, scratch, *flags = sys.argv[1:]
    offer_fuse(Path(scratch))
    session = Session(program, Path(folder), int(user), flags)
    try:
        session.play()
    finally:
        while session.table():
            session.kill()
            subprocess.run(["umount", "--lazy", session.point], check=False, timeout=DEADLINE)
    json.dump(session.happened, sys.stdout)


if __name__ == "__main__":
    main()

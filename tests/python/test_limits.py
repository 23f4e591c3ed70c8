"""Every command under every limit that a system sets: it does its work, or ends with exit code 1 and a line that names
the limit. No panic, no signal, no hang, no mount or unfinished file that is left."""

from __future__ import annotations

import json
import os
import pwd
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from every_command import COMMANDS, Command, Place, noisy_dataset
from harness import (
    PREFIX,
    SMALL_FLAGS,
    Program,
    daemon_of,
    force_unmount,
    is_mounted,
    is_running,
    mount_points,
    needs_root,
    require_fuse,
    wait_until,
)
from small_datasets import write_dataset

OF_MEMORY = ("memory", "killed by signal", "gone")  # what messages say of it
DEADLINE = 60  # seconds; a command takes less than one
# A user whose name fusermount3 finds, and who has no processes: they would count against the limit.
USER = next((user.pw_uid for user in pwd.getpwall() if user.pw_name in ("games", "news", "uucp", "lp")), 65_432)
GROUPS = Path("/sys/fs/cgroup")
MEMORY_FILE = "memory.limit_in_bytes" if (GROUPS / "memory").is_dir() else "memory.max"


@dataclass(frozen=True)
class Limit:
    """A limit of the process, and how messages name it."""

    names: tuple[str, ...]
    number: int  # of `setrlimit`
    values: tuple[int, ...]

    def set(self, value: int) -> Callable[[], None]:
        """What the process does before it becomes the command."""
        return lambda: resource.setrlimit(self.number, (value, value))


MIB = 1 << 20
FLOOR = 256  # MiB of address space with which every command does its work, where the volumes are small
LIMITS = {
    "ulimit -v": Limit(
        ("ulimit -v", "memory allocation"),
        resource.RLIMIT_AS,
        tuple(mib * MIB for mib in (24, 128, 255, FLOOR, 260, 270, 280, 290, 320, 400)),
    ),
    "ulimit -n": Limit(("ulimit -n",), resource.RLIMIT_NOFILE, (4, 5, 6, 7, 8, 9, 10, 12, 16)),
    "ulimit -f": Limit(("ulimit -f",), resource.RLIMIT_FSIZE, (0, 1000, 100_000, 3_000_000)),
    "ulimit -u": Limit(("ulimit -u",), resource.RLIMIT_NPROC, tuple(range(1, 17))),
}
# What writes nothing but messages, only looks at arguments, or runs other commands, is in the tests of streams.
LIMITED = {
    name: command
    for name, command in COMMANDS.items()
    if (command.prints and name != "demo" and not name.startswith("--")) or name == "run"
}


def check(
    program: Program,
    place: Place,
    command: Command,
    names: tuple[str, ...],
    set_limit: Callable[[], None] | None = None,
    **options: object,
) -> int:
    """Run a command under a limit, and check how it ends; return its exit code. The options are those of its process,
    and of the one that makes what it needs."""
    command.run_before(program, place, **options)
    options["preexec_fn"] = set_limit
    arguments = [str(program.path), *map(str, command.arguments(place))]
    done = subprocess.run(
        arguments,
        check=False,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",  # a shard is no text
        **options,
    )  # type: ignore[call-overload] # options of the caller
    said = done.stderr + done.stdout
    try:
        assert "panicked" not in said
        if done.returncode == command.code:
            assert command.made(place, done.returncode)
        else:
            assert done.returncode == 1
            assert [line for line in said.splitlines() if any(name in line for name in names)]
            assert "--on-error" not in said, "nothing is damaged"
            assert is_mounted(place.mount) == command.needs_mount or arguments[1] == "unmount"
        assert not list(place.out.glob("*.partial")) and not list(place.out.glob("ctwds-fs-bench*"))
    except AssertionError as error:
        error.add_note(f"exit code {done.returncode}: {' '.join(arguments)}\n{said}")
        raise
    return done.returncode


def clean(place: Place) -> None:
    """End what is mounted, and empty the output folder."""
    if is_mounted(place.mount):
        pid = daemon_of(place.mount)
        subprocess.run(["umount", str(place.mount)], check=True, timeout=DEADLINE)
        wait_until(lambda: not is_running(pid), "the daemon has ended")
    for path in place.out.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@pytest.mark.parametrize("name", LIMITED)
@pytest.mark.parametrize("limit", ["ulimit -v", "ulimit -n", "ulimit -f"])
def test_limits_of_a_process(program: Program, place: Place, limit: str, name: str) -> None:
    """Address space, descriptors, size of files: from far too little to nearly enough."""
    set_to, command = LIMITS[limit], LIMITED[name]
    for value in set_to.values:
        code = check(program, place, command, set_to.names, set_limit=set_to.set(value))
        assert limit != "ulimit -v" or value < FLOOR * MIB or code == command.code, "it is enough"
        clean(place)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("command", ["materialize", "verify --sources"])
def test_a_volume_that_is_larger_than_the_address_space(
    program: Program, tmp_path: Path, order: Literal["C", "F"], command: str
) -> None:
    """It is not damaged, and no list says that it is."""
    arrays = {"data": np.zeros((512, 512, 512), "i1", order=order)}
    data = write_dataset(tmp_path, {"large.npz": arrays}, writer="numpy", deflated=True)
    listed = tmp_path / "out" / "quarantine.csv"
    listed.parent.mkdir()
    flags = ["--quarantine", listed] if command != "materialize" else ["--output-dir", listed.parent]
    done = program.run(
        *command.split(), *data.flags(), *flags, check=False, preexec_fn=LIMITS["ulimit -v"].set(FLOOR * MIB)
    )
    assert done.returncode == 1
    assert "ulimit -v" in done.stdout + done.stderr and "--on-error" not in done.stderr
    assert not listed.exists() or "large" not in listed.read_text()


@pytest.fixture(scope="module")
def open_noisy(program: Program) -> Iterator[Place]:
    """The data set in folders that another user may enter, unlike pytest's, and an output folder of that user."""
    base = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    base.chmod(0o755)
    data = noisy_dataset(base / "data")
    shards = program.materialize(data, base / "shards", *SMALL_FLAGS)
    out = base / "out"
    out.mkdir()
    mount = base / "mount"
    mount.mkdir()
    for path in (out, mount, shards, *shards.rglob("*")):
        os.chown(path, USER, USER)
    yield Place(data, shards, out, mount)
    assert not is_mounted(mount)
    shutil.rmtree(base)


# In a mount namespace that the machine does not see: gives ordinary users a /dev/fuse that they may open, and runs the
# rest of the line.
WITH_FUSE = """
mount -t tmpfs ctwds-test "$0" && mknod -m 666 "$0/fuse" c 10 229 && mount --bind "$0/fuse" /dev/fuse && exec "$@"
"""


def again_with_fuse(test: str, scratch: Path) -> None:
    """Run a test of this file once more, where an ordinary user may open /dev/fuse, as on most machines."""
    line = ["unshare", "--mount", "--propagation", "private", "sh", "-c", WITH_FUSE, scratch]
    line += [sys.executable, "-m", "pytest", "-q", f"{__file__}::{test}"]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, timeout=4 * DEADLINE, check=False)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


@needs_root
# `cache ls` starts no thread, and lists a folder of its user's own only.
@pytest.mark.parametrize("name", [name for name in LIMITED if name != "cache"])
def test_limit_of_a_users_processes(
    program: Program, open_noisy: Place, tmp_path: Path, request: pytest.FixtureRequest, name: str
) -> None:
    """Threads and processes of an ordinary user: root has no such limit."""
    set_to, command = LIMITS["ulimit -u"], LIMITED[name]
    if command.mounts:
        require_fuse()
        if shutil.which("fusermount3") is None:
            pytest.skip("fusermount3 is not installed, without which an ordinary user cannot mount")
        if not os.stat("/dev/fuse").st_mode & 0o002:
            again_with_fuse(request.node.name, tmp_path)
            return
    binary = open_noisy.out.parent / "ctwds-fs"  # the build folder may be closed to others
    if not binary.exists():
        shutil.copy(program.path, binary)
    environment = os.environ | {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"}
    for value in set_to.values:
        check(
            Program(binary),
            open_noisy,
            command,
            set_to.names,
            set_limit=set_to.set(value),
            user=USER,
            group=USER,
            env=environment,
        )
        clean(open_noisy)


@contextmanager
def control_group(controller: str, file: str, value: int) -> Iterator[Callable[[], None]]:
    """A control group of this limit, for version 1 or 2; what a process does to become a member. Skips where this
    process may make none."""
    old = (GROUPS / controller).is_dir()
    group = (GROUPS / controller if old else GROUPS) / f"ctwds-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / file).write_text(str(value))
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"no control group of {controller} can be made here: {error}")
    try:
        yield lambda: print(os.getpid(), file=(group / "cgroup.procs").open("w"), flush=True)
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "the group's processes have ended")
        group.rmdir()


@needs_root
@pytest.mark.parametrize("name", LIMITED)
def test_limit_of_a_control_groups_processes(program: Program, place: Place, name: str) -> None:
    """As of a container or a job: root has this limit too."""
    require_fuse()
    for value in (1, 2, 3, 4, 5, 6, 7, 8, 10, 14):
        with control_group("pids", "pids.max", value) as join:
            check(program, place, LIMITED[name], ("pids.max", "Cannot fork"), set_limit=join)
            clean(place)


@needs_root
@pytest.mark.parametrize("name", LIMITED)
def test_full_disk(program: Program, place: Place, name: str) -> None:
    """The output, the log and the temporary files are on a disk with hardly any room."""
    command = LIMITED[name]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place.out)], check=True, timeout=DEADLINE)
    try:
        (place.out / "filler").write_bytes(b"")
        for kept in (0, 16, 64):  # KiB of room
            filler = place.out / "filler"
            with filler.open("wb") as file:
                file.write(bytes((256 - kept) * 1024 - 8192))
            command_place = Place(place.data, place.shards, place.out / "of", place.mount)
            command_place.out.mkdir(exist_ok=True)
            environment = os.environ | {"TMPDIR": str(place.out), "XDG_CACHE_HOME": str(place.out / "cache")}
            names = ("No space left on device", "no room", "are free")
            check(program, command_place, command, names, env=environment)
            clean(command_place)
            shutil.rmtree(place.out / "cache", ignore_errors=True)
    finally:
        clean(Place(place.data, place.shards, place.out, place.mount))
        subprocess.run(["umount", str(place.out)], check=True, timeout=DEADLINE)


@needs_root
def test_memory_of_a_control_group(program: Program, place: Place) -> None:
    """The memory for volumes is a quarter of what the group has."""
    require_fuse()
    with control_group("memory", MEMORY_FILE, 400 * MIB) as join:
        program.run("mount", *place.data.flags(), "--log-file", place.out / "log", place.mount, preexec_fn=join)
        status = json.loads(program.run("status", "--json", place.mount).stdout)
        assert status["stats"]["cache_limit"] == 100 * MIB
        clean(place)


@needs_root
@pytest.mark.parametrize("name", LIMITED)
def test_limit_of_a_control_groups_memory(program: Program, place: Place, name: str) -> None:
    """Where the kernel lets the process live: its work, or the limit. Where it kills it, no file that looks finished is
    wrong, and the next run of the command does its work."""
    require_fuse()
    command = LIMITED[name]
    for mib in (6, 12, 24, 48):
        with control_group("memory", MEMORY_FILE, mib * MIB) as join:
            command.run_before(program, place)
            arguments = list(map(str, command.arguments(place)))
            # The shard of `cat` is no text.
            done = program.run(*arguments, check=False, preexec_fn=join, errors="replace")
            said = f"{mib} MiB, exit code {done.returncode}: {done.stdout}{done.stderr}"
            assert "panicked" not in said and "--on-error" not in done.stderr
            is_done = done.returncode == command.code and command.made(place, command.code)
            is_killed = done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
            assert is_done or is_killed or (done.returncode == 1 and any(word in said for word in OF_MEMORY)), said
            if is_mounted(place.mount):  # its process may be among those that the kernel has killed
                program.run("unmount", place.mount)
        # A bench ends its mount by itself. If it is killed its daemon does, unless that was killed, too.
        for left in filter(lambda point: point.startswith(str(place.out)), mount_points()):
            assert is_killed and not is_running(daemon_of(Path(left)))
            force_unmount(Path(left))
        if not is_done:
            again = Place(place.data, place.shards, place.out / "again", place.mount)
            again.out.mkdir()
            if name == "materialize":
                again.out.rmdir()
                again = place
            command.run_before(program, again)
            done = program.run(*command.arguments(again), check=False, errors="replace")
            assert done.returncode == command.code and command.made(again, done.returncode), done.stderr
        clean(place)


@needs_root
def test_run_names_what_the_kernel_killed(program: Program, place: Place) -> None:
    """A command that takes more than the group has is killed; its exit code is handed on, with the reason."""
    require_fuse()
    hungry = [sys.executable, "-c", "x = bytearray(1 << 28); x[::4096] = bytes(1 << 16)"]
    command = ["run", *place.data.flags(), "--at", place.mount, "--log-file", place.out / "log", "--", *hungry]
    with control_group("memory", MEMORY_FILE, 96 * MIB) as join:
        done = program.run(*command, check=False, preexec_fn=join)
    assert done.returncode == 128 + 9
    assert "the kernel has killed a process of this job for lack of memory" in done.stderr
    assert not is_mounted(place.mount)


def test_the_next_run_names_one_that_was_killed(program: Program, place: Place) -> None:
    """It removes the unfinished file, and says whose it was."""
    command = ["materialize", *place.data.flags(), "--samples-per-shard", 1, "--num-workers", 1]
    for _ in range(20):
        clean(place)
        with program.running(*command, "--output-dir", place.out) as process:
            wait_until(lambda: bool(list(place.out.glob("*.partial"))) or process.poll() is not None, "a file is begun")
            process.kill()
            process.wait(DEADLINE)
        if list(place.out.glob("shard-*.partial")):
            break
    else:
        pytest.fail("no run was killed in the middle of a file")
    done = program.run(*command, "--output-dir", place.out)
    assert f"process {process.pid} was ended in the middle of its work" in done.stderr
    assert not list(place.out.glob("*.partial"))

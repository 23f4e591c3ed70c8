"""Every command, as a table: what it needs, what it returns when nobody disturbs it, and what must be true after it.
For tests that disturb all of them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import SMALL_FLAGS, Program, files_in, is_mounted, mount_folder, require_fuse
from make_dataset import Dataset
from small_datasets import noise_dataset, write_plain_tables

COMMAND_CODE = 7  # of what `run` runs
BAD = "v99"  # the volume that is left out


def noisy_dataset(out: Path) -> Dataset:
    """Four volumes, and one that is left out, so that every command has something to say on standard error."""
    data = noise_dataset(out, 4)
    (data.folder / f"{BAD}.npz").write_bytes(b"no zip file")
    write_plain_tables(data, ["v00", "v01", "v02", "v03", BAD])
    return data


@dataclass
class Place:
    """Where one run of a command works."""

    data: Dataset
    shards: Path  # finished ones, for commands that only read them
    out: Path  # an empty folder
    mount: Path  # an empty folder


@dataclass(frozen=True)
class Command:
    """A command."""

    arguments: Callable[[Place], list[object]]
    code: int = 0  # when nobody disturbs it
    prints: bool = True  # a result, to standard output
    made: Callable[[Place, int], bool] = lambda place, code: True  # whether its work is done, by its exit code
    mounts: bool = False
    needs_mount: bool = False

    def run_before(self, program: Program, place: Place, **options: Any) -> None:
        """Make what the command needs; the options are those of the process, such as another user."""
        if self.needs_mount:
            program.run("mount", *place.data.flags(), "--log-file", place.out / "log", place.mount, **options)


@contextlib.contextmanager
def placed(command: Command, program: Program, folder: Path) -> Iterator[Place]:
    """A place below `folder` in which the command can be run; what it mounts is ended."""
    if command.mounts:
        require_fuse()
    data = noisy_dataset(folder / "data")
    (out := folder / "out").mkdir()
    made = program.materialize(data, folder / "shards", *SMALL_FLAGS)
    with mount_folder() as base:
        place = Place(data, made, out, base / "mount")
        command.run_before(program, place)
        try:
            yield place
        finally:
            program.run("unmount", place.mount, check=False)


def is_complete(place: Place, code: int) -> bool:
    """The shards and the manifest are there, and nothing else."""
    return files_in(place.out) == files_in(place.shards)


def demo_is_safe(folder: Path) -> bool:
    """The data set is there, and nothing is mounted."""
    return len(list(folder.glob("volumes/*.npz"))) == 8 and not is_mounted(folder / "shards")


def empty_cache(folder: Path) -> Path:
    """The folder of a disk cache in which nothing was kept yet."""
    folder.mkdir(mode=0o700, exist_ok=True)
    mark = "Signature: 8a477f597d28d172789f06886806bc55\n"
    mark += "# Volumes that ctwds-fs keeps (mount --disk-cache). `ctwds-fs cache clear` removes them.\n"
    (folder / "CACHEDIR.TAG").write_text(mark)
    return folder


COMMANDS = {
    "init": Command(
        lambda p: ["init", p.data.folder, "--yes", "--output", p.out / "ctwds.toml"],
        made=lambda p, _: "data_folder = " in (p.out / "ctwds.toml").read_text(),
    ),
    "plan": Command(lambda p: ["plan", *p.data.flags()]),
    "plan --json": Command(lambda p: ["plan", "--json", "--rescan", *p.data.flags()]),
    "materialize": Command(
        lambda p: ["materialize", "--rescan", *p.data.flags(), *SMALL_FLAGS, "--output-dir", p.out], made=is_complete
    ),
    "materialize --compress": Command(
        lambda p: ["materialize", "--compress", "zstd", *p.data.flags(), *SMALL_FLAGS, "--output-dir", p.out],
        made=lambda p, _: (p.out / "manifest.json").exists(),
    ),
    "cat": Command(lambda p: ["cat", *p.data.flags(), *SMALL_FLAGS, "shard-000001.tar"]),
    "demo": Command(lambda p: ["demo", p.out / "demo"], mounts=True, made=lambda p, _: demo_is_safe(p.out / "demo")),
    "manifest": Command(
        lambda p: ["manifest", "rebuild", *p.data.flags(), *SMALL_FLAGS, p.shards],
        made=lambda p, _: (p.shards / "manifest.json").exists(),
    ),
    "verify": Command(lambda p: ["verify", *p.data.flags(), *SMALL_FLAGS, "--webdataset-dir", p.shards], code=4),
    "verify --sources": Command(
        lambda p: ["verify", "--sources", *p.data.flags(), "--quarantine", p.out / "list.csv"],
        code=3,
        made=lambda p, _: BAD in (p.out / "list.csv").read_text(),
    ),
    "mount": Command(
        lambda p: ["mount", *p.data.flags(), "--log-file", p.out / "log", p.mount],
        made=lambda p, code: is_mounted(p.mount) == (code == 0),
        mounts=True,
    ),
    "cache": Command(lambda p: ["cache", "ls", empty_cache(p.out / "cache")]),
    "status": Command(lambda p: ["status", p.mount], mounts=True, needs_mount=True),
    "status of all": Command(lambda p: ["status", "--json"], mounts=True, needs_mount=True),
    "unmount": Command(
        lambda p: ["unmount", p.mount], mounts=True, needs_mount=True, made=lambda p, _: not is_mounted(p.mount)
    ),
    "run": Command(
        lambda p: [
            *("run", *p.data.flags(), "--log-file", p.out / "log", "--at", p.mount),
            *("--", "sh", "-c", f"exit {COMMAND_CODE}"),
        ],
        code=COMMAND_CODE,
        prints=False,
        mounts=True,
    ),
    "bench": Command(
        lambda p: [
            *("bench", *p.data.flags(), "--samples", 2, "--runs", 1, "--readers", 2, "--read-ahead", 1),
            *("--python", sys.executable, "--work-dir", p.out),
        ],
        made=lambda p, _: not list(p.out.iterdir()),
        mounts=True,
    ),
    "report": Command(
        lambda p: ["report", *p.data.flags(), "--output", p.out / "report.html"],
        made=lambda p, _: (p.out / "report.html").read_text().endswith("</html>"),
    ),
    "reclaim": Command(lambda p: ["reclaim", *p.data.flags(), *SMALL_FLAGS, "--shards", p.shards]),
    "completions": Command(lambda p: ["completions", "bash"]),
    "man": Command(lambda p: ["man", p.out / "man1"], made=lambda p, _: (p.out / "man1" / "ctwds-fs-plan.1").exists()),
    "--help": Command(lambda p: ["materialize", "--help"]),
    "--version": Command(lambda p: ["--version"]),
    "a wrong option": Command(lambda p: ["plan", "--no-such-option"], code=2, prints=False),
    "an error": Command(lambda p: ["plan", "--data-folder", p.out / "none", *p.data.flags()[2:]], code=1, prints=False),
}

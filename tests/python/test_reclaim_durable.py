"""`reclaim --delete`: shards must outlive the machine's next restart before an NPZ file goes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Program, needs_root, shards
from make_dataset import Dataset
from reclaiming import COUNT, DELETE, FLAGS, names, reclaim
from small_datasets import noise_dataset

DEADLINE = 60
MAPPED = f"ctwds-test-{os.getpid()}"  # the name of a mapped disk


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Six volumes that a test may lose, in three shards."""
    return noise_dataset(tmp_path / "data", COUNT, (8, 8, 8))


@contextlib.contextmanager
def mounted(kind: str, folder: Path) -> Iterator[Path]:
    """A file system of a kind."""
    folder.mkdir()
    image = folder.parent / "image"
    commands = [["mount", "-t", kind, "none", folder]]
    places = [folder]
    if kind == "image":
        image.mkdir()
        commands = [
            ["mount", "-t", "tmpfs", "none", image],
            ["mkfs.ext4", "-q", image / "disk", "16M"],
            ["mount", "-o", "loop", image / "disk", folder],
        ]
        places = [folder, image]
    elif kind in ("overlay", "lower layer"):
        memory, disk = folder.parent / "layers", folder.parent / "on disk"
        upper, lower = (memory, disk) if kind == "overlay" else (disk, memory)
        for path in (memory, disk):
            path.mkdir()
        layers = f"upperdir={upper}/upper,workdir={upper}/work,lowerdir={lower}/lower"
        commands = [
            ["mount", "-t", "tmpfs", "none", memory],
            ["mkdir", upper / "upper", upper / "work", lower / "lower"],
            ["mount", "-t", "overlay", "-o", layers, "none", folder],
        ]
        places = [folder, memory]
    elif kind == "mapped":
        image.mkdir()
        commands = [
            ["mount", "-t", "tmpfs", "none", image],
            ["truncate", "-s", "16M", image / "disk"],
            ["sh", "-c", f"losetup --find --show '{image}/disk' > '{image}/loop'"],
            ["sh", "-c", f"echo 0 32768 linear $(cat '{image}/loop') 0 | dmsetup create {MAPPED}"],
            ["mkfs.ext4", "-q", f"/dev/mapper/{MAPPED}"],
            ["mount", f"/dev/mapper/{MAPPED}", folder],
        ]
        places = [folder, image]
    try:
        for command in commands:
            done = subprocess.run(
                list(map(str, command)), capture_output=True, text=True, timeout=DEADLINE, check=False
            )
            if done.returncode != 0:
                pytest.skip(f"this machine has no {kind} to mount: {done.stderr.strip()}")
        yield folder
    finally:
        subprocess.run(["umount", str(places[0])], capture_output=True, timeout=DEADLINE, check=False)
        if kind == "mapped":
            line = f"dmsetup remove {MAPPED}; losetup -d $(cat '{image}/loop')"
            subprocess.run(["sh", "-c", line], capture_output=True, timeout=DEADLINE, check=False)
        for place in places[1:]:
            subprocess.run(["umount", str(place)], capture_output=True, timeout=DEADLINE, check=False)


@needs_root
@pytest.mark.parametrize("kind", ["tmpfs", "ramfs", "image", "overlay", "lower layer", "mapped"])
def test_shards_in_memory_are_no_copy(program: Program, data: Dataset, tmp_path: Path, kind: str) -> None:
    """Nothing is removed for them, and a copy of them on a disk is one."""
    with mounted(kind, tmp_path / "memory") as memory:
        on_disk = program.materialize(data, tmp_path / "disk", *FLAGS)
        made = Path(shutil.copytree(on_disk, memory / "out"))
        if kind == "lower layer":  # where they were before the layers were laid over each other
            made = Path(shutil.copytree(on_disk, memory.parent / "layers" / "lower" / "below"))
            made = memory / "below"
        arguments = ["reclaim", *data.flags(), *FLAGS, "--shards", made]
        said = program.refuses(*arguments, *DELETE)
        assert str(made) in said and "in memory" in said and (kind if kind == "ramfs" else "tmpfs") in said, said
        assert len(names(data)) == COUNT and not (made / ".ctwds" / "reclaim.jsonl").exists()
        (tmp_path / "link").symlink_to(made)
        arguments[-1] = tmp_path / "link"
        assert "in memory" in program.refuses(*arguments, *DELETE)
    assert reclaim(program, data, on_disk, *DELETE)["files"] == COUNT


def test_all_is_durable_before_anything_is_removed(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Whoever copied the folder to this disk may not have waited for it: the folder in its own folder, the names in
    it, the manifest, the journals' folder, and each shard before the NPZ files in it."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    made = Path(shutil.copytree(program.materialize(data, tmp_path / "made", *FLAGS), tmp_path / "on" / "disk"))
    with tempfile.NamedTemporaryFile("r") as trace:
        command = [strace, "-f", "-y", "-s", "300", "-e", "trace=fsync,fdatasync,unlink,unlinkat", "-o", trace.name]
        command += [str(program.path), "reclaim", *data.flags(), *map(str, FLAGS), "--shards", str(made), *DELETE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
        if "ptrace" in done.stderr.lower():
            pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
        assert done.returncode == 0 and names(data) == [], done.stderr
        calls = trace.read().splitlines()
    synced: set[str] = set()
    removed: dict[str, set[str]] = {}
    for call in calls:
        if found := re.search(r"f(?:data)?sync\(\d+<([^>]*)>", call):
            synced.add(found[1])
        elif found := re.search(r'unlink(?:at)?\(.*"([^"]*\.npz)"', call):
            removed[found[1]] = set(synced)
    assert len(removed) == COUNT
    folders = {str(path) for path in (made, made / ".ctwds", made.parent, made.parent.parent)}
    for number, name in enumerate(sorted(removed)):
        shard = shards(made)[number // (COUNT // len(shards(made)))]
        missing = (folders | {str(made / "manifest.json"), str(shard)}) - removed[name]
        assert not missing, f"{name} was removed before these were durable: {missing}"

"""`ctwds-fs cat`: a shard on standard output, for readers of a pipe where nothing can be mounted."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import webdataset
from harness import COMMAND_DEADLINE as DEADLINE
from harness import SMALL_FLAGS, Program, Stored, require_fuse, shards
from make_dataset import Dataset
from small_datasets import noise_dataset

KINDS = {"stored": [], "rescaled": ["--volume=rescaled", "--rescale=none"], "npy": ["--format=npy"]}


def cat(program: Program, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """What `cat` writes."""
    command = [str(program.path), "cat", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_are_those_of_the_files(program: Program, small: Dataset, tmp_path: Path, kind: str) -> None:
    """Each shard, by its name and by its number, of files and tables and of finished shards, compressed or not."""
    flags = [*SMALL_FLAGS, *KINDS[kind]]
    files = program.materialize(small, tmp_path / "files", *flags)
    packed = program.materialize(small, tmp_path / "packed", *flags, "--compress", "zstd")
    for number, shard in enumerate(shards(files)):
        for dataset in ([*small.flags(), *flags], Stored(files).flags(), Stored(packed).flags()):
            for name in (shard.name, f"{number:06d}", number):
                done = cat(program, *dataset, name)
                assert done.returncode == 0 and done.stdout == shard.read_bytes(), done.stderr


def pipes(program: Program, arguments: Sequence[str], names: str) -> str:
    """The shards as webdataset is given them; it expands the braces before it starts a command for each."""
    return f"pipe:{shlex.join([str(program.path), 'cat', *arguments])} {names}"


def test_webdataset_reads_pipes(program: Program, small: Dataset, right: Path) -> None:
    """The same samples as of the files, with workers of their own processes, and no shard left out."""
    count = len(shards(right))
    pattern = pipes(program, [*small.flags(), *map(str, SMALL_FLAGS)], f"{{000000..{count - 1:06d}}}")
    piped = webdataset.WebDataset(pattern, shardshuffle=False, empty_check=False)
    loader = webdataset.WebLoader(piped, batch_size=None, num_workers=2, timeout=DEADLINE)
    expected = webdataset.WebDataset([str(path) for path in shards(right)], shardshuffle=False)
    found = {sample["__key__"]: sample for sample in loader}
    read = {sample["__key__"]: sample for sample in expected}
    assert found.keys() == read.keys() and len(read) == 6
    for key, sample in read.items():
        assert all(found[key][name] == sample[name] for name in ("bin", "json", "txt", "labels"))


def test_a_reader_that_has_enough(program: Program, small: Dataset) -> None:
    """No error, and nothing is left running: as with `head`, and where webdataset's user leaves the loop."""
    command = [str(program.path), "cat", *small.flags(), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        assert len(process.stdout.read(100_000)) == 100_000
        process.stdout.close()
        assert process.wait(DEADLINE) == 0 and b"error" not in process.stderr.read()


@pytest.mark.parametrize("deflated", [False, True], ids=["stored", "deflated"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_damaged_volume(program: Program, tmp_path: Path, deflated: bool, order: str) -> None:
    """Exit code 1 and the file's name, before the volume's last bytes; what stands before it was right."""
    data = noise_dataset(tmp_path / "data", 3, deflated=deflated, order="C" if order == "C" else "F")
    whole = cat(program, *data.flags(), "0").stdout
    volume = data.folder / "v01.npz"
    content = bytearray(volume.read_bytes())
    content[len(content) * 3 // 4] ^= 0x10  # of what is stored, only the checksum tells
    volume.write_bytes(content)
    done = cat(program, *data.flags(), "--rescan", "0")
    assert done.returncode == 1 and b"ctwds-fs: error: " in done.stderr and b"v01.npz" in done.stderr, done.stderr
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        voxels = [member for member in archive if member.name.endswith(".bin")][1]
    assert done.stdout[: voxels.offset] == whole[: voxels.offset], "the samples before it"
    assert len(done.stdout) < voxels.offset_data + voxels.size, "its last bytes were not written"


def test_webdataset_sees_the_damage(program: Program, tmp_path: Path) -> None:
    """A training does not take a shard that was cut off for a whole one."""
    data = noise_dataset(tmp_path / "data", 2, deflated=True)
    volume = data.folder / "v01.npz"
    content = bytearray(volume.read_bytes())
    content[len(content) // 2] ^= 0xFF
    volume.write_bytes(content)
    source = webdataset.WebDataset(pipes(program, data.flags(), "0"), shardshuffle=False, empty_check=False)
    with pytest.raises((OSError, ValueError, EOFError, tarfile.TarError)):
        list(source)


def test_a_full_disk(program: Program, small: Dataset) -> None:
    """Exit code 1 with the reason."""
    with open("/dev/full", "wb") as full:
        command = [str(program.path), "cat", *small.flags(), "0"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=DEADLINE, check=False)
    assert done.returncode == 1 and b"cannot print the shard" in done.stderr


@pytest.mark.parametrize("name", ["shard-000009.tar", "9", "shard-0.tar", "train.tar", "-1", ""])
def test_a_shard_that_is_not_there(program: Program, small: Dataset, name: str) -> None:
    """Wrong usage, and which shards there are; nothing is written."""
    done = cat(program, *small.flags(), *SMALL_FLAGS, "--", name)
    assert done.returncode == 2 and done.stdout == b"", done.stderr
    assert b"shard-000000.tar to shard-00000" in done.stderr


def test_a_terminal_gets_no_shard(program: Program, small: Dataset) -> None:
    """Whoever typed it learns what it is for."""
    window, terminal = os.openpty()
    try:
        command = [str(program.path), "cat", *small.flags(), "0"]
        done = subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, timeout=DEADLINE, check=False)
    finally:
        os.close(window)
        os.close(terminal)
    assert done.returncode == 1 and b"to a file or a pipe" in done.stderr


def test_a_mount_without_the_device(program: Program, small: Dataset, base: Path) -> None:
    """As in a container: the error says what goes without it, whoever is asked to mount."""
    require_fuse()
    hide = 'mount -t tmpfs -o mode=755 ctwds-test /dev && : > /dev/null && exec "$@"'
    command = [str(program.path), "mount", *small.flags(), "--log-file", str(base / "log"), str(base / "mount")]
    session = ["unshare", "--mount", "--propagation", "private", "bash", "-c", hide, "bash", *command]
    done = subprocess.run(session, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 1, done.stderr
    for way in ("/dev/fuse", "ctwds-fs cat", "ctwds-fs materialize", "the Python package ctwds"):
        assert way in done.stderr, done.stderr


def test_voxels(program: Program, small: Dataset) -> None:
    """The first volume of a shard in a pipe is NumPy's float16 of its file."""
    done = cat(program, *small.flags(), "0")
    source = np.load(min(small.folder.glob("*.npz")))["data"].astype("<f2").tobytes()
    assert source in done.stdout

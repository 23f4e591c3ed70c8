"""Volumes that turn out to be unusable only when they are read: damaged data, values beyond float16, and sources that
changed after they were planned. Readers get an error, never other bytes than the right ones."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty import faulty_folder
from harness import Program, digest, needs_root, require_fuse, shards
from make_dataset import Dataset
from small_datasets import noise_dataset, write_dataset

BLOCK = 1 << 16
SMALL, LARGE = (32, 32, 96), (160, 160, 96)  # as float16 200 kB, less than a request, and 5 MB, more than many
HUGE = (192, 192, 128)  # 9 MB: parts of a stored volume of this size may be read without the rest
BAD = 1  # the volume that the tests damage, between two sound ones of the same shard
KINDS: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    "small deflated": (SMALL, {"deflated": True, "dtype": "i2"}),  # integers: damage then cannot look like overflow
    "large deflated": (LARGE, {"deflated": True, "dtype": "i2"}),
    "small stored": (SMALL, {}),
    "huge stored": (HUGE, {}),
    "large fortran": (LARGE, {"order": "F"}),
}


@dataclass(frozen=True)
class Case:
    """A data set of two shards, with three volumes and one, and what it gives while it is sound."""

    dataset: Dataset
    right: Path

    @property
    def bad(self) -> Path:
        """The volume that is going to be damaged."""
        return self.dataset.folder / f"v{BAD:02d}.npz"

    def flags(self) -> list[str]:
        """The program's arguments for it."""
        return [*self.dataset.flags(), "--samples-per-shard", "3"]

    def members(self) -> list[tarfile.TarInfo]:
        """The members of the first shard."""
        with tarfile.open(self.right / "shard-000000.tar") as tar:
            return tar.getmembers()

    def bad_range(self) -> range:
        """The damaged voxels' place in the first shard."""
        (member,) = [member for member in self.members() if member.name == f"000000_{BAD:06d}.bin"]
        return range(member.offset_data, member.offset_data + member.size)

    def check_all_but_the_bad(self, point: Path) -> None:
        """Every header and every other member is readable and right, and so is the other shard."""
        right = (self.right / "shard-000000.tar").read_bytes()
        for member in self.members():
            data = range(member.offset_data, member.offset_data + member.size)
            for wanted in [range(member.offset, member.offset_data), data]:
                if wanted != self.bad_range():
                    got = forward(point / "shard-000000.tar", wanted)
                    assert got == right[wanted.start : wanted.stop], member.name
        assert digest(point / "shard-000001.tar") == digest(self.right / "shard-000001.tar")


@pytest.fixture(scope="module")
def cases(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """Makes a data set in each way that the program reads sources, once."""
    made: dict[str, Case] = {}

    def make(kind: str) -> Case:
        if kind not in made:
            shape, options = KINDS[kind]
            out = tmp_path_factory.mktemp("damage")
            dataset = noise_dataset(out, 4, shape, **options)
            made[kind] = Case(dataset, program.materialize(dataset, out / "right", "--samples-per-shard", 3))
        return made[kind]

    return make


def flip(path: Path, place: float = 0.5) -> None:
    """Change one byte in the array's data, as a failing disk does; time and size stay."""
    before = path.stat()
    with zipfile.ZipFile(path) as archive:
        member = archive.infolist()[0]
    content = bytearray(path.read_bytes())
    name, extra = content[member.header_offset + 26], content[member.header_offset + 28]
    # In a stored array the highest byte of a float, so that float16 shows the difference.
    content[member.header_offset + 30 + name + extra + 128 + int(member.compress_size * place) // 4 * 4 + 3] ^= 0x40
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextmanager
def damaged(path: Path, place: float = 0.5) -> Iterator[None]:
    """The file is damaged for the time of the block."""
    flip(path, place)
    try:
        yield
    finally:
        flip(path, place)


def errors_of(point: Path) -> list[str]:
    """What the log of a mount calls an error."""
    return [line for line in (point.parent / "log").read_text().splitlines() if "ERROR" in line]


# --- orders of reading -----------------------------------------------------------------------------------------------


def forward(path: Path, wanted: range) -> bytes:
    """One block after the other."""
    got = bytearray()
    with path.open("rb", buffering=0) as file:
        while len(got) < len(wanted) and (part := os.pread(file.fileno(), len(wanted) - len(got), wanted[len(got)])):
            got += part
    return bytes(got)


def backward(path: Path, wanted: range) -> bytes:
    """The last block first, each through a file opened for it."""
    blocks = [wanted[start : start + BLOCK] for start in range(0, len(wanted), BLOCK)]
    return b"".join(reversed([forward(path, block) for block in reversed(blocks)]))


def scattered(path: Path, wanted: range) -> bytes:
    """Every block once, in a random order, through one open file and without read-ahead."""
    starts = list(range(0, len(wanted), BLOCK))
    got: dict[int, bytes] = {}
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for start in random.Random(4).sample(starts, len(starts)):
            block = wanted[start : start + BLOCK]
            got[start] = os.pread(file.fileno(), len(block), block[0])
    return b"".join(got[start] for start in starts)


def mapped(path: Path, wanted: range) -> bytes:
    """Through mmap, in a process of its own: a page that cannot be read ends it with SIGBUS."""
    code = "import mmap,sys; f=open(sys.argv[1],'rb'); m=mmap.mmap(f.fileno(),0,access=mmap.ACCESS_READ); "
    code += "sys.stdout.buffer.write(m[int(sys.argv[2]):int(sys.argv[3])])"
    command = [sys.executable, "-c", code, str(path), str(wanted.start), str(wanted.stop)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    if done.returncode == -signal.SIGBUS:
        raise OSError(errno.EIO, "SIGBUS")
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- damaged data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [forward, backward, scattered, mapped])
@pytest.mark.parametrize(
    ("kind", "place"), [*((kind, 0.5) for kind in KINDS), ("huge stored", 0.01), ("huge stored", 0.99)]
)
def test_damaged_volume_gives_eio(
    program: Program, cases: Callable[[str], Case], kind: str, place: float, read: Callable[[Path, range], bytes]
) -> None:
    """Whoever reads all of it gets EIO, in whatever order, the second reader as well; everything else in the shard is
    readable; and the log has the file and the reason once."""
    case = cases(kind)
    wanted = case.bad_range()
    right = (case.right / "shard-000000.tar").read_bytes()[wanted.start : wanted.stop]
    with damaged(case.bad, place), program.mounted(case.dataset, "--samples-per-shard", 3) as point:
        for attempt in range(3):
            try:
                wrong = read(point / "shard-000000.tar", wanted) != right
            except OSError as error:
                assert error.errno == errno.EIO
            else:
                pytest.fail(f"attempt {attempt}: the damaged volume was read without an error; wrong bytes: {wrong}")
        case.check_all_but_the_bad(point)
        (line,) = errors_of(point)
        assert str(case.bad) in line and ("CRC" in line or "deflate" in line)


@pytest.mark.parametrize("kind", ["small deflated", "small stored"])
def test_materialize_with_a_damaged_volume(
    program: Program, cases: Callable[[str], Case], tmp_path: Path, kind: str
) -> None:
    """That shard fails and is listed, the others are finished, there is no manifest; once the file is restored, the
    same command makes just what is missing."""
    case = cases(kind)
    flags = [*case.flags(), "--output-dir", tmp_path]
    with damaged(case.bad):
        for _ in range(2):
            message = program.refuses("materialize", *flags)
            assert "1 shard could not be made" in message and "run the same command again" in message
            (line,) = [line for line in message.splitlines() if line.startswith("  shard-")]
            assert "shard-000000.tar" in line and str(case.bad) in line and ("CRC" in line or "deflate" in line)
            assert sorted(os.listdir(tmp_path)) == [".ctwds", "quarantine.csv", "shard-000001.tar"]
    os.utime(case.bad)  # restored from a backup, which need not keep the time
    assert "1 shard written, 1 kept" in program.run("materialize", *flags).stdout
    assert not (tmp_path / "quarantine.csv").exists()
    for path in [*shards(case.right), case.right / "manifest.json"]:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("value", [65520.0, -1e6, np.inf])
def test_overflow_is_an_error(program: Program, tmp_path: Path, value: float) -> None:
    """By default a value beyond float16 fails its volume: the message has the voxel, the value and the options that
    accept it. An infinity is a value of float16."""
    array = np.zeros((4, 5, 6), "f4")
    array[1, 2, 3] = value
    dataset = write_dataset(tmp_path, {"v0.npz": {"data": array}, "v1.npz": {"data": np.zeros((4, 5, 6), "f4")}})
    flags = [*dataset.flags(), "--samples-per-shard", "1", "--output-dir", tmp_path / "out"]
    if np.isinf(value):
        program.run("materialize", *flags)
        return
    message = program.refuses("materialize", *flags)
    for part in ("v0.npz", "[1, 2, 3]", f"{value:.0f}", "--overflow", "saturate", "inf"):
        assert part in message
    assert [path.name for path in shards(tmp_path / "out")] == ["shard-000001.tar"]
    with program.mounted(dataset, "--samples-per-shard", 1) as point:
        with pytest.raises(OSError) as caught:
            (point / "shard-000000.tar").read_bytes()
        assert caught.value.errno == errno.EIO and "[1, 2, 3]" in errors_of(point)[0]
        assert digest(point / "shard-000001.tar") == digest(tmp_path / "out" / "shard-000001.tar")


# --- sources that changed --------------------------------------------------------------------------------------------


def touch(path: Path) -> None:
    """Only the time."""
    os.utime(path, ns=(0, 1_000_000_000))


def grow(path: Path) -> None:
    """Only the size: the data is where it was."""
    before = path.stat()
    with path.open("ab") as file:
        file.write(b"\0")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchange(path: Path) -> None:
    """Another volume of the same shape, with the time of the old one, by rename."""
    before = path.stat()
    with np.load(path) as arrays:
        np.savez(path.with_suffix(".new.npz"), data=arrays["data"] + 1)
    os.utime(path.with_suffix(".new.npz"), ns=(before.st_atime_ns, before.st_mtime_ns))
    path.with_suffix(".new.npz").rename(path)


def overwrite(path: Path) -> None:
    """Another volume of the same shape, in the same file."""
    with np.load(path) as arrays:
        other = arrays["data"] + 1
    np.savez(path, data=other)


def cut(path: Path) -> None:
    """The second half is gone."""
    os.truncate(path, path.stat().st_size // 2)


def rewrite(path: Path) -> None:
    """Another volume of the same shape, in the same file, under the old time: only the ctime tells."""
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


CHANGES = [touch, grow, exchange, overwrite, rewrite, flip, cut, Path.unlink]


@pytest.mark.parametrize("change", CHANGES)
def test_source_that_changes_while_mounted(program: Program, tmp_path: Path, change: Callable[[Path], None]) -> None:
    """ESTALE for its voxels, for every reader; all else is served; the log has the file, the change and the remedy."""
    dataset = noise_dataset(tmp_path, 4, SMALL)
    case = Case(dataset, program.materialize(dataset, tmp_path / "right", "--samples-per-shard", 3))
    with program.mounted(dataset, "--samples-per-shard", 3) as point:
        change(case.bad)
        for _ in range(3):
            with pytest.raises(OSError) as caught:
                forward(point / "shard-000000.tar", case.bad_range())
            assert caught.value.errno == errno.ESTALE
        case.check_all_but_the_bad(point)
        (error,) = errors_of(point)
        assert str(case.bad) in error and "changed" in error and "again" in error


@pytest.mark.parametrize("change", CHANGES)
def test_source_that_changes_after_it_was_begun(
    program: Program, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """What is served of it, before and after, are the planned bytes; the rest is an error."""
    dataset = noise_dataset(tmp_path, 4, LARGE)
    case = Case(dataset, program.materialize(dataset, tmp_path / "right", "--samples-per-shard", 3))
    right = (case.right / "shard-000000.tar").read_bytes()
    wanted = case.bad_range()
    with program.mounted(dataset, "--samples-per-shard", 3) as point:
        shard = point / "shard-000000.tar"
        assert forward(shard, range(wanted.start + 4096)) == right[: wanted.start + 4096]
        change(case.bad)
        for start in range(wanted.start, wanted.stop, BLOCK):
            block = range(start, min(start + BLOCK, wanted.stop))
            try:
                got = forward(shard, block)
            except OSError as error:
                assert error.errno == errno.ESTALE
            else:
                assert got == right[block.start : block.stop]
        case.check_all_but_the_bad(point)


@needs_root
@pytest.mark.parametrize("told_by", ["mtimes", "ctimes"])
def test_source_that_changes_while_it_is_read(program: Program, tmp_path: Path, told_by: str) -> None:
    """The new voxels appear between two reads of the old: none of them is served, whichever time tells."""
    require_fuse()
    dataset = noise_dataset(tmp_path, 1, LARGE)
    right = (program.materialize(dataset, tmp_path / "right") / "shard-000000.tar").read_bytes()
    old = (dataset.folder / "v00.npz").read_bytes()
    overwrite(dataset.folder / "v00.npz")
    new = (dataset.folder / "v00.npz").read_bytes()
    with faulty_folder({"v00.npz": old}) as folder:
        reads: list[str] = []

        def change_half_way(name: str) -> None:
            reads.append(name)
            if len(reads) == 40:
                folder.files[name] = new
                getattr(folder, told_by)[name] = 2

        with program.mounted(replace(dataset, folder=folder.point)) as point:
            reads.clear()
            folder.on_read = change_half_way
            got = bytearray()
            with pytest.raises(OSError) as caught, (point / "shard-000000.tar").open("rb", buffering=0) as file:
                while part := file.read(BLOCK):
                    got += part
            assert caught.value.errno in (errno.ESTALE, errno.EIO)
            assert len(reads) >= 40, "the volume did not change while it was read"
            assert bytes(got) == right[: len(got)]


def test_source_that_comes_back(program: Program, tmp_path: Path) -> None:
    """A folder that was not there for a moment (a share, say) costs nothing but the reads of that moment."""
    dataset = noise_dataset(tmp_path, 2, SMALL)
    right = program.materialize(dataset, tmp_path / "right")
    with program.mounted(dataset) as point:
        away = shutil.move(dataset.folder, tmp_path / "away")
        with pytest.raises(OSError) as caught:
            (point / "shard-000000.tar").read_bytes()
        assert caught.value.errno in (errno.ESTALE, errno.EIO)
        shutil.move(away, dataset.folder)
        assert (point / "shard-000000.tar").read_bytes() == (right / "shard-000000.tar").read_bytes()

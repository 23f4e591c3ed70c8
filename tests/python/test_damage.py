"""Volumes that turn out to be unusable only when they are read: damaged data, values beyond float16, and sources that
changed while mounted. Readers get an error, never other bytes than the right ones."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from harness import Program, digest, shards
from make_dataset import Dataset
from small_datasets import noise_dataset, write_dataset

BLOCK = 1 << 16
SMALL, LARGE = (32, 32, 96), (160, 160, 96)  # as float16 200 kB, less than a request, and 5 MB, more than many
BAD = 1  # the volume that the tests damage, between two sound ones of the same shard
KINDS = ["small deflated", "large deflated", "small stored", "large stored", "large fortran"]


def flip(path: Path, bits: int = 0x40) -> None:
    """Change one byte in the middle of the array's data, as a failing disk does; time and size stay."""
    before = path.stat()
    with zipfile.ZipFile(path) as archive:
        member = archive.infolist()[0]
    content = bytearray(path.read_bytes())
    name, extra = content[member.header_offset + 26], content[member.header_offset + 28]
    # In the middle of the data, and of a float's exponent where it is stored, so that float16 keeps the difference.
    at = member.header_offset + 30 + name + extra + 128 + (member.compress_size // 2) // 4 * 4 + 3
    content[at] ^= bits
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@dataclass(frozen=True)
class Case:
    """A data set of two shards with three volumes each, and what it gives while it is sound."""

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


def make_case(program: Program, out: Path, kind: str) -> Case:
    """The data set of a kind."""
    size, how = kind.split()
    shape = SMALL if size == "small" else LARGE
    if how == "fortran":
        rng = np.random.default_rng(1)
        arrays = [np.asfortranarray(rng.integers(-1000, 1000, shape).astype("f4")) for _ in range(4)]
        dataset = write_dataset(out, {f"v{n:02d}.npz": {"data": array} for n, array in enumerate(arrays)})
    else:
        dataset = noise_dataset(out, 4, shape, deflated=how == "deflated")
    right = program.materialize(dataset, out / "right", "--samples-per-shard", 3)
    return Case(dataset, right)


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, program: Program, tmp_path: Path) -> Case:
    """A data set in each way that the program reads sources."""
    return make_case(program, tmp_path, request.param)


def read_range(path: Path, wanted: range) -> bytes:
    """The bytes, by as many reads as it takes."""
    got = bytearray()
    with path.open("rb", buffering=0) as file:
        while len(got) < len(wanted) and (part := os.pread(file.fileno(), len(wanted) - len(got), wanted[len(got)])):
            got += part
    return bytes(got)


# --- damaged data ----------------------------------------------------------------------------------------------------


def forward(path: Path, wanted: range) -> bytes:
    """One block after the other."""
    return read_range(path, wanted)


def backward(path: Path, wanted: range) -> bytes:
    """The last block first, which looks like a reader of headers."""
    blocks = [wanted[start : start + BLOCK] for start in range(0, len(wanted), BLOCK)]
    return b"".join(reversed([read_range(path, block) for block in reversed(blocks)]))


def scattered(path: Path, wanted: range) -> bytes:
    """Every block once, in a random order, through one open file."""
    starts = list(range(0, len(wanted), BLOCK))
    got: dict[int, bytes] = {}
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for start in random.Random(4).sample(starts, len(starts)):
            block = wanted[start : start + BLOCK]
            got[start] = os.pread(file.fileno(), len(block), block[0])
    return b"".join(got[start] for start in starts)


def mapped(path: Path, wanted: range) -> bytes:
    """Through mmap, in a process of its own: a page that cannot be read kills it with SIGBUS."""
    code = "import mmap,sys; f=open(sys.argv[1],'rb'); m=mmap.mmap(f.fileno(),0,access=mmap.ACCESS_READ); "
    code += "sys.stdout.buffer.write(m[int(sys.argv[2]):int(sys.argv[3])])"
    command = [sys.executable, "-c", code, str(path), str(wanted[0]), str(wanted[-1] + 1)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    if done.returncode == -signal.SIGBUS:
        raise OSError(errno.EIO, "SIGBUS")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("read", [forward, backward, scattered, mapped])
def test_damaged_volume_gives_eio(
    program: Program, case: Case, read: Callable[[Path, range], bytes]
) -> None:
    """Whoever reads all of it gets EIO, in whatever order, the second reader as well; everything else in the shard is
    readable, before and after; and the log has the file and the reason once."""
    flip(case.bad)
    right = (case.right / "shard-000000.tar").read_bytes()
    with program.mounted(case.dataset, "--samples-per-shard", 3) as point:
        shard = point / "shard-000000.tar"
        for attempt in range(3):
            with pytest.raises(OSError) as caught:
                pytest.fail(f"attempt {attempt}: all of a damaged volume was read without an error, and its bytes are "
                            f"{'right' if read(shard, case.bad_range()) == right[case.bad_range()[0]:][:len(case.bad_range())] else 'wrong'}")
            assert caught.value.errno == errno.EIO
        for member in case.members():
            header = range(member.offset, member.offset_data)
            assert read_range(shard, header) == right[header.start : header.stop], member.name
            data = range(member.offset_data, member.offset_data + member.size)
            if data != case.bad_range():
                assert read_range(shard, data) == right[data.start : data.stop], member.name
        assert digest(point / "shard-000001.tar") == digest(case.right / "shard-000001.tar")
        errors = [line for line in (point.parent / "log").read_text().splitlines() if "ERROR" in line]
        assert len(errors) == 1 and str(case.bad) in errors[0], errors
        assert "CRC" in errors[0] or "deflate" in errors[0], errors

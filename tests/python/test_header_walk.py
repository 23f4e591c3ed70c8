"""Walking the headers of a shard converts no volume, read-ahead of the kernel included; reading one converts one."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Program, shards
from numpy.typing import NDArray
from small_datasets import write_dataset

COUNT = 3
SHAPE = (256, 256, 64)  # 8 MiB of float16: far more than any read-ahead


def voxels(index: int) -> NDArray[Any]:
    """Values that are exact in float16 and differ from place to place."""
    return (np.arange(np.prod(SHAPE), dtype=np.float32) % (2039 - index)).reshape(SHAPE)


@pytest.fixture
def fresh(program: Program, tmp_path: Path) -> Iterator[Path]:
    """A new mount of a few volumes, stored and in C order, in one shard."""
    volumes = {f"v{index}.npz": {"data": voxels(index)} for index in range(COUNT)}
    dataset = write_dataset(tmp_path, volumes, writer="numpy")
    with program.mounted(dataset) as point:
        yield point


def decoded(point: Path) -> int:
    """The counter, as the mount tells it now."""
    return json.loads((point / ".ctwds" / "stats.json").read_text())["volumes_decoded"]


def test_gnu_tar_lists_without_converting(fresh: Path) -> None:
    """`tar -tf` seeks over the members."""
    (shard,) = shards(fresh)
    listed = subprocess.run(["tar", "-tvf", shard], capture_output=True, text=True, check=True, timeout=60)
    assert len(listed.stdout.splitlines()) == COUNT * 4
    assert decoded(fresh) == 0


def test_tarfile_walks_without_converting(fresh: Path) -> None:
    """Opening with auto-detection reads the head up to four times, and each member's last byte."""
    (shard,) = shards(fresh)
    with tarfile.open(shard) as tar:
        infos = tar.getmembers()
    assert [info.size for info in infos if info.name.endswith(".bin")] == [2 * np.prod(SHAPE)] * COUNT
    assert decoded(fresh) == 0


def test_small_members_convert_nothing(fresh: Path) -> None:
    """Texts, labels and JSON come from the tables."""
    (shard,) = shards(fresh)
    with tarfile.open(shard) as tar:
        for info in tar.getmembers():
            if not info.name.endswith(".bin"):
                member = tar.extractfile(info)
                assert member is not None and len(member.read()) == info.size
    assert decoded(fresh) == 0


def test_reading_a_member_converts_it_once(fresh: Path) -> None:
    """The second read is served from memory, through another handle as well. The last member: nothing is behind it
    that the program might convert ahead of a sequential reader."""
    (shard,) = shards(fresh)
    last = COUNT - 1
    for _ in range(2):
        with tarfile.open(shard) as tar:
            member = tar.extractfile(f"000000_{last:06d}.bin")
            assert member is not None
            assert member.read() == voxels(last).astype("<f2").tobytes()
        assert decoded(fresh) == 1

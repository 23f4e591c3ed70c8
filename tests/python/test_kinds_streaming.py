"""That a preprocessed volume is made as its planes arrive: early, and in little memory."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest
from faulty import faulty_folder
from harness import Program, daemon_of, needs_root, require_fuse, shards
from kinds import Steps
from make_dataset import Dataset
from npzfiles import Order
from small_datasets import noise_dataset

WITHIN = 30  # seconds that a read may take that does not wait for the rest of its source
MIB = 1 << 20


@needs_root
@pytest.mark.parametrize("kind", ["rescaled", "preprocessed"])
@pytest.mark.parametrize("deflated", [False, True])
def test_the_first_bytes_do_not_wait_for_the_last_planes(
    program: Program, tmp_path: Path, kind: str, deflated: bool
) -> None:
    """The source stops answering half-way: what lies before has been served."""
    require_fuse()
    data = noise_dataset(tmp_path / "data", 1, (64, 128, 256), deflated=deflated)  # 8 MiB, in reads of 128 KiB
    (path,) = data.volumes()
    flags = ["--volume", kind, "--rescale", "table", *Steps(shape=(80, 100, 128)).flags()]
    half, go_on = path.stat().st_size // (128 << 10) // 2, threading.Event()
    with faulty_folder({path.name: path.read_bytes()}) as folder:
        slow = Dataset(folder.point, data.reports, data.meta, data.labels)
        with program.mounted(slow, *flags, "--page-cache", "off") as point:
            reads = []

            def stop_half_way(name: str) -> None:
                reads.append(name)
                if len(reads) > half:
                    assert go_on.wait(2 * WITHIN), "nobody waits for the rest"

            folder.on_read = stop_half_way
            with shards(point)[0].open("rb", buffering=0) as file:
                first = []
                reader = threading.Thread(target=lambda: first.append(file.read(100_000)), daemon=True)
                reader.start()
                reader.join(WITHIN)
                came_early = bool(first)
                go_on.set()
                reader.join(WITHIN)
                assert came_early, f"the first bytes wait for more than the first half of the source, {half} reads"
                content = first[0] + file.read()
                while more := file.read():
                    content += more
    right = program.materialize(data, tmp_path / "right", *flags)
    assert content == shards(right)[0].read_bytes()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("deflated", [False, True])
def test_memory_is_that_of_the_result(program: Program, tmp_path: Path, order: Order, deflated: bool) -> None:
    """And of some planes. The source has 96 MiB, a plane of it 256 KiB or 384 KiB; the result has 1 MiB, and a block of
    its planes in Fortran order as much."""
    plane = np.broadcast_to(np.arange(-500, 524, 4)[:, None, None], (256, 256, 1))  # deflates at once
    sources = {"large": (256, 256, 384), "small": (16, 16, 16)}
    steps, peaks = Steps(shape=(64, 64, 128)), {}
    for name, shape in sources.items():
        data = noise_dataset(tmp_path / name, 1, (2, 2, 2))
        volume = np.broadcast_to(plane[: shape[0], : shape[1]], shape).astype("f4", order=order)
        (np.savez_compressed if deflated else np.savez)(data.volumes()[0], data=volume)
        del volume
        flags = [
            "--volume",
            "preprocessed",
            "--rescale",
            "table",
            *steps.flags(),
            "--threads",
            1,
            "--cache-size",
            "8MiB",
        ]
        with program.mounted(data, *flags) as point:
            status = Path(f"/proc/{daemon_of(point)}/status")
            assert np.frombuffer(shards(point)[0].read_bytes()[512:], np.float16, steps_len(steps)).max() <= 1
            peak = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
            assert peak is not None
            peaks[name] = int(peak[1]) * 1024
    assert peaks["large"] - peaks["small"] <= 8 * MIB, peaks


def steps_len(steps: Steps) -> int:
    """The voxels of a result."""
    height, width, depth = steps.shape
    return height * width * depth

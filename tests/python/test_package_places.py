"""The package in bad places: a mount whose process has died, a full /dev/shm, a data set that was closed. Each is an
exception of the package with the place, the reason and what to do; nothing hangs and no interpreter is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctwds
import pytest
from harness import REPOSITORY, Program, daemon_of, mount_folder, needs_root, require_fuse
from make_dataset import Dataset
from small_datasets import noise_dataset
from test_in_process import options

DEADLINE = 100  # seconds
TINY: dict[str, Any] = {"shape": (4, 4, 4), "spacing": (0.75, 0.75, 1.5)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six volumes that are not in any cache at once."""
    return noise_dataset(tmp_path_factory.mktemp("data"), 6, (64, 64, 32), deflated=True)


def test_a_mount_that_died(program: Program, dataset: Dataset) -> None:
    """While loaders read it: the message says that it is gone, and to mount again. What is opened later says it too."""
    require_fuse()
    with mount_folder() as base:
        point = base / "mount"
        program.run("mount", *dataset.flags(), "--samples-per-shard", 2, "--log-file", base / "log", point)
        data = ctwds.open(point)
        web = ctwds.CTReportWebDataset(point, False, **TINY)
        running: list[Any] = [iter(ctwds.Loader(data)), *(iter(web.make_loader(1, n)) for n in (0, 1))]
        for iterator in running:
            next(iterator)
        os.kill(daemon_of(point), signal.SIGKILL)
        ways: list[Callable[[], Any]] = [
            *(lambda iterator=iterator: list(iterator) for iterator in running),
            lambda: data[5],
            lambda: data.region(3, [slice(0, 4)] * 3),
            lambda: ctwds.open(point),
            lambda: list(ctwds.CTReportWebDataset(point, False, **TINY).make_loader(1, 0)),
        ]
        for way in ways:
            with pytest.raises(ctwds.Error) as raised:
                way()
            assert str(point) in str(raised.value) and "mount" in str(raised.value).rpartition(": ")[2]
        running.clear()
        program.run("unmount", point)


FULL = """
import sys
import ctwds, ctwds.batches, ctwds.torch_loader
folder, batch = sys.argv[1], int(sys.argv[2])
if sys.argv[3] == "late":
    ctwds.batches.SHARED = "/"  # it looks for room elsewhere, as if another process had taken it meanwhile
try:
    data = ctwds.CTReportWebDataset(folder, False, shape=(64, 64, 64), spacing=(0.75, 0.75, 1.5))
    print(len(list(data.make_loader(batch, 2, prefetch_factor=4, timeout=60))))
except ctwds.LoaderError as error:
    print("refused", str(error).splitlines()[-1])
print(sum(len(batch.id) for batch in ctwds.Loader(ctwds.open(folder), batch_size=2)))
"""


@needs_root
@pytest.mark.parametrize(("batch", "when"), [(1, "early"), (3, "early"), (3, "late")])
def test_a_full_dev_shm(program: Program, dataset: Dataset, tmp_path: Path, batch: int, when: str) -> None:
    """Two MB, with batches of one MB that do not fit together, or of three; seen before or only when it is written.
    `ctwds.Loader` needs none of it."""
    said, whole = read_with_a_dev_shm(program, dataset, tmp_path, "2m", batch, when)
    assert said.startswith("refused") and "/dev/shm" in said and "--shm-size=16g" in said and "num_workers=0" in said
    assert whole == "6"


@needs_root
def test_a_dev_shm_without_a_limit(program: Program, dataset: Dataset, tmp_path: Path) -> None:
    """It says that no byte of it is free, of none in all."""
    assert read_with_a_dev_shm(program, dataset, tmp_path, "0", 1, "early") == ["6", "6"]


@needs_root
def test_a_dev_shm_that_is_not_ours(program: Program, dataset: Dataset, tmp_path: Path) -> None:
    """Read-only, as for an ordinary user where only root may write: known when the loader is made."""
    said, whole = read_with_a_dev_shm(program, dataset, tmp_path, "1m,ro", 1, "early")
    assert said.startswith("refused /dev/shm: ") and "1777" in said and "ctwds.Loader" in said
    assert whole == "6"


def read_with_a_dev_shm(
    program: Program, dataset: Dataset, tmp_path: Path, size: str, batch: int, when: str
) -> list[str]:
    """What FULL prints; with the size may stand further options of the mount."""
    folder = program.materialize(dataset, tmp_path / "shards", "--samples-per-shard", 1)
    (tmp_path / "read.py").write_text(FULL)
    command = (
        f"mount -t tmpfs -o size={size} none /dev/shm && "
        f"exec {sys.executable} {tmp_path}/read.py {folder} {batch} {when}"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", command],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "python")},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_closed_data_set_of_the_current_folder(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened without an argument, by the file that is there."""
    (tmp_path / "ctwds.toml").write_text("".join(f'{key} = "{value}"\n' for key, value in options(dataset).items()))
    monkeypatch.chdir(tmp_path)
    data = ctwds.open()
    data.close()
    with pytest.raises(ctwds.Error, match=r"^ctwds\.toml: the data set was closed: open it again"):
        _ = data[0]


def test_a_closed_data_set(dataset: Dataset) -> None:
    """Whatever is asked of it; the message names it."""
    data = ctwds.open(**options(dataset))
    loader = ctwds.Loader(data)
    running = iter(loader)
    assert next(running).id == ["v00"]
    data.close()
    out = data.info(0).shape
    ways: list[Callable[[], Any]] = [
        lambda: data[0],
        lambda: data.region(0, [slice(0, 4)] * 3),
        lambda: data.dictionaries()[0],
        lambda: iter(loader),
        lambda: data[2:],
    ]
    for way in ways:
        with pytest.raises(ctwds.Error, match=rf"{dataset.folder}.*closed: open it again"):
            way()
    assert out == (64, 64, 32)
    assert [batch.id[0] for batch in running] == ["v01", "v02", "v03", "v04", "v05"], (
        "what has begun has its own decoders"
    )

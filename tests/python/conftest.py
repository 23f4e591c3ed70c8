"""Fixtures: the program, and one data set that is mounted, materialised and converted by the reference."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import reference
from bucket_runs import COUNT, FLAGS, Output, output
from every_command import Place, noisy_dataset
from harness import (
    PREFIX,
    READER_OPTIONS,
    SMALL_FLAGS,
    Program,
    Watchdog,
    find_program,
    force_unmount,
    mount_folder,
    mount_points,
    require_fuse,
    snapshot,
)
from make_dataset import Dataset, Options, make_dataset
from objects import Proxy, Storage, proxy, require_s3, storage
from small_datasets import noise_dataset


def pytest_configure() -> None:
    """Temporary folders are on a disk: `reclaim` removes nothing for shards in memory, where some systems have /tmp."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", tempfile.gettempdir()], capture_output=True, text=True, check=True)
    if kind.stdout.strip() == "tmpfs" and "TMPDIR" not in os.environ:
        os.environ["TMPDIR"] = tempfile.tempdir = "/var/tmp"


def pytest_runtest_setup() -> None:
    """A mount that serves a file's tests may live longer than one of them."""
    for watchdog in Watchdog.going:
        watchdog.again()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the program keeps of its scans is neither the user's nor left to the next run."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield cache


@pytest.fixture(scope="session")
def program() -> Program:
    """The binary under test."""
    return Program(find_program())


@pytest.fixture(scope="session", params=["materialize", "mount"])
def via(request: pytest.FixtureRequest) -> str:
    """How the shards are made: every test that asks for this runs both ways."""
    return request.param


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A CT-RATE-like data set of mixed orders and compressions, with strays and gaps."""
    out = tmp_path_factory.mktemp("dataset")
    return make_dataset(Options(out, volumes=14, size=(56, 48, 24), missing_zspacing=1, bom=True))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six volumes of 768 KiB as float16, for tests of a mount's life and use."""
    return noise_dataset(tmp_path_factory.mktemp("small"), 6)


@pytest.fixture(scope="module")
def right(program: Program, small: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their shards as files."""
    return program.materialize(small, tmp_path_factory.mktemp("right"), *SMALL_FLAGS)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """A bucket that is empty at first."""
    require_s3()
    with storage(tmp_path_factory.mktemp("storage")) as bucket:
        yield bucket


@pytest.fixture
def between(bucket: Storage) -> Iterator[Proxy]:
    """A proxy before the bucket, which at first only passes on."""
    with proxy(bucket.port) as between:
        yield between


@pytest.fixture(scope="session")
def slivers(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A volume of a kilobyte for each of four shards, for tests of runs into a bucket. No test changes it."""
    return noise_dataset(tmp_path_factory.mktemp("slivers"), COUNT, (8, 8, 8))


@pytest.fixture(scope="session")
def sliver_files(program: Program, slivers: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run makes of them on disk."""
    return program.materialize(slivers, tmp_path_factory.mktemp("sliver-files"), *FLAGS)


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Output]:
    """An output in an empty bucket."""
    require_s3()
    with output(tmp_path / "storage") as out:
        yield out


@pytest.fixture(scope="session")
def sources_before(dataset: Dataset) -> dict[str, tuple[str, int, int]]:
    """The state of the source files before anything touched them."""
    return snapshot(dataset)


@pytest.fixture(scope="session")
def expected(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards as the reference converter makes them."""
    out = tmp_path_factory.mktemp("expected")
    slots = reference.plan(dataset.folder, dataset.reports, dataset.meta, dataset.labels, READER_OPTIONS)
    reference.convert(slots, out, READER_OPTIONS)
    return out


@pytest.fixture(scope="session")
def files(program: Program, dataset: Dataset, sources_before: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards as files that the program wrote."""
    out = tmp_path_factory.mktemp("files")
    return program.materialize(dataset, out, *READER_OPTIONS.flags(), "--num-workers", 2)


@pytest.fixture(scope="module")
def mount(program: Program, dataset: Dataset, sources_before: object) -> Iterator[Path]:
    """The shards as a mount of the program; a new one for each module, so that one deadline covers it."""
    with program.mounted(dataset, *READER_OPTIONS.flags()) as point:
        yield point


@pytest.fixture(scope="module", params=["files", "mount"])
def folder(request: pytest.FixtureRequest) -> Path:
    """The shards, once as files and once as a mount: what a reader sees must be the same."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder with an empty folder `mount` in it, for a test that mounts there itself."""
    require_fuse()
    with mount_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def noisy(program: Program, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    """The data set of tests that disturb every command, and its shards as files."""
    data = noisy_dataset(tmp_path_factory.mktemp("noisy"))
    return data, program.materialize(data, tmp_path_factory.mktemp("shards"), *SMALL_FLAGS)


@pytest.fixture
def place(noisy: tuple[Dataset, Path], base: Path, tmp_path: Path) -> Place:
    """Where a command is disturbed; a mount that is there at the end is ended with `base`."""
    out = tmp_path / "out"
    out.mkdir()
    return Place(*noisy, out, base / "mount")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session", autouse=True)
def no_mount_left() -> Iterator[None]:
    """No mount of the tests may be left when they end."""
    yield
    prefix = str(Path(tempfile.gettempdir()).resolve() / PREFIX)
    left = [point for point in mount_points() if point.startswith(prefix)]
    for point in left:
        force_unmount(Path(point))
    assert not left, f"the tests left mounts: {left}"

"""`ctwds-fs verify` and its sources in a bucket, while the network fails and somebody else writes there: what could not
be compared is named with its address and the remedy, and nothing of it counts as fine."""

from __future__ import annotations

import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from damages import DAMAGED, UNCHECKED
from harness import Program, report_of, wait_until
from niftis import write, written
from npzfiles import write_npz
from objects import BUCKET, Faults, Proxy, Storage, variables
from small_datasets import noise_dataset
from test_bucket_sources import Sources, put
from test_bucket_verify import FLAGS, found, verify

COUNT = 6  # volumes
NO = "<?xml version='1.0'?><Error><Code>{}</Code><Message>no</Message></Error>"
# The look at values before anything is compared reads voxels too, but for this flag: then a plan reads headers alone.
PLAIN = (*FLAGS, "--rescale", "none")


@dataclass
class Compared:
    """Shards on a disk, and their sources in a bucket."""

    shards: Path
    sources: Sources
    folder: Path  # of the objects

    def run(self, program: Program, between: Proxy, *flags: object) -> tuple[int, list[str]]:
        """The exit code, and what was found."""
        done = verify(program, self.shards, between.port, *self.sources.flags(), "--rescale", "none", *flags)
        assert report_of(done)["verdict"] == {0: "fine", 3: "damaged", 5: "unchecked"}[done.returncode]
        return done.returncode, found(done)

    def address(self, number: int) -> str:
        """The address of a volume."""
        return f"{self.sources.address}/volumes/v{number:02d}.npz"


@pytest.fixture(scope="module")
def shards(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards, beside which the data set lies that they were made of."""
    base = tmp_path_factory.mktemp("compared")
    dataset = noise_dataset(base / "data", COUNT, (48, 48, 40))
    return program.materialize(dataset, base / "shards", *PLAIN)


@pytest.fixture
def compared(program: Program, shards: Path, bucket: Storage, request: pytest.FixtureRequest) -> Compared:
    """A copy of the sources for each test."""
    dataset = noise_dataset(shards.parent / "again" / request.node.name, COUNT, (48, 48, 40))
    prefix = re.sub(r"\W+", "-", request.node.name)
    return Compared(shards, put(bucket, dataset, prefix), bucket.folder / BUCKET / prefix / "volumes")


def planned(faults: Faults, name: str = "") -> bool:
    """Whether the plan has been made: it has asked twice for each NPZ, whose second range is its end."""
    asked = [path for method, path, _ in faults.requests if method == "GET" and path.endswith(".npz")]
    return len(asked) > 2 * COUNT and name in asked[-1]


def test_answers_that_break_off_and_refusals_that_pass(program: Program, compared: Compared, between: Proxy) -> None:
    """Cut connections and 503 in between cost time only."""
    lengths = [70_000, None, 3, None, 150_000]
    between.faults = Faults(
        cut=lambda path, number: lengths[number % 5] if path.endswith(".npz") else None,
        status=lambda path, number: 503 if number % 4 == 1 else 0,
    )
    assert compared.run(program, between) == (0, [])


def test_a_network_that_ends(program: Program, compared: Compared, between: Proxy) -> None:
    """Each sample that was asked for is named, the others are counted: nobody waits for each of a whole data set."""
    faults = between.faults = Faults()
    faults.status = lambda path, number: -1 if planned(faults) else 0
    begun = time.monotonic()
    code, lines = compared.run(program, between, "--storage-timeout", 3, "--num-workers", 1)
    assert code == UNCHECKED and time.monotonic() - begun < 60
    for number, line in enumerate(lines[:4]):
        assert f"v{number:02d}: it cannot be compared with its source: {compared.address(number)}: " in line, line
        assert "verify again when the storage answers; a larger --storage-timeout waits longer" in line, line
    assert len(lines) == 5 and "2 further samples were not compared, because the storage had stopped" in lines[4]
    assert compared.sources.address in lines[4]
    text = program.run(
        *("verify", "--shards", compared.shards, *compared.sources.flags(), *PLAIN, "--storage-timeout", 3),
        env=variables(between.port),
        check=False,
    )
    assert text.returncode == 1 and compared.sources.address in text.stderr, "the plan cannot be made"


def test_one_object_that_does_not_come(program: Program, compared: Compared, between: Proxy) -> None:
    """The others are compared all the same."""
    faults = between.faults = Faults(body=NO.format("SlowDown"))
    faults.status = lambda path, number: 503 if planned(faults) and "v02" in path else 0
    code, lines = compared.run(program, between, "--storage-timeout", 4)
    assert code == UNCHECKED and len(lines) == 1 and compared.address(2) in lines[0], lines
    assert "--storage-timeout" in lines[0]


@pytest.mark.parametrize(
    ("code", "status", "remedy"),
    [
        ("AccessDenied", 403, "these credentials may not read it"),
        ("ExpiredToken", 400, "the credentials have expired; get new ones and start again"),
        ("NoSuchKey", 404, "verify again when nobody writes there"),
    ],
)
def test_refusals_have_their_remedies(
    program: Program, compared: Compared, between: Proxy, code: str, status: int, remedy: str
) -> None:
    """Of the sources, after the plan was made."""
    faults = between.faults = Faults(body=NO.format(code))
    faults.status = lambda path, number: status if planned(faults) and path.endswith(".npz") else 0
    exit_code, lines = compared.run(program, between, "--num-workers", 1)
    # The request that shows that the plan is made was not refused.
    assert exit_code == UNCHECKED and len(lines) >= COUNT - 1
    assert all(remedy in line and compared.sources.address in line for line in lines), lines


def test_objects_of_two_states_are_never_mixed(
    program: Program, bucket: Storage, between: Proxy, tmp_path: Path
) -> None:
    """An object that is another one at the second answer, and all others of it."""
    dataset = noise_dataset(tmp_path / "data", 1, (64, 64, 96))
    compared = Compared(
        program.materialize(dataset, tmp_path / "out", *PLAIN),
        put(bucket, dataset, "mixed"),
        bucket.folder / BUCKET / "mixed" / "volumes",
    )
    asked: list[str] = []

    def late(path: str, number: int) -> str | None:
        asked.extend([path] if path.endswith(".npz") else [])
        return '"other"' if path.endswith(".npz") and len(asked) > 3 else None

    between.faults = Faults(tag=late)
    code, lines = compared.run(program, between)
    assert code == UNCHECKED and len(lines) == 1, lines
    assert f"{compared.address(0)}: the object was replaced while it was read" in lines[0]
    assert "verify again when nobody writes there" in lines[0]


def one_voxel(path: Path) -> None:
    """Another object of the same size, sound in itself, with another voxel."""
    with np.load(path) as archive:
        data = archive["data"].copy()
    data[1, 2, 3] += 1 if data[1, 2, 3] < 0 else -1
    write_npz(path, {"data": data}, writer="numpy")


CHANGES: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "another voxel": (one_voxel, DAMAGED, "voxels are wrong; voxel [1, 2, 3] is"),
    "another study": (
        lambda path: shutil.copy(path.with_name("v05.npz"), path),
        DAMAGED,
        "voxels are wrong; voxel [0, 0, 0] is",
    ),
    "another shape": (
        lambda path: write_npz(path, {"data": np.ones((4, 5, 6), "f4")}, writer="numpy"),
        DAMAGED,
        "its shape is [48, 48, 40], and [4, 5, 6] by its source",
    ),
    "shorter": (lambda path: path.write_bytes(path.read_bytes()[:5000]), UNCHECKED, "invalid Zip archive"),
    "empty": (lambda path: path.write_bytes(b""), UNCHECKED, "invalid Zip archive"),
    "gone": (Path.unlink, UNCHECKED, "it was there when the data set was planned"),
    "no array": (lambda path: path.write_bytes(bytes(100_000)), UNCHECKED, "invalid Zip archive"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_object_that_is_replaced_between_plan_and_comparison(
    program: Program, compared: Compared, between: Proxy, name: str
) -> None:
    """It is what is compared, as a file on a disk would be: what is in it differs, or it cannot be compared."""
    change, expected, said = CHANGES[name]
    done = threading.Event()
    faults = between.faults = Faults()

    def strike(path: str, number: int) -> int:
        with faults.lock:
            is_time = not done.is_set() and planned(faults)
            if is_time:
                change(compared.folder / "v03.npz")
                done.set()
        return 0

    faults.status = strike
    code, lines = compared.run(program, between, "--num-workers", 1)
    assert done.is_set() and code == expected and all("v03: " in line for line in lines), lines
    assert said in lines[-1] and (expected == DAMAGED or compared.address(3) in lines[-1]), lines


def test_masks_and_headers_that_do_not_come(program: Program, bucket: Storage, between: Proxy, tmp_path: Path) -> None:
    """What stands beside the volumes is asked for later: a mask in a file of its own, the matrix of a NIfTI file."""
    dataset = noise_dataset(tmp_path / "data", 2, (16, 16, 16))
    for path in dataset.volumes():
        with np.load(path) as archive:
            write(path.with_suffix(".nii.gz"), written(archive["data"]))
        path.unlink()
        write_npz(tmp_path / "data" / "masks" / path.name, {"seg": np.ones((16, 16, 16), "u1")}, writer="numpy")
    flags = ("--orientation", "RAS", "--volume", "stored", "--also")
    sources = put(bucket, dataset, "beside")
    here, there = (f"mask={place}/masks/*.npz:seg" for place in (tmp_path / "data", sources.address))
    # A mask has no orientation of its own.
    out = program.materialize(dataset, tmp_path / "out", *FLAGS, *flags[2:], here)
    faults = between.faults = Faults(body=NO.format("AccessDenied"))
    faults.status = lambda path, number: 403 if "masks/v01" in path and "v00.nii.gz" in comparing(faults) else 0
    done = verify(program, out, between.port, *sources.flags(), *flags[2:], there, "--num-workers", 1)
    (line,) = found(done)
    assert done.returncode == UNCHECKED and f"{sources.address}/masks/v01.npz" in line, line
    assert "v01 'mask': it cannot be compared" in line and "may not read it" in line
    out = program.materialize(dataset, tmp_path / "turned", *FLAGS, *flags[:4])
    between.faults = faults = Faults(body=NO.format("AccessDenied"))
    faults.status = lambda path, number: 403 if comparing(faults).count("v01.nii.gz") > 1 else 0
    done = verify(program, out, between.port, *sources.flags(), *flags[:4], "--num-workers", 1)
    (line,) = found(done)
    assert done.returncode == UNCHECKED and f"{sources.address}/volumes/v01.nii.gz" in line, line


def comparing(faults: Faults) -> list[str]:
    """The names of the objects that were asked for from their beginning on, in more than a few bytes."""
    ranges = [(path.rpartition("/")[2], wanted) for _, path, wanted in list(faults.requests)]
    return [name for name, wanted in ranges if wanted == "bytes=0-65535"]


def test_an_end_by_the_user_while_it_waits(program: Program, compared: Compared, between: Proxy) -> None:
    """Ctrl-C ends it at once, also while the storage does not answer."""
    reached, opened = threading.Event(), threading.Event()
    faults = between.faults = Faults()

    def wait(path: str, number: int) -> int:
        if planned(faults):
            reached.set()
            opened.wait(60)
        return 0

    faults.status = wait
    command = ["verify", "--shards", compared.shards, *compared.sources.flags(), *PLAIN]
    try:
        for more in ([], ["--sources"]):
            arguments = ["verify", *more, *compared.sources.flags(), *PLAIN] if more else command
            reached.clear()
            faults.requests.clear()
            with program.running(*arguments, env=variables(between.port)) as process:
                assert reached.wait(60)
                begun = time.monotonic()
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=30)
            assert process.returncode == 130 and time.monotonic() - begun < 5, said
            assert "interrupted; nothing was changed, and no result is kept" in said, said
    finally:
        opened.set()
        wait_until(lambda: not between.going, "the proxy has ended all requests", 30)

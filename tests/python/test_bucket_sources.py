"""Data sets in object storage: the shards are those of the same files on a disk, or there is an error that says why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from harness import REPOSITORY, Program, require_fuse, shards
from make_dataset import Dataset, dataset_at
from niftis import write, written
from npzfiles import write_npz
from objects import BUCKET, SECRET_KEY, Faults, Proxy, Storage, moto, proxy, variables
from small_datasets import noise_dataset, write_plain_tables

FLAGS = ("--samples-per-shard", "3")


@dataclass(frozen=True)
class Sources:
    """A data set at an address, with its tables there too."""

    address: str
    names: tuple[str, str, str] = ("reports.csv", "metadata.csv", "labels.csv")

    def flags(self) -> list[str]:
        """The arguments that name it."""
        reports, meta, labels = (f"{self.address}/{name}" for name in self.names)
        return [
            *("--data-folder", f"{self.address}/volumes"),
            *("--reports-file", reports, "--meta-file", meta, "--labels-file", labels),
        ]


@pytest.fixture(scope="module")
def every_format(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Volumes of every format, packing and order, at the usual depth; and files that are no volumes: one is empty."""
    dataset = dataset_at(tmp_path_factory.mktemp("formats"))
    rng = np.random.default_rng(7)
    values = [rng.integers(-1000, 1000, (24, 20, 16 + n)).astype("f4") for n in range(8)]
    folder = dataset.folder / "train" / "a b"
    write_npz(folder / "v0.npz", {"data": values[0]}, writer="numpy")
    write_npz(folder / "v1.npz", {"data": values[1]}, writer="numpy", deflated=True)
    write_npz(folder / "v2.npz", {"data": np.asfortranarray(values[2])}, writer="numpy")
    np.save(folder / "v3.npy", values[3])
    write(folder / "v4.nii", written(values[4]))
    write(folder / "v5.nii.gz", written(values[5]))
    write_npz(folder / "v6.npz", {"mask": values[6].astype("u1"), "data": values[6]}, writer="numpy", deflated=True)
    (folder / "v7.npz").write_bytes(b"")
    (folder / "v8.npz").write_bytes(bytes(9000))
    (folder / "v9.nii.gz").write_bytes(b"short")
    write_npz(folder / ".hidden.npz", {"data": values[7]})
    write_npz(dataset.folder / "elsewhere.npz", {"data": values[7]})
    write_plain_tables(dataset, [f"v{n}" for n in range(10)])
    return dataset


def put(bucket: Storage, dataset: Dataset, prefix: str) -> Sources:
    """Copy a data set with its tables into the bucket."""
    return Sources(bucket.put(dataset.folder.parent, prefix))


@pytest.fixture(scope="module")
def sources(bucket: Storage, every_format: Dataset) -> Sources:
    """The data set of every format in the bucket."""
    return put(bucket, every_format, "formats")


@pytest.fixture(scope="module")
def expected(program: Program, every_format: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of the files on disk."""
    return program.materialize(every_format, tmp_path_factory.mktemp("expected"), *FLAGS)


def plan(program: Program, sources: Sources, port: int, *flags: object, check: bool = True) -> dict[str, object]:
    """What `plan --json` says of it."""
    done = program.run("plan", *sources.flags(), *FLAGS, *flags, "--json", env=variables(port), check=check)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def why_not(program: Program, sources: Sources, environment: dict[str, str], *flags: object) -> str:
    """The message with which `plan` refuses it; no secret stands in it."""
    done = program.run("plan", *sources.flags(), *flags, env=environment, check=False)
    assert done.returncode == 1 and "panicked" not in done.stderr, done.stderr
    assert SECRET_KEY not in done.stderr
    return done.stderr


def same_shards(made: Path, right: Path) -> None:
    """The shards of two folders are the same."""
    assert [path.name for path in shards(made)] == [path.name for path in shards(right)]
    for path in shards(right):
        assert (made / path.name).read_bytes() == path.read_bytes(), path.name


def test_materialize_makes_the_shards_of_the_files(
    program: Program, sources: Sources, expected: Path, between: Proxy, tmp_path: Path
) -> None:
    """Every format, packing and order; what is left out on a disk is left out in a bucket, for the same reasons."""
    program.run("materialize", *sources.flags(), *FLAGS, "--output_dir", tmp_path / "out", env=variables(between.port))
    same_shards(tmp_path / "out", expected)
    made, right = (json.loads((folder / "manifest.json").read_text()) for folder in (tmp_path / "out", expected))
    assert made["plan_digest"] == right["plan_digest"] and made["left_out"] == right["left_out"]
    assert [left_out["study_id"] for left_out in made["left_out"]] == ["v7", "v8", "v9"]


def test_a_mount_shows_the_shards_of_the_files(
    program: Program, sources: Sources, expected: Path, between: Proxy
) -> None:
    """Through FUSE, in any order."""
    with program.mounted(sources, *FLAGS, env=variables(between.port)) as point:
        for path in reversed(shards(expected)):
            assert (point / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "flags",
    [
        ("--volume", "rescaled", "--rescale", "table"),
        ("--volume", "preprocessed", "--rescale", "none", "--shape", "20,20,20"),
        ("--also", "mask=mask", "--pattern", "**/v6.npz"),
        ("--source", "nifti", "--orientation", "RAS"),
        ("--source", "npz", "--limit", "2"),
    ],
    ids=["rescaled", "preprocessed", "also", "orientation", "limit"],
)
def test_kinds_and_choices(
    program: Program, every_format: Dataset, sources: Sources, bucket: Storage, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """Whatever is made of the volumes, and whichever are taken."""
    right = program.materialize(every_format, tmp_path / "right", *FLAGS, *flags)
    program.run(
        "materialize", *sources.flags(), *FLAGS, *flags, "--output_dir", tmp_path / "out", env=variables(bucket.port)
    )
    same_shards(tmp_path / "out", right)


def test_tables_and_volumes_lie_where_they_like(
    program: Program, every_format: Dataset, sources: Sources, expected: Path, bucket: Storage, tmp_path: Path
) -> None:
    """Volumes in a bucket and tables on a disk, and the other way round; lists of studies too."""
    studies = bucket.folder / BUCKET / "lists" / "studies.txt"
    studies.parent.mkdir()
    studies.write_text("".join(f"v{n}\n" for n in range(10)))
    on_disk, there = every_format.flags(), sources.flags()
    for number, flags in enumerate(([*there[:2], *on_disk[2:]], [*on_disk[:2], *there[2:]])):
        out = tmp_path / f"out{number}"
        more = [*FLAGS, "--studies", f"s3://{BUCKET}/lists/studies.txt", "--output_dir", out]
        program.run("materialize", *flags, *more, env=variables(bucket.port))
        same_shards(out, expected)


def test_extras_in_files_of_their_own(program: Program, bucket: Storage, tmp_path: Path) -> None:
    """Masks beside the volumes, in the bucket or on a disk."""
    dataset = noise_dataset(tmp_path / "data", 3, (16, 16, 16))
    masks = dataset.folder.parent / "masks"
    for path in dataset.volumes():
        write_npz(masks / path.name, {"seg": np.ones((16, 16, 16), "u1")}, writer="numpy")
    right = program.materialize(dataset, tmp_path / "right", *FLAGS, "--also", f"mask={masks}/*.npz")
    sources = put(bucket, dataset, "masked")
    for number, folder in enumerate((f"{sources.address}/masks", masks)):
        out = tmp_path / f"out{number}"
        flags = [*sources.flags(), *FLAGS, "--also", f"mask={folder}/*.npz:seg", "--output_dir", out]
        program.run("materialize", *flags, env=variables(bucket.port))
        same_shards(out, right)


def test_a_plan_reads_both_ends_of_each_object(
    program: Program, between: Proxy, bucket: Storage, tmp_path: Path
) -> None:
    """One list, and two small ranges of each NPZ; further plans look into nothing while the list is the same."""
    dataset = noise_dataset(tmp_path / "data", 40, (16, 16, 16))
    sources = put(bucket, dataset, "many")
    flags = ("--rescale", "none")  # no look at values
    first = plan(program, sources, between.port, *flags)
    ranges = [wanted for method, path, wanted in between.faults.requests if method == "GET" and path.endswith(".npz")]
    assert len(ranges) == 80 and all(ranges), ranges[:9]
    begins = [wanted.removeprefix("bytes=").split("-") for wanted in ranges]
    assert all(int(end) - int(start) < 8192 for start, end in begins), "small ones"
    lists = [path for _, path, _ in between.faults.requests if "list-type=2" in path]
    assert len(lists) == 1, lists
    # A list of this server has times, no ETags: it is trusted once they are old.
    for path in (bucket.folder / BUCKET / "many").rglob("*.npz"):
        os.utime(path, (1e9, 1e9))
    plan(program, sources, between.port, *flags)
    between.faults = Faults()
    assert plan(program, sources, between.port, *flags) == first
    assert not [path for _, path, _ in between.faults.requests if path.endswith(".npz")], between.faults.requests
    assert len([path for _, path, _ in between.faults.requests if "list-type=2" in path]) == 1
    (bucket.folder / BUCKET / "many" / "volumes" / "v39.npz").unlink()
    assert plan(program, sources, between.port, *flags)["total_samples"] == 39


def test_a_list_with_etags_is_trusted_at_once(program: Program, tmp_path: Path) -> None:
    """A server whose lists have ETags: what was found in an object that has not changed is used again at once."""
    dataset = noise_dataset(tmp_path / "data", 6, (16, 16, 16))
    with moto(dataset.folder, "flat") as port, proxy(port) as between:
        flags = ["--data-folder", f"s3://{BUCKET}/flat", "--json"]
        tables = dataset.flags()[2:]
        environment = variables(between.port)
        first = json.loads(program.run("plan", *flags, *tables, "--rescale", "none", env=environment).stdout)
        assert len([path for _, path, _ in between.faults.requests if path.endswith(".npz")]) == 12
        between.faults = Faults()
        again = program.run("plan", *flags, *tables, "--rescale", "none", env=environment)
        assert json.loads(again.stdout) == first
        assert not [path for _, path, _ in between.faults.requests if path.endswith(".npz")]


def test_a_volume_of_several_requests(program: Program, bucket: Storage, between: Proxy, tmp_path: Path) -> None:
    """Large volumes are asked for by several requests at once, of which some break off and some are refused."""
    dataset = noise_dataset(tmp_path / "large", 2, (128, 256, 200))
    right = program.materialize(dataset, tmp_path / "right")
    sources = put(bucket, dataset, "large")
    lengths = [2_000_000, None, 70_000, None, None]
    between.faults = Faults(
        cut=lambda path, number: lengths[number % 5] if path.endswith(".npz") else None,
        status=lambda path, number: 503 if number % 7 == 3 else 0,
    )
    program.run("materialize", *sources.flags(), "--output_dir", tmp_path / "out", env=variables(between.port))
    same_shards(tmp_path / "out", right)


def test_an_object_that_was_replaced_is_an_error(
    program: Program, between: Proxy, bucket: Storage, tmp_path: Path
) -> None:
    """Another object under the name of a volume is ESTALE, never other voxels; so is one that is shorter, or gone."""
    dataset = noise_dataset(tmp_path / "data", 5, (16, 16, 16))
    sources = put(bucket, dataset, "replaced")
    with program.mounted(sources, "--samples-per-shard", "1", env=variables(between.port)) as point:
        first, *others = shards(point)
        assert first.read_bytes()
        objects = bucket.folder / BUCKET / "replaced" / "volumes"
        changed = bytearray((objects / "v01.npz").read_bytes())
        changed[-2000] ^= 1
        (objects / "v01.npz").write_bytes(changed)
        (objects / "v02.npz").unlink()
        (objects / "v03.npz").write_bytes(b"")
        (objects / "v04.npz").write_bytes(bytes(changed[:100]))
        for gone in others:
            with pytest.raises(OSError) as caught:
                gone.read_bytes()
            assert caught.value.errno == 116, "ESTALE"


def test_answers_of_two_objects_are_never_mixed(
    program: Program, between: Proxy, bucket: Storage, tmp_path: Path
) -> None:
    """A server may answer the requests for one volume from two objects, while it is planned or read."""
    dataset = noise_dataset(tmp_path / "large", 1, (128, 256, 200))
    sources = put(bucket, dataset, "mixed")
    environment = variables(between.port)
    asked: list[str] = []

    def late(path: str, number: int) -> str | None:
        asked.extend([path] if path.endswith(".npz") else [])
        return '"other"' if path.endswith(".npz") and len(asked) > 4 else None

    between.faults = Faults(tag=late)
    command = ["cat", *sources.flags(), "--rescale", "none", "0"]
    done = subprocess.run([program.path, *command], env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == 1 and b"has changed since it was planned" in done.stderr, done.stderr
    assert b"v00.npz" in done.stderr and SECRET_KEY.encode() not in done.stderr

    def at_once(path: str, number: int) -> str | None:
        return f'"{number}"' if path.endswith(".npz") else None

    between.faults = Faults(tag=at_once)
    message = why_not(program, sources, environment, "--rescan")
    assert "v00.npz" in message and "removed or replaced while the data set was planned" in message


def test_an_object_that_disappears_while_planning(program: Program, between: Proxy, sources: Sources) -> None:
    """What is listed and then not there is an error: the plan must not depend on when it was made."""
    body = "<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
    between.faults = Faults(status=lambda path, number: 404 if path.endswith("v1.npz") else 0, body=body)
    message = why_not(program, sources, variables(between.port), "--rescan")
    assert "v1.npz" in message and "plan again" in message


@pytest.mark.parametrize(
    ("code", "status", "remedy"),
    [
        ("AccessDenied", 403, "these credentials may not"),
        ("ExpiredToken", 400, "expired"),
        ("NoSuchBucket", 404, "no such bucket"),
    ],
)
def test_refusals_have_their_remedies(
    program: Program, between: Proxy, sources: Sources, code: str, status: int, remedy: str
) -> None:
    """Of the list, and of the objects; with the address, and without the secret."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    for which in ("list-type=2", "v1.npz"):

        def refuse(path: str, number: int, which: str = which) -> int:
            return status if which in path else 0

        between.faults = Faults(status=refuse, body=body)
        message = why_not(program, sources, variables(between.port), "--rescan", "--storage-timeout", 3)
        assert remedy in message and f"{sources.address}/volumes" in message, message


def test_what_is_not_there(program: Program, bucket: Storage, sources: Sources) -> None:
    """A prefix, a bucket, a table."""
    environment = variables(bucket.port)
    nowhere = Sources(f"s3://{BUCKET}/nowhere")
    reports, meta, labels = sources.flags()[3::2]
    tables = ["--reports-file", reports, "--meta-file", meta, "--labels-file", labels]
    for folder, said in ((f"s3://{BUCKET}/nowhere", "no NPZ, NPY or NIfTI file found"), ("s3://none/x", "bucket")):
        done = program.run("plan", "--data-folder", folder, *tables, env=environment, check=False)
        assert done.returncode == 1 and folder in done.stderr and said in done.stderr, done.stderr
    message = why_not(program, nowhere, environment)
    assert "nowhere/reports.csv: cannot read the table" in message


def test_the_package_opens_it(program: Program, every_format: Dataset, sources: Sources, bucket: Storage) -> None:
    """`ctwds.open` takes addresses where it takes paths."""
    code = """
import ctwds, sys
names = ("data_folder", "reports_file", "meta_file", "labels_file")
there, here = (ctwds.open(**dict(zip(names, paths))) for paths in (sys.argv[1:5], sys.argv[5:9]))
assert len(there) == len(here) == 7
for one, other in zip(there, here):
    assert (one.volume == other.volume).all() and one.text == other.text
"""
    paths = [*sources.flags()[1::2], *every_format.flags()[1::2]]
    environment = variables(bucket.port, PYTHONPATH=str(REPOSITORY / "python"))
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_disk_cache_knows_objects_by_their_etags(
    program: Program, bucket: Storage, between: Proxy, tmp_path: Path
) -> None:
    """Volumes that were kept are not asked for again, unless another object has their name."""
    dataset = noise_dataset(tmp_path / "data", 2, (32, 32, 32))
    sources, cache = put(bucket, dataset, "kept"), tmp_path / "cache"
    flags = ["--disk-cache", cache, "--rescale", "none"]
    with program.mounted(sources, *flags, env=variables(between.port)) as point:
        before = shards(point)[0].read_bytes()
    changed = noise_dataset(tmp_path / "other", 3, (32, 32, 32))
    shutil.copy(changed.folder / "v01.npz", bucket.folder / BUCKET / "kept" / "volumes" / "v01.npz")
    between.faults = Faults()
    with program.mounted(sources, *flags, env=variables(between.port)) as point:
        after = shards(point)[0].read_bytes()
    assert len(after) == len(before) and after != before
    fetched = [path for _, path, wanted in between.faults.requests if path.endswith("v00.npz")]
    assert len(fetched) <= 3, "planned anew, but for its header not read"


def test_commands_that_need_a_disk_say_so(program: Program, sources: Sources, tmp_path: Path) -> None:
    """`reclaim` removes files, and `init` looks into a folder."""
    for command in (["reclaim", "--shards", tmp_path, *sources.flags()], ["init", sources.address]):
        done = program.run(*command, check=False)
        assert done.returncode == 2 and "it must be on a disk" in done.stderr, done.stderr


def test_the_report_and_the_file_of_a_data_set(
    program: Program, sources: Sources, bucket: Storage, tmp_path: Path
) -> None:
    """Addresses stand in `ctwds.toml` as well; a page is made of them."""
    folder, reports, meta, labels = sources.flags()[1::2]
    names = {"data_folder": folder, "reports_file": reports, "meta_file": meta, "labels_file": labels}
    (tmp_path / "ctwds.toml").write_text("".join(f'{name} = "{value}"\n' for name, value in names.items()))
    program.run("report", "--output", tmp_path / "page.html", cwd=tmp_path, env=variables(bucket.port))
    page = (tmp_path / "page.html").read_text()
    assert folder in page and SECRET_KEY not in page


def test_bench_measures_a_mount_and_files(program: Program, sources: Sources, bucket: Storage, tmp_path: Path) -> None:
    """All but the row of NumPy, which reads files alone."""
    require_fuse()
    flags = ["--samples", "2", "--readers", "1", "--read-ahead", "1", "--runs", "1", "--work-dir", tmp_path]
    done = program.run("bench", *sources.flags(), *flags, env=variables(bucket.port))
    assert "not measured (no NPZ files on a disk were named)" in done.stdout, done.stdout

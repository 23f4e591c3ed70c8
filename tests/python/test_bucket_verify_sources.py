"""`ctwds-fs verify --sources` of volumes in a bucket: the list is that of the same files on a disk, and what the
network did not give is on no list."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from damages import DAMAGED, UNCHECKED
from harness import Program, report_of
from make_dataset import Dataset, dataset_at
from objects import BUCKET, SECRET_KEY, Faults, Proxy, Storage, variables
from small_datasets import noise_dataset, set_meta
from test_bucket_sources import Sources, put
from test_bucket_verify import damaged, every_source
from test_bucket_verify_faults import NO
from test_verify_sources import damage, rows_of


def check(
    program: Program, named: Dataset | Sources, listed: Path, port: int, *flags: object
) -> subprocess.CompletedProcess[str]:
    """The end of the command, with its report as JSON."""
    command = ["verify", "--sources", *named.flags(), "--quarantine", listed, "--json", *flags]
    done = program.run(*command, env=variables(port), check=False)
    assert "panicked" not in done.stderr and SECRET_KEY not in done.stdout + done.stderr
    assert report_of(done)["verdict"] == {0: "fine", 3: "damaged", 5: "unchecked"}[done.returncode]
    return done


@pytest.mark.parametrize("flags", [(), ("--also", "mask={}/masks/*.npz:seg")], ids=["volumes", "masks"])
def test_the_list_is_that_of_the_files(
    program: Program, bucket: Storage, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """Of every format: sound, then damaged in several ways."""
    dataset = every_source(tmp_path / "data")
    for turn in range(2):
        sources = put(bucket, dataset, f"listed-{len(flags)}-{turn}")
        here, there = ([flag.format(place) for flag in flags] for place in (tmp_path / "data", sources.address))
        right = check(program, dataset, tmp_path / "right.csv", bucket.port, *here)
        done = check(program, sources, tmp_path / "list.csv", bucket.port, *there)
        assert done.returncode == right.returncode == (DAMAGED if turn else 0), done.stdout
        rows = rows_of(tmp_path / "list.csv")
        rows = [[text.replace(sources.address, str(tmp_path / "data")) for text in row] for row in rows]
        assert rows == rows_of(tmp_path / "right.csv")
        assert {row[0] for row in rows} == ({"v0", "v1", "v2", "v5", "v6"} if turn else set())
        reports = [report_of(end) for end in (done, right)]
        assert [report["volumes"] for report in reports] == [7, 7] and reports[0]["unread"] == []
        damaged(tmp_path / "data")


def test_every_damage_is_in_the_list(program: Program, bucket: Storage, tmp_path: Path) -> None:
    """With it the rest can be made, straight from the bucket; what the user excluded stays in it."""
    dataset = noise_dataset(tmp_path / "data", 11, (8, 8, 8))
    bad = damage(dataset.folder)
    sources, listed = put(bucket, dataset, "damages"), tmp_path / "list.csv"
    assert check(program, sources, listed, bucket.port).returncode == DAMAGED
    assert {row[0] for row in rows_of(listed)} == bad
    environment = variables(bucket.port)
    out = ["--output-dir", tmp_path / "out"]
    program.run("materialize", *sources.flags(), *out, "--exclude", listed, env=environment)
    there = bucket.folder / BUCKET / "damages" / "excluded.csv"
    there.write_text("study_id,path,reason\nv02,,wrong patient\n")
    flags = ("--exclude", f"{sources.address}/excluded.csv")
    assert check(program, sources, listed, bucket.port, *flags).returncode == DAMAGED
    assert {row[0] for row in rows_of(listed)} == bad | {"v02"}
    text = program.run(
        *("verify", "--sources", *sources.flags(), "--quarantine", listed), env=environment, check=False
    ).stdout
    assert "5 of 11 volumes cannot be made" in text and f"--exclude {listed}" in text, text


def test_volumes_and_tables_lie_where_they_like(program: Program, bucket: Storage, tmp_path: Path) -> None:
    """Volumes in a bucket and tables on a disk, and the other way round."""
    dataset = noise_dataset(tmp_path / "data", 3, (8, 8, 8))
    here, there = dataset.flags(), put(bucket, dataset, "mixed-sources").flags()
    for flags in ([*there[:2], *here[2:]], [*here[:2], *there[2:]]):
        command = ["verify", "--sources", *flags, "--quarantine", tmp_path / "list.csv"]
        done = program.run(*command, env=variables(bucket.port))
        assert "3 volumes read, and all can be made" in done.stdout, done.stdout


def left_out(out: Path) -> Dataset:
    """Three volumes, of which the second one has no metadata: other code than that of the shards reads it."""
    dataset = noise_dataset(out, 3, (64, 64, 96))
    meta = (1, -1024, "[0.9, 0.9]", 1.2)
    set_meta(dataset, {"v00": meta, "v01": (1, -1024, "[0.9, 0.9]", ""), "v02": meta})
    return dataset


def test_a_volume_that_is_left_out(program: Program, bucket: Storage, between: Proxy, tmp_path: Path) -> None:
    """It is read too: found sound, also when answers break off, and found damaged."""
    dataset, listed = left_out(tmp_path / "data"), tmp_path / "list.csv"
    sources = put(bucket, dataset, "left-out")
    between.faults = Faults(
        cut=lambda path, number: 100_000 if number % 2 else None,
        status=lambda path, number: 503 if number % 5 == 3 else 0,
    )
    done = check(program, sources, listed, between.port)
    assert done.returncode == 0 and report_of(done)["volumes"] == 3 and rows_of(listed) == []
    path = bucket.folder / BUCKET / "left-out" / "volumes" / "v01.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    between.faults = Faults()
    assert check(program, sources, listed, between.port).returncode == DAMAGED
    assert [row[0] for row in rows_of(listed)] == ["v01"] and f"{sources.address}/volumes/v01.npz" in rows_of(listed)[
        0
    ][2]


def wanted(faults: Faults) -> list[str]:
    """The objects of which more than headers were asked for."""
    names = []
    for _, path, wanted in list(faults.requests):
        start, _, end = wanted.removeprefix("bytes=").partition("-")
        if path.endswith(".npz") and end and int(end) - int(start) >= 1 << 15:
            names.append(path.rpartition("/")[2])
    return names


@pytest.mark.parametrize("study", ["v00", "v01"], ids=["planned", "left-out"])
@pytest.mark.parametrize("fault", ["denied", "gone", "replaced", "late"])
def test_a_volume_that_the_network_does_not_give(
    program: Program, bucket: Storage, between: Proxy, tmp_path: Path, study: str, fault: str
) -> None:
    """It may be sound: it is named with its address, but not listed."""
    dataset, listed = left_out(tmp_path / "data"), tmp_path / "list.csv"
    sources = put(bucket, dataset, f"unread-{study}-{fault}")
    body = NO.format({"denied": "AccessDenied", "gone": "NoSuchKey", "late": "SlowDown"}.get(fault, ""))
    faults = between.faults = Faults(body=body)
    code = {"denied": 403, "gone": 404, "late": 503}.get(fault, 0)
    name, before = f"{study}.npz", 1 if study == "v01" else 0  # what a plan knows is another object at its first answer
    faults.status = lambda path, number: code if path.endswith(name) and wanted(faults).count(name) else 0
    if fault == "replaced":
        faults.tag = lambda path, number: (
            '"other"' if path.endswith(name) and wanted(faults).count(name) > before else None
        )
    flags = ("--storage-timeout", 3, "--rescale", "none", "--num-workers", 1)
    done = check(program, sources, listed, between.port, *flags)
    (unread,) = report_of(done)["unread"]
    assert done.returncode == UNCHECKED and rows_of(listed) == [] and unread["study_id"] == study
    address = f"{sources.address}/volumes/{study}.npz"
    assert unread["reason"].startswith(f"{address}: "), unread


def test_a_network_that_ends(program: Program, bucket: Storage, between: Proxy, tmp_path: Path) -> None:
    """Nothing is listed, all are named; nobody waits for each of a whole data set."""
    dataset, listed = noise_dataset(tmp_path / "data", 7, (64, 64, 96)), tmp_path / "list.csv"
    sources = put(bucket, dataset, "ended")
    faults = between.faults = Faults()
    faults.status = lambda path, number: -1 if wanted(faults) else 0
    flags = ("--storage-timeout", 3, "--rescale", "none", "--num-workers", 1)
    done = check(program, sources, listed, between.port, *flags)
    unread = [row["reason"] for row in report_of(done)["unread"]]
    assert done.returncode == UNCHECKED and len(unread) == 7 and rows_of(listed) == []
    assert all(reason.startswith(f"{sources.address}/volumes/v0{n}.npz: ") for n, reason in enumerate(unread[:4]))
    assert all("the storage had stopped to answer: verify again when it does" in reason for reason in unread[4:])
    shutil.rmtree(bucket.folder / BUCKET / "ended")
    between.faults = Faults()
    done = program.run("verify", "--sources", *sources.flags(), env=variables(between.port), check=False)
    assert done.returncode == 1 and sources.address in done.stderr, done.stderr


def test_what_is_no_volume(program: Program, bucket: Storage, tmp_path: Path) -> None:
    """Objects that a plan leaves out, because they are no volumes, are listed with the reason that a disk gives."""
    dataset = noise_dataset(tmp_path / "data", 4, (8, 8, 8))
    (dataset.folder / "v01.npz").write_bytes(b"")
    (dataset.folder / "v02.npz").write_bytes(bytes(9000))
    sources = put(bucket, dataset, "no-volumes")
    right = check(program, dataset_at(tmp_path / "data"), tmp_path / "right.csv", bucket.port)
    done = check(program, sources, tmp_path / "list.csv", bucket.port)
    assert done.returncode == right.returncode == DAMAGED
    assert rows_of(tmp_path / "list.csv") == rows_of(tmp_path / "right.csv")

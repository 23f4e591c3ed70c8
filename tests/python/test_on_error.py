"""Samples that cannot be made: by default their shard is not written and they are listed; with `--on-error skip` it is,
as the reference converter makes it with their slots empty. Only content makes a sample bad, never storage."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from faulty import faulty_folder
from harness import Program, digest, files_in, identities, require_fuse, shards
from make_dataset import Dataset
from npzfiles import write_npz
from small_datasets import explain_difference, flip_voxel, noise_dataset, reference_without

COUNT = 9
OPTIONS = reference.Options(samples_per_shard=3)
BAD = {"v01", "v02", "v07"}


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Nine volumes in three shards; two of the first shard and one of the last are damaged."""
    dataset = noise_dataset(tmp_path / "data", COUNT, (16, 16, 16))
    for study in BAD:
        flip_voxel(dataset.folder / f"{study}.npz")
    return dataset


def command(dataset: Dataset, out: Path, *more: object) -> list[object]:
    """The arguments that write a data set to `out`."""
    return ["materialize", *dataset.flags(), *OPTIONS.flags(), "--output-dir", out, *more]


def rows(out: Path) -> list[dict[str, str]]:
    """The list of bad samples."""
    with (out / "quarantine.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def manifest(out: Path) -> dict[str, Any]:
    """The manifest."""
    return json.loads((out / "manifest.json").read_text())


def assert_equal(made: Path, right: Path) -> None:
    """All shards are the reference's."""
    assert [path.name for path in shards(made)] == [path.name for path in shards(right)]
    for path in shards(right):
        explain_difference((made / path.name).read_bytes(), path)


def test_fail(program: Program, data: Dataset, tmp_path: Path) -> None:
    """One run finds all of them, also several of one shard; what is not spoilt is written, and no manifest."""
    out = tmp_path / "out"
    for kept in (0, 1):
        message = program.refuses(*command(data, out))
        assert "2 shards could not be made" in message and "--on-error skip" in message
        listed = [line for line in message.splitlines() if line.startswith("  shard-")]
        assert [line.split()[0] for line in listed] == ["shard-000000.tar:"] * 2 + ["shard-000002.tar:"]
        assert all(f"{study}.npz" in line and "CRC" in line for study, line in zip(sorted(BAD), listed, strict=True))
        assert sorted(path.name for path in out.iterdir()) == [".ctwds", "quarantine.csv", "shard-000001.tar"]
        assert [(row["study_id"], row["path"]) for row in rows(out)] == [(bad, f"{bad}.npz") for bad in sorted(BAD)]
        assert all("CRC" in row["reason"] for row in rows(out))
        assert ("continuing: 1" in message) == (kept == 1)


def test_skip(program: Program, data: Dataset, tmp_path: Path) -> None:
    """The bytes, the manifest, the list, the warning; and the same command keeps what it has made."""
    out = tmp_path / "out"
    done = program.run(*command(data, out, "--on-error", "skip"))
    right = reference_without(data, tmp_path / "right", OPTIONS, BAD)
    assert_equal(out, right)
    assert "3 shards written" in done.stdout and "3 samples could not be made" in done.stderr
    assert all(study in done.stderr for study in BAD) and "quarantine.csv" in done.stderr
    told = manifest(out)
    assert [entry["study_id"] for entry in told["left_out"]] == sorted(BAD)
    assert all("CRC" in entry["reason"] for entry in told["left_out"])
    assert [entry["sample_count"] for entry in told["shards"]] == [1, 3, 2] and told["total_samples"] == 6
    assert [(entry["name"], entry["size"], entry["sha256"]) for entry in told["shards"]] == [
        (path.name, path.stat().st_size, digest(path)) for path in shards(right)
    ]
    reference_told = json.loads((right / "manifest.json").read_text())
    assert {name: told[name] for name in reference_told} == reference_told
    assert [row["study_id"] for row in rows(out)] == sorted(BAD)
    before, files = identities(out), files_in(out)
    again = program.run(*command(data, out, "--on-error", "skip"))
    assert "0 shards written, 3 kept" in again.stdout and "3 samples could not be made" in again.stderr
    assert identities(out) == before and files_in(out) == files


def test_without_skip_it_is_tried_again(program: Program, data: Dataset, tmp_path: Path) -> None:
    """A shard with a gap is not what `fail` promises; once the volumes are mended, either makes the whole."""
    out = tmp_path / "out"
    program.run(*command(data, out, "--on-error", "skip"))
    assert "2 shards could not be made" in program.refuses(*command(data, out))
    assert not (out / "manifest.json").exists()
    for study in BAD:
        flip_voxel(data.folder / f"{study}.npz")
    assert "2 shards written, 1 kept" in program.run(*command(data, out)).stdout
    assert_equal(out, reference_without(data, tmp_path / "right", OPTIONS, set()))
    assert not (out / "quarantine.csv").exists() and manifest(out)["left_out"] == []


def test_a_mended_volume_is_no_longer_skipped(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Its shard alone is made again, although directory, checksum and size, all that the plan knows, are the same."""
    out = tmp_path / "out"
    program.run(*command(data, out, "--on-error", "skip"))
    flip_voxel(data.folder / "v01.npz")
    assert "1 shard written, 2 kept" in program.run(*command(data, out, "--on-error", "skip")).stdout
    assert_equal(out, reference_without(data, tmp_path / "right", OPTIONS, BAD - {"v01"}))
    assert [row["study_id"] for row in rows(out)] == ["v02", "v07"]


def test_a_plan_that_leaves_them_out_keeps_the_shards(program: Program, data: Dataset, tmp_path: Path) -> None:
    """What was skipped, and is no part of the plan any more, need not be skipped: the same bytes, nothing is made."""
    out = tmp_path / "out"
    program.run(*command(data, out, "--on-error", "skip"))
    before = identities(out)
    for study in BAD:
        (data.folder / f"{study}.npz").write_bytes(b"no volume any more")
    assert "0 shards written, 3 kept" in program.run(*command(data, out)).stdout
    assert identities(out) == before
    assert [entry["reason"].count("CRC") for entry in manifest(out)["left_out"]] == [0, 0, 0]


def test_every_sample_of_a_shard(program: Program, tmp_path: Path) -> None:
    """An empty tar file, as where the plan leaves all of them out; also where no shard has any."""
    dataset = noise_dataset(tmp_path / "data", 6, (8, 8, 8))
    for bad in ({"v03", "v04", "v05"}, {"v00", "v01", "v02"}):
        for study in bad:
            flip_voxel(dataset.folder / f"{study}.npz")
        out = tmp_path / f"out-{min(bad)}"
        program.run(*command(dataset, out, "--on-error", "skip"))
        all_bad = bad if "v03" in bad else bad | {"v03", "v04", "v05"}
        assert_equal(out, reference_without(dataset, tmp_path / f"right-{min(bad)}", OPTIONS, all_bad))
    assert manifest(out)["total_samples"] == 0 and len(rows(out)) == 6


def test_a_value_beyond_float16(program: Program, tmp_path: Path) -> None:
    """Content, like a checksum: the reason names the voxel and the option that allows it."""
    dataset = noise_dataset(tmp_path / "data", 3, (8, 8, 8))
    volume = np.zeros((8, 8, 8), "f4")
    volume[1, 2, 3] = 1e6
    write_npz(dataset.folder / "v01.npz", {"data": volume}, writer="numpy")
    out = tmp_path / "out"
    program.run(*command(dataset, out, "--on-error", "skip"))
    assert_equal(out, reference_without(dataset, tmp_path / "right", OPTIONS, {"v01"}))
    (row,) = rows(out)
    assert row["study_id"] == "v01" and "--overflow" in row["reason"]


@pytest.mark.parametrize("shape", ["small", "large"])
def test_storage_that_fails_is_no_reason_to_skip(program: Program, tmp_path: Path, shape: str) -> None:
    """A shard with one bad sample, and one that cannot be read today, waits for the storage; another is skipped."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    require_fuse()
    size = {"small": (8, 8, 8), "large": (96, 96, 80)}[shape]
    dataset = noise_dataset(tmp_path / "data", 6, size)
    for study in ("v00", "v04"):
        flip_voxel(dataset.folder / f"{study}.npz")
    right = reference_without(dataset, tmp_path / "right", OPTIONS, {"v00", "v04"})
    with faulty_folder({path.name: path.read_bytes() for path in dataset.volumes()}) as folder:
        far = replace(dataset, folder=folder.point)
        out = tmp_path / "out"

        def fail(name: str) -> None:
            if (out / ".ctwds").exists():  # planning is over
                folder.faults["read", "v02.npz"] = errno.EIO

        folder.on_read = fail
        message = program.refuses(*command(far, out, "--on-error", "skip"))
        assert "1 shard could not be made" in message and "Input/output error" in message and "v02.npz" in message
        assert [path.name for path in shards(out)] == ["shard-000001.tar"]
        assert [row["study_id"] for row in rows(out)] == ["v00", "v04"]
        folder.on_read = lambda name: None
        folder.faults.clear()
        assert "1 shard written, 1 kept" in program.run(*command(far, out, "--on-error", "skip")).stdout
    assert_equal(out, right)


def test_the_list_outlives_what_it_excludes(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Rows of samples that the plan leaves out stay: they were not tried. Those of others go once they are made."""
    out = tmp_path / "out"
    program.refuses(*command(data, out))
    with (out / "quarantine.csv").open("a") as file:
        file.write("v04,v04.npz,as somebody remembers\n")
    (data.folder / "v07.npz").write_bytes(b"no volume any more")  # left out by the plan
    for study in ("v01", "v02"):
        flip_voxel(data.folder / f"{study}.npz")
    program.run(*command(data, out))
    assert [row["study_id"] for row in rows(out)] == ["v07"]
    (out / "quarantine.csv").write_text("who\nv07\n")
    assert "study_id" in program.refuses(*command(data, out))


def test_a_mount_serves_a_skipped_shard_from_its_file(program: Program, data: Dataset, tmp_path: Path) -> None:
    """With the file's own size, under the file's inode; a shard that is no file yet fails where it is damaged."""
    out = tmp_path / "out"
    with program.mounted(data, *OPTIONS.flags(), "--materialized", out) as point:
        planned = {path.name: path.stat().st_size for path in shards(point)}
        with pytest.raises(OSError, match="Input/output error"):
            (point / "shard-000000.tar").read_bytes()
    program.run(*command(data, out, "--on-error", "skip"))
    with program.mounted(data, *OPTIONS.flags(), "--materialized", out) as point:
        assert_equal(point, reference_without(data, tmp_path / "right", OPTIONS, BAD))
        assert all(path.stat().st_ino >= 1 << 33 for path in shards(point))
        sizes = {path.name: path.stat().st_size for path in shards(point)}
        assert sizes == {path.name: path.stat().st_size for path in shards(out)}
        smaller = {name for name in sizes if sizes[name] < planned[name]}
        assert smaller == {"shard-000000.tar", "shard-000002.tar"}
        assert json.loads((point / ".ctwds" / "stats.json").read_text())["volumes_decoded"] == 0


def test_a_mount_follows_a_skipped_shard_that_is_made_whole(program: Program, data: Dataset, tmp_path: Path) -> None:
    """The name leads from the small file to the whole one without a failed open in between; what was open goes on."""
    out = tmp_path / "out"
    skipped = reference_without(data, tmp_path / "skipped", OPTIONS, BAD)
    program.run(*command(data, out, "--on-error", "skip"))
    with program.mounted(data, *OPTIONS.flags(), "--materialized", out) as point:
        assert_equal(point, skipped)
        with (point / "shard-000000.tar").open("rb") as early:
            head = early.read(600)
            for study in BAD:
                flip_voxel(data.folder / f"{study}.npz")
            program.run(*command(data, out))
            whole = reference_without(data, tmp_path / "whole", OPTIONS, set())
            assert_equal(point, whole)
            assert {path.name: path.stat().st_size for path in shards(point)} == {
                path.name: path.stat().st_size for path in shards(whole)
            }
            assert head + early.read() == (skipped / "shard-000000.tar").read_bytes()


def test_bad_samples_beside_a_finished_folder(program: Program, tmp_path: Path) -> None:
    """A volume that is damaged after its shard was finished changes nothing: the shard is kept."""
    dataset = noise_dataset(tmp_path / "data", COUNT, (8, 8, 8))
    out = tmp_path / "out"
    program.run(*command(dataset, out))
    before = files_in(out)
    flip_voxel(dataset.folder / "v04.npz")
    assert "0 shards written, 3 kept" in program.run(*command(dataset, out, "--on-error", "skip")).stdout
    assert files_in(out) == before
    shutil.rmtree(out)
    program.run(*command(dataset, out, "--on-error", "skip"))
    assert files_in(out) != before

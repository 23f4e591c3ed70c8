"""`ctwds-fs verify --sources`: every volume that cannot be made is found before anything is made, and its list lets the
rest be made."""

from __future__ import annotations

import csv
import errno
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from damages import DAMAGED, UNCHECKED
from faulty import faulty_folder
from harness import Program, digest, needs_root, report_of, require_fuse, shards
from make_dataset import Dataset
from npzfiles import write_npz
from small_datasets import noise_dataset, write_csv

FLAGS = ("--samples-per-shard", 3)
HEADER = ["study_id", "path", "reason"]


def rows_of(path: Path) -> list[list[str]]:
    """The list without its header."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == HEADER
    return rows


def check_sources(program: Program, dataset: Dataset, listed: Path, *more: object) -> tuple[int, str]:
    """The exit code and what was said."""
    done = program.run("verify", "--sources", *dataset.flags(), "--quarantine", listed, *more, check=False)
    assert "panicked" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def damage(folder: Path) -> set[str]:
    """Damage every second volume, each in another way; the studies."""

    def edit(study: str, change: Callable[[bytearray], None]) -> None:
        path = folder / f"{study}.npz"
        content = bytearray(path.read_bytes())
        change(content)
        path.write_bytes(content)

    def voxel(content: bytearray) -> None:
        content[len(content) // 2] ^= 1

    def directory(content: bytearray) -> None:
        content[content.rindex(b"PK\x01\x02")] ^= 1

    edit("v01", voxel)
    edit("v03", directory)
    edit("v05", lambda content: content.__delitem__(slice(len(content) // 2, None)))
    edit("v07", lambda content: content.clear())
    write_npz(folder / "v09.npz", {"data": np.full((8, 8, 8), 70_000, "f4")})
    with zipfile.ZipFile(folder / "v09.npz") as archive:
        assert archive.testzip() is None  # sound, but no float16
    return {"v01", "v03", "v05", "v07", "v09"}


@pytest.mark.parametrize("deflated", [False, True])
def test_the_list_lets_the_rest_be_made(program: Program, tmp_path: Path, deflated: bool) -> None:
    """Every kind of damage is in it, nothing sound is, and with it the shards of sound samples are as before."""
    dataset = noise_dataset(tmp_path / "data", 11, (8, 8, 8), deflated=deflated)
    listed = tmp_path / "list.csv"
    code, text = check_sources(program, dataset, listed)
    assert code == 0 and rows_of(listed) == [] and "11 volumes read, and all can be made" in text
    whole = program.materialize(dataset, tmp_path / "whole", *FLAGS)
    bad = damage(dataset.folder)
    assert "could not be made" in program.refuses(
        "materialize", *dataset.flags(), *FLAGS, "--output-dir", tmp_path / "refused"
    )
    code, text = check_sources(program, dataset, listed, "--num-workers", 2)
    assert code == DAMAGED and "5 of 11 volumes cannot be made" in text and f"--exclude {listed}" in text
    rows = rows_of(listed)
    assert {row[0] for row in rows} == bad and all(reason for *_, reason in rows)
    assert [row[1] for row in rows] == [f"{row[0]}.npz" for row in rows]
    part = program.materialize(dataset, tmp_path / "part", *FLAGS, "--exclude", listed)
    manifest = json.loads((part / "manifest.json").read_text())
    assert {sample["study_id"] for sample in manifest["left_out"]} == bad
    # The volumes 9 to 11 are in the last shard, of which v09 is bad.
    assert [path.name for path in shards(part) if digest(path) == digest(whole / path.name)] == []
    sound = program.run("verify", "--webdataset_dir", part, *dataset.flags(), *FLAGS, "--exclude", listed, check=False)
    assert sound.returncode == 4 and "0 are wrong" in sound.stdout, "left out, and otherwise right"


def test_as_json(program: Program, tmp_path: Path) -> None:
    """For programs; in the folder where it is run, where no name is given."""
    dataset = noise_dataset(tmp_path / "data", 3, (8, 8, 8))
    write_npz(dataset.folder / "v01.npz", {"data": np.full((8, 8, 8), 70_000, "f4")})
    done = program.run("verify", "--sources", *dataset.flags(), "--json", check=False, cwd=tmp_path)
    report = report_of(done)
    assert done.returncode == DAMAGED and report["verdict"] == "damaged"
    assert (report["volumes"], [row["study_id"] for row in report["bad"]], report["unread"]) == (3, ["v01"], [])
    assert "70000" in report["bad"][0]["reason"] and "float16" in report["bad"][0]["reason"]
    assert rows_of(tmp_path / "quarantine.csv")[0][:2] == ["v01", "v01.npz"]
    assert (tmp_path / "quarantine.csv").stat().st_mode & 0o777 == 0o600
    assert program.run("verify", "--sources", *dataset.flags(), "--overflow", "inf", cwd=tmp_path).returncode == 0


def test_what_was_excluded_stays(program: Program, tmp_path: Path) -> None:
    """What the user listed for other reasons is not lost when the list is made again over itself."""
    dataset = noise_dataset(tmp_path / "data", 4, (8, 8, 8))
    listed = tmp_path / "quarantine.csv"
    listed.write_text("study_id,path,reason\nv02,,wrong patient\n")
    assert check_sources(program, dataset, listed, "--exclude", listed)[0] == 0
    assert rows_of(listed) == [["v02", "", "wrong patient"]]
    write_npz(dataset.folder / "v00.npz", {"data": np.full((8, 8, 8), 70_000, "f4")})
    assert check_sources(program, dataset, listed, "--exclude", listed)[0] == DAMAGED
    assert [row[0] for row in rows_of(listed)] == ["v00", "v02"] and rows_of(listed)[1][2] == "wrong patient"


def test_missing_metadata_is_no_fault_of_a_volume(program: Program, tmp_path: Path) -> None:
    """It is left out for another reason, and read all the same."""
    dataset = noise_dataset(tmp_path / "data", 3, (8, 8, 8))
    header = ["VolumeName", "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"]
    rows = [[f"v0{n}.nii.gz", 1, -1024, "[0.9, 0.9]", "" if n == 1 else 1.2] for n in range(3)]
    write_csv(dataset.meta, [header, *rows])
    listed = tmp_path / "list.csv"
    assert check_sources(program, dataset, listed)[0] == 0 and rows_of(listed) == []
    content = bytearray((dataset.folder / "v01.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (dataset.folder / "v01.npz").write_bytes(content)
    assert check_sources(program, dataset, listed)[0] == DAMAGED
    assert [row[0] for row in rows_of(listed)] == ["v01"]


def test_a_list_that_cannot_be_written(program: Program, tmp_path: Path) -> None:
    """The message names it, and nothing is left beside it."""
    dataset = noise_dataset(tmp_path / "data", 2, (8, 8, 8))
    missing = tmp_path / "nowhere" / "list.csv"
    message = program.refuses("verify", "--sources", *dataset.flags(), "--quarantine", missing)
    assert str(missing) in message
    assert not missing.parent.exists() and sorted(os.listdir(tmp_path)) == ["data"]


@needs_root
def test_a_volume_that_the_disk_does_not_give(program: Program, tmp_path: Path) -> None:
    """It may be sound: it is named, but not listed."""
    require_fuse()
    dataset = noise_dataset(tmp_path / "data", 3, (8, 8, 8))
    listed = tmp_path / "list.csv"
    with faulty_folder({path.name: path.read_bytes() for path in dataset.volumes()}) as folder:
        served = replace(dataset, folder=folder.point)
        assert check_sources(program, served, listed)[0] == 0
        folder.faults = {("read", "v01.npz"): errno.EIO}
        code, text = check_sources(program, served, listed)
        assert code == UNCHECKED and "v01" in text and "they may be sound" in text
        assert rows_of(listed) == []

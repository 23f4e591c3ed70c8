"""`reclaim`: an NPZ is removed only when its volume was found in a sound shard, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from faulty import faulty_folder
from harness import Program, Stored, digest, files_in, require_fuse, shards
from make_dataset import Dataset
from reclaiming import COUNT, DELETE, FLAGS, PER_SHARD, journal, names, reclaim
from small_datasets import flip_voxel, noise_dataset, write_dataset


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Six volumes that a test may lose, in three shards."""
    return noise_dataset(tmp_path / "data", COUNT, (24, 24, 16), deflated=True)


@pytest.fixture(params=["plain", "packed"])
def made(request: pytest.FixtureRequest, program: Program, data: Dataset, tmp_path: Path) -> Path:
    """Their shards, plain or compressed."""
    compress = ["--compress", "zstd"] if request.param == "packed" else []
    return program.materialize(data, tmp_path / "made", *FLAGS, *compress)


@pytest.fixture
def plain(program: Program, data: Dataset, tmp_path: Path) -> Path:
    """Their plain shards."""
    return program.materialize(data, tmp_path / "plain", *FLAGS)


def rewrite_digests(folder: Path) -> None:
    """As if the shards had been written as they are now: only a comparison tells that they are wrong."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for shard in manifest["shards"]:
        shard["sha256"] = digest(folder / shard["name"])
    path.write_text(json.dumps(manifest))


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_a_dry_run_removes_nothing(program: Program, data: Dataset, made: Path) -> None:
    """It compares all the same, and writes nothing."""
    before, sizes = files_in(made), sum(path.stat().st_size for path in data.volumes())
    report = reclaim(program, data, made)
    assert (report["deleted"], report["files"], report["bytes"]) == (False, COUNT, sizes)
    assert len(names(data)) == COUNT and files_in(made) == before and not journal(made).exists()
    text = program.run("reclaim", *data.flags(), *FLAGS, "--shards", made)
    assert "cannot be undone" in text.stderr and "float32" in text.stderr and "dry run" in text.stderr
    assert "6 source files can be removed" in text.stdout and "--delete" in text.stdout


def test_everything_is_served_afterwards(program: Program, data: Dataset, made: Path, tmp_path: Path) -> None:
    """All NPZ files are gone, the shards are as before, a mount of them is as the plain ones, and a second run says
    so."""
    require_fuse()
    right = files_in(program.materialize(data, tmp_path / "right", *FLAGS))
    sizes, before = sum(path.stat().st_size for path in data.volumes()), files_in(made)
    report = reclaim(program, data, made, *DELETE)
    assert (report["deleted"], report["files"], report["bytes"]) == (True, COUNT, sizes)
    assert names(data) == [] and files_in(made) == before
    lines = [json.loads(line) for line in journal(made).read_text().splitlines()]
    assert [line["removing"]["study_id"] for line in lines[::2]] == [
        line["removed"]["study_id"] for line in lines[1::2]
    ]
    assert {line["removing"]["path"] for line in lines[::2]} == {f"v{n:02d}.npz" for n in range(COUNT)}
    again = reclaim(program, data, made, *DELETE)
    assert (again["files"], again["removed_earlier"], again["refused"]) == (0, COUNT, [])
    with program.mounted(Stored(made)) as point:
        assert {path.name: digest(path) for path in shards(point)} == {
            path.name: right[path.name] for path in shards(made)
        }


@pytest.mark.parametrize("kind", ["rescaled", "preprocessed"])
def test_every_kind(program: Program, data: Dataset, tmp_path: Path, kind: str) -> None:
    """And the other kind is refused at once."""
    flags = (*FLAGS, "--volume", kind, "--format", "npy", "--dialect", "hu", "--shape", "16,16,8")
    made = program.materialize(data, tmp_path / "made", *flags, "--compress", "zstd")
    command = ["reclaim", *data.flags(), *DELETE, "--shards", made]
    assert f"--volume {kind}" in program.refuses(*command, *FLAGS, "--format", "npy")
    assert "--format npy" in program.refuses(*command, *FLAGS, "--volume", kind)
    assert f"--samples-per-shard {PER_SHARD}" in program.refuses(*command, "--volume", kind, "--format", "npy")
    if kind == "preprocessed":
        other = reclaim(program, data, made, *DELETE, code=1, given=(*flags[:-1], "16,16,9"))
        assert other["files"] == 0 and all("options" in refused["reason"] for refused in other["refused"])
    assert len(names(data)) == COUNT
    assert reclaim(program, data, made, *DELETE, given=flags)["files"] == COUNT and names(data) == []


def damage_byte(_data: Dataset, made: Path) -> None:
    """A block of a compressed volume, or a voxel of a plain one."""
    shard = shards(made)[1]
    flip(shard, shard.stat().st_size // 3)


def damage_byte_unknown(data: Dataset, made: Path) -> None:
    """The same, when the manifest knows the wrong digest."""
    damage_byte(data, made)
    rewrite_digests(made)


def damage_padding(_data: Dataset, made: Path) -> None:
    """The last of the zeros that end a tar file: no member shows it, the digest does."""
    shard = shards(made)[1]
    flip(shard, shard.stat().st_size - 1)


def damage_text(_data: Dataset, made: Path) -> None:
    """A letter of a report, which no block's checksum covers; the manifest knows the wrong digest."""
    shard = shards(made)[1]
    flip(shard, shard.read_bytes().index(b"findings of v03"))
    rewrite_digests(made)


def damage_source(data: Dataset, _made: Path) -> None:
    """Other bytes in an NPZ: its CRC is wrong, and its directory is right."""
    flip_voxel(data.volumes()[3])


def change_source(data: Dataset, _made: Path) -> None:
    """Another voxel in an NPZ that is sound."""
    path = data.volumes()[3]
    volume = np.load(path)["data"]
    volume[3, 4, 5] += 1
    np.savez_compressed(path, data=volume)


def change_table(data: Dataset, _made: Path) -> None:
    """Another report of the same length."""
    data.reports.write_text(data.reports.read_text().replace("findings of v03", "findings OF v03"))


def lose_row(data: Dataset, _made: Path) -> None:
    """A study that a table no longer knows."""
    lines = data.meta.read_text().splitlines(keepends=True)
    data.meta.write_text("".join(line for line in lines if "v03" not in line))


def lose_source(data: Dataset, _made: Path) -> None:
    """An NPZ that somebody else removed: whether the shard was made of it cannot be asked any more."""
    data.volumes()[3].unlink()


@pytest.mark.parametrize(
    "harm",
    [
        damage_byte,
        damage_byte_unknown,
        damage_padding,
        damage_text,
        damage_source,
        change_source,
        change_table,
        lose_row,
        lose_source,
    ],
    ids=lambda harm: harm.__name__,
)
def test_a_shard_in_doubt_keeps_all_its_files(
    program: Program, data: Dataset, made: Path, harm: Callable[[Dataset, Path], None]
) -> None:
    """v02 and v03 stay, with a reason; the others go, and what is in doubt still is when it is asked again."""
    harm(data, made)
    there = names(data)
    before = {path.name: path.stat() for path in data.volumes()}
    for expected in (COUNT - 2, 0):
        report = reclaim(program, data, made, *DELETE, code=1)
        assert report["files"] == expected
        (refused,) = report["refused"]
        assert refused["shard"] == "shard-000001.tar" and refused["reason"]
        if harm not in (damage_byte, damage_byte_unknown, damage_padding):
            assert "v03" in refused["reason"] or "options" in refused["reason"]
        assert names(data) == [name for name in there if name in ("v02.npz", "v03.npz")]
    assert all(before[path.name].st_ino == path.stat().st_ino for path in data.volumes())


def test_other_options_that_make_the_same_bytes(program: Program, data: Dataset, plain: Path) -> None:
    """The digest tells them apart, also when a run with the right ones was half done."""
    wrong = (*FLAGS, "--overflow", "saturate")
    report = reclaim(program, data, plain, *DELETE, code=1, given=wrong)
    assert report["files"] == 0 and len(report["refused"]) == COUNT // PER_SHARD and len(names(data)) == COUNT
    half = plain.parent / "half"
    half.mkdir()
    shutil.move(data.volumes()[3], half)
    reclaim(program, data, plain, *DELETE, code=1)
    shutil.move(half / "v03.npz", data.folder)
    assert names(data) == ["v02.npz", "v03.npz"]
    assert reclaim(program, data, plain, *DELETE, code=1, given=wrong)["files"] == 0
    assert reclaim(program, data, plain, *DELETE)["files"] == 2 and names(data) == []


def test_a_shard_that_is_missing(program: Program, data: Dataset, made: Path) -> None:
    """Or cut, or of which the manifest knows nothing: nothing at all is removed."""
    shard = shards(made)[1]
    os.truncate(shard, shard.stat().st_size - 10_240)
    command = ["reclaim", *data.flags(), *FLAGS, *DELETE, "--shards", made]
    assert shard.name in program.refuses(*command)
    shard.unlink()
    assert shard.name in program.refuses(*command)
    (made / "manifest.json").unlink()
    assert "manifest.json" in program.refuses(*command)
    assert len(names(data)) == COUNT


def test_files_that_stay(program: Program, data: Dataset, tmp_path: Path) -> None:
    """A symbolic link, a folder behind one, an NPZ with another array, one that the shards are without; and one with a
    hard link goes without freeing anything."""
    volumes = data.volumes()
    arrays = dict(np.load(volumes[0]))
    np.savez_compressed(volumes[0], **arrays, mask=np.zeros(3, "u1"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(volumes[1], elsewhere)
    volumes[1].symlink_to(elsewhere / "v01.npz")
    os.link(volumes[2], elsewhere / "v02.npz")
    (tmp_path / "exclude.csv").write_text("study_id,path,reason\nv04,v04.npz,noise\n")
    flags = (*FLAGS, "--exclude", tmp_path / "exclude.csv")
    made = program.materialize(data, tmp_path / "made", *flags)
    size = sum(volumes[n].stat().st_size for n in (3, 5))
    report = reclaim(program, data, made, *DELETE, code=1, given=flags)
    assert (report["files"], report["bytes"], report["not_in_shards"]) == (3, size, 1)
    assert {kept["study_id"]: kept["reason"] for kept in report["kept"]}.keys() == {"v00", "v01"}
    assert "mask" in report["kept"][0]["reason"] and "symbolic link" in report["kept"][1]["reason"]
    assert names(data) == ["v00.npz", "v01.npz", "v04.npz"] and len(list(elsewhere.iterdir())) == 2
    np.savez_compressed(volumes[0], **arrays)  # now without the mask, which is another file than the planned one
    assert "options" in reclaim(program, data, made, *DELETE, code=1, given=flags)["refused"][0]["reason"]


def test_a_folder_behind_a_link(program: Program, tmp_path: Path) -> None:
    """Somebody else's folder is not emptied; the link may be the data folder itself."""
    arrays = {"data": np.arange(64, dtype="f4").reshape(4, 4, 4)}
    data = write_dataset(tmp_path / "data", {"real/a.npz": arrays, "real/b.npz": arrays})
    shutil.move(data.folder / "real", tmp_path / "real")
    (data.folder / "real").symlink_to(tmp_path / "real")
    made = program.materialize(data, tmp_path / "made")
    report = reclaim(program, data, made, *DELETE, code=1, given=())
    assert report["files"] == 0 and all("folder" in kept["reason"] for kept in report["kept"])
    (data.folder / "real").unlink()
    shutil.move(tmp_path / "real", data.folder / "real")
    link = tmp_path / "link"
    link.symlink_to(data.folder)
    moved = Dataset(link, data.reports, data.meta, data.labels)
    assert reclaim(program, moved, made, *DELETE, given=())["files"] == 2 and names(data) == []


def test_more_volumes_and_strays_do_not_matter(program: Program, data: Dataset, plain: Path) -> None:
    """Slots are those of the shards: a new volume in front changes them for `plan`, and a folder with more files at
    another depth takes the place of what is left."""
    add_volumes(data, ["a00"])
    deep = data.folder / "x"
    deep.mkdir()
    for n in range(9):
        shutil.copy(data.folder / "a00.npz", deep / f"stray{n}.npz")
    assert reclaim(program, data, plain, *DELETE)["files"] == COUNT
    assert [path.name for path in data.folder.glob("*.npz")] == ["a00.npz"] and len(list(deep.iterdir())) == 9


def test_a_mount_is_no_folder_of_shards(program: Program, data: Dataset) -> None:
    """It reads the NPZ files that would be removed."""
    with program.mounted(data, *FLAGS) as point:
        error = program.refuses("reclaim", *data.flags(), *FLAGS, *DELETE, "--shards", point)
    assert "mount" in error and len(names(data)) == COUNT


def test_a_volume_that_cannot_be_written_to(program: Program, data: Dataset, plain: Path) -> None:
    """A read-only file system: the files stay, with its reason, and are there for the next run."""
    require_fuse()
    with faulty_folder({path.name: path.read_bytes() for path in data.volumes()}) as sources:
        read_only = replace(data, folder=sources.point)
        report = reclaim(program, read_only, plain, *DELETE, code=1)
        assert report["files"] == 0 and len(report["kept"]) == COUNT
        assert all("cannot be removed: " in kept["reason"] for kept in report["kept"])
    assert reclaim(program, data, plain, *DELETE)["files"] == COUNT


def add_volumes(data: Dataset, studies: list[str]) -> None:
    """More volumes, with the rows of v00."""
    for table in (data.reports, data.meta, data.labels):
        lines = table.read_text().splitlines(keepends=True)
        table.write_text("".join([*lines, *(lines[1].replace("v00", study) for study in studies)]))
    for study in studies:
        np.savez(data.folder / f"{study}.npz", data=np.zeros((4, 4, 4), "f4"))


def test_materialize_does_not_replace_the_only_copy(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Once files are gone, the same command plans other shards of the same names. Here the last shard is as before, so
    that the folder is known as this plan's."""
    volumes = data.volumes()
    voxels = np.load(volumes[1])["data"]
    np.savez_compressed(volumes[1], data=voxels, mask=voxels)
    made = program.materialize(data, tmp_path / "made", *FLAGS)
    shutil.move(volumes[4], tmp_path)
    reclaim(program, data, made, *DELETE, code=1)
    shutil.move(tmp_path / "v04.npz", data.folder)
    assert names(data) == ["v01.npz", "v04.npz", "v05.npz"]
    add_volumes(data, ["a00", "a01", "a02"])
    right = files_in(made)
    error = program.refuses("materialize", *data.flags(), *FLAGS, "--output-dir", made)
    assert "all that is left" in error and "another output folder" in error and files_in(made) == right
    assert len(shards(program.materialize(data, tmp_path / "other", *FLAGS))) == 3


def test_paths_that_lead_out(program: Program, data: Dataset, plain: Path) -> None:
    """A manifest is a file that anybody may have written."""
    manifest = json.loads((plain / "manifest.json").read_text())
    manifest["shards"][0]["samples"][0]["source"] = "../data/v00.npz"
    (plain / "manifest.json").write_text(json.dumps(manifest))
    assert "not below" in program.refuses("reclaim", *data.flags(), *FLAGS, *DELETE, "--shards", plain)

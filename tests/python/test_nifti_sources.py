"""NIfTI files that change, and that `reclaim` removes. A `.nii.gz` of one member has a checksum that the plan knows;
`.nii` files and those of several members have none: there size, times and inode tell, and the ctime alone is enough."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from harness import Program, digest, files_in, shards
from kinds import samples
from make_dataset import Dataset
from niftis import Nifti, as_npz, bare, gzip_member, load, stored_gzip, write_niftis, written
from reclaiming import COUNT, DELETE, FLAGS, journal, reclaim

SORTS = ("plain", "members", "one member")
KNOWN = ("one member",)  # by a checksum


def content(sort: str, number: int) -> tuple[str, bytes]:
    """A file of a sort: its suffix, and its bytes. Whatever the number, all of a sort have one size."""
    values = np.random.default_rng(number).integers(-900, 900, (40, 30, 20))
    file = written(values, "i2").content
    if sort == "plain":
        return ".nii", file
    if sort == "members":
        return ".nii.gz", b"".join(stored_gzip(file[at : at + 20_000]) for at in range(0, len(file), 20_000))
    return ".nii.gz", stored_gzip(file)


def data_of(out: Path, sort: str) -> Dataset:
    """Six volumes of a sort."""
    files: dict[str, Nifti | bytes] = {}
    for number in range(COUNT):
        suffix, bytes_ = content(sort, number)
        files[f"v{number:02d}{suffix}"] = bytes_
    return write_niftis(out, files)


def bad_of(dataset: Dataset) -> Path:
    """The volume that a test changes: the second of the first shard."""
    return dataset.volumes()[1]


def overwrite(path: Path, sort: str) -> None:
    """Another volume of the same shape."""
    path.write_bytes(content(sort, 99)[1])


def rewrite(path: Path, sort: str) -> None:
    """The same under the old time: only the ctime tells."""
    before = path.stat()
    overwrite(path, sort)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


def exchange(path: Path, sort: str) -> None:
    """Another file under its name, with the old time."""
    before, other = path.stat(), path.with_name("other")
    other.write_bytes(content(sort, 99)[1])
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


def cut(path: Path, _sort: str) -> None:
    """The second half is gone."""
    os.truncate(path, path.stat().st_size // 2)


def remove(path: Path, _sort: str) -> None:
    """No file is there."""
    path.unlink()


CHANGES = (overwrite, rewrite, exchange, cut, remove)
Change = Callable[[Path, str], None]


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_source_that_changes_under_a_mount(program: Program, tmp_path: Path, change: Change, sort: str) -> None:
    """An error for whoever reads it, and never another byte; the other shards are served."""
    dataset = data_of(tmp_path / "data", sort)
    right = program.materialize(dataset, tmp_path / "right", *FLAGS)
    with program.mounted(dataset, *FLAGS) as point:
        change(bad_of(dataset), sort)
        for _ in range(2):
            with pytest.raises(OSError) as caught:
                (point / "shard-000000.tar").read_bytes()
            assert caught.value.errno in (errno.ESTALE, errno.EIO)
        for path in shards(right)[1:]:
            assert digest(point / path.name) == digest(path)


@pytest.mark.parametrize("sort", SORTS)
def test_ctime_alone(program: Program, tmp_path: Path, sort: str) -> None:
    """After `chmod`, a file is served on where a checksum tells that it is the same; else it counts as changed."""
    dataset = data_of(tmp_path / "data", sort)
    right = program.materialize(dataset, tmp_path / "right", *FLAGS)
    with program.mounted(dataset, *FLAGS) as point:
        bad_of(dataset).chmod(0o600)
        if sort in KNOWN:
            assert digest(point / "shard-000000.tar") == digest(right / "shard-000000.tar")
        else:
            with pytest.raises(OSError):
                (point / "shard-000000.tar").read_bytes()


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("change", [overwrite, rewrite, exchange])
def test_a_change_makes_the_shard_again(program: Program, tmp_path: Path, change: Change, sort: str) -> None:
    """Also where size and modification time are the same, and neither the digest nor a checksum tells it; the other
    shards stay. The saved plan is made again as well."""
    dataset = data_of(tmp_path / "data", sort)
    out = program.materialize(dataset, tmp_path / "out", *FLAGS)
    before = {path.name: digest(path) for path in shards(out)}
    inodes = {path.name: path.stat().st_ino for path in shards(out)}
    program.materialize(dataset, out, *FLAGS)
    assert inodes == {path.name: path.stat().st_ino for path in shards(out)}, "nothing has changed"
    change(bad_of(dataset), sort)
    program.materialize(dataset, out, *FLAGS)
    right = as_npz(dataset, tmp_path / "npz", [path.name for path in dataset.volumes()])
    made = program.materialize(right, tmp_path / "right", *FLAGS)
    found = samples(out)
    assert {study: sample["volume"].tobytes() for study, sample in found.items()} == {
        study: sample["volume"].tobytes() for study, sample in samples(made).items()
    }
    assert digest(out / "shard-000000.tar") != before["shard-000000.tar"]
    for name in sorted(before)[1:]:
        assert inodes[name] == (out / name).stat().st_ino, "not made again"


@pytest.mark.parametrize("sort", SORTS)
def test_finished_shards_of_a_source_that_changed(program: Program, tmp_path: Path, sort: str) -> None:
    """A mount does not take its volumes from them."""
    dataset = data_of(tmp_path / "data", sort)
    out = program.materialize(dataset, tmp_path / "out", *FLAGS)
    rewrite(bad_of(dataset), sort)
    with program.mounted(dataset, *FLAGS, "--materialized", out) as point:
        found = samples(point)
        for path in shards(out)[1:]:
            assert digest(point / path.name) == digest(path)
    for path in dataset.volumes():
        assert np.array_equal(found[bare(path)]["volume"], load(path)), path


@pytest.mark.parametrize("sort", SORTS)
def test_reclaim(program: Program, tmp_path: Path, sort: str) -> None:
    """As of NPZ: a dry run removes nothing, a changed file stays with all of its shard, what is in a sound shard goes;
    and the mount of the shards serves it."""
    dataset = data_of(tmp_path / "data", sort)
    made = program.materialize(dataset, tmp_path / "made", *FLAGS)
    sizes, before = sum(path.stat().st_size for path in dataset.volumes()), files_in(made)
    report = reclaim(program, dataset, made)
    assert (report["deleted"], report["files"], report["bytes"]) == (False, COUNT, sizes)
    text = program.run("reclaim", *dataset.flags(), *FLAGS, "--shards", made)
    assert f"{COUNT} of the files are NIfTI" in text.stderr and len(dataset.volumes()) == COUNT
    kept = bad_of(dataset).read_bytes()
    rewrite(bad_of(dataset), sort)
    report = reclaim(program, dataset, made, *DELETE, code=1)
    assert report["files"] == COUNT - 2 and [refused["shard"] for refused in report["refused"]], report
    assert [path.name[:3] for path in dataset.volumes()] == ["v00", "v01"]
    bad_of(dataset).write_bytes(kept)
    report = reclaim(program, dataset, made, *DELETE)
    assert (report["deleted"], report["files"]) == (True, 2) and dataset.volumes() == []
    lines = [json.loads(line) for line in journal(made).read_text().splitlines()]
    assert len(lines) == 2 * COUNT and files_in(made) == before


def test_a_file_with_more_than_the_volume_is_kept(program: Program, tmp_path: Path) -> None:
    """A channel of several is not all of the file."""
    values = np.random.default_rng(1).integers(0, 99, (5, 4, 3, 2))
    files: dict[str, Nifti | bytes] = {"a.nii.gz": gzip_member(written(values).content)}
    dataset = write_niftis(tmp_path / "data", files)
    flags = (*FLAGS, "--channel", "last:1")
    made = program.materialize(dataset, tmp_path / "made", *flags)
    report = reclaim(program, dataset, made, *DELETE, code=1, given=flags)
    assert report["files"] == 0 and len(dataset.volumes()) == 1, report

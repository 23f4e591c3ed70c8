"""Index files of other readers, in the mount and on disk: they say what is in the shards, and the readers use them."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import wids
import yaml
from harness import READER_OPTIONS, Program, shards
from make_dataset import Dataset

INDEXES = ["shardindex.json", "README.md", ".nv-meta/.info.json", ".nv-meta/split.yaml", ".nv-meta/dataset.yaml"]


@pytest.fixture(scope="module", params=["files", "mount", "epoch"])
def folder(request: pytest.FixtureRequest, program: Program, dataset: Dataset) -> Iterator[Path]:
    """Shards as files, in a mount, and as a shuffled view."""
    if request.param == "epoch":
        with program.mounted(dataset, *READER_OPTIONS.flags(), "--shuffle-seed", 7, "--epochs", 2) as point:
            yield point / "epochs" / "000001"
    else:
        yield request.getfixturevalue(request.param)


def samples(path: Path) -> list[list[tarfile.TarInfo]]:
    """The members of a shard by sample, as tarfile finds them; and where it stopped reading."""
    grouped: dict[str, list[tarfile.TarInfo]] = {}
    with tarfile.open(path) as tar:
        for info in tar:
            grouped.setdefault(info.name.partition(".")[0], []).append(info)
    return list(grouped.values())


def test_dali_indexes(folder: Path) -> None:
    """Version 1.2 of wds2idx: a line with the number of samples, then extension, offset, size and name of each
    member."""
    for path in shards(folder):
        lines = path.with_suffix(".idx").read_text().splitlines()
        found = samples(path)
        assert lines[0] == f"v1.2 {len(found)}"
        wanted = [
            " ".join(f"{info.name.partition('.')[2]} {info.offset_data} {info.size} {info.name}" for info in sample)
            for sample in found
        ]
        assert lines[1:] == wanted


def test_energon_tar_indexes(folder: Path) -> None:
    """Where each sample starts, and where the last one ends, as unsigned 64-bit numbers of this machine."""
    for path in shards(folder):
        content = path.with_name(path.name + ".idx").read_bytes()
        found = struct.unpack(f"{len(content) // 8}Q", content)
        with tarfile.open(path) as tar:
            tar.getmembers()
            end = tar.offset
        assert list(found) == [sample[0].offset for sample in samples(path)] + [end]


def test_energon_folder(folder: Path) -> None:
    """The counts are right, and every shard is in the split."""
    meta = folder / ".nv-meta"
    info = json.loads((meta / ".info.json").read_text())
    assert info["shard_counts"] == {path.name: len(samples(path)) for path in shards(folder)}
    assert list(info["shard_counts"]) == [path.name for path in shards(folder)]
    split = yaml.safe_load((meta / "split.yaml").read_text())
    assert split == {
        "split_parts": {"train": [path.name for path in shards(folder)], "val": [], "test": []},
        "exclude": [],
    }
    loader = yaml.safe_load((meta / "dataset.yaml").read_text())
    assert loader == {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}


def test_the_data_card_names_the_shards(folder: Path) -> None:
    """Of all files of the folder, no other is data."""
    front = (folder / "README.md").read_text().split("---\n")
    assert front[0] == ""
    (config,) = yaml.safe_load(front[1])["configs"]
    assert list(folder.glob(config["data_files"])) and config["config_name"] == "default"
    assert sorted(folder.glob(config["data_files"])) == shards(folder)


def test_wids_reads_its_index(folder: Path, tmp_path: Path) -> None:
    """Any sample of any shard by its number; links in wids' cache, because it writes lock files beside its shards."""
    index = json.loads((folder / "shardindex.json").read_text())
    assert [shard["filesize"] for shard in index["shardlist"]] == [path.stat().st_size for path in shards(folder)]
    for path in shards(folder):
        (tmp_path / path.name).symlink_to(path)
    loaded = wids.ShardListDataset(
        str(folder / "shardindex.json"), cache_dir=str(tmp_path), keep=True, transformations=[]
    )
    wanted = [(sample, path) for path in shards(folder) for sample in samples(path)]
    assert len(loaded) == len(wanted)
    for number in [0, len(wanted) - 1, *range(1, len(wanted) - 1)]:
        sample, path = wanted[number]
        found = loaded[number]
        with tarfile.open(path) as tar:
            for info in sample:
                key, _, extension = info.name.partition(".")
                assert found["__key__"] == key
                data = found["." + extension]
                data = data.read() if hasattr(data, "read") else bytes(data)
                member = tar.extractfile(info)
                assert member is not None and data == member.read()
    loaded.cache.clear()  # wids keeps its shards open, and an open file keeps a mount busy
    assert all(path.is_symlink() for path in tmp_path.glob("*.tar")), "wids copied a shard"


def test_indexes_read_no_voxel(program: Program, dataset: Dataset) -> None:
    """They are listed, have their sizes, and are made from the plan."""
    with program.mounted(dataset, *READER_OPTIONS.flags(), "--shuffle-seed", 7, "--epochs", 1) as point:
        for folder in (point, point / "epochs" / "000000"):
            names = os.listdir(folder)
            for path in shards(folder):
                for index in (path.with_suffix(".idx"), path.with_name(path.name + ".idx")):
                    assert index.name in names and len(index.read_bytes()) == index.stat().st_size > 0
            for name in INDEXES:
                assert len((folder / name).read_bytes()) == (folder / name).stat().st_size > 0
        stats = json.loads((point / ".ctwds" / "stats.json").read_text())
        assert (stats["volumes_decoded"], stats["peeks"], stats["bytes_served"]) == (0, 0, 0)


def test_files_have_the_indexes_of_the_mount(files: Path, mount: Path) -> None:
    """To the byte; and nothing is left of their making."""
    names = [str(path.relative_to(files)) for path in files.rglob("*") if path.is_file() and ".ctwds" not in path.parts]
    names = [name for name in names if name != "manifest.json"]
    assert len(names) == 3 * len(shards(files)) + len(INDEXES)
    assert {name: (files / name).read_bytes() for name in names if not name.endswith(".tar")} == {
        name: (mount / name).read_bytes() for name in names if not name.endswith(".tar")
    }


def test_a_missing_index_is_written_again(program: Program, dataset: Dataset, files: Path, tmp_path: Path) -> None:
    """By the same command; those that are right are left alone."""
    out = tmp_path / "out"
    shutil.copytree(files, out)
    wanted = {path: path.read_bytes() for path in out.rglob("*.idx")}
    spoiled, *others = sorted(wanted)
    before = {path: path.stat().st_ino for path in others}
    spoiled.write_bytes(wanted[spoiled][:-1])
    (out / "shardindex.json").unlink()
    (out / "shard-000000.idx.partial").write_text("cut")
    done = program.run("materialize", *dataset.flags(), *READER_OPTIONS.flags(), "--output_dir", out)
    assert " 0 shards written" in done.stdout
    assert {path: path.read_bytes() for path in out.rglob("*.idx")} == wanted
    assert {path: path.stat().st_ino for path in others} == before
    assert (out / "shardindex.json").read_bytes() == (files / "shardindex.json").read_bytes()
    assert not (out / "shard-000000.idx.partial").exists()

"""The manifest: what it says, and making it again where it, or the record, was lost."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from harness import Program, files_in, shards
from make_dataset import Dataset
from small_datasets import flip_voxel, noise_dataset

FLAGS = ("--samples-per-shard", 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Seven volumes in four shards."""
    return noise_dataset(tmp_path_factory.mktemp("data"), 7, (8, 8, 8))


@pytest.fixture
def out(program: Program, data: Dataset, tmp_path: Path) -> Path:
    """Their shards."""
    return program.materialize(data, tmp_path / "out", *FLAGS)


def rebuild(dataset: Dataset, out: Path) -> list[object]:
    """The command."""
    return ["manifest", "rebuild", out, *dataset.flags(), *FLAGS]


def test_fields(program: Program, data: Dataset, out: Path) -> None:
    """Schema, tool, plan, labels; each shard's keys, studies and source fingerprints, as the files have them."""
    told = json.loads((out / "manifest.json").read_text())
    assert told["schema_version"] == 2 and told["tool"].startswith("ctwds-fs ")
    planned = json.loads(program.run("plan", *data.flags(), *FLAGS, "--json").stdout)
    assert told["plan_digest"] == planned["plan_digest"] and len(told["plan_digest"]) == 64
    assert told["label_names"] == ["a", "b", "c"] and told["left_out"] == [] and "part" not in told
    digests = [entry["plan_digest"] for entry in told["shards"]]
    assert digests == [entry["plan_digest"] for entry in planned["shards"]] and len(set(digests)) == 4
    for entry in told["shards"]:
        with tarfile.open(out / entry["name"]) as tar:
            members = [(member.name.split(".")[0], member.size) for member in tar]
            texts = {member.name: tar.extractfile(member) for member in tar if member.name.endswith(".json")}
            studies = {name.split(".")[0]: json.load(text)["study_id"] for name, text in texts.items() if text}
        assert entry["payload_size"] == sum(size for _, size in members)
        assert entry["sample_count"] == len(studies)
        assert {sample["key"]: sample["study_id"] for sample in entry["samples"]} == studies
        for sample in entry["samples"]:
            assert sample["source_size"] == (data.folder / sample["source"]).stat().st_size
            assert len(sample["source_crc32"]) == 8


@pytest.mark.parametrize("lost", ["manifest", "record", "both", "journal cut"])
def test_rebuild(program: Program, data: Dataset, out: Path, lost: str) -> None:
    """The same bytes, and a resume that has nothing to do."""
    right = files_in(out)
    if lost in ("manifest", "both"):
        (out / "manifest.json").unlink()
    if lost in ("record", "both"):
        shutil.rmtree(out / ".ctwds")
    if lost == "journal cut":
        os.truncate(out / ".ctwds" / "journal.jsonl", 700)
    assert "written, 4 shards" in program.run(*rebuild(data, out)).stdout
    assert files_in(out) == right
    done = program.run("materialize", *data.flags(), *FLAGS, "--output-dir", out, "--recheck")
    assert "0 shards written, 4 kept" in done.stdout
    assert files_in(out) == right


@pytest.mark.parametrize("with_record", [True, False])
def test_rebuild_of_skipped_samples(program: Program, tmp_path: Path, with_record: bool) -> None:
    """The shards say which samples they do not hold; why, only the record knows."""
    dataset = noise_dataset(tmp_path / "data", 7, (8, 8, 8))
    for study in ("v02", "v06"):
        flip_voxel(dataset.folder / f"{study}.npz")
    out = program.materialize(dataset, tmp_path / "out", *FLAGS, "--on-error", "skip")
    before = (out / "manifest.json").read_bytes()
    (out / "manifest.json").unlink()
    if not with_record:
        shutil.rmtree(out / ".ctwds")
    program.run(*rebuild(dataset, out))
    told, right = json.loads((out / "manifest.json").read_text()), json.loads(before)
    if with_record:
        assert told == right
    else:
        assert [entry["study_id"] for entry in told.pop("left_out")] == ["v02", "v06"]
        assert told == {name: right[name] for name in told}
    command = ["materialize", *dataset.flags(), *FLAGS, "--output-dir", out, "--on-error", "skip"]
    assert "0 shards written, 4 kept" in program.run(*command).stdout


@pytest.mark.parametrize("damage", ["gone", "cut", "header", "label", "no tar", "other name"])
def test_rebuild_refuses_what_is_not_the_plan(program: Program, data: Dataset, out: Path, damage: str) -> None:
    """Also without a record; every shard that is wrong is listed, and there is no manifest."""
    (out / "manifest.json").unlink()
    shutil.rmtree(out / ".ctwds")
    shard = out / "shard-000001.tar"
    content = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        label = next(member for member in tar if member.name.endswith(".labels"))
    if damage == "gone":
        shard.unlink()
    elif damage == "other name":
        shutil.copy(out / "shard-000002.tar", shard)
    else:
        if damage == "cut":
            del content[-10_240:]
        elif damage == "no tar":
            content[:] = b"\xff" * len(content)
        else:
            content[label.offset_data if damage == "label" else label.offset + 100] ^= 1
        shard.write_bytes(content)
    done = program.run(*rebuild(data, out), check=False)
    assert done.returncode == 1 and "shard-000001.tar" in done.stderr and "materialize" in done.stderr
    assert "shard-000002.tar" not in done.stderr and "panicked" not in done.stderr
    assert not (out / "manifest.json").exists()


def test_rebuild_compares_with_the_record(program: Program, data: Dataset, out: Path) -> None:
    """A voxel that was flipped on disk is no longer what was finished."""
    (out / "manifest.json").unlink()
    shard = out / "shard-000002.tar"
    content = bytearray(shard.read_bytes())
    content[512 + 100] ^= 1  # of the first voxels
    shard.write_bytes(content)
    done = program.run(*rebuild(data, out), check=False)
    assert done.returncode == 1 and "not those that were recorded" in done.stderr
    assert not (out / "manifest.json").exists() and len(shards(out)) == 4


def test_rebuild_of_nothing(program: Program, data: Dataset, tmp_path: Path) -> None:
    """A folder that is not there does not come into being."""
    assert str(tmp_path / "no") in program.refuses(*rebuild(data, tmp_path / "no"))
    assert not (tmp_path / "no").exists()

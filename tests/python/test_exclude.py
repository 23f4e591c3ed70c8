"""`--exclude`: samples that the user leaves out; only their own slots, and so only their own shards, change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import Program, digest, shards
from make_dataset import Dataset
from small_datasets import noise_dataset

FLAGS = ("--samples-per-shard", 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Seven volumes in four shards."""
    return noise_dataset(tmp_path_factory.mktemp("data"), 7, (8, 8, 8))


def plan(program: Program, dataset: Dataset, *flags: object) -> dict[str, Any]:
    """What `plan` says."""
    return json.loads(program.run("plan", *dataset.flags(), *FLAGS, *flags, "--json").stdout)


@pytest.mark.parametrize("way", ["materialize", "mount"])
def test_only_its_own_shard_changes(program: Program, data: Dataset, tmp_path: Path, way: str) -> None:
    """Its slot stays empty; every other shard is the same to the byte."""
    whole = program.materialize(data, tmp_path / "whole", *FLAGS)
    listed = tmp_path / "bad.csv"
    listed.write_text('study_id,path,reason\nv03,v03.npz,"CRC, wrong"\n')
    with program.produced(way, data, tmp_path / "part", *FLAGS, "--exclude", listed) as part:
        changed = [a.name for a, b in zip(shards(whole), shards(part), strict=True) if digest(a) != digest(b)]
        assert changed == ["shard-000001.tar"]
        manifest = json.loads((part / "manifest.json").read_text())
    (left_out,) = manifest["left_out"]
    assert (left_out["slot"], left_out["study_id"]) == (3, "v03")
    assert left_out["reason"] == f"excluded by {listed}: CRC, wrong"
    keys = [sample["key"] for shard in manifest["shards"] for sample in shard["samples"]]
    assert keys == [f"{slot // 2:06d}_{slot % 2:06d}" for slot in range(7) if slot != 3]


def test_a_changed_list_is_noticed(program: Program, data: Dataset, tmp_path: Path) -> None:
    """By a start that reads nothing else again; and a list of the same name elsewhere is another one."""
    listed = tmp_path / "list.csv"

    def left_out(*flags: object) -> list[str]:
        return [sample["study_id"] for sample in plan(program, data, *flags)["left_out"]]

    for studies in (["v01"], ["v02"], ["v01", "v05"], []):
        listed.write_text("\n".join(["study_id", *studies, ""]))
        for _ in range(2):
            assert left_out("--exclude", listed) == studies
    assert left_out() == []
    other = tmp_path / "other" / "list.csv"
    other.parent.mkdir()
    other.write_text("study_id\nv06\n")
    assert left_out("--exclude", other) == ["v06"]
    assert plan(program, data)["plan_digest"] == plan(program, data, "--exclude", listed)["plan_digest"]


def test_a_volume_that_cannot_be_opened(program: Program, tmp_path: Path) -> None:
    """It is not looked into, and what is known of it later is not what the list said."""
    dataset = noise_dataset(tmp_path / "data", 3, (8, 8, 8))
    volume = dataset.folder / "v01.npz"
    sound = volume.read_bytes()
    volume.write_bytes(b"no zip file")
    listed = tmp_path / "list.csv"
    listed.write_text("study_id,reason\nv01,my reason\n")
    reasons = [sample["reason"] for sample in plan(program, dataset, "--exclude", listed, "--strict")["left_out"]]
    assert reasons == [f"excluded by {listed}: my reason"]
    (reason,) = [sample["reason"] for sample in plan(program, dataset)["left_out"]]
    assert "excluded" not in reason and "zip" in reason
    volume.write_bytes(sound)
    assert plan(program, dataset)["left_out"] == []


def test_what_is_wrong_with_a_list(program: Program, data: Dataset, tmp_path: Path) -> None:
    """A study that is not there is a warning; a file that is no list is an error."""
    listed = tmp_path / "list.csv"
    listed.write_text("study_id\nv01\nnobody\n")
    warning = program.run("plan", *data.flags(), *FLAGS, "--exclude", listed).stderr
    assert "list.csv: 1 of its studies are not in the data set (for example 'nobody')" in warning
    listed.write_text("name\nv01\n")
    assert "study_id" in program.refuses("plan", *data.flags(), "--exclude", listed)
    assert "missing.csv" in program.refuses("plan", *data.flags(), "--exclude", tmp_path / "missing.csv")

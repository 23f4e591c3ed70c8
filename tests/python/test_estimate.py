"""`plan --estimate`: what it says of all volumes is what `materialize` writes, and what it says of some is honest."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Program, shards
from kinds import Steps
from make_dataset import Dataset
from small_datasets import write_dataset

COUNT, PER_SHARD = 7, 3
STEPS = Steps(shape=(60, 50, 40), spacing=(0.8, 0.8, 1.6)).flags()
FLAGS = ("--samples-per-shard", PER_SHARD, "--rescale", "table", *STEPS)
KINDS = ["stored", "rescaled", "preprocessed"]
CODECS = ["none", "zstd:1", "zstd:9"]
HEADERS = 3 * 512  # bytes a sample: what the codec adds to the JSON, and the padding of two members
RECORD = 10_240  # bytes that a tar file's length is a multiple of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Volumes of several sizes, each noisier than the one before, of up to three blocks."""
    rng = np.random.default_rng(5)
    volumes = {
        f"v{n}.npz": {"data": rng.normal(0, 4.0**n, (64, 64, 60 + 6 * n)).round().clip(-2000, 2000).astype("f4")}
        for n in range(COUNT)
    }
    return write_dataset(tmp_path_factory.mktemp("data"), volumes, writer="numpy", deflated=True)


def estimate(program: Program, dataset: Dataset, *flags: object) -> dict[str, Any]:
    """What it prints for programs."""
    return json.loads(program.run("plan", *dataset.flags(), *FLAGS, "--estimate", "--json", *flags).stdout)


def untimed(found: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from run to run: speeds and the time that follows from them."""

    def codecs(kind: dict[str, Any]) -> list[dict[str, Any]]:
        timed = {"make_mb_s", "encode_mb_s", "hours"}
        return [{key: value for key, value in codec.items() if key not in timed} for codec in kind["codecs"]]

    return found | {"kinds": [kind | {"codecs": codecs(kind)} for kind in found["kinds"]]}


def test_all_volumes_give_the_real_sizes(program: Program, data: Dataset, tmp_path: Path) -> None:
    """With every volume in the sample nothing is guessed: the interval is one number, and it is the files'."""
    found = estimate(program, data, "--estimate-samples", COUNT)
    assert [kind["kind"] for kind in found["kinds"]] == KINDS and found["failed"] == found["doubts"] == []
    source = sum(path.stat().st_size for path in data.volumes())
    assert found["npz_bytes"] == source
    for kind in found["kinds"]:
        assert kind["sampled"] == [f"v{n}" for n in range(COUNT)] and kind["volumes"] == COUNT
        assert [codec["codec"] for codec in kind["codecs"]] == CODECS
        for codec in kind["codecs"]:
            name = f"{kind['kind']}-{codec['codec']}"
            flags = [] if codec["codec"] == "none" else ["--compress", codec["codec"]]
            out = program.materialize(data, tmp_path / name, *FLAGS, "--volume", kind["kind"], *flags)
            real = sum(path.stat().st_size for path in shards(out))
            slack = 0 if codec["codec"] == "none" else COUNT * HEADERS + len(shards(out)) * RECORD
            assert abs(codec["bytes"] - real) <= slack, name
            assert codec["interval"] == [codec["bytes"]] * 2
            assert codec["saved_of_npz"] == pytest.approx(100 * (1 - codec["bytes"] / source), abs=1e-6)
            assert codec["saved_of_f32"] == pytest.approx(100 * (1 - codec["bytes"] / found["f32_bytes"]), abs=1e-6)
            members = sum(volume_bytes(path) for path in shards(out))
            assert codec["volume_bytes"] == members, name
            voxels = kind["f16_bytes"] / 2
            assert codec["bytes_per_voxel"] == pytest.approx(members / voxels)
            assert codec["make_mb_s"] > 0 and codec["hours"] > 0
            assert (codec["encode_mb_s"] is None) == (codec["codec"] == "none")


def volume_bytes(shard: Path) -> int:
    """Of the volumes' members alone."""
    with tarfile.open(shard) as tar:
        return sum(info.size for info in tar if info.name.partition(".")[2].startswith("bin"))


def test_a_sample_is_the_same_with_the_same_seed(program: Program, data: Dataset) -> None:
    """Figures and volumes; another seed takes others."""
    one, same = (estimate(program, data, "--estimate-samples", 3, "--estimate-seed", 4) for _ in range(2))
    assert untimed(one) == untimed(same)
    others = [estimate(program, data, "--estimate-samples", 3, "--estimate-seed", seed) for seed in (5, 6)]
    assert any(other["kinds"][0]["sampled"] != one["kinds"][0]["sampled"] for other in others)
    assert all(len(kind["sampled"]) == 3 for kind in one["kinds"])


def width(found: dict[str, Any], codec: int) -> float:
    """Of the interval of stored volumes."""
    low, high = found["kinds"][0]["codecs"][codec]["interval"]
    return high - low


def test_the_interval_shrinks_to_nothing(program: Program, data: Dataset) -> None:
    """As the sample grows to all; what needs no sample has none from the start, and one volume says nothing of it."""
    found = {count: estimate(program, data, "--estimate-samples", count) for count in (1, 2, 4, 6, COUNT, 50)}
    assert found[1]["kinds"][0]["codecs"][1]["interval"] is None
    widths = [width(found[count], 1) for count in (2, 4, 6, COUNT)]
    assert widths == sorted(widths, reverse=True) and widths[2] > 0 and widths[-1] == 0
    assert untimed(found[50]) == untimed(found[COUNT])
    truth = found[COUNT]["kinds"][0]["codecs"][1]["bytes"]
    for count in (4, 6):
        assert width(found[count], 0) == 0
        low, high = found[count]["kinds"][0]["codecs"][1]["interval"]
        assert low <= truth <= high


def test_text_and_refusals(program: Program, data: Dataset, tmp_path: Path) -> None:
    """A line for each kind and codec below the plan; a volume that cannot be made is named."""
    text = program.run("plan", *data.flags(), *FLAGS, "--estimate", "--estimate-samples", 2).stdout
    lines = [line.split() for line in text.splitlines() if line.endswith(f"2 of {COUNT}")]
    assert [(line[0], line[1]) for line in lines] == [(kind, codec) for kind in KINDS for codec in CODECS]
    assert "Plan digest" in text and "asks first" not in text
    asked = program.run("plan", *data.flags(), *STEPS, "--estimate", "--estimate-samples", 2).stdout
    assert asked.count("asks first: ") == 2 and "--rescale none" in asked  # some volumes look like HU
    assert program.run("plan", *data.flags(), "--estimate-samples", 2, check=False).returncode == 2
    assert program.run("plan", "--shards", tmp_path, "--estimate", check=False).returncode == 2
    large = {"a.npz": {"data": np.full((4, 5, 6), 70_000, "f4")}}
    broken = write_dataset(tmp_path / "broken", large)
    done = program.run("plan", *broken.flags(), *STEPS, "--estimate", check=False)
    assert done.returncode == 1
    assert "stored" in done.stdout and "a.npz" in done.stdout and "--overflow" in done.stdout


@pytest.mark.parametrize("dtype", [["int16"], ["uint8", "--window=-160,240"]], ids=lambda flags: flags[0])
def test_a_kind_that_no_sample_can_have(program: Program, tmp_path: Path, dtype: list[str]) -> None:
    """Stored floats are no integers: that is said, and the other kinds are measured, with exit code 0."""
    rng = np.random.default_rng(2)
    volumes = {f"v{n}.npz": {"data": rng.random((20, 20, 20)).astype("f4") * 2000} for n in range(3)}
    floats = write_dataset(tmp_path / "data", volumes)
    flags = ["--volume=rescaled", "--output-dtype", *dtype, *STEPS, "--estimate"]
    found = json.loads(program.run("plan", *floats.flags(), *flags, "--json").stdout)
    assert [kind["kind"] for kind in found["kinds"]] == ["rescaled", "preprocessed"] and found["failed"] == []
    assert [kind for kind, _ in found["impossible"]] == ["stored"] and "holds floats" in found["impossible"][0][1]
    shown = program.run("plan", *floats.flags(), *flags).stdout
    assert "stored        no sample can be made so, for example: array 'data'" in shown

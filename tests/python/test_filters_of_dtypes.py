"""Compressed shards of every dtype with the filters of this version and of both earlier ones, by every reader: a mount,
`verify`, the way back to plain shards, the page of Python, and the loader with its extension and without."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import packed_volume
import packing
import pytest
from ctwds.reader import ShardReader
from harness import Program, Stored, digest, files_in, payload, shards
from small_datasets import noise_dataset, on_slopes, write_dataset
from verifying import verify

FILTERS = {
    "split": {"uint8": "predict1", "int16": "split2", "float16": "split", "float32": "shuffle4"},
    "predict": {"uint8": "predict1", "int16": "predict2", "float16": "predict", "float32": "shuffle4"},
    "shuffle": {"uint8": "shuffle1", "int16": "shuffle", "float16": "shuffle", "float32": "shuffle4"},
}
SHAPE = (33, 40, 51)


def voxels_and_masks(folder: Path) -> list[bytes]:
    """Those of all samples, by the package's reader of shards."""
    samples = [raw for shard in shards(folder) for raw in ShardReader(str(shard), [], also=["mask"])]
    return [array.tobytes() for raw in samples for array in (raw.voxels, raw.extras["mask"])]


def compressed(shard: Path) -> dict[str, bytes]:
    """The members of a shard that are compressed."""
    with tarfile.open(shard) as tar:
        return {info.name: payload(tar, info) for info in tar if info.name.endswith(".zst")}


@pytest.mark.parametrize("method", FILTERS)
@pytest.mark.parametrize("dtype", FILTERS["split"])
def test_every_reader_of_every_filter(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, method: str
) -> None:
    """Of random values, of whole numbers and of others, each with a mask of integers of two bytes."""
    noise = np.random.default_rng(1).integers(-1000, 1000, SHAPE)
    volumes = {"v00": noise, "v01": on_slopes(noise), "v02": on_slopes(noise) / 7}
    dataset = write_dataset(
        tmp_path / "data", {f"{name}.npz": {"data": array.astype(np.float32)} for name, array in volumes.items()}
    )
    masks = noise_dataset(tmp_path / "masks", 3, SHAPE, dtype="i2").folder
    window = ["--window=-1000,1000"] if dtype == "uint8" else []
    asked = [
        "--also",
        f"mask={masks}/*.npz",
        "--volume",
        "rescaled",
        "--rescale",
        "none",
        "--output-dtype",
        dtype,
        *window,
    ]
    plain = program.materialize(dataset, tmp_path / "plain", *asked)
    packed = program.materialize(dataset, tmp_path / "packed", *asked, "--compress", "zstd")
    if method != "split":
        packing.make_old(packed, method, 10_000)
    name = FILTERS[method][dtype]
    assert json.loads((packed / "manifest.json").read_text())["compression"]["filter"] == name
    found = [member for shard in shards(packed) for member in compressed(shard).items()]
    assert {member.split(".", 1)[1] for member, _ in found} == {
        f"bin.{name}.zst",
        f"mask.npy.{FILTERS[method]['int16']}.zst",
    }
    right = [content for shard in shards(plain) for content in members_of_voxels(shard)]
    assert [packed_volume.unpack(content, member.split(".")[-2]).tobytes() for member, content in found] == right
    assert verify(program, packed, *dataset.flags(), *asked)[0] == 0
    with program.mounted(Stored(packed)) as point:
        assert [digest(path) for path in shards(point)] == [digest(path) for path in shards(plain)]
    program.run("materialize", *Stored(packed).flags(), "--output-dir", tmp_path / "back")
    assert files_in(tmp_path / "back") == files_in(plain)
    assert voxels_and_masks(packed) == voxels_and_masks(plain)
    monkeypatch.setattr("ctwds.packed.native_unpack", lambda: None)
    assert voxels_and_masks(packed) == voxels_and_masks(plain)


def members_of_voxels(shard: Path) -> list[bytes]:
    """Volumes and masks of a plain shard."""
    with tarfile.open(shard) as tar:
        return [payload(tar, info) for info in tar if info.name.endswith((".bin", ".npy"))]

"""What says how volumes are read, crossed with what says how they are written: every pair of options of the two sides,
in small data sets. NumPy and PyTorch are the judges; `verify` and the loader agree with them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Program, Stored, payload, shards
from kinds import Steps, preprocessed
from make_dataset import Dataset
from niftis import write as write_nifti
from niftis import written
from numpy.typing import NDArray
from small_datasets import set_meta, write_dataset
from spellings import covering
from test_one_answer import differences, through_npz, through_shards
from verifying import verify

STEPS = Steps(shape=(8, 9, 6), spacing=(1.0, 1.0, 1.5))
MM = {"H": 0.7, "W": 1.3, "D": 2.0}
INTERCEPT = -1024.0
WINDOWS = {"stored": (100.0, 900.0), "rescaled": (-900.0, -100.0), "preprocessed": (-900.0, -100.0)}
NEAR = 2e-3  # HU, of sums in float32 in another order
FACTORS: dict[str, Any] = {
    "container": ("npz", "deflated", "npy", "nii", "nii.gz"),
    "extra": ("none", "first of 1", "last of 1", "both of 1", "channel", "last channel"),
    "order": ("C", "F"),
    "dtype": ("<i2", ">i2", "<f4", ">f8", "|u1"),
    "axes": (None, "DHW", "WHD", "WDH"),
    "kind": ("stored", "rescaled", "preprocessed"),
    "output": ("float16", "float32", "int16", "uint8"),
    "format": ("ctclip", "npy"),
    "compress": (None, "zstd"),
}
ROWS = covering(FACTORS, 3)


def volume(row: dict[str, Any], study: int) -> NDArray[Any]:
    """The three-dimensional array of a study, with the axes of its data set."""
    shape = [{"H": 9 + study, "W": 7, "D": 5}[axis] for axis in row["axes"] or "HWD"]
    rng = np.random.default_rng([study, *shape])
    return rng.integers(0, 256 if row["dtype"] == "|u1" else 2000, shape).astype(row["dtype"])


def in_file(row: dict[str, Any], array: NDArray[Any]) -> NDArray[Any]:
    """The array as the file has it: with axes of length 1, or as one channel of two. In NIfTI these are behind the
    third axis."""
    other = np.zeros_like(array)
    if row["container"].startswith("nii") and row["extra"].endswith("of 1"):
        return array[..., None, None]
    extra: dict[str, NDArray[Any]] = {
        "none": array,
        "first of 1": array[None],
        "last of 1": array[..., None],
        "both of 1": array[None, ..., None],
        "channel": np.stack([other, array]),
        "last channel": np.stack([other, array], axis=-1),
    }
    return np.array(extra[row["extra"]], order=row["order"])


def write(out: Path, row: dict[str, Any], volumes: dict[str, NDArray[Any]]) -> Dataset:
    """The data set."""
    arrays = {study: in_file(row, array) for study, array in volumes.items()}
    deflated, is_nifti = row["container"] == "deflated", row["container"].startswith("nii")
    files = {f"{study}.npz": {"data": array} for study, array in arrays.items()}
    dataset = write_dataset(out, files, writer="numpy", deflated=deflated)
    for study, array in arrays.items() if row["container"] == "npy" or is_nifti else ():
        (dataset.folder / f"{study}.npz").unlink()
        if is_nifti:
            order = "<" if row["dtype"][0] == "|" else row["dtype"][0]
            write_nifti(dataset.folder / f"{study}.{row['container']}", written(array, row["dtype"][1:], order))
        else:
            np.save(dataset.folder / f"{study}.npy", array)
    set_meta(dataset, dict.fromkeys(volumes, (1, INTERCEPT, f"[{MM['H']}, {MM['W']}]", MM["D"])))
    return dataset


def right(row: dict[str, Any], array: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """A volume before it is rounded to its dtype, and how far the rounded one may be from it beside that."""
    axes, kind, output = row["axes"] or "HWD", row["kind"], row["output"]
    hwd = array.transpose([axes.index(axis) for axis in "HWD"])
    near = 0.0
    if kind == "stored":
        values = array.astype(np.float64)
    elif kind == "rescaled":
        values = hwd.astype(np.float64) + INTERCEPT
    else:
        made, _ = preprocessed(hwd, 1, INTERCEPT, (MM["H"], MM["W"], MM["D"]), STEPS)
        values = made.astype(np.float64) * (1 if output.startswith("float") else 1000)
        near = NEAR if values.max() > 10 else NEAR / 1000
    if output == "uint8":
        low, high = WINDOWS[kind]
        values = (np.clip(values, low, high) - low) / (high - low) * 255
    return values, near


def check(found: NDArray[Any], row: dict[str, Any], array: NDArray[Any]) -> None:
    """Voxel by voxel."""
    values, near = right(row, array)
    assert found.dtype == row["output"] and found.shape == values.shape
    if row["output"] in ("int16", "uint8"):
        rounded = np.rint(values)
    else:
        rounded = values.astype(row["output"]).astype(np.float64)
    if near == 0:
        np.testing.assert_array_equal(found, rounded)
    unit = 1 if found.dtype.kind in "iu" else np.spacing(np.abs(rounded).astype(found.dtype)).astype(np.float64)
    assert (np.abs(found - values) <= near + unit).all()
    assert (found == rounded).mean() > (0.97 if found.dtype != np.float32 else 0)


def read(folder: Path) -> dict[str, NDArray[Any]]:
    """The volumes of plain shards."""
    found = {}
    for shard in shards(folder):
        with tarfile.open(shard) as tar:
            for voxels, meta, _, _ in zip(*[iter([payload(tar, member) for member in tar])] * 4, strict=True):
                fields = json.loads(meta)
                if voxels.startswith(b"\x93NUMPY"):
                    found[fields["study_id"]] = np.load(io.BytesIO(voxels))
                else:
                    array = np.frombuffer(voxels, fields["volume_dtype"])
                    found[fields["study_id"]] = array.reshape(fields["volume_shape"])
    return found


def flags(row: dict[str, Any]) -> list[str]:
    """The options of a row."""
    kind, output = row["kind"], row["output"]
    channel = {"channel": ["--channel", "1"], "last channel": ["--channel", "last:1"]}.get(row["extra"], [])
    axes = ["--axes", row["axes"]] if row["axes"] else []
    window = [f"--window={WINDOWS[kind][0]},{WINDOWS[kind][1]}"] if output == "uint8" else []
    return [
        *("--dialect", "native", "--volume", kind, *STEPS.flags(), "--output-dtype", output, *window),
        *("--format", row["format"], *channel, *axes),
    ]


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_reading_crossed_with_writing(program: Program, tmp_path: Path, number: int) -> None:
    """The right voxels, an agreeing `verify`, and the loader's same answer from the shards and from the files."""
    row = dict(ROWS[number])
    if row["kind"] == "stored" and row["output"] in ("int16", "uint8") and row["dtype"][1] == "f":
        row["dtype"] = ">i2"  # floats are not stored as integers, which tests of its own show
    volumes = {f"s{study}": volume(row, study) for study in range(3)}
    dataset = write(tmp_path / "data", row, volumes)
    compress = ["--compress", row["compress"]] if row["compress"] else []
    made = program.materialize(dataset, tmp_path / "out", *flags(row), *compress)
    if row["compress"]:
        with program.mounted(Stored(made)) as point:
            found = read(point)
    else:
        found = read(made)
    assert found.keys() == volumes.keys()
    for study, voxels in found.items():
        check(voxels, row, volumes[study])
    code, text = verify(program, made, *dataset.flags(), *flags(row))
    assert code == 0, text
    if row["output"] == "uint8":
        return  # of a window, the loader cannot give all that the files have
    options: dict[str, Any] = {"axes": row["axes"]} if row["axes"] else {}
    channels: dict[str, Any] = {"channel": 1, "last channel": "last:1"}
    from_files = through_npz(dataset, channel=channels.get(row["extra"]), **options)
    rounded = row["output"] == "int16" or (row["output"] == "float16" and row["kind"] != "stored")
    within = 6e-4 if rounded else 4e-6  # of 1000 HU
    assert differences(through_shards(made, **options), from_files, within) == []

"""`ctwds-fs verify` compares voxels with code of its own: every dtype, order, dialect and writer of NPZ files, and the
figures of precision, which are those that NumPy measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness import Program, report_of
from npzfiles import WRITERS, Order
from small_datasets import write_csv, write_dataset
from verifying import KINDS, STEPS, verify

DTYPES = ("<f2", "<f4", ">f4", "<f8", "|i1", "|u1", "<i2", ">i2", "<u2", "<i4", "<u4", ">i8", "<u8", "|b1")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_dtype_and_order(program: Program, tmp_path: Path, kind: str, order: Order) -> None:
    """Two decoders that share no code agree on every voxel, also on NaN, infinity, ties and what is too large."""
    rng = np.random.default_rng(1)
    volumes = {}
    for number, dtype in enumerate(DTYPES):
        values = rng.integers(0, 120, (9, 8, 7)) if dtype[1:] in ("i1", "u1") else rng.integers(0, 3000, (9, 8, 7))
        array = values.astype(dtype, order=order)
        if array.dtype.kind == "f":
            array += rng.random(array.shape).astype(dtype)
            array[0, 0, :5] = [2049, 2051, 0.1, -0.0, 70]
            if kind == "stored":
                array[1, 1, :3] = [np.nan, np.inf, -np.inf]
        if dtype == "<i4" and kind == "stored":
            array[2, 2, :2] = [1_000_000, -65_520]
        volumes[f"v{number}.npz"] = {"data": array}
    dataset = write_dataset(tmp_path / "data", volumes, deflated=order == "F")
    for overflow in ("saturate", "inf"):
        options = ["--volume", kind, *STEPS, "--overflow", overflow]
        out = program.materialize(dataset, tmp_path / overflow, *options)
        report = report_of(program.run("verify", "--webdataset_dir", out, *dataset.flags(), *options, "--json"))
        assert report["source"]["compared"] == len(DTYPES) and report["source"]["different"] == 0
        if kind == "stored":
            counts = report["source"]["precision"]
            assert (counts["nan"], counts["infinite"]) == (4, 8 + (2 if overflow == "inf" else 0))


@pytest.mark.parametrize("kind", KINDS)
def test_every_dialect(program: Program, tmp_path: Path, kind: str) -> None:
    """Of arrays and their axes."""
    rng = np.random.default_rng(2)
    hu = rng.integers(-1000, 1000, (9, 8, 7))
    volumes = {
        "data.npz": {"data": (hu + 1024).astype("f4")},
        "volume.npz": {"volume": hu.astype("i2"), "metadata": np.array(b"x")},
        "arr.npz": {"arr_0": (hu / 1000).astype("f4").transpose(2, 0, 1)},
    }
    dataset = write_dataset(tmp_path / "data", volumes)
    options = ["--volume", kind, *STEPS]
    out = program.materialize(dataset, tmp_path / "out", *options)
    assert verify(program, out, *dataset.flags(), *options)[0] == 0


@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_of_npz(program: Program, tmp_path: Path, writer: str) -> None:
    """The independent code reads what the program reads."""
    array = np.random.default_rng(3).integers(0, 2000, (6, 5, 4)).astype("f4")
    for deflated in (False, True):
        data = tmp_path / str(deflated)
        dataset = write_dataset(data, {"v.npz": {"data": array}}, writer=writer, deflated=deflated)
        out = program.materialize(dataset, data / "out")
        assert verify(program, out, *dataset.flags())[0] == 0


@pytest.mark.parametrize("kind", ["stored", "rescaled"])
def test_precision_is_what_numpy_measures(program: Program, tmp_path: Path, kind: str) -> None:
    """In stored units and in HU, and the worst first."""
    rng = np.random.default_rng(4)
    slopes = {"a": 0.5, "b": 2.0}
    volumes = {f"{name}.npz": {"data": rng.random((6, 7, 8)) * 4000} for name in slopes}
    dataset = write_dataset(tmp_path / "data", volumes)
    header = ["VolumeName", "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"]
    write_csv(dataset.meta, [header] + [[f"{n}.nii.gz", s, -1024, "[0.9, 0.9]", 1.2] for n, s in slopes.items()])
    out = program.materialize(dataset, tmp_path / "out", "--volume", kind)
    options = [*dataset.flags(), "--volume", kind, "--check_precision", "--json"]
    source = report_of(program.run("verify", "--webdataset_dir", out, *options))["source"]
    errors, scales = {}, {}
    for name, slope in slopes.items():
        exact = volumes[f"{name}.npz"]["data"] * (slope if kind == "rescaled" else 1)
        exact = exact - (1024 if kind == "rescaled" else 0)
        errors[name] = np.abs(exact.astype(np.float16).astype(np.float64) - exact)
        scales[name] = 1 if kind == "rescaled" else slope
    together = np.concatenate([errors[name].ravel() for name in slopes])
    in_hu = np.concatenate([errors[name].ravel() * scales[name] for name in slopes])
    precision = source["precision"]
    found = [precision[name] for name in ("max_error", "rms_error", "max_error_hu", "rms_error_hu")]
    assert found == pytest.approx(
        [together.max(), np.sqrt((together**2).mean()), in_hu.max(), np.sqrt((in_hu**2).mean())], rel=1e-12
    )
    worst = sorted(slopes, key=lambda name: -(errors[name].max() * scales[name]))
    assert [entry["study_id"] for entry in source["worst"]] == worst

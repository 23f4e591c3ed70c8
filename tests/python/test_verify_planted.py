"""`ctwds-fs verify` finds the wrong results that readers of shards have had: each is planted into shards whose manifest
agrees with them, or the sources and tables are made to say something else, and only a comparison can tell."""

from __future__ import annotations

import io
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from damages import (
    DAMAGED,
    FIRST,
    JSON,
    LABELS,
    TEXT,
    VOLUME,
    members_of,
    recompute,
    with_json,
    with_payload,
    write_shard,
)
from harness import Program
from kinds import Steps, preprocessed, samples
from make_dataset import Dataset
from numpy.typing import NDArray
from small_datasets import write_csv, write_dataset
from test_one_answer import through_npz, through_shards
from verifying import verify

STEPS = Steps(shape=(12, 10, 6), spacing=(1.0, 1.0, 1.5))
# Height 9 → 3: each voxel lies on one of the source, beside which is a weight of 0. Width 8 → 8, depth 6 → 4.
SPACING = (1 / 3, 1.0, 1.0)
FLAGS: dict[str, tuple[object, ...]] = {
    "stored": (),
    "rescaled": ("--volume", "rescaled"),
    "preprocessed": ("--volume", "preprocessed", *STEPS.flags()),
}


def volume(seed: int) -> NDArray[np.float32]:
    """Raw values of a scanner."""
    return np.random.default_rng(seed).integers(0, 2000, (9, 8, 6)).astype("f4")


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Three volumes of other spacing in each axis, with texts and labels that differ."""
    dataset = write_dataset(tmp_path / "data", {f"v{n}.npz": {"data": volume(n)} for n in range(3)}, writer="numpy")
    header = ["VolumeName", "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"]
    rows = [[f"v{n}.nii.gz", 1, -1024, f"[{SPACING[0]}, {SPACING[1]}]", SPACING[2]] for n in range(3)]
    write_csv(dataset.meta, [header, *rows])
    labels = [[f"v{n}.nii.gz", n % 2, 1 - n % 2, 1] for n in range(3)]
    write_csv(dataset.labels, [["VolumeName", "nodule", "effusion", "emphysema"], *labels])
    reports = [[f"v{n}.nii.gz", f'A nodule of {n} mm, "stable", in the left lobe.', f"None {n}."] for n in range(3)]
    write_csv(dataset.reports, [["VolumeName", "Findings_EN", "Impressions_EN"], *reports])
    return dataset


def shifted(payload: bytes) -> bytes:
    """The intercept once more."""
    return (np.frombuffer(payload, "<f2") - np.float16(1024)).tobytes()


def other_byte_order(payload: bytes) -> bytes:
    """Big-endian values taken for little-endian ones."""
    return np.frombuffer(payload, "<u2").byteswap().tobytes()


def other_axes(payload: bytes) -> bytes:
    """Fortran order taken for C order."""
    return np.frombuffer(payload, "<u2").reshape(9, 8, 6).tobytes("F")


def one_voxel(payload: bytes) -> bytes:
    """The neighbour in float16 of a single voxel."""
    bits = np.frombuffer(payload, "<u2").copy()
    bits[len(bits) // 2] ^= 1
    return bits.tobytes()


def swapped_classes(payload: bytes) -> bytes:
    """Two classes have each other's labels."""
    labels = np.frombuffer(payload, "<f4")
    return labels[[1, 0, 2]].tobytes()


def with_class_of_row_numbers(folder: Path) -> None:
    """The column of row numbers became the first class, in every sample and in the manifest."""
    members = members_of(folder / FIRST)
    write_shard(
        folder / FIRST,
        [
            (name, np.float32(at // 4).tobytes() + data if at % 4 == LABELS else data)
            for at, (name, data) in enumerate(members)
        ],
    )
    path = folder / "manifest.json"
    path.write_text(re.sub(r'("label_names": \[)', r'\1"Unnamed: 0", ', path.read_text()))


IN_SHARDS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    f"{kind}: {name}": (kind, plant, says)
    for kind in ("stored", "rescaled")
    for name, plant, says in (
        ("a voxel", with_payload(VOLUME, one_voxel), "voxel"),
        ("HU shifted twice", with_payload(VOLUME, shifted), "voxel"),
        ("byte order", with_payload(VOLUME, other_byte_order), "voxel"),
        ("order of the axes", with_payload(VOLUME, other_axes), "voxel"),
        (
            "labels of another study",
            with_payload(LABELS, lambda labels: labels[4:8] + labels[:4] + labels[8:]),
            "labels",
        ),
        ("classes swapped", with_payload(LABELS, swapped_classes), "labels"),
        ("half a report", with_payload(TEXT, lambda text: text[: len(text) // 2] + b"\n"), "text"),
        ("spacing", with_json("XYSpacing", "[0.5, 0.5]"), "XYSpacing"),
        ("depth", with_json("ZSpacing", 3.0), "ZSpacing"),
        ("slope", with_json("RescaleSlope", 2.0), "RescaleSlope"),
        ("a class of row numbers", with_class_of_row_numbers, "labels"),
    )
}
IN_SHARDS |= {
    "preprocessed: a voxel": ("preprocessed", with_payload(VOLUME, shifted), "voxel"),
}


@pytest.mark.parametrize("name", IN_SHARDS)
def test_in_shards(program: Program, data: Dataset, tmp_path: Path, name: str) -> None:
    """The shard and its manifest agree; sources and tables say something else of the first sample, or of all."""
    kind, plant, says = IN_SHARDS[name]
    out = program.materialize(data, tmp_path / "out", *FLAGS[kind])
    assert verify(program, out, *data.flags(), *FLAGS[kind])[0] == 0
    plant(out)
    recompute(out)
    code, text = verify(program, out, *data.flags(), *FLAGS[kind])
    assert code == DAMAGED and "000000_000000 v0: " in text and says in text, text


@pytest.mark.parametrize("at", [VOLUME, JSON, TEXT, LABELS])
def test_a_member_that_is_there_twice(program: Program, data: Dataset, tmp_path: Path, at: int) -> None:
    """Of a shard: a reader takes the first or the last."""
    out = program.materialize(data, tmp_path / "out")
    members = members_of(out / FIRST)
    write_shard(out / FIRST, [*members[: at + 1], members[at], *members[at + 1 :]])
    recompute(out)
    code, text = verify(program, out, *data.flags())
    assert code == DAMAGED and "its members are" in text, text


def keeping_time(path: Path, change: Callable[[str], str]) -> None:
    """Edit a table in place, so that size and modification time say nothing."""
    before = path.stat()
    text = path.read_text()
    edited = change(text)
    assert edited != text and len(edited) == len(text)
    with path.open("r+") as file:
        file.write(edited)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


IN_TABLES: dict[str, tuple[str, Callable[[str], str], str]] = {
    "labels": ("labels", lambda text: text.replace("v0.nii.gz,0,1,1", "v0.nii.gz,1,0,1"), "labels"),
    "reports": ("reports", lambda text: text.replace("nodule of 0 mm", "nodule of 9 mm"), "text"),
    "meta": ("meta", lambda text: text.replace("v0.nii.gz,1,-1024", "v0.nii.gz,2,-1024"), "RescaleSlope"),
}


@pytest.mark.parametrize("table", IN_TABLES)
def test_in_tables(program: Program, data: Dataset, tmp_path: Path, table: str) -> None:
    """Shards of before the edit hold old values; no saved plan hides it."""
    name, change, says = IN_TABLES[table]
    out = program.materialize(data, tmp_path / "out")
    assert verify(program, out, *data.flags())[0] == 0
    keeping_time(getattr(data, name), change)
    code, text = verify(program, out, *data.flags())
    assert code == DAMAGED and "000000_000000 v0: " in text and says in text, text


@pytest.mark.parametrize("spacing", ["[1.0, 0.3333333333333333]", "0.5", "[0, 0]"])
def test_another_spacing(program: Program, data: Dataset, tmp_path: Path, spacing: str) -> None:
    """Volumes that were resampled from a wrong spacing, or from none."""
    out = program.materialize(data, tmp_path / "out", *FLAGS["preprocessed"])
    text = data.meta.read_text()
    data.meta.write_text(text.replace(f"[{SPACING[0]}, {SPACING[1]}]", spacing))
    code, said = verify(program, out, *data.flags(), *FLAGS["preprocessed"], "--missing-meta", "exclude")
    assert code != 0 and "v0" in said, said


def test_a_slope_of_zero(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Shards whose voxels are all the intercept, as the table says: no such sample is fine."""
    out = program.materialize(data, tmp_path / "out", *FLAGS["rescaled"])
    data.meta.write_text(data.meta.read_text().replace("v0.nii.gz,1,-1024", "v0.nii.gz,0,-1024"))
    with_payload(VOLUME, lambda payload: np.full(len(payload) // 2, -1024, "<f2").tobytes())(out)
    recompute(out)
    code, text = verify(program, out, *data.flags(), *FLAGS["rescaled"])
    assert code != 0 and "v0" in text, text


def test_another_array_of_the_file(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Shards of the array that a reader would not take."""
    for n in range(3):
        np.savez(data.folder / f"v{n}.npz", data=volume(n), mask=volume(n + 3))
    out = program.materialize(data, tmp_path / "out", "--array", "mask", "--dialect", "native")
    assert verify(program, out, *data.flags(), "--array", "mask", "--dialect", "native")[0] == 0
    code, text = verify(program, out, *data.flags())
    assert code == DAMAGED and "voxel" in text, text


def test_a_source_that_is_there_twice(program: Program, data: Dataset, tmp_path: Path) -> None:
    """`np.load` takes one array, a zip tool the other: nothing can be compared, and that is said."""
    out = program.materialize(data, tmp_path / "out")
    path = data.folder / "v1.npz"
    np.savez(tmp_path / "x.npz", data=volume(1))
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = append_member(path.read_bytes(), (tmp_path / "x.npz").read_bytes())
    path.write_bytes(content)
    code, text = verify(program, out, *data.flags())
    assert code != 0 and "v1" in text and "FINE" not in text, text


def append_member(archive: bytes, other: bytes) -> bytes:
    """The zip file with the arrays of another one behind its own."""
    file = io.BytesIO(archive)
    with zipfile.ZipFile(file, "a") as target, zipfile.ZipFile(io.BytesIO(other)) as source:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return file.getvalue()


# --- NaN -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_nan_beside_a_weight_of_zero(program: Program, data: Dataset, tmp_path: Path, order: str) -> None:
    """It makes NaN, as in PyTorch: in shards, in both loaders, and for `verify`, which finds it where it is lost."""
    array = volume(0)
    array[2, 3, 4] = np.nan  # the upper neighbour of height 1, with a weight of 0
    array[7, 0, 0] = np.nan  # the middle of the last three
    np.savez(data.folder / "v0.npz", data=np.asarray(array, order="F" if order == "F" else "C"))
    right, _ = preprocessed(array, 1, -1024, SPACING, STEPS)
    assert 2 < np.isnan(right).sum() < 40
    out = program.materialize(data, tmp_path / "out", *FLAGS["preprocessed"])
    stored = program.materialize(data, tmp_path / "stored")
    options = {"shape": STEPS.shape, "spacing": STEPS.spacing}
    ways = {
        "shards": samples(out)["v0"]["volume"],
        "loader on them": through_shards(out, **options)["v0"][0][0].transpose(1, 2, 0),
        "loader on stored ones": through_shards(stored, **options)["v0"][0][0].transpose(1, 2, 0),
        "loader on NPZ": through_npz(data, **options)["v0"][0][0].transpose(1, 2, 0),
    }
    for way, found in ways.items():
        assert np.array_equal(np.isnan(found), np.isnan(right)), way
        assert np.nanmax(np.abs(found.astype("f4") - right)) < 0.001, way
    assert verify(program, out, *data.flags(), *FLAGS["preprocessed"])[0] == 0

    def without_nan(payload: bytes) -> bytes:
        voxels = np.frombuffer(payload, "<f2").copy()
        voxels[np.flatnonzero(np.isnan(voxels))[0]] = 0.5
        return voxels.tobytes()

    def with_nan(payload: bytes) -> bytes:
        voxels = np.frombuffer(payload, "<f2").copy()
        voxels[np.flatnonzero(~np.isnan(voxels) & (voxels != -1))[0]] = np.nan
        return voxels.tobytes()

    for change in (without_nan, with_nan):
        folder = tmp_path / change.__name__
        shutil.copytree(out, folder)
        with_payload(VOLUME, change)(folder)
        recompute(folder)
        code, text = verify(program, folder, *data.flags(), *FLAGS["preprocessed"])
        assert code == DAMAGED and "voxel" in text and "NaN" in text, text

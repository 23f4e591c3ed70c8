"""NIfTI files as sources: a shard of them is, to the byte, the shard of the NPZ files that nibabel and NumPy make of
them, whatever dtype, byte order, slope, version, packing and extension they have."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import reference
import SimpleITK
from harness import Program, report_of, shards
from kinds import samples
from make_dataset import Dataset
from niftis import (
    DTYPES,
    SCALED,
    SUFFIXES,
    UNSCALED,
    Nifti,
    as_npz,
    bare,
    load,
    spacing,
    write_niftis,
    written,
)
from numpy.typing import NDArray
from small_datasets import explain_difference
from spellings import covering
from test_one_answer import STEPS, through_npz
from verifying import verify

sitk: Any = SimpleITK  # which has no types
COUNT = 520
FLAGS = ("--samples-per-shard", 60, "--overflow", "inf")
FACTORS: dict[str, Any] = {
    "dtype": DTYPES,
    "byte_order": ("<", ">"),
    "pair": UNSCALED + SCALED,
    "version": (1, 2),
    "suffix": SUFFIXES,
    "extension": (None, b"about the scan", b"x" * 1000),
    "more_axes": (0, 1, 4),
    "values": ("small", "extreme"),
}
EXTREME = (0.0, -0.0, 1e-7, 6e-8, 0.1, 65519.99, 65520, 1e30, 1e300, np.inf, -np.inf, np.nan)


def voxels(row: dict[str, Any], seed: int) -> NDArray[Any]:
    """Numbers of a dtype, of which no two studies, and no two orders of one, have the same."""
    rng = np.random.default_rng(seed)
    dtype, shape = np.dtype(row["dtype"]), tuple(rng.integers(2, 7, 3))
    if row["values"] == "small":
        values = rng.integers(0, 100, shape).astype(dtype)
    elif dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = rng.choice(np.array(EXTREME), shape).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        values = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        values.flat[:4] = [limits.min, limits.max, limits.max // 2 + 1, limits.max // 3]
    return values.reshape(*shape, *[1] * row["more_axes"])


@dataclass(frozen=True)
class Matrix:
    """The data set of all pairs: as NIfTI, and as the NPZ files that are made of it."""

    rows: list[dict[str, Any]]
    nifti: Dataset
    npz: Dataset


def one(row: dict[str, Any], seed: int) -> Nifti:
    """The file of a row."""
    file = written(voxels(row, seed), row["dtype"], row["byte_order"], row["version"], row["extension"])
    return file.scaled(*row["pair"])


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """Never changed."""
    out = tmp_path_factory.mktemp("matrix")
    rows = covering(FACTORS, 6, COUNT)
    files: dict[str, Nifti | bytes] = {f"v{at:03d}{row['suffix']}": one(row, at) for at, row in enumerate(rows)}
    dataset = write_niftis(out / "nifti", files)
    return Matrix(rows, dataset, as_npz(dataset, out / "npz", files))


def assert_same_shards(made: Path, right: Path) -> None:
    """The same shards, to the byte."""
    assert [path.name for path in shards(made)] == [path.name for path in shards(right)]
    for path in shards(right):
        explain_difference((made / path.name).read_bytes(), path)


def test_the_matrix_has_every_pair(matrix: Matrix) -> None:
    """As it says."""
    found = {(a, repr(row[a]), b, repr(row[b])) for row in matrix.rows for a in FACTORS for b in FACTORS}
    for a, values in FACTORS.items():
        for b, others in FACTORS.items():
            assert a == b or all((a, repr(x), b, repr(y)) in found for x in values for y in others), (a, b)
    assert len(matrix.rows) >= 500


def test_bytes(program: Program, via: str, matrix: Matrix, tmp_path: Path) -> None:
    """All of it in one mount, and as files: the bytes that NumPy, `json` and `tarfile` write from nibabel's values."""
    options = reference.Options(samples_per_shard=60, overflow="inf")
    slots = reference.plan(matrix.npz.folder, matrix.npz.reports, matrix.npz.meta, matrix.npz.labels, options)
    reference.convert(slots, tmp_path / "right", options)
    with program.produced(via, matrix.nifti, tmp_path / "made", *FLAGS) as made:
        assert_same_shards(made, tmp_path / "right")
        code, report = verify(program, made, *matrix.nifti.flags(), *FLAGS)
    assert code == 0 and f"{len(matrix.rows)} of {len(matrix.rows)}" in report, report


@pytest.mark.parametrize(
    "more",
    [
        ("--volume", "rescaled", "--output-dtype", "float32"),
        ("--volume", "rescaled", "--format", "npy", "--compress", "zstd"),
        ("--volume", "preprocessed", *STEPS.flags()),
    ],
    ids=["float32", "npy-zstd", "preprocessed"],
)
def test_other_kinds_know_no_difference(
    program: Program, matrix: Matrix, tmp_path: Path, more: tuple[object, ...]
) -> None:
    """From NIfTI and from NPZ the same shards, also where they are packed; `verify` agrees."""
    made = program.materialize(matrix.nifti, tmp_path / "made", *FLAGS, *more)
    assert_same_shards(made, program.materialize(matrix.npz, tmp_path / "right", *FLAGS, *more))
    asked = [flag for flag in more if flag not in ("--compress", "zstd")]
    done = program.run("verify", "--webdataset_dir", made, *matrix.nifti.flags(), *FLAGS, *asked, "--json", check=False)
    source = report_of(done)["source"]
    assert (source["compared"], source["different"]) == (len(matrix.rows), 0), done.stdout[-2000:]


def test_the_loader(program: Program, matrix: Matrix, tmp_path: Path) -> None:
    """It reads NIfTI as it reads the NPZ files, and as it reads shards."""
    from_nifti, from_npz = through_npz(matrix.nifti), through_npz(matrix.npz)
    assert len(from_nifti) == len(matrix.rows)
    for study, (volume, *others) in from_npz.items():
        assert np.array_equal(from_nifti[study][0], volume, equal_nan=True), study
        assert from_nifti[study][1:] == tuple(others), study


def test_a_wrong_voxel_is_found(program: Program, matrix: Matrix, tmp_path: Path) -> None:
    """By `verify`, wherever it stands; and one in the source."""
    picked = [at for at, row in enumerate(matrix.rows) if row["values"] == "small"][:12]
    some = replace(matrix.nifti, folder=tmp_path / "some")
    some.folder.mkdir()
    for at in picked:
        shutil.copy(matrix.nifti.folder / f"v{at:03d}{matrix.rows[at]['suffix']}", some.folder)
    made = program.materialize(some, tmp_path / "made", "--overflow", "inf")
    assert verify(program, made, *some.flags(), "--overflow", "inf")[0] == 0
    (shard,) = shards(made)
    content = bytearray(shard.read_bytes())
    content[512 + 7] ^= 0x10
    shard.write_bytes(content)
    code, report = verify(program, made, *some.flags(), "--overflow", "inf")
    assert code == 3 and " 1 are wrong" in report and "voxel [0, 0, 3]" in report, report


def test_headers_spacing_without_a_table(program: Program, tmp_path: Path) -> None:
    """`XYSpacing` and `ZSpacing` are what a table made with nibabel says, slope and intercept are 1 and 0; and the
    voxels of all kinds are those of such a table."""
    rng = np.random.default_rng(5)
    zooms = [(0.7, 0.9, 1.3), (1, 2, 3), (0.0009765625, 1e-5, 123456.789), (0.1, 0.30000001192092896, 5e-324 + 1)]
    files: dict[str, Nifti | bytes] = {}
    for version in (1, 2):
        for at, mm in enumerate(zooms):
            values = rng.integers(0, 1000, (5, 6, 4))
            files[f"v{version}{at}.nii.gz"] = written(values, version=version, zooms=mm)
    dataset = write_niftis(tmp_path / "data", files)
    flags = ("--data-folder", dataset.folder, "--samples-per-shard", 4)
    program.run("materialize", *flags, "--output_dir", tmp_path / "made")
    found = samples(tmp_path / "made")
    assert len(found) == len(files)
    for path in files:
        meta = found[bare(path)]["json"]
        assert (meta["XYSpacing"], meta["ZSpacing"]) == spacing(dataset.folder / path), path
        assert (meta["RescaleSlope"], meta["RescaleIntercept"]) == (1.0, 0.0)
        assert np.array_equal(found[bare(path)]["volume"], load(dataset.folder / path).astype(np.float16)), path
    code, report = verify(program, tmp_path / "made", *flags)
    assert code == 0, report


def test_a_study_that_is_there_twice(program: Program, tmp_path: Path) -> None:
    """As any two of the formats: the message names both files; one of them can be chosen."""
    values = np.arange(60).reshape(3, 4, 5)
    files = {"a/s.nii": written(values), "b/s.nii.gz": written(values + 1), "b/other.nii": written(values)}
    dataset = write_niftis(tmp_path / "data", files)
    out = ("--output_dir", tmp_path / "made")
    message = program.refuses("materialize", *dataset.flags(), *out)
    assert "a/s.nii " in message.replace(",", " ").replace(":", " ") and "b/s.nii.gz" in message, message
    (dataset.folder / "a/s.nii").unlink()
    np.savez(dataset.folder / "a" / "s.npz", data=values.astype("f4"))
    message = program.refuses("materialize", *dataset.flags(), *out)
    assert "a/s.npz" in message and "b/s.nii.gz" in message, message
    program.run("materialize", *dataset.flags(), "--source", "nifti", *out)
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text())
    sources = [sample["source"] for shard in manifest["shards"] for sample in shard["samples"]]
    assert sources == ["b/other.nii", "b/s.nii.gz"]


OWN = ("anatomical.nii", "reoriented_anat_moved.nii", "resampled_anat_moved.nii", "standard.nii.gz")
OF_SEVERAL = ("functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz")


@pytest.mark.parametrize("channel", [0, 1])
def test_files_of_nibabel(program: Program, via: str, tmp_path: Path, channel: int) -> None:
    """Those that it brings along for its own tests; of those of four axes, one channel: the others have only one."""
    data = Path(nib.__file__).parent / "tests" / "data"
    files: dict[str, Nifti | bytes] = {name: (data / name).read_bytes() for name in (*OWN, *OF_SEVERAL)}
    dataset = write_niftis(tmp_path / "data", files)
    flags = ("--channel", f"last:{channel}", "--overflow", "inf", "--rescale", "table")
    with program.produced(via, dataset, tmp_path / "made", *flags) as made:
        found = samples(made)
        assert verify(program, made, *dataset.flags(), *flags)[0] == (0 if channel == 0 else 4)
    for name in OF_SEVERAL:
        right = load(dataset.folder / name)[..., channel].astype(np.float16)
        assert np.array_equal(found[bare(name)]["volume"], right), name
    assert len(found) == len(OF_SEVERAL) + (len(OWN) if channel == 0 else 0)
    for name in OWN:
        if channel == 0:
            right = load(dataset.folder / name).astype(np.float16)
            assert np.array_equal(found[bare(name)]["volume"], right, equal_nan=True), name


def test_files_of_simpleitk(program: Program, via: str, tmp_path: Path) -> None:
    """Of each of its types of voxels, packed and not."""
    types = {"i1": sitk.sitkInt8, "i2": sitk.sitkInt16, "u2": sitk.sitkUInt16, "i4": sitk.sitkInt32}
    types |= {"u1": sitk.sitkUInt8, "u4": sitk.sitkUInt32, "f4": sitk.sitkFloat32, "f8": sitk.sitkFloat64}
    types |= {"i8": sitk.sitkInt64, "u8": sitk.sitkUInt64}
    rng, files = np.random.default_rng(8), {}
    (tmp_path / "data" / "volumes").mkdir(parents=True)
    for dtype, kind in types.items():
        for suffix in SUFFIXES:
            image = sitk.Cast(sitk.GetImageFromArray(rng.integers(0, 100, (5, 4, 3)).astype(dtype)), kind)
            image.SetSpacing((0.7, 0.8, 2.5))
            name = f"{dtype}{suffix.replace('.', '-')}{suffix}"
            sitk.WriteImage(image, str(tmp_path / "data" / "volumes" / name))
            files[name] = (tmp_path / "data" / "volumes" / name).read_bytes()
    dataset = write_niftis(tmp_path / "data", files)
    right = as_npz(dataset, tmp_path / "npz", files)
    with program.produced(via, dataset, tmp_path / "made", "--samples-per-shard", 7) as made:
        assert_same_shards(made, program.materialize(right, tmp_path / "right", "--samples-per-shard", 7))
    assert spacing(dataset.folder / "i2-nii.nii") == ("[0.699999988079071, 0.800000011920929]", 2.5)

"""Slopes and spacings as tables spell them: the mount, the loader on shards and the loader on NPZ read them alike."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from ctreport_webdataset import LoaderError
from harness import Program
from loading import STEPS, from_npz, from_shards
from make_dataset import Dataset
from small_datasets import write_csv, write_dataset

SPACINGS = {  # how a table spells it: height and width in mm; none if it is no spacing
    "0.7": (0.7, 0.7),
    "[0.7]": (0.7, 0.7),
    "(0.7,)": (0.7, 0.7),
    "[0.7, 0.7]": (0.7, 0.7),
    "[0.7, 0.7, 1.5]": (0.7, 0.7),
    "[0.7, 0.9]": (0.7, 0.9),
    "[0.9, 0.7, 1.5]": (0.9, 0.7),
    "(0.7, 0.7)": (0.7, 0.7),
    "0.7, 0.9": (0.7, 0.9),
    "[0.7 0.9]": (0.7, 0.9),
    "0.7\\0.9": (0.7, 0.9),
    "['0.7', '0.9']": (0.7, 0.9),
    "[np.float64(0.7), np.float64(0.9)]": (0.7, 0.9),
    "array([0.7, 0.9])": (0.7, 0.9),
    "[7e-1, +.9]": (0.7, 0.9),
    "[0.7,\u00a00.9]": (0.7, 0.9),  # the no-break space of a spreadsheet
    "\u2003(0.7\x0b,0.9)\u0085": (0.7, 0.9),
    "['\u00a00.7', '0.9']": (0.7, 0.9),
    "0": None,
    "[0, 0]": None,
    "[0.7, 0]": None,
    "[-0.7, -0.7]": None,
    "[nan, nan]": None,
    "[inf, inf]": None,
    "[0.7, 0.7": None,
    "['0.7, 0.7]": None,
    "0.7 mm": None,
    "[0.7,\u200b0.9]": None,  # a character without width is no space
    "[0.7,\x1f0.9]": None,
    "0.7(0.9)": None,
    "[1, 2, 3, 4]": None,
}
SHAPE = (20, 22, 6)
FLAGS = ("--spacing", "1,1,1.5", "--shape", "40,36,30")  # as those of the loader's tests


def write_meta(dataset: Dataset, rows: list[tuple[str, str, str, str]]) -> None:
    """The metadata table: slope, intercept, XYSpacing, ZSpacing of v00, v01, …"""
    header = ["VolumeName", "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"]
    write_csv(dataset.meta, [header] + [[f"v{n:02d}.nii.gz", *row] for n, row in enumerate(rows)])


def volumes(out: Path, count: int) -> Dataset:
    """Random values of CT; the volumes differ."""
    rng = np.random.default_rng(7)
    arrays = {f"v{n:02d}.npz": {"data": rng.integers(0, 2000, SHAPE).astype("i2")} for n in range(count)}
    return write_dataset(out, arrays, writer="numpy")


def left_out(program: Program, dataset: Dataset, *flags: object) -> dict[str, str]:
    """The reasons in the plan, by study."""
    plan = json.loads(program.run("plan", *dataset.flags(), *flags, "--json").stdout)
    return {sample["study_id"]: sample["reason"] for sample in plan["left_out"]}


def test_every_spelling_of_a_spacing(program: Program, tmp_path: Path) -> None:
    """The same samples and voxels from preprocessed shards, stored ones, and NPZ; the size by its definition."""
    dataset = volumes(tmp_path / "data", len(SPACINGS))
    write_meta(dataset, [("1", "-1024", spelling, "1.5") for spelling in SPACINGS])
    usable = {f"v{n:02d}": mm for n, mm in enumerate(SPACINGS.values()) if mm}
    unusable = [f"v{n:02d}" for n, mm in enumerate(SPACINGS.values()) if not mm]
    reasons = left_out(program, dataset, "--volume", "preprocessed", *FLAGS)
    assert sorted(reasons) == unusable and all("XYSpacing" in reason for reason in reasons.values())
    said = program.run("plan", *dataset.flags()).stderr
    assert f"by: of {len(unusable)} of {len(SPACINGS)} samples (for example" in said
    assert f"(for example, {unusable[0]}: XYSpacing" in said
    made = program.materialize(dataset, tmp_path / "made", "--volume", "preprocessed", *FLAGS)
    stored = program.materialize(dataset, tmp_path / "stored")
    with pytest.warns(UserWarning, match=rf"{len(unusable)} volumes are left out .*XYSpacing"):
        npz = from_npz(dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ways = [
            {sample[3]: sample[0].numpy() for sample in way}
            for way in (from_shards(made), from_shards(stored, on_error="skip"), [npz[n] for n in range(len(npz))])
        ]
    for way in ways:
        assert sorted(way) == sorted(usable)
    for study, (height, width) in usable.items():
        for other in ways[1:]:
            assert np.abs(ways[0][study] - other[study]).max() < 0.001, study
        sizes = [int(SHAPE[axis] * (mm / 1.0)) for axis, mm in ((0, height), (1, width))]
        inside = ways[0][study][0, STEPS.shape[2] // 2] > -1
        assert [int(inside.any(axis).sum()) for axis in (1, 0)] == sizes, study
    with pytest.raises(LoaderError, match="XYSpacing"):
        list(from_shards(stored))


@pytest.mark.parametrize("z", ["0", "-1.5"])
def test_a_depth_that_is_no_spacing(program: Program, tmp_path: Path, z: str) -> None:
    """It is left out of what needs it."""
    dataset = volumes(tmp_path, 2)
    write_meta(dataset, [("1", "-1024", "[0.7, 0.7]", z), ("1", "-1024", "[0.7, 0.7]", "1.5")])
    assert list(left_out(program, dataset, "--volume", "preprocessed")) == ["v00"]
    assert "(for example, v00: XYSpacing" in program.run("plan", *dataset.flags()).stderr
    with pytest.warns(UserWarning, match="left out"):
        assert len(from_npz(dataset)) == 1


@pytest.mark.parametrize("z", ["1e-60", "1e7"])
def test_a_spacing_that_makes_no_volume(program: Program, tmp_path: Path, z: str) -> None:
    """Less than one voxel, or a million along an axis: `preprocessed` leaves it out, and the loader refuses it in place
    of running out of memory."""
    dataset = volumes(tmp_path / "data", 2)
    write_meta(dataset, [("1", "-1024", "[0.7, 0.7]", z), ("1", "-1024", "[0.7, 0.7]", "1.5")])
    reasons = left_out(program, dataset, "--volume", "preprocessed", *FLAGS)
    assert list(reasons) == ["v00"] and "resampling 6 voxels" in reasons["v00"]
    stored = program.materialize(dataset, tmp_path / "stored")
    with pytest.raises(LoaderError, match="no volume; correct the spacing"):
        from_npz(dataset)[0]
    with pytest.raises(LoaderError, match="no volume; correct the spacing"):
        list(from_shards(stored))
    with pytest.warns(UserWarning, match="no volume"):
        assert [sample[3] for sample in from_shards(stored, on_error="skip")] == ["v01"]


@pytest.mark.parametrize("slope", ["0", "0.0", "-0", "1e-60", "1e39"])
@pytest.mark.parametrize("kind", ["stored", "rescaled", "preprocessed"])
def test_a_slope_that_keeps_nothing(program: Program, tmp_path: Path, slope: str, kind: str) -> None:
    """Left out of the kinds that apply it and by the loader, with the reason, until --rescale says what holds; a stored
    volume is as it is, but `plan` says it."""
    dataset = volumes(tmp_path / "data", 2)
    write_meta(dataset, [(slope, "-1024", "[0.7, 0.7]", "1.5"), ("1", "-1024", "[0.7, 0.7]", "1.5")])
    flags = ("--volume", kind)
    for more in ([], ["--rescale", "table"]):
        reasons = left_out(program, dataset, *flags, *more)
        if kind == "stored":
            said = program.run("plan", *dataset.flags(), *more).stderr
            assert reasons == {} and "1 of 2 samples" in said and "v00: RescaleSlope" in said, said
        else:
            assert list(reasons) == ["v00"] and "RescaleSlope" in reasons["v00"] and "--rescale" in reasons["v00"]
    for rescale in ("none", "1,-1024"):
        assert left_out(program, dataset, *flags, "--rescale", rescale) == {}
        assert "v00" not in program.run("plan", *dataset.flags(), *flags, "--rescale", rescale).stderr
    done = program.run("plan", *dataset.flags(), *flags, f"--rescale={slope},0", check=False)
    assert done.returncode == 2 and "slope" in done.stderr
    with pytest.warns(UserWarning, match="slope"):
        assert [Path(study.path).stem for study in from_npz(dataset).studies] == ["v01"]
    assert len(from_npz(dataset, rescale="none")) == 2
    out = program.materialize(dataset, tmp_path / "out")  # the table's slope is in the JSON
    with pytest.raises(LoaderError, match="slope"):
        list(from_shards(out))
    assert len(list(from_shards(out, rescale="none"))) == 2

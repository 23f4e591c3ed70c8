"""The order of an array's axes, and the spacing that an NPZ file holds. NumPy's transpose and PyTorch are the judges;
mount, files, `verify` and both loaders agree with them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctreport_webdataset import LoaderError
from harness import Program
from kinds import Steps, assert_close, preprocessed, samples
from loading import from_npz
from make_dataset import Dataset
from numpy.typing import NDArray
from small_datasets import set_meta, write_csv, write_dataset
from test_one_answer import differences, of_tars, through_npz, through_shards
from verifying import verify

ORDERS = tuple("".join(order) for order in itertools.permutations("HWD"))
STEPS = Steps(shape=(8, 9, 6), spacing=(1.0, 1.0, 1.5))
MM = {"H": 0.7, "W": 1.3, "D": 2.0}
NEAR, HALF = 2e-6, 0.0005  # in units of 1000 HU: between float32 sums, and as float16 rounds
DTYPES = ("f4", ">i2", "f8", "<u2")
Volumes = dict[str, NDArray[Any]]


def hwd(array: NDArray[Any], axes: str) -> NDArray[Any]:
    """With the axes height, width, depth."""
    return array.transpose([axes.index(axis) for axis in "HWD"])


def volumes(axes: str) -> Volumes:
    """Arrays with these axes, of both orders in memory and several dtypes; none has two axes of one length."""
    found = {}
    orders: tuple[Any, ...] = ("C", "F")
    for number, (order, dtype) in enumerate(itertools.product(orders, DTYPES)):
        shape = [{"H": 9, "W": 7, "D": 5}[axis] for axis in axes]
        values = np.random.default_rng([number, *shape]).integers(0, 2000, shape)
        found[f"s{number}"] = values.astype(dtype).copy(order)
    return found


def write(out: Path, arrays: Volumes, **others: NDArray[Any]) -> Dataset:
    """The arrays as `ct`, beside others, with the spacing in the table."""
    dataset = write_dataset(out, {f"{study}.npz": {"ct": array, **others} for study, array in arrays.items()})
    row = ("1", "-1024", f"[{MM['H']}, {MM['W']}]", MM["D"])
    set_meta(dataset, dict.fromkeys(arrays, row))
    return dataset


@pytest.mark.parametrize("axes", ORDERS)
def test_every_order_of_axes(program: Program, via: str, tmp_path: Path, axes: str) -> None:
    """`rescaled` and `preprocessed` volumes are height, width, depth; `stored` ones stay as they are."""
    arrays = volumes(axes)
    dataset = write(tmp_path / "data", arrays)
    flags: list[object] = ["--dialect", "native", "--axes", axes]
    with program.produced(via, dataset, tmp_path / "stored", *flags) as made:
        for study, (voxels, *_) in of_tars(made).items():
            assert np.array_equal(voxels, arrays[study].astype(np.float16)), study
        assert verify(program, made, *dataset.flags(), *flags)[0] == 0
        stored = through_shards(made, axes=axes)
    with program.produced(via, dataset, tmp_path / "hu", *flags, "--volume", "rescaled") as made:
        for study, (voxels, meta, *_) in of_tars(made).items():
            right = hwd(arrays[study], axes).astype(np.float32) - 1024
            assert np.array_equal(voxels, right.astype(np.float16)), study
            assert meta["original_shape"] == list(arrays[study].shape), meta
        assert verify(program, made, *dataset.flags(), *flags, "--volume", "rescaled")[0] == 0
        rescaled = through_shards(made, axes=axes)
    flags += ["--volume", "preprocessed", *STEPS.flags()]
    with program.produced(via, dataset, tmp_path / "pre", *flags) as made:
        for study, sample in samples(made).items():
            spacing = (MM["H"], MM["W"], MM["D"])
            right, inside = preprocessed(hwd(arrays[study], axes), 1, -1024, spacing, STEPS)
            assert_close(sample["volume"], right, inside)
        assert verify(program, made, *dataset.flags(), *flags)[0] == 0
        loaded = through_shards(made, axes=axes)
    from_files = through_npz(dataset, axes=axes)
    assert differences(from_files, stored, NEAR) == differences(from_files, rescaled, HALF) == []
    assert differences(from_files, loaded, HALF) == []


@pytest.mark.parametrize("order", [None, "WHD", "DHW"])
@pytest.mark.parametrize("axes", ["HWD", "DHW", "WDH"])
def test_the_spacing_of_an_array(program: Program, tmp_path: Path, axes: str, order: str | None) -> None:
    """In the order of the array's axes, or in another; then the table needs no spacing, and the JSON has it as if from
    the table."""
    arrays = volumes(axes)
    spacing = np.array([MM[axis] for axis in order or axes])
    dataset = write(tmp_path / "data", arrays, spacing=spacing)
    header = ["VolumeName", "RescaleSlope", "RescaleIntercept"]
    write_csv(dataset.meta, [header, *[[f"{study}.nii.gz", 1, -1024] for study in arrays]])
    name = f"spacing:{order}" if order else "spacing"
    flags: list[object] = ["--dialect", "native", "--axes", axes, "--spacing-array", name]
    made = program.materialize(dataset, tmp_path / "stored", *flags)
    for _, meta, *_ in of_tars(made).values():
        assert (meta["XYSpacing"], meta["ZSpacing"]) == (str([MM["H"], MM["W"]]), MM["D"]), meta
    assert verify(program, made, *dataset.flags(), *flags)[0] == 0
    stored = through_shards(made, axes=axes)
    flags += ["--volume", "preprocessed", *STEPS.flags()]
    made = program.materialize(dataset, tmp_path / "pre", *flags)
    for study, sample in samples(made).items():
        right, inside = preprocessed(hwd(arrays[study], axes), 1, -1024, (MM["H"], MM["W"], MM["D"]), STEPS)
        assert_close(sample["volume"], right, inside)
    assert verify(program, made, *dataset.flags(), *flags)[0] == 0
    from_files = through_npz(dataset, axes=axes, spacing_array=name)
    assert differences(from_files, stored, NEAR) == differences(from_files, through_shards(made), HALF) == []


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8", "i1", ">i2", "u4", "i8"])
@pytest.mark.parametrize("deflated", [False, True])
def test_every_dtype_of_a_spacing(program: Program, tmp_path: Path, dtype: str, deflated: bool) -> None:
    """Is float64, as NumPy makes it."""
    spacing = np.array([[0.7, 1.3, 2.1]]) * (10 if dtype[-2] in "iu" else 1)
    spacing = spacing.astype(dtype)
    files = {"s.npz": {"data": volumes("HWD")["s0"], "mm": spacing}}
    dataset = write_dataset(tmp_path / "data", files, deflated=deflated)
    made = program.materialize(dataset, tmp_path / "made", "--spacing-array", "mm")
    height, width, depth = spacing.astype(np.float64)[0].tolist()
    (_, meta, *_) = of_tars(made)["s"]
    assert (meta["XYSpacing"], meta["ZSpacing"]) == (str([height, width]), depth)
    data = from_npz(dataset, spacing_array="mm")
    assert (data.studies[0].meta["XYSpacing"], data.studies[0].meta["ZSpacing"]) == (str([height, width]), depth)


WRONG: dict[str, tuple[dict[str, NDArray[Any]], str]] = {
    "missing": ({}, "no array 'mm'"),
    "two": ({"mm": np.ones(2)}, "three numbers"),
    "four": ({"mm": np.ones(4)}, "three numbers"),
    "zero": ({"mm": np.array([1.0, 0, 1])}, "above 0"),
    "nan": ({"mm": np.array([1, np.nan, 1])}, "above 0"),
    "negative": ({"mm": np.array([-1.0, 1, 1])}, "above 0"),
    "text": ({"mm": np.array(["1", "1", "1"])}, "'<U1' is not supported"),
}


def test_a_wrong_spacing_leaves_the_volume_out(program: Program, tmp_path: Path) -> None:
    """With the reason, in every kind; the loader leaves out the same."""
    array = volumes("HWD")["s0"]
    files = {f"{name}.npz": {"data": array, **others} for name, (others, _) in WRONG.items()}
    dataset = write_dataset(tmp_path, {**files, "sound.npz": {"data": array, "mm": np.ones(3)}})
    plan = json.loads(program.run("plan", *dataset.flags(), "--spacing-array", "mm", "--json").stdout)
    reasons = {sample["study_id"]: sample["reason"] for sample in plan["left_out"]}
    assert sorted(reasons) == sorted(WRONG)
    for name, (_, says) in WRONG.items():
        assert says in reasons[name], reasons[name]
    with pytest.warns(UserWarning, match=f"{len(WRONG)} volumes are left out"):
        data = from_npz(dataset, spacing_array="mm")
    assert [study.meta["study_id"] for study in data.studies] == ["sound"]


def test_medsam(program: Program, tmp_path: Path) -> None:
    """Its files: 8-bit `imgs` (D, H, W), `gts`, and `spacing` as SimpleITK gives it, (x, y, z). What is refused says
    which option helps; then the volume is that of its window."""
    rng = np.random.default_rng(5)
    imgs = rng.integers(0, 256, (5, 9, 7)).astype(np.uint8)
    arrays = {"imgs": imgs, "gts": (imgs > 99).astype(np.uint8), "spacing": np.array([1.3, 0.7, 2.0])}
    dataset = write_dataset(tmp_path / "data", {"CT_Abd_1.npz": arrays})
    flags: list[object] = []
    for says, more in (
        ("--array", ["--array", "imgs"]),
        ("--dialect", ["--dialect", "native", "--rescale", "1.5686274509803921,-160", "--axes", "dhw"]),
    ):
        said = program.refuses("plan", *dataset.flags(), "--volume", "preprocessed", *flags)
        assert says in said, said
        flags += more
    assert "--rescale SLOPE,INTERCEPT" in said
    flags += ["--spacing-array", "spacing:WHD", "--volume", "preprocessed", *STEPS.flags()]
    as_hu = [flag if flag != "1.5686274509803921,-160" else "none" for flag in flags]
    said = program.run("plan", *dataset.flags(), *as_hu).stderr
    assert "1 volume of 8 bits a voxel (CT_Abd_1)" in said and "--rescale SLOPE,INTERCEPT" in said
    assert "8 bits" not in program.run("plan", *dataset.flags(), *flags).stderr
    made = program.materialize(dataset, tmp_path / "made", *flags)
    slope = 400 / 255
    right, inside = preprocessed(imgs.transpose(1, 2, 0), slope, -160, (0.7, 1.3, 2.0), STEPS)
    assert_close(samples(made)["CT_Abd_1"]["volume"], right, inside)
    options = {"array": "imgs", "rescale": (slope, -160), "axes": "DHW", "spacing_array": "spacing:WHD"}
    assert differences(through_npz(dataset, **options), through_shards(made), HALF) == []
    with pytest.raises(LoaderError, match="axes"):
        from_npz(dataset, axes="XYZ")

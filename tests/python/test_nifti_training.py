"""From a download to training: a folder laid out as CT-RATE's, of NIfTI files and its three tables, is mounted and read
by the steps of the original loader and by the project's loader; and what tables and headers say is compared."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ctreport_webdataset import LoaderError
from harness import Program
from kinds import Steps, assert_close, preprocessed, samples
from loading import HALF_HU, STEPS, assert_same, collected, from_npz, from_shards
from make_dataset import Dataset, Options, make_dataset
from niftis import Nifti, bare, load, nib, write, write_niftis, written
from numpy.typing import NDArray
from small_datasets import set_meta
from test_loader_training import losses

COUNT = 9
FLAGS = ("--samples-per-shard", 4)
CLASSES = 18
RAW = 0.0041  # of 1000 HU, as float16 rounds raw values of the intercept -8192
RELEASES = ("raw", "scaled", "mixed")


def download(out: Path, release: str) -> tuple[Dataset, Dataset]:
    """A data set as it is downloaded, `train/train_1/train_1_a/train_1_a_1.nii.gz`, and the one of the NPZ files that
    hold its raw values. The headers of the release "scaled" have the slope and intercept, of "mixed" half of them."""
    npz = make_dataset(Options(out / "npz", volumes=COUNT, size=(48, 40, 30), strays=False))
    table = pd.read_csv(npz.meta).set_index("VolumeName")
    folder = out / "train"
    for at, path in enumerate(npz.volumes()):
        with np.load(path) as arrays:
            file = written(arrays["data"], "i2", zooms=(0.75, 0.75, 1.5))
        row = table.loc[f"{path.stem}.nii.gz"]
        if release == "scaled" or (release == "mixed" and at % 2):
            file = file.scaled(row["RescaleSlope"], row["RescaleIntercept"])
        write(folder / path.relative_to(npz.folder).parent / f"{path.stem}.nii.gz", file)
    return replace(npz, folder=folder), npz


def spacing_of(row: Any) -> tuple[float, float, float]:
    """Height, width and depth of a row of the table."""
    height, width = (float(number) for number in re.findall("[0-9.]+", row["XYSpacing"]))
    return height, width, float(row["ZSpacing"])


@pytest.mark.parametrize("release", RELEASES)
def test_from_download_to_training(program: Program, tmp_path: Path, release: str) -> None:
    """The mount's volumes are those of the original steps, the loader's are too, from shards as from the folder; and
    training has the losses that it has with NPZ."""
    nifti, npz = download(tmp_path, release)
    assert sorted(path.name.count("_") for path in nifti.folder.rglob("*.nii.gz")) == [3] * COUNT
    table = pd.read_csv(nifti.meta).set_index("VolumeName")
    steps: dict[str, Any] = {"shape": STEPS.shape, "spacing": STEPS.spacing}
    with program.mounted(nifti, *FLAGS) as point:
        loaded = collected(from_shards(point))
        mount = losses(from_shards(point, **steps).make_loader(2, 1, persistent_workers=False, timeout=60), CLASSES)
        found = samples(point)
    data = from_npz(npz)
    right = collected(data[at] for at in range(COUNT))
    data = from_npz(nifti)
    assert_same(collected(data[at] for at in range(COUNT)), right)
    assert_same(loaded, right, HALF_HU if release == "scaled" else RAW)
    if release == "raw":
        folder = losses(from_npz(nifti).make_loader(2, 1, persistent_workers=False, timeout=60), CLASSES)
        assert folder == losses(from_npz(npz).make_loader(2, 1, persistent_workers=False, timeout=60), CLASSES)
        assert np.allclose(mount, folder, atol=1e-4)
    with program.mounted(nifti, *FLAGS, "--volume", "preprocessed", *STEPS.flags()) as point:
        ready = samples(point)
        assert_same(collected(from_shards(point)), right, HALF_HU)
    for path in nifti.folder.rglob("*.nii.gz"):
        study, row = bare(path), table.loc[path.name]
        volume = load(path)
        assert np.array_equal(found[study]["volume"], volume.astype(np.float16)), study
        is_scaled = found[study]["json"]["RescaleIntercept"] == 0
        assert is_scaled == (volume.min() < -500), study
        slope, intercept = (1.0, 0.0) if is_scaled else (row["RescaleSlope"], row["RescaleIntercept"])
        meta = found[study]["json"]
        assert (meta["RescaleSlope"], meta["RescaleIntercept"]) == (slope, intercept)
        made, inside = preprocessed(volume, slope, intercept, spacing_of(row), STEPS)
        assert_close(ready[study]["volume"], made, inside)


def head(seed: int) -> NDArray[Any]:
    """HU of tissue in the middle of air."""
    volume = np.full((32, 32, 24), -1000.0)
    volume[8:24, 8:24] = 0
    return volume + np.random.default_rng(seed).integers(-20, 20, volume.shape)


@pytest.mark.parametrize("intercept", [-1024, -8192])
def test_scaled_twice(program: Program, tmp_path: Path, intercept: int) -> None:
    """HU in the files, and a table that would shift them: found as in NPZ files, in every kind and by the loader. Where
    the header makes HU, they are fine, and nothing is shifted."""
    files: dict[str, Nifti | bytes] = {f"v{at}.nii.gz": written(head(at), "i2") for at in range(4)}
    dataset = write_niftis(tmp_path / "data", files)
    set_meta(dataset, {bare(path): (1, intercept, "[0.7, 0.7]", 1.5) for path in files})
    sentence = "4 of 4 volumes looked at"
    for kind in ("rescaled", "preprocessed"):
        message = program.refuses("materialize", *dataset.flags(), "--volume", kind, "--output-dir", tmp_path / "no")
        assert sentence in message and "hold HU already" in message, message
    made = program.materialize(dataset, tmp_path / "made")
    (group,) = json.loads((made / "manifest.json").read_text())["value_groups"]
    assert (group["rescale"], group["rescale_intercept"]) == ("none", intercept)
    with pytest.warns(UserWarning, match=sentence):
        data = from_npz(dataset)
    right = from_npz(dataset, rescale="none")
    assert_same(collected(data[at] for at in range(4)), collected(right[at] for at in range(4)))
    assert_same(collected(from_shards(made)), collected(right[at] for at in range(4)))

    raw = {path: written(head(at) - intercept, "i2").scaled(1, intercept) for at, path in enumerate(files)}
    scaled = write_niftis(tmp_path / "scaled", raw)
    set_meta(scaled, {bare(path): (1, intercept, "[0.7, 0.7]", 1.5) for path in files})
    made = program.materialize(scaled, tmp_path / "fine", "--volume", "rescaled")
    for at, path in enumerate(files):
        assert np.array_equal(samples(made)[bare(path)]["volume"], head(at)), path
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = from_npz(scaled)
    assert_same(collected(data[at] for at in range(4)), collected(right[at] for at in range(4)))


def test_spacing_of_table_and_header(program: Program, tmp_path: Path) -> None:
    """More than 1 % apart is a warning with counts and the first studies; the table's is taken, or the header's where
    that is asked for, by the loader as well."""
    files: dict[str, Nifti | bytes] = {
        f"v{at}.nii.gz": written(head(at) + 1024, "i2", zooms=(0.75, 0.75, zoom))
        for at, zoom in enumerate([1.5, 1.51, 1.53, 3.0, 1.0, 1.49, 2.0])
    }
    dataset = write_niftis(tmp_path / "data", files)
    steps = Steps(shape=(24, 24, 24), spacing=(1.0, 1.0, 2.0))
    flags = ("--volume", "preprocessed", *steps.flags())
    said = program.run("plan", *dataset.flags(), *flags)
    assert "4 of 7 volumes (v2, v3, v4, …)" in said.stderr and "--spacing-from header" in said.stderr, said.stderr
    options: dict[str, Any] = {"shape": steps.shape, "spacing": steps.spacing}
    for which in ("table", "header"):
        out = tmp_path / which
        done = program.run("materialize", *dataset.flags(), *flags, "--spacing-from", which, "--output-dir", out)
        assert ("4 of 7" in done.stderr) == (which == "table"), done.stderr
        found = samples(out)
        for path in files:
            mm = (0.75, 0.75, 1.5)
            if which == "header":
                mm = zooms(dataset.folder / path)
            made, inside = preprocessed(load(dataset.folder / path), 1, -1024, mm, steps)
            assert_close(found[bare(path)]["volume"], made, inside)
        differ = pytest.warns(UserWarning, match=r"4 of 7 volumes \(v2, v3, v4, …\) have another spacing")
        with differ if which == "table" else contextlib.nullcontext():
            data = from_npz(dataset, spacing_from=which, **options)
        assert_same(collected(from_shards(out, **options)), collected(data[at] for at in range(len(files))), HALF_HU)
    program.run("materialize", "--data-folder", dataset.folder, *flags, "--output-dir", tmp_path / "no-table")
    alone = from_npz(replace(dataset, meta=None), **options)  # type: ignore[arg-type]  # there is no table
    right = collected(alone[at] for at in range(len(files)))
    for study, (volume, *_) in collected(from_shards(tmp_path / "no-table", **options)).items():
        assert np.abs(volume - right[study][0]).max() <= HALF_HU, study


def zooms(path: Path) -> tuple[float, float, float]:
    """The size of the voxels that nibabel finds, in mm."""
    height, width, depth = (float(zoom) for zoom in nib.load(path).header.get_zooms())
    return height, width, depth


def test_header_of_another_format(program: Program, tmp_path: Path) -> None:
    """NPZ files have no header with a spacing; the loader and the program say so alike."""
    dataset = write_niftis(tmp_path / "data", {"a.nii": written(head(0), "i2")})
    np.savez(dataset.folder / "a.npz", data=head(0).astype("f4"))
    (dataset.folder / "a.nii").unlink()
    message = program.refuses("plan", *dataset.flags(), "--spacing-from", "header")
    assert "no NIfTI header" in message, message
    with pytest.raises(LoaderError), pytest.warns(UserWarning, match="no NIfTI header"):
        from_npz(dataset, spacing_from="header")

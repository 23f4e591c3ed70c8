"""`--orientation` turns NIfTI volumes as nibabel does, before any other step; the JSON says where the voxels are."""

from __future__ import annotations

import itertools
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from damages import DAMAGED, recompute, with_json
from harness import Program, payload, shards
from make_dataset import Dataset, dataset_at
from niftis import Nifti, write
from numpy.typing import NDArray
from small_datasets import set_meta
from verifying import verify

nib: Any = nibabel  # of which not everything has types
orientations: Any = nibabel.orientations
AFFINE_OFF = 1e-4  # mm: forms are float32, quaternions are rounded more than once
FORMS = ("sform", "qform", "neither", "both")
AXES = [
    np.eye(3)[list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def image(seed: int, axes: NDArray[Any], form: str, version: int, dtype: str) -> Any:
    """An image whose axes lead to these directions, a little beside them, and whose header says it by a form."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 9, 3))
    tilted, _ = np.linalg.qr(axes + rng.normal(0, 0.15, (3, 3)))
    tilted *= np.sign(np.sum(tilted * axes, axis=0))
    affine = np.eye(4)
    affine[:3, :3] = tilted * rng.uniform(0.5, 3, 3)
    affine[:3, 3] = rng.normal(0, 100, 3)
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    made = kind(rng.integers(0, 100, shape).astype(dtype), affine, dtype=dtype)
    if form == "qform":
        made.set_sform(None, 0)
        made.set_qform(affine, 1)
    elif form == "neither":
        made.set_sform(None, 0)
        made.set_qform(None, 0)
    elif form == "both":
        made.set_qform(affine @ np.diag([-1, 1, 1, 1]), 1)  # of which the sform counts
        made.set_sform(affine, 2)
    if seed % 3 == 0:
        made.header.set_slope_inter(0.5, -3)
    return made


def members(folder: Path) -> dict[str, dict[str, Any]]:
    """The members of every sample, by study and extension: bytes, and the JSON as what it says."""
    found = {}
    for shard in shards(folder):
        by_key: dict[str, dict[str, Any]] = {}
        with tarfile.open(shard) as archive:
            for member in archive:
                key, extension = member.name.split(".", 1)
                by_key.setdefault(key, {})[extension] = payload(archive, member)
        for sample in by_key.values():
            sample["json"] = json.loads(sample.pop("json", b"") or sample.pop("meta.json"))
            found[sample["json"]["study_id"]] = sample
    return found


def turn_of(affine: NDArray[Any], code: str) -> NDArray[np.float64]:
    """The turn to an orientation, as nibabel describes it."""
    found, wanted = orientations.io_orientation(affine), orientations.axcodes2ornt(tuple(code))
    return np.asarray(orientations.ornt_transform(found, wanted))


def turned(path: Path, code: str) -> Any:
    """The image as nibabel turns it."""
    loaded = nib.load(path)
    return loaded if code == "keep" else loaded.as_reoriented(turn_of(loaded.affine, code))


def mm_of(path: Path, code: str) -> list[float]:
    """The spacing of the header, along the axes of the turned image."""
    loaded = nib.load(path)
    zooms = [float(zoom) for zoom in loaded.header.get_zooms()]
    if code == "keep":
        return zooms
    return [zooms[int(axis)] for axis in np.argsort(turn_of(loaded.affine, code)[:, 0])]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file for each of the 48 ways in which axes can lie, with a mask beside it; never changed."""
    folder = tmp_path_factory.mktemp("scans")
    files = {}
    for at, axes in enumerate(AXES):
        made = image(at, axes, FORMS[at % 4], 1 + at // 4 % 2, ("i2", "f4", "u1", "f8", "i8")[at % 5])
        name = f"v{at:02d}{'.nii.gz' if at % 3 else '.nii'}"
        files[f"v{at:02d}"] = folder / "volumes" / name
        for place in ("volumes", "masks"):
            (folder / place).mkdir(exist_ok=True)
        nib.save(made, folder / "volumes" / name)
        mask = type(made)((made.get_fdata() > 50).astype("u1"), None, made.header)
        mask.header.set_slope_inter(1, 0)
        mask.set_data_dtype("u1")
        nib.save(mask, folder / "masks" / name)
    return files


def as_npz(scans: dict[str, Path], code: str, out: Path) -> Dataset:
    """The NPZ files and the table that nibabel and NumPy make of the turned images."""
    made = dataset_at(out)
    made.folder.mkdir(parents=True)
    (out / "masks").mkdir()
    rows: dict[str, tuple[object, object, object, object]] = {}
    for study, path in scans.items():
        np.savez(
            made.folder / f"{study}.npz", data=np.asfortranarray(turned(path, code).get_fdata().astype(np.float32))
        )
        mask = turned(path.parent.parent / "masks" / path.name, code)
        np.savez(out / "masks" / f"{study}.npz", data=np.asarray(mask.dataobj))
        height, width, depth = mm_of(path, code)
        rows[study] = ("1.0", "0.0", str([height, width]), depth)
    set_meta(made, rows)
    return made


@pytest.mark.parametrize(
    ("code", "more"),
    [
        ("LPS", ()),
        ("RAS", ("--volume", "preprocessed", "--spacing", "1,1.1,0.9", "--shape", "6,7,5")),
        ("SRP", ("--volume", "rescaled", "--output-dtype", "float32", "--axes", "WDH")),
        ("keep", ("--format", "npy")),
    ],
)
def test_shards_are_those_of_what_nibabel_turns(
    program: Program, scans: dict[str, Path], tmp_path: Path, code: str, more: tuple[object, ...]
) -> None:
    """Voxels, masks and JSON, and `verify` agrees; `affine` is nibabel's where the voxels are those of the image."""
    folder = next(iter(scans.values())).parent
    flags = ("--data-folder", folder, "--orientation", code, "--also", f"mask={folder.parent}/masks/*.*", *more)
    program.run("materialize", *flags, "--output_dir", tmp_path / "made")
    right = as_npz(scans, code, tmp_path / "right")
    of_npz = ("--data-folder", right.folder, "--meta-file", right.meta, "--also", f"mask={tmp_path}/right/masks/*.npz")
    program.run("materialize", *of_npz, *more, "--output_dir", tmp_path / "of_npz")
    found, expected = members(tmp_path / "made"), members(tmp_path / "of_npz")
    assert list(found) == list(expected) and len(found) == len(AXES)
    for study, sample in expected.items():
        affine = np.array(found[study]["json"].pop("affine"))
        if "--axes" in more:  # of which a table knows nothing
            sample["json"] |= {name: found[study]["json"][name] for name in ("XYSpacing", "ZSpacing")}
        assert list(found[study]) == list(sample)
        assert [name for name in sample if found[study][name] != sample[name]] == [], study
        nibabels = turned(scans[study], code).affine
        if "--axes" in more:
            nibabels = nibabels[:, [2, 0, 1, 3]]  # width, depth, height become height, width, depth
        if "preprocessed" not in more:
            assert np.allclose(affine, nibabels, atol=AFFINE_OFF, rtol=0), study
    code_of_verify, report = verify(program, tmp_path / "made", *flags)
    assert code_of_verify == 0, report


def test_voxels_stay_where_they_were(program: Program, tmp_path: Path) -> None:
    """Through all steps: of a volume whose values are places, each voxel holds the place that `affine` says."""
    places = {}
    for at, direction in enumerate(np.eye(3)):
        for variant, axes in enumerate((AXES[0], AXES[13], AXES[46])):
            made = image(100 + variant, axes, "sform", 1, "f4")
            index = np.stack(np.meshgrid(*map(np.arange, (24, 18, 21)), indexing="ij"), axis=-1)
            world = nib.affines.apply_affine(made.affine, index)
            study = f"v{variant}{at}"
            places[study] = direction
            nib.save(nib.Nifti1Image((world @ direction).astype("f4"), made.affine), tmp_path / f"{study}.nii.gz")
    steps = ("--volume", "preprocessed", "--spacing", "1.3,0.8,1.1", "--shape", "26,25,24", "--output-dtype", "float32")
    program.run(
        "materialize", "--data-folder", tmp_path, "--orientation", "LPS", *steps, "--output_dir", tmp_path / "made"
    )
    for study, sample in members(tmp_path / "made").items():
        volume = np.frombuffer(sample["bin"], "f4").reshape(sample["json"]["volume_shape"]).astype("f8") * 1000
        affine = np.array(sample["json"]["affine"])
        index = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), axis=-1)
        expected = nib.affines.apply_affine(affine, index) @ places[study]
        inside = np.zeros(volume.shape, bool)
        inside[10:-10, 10:-10, 10:-10] = True  # neither padding nor the last voxel, behind which all is alike
        assert np.abs(volume - expected)[inside & (np.abs(volume) < 990)].max() < 0.01, study


def test_what_has_no_place_in_the_body(program: Program, tmp_path: Path) -> None:
    """It is left out with the reason: arrays, and headers whose axes lead nowhere; LRS is no orientation."""
    good = image(1, AXES[0], "sform", 1, "i2")
    raw = Nifti(good.to_bytes())
    data = tmp_path / "data"
    write(data / "good.nii", raw)
    write(data / "flat.nii", raw.put(280, "12f", *[0.0] * 12))
    write(data / "nan.nii", raw.put(280, "f", float("nan")))
    write(data / "long.nii", raw.put(252, "2h", 1, 0).put(256, "3f", 0.9, 0.9, 0.9))
    np.savez(data / "array.npz", data=np.zeros((3, 4, 5), "f4"))
    said = program.run("plan", "--data-folder", data, "--orientation", "RAS").stdout
    for study, reason in {
        "flat": "an axis leads nowhere",
        "nan": "entries that are no numbers",
        "long": "no rotation",
        "array": "only a NIfTI file says",
    }.items():
        assert any(study in line and reason in line for line in said.splitlines()), said
    assert "Samples      1 " in said
    kept = program.run("plan", "--data-folder", data, "--orientation", "keep").stdout
    assert "Samples      2 " in kept, kept
    wrong = program.run("plan", "--data-folder", data, "--orientation", "LRS", check=False)
    assert wrong.returncode == 2 and "three letters such as LPS" in wrong.stderr


Affine = NDArray[np.float64]
# What has gone wrong in the matrix of readers: each is no matter of rounding.
WRONG: dict[str, Callable[[Affine], Affine]] = {
    "a place": lambda affine: affine + np.outer([0, 1, 0, 0], [0, 0, 0, 0.01]),
    "LPS for RAS": lambda affine: np.diag([-1, -1, 1, 1]) @ affine,
    "rows for columns": lambda affine: np.block([[affine[:3, :3].T, affine[:3, 3:]], [affine[3:]]]),
    "two axes exchanged": lambda affine: affine[:, [1, 0, 2, 3]],
    "an axis backwards": lambda affine: affine @ np.diag([1, 1, -1, 1]),
    "the spacing of before": lambda affine: affine @ np.diag([1.1, 1, 1, 1]),
    "half a voxel beside": lambda affine: affine @ np.array([[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    "a crop that is not counted": lambda affine: (
        affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]])
    ),
    "the last row": lambda affine: affine * np.array([[1], [1], [1], [2]]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["stored", "preprocessed"])
def test_verify_finds_a_wrong_affine(program: Program, tmp_path: Path, kind: str, form: str) -> None:
    """Whatever form the header has; a missing one, and one that nobody asked for, as well."""
    data = tmp_path / "data"
    data.mkdir()
    nib.save(image(5, AXES[13], form, 1, "i2"), data / "v.nii.gz")
    steps = ("--spacing", "1,1.1,0.9", "--shape", "6,7,5") if kind == "preprocessed" else ()
    flags = ("--data-folder", data, "--orientation", "RAS", "--volume", kind, *steps)
    good = tmp_path / "good"
    program.run("materialize", *flags, "--output_dir", good)
    assert verify(program, good, *flags)[0] == 0
    right = np.array(members(good)["v"]["json"]["affine"])
    wrong = {name: change(right) for name, change in WRONG.items()}
    # Rows and columns are the same where the axes are those of the body.
    plants: dict[str, object] = {name: bad.tolist() for name, bad in wrong.items() if not np.allclose(bad, right)}
    assert len(plants) >= len(WRONG) - 1
    plants |= {"none": None, "text": "affine", "three rows": right[:3].tolist(), "NaN": [[None] * 4] * 4}
    for name, planted in plants.items():
        bad = tmp_path / "bad"
        shutil.copytree(good, bad)
        with_json("affine", planted)(bad)
        recompute(bad)
        code, report = verify(program, bad, *flags)
        assert code == DAMAGED and "affine" in report, f"{name}: {report}"
        shutil.rmtree(bad)
    unasked = ("--data-folder", data, "--volume", kind, *steps)
    program.run("materialize", *unasked, "--output_dir", tmp_path / "unasked")
    with_json("affine", right.tolist())(tmp_path / "unasked")
    recompute(tmp_path / "unasked")
    code, report = verify(program, tmp_path / "unasked", *unasked)
    assert code == DAMAGED and "do not ask" in report, report


@pytest.mark.parametrize("dims", [(1, 5, 4, 1), (5, 1, 4, 1, 1), (1, 1, 5, 4)])
def test_axes_that_are_none_of_space(program: Program, tmp_path: Path, dims: tuple[int, ...]) -> None:
    """Where the volume has lost one of the first three axes, as that of an NPZ does, nobody knows where it leads."""
    data = tmp_path / "data"
    data.mkdir()
    nib.save(nib.Nifti1Image(np.arange(20, dtype="i2").reshape(dims), np.eye(4)), data / "v.nii.gz")
    refused = program.refuses("plan", "--data-folder", data, "--orientation", "keep")
    assert "--orientation needs its first three axes" in refused
    program.run("plan", "--data-folder", data)

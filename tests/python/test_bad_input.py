"""What bad input gets before anything is built: a message that names the file, the reason and the remedy, an exit code
that is not 0, and nothing written; or a sample that is left out, counted and listed."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Program, is_mounted, shards
from make_dataset import Dataset
from npzfiles import npy, write_npz, write_zip
from numpy.typing import NDArray
from small_datasets import write_csv, write_dataset

SOUND = np.arange(24, dtype="f4").reshape(2, 3, 4)


def sound_dataset(out: Path, count: int = 3) -> Dataset:
    """A few tiny volumes `v0`, `v1`, … without any fault."""
    return write_dataset(out, {f"v{n}.npz": {"data": SOUND + n} for n in range(count)}, writer="numpy")


def assert_names(message: str, *parts: object) -> None:
    """The message contains all of the parts."""
    missing = [str(part) for part in parts if str(part) not in message]
    assert not missing, f"{missing} not in: {message}"


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", [[], ["b.NPZ", ".hidden.npz"], ["1/2/3/4/5/6/7/8/deep.npz", "a/readme.txt"]])
def test_no_npz(program: Program, tmp_path: Path, files: list[str]) -> None:
    """The message says what was looked for, and how deep."""
    dataset = sound_dataset(tmp_path)
    shutil.rmtree(dataset.folder)
    dataset.folder.mkdir()
    for name in files:
        (dataset.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (dataset.folder / name).write_bytes(b"")
    message = program.refuses("plan", *dataset.flags())
    assert_names(message, dataset.folder, "no NPZ, NPY or NIfTI file", "*.npz, *.npy, *.nii and *.nii.gz", "8 levels")


def test_data_folder_that_is_none(program: Program, tmp_path: Path) -> None:
    """Missing, or a file."""
    dataset = sound_dataset(tmp_path)
    wrong = tmp_path / "nothing"
    flags = [str(wrong) if flag == str(dataset.folder) else flag for flag in dataset.flags()]
    assert_names(program.refuses("plan", *flags), wrong, "No such file")
    wrong.write_bytes(b"")
    assert_names(program.refuses("plan", *flags), wrong, "not a folder")


def test_two_volumes_of_one_study(program: Program, tmp_path: Path) -> None:
    """Both files are named."""
    dataset = write_dataset(tmp_path, {"a/x.npz": {"data": SOUND}, "b/y.npz": {"data": SOUND}})
    shutil.copy(dataset.folder / "a/x.npz", dataset.folder / "b")
    assert_names(program.refuses("plan", *dataset.flags()), "'x'", "a/x.npz", "b/x.npz", "rename")


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "column"),
    [
        *[("reports", column) for column in ("VolumeName", "Findings_EN", "Impressions_EN")],
        *[("meta", column) for column in ("VolumeName", "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing")],
        ("labels", "VolumeName"),
    ],
)
def test_missing_column(program: Program, tmp_path: Path, table: str, column: str) -> None:
    """The message names the file, the column, and the columns that it has: a typo is then seen at once."""
    dataset = sound_dataset(tmp_path)
    path: Path = getattr(dataset, table)
    text = path.read_text()
    header = text.partition("\n")[0]
    path.write_text(text.replace(column, column.lower() + "_", 1))
    others = [name for name in header.split(",") if name != column]
    message = program.refuses("plan", *dataset.flags())
    assert_names(message, path, f"'{column}'", f"{column.lower()}_", *others)


@pytest.mark.parametrize("label", ["often", "", "nan", "inf", "1,5", "0x1"])
def test_label_that_is_no_number(program: Program, tmp_path: Path, label: str) -> None:
    """File, line and column; the line is that of the file, although a quoted field spans two lines."""
    dataset = sound_dataset(tmp_path)
    rows: list[list[object]]
    rows = [["VolumeName", "first\nclass", "second"], ["v0.nii.gz", 1, 0], ["v1.nii.gz", 0, label], ["v2.nii.gz", 0, 0]]
    write_csv(dataset.labels, rows)
    assert_names(program.refuses("plan", *dataset.flags()), dataset.labels, "line 4", "'second'", f'"{label}"')


@pytest.mark.parametrize("column", ["RescaleSlope", "RescaleIntercept", "ZSpacing"])
def test_metadata_that_is_no_number(program: Program, tmp_path: Path, column: str) -> None:
    """Missing values are another matter; a text is an error."""
    dataset = sound_dataset(tmp_path)
    with dataset.meta.open(newline="") as file:
        rows = list(csv.reader(file))
    rows[2][rows[0].index(column)] = "one"
    write_csv(dataset.meta, rows)
    assert_names(program.refuses("plan", *dataset.flags()), dataset.meta, "line 3", f"'{column}'", '"one"')


@pytest.mark.parametrize("table", ["reports", "meta", "labels"])
def test_repeated_row(program: Program, tmp_path: Path, table: str) -> None:
    """A row that says the same twice is worth a warning; two rows that differ are an error naming both lines."""
    dataset = sound_dataset(tmp_path)
    path: Path = getattr(dataset, table)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[2]]) + "\n")
    done = program.run("plan", *dataset.flags())
    assert_names(done.stderr, "warning", path, "line 5", "line 3", "v1.nii.gz")
    path.write_text("\n".join([*lines, lines[2].replace("none", "some").replace("1,", "2,")]) + "\n")
    assert_names(program.refuses("plan", *dataset.flags()), path, "line 5", "line 3", "v1.nii.gz")


def test_other_unusable_tables(program: Program, tmp_path: Path) -> None:
    """A table that is not there, a row with too few fields, and one that is not UTF-8."""
    dataset = sound_dataset(tmp_path)
    text = dataset.labels.read_bytes()
    for content, parts in {
        b"": ["VolumeName"],
        text.replace(b",", b"/"): ["VolumeName", "/"],
        text + b"v3.nii.gz,1\n": ["line 5"],
        text.replace(b"v1", b"v\xff"): ["line 3", "UTF-8"],
        b"VolumeName\nv0.nii.gz\n": ["column"],
    }.items():
        dataset.labels.write_bytes(content)
        assert_names(program.refuses("plan", *dataset.flags()), dataset.labels, *parts)
    dataset.labels.unlink()
    assert_names(program.refuses("plan", *dataset.flags()), dataset.labels, "No such file")


def test_no_sample_left(program: Program, tmp_path: Path) -> None:
    """Volumes and tables that do not fit together are an error with an example."""
    dataset = sound_dataset(tmp_path)
    write_csv(dataset.labels, [["VolumeName", "a"], ["other.nii.gz", 1]])
    assert_names(program.refuses("plan", *dataset.flags()), dataset.folder, "v0.nii.gz", "labels")


# --- volumes that are left out ---------------------------------------------------------------------------------------


def sound_bytes(deflated: bool = False) -> bytes:
    """A sound NPZ."""
    file = io.BytesIO()
    (np.savez_compressed if deflated else np.savez)(file, data=SOUND)
    return file.getvalue()


def of_array(array: NDArray[Any], name: str = "data") -> Callable[[Path], None]:
    """Writes an NPZ with this array."""
    return lambda path: write_npz(path, {name: array}, writer="numpy")


def of_bytes(content: bytes) -> Callable[[Path], None]:
    """Writes these bytes."""

    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def of_header(shape: str) -> Callable[[Path], None]:
    """Writes an NPZ whose header lies about its shape."""
    data = npy(SOUND).replace(b"(2, 3, 4)", shape.encode().ljust(9))
    return lambda path: write_zip(path, {"data.npy": data}, False, "zip64")


MALFORMED: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (of_bytes(b""), "zip"),
    "text": (of_bytes(b"this is no zip file\n" * 300), "zip"),
    "cut_by_a_byte": (of_bytes(sound_bytes()[:-1]), "zip"),
    "cut_in_the_data": (of_bytes(sound_bytes()[:200]), "zip"),
    "cut_in_the_directory": (of_bytes(sound_bytes()[:-40]), "zip"),
    "tail_only": (of_bytes(sound_bytes()[100:]), "zip"),
    "no_array": (lambda path: write_zip(path, {"readme.txt": b"x"}, False, "plain"), "no array"),
    "flat_array": (of_array(SOUND.ravel(), "other"), "'other'"),
    "two_candidates": (lambda path: write_npz(path, {"x": SOUND, "y": SOUND}, writer="numpy"), "--array"),
    "object": (of_array(np.array([[[None]]], dtype=object)), "object"),
    "structured": (of_array(np.zeros((2, 2, 2), dtype=[("a", "f4"), ("b", "i2")])), "structured"),
    "longdouble": (of_array(np.zeros((2, 2, 2), dtype="g")), "longdouble"),
    "complex": (of_array(np.zeros((2, 2, 2), dtype="c8")), "<c8"),
    "datetime": (of_array(np.zeros((2, 2, 2), dtype="M8[s]")), "<M8[s]"),
    "text_array": (of_array(np.full((2, 2, 2), "abc")), "<U3"),
    "two_dimensions": (of_array(SOUND[0]), "[3, 4]"),
    "four_dimensions": (of_array(np.stack([SOUND] * 2)), "--channel N"),
    "five_dimensions": (of_array(np.stack([[SOUND] * 2] * 2)), "5 of its axes"),
    "zero_dimensions": (of_array(np.array(1, np.float32)), "[]"),
    "no_voxel": (of_array(SOUND[:, :0]), "[2, 0, 4]"),
    "shape_too_large": (of_header("(2, 3, 5)"), "[2, 3, 5]"),
    "shape_too_small": (of_header("(2, 3, 3)"), "[2, 3, 3]"),
    "no_npy": (lambda path: write_zip(path, {"data.npy": b"x" * 500}, False, "plain"), "magic"),
    "short_npy": (lambda path: write_zip(path, {"data.npy": npy(SOUND)[:60]}, False, "plain"), "cut short"),
    "folder": (lambda path: path.mkdir(), ""),
}


def test_malformed_volumes_are_left_out(program: Program, tmp_path: Path) -> None:
    """All at once: each is counted and listed with its reason, keeps its slot, and disturbs no other sample."""
    kinds = [kind for kind in MALFORMED if kind != "folder"]
    ids = [name for kind in kinds for name in (kind, f"{kind}~sound")]  # `~` sorts behind: a sound one after each
    dataset = write_dataset(tmp_path, {f"{name}.npz": {"data": SOUND} for name in ids}, writer="numpy")
    for kind in kinds:
        MALFORMED[kind][0](dataset.folder / f"{kind}.npz")
    plan = program.run("plan", *dataset.flags())
    told = json.loads(program.run("plan", "--json", *dataset.flags()).stdout)
    assert f"{len(kinds)} left out" in plan.stdout
    reasons = {entry["study_id"]: entry["reason"] for entry in told["left_out"]}
    assert sorted(reasons) == sorted(kinds)
    for kind in kinds:
        assert MALFORMED[kind][1] in reasons[kind], (kind, reasons[kind])
    # Those of one reason stand together, behind it.
    listed = [kind for kind in kinds if f" {kind}.npz" in plan.stdout and reasons[kind] in plan.stdout]
    assert len(listed) >= 20, plan.stdout
    done = program.run("materialize", *dataset.flags(), "--output_dir", tmp_path / "out")
    assert_names(done.stderr, f"left out: {len(kinds)} of {len(ids)} volumes")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["left_out"] == told["left_out"] and manifest["total_samples"] == len(kinds)
    order = sorted(ids, key=lambda name: f"{name}.npz")
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        keys = [name[:13] for name in tar.getnames()[::4]]
    assert keys == [f"000000_{slot:06d}" for slot, name in enumerate(order) if name.endswith("~sound")]


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_volumes_are_fatal_with_strict(program: Program, tmp_path: Path, kind: str) -> None:
    """The message names the file and the reason. (A folder with the name of a volume is no volume, and no error.)"""
    dataset = sound_dataset(tmp_path)
    (dataset.folder / "v1.npz").unlink()
    MALFORMED[kind][0](dataset.folder / "v1.npz")
    if kind == "folder":
        assert "Samples      2 " in program.run("plan", "--strict", *dataset.flags()).stdout
        return
    assert_names(program.refuses("plan", "--strict", *dataset.flags()), "v1.npz", "--strict", MALFORMED[kind][1])


def test_strict_holds_for_every_command(program: Program, tmp_path: Path, base: Path) -> None:
    """Nothing is written and nothing mounted."""
    dataset = sound_dataset(tmp_path)
    (dataset.folder / "v1.npz").write_bytes(b"")
    flags = [*dataset.flags(), "--strict"]
    assert "v1.npz" in program.refuses("materialize", *flags, "--output-dir", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "v1.npz" in program.refuses("mount", *flags, "--log-file", base / "log", base / "mount")
    assert not is_mounted(base / "mount")


def test_a_chosen_array_that_is_missing(program: Program, tmp_path: Path) -> None:
    """The arrays that there are, and the option, are named."""
    dataset = sound_dataset(tmp_path)
    message = program.refuses("plan", "--strict", "--array", "voxels", *dataset.flags())
    assert_names(message, "'voxels'", "'data'", "--array")


@pytest.mark.parametrize("deflated", [False, True])
def test_one_wrong_byte_anywhere(program: Program, tmp_path: Path, deflated: bool) -> None:
    """Hundreds of volumes with one damaged byte each: every one is left out, fails when it is read, or gives the very
    voxels of the sound file. Never a panic, never other voxels."""
    content = sound_bytes(deflated)
    rng = random.Random(deflated)
    dataset = sound_dataset(tmp_path, len(content))
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= rng.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])
        (dataset.folder / f"v{at}.npz").write_bytes(damaged)
    flags = [*dataset.flags(), "--samples-per-shard", "1", "--overflow", "saturate"]
    left_out = json.loads(program.run("plan", "--json", *flags).stdout)["left_out"]
    message = program.refuses("materialize", *flags, "--output-dir", tmp_path / "out")
    failed = message.count("  shard-")
    right = SOUND.astype("<f2").tobytes()
    sound = 0
    for path in shards(tmp_path / "out"):
        with tarfile.open(path) as tar:
            for info in tar.getmembers():
                if info.name.endswith(".bin"):
                    member = tar.extractfile(info)
                    assert member is not None and member.read() == right, path.name
                    sound += 1
    assert len(left_out) + failed + sound == len(content)
    assert left_out and failed and sound

"""`--output-dtype` and `--window`: every dtype of voxels in every kind, from every dtype and order of arrays, against
NumPy's own rounding and PyTorch's `interpolate`; as a mount and as files, and as `verify` and the loader see them."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import packed_volume
import pytest
from damages import DAMAGED, INCOMPLETE, JSON, VOLUME, in_manifest, recompute, with_json, with_payload
from harness import Program, Stored, digest, files_in, payload, shards
from kinds import Steps, cropped_and_padded, resampled
from loading import collected, from_npz, from_shards
from make_dataset import Dataset
from npzfiles import ORDERS
from numpy.typing import NDArray
from small_datasets import set_meta, write_dataset
from verifying import verify

STEPS = Steps(shape=(12, 20, 9), spacing=(1.0, 1.0, 1.5))
SPACING = (0.9, 0.8, 1.2)  # mm
SLOPE, INTERCEPT = 0.5, -1024.0
WINDOW = (-900.0, -100.0)
DTYPES = ("f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "b1")
FLOATS = ("f2", "f4", "f8")
KINDS = ("stored", "rescaled", "preprocessed")
FLAGS: dict[str, list[str]] = {
    "float16": [],
    "float32": ["--output-dtype", "float32"],
    "int16": ["--output-dtype", "int16"],
    "uint8": ["--output-dtype", "uint8", f"--window={WINDOW[0]},{WINDOW[1]}"],
}
# Of stored values, of which many are outside: the same flag, with numbers of another unit.
STORED_WINDOW = (20.0, 90.0)
NEAR = 2e-3  # HU, of sums in float32 before they are rounded


def arrays() -> dict[str, NDArray[Any]]:
    """Arrays of every dtype and byte order, in both orders of axes, with values that a slope of 0.5 puts between two
    whole numbers."""
    found = {}
    endians: dict[str, tuple[Literal["<", ">", "|"], ...]] = {"1": ("|",)}
    for number, dtype in enumerate(DTYPES):
        rng = np.random.default_rng(number)
        low, high = {"i1": (-128, 128), "u1": (0, 256), "b1": (0, 2), "f2": (0, 2048)}.get(dtype, (0, 3000))
        for order in ORDERS:
            for endian in endians.get(dtype[1], ("<", ">")):
                array = rng.integers(low, high, (9, 16, 33)).astype(f"{endian}{dtype}", order=order)
                if dtype in ("f4", "f8"):
                    array += rng.choice([0, 0.25, 0.5, 1 / 3], array.shape).astype(array.dtype)
                name = {"<": "little", ">": "big", "|": "one"}[endian]
                found[f"{dtype}_{order}_{name}"] = array.astype(array.dtype.newbyteorder(endian), order=order)
    return found


def write(out: Path, deflated: bool) -> tuple[Dataset, dict[str, NDArray[Any]]]:
    """The data set of all arrays."""
    volumes = arrays()
    dataset = write_dataset(
        out, {f"{study}.npz": {"data": array} for study, array in volumes.items()}, deflated=deflated
    )
    set_meta(dataset, dict.fromkeys(volumes, (SLOPE, INTERCEPT, f"[{SPACING[0]}, {SPACING[1]}]", SPACING[2])))
    return dataset, volumes


def flags(dtype: str, kind: str) -> list[str]:
    """The flags of a cell of the matrix."""
    window = [f"--window={STORED_WINDOW[0]},{STORED_WINDOW[1]}"] if dtype == "uint8" and kind == "stored" else []
    return ["--volume", kind, *STEPS.flags(), *(FLAGS[dtype][:2] + window if window else FLAGS[dtype])]


def wide(array: NDArray[Any]) -> NDArray[Any]:
    """float64 stays, everything else is computed in float32."""
    return array.astype(np.float64 if array.dtype.str[1:] == "f8" else np.float32)


def hu(array: NDArray[Any]) -> NDArray[Any]:
    """What the slope and the intercept of the table make."""
    return wide(array) * SLOPE + INTERCEPT


def level(values: NDArray[Any], window: tuple[float, float]) -> NDArray[Any]:
    """The place of values in a window, before it is rounded."""
    low, high = window
    return (np.clip(values, low, high) - low) / (high - low) * 255


def expected(array: NDArray[Any], dtype: str, kind: str) -> NDArray[Any]:
    """Voxels of the kinds that keep every voxel."""
    if dtype == "int16" and kind == "stored":
        return array.astype(np.int64).astype(np.int16)
    values = hu(array) if kind == "rescaled" else array if dtype.startswith("float") else wide(array)
    if dtype == "uint8":
        return np.rint(level(values, WINDOW if kind == "rescaled" else STORED_WINDOW)).astype(np.uint8)
    return np.rint(values).astype(np.int16) if dtype == "int16" else values.astype(dtype)


def volumes_in(folder: Path) -> dict[str, tuple[NDArray[Any], dict[str, Any]]]:
    """Voxels and JSON of every study."""
    found = {}
    for shard in shards(folder):
        with tarfile.open(shard) as tar:
            members = {info.name: payload(tar, info) for info in tar}
        for name in (name for name in members if name.endswith(".json")):
            meta = json.loads(members[name])
            voxels = np.frombuffer(members[name.replace(".json", ".bin")], meta["volume_dtype"])
            found[meta["study_id"]] = voxels.reshape(meta["volume_shape"]), meta
    return found


def check_preprocessed(found: NDArray[Any], array: NDArray[Any], dtype: str) -> None:
    """Integers hold HU, floats HU / 1000; the padding is that of `--pad-value` in HU / 1000 for both."""
    values = np.clip((array.astype(np.float32) * SLOPE + INTERCEPT).astype(np.float32), -1000, 1000)
    values, inside = cropped_and_padded(
        resampled(values.astype(np.float32), SPACING, STEPS), replace(STEPS, pad_value=STEPS.pad_value * 1000)
    )
    assert found.shape == STEPS.shape and found.dtype == dtype
    if dtype == "float32":
        assert np.abs(found - values / np.float32(1000)).max() < NEAR / 1000
    elif dtype == "int16":
        assert np.abs(found - values.astype(np.float64)).max() <= 0.5 + NEAR
        assert (found == np.rint(values)).mean() > 0.99
        assert (found[~inside] == -1000).all()
    else:
        assert np.abs(found - level(values.astype(np.float64), WINDOW)).max() <= 0.5 + NEAR
        assert (found[~inside] == 0).all() and (found.max() > 200 or array.max() < 256)


@pytest.mark.parametrize("deflated", [False, True], ids=["plain", "deflated"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "int16", "uint8"])
def test_every_dtype_in_every_kind(program: Program, tmp_path: Path, dtype: str, kind: str, deflated: bool) -> None:
    """Each cell from its definition; the mount's bytes are those of the files, and `verify` agrees."""
    dataset, volumes = write(tmp_path / "data", deflated)
    asked = flags(dtype, kind)
    out = program.materialize(dataset, tmp_path / "out", *asked)
    found = volumes_in(out)
    is_left_out = dtype in ("int16", "uint8") and kind == "stored"
    assert found.keys() == {study for study in volumes if not (is_left_out and study[:2] in FLOATS)}
    for study, (voxels, meta) in found.items():
        if kind == "preprocessed":
            check_preprocessed(voxels, volumes[study], dtype)
        else:
            right = expected(volumes[study], dtype, kind)
            assert voxels.dtype == right.dtype == dtype
            np.testing.assert_array_equal(voxels, right, err_msg=study)
        window = STORED_WINDOW if kind == "stored" else WINDOW
        assert meta["volume_dtype"] == dtype
        assert meta.get("volume_window") == (list(window) if dtype == "uint8" else None)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["volume_dtype"] == dtype
    for left_out in manifest["left_out"]:
        assert dtype in left_out["reason"] and "--volume rescaled" in left_out["reason"], left_out
    code, text = verify(program, out, *dataset.flags(), *asked)
    assert code == (INCOMPLETE if manifest["left_out"] else 0), text
    with program.mounted(dataset, *asked) as point:
        assert [digest(path) for path in shards(point)] == [digest(path) for path in shards(out)]


@pytest.mark.parametrize("kind", KINDS)
def test_float16_is_the_default_and_leaves_no_trace(program: Program, tmp_path: Path, kind: str) -> None:
    """Neither in a byte of the shards nor in a digest."""
    dataset, _ = write(tmp_path / "data", False)
    asked = ["--volume", kind, *STEPS.flags()]
    plain = program.materialize(dataset, tmp_path / "plain", *asked)
    named = program.materialize(dataset, tmp_path / "named", *asked, "--output-dtype", "float16")
    assert files_in(plain) == files_in(named)
    assert "volume_dtype" not in json.loads((plain / "manifest.json").read_text())
    other = json.loads(program.run("plan", *dataset.flags(), *asked, "--output-dtype", "float32", "--json").stdout)
    assert other["plan_digest"] != json.loads((plain / "manifest.json").read_text())["plan_digest"]


def test_int16_holds_hu_that_float16_cannot(program: Program, tmp_path: Path) -> None:
    """Beyond 2048 HU, float16 has every second number only."""
    array = np.arange(0, 24_000, dtype="i4").reshape(20, 30, 40)
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"data": array}})
    for dtype, is_exact in [("float16", False), ("int16", True)]:
        out = program.materialize(dataset, tmp_path / dtype, "--volume", "rescaled", *FLAGS[dtype])
        found = volumes_in(out)["v"][0]
        assert (found == array - 1024).all() == is_exact


# --- values that do not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("source", ["f4", "f8", "f2", "i4", "u8"])
def test_what_int16_cannot_hold(program: Program, tmp_path: Path, source: str, order: Any) -> None:
    """An error that names file and voxel, or the nearest number if the user asks for it."""
    array = np.asarray(np.full((4, 5, 6), 7), dtype=source, order=order)
    array[1, 2, 3] = 40_000
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"data": array}})
    asked = ["--output-dtype", "int16", "--rescale", "none", "--volume", "rescaled"]
    said = program.refuses("materialize", *dataset.flags(), *asked, "--output_dir", tmp_path / "no")
    assert "v.npz" in said and "[1, 2, 3]" in said and "40000" in said and "--overflow saturate" in said
    out = program.materialize(dataset, tmp_path / "out", *asked, "--overflow", "saturate")
    found = volumes_in(out)["v"][0]
    assert found[1, 2, 3] == 32_767 and (found == 7).sum() == found.size - 1
    assert verify(program, out, *dataset.flags(), *asked, "--overflow", "saturate")[0] == 0


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["rescaled", "preprocessed"])
@pytest.mark.parametrize("dtype", ["int16", "uint8"])
@pytest.mark.parametrize("source", ["f4", "f8"])
def test_nan_is_no_integer(program: Program, tmp_path: Path, source: str, dtype: str, kind: str, order: Any) -> None:
    """Whatever --overflow says: no integer is the nearest. Infinities are beyond every one, and clipped."""
    array = np.asarray(np.full((12, 20, 9), 7), dtype=source, order=order)
    array[1, 2, 3], array[3, 2, 1] = np.inf, -np.inf
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"data": array}})
    asked = [*FLAGS[dtype], *STEPS.flags(), "--volume", kind, "--resample", "never", "--overflow", "saturate"]
    voxels = volumes_in(program.materialize(dataset, tmp_path / "out", *asked))["v"][0]
    ends = {"uint8": (0, 255), "int16": (-1000, 1000) if kind == "preprocessed" else (-32_768, 32_767)}[dtype]
    assert (voxels.min(), voxels.max()) == ends
    array[5, 6, 7] = np.nan
    dataset = write_dataset(tmp_path / "bad", {"v.npz": {"data": array}})
    said = program.refuses("materialize", *dataset.flags(), *asked, "--output_dir", tmp_path / "no")
    assert "v.npz" in said and "NaN" in said and dtype in said and "--output-dtype float16" in said


def test_float32_overflows_as_float16_does(program: Program, tmp_path: Path) -> None:
    """Only arrays of float64 can."""
    array = np.full((4, 5, 6), 1.5)
    array[1, 2, 3] = -1e300
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"data": array}})
    said = program.refuses("materialize", *dataset.flags(), *FLAGS["float32"], "--output_dir", tmp_path / "no")
    assert "v.npz" in said and "[1, 2, 3]" in said and "float32 cannot hold" in said
    for overflow, right in [("saturate", np.finfo("f4").min), ("inf", -np.inf)]:
        asked = [*FLAGS["float32"], "--overflow", overflow]
        out = program.materialize(dataset, tmp_path / overflow, *asked)
        assert volumes_in(out)["v"][0][1, 2, 3] == right
        assert verify(program, out, *dataset.flags(), *asked)[0] == 0


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["--output-dtype", "uint8"], "--window LOW,HIGH"),
        (["--window=0,1"], "--window is for --output-dtype uint8"),
        (["--output-dtype", "int16", "--window=0,1"], "--window is for --output-dtype uint8"),
        (["--output-dtype", "uint8", "--window=1,1"], "the first must be less than the second"),
        (["--output-dtype", "uint8", "--window=0,1e39"], "no range of float32"),
        (["--output-dtype", "int16", "--overflow", "inf"], "int16 has no infinity"),
        (["--output-dtype", "int16", "--volume", "preprocessed", "--pad-value=-40"], "--pad-value -40"),
        (["--output-dtype", "int16", "--volume", "preprocessed", "--pad-value=nan"], "NaN HU, which int16 cannot hold"),
        (["--output-dtype", "int32"], "int32"),
    ],
)
def test_flags_that_contradict_each_other(program: Program, tmp_path: Path, asked: list[str], says: str) -> None:
    """Wrong usage, before any volume is read; nothing is written."""
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"data": np.zeros((2, 3, 4), "i2")}})
    for command in (["plan"], ["materialize", "--output_dir", tmp_path / "out"]):
        done = program.run(command[0], *dataset.flags(), *asked, *command[1:], check=False)
        assert done.returncode == 2 and says in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_stored_floats_are_left_out_with_the_reason(program: Program, tmp_path: Path) -> None:
    """And where nothing else is there, the command ends with it."""
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"data": np.zeros((2, 3, 4), "f4")}})
    said = program.refuses("plan", *dataset.flags(), *FLAGS["int16"])
    assert "'data' of dtype <f4 holds floats" in said and "--volume rescaled" in said
    assert "of dtype <f4" in program.refuses("plan", *dataset.flags(), *FLAGS["int16"], "--strict")


@pytest.mark.parametrize(("dtype", "pad"), [("int16", 300), ("uint8", 127)])
def test_the_padding_is_the_same_hu(program: Program, tmp_path: Path, dtype: str, pad: int) -> None:
    """0.3 of --pad-value is 300 HU: the middle of a window from 100 to 501 HU, a little below 127.5."""
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"data": np.zeros((2, 3, 4), "i2")}})
    steps = replace(STEPS, pad_value=0.3)
    asked = ["--volume", "preprocessed", *steps.flags(), "--output-dtype", dtype]
    asked += ["--window=100,501"] if dtype == "uint8" else []
    out = program.materialize(dataset, tmp_path / "out", *asked)
    assert volumes_in(out)["v"][0][0, 0, 0] == pad
    assert verify(program, out, *dataset.flags(), *asked)[0] == 0


# --- formats and readers ---------------------------------------------------------------------------------------------


def data_set(tmp_path: Path) -> tuple[Dataset, list[NDArray[Any]]]:
    """Three CT-like volumes of integers."""
    rng = np.random.default_rng(3)
    volumes = [rng.choice([0, 24, 160, 1000, 1064, 1500, 3000], (40, 36, 30)).astype("i2") for _ in range(3)]
    dataset = write_dataset(tmp_path / "data", {f"v{n}.npz": {"data": array} for n, array in enumerate(volumes)})
    set_meta(dataset, {f"v{n}": (1, -1024, "[1.0, 1.0]", 1.5) for n in range(3)})
    return dataset, volumes


@pytest.mark.parametrize("dtype", FLAGS)
def test_npy_members_say_their_dtype(program: Program, tmp_path: Path, dtype: str) -> None:
    """`np.load` reads them without being told."""
    dataset, volumes = data_set(tmp_path)
    asked = [*flags(dtype, "rescaled"), "--format", "npy"]
    out = program.materialize(dataset, tmp_path / "out", *asked)
    with tarfile.open(shards(out)[0]) as tar:
        found = {info.name: payload(tar, info) for info in tar}
    for n, array in enumerate(volumes):
        voxels = np.load(io.BytesIO(found[f"000000_00000{n}.volume.npy"]))
        low, high = WINDOW
        right = array.astype("f4") - 1024
        right = np.rint((np.clip(right, low, high) - low) / (high - low) * 255) if dtype == "uint8" else right
        assert voxels.dtype == dtype and (voxels == right.astype(dtype)).all()
    assert verify(program, out, *dataset.flags(), *asked)[0] == 0


@pytest.mark.parametrize("format_", ["ctclip", "npy"])
@pytest.mark.parametrize("dtype", FLAGS)
def test_compressed_shards_of_every_dtype(program: Program, tmp_path: Path, dtype: str, format_: str) -> None:
    """They are filtered as their dtype wants it, say so in name, JSON and manifest, and come back to the byte."""
    dataset, _ = data_set(tmp_path)
    asked = [*flags(dtype, "rescaled"), "--format", format_]
    name = {"uint8": "predict1", "int16": "split2", "float16": "split", "float32": "shuffle4"}[dtype]
    plain = program.materialize(dataset, tmp_path / "plain", *asked)
    packed = program.materialize(dataset, tmp_path / "packed", *asked, "--compress", "zstd")
    assert json.loads((packed / "manifest.json").read_text())["compression"]["filter"] == name
    with tarfile.open(shards(packed)[0]) as small, tarfile.open(shards(plain)[0]) as large:
        for one, other in zip(small.getmembers()[::4], large.getmembers()[::4], strict=True):
            assert one.name == f"{other.name}.{name}.zst"
            assert packed_volume.unpack(payload(small, one), name).tobytes() == payload(large, other)
        meta = json.loads(payload(small, small.getmembers()[JSON]))
        assert (meta["volume_dtype"], meta["volume_filter"]) == (dtype, name)
    assert verify(program, packed, *dataset.flags(), *asked)[0] == 0
    with program.mounted(Stored(packed)) as point:
        assert [digest(path) for path in shards(point)] == [digest(path) for path in shards(plain)]
        assert verify(program, point, *dataset.flags(), *asked)[0] == 0
    again = tmp_path / "again"
    program.run("materialize", "--shards", packed, "--output_dir", again)
    assert files_in(again) == files_in(plain)
    with program.mounted(dataset, *asked, "--materialized", plain) as point:
        assert [digest(path) for path in shards(point)] == [digest(path) for path in shards(plain)]


@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FLAGS)
def test_the_loader_follows_the_dtype(program: Program, tmp_path: Path, dtype: str, kind: str, is_packed: bool) -> None:
    """The tensors are those of the NPZ files, as exactly as the dtype allows; of uint8, within the window."""
    dataset, _ = data_set(tmp_path)
    steps = {"shape": STEPS.shape, "spacing": STEPS.spacing}
    window = (124.0, 924.0) if kind == "stored" else WINDOW
    asked = ["--volume", kind, *STEPS.flags(), "--output-dtype", dtype]
    asked += [f"--window={window[0]},{window[1]}"] if dtype == "uint8" else []
    asked += ["--compress", "zstd"] if is_packed else []
    out = program.materialize(dataset, tmp_path / "out", *asked)
    npz = from_npz(dataset, **steps)
    found, right = collected(from_shards(out, **steps)), collected(npz[at] for at in range(len(npz)))
    assert found.keys() == right.keys() and len(found) == 3
    for study, (volume, text, labels) in found.items():
        assert (text, labels) == right[study][1:]
        known = right[study][0]
        if dtype == "uint8":
            # What is resampled mixes voxels of inside and outside the window; the margin is half a level.
            known = np.clip(known, -0.9, -0.1)
            assert kind != "preprocessed" or np.abs(volume - known).max() < 0.0016 + 1e-5
            inside = np.isin(known, (-0.9, -0.1))
            assert inside.mean() > 0.3
        else:
            step = {"float16": 0.0005, "float32": 2e-6, "int16": 0.0005 + 2e-6}[dtype]
            step = 2e-6 if kind == "stored" and dtype == "int16" else step
            assert np.abs(volume - known).max() <= step, study


def test_epochs_and_indexes_have_the_sizes(program: Program, tmp_path: Path) -> None:
    """Offsets of the index are those of the members, and the epochs hold the same members."""
    dataset, _ = data_set(tmp_path)
    asked = [*flags("uint8", "rescaled"), "--samples-per-shard", "2", "--shuffle-seed", "5", "--epochs", "1"]
    with program.mounted(dataset, *asked) as point:
        plain: dict[str, bytes] = {}
        for shard in shards(point):
            with tarfile.open(shard) as tar:
                plain |= {info.name: payload(tar, info) for info in tar}
                lines = shard.with_suffix(".idx").read_text().split("\n")[1:]
                listed = [line.split()[at : at + 4] for line in lines if line for at in range(0, 16, 4)]
                assert [(int(start), int(size), name) for _, start, size, name in listed] == [
                    (info.offset_data, info.size, info.name) for info in tar
                ]
        shuffled: dict[str, bytes] = {}
        for shard in shards(point / "epochs" / "000000"):
            with tarfile.open(shard) as tar:
                shuffled |= {info.name: payload(tar, info) for info in tar}
        assert shuffled == plain and len(plain) == 12


@pytest.mark.parametrize("dtype", FLAGS)
def test_a_few_bytes_anywhere(program: Program, tmp_path: Path, dtype: str) -> None:
    """Whoever walks the headers reads some bytes of a volume, in the middle of voxels; no whole volume is decoded for
    them where the array is plain."""
    array = np.random.default_rng(0).integers(0, 2000, (256, 256, 128), "i2")
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"data": array}})
    asked = flags(dtype, "rescaled")
    right = shards(program.materialize(dataset, tmp_path / "out", *asked))[0].read_bytes()
    end = 512 + array.size * np.dtype(dtype).itemsize
    with program.mounted(dataset, *asked) as point:
        file = os.open(shards(point)[0], os.O_RDONLY)
        try:
            assert os.pread(file, 3, end - 1) == right[end - 1 : end + 2]
            decoded = json.loads((point / ".ctwds" / "stats.json").read_text())["volumes_decoded"]
            assert decoded == 0
            for start, count in [(end - 7, 5), (777, 1001), (end - 70_001, 70_003)]:
                assert os.pread(file, count, start) == right[start : start + count]
        finally:
            os.close(file)


def test_estimates_are_those_of_the_dtype(program: Program, tmp_path: Path) -> None:
    """Bytes a voxel, and the kind of which no volume of the dtype can be made."""
    array = np.random.default_rng(0).normal(0, 50, (32, 32, 32)).astype("f4")
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"data": array}})
    asked = [*FLAGS["uint8"], *STEPS.flags(), "--rescale", "none", "--volume", "rescaled"]
    done = program.run("plan", *dataset.flags(), *asked, "--estimate", "--json", check=False)
    found = json.loads(done.stdout)
    plain = {kind["kind"]: kind["codecs"][0]["bytes_per_voxel"] for kind in found["kinds"]}
    assert found["dtype"] == "uint8" and plain == {"rescaled": 1.0, "preprocessed": 1.0}
    assert done.returncode == 0 and [kind for kind, _ in found["impossible"]] == ["stored"] and not found["failed"]
    text = program.run("plan", *dataset.flags(), *asked).stdout
    assert (
        "in uint8, C order" in text and "* rescaled     32.0 KiB a sample" in text and "stored       no sample" in text
    )


# --- verify and reclaim ----------------------------------------------------------------------------------------------


def other_voxel(dtype: str, by: float) -> Any:
    """Another number for one voxel of a volume."""

    def change(content: bytes) -> bytes:
        voxels = np.frombuffer(content, dtype).copy()
        at = int(np.flatnonzero((voxels != 0) & (voxels < 200))[0])
        voxels[at] = voxels[at] + np.array(by).astype(dtype)
        return voxels.tobytes()

    return change


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "int16", "uint8"])
def test_a_planted_voxel_is_found(program: Program, tmp_path: Path, dtype: str, kind: str) -> None:
    """Although the manifest agrees with it. Of resampled integers a step of 1 may be rounding; one of 2 is not."""
    dataset, _ = data_set(tmp_path)
    asked = flags(dtype, kind)
    out = program.materialize(dataset, tmp_path / "out", *asked)
    with_payload(VOLUME, other_voxel(dtype, 1e-4 if dtype == "float32" else 2 if kind == "preprocessed" else 1))(out)
    recompute(out)
    code, text = verify(program, out, *dataset.flags(), *asked)
    assert code == DAMAGED and "1 of" in text and "voxel [" in text, text


@pytest.mark.parametrize(
    ("dtype", "field", "value", "says"),
    [
        ("int16", "volume_dtype", "float16", "by the manifest"),
        ("int16", "volume_dtype", "uint8", "volume_window"),
        ("int16", "volume_dtype", "int32", "volume_dtype is"),
        ("int16", "volume_window", [0, 1], "volume_window is [0,1] for int16"),
        ("uint8", "volume_window", [0, 1], "window 0,1"),
        ("uint8", "volume_window", [1, 0], "no window"),
        ("uint8", "volume_window", None, "volume_window is null"),
        ("float32", "volume_dtype", "float16", "are"),
    ],
)
def test_a_wrong_dtype_is_found(
    program: Program, tmp_path: Path, dtype: str, field: str, value: object, says: str
) -> None:
    """In the JSON, although the manifest agrees with its bytes."""
    dataset, _ = data_set(tmp_path)
    out = program.materialize(dataset, tmp_path / "out", *flags(dtype, "rescaled"))
    with_json(field, value)(out)
    recompute(out)
    code, text = verify(program, out, *dataset.flags(), *flags(dtype, "rescaled"))
    assert code == DAMAGED and says in text, text


def test_a_wrong_dtype_in_an_npy_header_is_found(program: Program, tmp_path: Path) -> None:
    """Two types of the same size."""
    dataset, _ = data_set(tmp_path)
    out = program.materialize(dataset, tmp_path / "out", "--format", "npy", *flags("int16", "rescaled"))
    with_payload(VOLUME, lambda content: content.replace(b"'<i2'", b"'<f2'"))(out)
    recompute(out)
    code, text = verify(program, out)
    assert code == DAMAGED and "own dtype is float16" in text, text


def test_a_manifest_of_another_dtype_is_found(program: Program, tmp_path: Path) -> None:
    """Readers of the folder go by it, so it is refused there as well."""
    dataset, _ = data_set(tmp_path)
    out = program.materialize(dataset, tmp_path / "out", *flags("int16", "rescaled"))
    broken = tmp_path / "broken"
    shutil.copytree(out, broken)
    in_manifest(lambda manifest: manifest.pop("volume_dtype"))(broken)
    code, text = verify(program, broken)
    assert code == DAMAGED and "int16, and float16 by the manifest" in text, text
    in_manifest(lambda manifest: manifest.update(volume_dtype="uint8"))(out)
    assert "contradict" in program.refuses("plan", "--shards", out)


def test_other_flags_than_the_shards_were_made_with(program: Program, tmp_path: Path) -> None:
    """The message names the flag."""
    dataset, _ = data_set(tmp_path)
    out = program.materialize(dataset, tmp_path / "out", *flags("int16", "rescaled"))
    code, text = verify(program, out, *dataset.flags(), "--volume", "rescaled")
    assert code == 1 and "--output-dtype int16" in text, text


@pytest.mark.parametrize(("dtype", "says"), [("int16", "HU as int16"), ("uint8", "window")])
def test_reclaim_says_what_is_lost(program: Program, tmp_path: Path, dtype: str, says: str) -> None:
    """And removes what the shards hold by their definition; a shard of another dtype holds none of it."""
    dataset, _ = data_set(tmp_path)
    out = program.materialize(dataset, tmp_path / "out", *flags(dtype, "rescaled"))
    other = program.run("reclaim", *dataset.flags(), "--volume", "rescaled", "--shards", out, check=False)
    assert other.returncode != 0 and not list(dataset.folder.glob("*.gone"))
    dry = program.run("reclaim", *dataset.flags(), *flags(dtype, "rescaled"), "--shards", out)
    assert says in dry.stderr, dry.stderr
    program.run("reclaim", *dataset.flags(), *flags(dtype, "rescaled"), "--shards", out, "--delete", "--yes")
    assert not list(dataset.folder.glob("**/*.npz"))

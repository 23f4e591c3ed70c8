"""`--volume rescaled` and `preprocessed` against NumPy and PyTorch's own `interpolate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Program, digest, shards
from kinds import Steps, assert_close, cropped_and_padded, head, preprocessed, samples
from npzfiles import ORDERS, write_npz
from numpy.typing import NDArray
from small_datasets import set_meta, write_dataset

SMALL = Steps(shape=(24, 20, 16))


def values(shape: tuple[int, int, int], seed: int = 0) -> NDArray[Any]:
    """Raw values of air, lung, tissue and bone for an intercept of -1024."""
    rng = np.random.default_rng(seed)
    return rng.choice([0, 24, 160, 1000, 1064, 1500, 3000], shape).astype(np.float32) + rng.integers(0, 30, shape)


CASES = {  # source shape, XYSpacing, ZSpacing: against 0.75, 0.75, 1.5 and 24 x 20 x 16
    "crops": ((40, 40, 30), 0.75, 1.5),
    "crops and upsamples": ((40, 36, 30), 1.1, 3.0),
    "downsamples": ((64, 64, 60), 0.341796875, 0.7),
    "pads": ((9, 8, 5), 0.8, 1.25),
    "pads and crops": ((60, 10, 40), 0.7, 1.0),
    "odd sizes": ((33, 31, 29), 0.68, 1.3),
    "one slice": ((30, 30, 1), 0.9, 5.0),
    "one row": ((1, 30, 20), 0.9, 1.0),
    "as it is": (SMALL.shape, 0.75, 1.5),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("deflated", [False, True])
def test_preprocessed_equals_pytorch(program: Program, tmp_path: Path, case: str, order: Any, deflated: bool) -> None:
    """Crop, pad, both, up and down; in both orders of the source."""
    shape, xy, z = CASES[case]
    stored = values(shape).astype(np.float32, order=order)
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"data": stored}}, deflated=deflated)
    set_meta(dataset, {"v": (1, -1024, f"[{xy}, {xy}]", z)})
    out = program.materialize(dataset, tmp_path / "out", "--volume", "preprocessed", *SMALL.flags())
    found = samples(out)["v"]
    assert_close(found["volume"], *preprocessed(stored, 1, -1024, (xy, xy, z), SMALL))
    assert list(found["json"].items()) == [
        ("study_id", "v"),
        ("volume_shape", list(SMALL.shape)),
        ("volume_dtype", "float16"),
        ("volume_kind", "preprocessed"),
    ]


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i2", ">i2", "<u2", "<i4", "<f2", "<u4", ">i8", "<u8", "|b1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_dtype(program: Program, tmp_path: Path, dtype: str, order: Any) -> None:
    """Of raw values, in both kinds."""
    stored = np.minimum(values((20, 22, 18)), 2000).astype(dtype, order=order)
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"data": stored}})
    set_meta(dataset, {"v": (0.5, -1024, "[0.9, 0.9]", 1.2)})
    out = program.materialize(dataset, tmp_path / "pre", "--volume", "preprocessed", *SMALL.flags())
    assert_close(samples(out)["v"]["volume"], *preprocessed(stored, 0.5, -1024, (0.9, 0.9, 1.2), SMALL))
    out = program.materialize(dataset, tmp_path / "hu", "--volume", "rescaled")
    expected = (stored.astype(np.float64) * 0.5 - 1024).astype(np.float16)
    assert (samples(out)["v"]["volume"] == expected).all()


def test_rescaled_json_lets_the_same_loader_give_hu(program: Program, tmp_path: Path) -> None:
    """Every field of `stored`, with slope 1 and intercept 0, and the kind behind them."""
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"data": values((4, 5, 6)) + 7168}})
    set_meta(dataset, {"v": (1, -8192, "[0.9, 0.9]", 1.2)})
    meta = samples(program.materialize(dataset, tmp_path / "out", "--volume", "rescaled"))["v"]["json"]
    assert list(meta.items()) == [
        ("study_id", "v"),
        ("RescaleSlope", 1.0),
        ("RescaleIntercept", 0.0),
        ("XYSpacing", "[0.9, 0.9]"),
        ("ZSpacing", 1.2),
        ("original_shape", [4, 5, 6]),
        ("volume_shape", [4, 5, 6]),
        ("volume_dtype", "float16"),
        ("volume_kind", "rescaled"),
    ]


def dialect_arrays() -> dict[str, tuple[str, NDArray[Any]]]:
    """HU of every dialect, from the same head."""
    hu = (values((20, 22, 18)) - 1024).clip(-1024, 3000)
    return {
        "data": ("data", hu + 1024),
        "volume": ("volume", hu.astype(np.int16)),
        "arr_0": ("arr_0", (hu.clip(-1000, 1000) / 1000).astype(np.float32).transpose(2, 0, 1)),
    }


@pytest.mark.parametrize("dialect", ["data", "volume", "arr_0"])
@pytest.mark.parametrize("kind", ["stored", "rescaled", "preprocessed"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("via", ["mount", "materialize"])
def test_every_dialect_in_every_kind(
    program: Program, tmp_path: Path, dialect: str, kind: str, order: str, via: str
) -> None:
    """The table of formats: each cell from its definition, virtual and materialised."""
    name, array = dialect_arrays()[dialect]
    array = np.asfortranarray(array) if order == "F" else np.ascontiguousarray(array)
    dataset = write_dataset(tmp_path / "data", {"v.npz": {name: array}})
    set_meta(dataset, {"v": (1, -1024, "[0.9, 0.9]", 1.2)})
    with program.produced(via, dataset, tmp_path / "out", "--volume", kind, *SMALL.flags()) as out:
        found = samples(out)["v"]["volume"]
    if kind == "stored":
        assert (found == array.astype(np.float16)).all() and found.shape == array.shape
    elif kind == "rescaled":
        maps: dict[str, Callable[[], NDArray[Any]]] = {
            "data": lambda: array - 1024,
            "volume": lambda: array,
            "arr_0": lambda: (array * np.float32(1000)).transpose(1, 2, 0),
        }
        expected = maps[dialect]()
        assert found.shape == expected.shape and (found == expected.astype(np.float16)).all()
    elif dialect == "data":
        assert_close(found, *preprocessed(array, 1, -1024, (0.9, 0.9, 1.2), SMALL))
    elif dialect == "volume":
        assert_close(found, *preprocessed(array, 1, 0, None, SMALL))
    else:
        expected, inside = cropped_and_padded(array.transpose(1, 2, 0), SMALL)
        assert_close(found, expected, inside)


def test_an_unknown_dialect_needs_a_word(program: Program, tmp_path: Path) -> None:
    """A guess at the unit of values would be a guess at every voxel."""
    array = values((6, 7, 8)).astype(np.int16)
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"image": array}})
    set_meta(dataset, {"v": (1, -1024, "[0.9, 0.9]", 1.2)})
    for kind in ("rescaled", "preprocessed"):
        message = program.refuses("plan", *dataset.flags(), "--volume", kind)
        assert "image" in message and "--dialect" in message
    out = program.materialize(dataset, tmp_path / "out", "--volume", "rescaled", "--dialect", "native")
    assert (samples(out)["v"]["volume"] == (array - 1024).astype(np.float16)).all()


def test_resample_always_and_never(program: Program, tmp_path: Path) -> None:
    """Whatever the dialect."""
    hu = (values((20, 22, 18)) - 1024).astype(np.int16)
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"volume": hu}})
    set_meta(dataset, {"v": (1, -1024, "[0.9, 0.9]", 1.2)})
    flags = ["--volume", "preprocessed", *SMALL.flags()]
    out = program.materialize(dataset, tmp_path / "always", *flags, "--resample", "always")
    assert_close(samples(out)["v"]["volume"], *preprocessed(hu, 1, 0, (0.9, 0.9, 1.2), SMALL))
    write_npz(dataset.folder / "v.npz", {"data": (hu + 1024).astype(np.float32)})
    out = program.materialize(dataset, tmp_path / "never", *flags, "--resample", "never")
    assert_close(samples(out)["v"]["volume"], *preprocessed(hu, 1, 0, None, SMALL))


def test_missing_metadata_matters_only_where_it_is_needed(program: Program, tmp_path: Path) -> None:
    """With the reason, or as an error with --strict."""
    raw, hu = values((6, 7, 8)), (values((6, 7, 8)) - 1024).astype(np.int16)
    volumes = {"raw.npz": {"data": raw}, "noslope.npz": {"data": raw}, "nospacing.npz": {"data": raw}}
    dataset = write_dataset(tmp_path / "data", volumes | {"hu.npz": {"volume": hu}})
    set_meta(
        dataset,
        {
            "raw": (1, -1024, "[0.9, 0.9]", 1.2),
            "noslope": ("", -1024, "[0.9, 0.9]", 1.2),
            "nospacing": (1, -1024, "[0.9, 0.9]", ""),
            "hu": ("", "", "", ""),
        },
    )

    def left_out(*flags: object) -> set[str]:
        plan = json.loads(program.run("plan", *dataset.flags(), "--json", *flags).stdout)
        assert all(sample["reason"] for sample in plan["left_out"])
        return {sample["study_id"] for sample in plan["left_out"]}

    assert left_out("--volume", "preprocessed") == {"noslope", "nospacing"}
    assert left_out("--volume", "preprocessed", "--rescale", "1,-1024") == {"nospacing"}
    assert left_out("--volume", "preprocessed", "--resample", "never") == {"noslope"}
    assert left_out("--volume", "rescaled", "--missing-meta", "nan") == {"noslope"}
    assert left_out("--missing-meta", "nan") == set()
    message = program.refuses("plan", *dataset.flags(), "--volume", "preprocessed", "--strict")
    assert "--strict" in message and ("noslope" in message or "nospacing" in message)


def test_a_damaged_volume_is_never_read_whole(program: Program, tmp_path: Path) -> None:
    """The checksum covers also what the crop throws away."""
    for order in ("C", "F"):
        data = tmp_path / order
        dataset = write_dataset(data, {"v.npz": {"data": np.asarray(values((64, 64, 60)), order=order)}})
        set_meta(dataset, {"v": (1, -1024, "[0.75, 0.75]", 1.5)})
        content = bytearray((dataset.folder / "v.npz").read_bytes())
        content[-400] ^= 0x10  # in the last plane, outside of the crop
        (dataset.folder / "v.npz").write_bytes(content)
        flags = ["--volume", "preprocessed", *SMALL.flags()]
        message = program.refuses("materialize", *dataset.flags(), *flags, "--output-dir", data / "out")
        assert "CRC" in message or "damaged" in message
        with program.mounted(dataset, *flags) as point, pytest.raises(OSError):
            digest(shards(point)[0])


def test_nonsense_is_refused(program: Program, tmp_path: Path) -> None:
    """By the command line, with what was expected."""
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"data": values((4, 4, 4))}})
    for flags in (
        ["--spacing", "1,1"],
        ["--shape", "0,1,1"],
        ["--shape", "1.5,1,1"],
        ["--hu-range", "5,5"],
        ["--rescale", "maybe"],
        ["--spacing", "-1,1,1"],
        ["--shape", "1e9,1,1"],
    ):
        done = program.run("plan", *dataset.flags(), "--volume", "preprocessed", *flags, check=False)
        assert done.returncode == 2 and flags[0] in done.stderr


def test_plan_compares_the_kinds(program: Program, tmp_path: Path) -> None:
    """Bytes a sample and in all, against the NPZ files and against float32; and what is done."""
    dataset = write_dataset(tmp_path / "data", {f"v{n}.npz": {"data": values((20, 22, 18))} for n in range(2)})
    text = program.run("plan", *dataset.flags(), "--volume", "preprocessed", *SMALL.flags()).stdout
    lines = {line.split()[-0 if "*" not in line else 1]: line for line in text.splitlines() if "a sample" in line}
    assert set(lines) == {"stored", "rescaled", "preprocessed"} and "*" in lines["preprocessed"]
    assert "50.0 % of float32" in lines["stored"] and "50.0 % of float32" in lines["rescaled"]
    share = 100 * np.prod(SMALL.shape) * 2 / (20 * 22 * 18 * 4)
    assert f"{share:.1f} % of float32" in lines["preprocessed"]
    assert "2 samples: 1 · x + -1024, clipped" in text and "resampled" in text


def test_every_kind_streams_and_is_the_same_in_a_mount(program: Program, tmp_path: Path) -> None:
    """Whatever the order of reads and the size of the cache; the digests of the plans differ."""
    volumes = {f"v{n}.npz": {"data": np.asarray(head(24, 0, n), order=ORDERS[n % 2])} for n in range(4)}
    dataset = write_dataset(tmp_path / "data", volumes, deflated=True)
    seen = set()
    for kind in ("stored", "rescaled", "preprocessed"):
        flags = ["--volume", kind, *SMALL.flags(), "--samples-per-shard", 2]
        right = program.materialize(dataset, tmp_path / kind, *flags)
        manifest = json.loads((right / "manifest.json").read_text())
        assert manifest["volume_kind"] == kind
        seen.add(manifest["plan_digest"])
        for more in (["--cache-size", "20KiB"], ["--page-cache", "off", "--threads", 1]):
            with program.mounted(dataset, *flags, *more) as point:
                for shard in shards(right):
                    content = shard.read_bytes()
                    with (point / shard.name).open("rb") as file:
                        for offset in range(len(content) - 4097, -1, -30_011):
                            file.seek(offset)
                            assert file.read(4097) == content[offset : offset + 4097]
                    assert digest(point / shard.name) == digest(shard)
    assert len(seen) == 3

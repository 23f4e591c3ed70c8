"""Voxels, byte for byte as NumPy casts them and `tarfile` packs them, from every kind of NPZ file.

Each test runs twice: over the files of `materialize` and over a mount. The comparison is of whole shards."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import webdataset as wds
from harness import Program, shards
from make_dataset import Dataset, dataset_at
from npzfiles import ENDIANS, ORDERS, WRITERS, write_npz
from numpy.typing import NDArray
from reference import DTYPES, Options
from small_datasets import check_against_reference, write_dataset, write_plain_tables

SHAPE = (5, 7, 9)  # odd, so that nothing is aligned by chance


def from_bits(bits: list[int], dtype: str) -> NDArray[Any]:
    """Floats from their bit patterns."""
    return np.array(bits, dtype.replace("f", "u")).view(dtype)


def nan_patterns(dtype: str) -> NDArray[Any]:
    """NaNs, quiet and signalling, of both signs: every payload of one bit, all ones, and the top bits alone."""
    mantissa, width = {"f2": (10, 16), "f4": (23, 32), "f8": (52, 64)}[dtype]
    exponent = ((1 << (width - 1 - mantissa)) - 1) << mantissa
    payloads = [1 << i for i in range(mantissa)] + [(1 << mantissa) - 1, 3 << (mantissa - 2), 5 << (mantissa - 3)]
    return from_bits([sign << (width - 1) | exponent | p for sign in (0, 1) for p in payloads], dtype)


def halves() -> NDArray[Any]:
    """Every finite float16 that is not negative, in order."""
    return np.arange(0x7C00, dtype=np.uint16).view(np.float16)


def rounding_cases(dtype: str) -> NDArray[Any]:
    """Around every tie between two neighbouring float16 values: the tie itself and the nearest values of this dtype on
    both sides. In float64 these neighbours would become ties on a way through float32."""
    values = halves().astype(dtype)
    ties = (values[:-1] + values[1:]) / 2  # exact in both dtypes
    last = np.nextafter(np.array(65520, dtype), np.array(0, dtype))  # the largest that does not overflow
    positive = np.concatenate([values, ties, np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf), [last]])
    return np.concatenate([positive, -positive]).astype(dtype)


def sample_values(dtype: str) -> NDArray[Any]:
    """Values of one dtype for a small volume: the special ones that fit float16, then arbitrary ones."""
    rng = np.random.default_rng(7)
    count = int(np.prod(SHAPE))
    if dtype == "b1":
        return rng.integers(0, 2, SHAPE).astype(bool)
    if dtype[0] != "f":
        limits = np.iinfo(dtype)
        low, high = max(limits.min, -65519), min(limits.max, 65519)
        special = np.array([low, -1 if low else 0, 0, 1, min(high, 2049), min(high, 4097), min(high, 4099), high])
        values = np.concatenate([special, rng.integers(low, high, count, endpoint=True)])
        return values[:count].astype(dtype).reshape(SHAPE)
    special = np.array([0.0, -0.0, np.inf, -np.inf, 6e-8, -6e-8, 2.9e-8, 6.1e-5, 2049, 2051, 65504, 65519, -65519])
    tiny = np.finfo(dtype).tiny / 2  # a subnormal of this dtype
    values = [special.astype(dtype), [tiny, -tiny], nan_patterns(dtype), rng.normal(0, 2000, count).astype(dtype)]
    # Concatenation in one dtype copies bits; a conversion would make signalling NaNs quiet.
    return np.concatenate([np.asarray(part, dtype) for part in values])[:count].reshape(SHAPE)


def one_row(values: NDArray[Any]) -> NDArray[Any]:
    """Any values as a volume, filled up with zeros."""
    volume = np.zeros((-(-values.size // 63), 7, 9), values.dtype)
    volume.ravel()[: values.size] = values
    return volume


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """dtype × byte order × array order × header version × compression × zip writer: one volume of each."""
    dataset = dataset_at(tmp_path_factory.mktemp("matrix"))
    names: list[str] = []
    for dtype, deflated, writer in itertools.product(DTYPES, (False, True), WRITERS):
        versions = (1,) if writer == "numpy" else (1, 2, 3)
        endians = ENDIANS[:1] if dtype.endswith("1") else ENDIANS
        for version, endian, order in itertools.product(versions, endians, ORDERS):
            values = sample_values(dtype)
            array = np.array(values.astype(values.dtype.newbyteorder(endian)), order=order)
            align = (64, 16)[len(names) % 2]
            compression = "deflated" if deflated else "stored"
            name = f"{dtype}-{'big' if endian == '>' else 'little'}-{order}-v{version}-{compression}-{writer}"
            path = dataset.folder / f"{name}.npz"
            write_npz(path, {"data": array}, writer=writer, deflated=deflated, version=version, align=align)
            names.append(name)
    write_plain_tables(dataset, names)
    return dataset


def test_every_kind_of_npz(program: Program, via: str, matrix: Dataset, tmp_path: Path) -> None:
    """Some 1000 volumes in shards of 50."""
    check_against_reference(program, via, matrix, tmp_path, Options(samples_per_shard=50))


def test_the_reference_itself() -> None:
    """Known bit patterns, so that no NumPy which makes every NaN quiet is taken for the truth."""
    for dtype, pattern, half in [
        ("f4", 0x7F800001, 0x7C01),
        ("f4", 0x7FC00000, 0x7E00),
        ("f4", 0xFFC12345, 0xFE09),
        ("f4", 0x7FA00000, 0x7D00),
        ("f8", 0x7FF0000000000001, 0x7C01),
        ("f8", 0x7FF4000000000000, 0x7D00),
        ("f2", 0x7D01, 0x7D01),
        ("f4", 0x00000001, 0x0000),
        ("f4", 0x80000000, 0x8000),
        ("f4", 0x33000000, 0x0000),
        ("f4", 0x33000001, 0x0001),
        ("f4", 0x477FEFFF, 0x7BFF),
        ("f8", 0x3FF0020000000001, 0x3C01),
        ("f8", 0x3FF0020000000000, 0x3C00),
    ]:
        cast = reference.to_half(from_bits([pattern], dtype), "error").view(np.uint16)[0]
        assert cast == half, f"{dtype} {pattern:x}: {cast:x}, not {half:x}"


def test_every_float16_and_every_tie(program: Program, via: str, tmp_path: Path) -> None:
    """All 65,536 patterns of float16 as they are, and what lies around every tie, in both orders."""
    volumes = {
        "f2.npz": {"data": np.arange(65536, dtype="u2").view("f2").reshape(32, 32, 64)},
        "f2big.npz": {"data": np.arange(65536, dtype="u2").view("f2").byteswap().view(">f2").reshape(32, 32, 64)},
    }
    for dtype in ("f4", "f8"):
        volume = one_row(np.concatenate([rounding_cases(dtype), nan_patterns(dtype)]))
        volumes[f"{dtype}-c.npz"] = {"data": volume}
        volumes[f"{dtype}-f.npz"] = {"data": np.asfortranarray(volume)}
    check_against_reference(program, via, write_dataset(tmp_path, volumes, deflated=True), tmp_path)


def overflowing() -> dict[str, dict[str, NDArray[Any]]]:
    """One volume of each dtype that can overflow, with values on both sides of the limit."""
    cases: dict[str, list[float]] = {
        "f4": [65519, 65520, -65519, -65520, 1e30, -1e30, np.inf, -np.inf, np.nan, 3.4e38],
        "f8": [65519.99999999999, 65520, -65520, 1e300, -1e300, np.inf, -np.inf, np.nan],
        "u2": [65503, 65504, 65519, 65520, 65535],
        "i4": [65519, 65520, -65520, 2**31 - 1, -(2**31), 16777217],
        "u4": [65519, 65520, 2**32 - 1],
        "i8": [65519, 65520, -65520, 2**63 - 1025, -(2**63), 2**53 + 1],
        "u8": [65519, 65520, 2**63, 2**64 - 2049],
    }
    return {f"{dtype}.npz": {"data": one_row(np.array(values, dtype))} for dtype, values in cases.items()}


@pytest.mark.parametrize("overflow", ["inf", "saturate"])
def test_overflow(program: Program, via: str, tmp_path: Path, overflow: str) -> None:
    """What does not fit becomes an infinity or ±65504; infinities and NaNs of the source stay as they are."""
    dataset = write_dataset(tmp_path, overflowing())
    check_against_reference(program, via, dataset, tmp_path, Options(overflow=overflow))


def test_overflow_is_an_error_by_default_in_files(program: Program, tmp_path: Path) -> None:
    """The shard fails and is not there; the others are; the message names the volume."""
    good, bad = np.full((3, 4, 5), 7, "f4"), np.full((3, 4, 5), 65520, "f4")
    dataset = write_dataset(tmp_path, {"a.npz": {"data": good}, "b.npz": {"data": bad}, "c.npz": {"data": good}})
    out = tmp_path / "made"
    done = program.run("materialize", *dataset.flags(), "--samples-per-shard", 1, "--output_dir", out, check=False)
    assert done.returncode != 0
    assert "b.npz" in done.stderr + done.stdout
    assert [path.name for path in shards(out)] == ["shard-000000.tar", "shard-000002.tar"]


def test_overflow_is_an_error_by_default_in_a_mount(program: Program, tmp_path: Path) -> None:
    """The reader of that volume gets EIO; everything else in the shard reads well."""
    good, bad = np.full((3, 4, 5), 7, "f4"), np.full((30, 40, 50), 65520, "f4")
    dataset = write_dataset(tmp_path, {"a.npz": {"data": good}, "b.npz": {"data": bad}})
    with program.mounted(dataset, "--samples-per-shard", 1) as point:
        with pytest.raises(OSError) as caught:
            (point / "shard-000001.tar").read_bytes()
        assert caught.value.errno == errno.EIO
        assert np.frombuffer((point / "shard-000000.tar").read_bytes()[512 : 512 + 120], "f2").tolist() == [7] * 60


def test_array_names(program: Program, via: str, tmp_path: Path) -> None:
    """`data` before `volume` before `arr_0` before the only array of three dimensions; the rest leaves its slot."""
    right, wrong = np.arange(60, dtype="f4").reshape(3, 4, 5), np.full((2, 2, 2), 99, "f4")
    flat = np.zeros((4, 5), "f4")
    volumes = {
        "01.npz": {"volume": wrong, "arr_0": wrong, "data": right},
        "02.npz": {"zeros": wrong, "arr_0": wrong, "volume": right.astype("i2"), "metadata": np.array(b"{}")},
        "03.npz": {"zeros": wrong, "arr_0": np.asfortranarray(right)},
        "04.npz": {"affine": np.eye(4), "the voxels": right, "spacing": np.ones(3), "id": np.array(b"x")},
        "05-two.npz": {"one": right, "two": right},
        "06-none.npz": {"affine": np.eye(4)},
        "07-flat.npz": {"data": flat},
        "08-deep.npz": {"data": right[None]},
        "09-bool.npz": {"data": right > 3},
        "09-longdouble.npz": {"data": right.astype("g")},
        "10-complex.npz": {"data": right.astype("c8")},
        "11-object.npz": {"data": np.array([[[None, {}]]], dtype=object)},
        "12-record.npz": {"data": np.zeros((2, 2, 2), [("a", "f4"), ("b", "i2")])},
        "13.npz": {"data": right},
    }
    dataset = write_dataset(tmp_path, volumes, writer="numpy")
    check_against_reference(program, via, dataset, tmp_path, Options(samples_per_shard=4))


def test_array_option(program: Program, via: str, tmp_path: Path) -> None:
    """`--array` overrides; a volume without that array leaves its slot."""
    one, two = np.zeros((3, 4, 5), "f4"), np.ones((2, 3, 4), "u1")
    volumes = {"a.npz": {"data": one, "mask": two}, "b.npz": {"data": one}, "c.npz": {"mask": two}}
    check_against_reference(program, via, write_dataset(tmp_path, volumes), tmp_path, Options(array="mask"))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 300, 1), (300, 1, 2), (2, 1, 300), (17, 33, 65), (64, 64, 64)])
def test_shapes(program: Program, via: str, tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """Both orders at sizes around those of transposition blocks."""
    values = (np.arange(np.prod(shape)) % 2039).reshape(shape)
    volumes = {
        f"{order}-{dtype}.npz": {"data": np.array(values % (100 if dtype == "u1" else 2039), dtype, order=order)}
        for order, dtype in itertools.product(ORDERS, ("f4", "f8", "u1", ">i2"))
    }
    check_against_reference(program, via, write_dataset(tmp_path, volumes, deflated=True), tmp_path)


def test_generic_format(program: Program, via: str, matrix: Dataset, tmp_path: Path) -> None:
    """`--format npy`: members that decode by their extension, with the bytes of `numpy.save`."""
    options = Options(format="npy", samples_per_shard=200, limit=420)
    right = check_against_reference(program, via, matrix, tmp_path, options)
    sample = next(iter(wds.WebDataset([str(path) for path in shards(right)], shardshuffle=False).decode()))
    assert (sample["volume.npy"].shape, sample["volume.npy"].dtype) == (SHAPE, np.float16)
    assert (sample["labels.npy"].shape, sample["labels.npy"].dtype) == ((3,), np.float32)
    assert sample["meta.json"]["volume_shape"] == list(SHAPE)

"""Fortran-order volumes to the byte, in shapes that take each way through the transposition, of every kind.

Each test runs twice: over the files of `materialize` and over a mount."""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Program, payload, shards
from kinds import Steps, assert_close, cropped_and_padded, preprocessed
from make_dataset import Dataset, dataset_at
from npzfiles import ENDIANS, ORDERS, Order, write_npz
from numpy.typing import NDArray
from reference import Options, to_half
from small_datasets import check_against_reference, write_dataset, write_plain_tables
from test_goldens import nan_patterns, one_row, rounding_cases

# Planes are collected, 32 of them where 32 MiB hold as many; where rows, columns and depth allow it, whole cache lines
# of 32 voxels are written, some of which begin in the planes before.
SHAPES = {
    "whole lines": (16, 24, 64),
    "one line": (8, 32, 32),
    "lines across blocks": (24, 16, 50),
    "lines across many blocks": (8, 32, 167),
    "a line across the end of what is kept": (8, 32, 68),
    "one plane more": (8, 32, 33),
    "one plane fewer": (8, 32, 31),
    "no line begins where another does": (16, 31, 70),
    "rows of no whole group": (15, 32, 64),
    "one column": (40, 1, 96),
    "one row": (1, 64, 70),
}
LARGE = {
    "planes of which 64 are too many": (520, 512, 33),
    "planes of which 32 are too many": (1032, 520, 32),
}
DTYPES = ("<f4", ">f4", "<i2", ">i2", "<f8")


def values(shape: tuple[int, int, int], dtype: str) -> NDArray[Any]:
    """Arbitrary values in Fortran order, of floats also those that are treated specially, anywhere."""
    rng = np.random.default_rng(list(shape))
    if dtype[1] != "f":
        return rng.integers(-32768, 32767, shape, endpoint=True).astype(dtype, order="F")
    kind = dtype[1:]
    volume = rng.normal(0, 1500, shape).astype(kind, order="F")
    special = np.array([0.0, -0.0, np.inf, -np.inf, 6e-8, 2049, 2051, 65504, 65519, -65519, 65520, -1e9], kind)
    special = np.concatenate([special, nan_patterns(kind)])
    places = rng.choice(volume.size, min(len(special), volume.size // 4), replace=False)
    volume.T.reshape(-1)[places] = special[: len(places)]  # a view: copies bits, and leaves the order
    assert volume.flags.f_contiguous
    return volume.astype(dtype, order="F")


def write_volumes(out: Path, volumes: Mapping[str, NDArray[Any]]) -> Dataset:
    """Stored and deflated by turns, by name."""
    dataset = dataset_at(out)
    for number, (name, volume) in enumerate(volumes.items()):
        write_npz(dataset.folder / f"{name}.npz", {"data": volume}, deflated=number % 2 == 1)
    write_plain_tables(dataset, list(volumes))
    return dataset


@pytest.fixture(scope="module")
def arrays() -> dict[str, NDArray[Any]]:
    """Shape × dtype, each twice: once to be stored, and once to be deflated."""
    cases = itertools.product(enumerate(SHAPES.values()), enumerate(DTYPES), range(2))
    return {f"v{s}{d}{twice}": values(shape, dtype) for (s, shape), (d, dtype), twice in cases}


@pytest.fixture(scope="module")
def dataset(arrays: dict[str, NDArray[Any]], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same as NPZ files."""
    return write_volumes(tmp_path_factory.mktemp("orders"), arrays)


def voxels(folder: Path, names: Mapping[str, object]) -> Iterator[tuple[str, bytes]]:
    """The volumes of all shards by the names of their studies, which are in the order of the samples."""
    remaining = iter(sorted(names))
    for shard in shards(folder):
        with tarfile.open(shard) as archive:
            for member in archive:
                if member.name.endswith(".bin"):
                    yield next(remaining), payload(archive, member)
    assert not list(remaining), "samples are missing"


def test_stored(program: Program, via: str, dataset: Dataset, tmp_path: Path) -> None:
    """As NumPy casts it."""
    check_against_reference(program, via, dataset, tmp_path, Options(overflow="saturate", samples_per_shard=10))


@pytest.mark.parametrize("case", LARGE)
def test_large_planes(program: Program, via: str, tmp_path: Path, case: str) -> None:
    """The scratch memory is bounded; what does not fit into it goes another way."""
    shape = LARGE[case]
    volume = np.random.default_rng(0).integers(-2048, 2048, shape[::-1], dtype="i2").T
    check_against_reference(program, via, write_volumes(tmp_path / "data", {"v": volume}), tmp_path)


def mapped(volume: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """HU by NumPy, in f32, or in f64 where the source is."""
    exact: Any = np.float64 if volume.dtype.str[1:] == "f8" else np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        return volume.astype(exact) * exact(slope) + exact(intercept)


# A slope of 2 doubles exactly, also into what overflows; an intercept of 0 makes +0 of -0.
@pytest.mark.parametrize(("slope", "intercept"), [(2, 0), (0.37, -1024.5), (1, -1024), (-1, 0)])
def test_rescaled(
    program: Program,
    via: str,
    arrays: dict[str, NDArray[Any]],
    dataset: Dataset,
    tmp_path: Path,
    slope: float,
    intercept: float,
) -> None:
    """The same after a map, rounded once."""
    flags = ["--volume", "rescaled", f"--rescale={slope},{intercept}", "--overflow", "saturate"]
    with program.produced(via, dataset, tmp_path / "out", *flags, "--samples-per-shard", 10) as out:
        for name, found in voxels(out, arrays):
            expected = to_half(mapped(arrays[name], slope, intercept), "saturate")
            assert found == expected.tobytes(), f"{name}: {arrays[name].dtype} of {arrays[name].shape}"


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("overflow", ["inf", "saturate"])
def test_every_tie_after_a_map(program: Program, via: str, tmp_path: Path, dtype: str, overflow: str) -> None:
    """Halves of what lies around every tie, of the limits and of NaNs, doubled; in both orders and both byte orders."""
    limits = np.array([65520, -65520, np.nextafter(np.array(65520, dtype), np.inf), 1e30, np.inf, -np.inf], dtype)
    volume = one_row(np.concatenate([rounding_cases(dtype) / 2, limits / 2, nan_patterns(dtype)]).astype(dtype))
    volumes = {
        f"{order}{endian == '>':d}": volume.astype(volume.dtype.newbyteorder(endian), order=order)
        for order, endian in itertools.product(ORDERS, ENDIANS)
    }
    flags = ["--volume", "rescaled", "--rescale=2,0", "--overflow", overflow]
    data = write_volumes(tmp_path / "data", volumes)
    with program.produced(via, data, tmp_path / "out", *flags) as out:
        for name, found in voxels(out, volumes):
            assert found == to_half(mapped(volumes[name], 2, 0), overflow).tobytes(), name


@pytest.mark.parametrize("order", ["C", "F"])
def test_infinities_of_another_dialect(program: Program, via: str, tmp_path: Path, order: Order) -> None:
    """Depth first, as `arr_0` has it: what is only mapped is not interpolated, so that infinities stay."""
    volume = np.random.default_rng(0).normal(0, 0.5, (40, 16, 32)).astype("f4", order=order)
    volume[3, 4, 5], volume[39, 15, 31], volume[0, 0, 0], volume[7, 7, 7] = np.inf, -np.inf, np.nan, -0.0
    data = write_dataset(tmp_path / "data", {"v.npz": {"arr_0": volume}})
    with program.produced(via, data, tmp_path / "out", "--volume", "rescaled") as out:
        ((_, found),) = voxels(out, {"v": volume})
    assert found == to_half(mapped(volume.transpose(1, 2, 0), 1000, 0), "error").tobytes()


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<u2", "<i4"])
@pytest.mark.parametrize("rescale", ["none", "3,1"])
def test_the_place_of_what_does_not_fit(program: Program, tmp_path: Path, dtype: str, rescale: str) -> None:
    """The message names the voxel, wherever it is among those that are cast together."""
    # f32 values are looked at in blocks of 4096, others are widened in blocks of 2048.
    for number, place in enumerate([(0, 0, 0), (39, 59, 1), (7, 3, 20), (39, 59, 69)]):
        for order in ORDERS:
            volume = np.full((40, 60, 70), 7, dtype, order=order)
            volume[place] = 65530
            folder = tmp_path / f"{number}{order}"
            data = write_dataset(folder, {"v.npz": {"data": volume}})
            flags = ["--volume", "rescaled", f"--rescale={rescale}", "--output-dir", folder / "out"]
            message = program.refuses("materialize", *data.flags(), *flags)
            assert f"voxel {list(place)} is " in message


# The result's shape decides how it is transposed.
RESULTS = {
    "whole lines": Steps(shape=(16, 24, 64)),
    "lines across blocks": Steps(shape=(24, 32, 81)),
    "no whole line": Steps(shape=(16, 31, 70)),
}


@pytest.mark.parametrize("case", RESULTS)
def test_preprocessed(program: Program, via: str, tmp_path: Path, case: str) -> None:
    """Cropped, padded and divided, to the byte; from both orders and from depth first."""
    steps, rng = RESULTS[case], np.random.default_rng(1)
    volumes = {}
    for number, (shape, dtype, order) in enumerate(
        itertools.product([(40, 40, 90), (10, 9, 40), (30, 20, 7)], ("<f4", "<i2", "<f8"), ORDERS)
    ):
        volumes[f"v{number:02d}"] = rng.integers(-200, 2300, shape).astype(dtype, order=order)
    data = write_volumes(tmp_path / "data", volumes)
    flags = ["--volume", "preprocessed", "--resample", "never", "--rescale=1,-1024", *steps.flags()]
    with program.produced(via, data, tmp_path / "out", *flags) as out:
        for name, found in voxels(out, volumes):
            hu = np.clip(volumes[name].astype(np.float32) - np.float32(1024), -1000, 1000)
            expected, _ = cropped_and_padded(hu / np.float32(1000), steps)
            assert found == expected.astype("<f2").tobytes(), f"{name}: {volumes[name].dtype} {volumes[name].shape}"


@pytest.mark.parametrize("case", RESULTS)
def test_resampled(program: Program, via: str, tmp_path: Path, case: str) -> None:
    """As PyTorch does it, with planes that are skipped and planes between which there are several."""
    steps, rng = replace(RESULTS[case], spacing=(1, 1, 1.1)), np.random.default_rng(2)
    shapes = [(40, 40, 90), (24, 20, 30)]
    volumes = {
        f"v{number}": rng.choice([0, 24, 1000, 1064, 2000], shape).astype("f4", order="F")
        for number, shape in enumerate(shapes)
    }
    data = write_volumes(tmp_path / "data", volumes)
    flags = ["--volume", "preprocessed", "--rescale=1,-1024", *steps.flags()]
    with program.produced(via, data, tmp_path / "out", *flags) as out:
        for name, found in voxels(out, volumes):
            right, inside = preprocessed(volumes[name], 1, -1024, (0.75, 0.75, 1.5), steps)
            assert_close(np.frombuffer(found, "<f2").reshape(steps.shape), right, inside)

"""Arrays of more than three axes: those of length 1 are taken away, and one channel of several is taken. NumPy is the
judge of what is taken; mount, files, `verify` and both loaders agree with it."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctreport_webdataset import LoaderError
from harness import Program, shards
from loading import from_npz
from make_dataset import Dataset
from npzfiles import write_npz
from numpy.typing import NDArray
from small_datasets import write_dataset
from test_one_answer import differences, of_tars, through_npz, through_shards
from verifying import verify

DTYPES = ("f4", ">i2", "u1", "f8")
SHAPES = ((5, 6, 7), (6, 7, 1), (1, 5, 6), (1, 1, 4))
SPACING = (0.75, 0.75, 1.5)  # that of the tables, so that no voxel is lost
Arrays = dict[str, NDArray[Any]]


def noise(shape: tuple[int, ...], seed: int, dtype: str, order: Any) -> NDArray[Any]:
    """Integers that every dtype holds."""
    return np.random.default_rng(seed).integers(0, 120, shape).astype(dtype).copy(order)


def squeezed(array: NDArray[Any]) -> NDArray[Any]:
    """Without axes of length 1, from the first on, down to three."""
    while array.ndim > 3:
        array = np.squeeze(array, axis=array.shape.index(1))
    return array


def single_axes() -> tuple[Arrays, Arrays]:
    """Arrays with one or two more axes of length 1 in all places, and their volumes."""
    arrays, right = {}, {}
    places = [at for count in (1, 2) for at in itertools.combinations_with_replacement(range(4), count)]
    for number, (shape, at) in enumerate(itertools.product(SHAPES, places)):
        longer = list(shape)
        for place in sorted(at, reverse=True):
            longer.insert(place, 1)
        study = f"s{number:03d}"
        arrays[study] = noise(tuple(longer), number, DTYPES[number % 4], "CF"[number // 4 % 2])
        right[study] = squeezed(arrays[study])
    return arrays, right


def channels(is_last: bool, number: int) -> tuple[Arrays, Arrays]:
    """Arrays of several channels, and one channel of each."""
    arrays, right = {}, {}
    for at, (count, shape, order) in enumerate(itertools.product((2, 3), ((5, 6, 7), (4, 4, 3)), "CF")):
        for more in (0, 1):
            axes = (*shape, count) if is_last else (count, *shape)
            study = f"s{at:03d}{more}"
            array = noise((1, *axes) if more else axes, at, DTYPES[at % 4], order)
            arrays[study] = array
            right[study] = np.squeeze(array)[..., number] if is_last else np.squeeze(array)[number]
    return arrays, right


def write(out: Path, arrays: Arrays, deflated: bool) -> Dataset:
    """The arrays as `data`."""
    volumes = {f"{study}.npz": {"data": array} for study, array in arrays.items()}
    return write_dataset(out, volumes, writer="numpy", deflated=deflated)


CASES = {
    "single": (single_axes(), ()),
    "first": (channels(False, 1), ("--channel", "1")),
    "first-named": (channels(False, 0), ("--channel", "first:0")),
    "last": (channels(True, 1), ("--channel", "last:1")),
}


@pytest.mark.parametrize("packing", ["stored", "deflated"])
@pytest.mark.parametrize("case", CASES)
def test_every_path_takes_the_same(program: Program, via: str, tmp_path: Path, case: str, packing: str) -> None:
    """The voxels of shards are NumPy's; `verify` agrees, by its own reader; both loaders give one answer."""
    (arrays, right), flags = CASES[case]
    dataset = write(tmp_path / "data", arrays, packing == "deflated")
    with program.produced(via, dataset, tmp_path / "made", "--dialect", "native", *flags) as made:
        found = of_tars(made)
        assert sorted(found) == sorted(right)
        for study, array in right.items():
            voxels, meta, *_ = found[study]
            assert meta["original_shape"] == meta["volume_shape"] == list(array.shape), study
            assert np.array_equal(voxels, array.astype(np.float16)), study
        assert verify(program, made, *dataset.flags(), "--dialect", "native", *flags)[0] == 0
        loaded = through_shards(made, spacing=SPACING)
    options = {"channel": flags[1]} if flags else {}
    assert differences(through_npz(dataset, spacing=SPACING, **options), loaded, 0) == []
    listed = tmp_path / "list.csv"
    done = program.run("verify", "--sources", *dataset.flags(), *flags, "--quarantine", listed, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", ["rescaled", "preprocessed"])
def test_other_kinds_are_those_of_the_plain_array(program: Program, tmp_path: Path, kind: str) -> None:
    """A volume of a channel equals that of a file which holds the channel alone."""
    flags = ("--volume", kind, "--shape", "9,8,6", "--dialect", "native")
    for case, ((arrays, right), chosen) in CASES.items():
        some = list(right)[:12]
        made = [
            of_tars(program.materialize(write(tmp_path / f"{case}-{name}", volumes, True), out, *flags, *more))
            for name, volumes, out, more in (
                ("all", {study: arrays[study] for study in some}, tmp_path / f"{case}-a", chosen),
                ("plain", {study: right[study] for study in some}, tmp_path / f"{case}-b", ()),
            )
        ]
        assert made[0].keys() == made[1].keys() == set(some)
        for study in some:
            assert np.array_equal(made[0][study][0], made[1][study][0]), (case, study)


WRONG: dict[str, tuple[tuple[int, ...], str | None, str]] = {
    "four_axes": ((2, 5, 6, 7), None, "--channel N"),
    "no_such_channel": ((2, 5, 6, 7), "2", "2 channels"),
    "no_channels": ((1, 5, 6, 7), "1", "one channel"),
    "shorter_last": ((5, 6, 7, 2), "1", "last:1"),
    "five_axes": ((2, 2, 5, 6, 7), "1", "three dimensions"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_left_out(program: Program, tmp_path: Path, wrong: str) -> None:
    """With the shape and the remedy, by the program and the loader."""
    shape, channel, says = WRONG[wrong]
    dataset = write(tmp_path, {"bad": noise(shape, 1, "f4", "C"), "sound": noise((5, 6, 7), 2, "f4", "C")}, False)
    flags = ("--channel", channel) if channel else ()
    if wrong in ("no_such_channel", "no_channels", "shorter_last", "five_axes"):
        write_npz(dataset.folder / "sound.npz", {"data": noise((3, 3, 4, 5), 3, "f4", "C")}, writer="numpy")
    plan = json.loads(program.run("plan", *dataset.flags(), *flags, "--json").stdout)
    (left_out,) = plan["left_out"]
    assert left_out["study_id"] == "bad"
    assert says in left_out["reason"] and str(list(shape)) in left_out["reason"], left_out
    with pytest.raises(LoaderError, match=r"bad\.npz") as caught:
        from_npz(dataset, channel=channel)[0]
    assert str(shape) in str(caught.value)


def test_a_channel_is_a_number(program: Program, tmp_path: Path) -> None:
    """And a plan of another channel is another plan."""
    arrays, _ = channels(False, 0)
    dataset = write(tmp_path, arrays, False)
    done = program.run("plan", *dataset.flags(), "--channel", "middle:1", check=False)
    assert done.returncode == 2 and "first:N or last:N" in done.stderr
    plans = [
        json.loads(program.run("plan", *dataset.flags(), "--channel", channel, "--json").stdout)["plan_digest"]
        for channel in ("0", "1", "first:1", "last:1")
    ]
    assert plans[1] == plans[2] and len(set(plans)) == 3


MASK = np.zeros((5, 6, 7), bool)


@pytest.mark.parametrize(
    "others",
    [
        {"spacing": np.ones(3), "note": np.array("a text"), "scale": np.float32(2)},
        {"names": np.full((2, 2, 2), "abc"), "affine": np.eye(4)},
        {"one_hot": noise((3, 5, 6, 7), 5, "u1", "C"), "table": np.ones((4, 4))},
        {"embedding": np.zeros((2, 3, 4, 5, 6), np.float32)},
    ],
    ids=["vectors", "texts", "channels", "more"],
)
def test_the_only_array_of_three_dimensions(program: Program, tmp_path: Path, others: Arrays) -> None:
    """Is taken, whatever else stands beside it."""
    ct = noise((1, 5, 6, 7), 1, "i2", "C")
    dataset = write_dataset(tmp_path / "data", {"s.npz": {"a": next(iter(others.values())), **others, "ct": ct}})
    made = program.materialize(dataset, tmp_path / "made")
    assert np.array_equal(of_tars(made)["s"][0], ct[0])
    assert verify(program, made, *dataset.flags())[0] == 0
    assert differences(through_npz(dataset), through_shards(made), 0) == []


def test_several_arrays_are_listed_with_their_shapes(program: Program, tmp_path: Path) -> None:
    """And the option that chooses; the loader says the same."""
    arrays = {"imgs": noise((5, 6, 7), 1, "u1", "C"), "gts": MASK, "spacing": np.ones(3)}
    dataset = write_dataset(tmp_path, {"s.npz": arrays})
    said = program.refuses("plan", *dataset.flags())
    for part in ("'imgs' [5, 6, 7]", "'gts' [5, 6, 7]", "--array"):
        assert part in said, said
    assert "spacing" not in said
    with pytest.raises(LoaderError, match="several") as caught:
        from_npz(dataset, dialect="native")[0]
    assert "imgs (5, 6, 7)" in str(caught.value) and "gts (5, 6, 7)" in str(caught.value)


@pytest.mark.parametrize("packing", ["stored", "deflated"])
def test_parts_of_a_mounted_shard(program: Program, tmp_path: Path, packing: str) -> None:
    """Small reads from the end to the beginning, most of them made without a whole volume, are those of the file."""
    arrays, _ = channels(False, 1)
    dataset = write(tmp_path / "data", arrays, packing == "deflated")
    right = shards(program.materialize(dataset, tmp_path / "made", "--channel", "1"))[0].read_bytes()
    with program.mounted(dataset, "--channel", "1", "--page-cache", "off", "--read-ahead", 0) as point:
        file = os.open(shards(point)[0], os.O_RDONLY)
        try:
            for at in range(len(right) // 512 * 512, -1, -512):
                assert os.pread(file, 100, at + 7) == right[at + 7 : at + 107], at
        finally:
            os.close(file)

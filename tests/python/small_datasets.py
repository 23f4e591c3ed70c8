"""Small data sets of which every byte is chosen by the test: any arrays at any paths, with plain tables."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import reference
from harness import Program, shards
from make_dataset import Dataset, dataset_at
from npzfiles import write_npz
from numpy.typing import NDArray


def write_csv(
    path: Path,
    rows: Iterable[Iterable[object]],
    *,
    bom: bool = False,
    quoting: Literal[0, 1, 2, 3] = csv.QUOTE_MINIMAL,
    lineterminator: str = "\n",
) -> None:
    """Write a table; every test may choose how ugly it is."""
    with path.open("w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        csv.writer(file, quoting=quoting, lineterminator=lineterminator).writerows(rows)


def write_plain_tables(dataset: Dataset, study_ids: list[str]) -> None:
    """Tables with one row for each study and nothing special."""
    names = [study_id + ".nii.gz" for study_id in study_ids]
    write_csv(
        dataset.reports,
        [["VolumeName", "Findings_EN", "Impressions_EN"]] + [[n, f"findings of {n}", "none"] for n in names],
    )
    write_csv(
        dataset.meta,
        [["VolumeName", "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"]]
        + [[n, "1", "-1024", "[0.75, 0.75]", "1.5"] for n in names],
    )
    write_csv(dataset.labels, [["VolumeName", "a", "b", "c"]] + [[n, i % 2, 0.1, i] for i, n in enumerate(names)])


def set_meta(dataset: Dataset, rows: dict[str, tuple[object, object, object, object]]) -> None:
    """Write the metadata table: slope, intercept, XYSpacing, ZSpacing by study."""
    header = ["VolumeName", "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"]
    write_csv(dataset.meta, [header] + [[f"{study}.nii.gz", *row] for study, row in rows.items()])


def write_dataset(
    out: Path, volumes: Mapping[str, dict[str, NDArray[Any]]], *, writer: str = "zip64", deflated: bool = False
) -> Dataset:
    """Write volumes at relative paths below `out`, and tables that know all of them."""
    dataset = dataset_at(out)
    for path, arrays in volumes.items():
        write_npz(dataset.folder / path, arrays, writer=writer, deflated=deflated)
    write_plain_tables(dataset, [Path(path).name.removesuffix(".npz") for path in volumes])
    return dataset


def noise_dataset(
    out: Path,
    count: int,
    shape: tuple[int, int, int] = (64, 64, 96),
    *,
    dtype: str = "f4",
    deflated: bool = False,
    order: Literal["C", "F"] = "C",
) -> Dataset:
    """Volumes `v00.npz`, … of random integers: no byte of one is where another, or any reordering, has the same."""
    rng = np.random.default_rng(count)
    volumes = {
        f"v{n:02d}.npz": {"data": rng.integers(-1000, 1000, shape).astype(dtype, order=order)} for n in range(count)
    }
    return write_dataset(out, volumes, writer="numpy", deflated=deflated)


def on_slopes(noise: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in a scanner's way: neighbours are near each other, with less noise between them."""
    return np.asarray(np.rint(noise / 40) + 3 * np.indices(noise.shape).sum(axis=0))


def check_against_reference(
    program: Program, via: str, dataset: Dataset, tmp_path: Path, options: reference.Options = reference.Options()
) -> Path:
    """Compare every shard that the program makes with the reference's; return the folder with the latter."""
    right = tmp_path / "expected"
    slots = reference.plan(dataset.folder, dataset.reports, dataset.meta, dataset.labels, options)
    reference.convert(slots, right, options)
    with program.produced(via, dataset, tmp_path / "made", *options.flags()) as made:
        assert [path.name for path in shards(made)] == [path.name for path in shards(right)]
        for path in shards(right):
            explain_difference((made / path.name).read_bytes(), path)
    return right


def explain_difference(got: bytes, right: Path) -> None:
    """Fail if the bytes differ from the file's, naming the first member that does."""
    if got == right.read_bytes():
        return
    with tarfile.open(right) as expected, tarfile.open(fileobj=io.BytesIO(got)) as made:
        assert made.getnames() == expected.getnames(), right.name
        for one, other in zip(expected, made, strict=True):
            assert other.get_info() == one.get_info(), f"{right.name}: {one.name}"
            payloads = [tar.extractfile(info) for tar, info in ((made, other), (expected, one))]
            made_bytes, right_bytes = (payload.read() for payload in payloads if payload)
            assert made_bytes == right_bytes, f"{right.name}: {one.name}"
    raise AssertionError(f"{right.name}: the members are equal, but not the headers or the padding")


def flip_voxel(volume: Path) -> None:
    """Damage a stored volume so that its headers are right and its checksum is not; doing it twice mends it. The file's
    time is that of the change, as always."""
    content = bytearray(volume.read_bytes())
    content[len(content) // 2] ^= 0x40
    volume.write_bytes(content)


def reference_without(dataset: Dataset, out: Path, options: reference.Options, bad: set[str]) -> Path:
    """The shards as the reference converter makes them with the slots of these studies empty."""
    slots = reference.plan(dataset.folder, dataset.reports, dataset.meta, dataset.labels, options)
    kept = [None if slot is None or slot.study_id in bad else slot for slot in slots]
    reference.convert(kept, out, options)
    return out

"""The data sets that make_old_folders.py has folders made of: small, and the same bytes whenever they are written."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from make_dataset import Dataset, relative_path, study_ids

BAD = "train_3_a_1"  # the volume of the data set `damaged` that is


def write_tables(dataset: Dataset, studies: list[str], *, gaps: bool = False) -> None:
    """Three tables; with `gaps`, the last study has no ZSpacing, and one report lacks its findings."""

    def write(path: Path, rows: Sequence[Sequence[object]]) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    names = [study + ".nii.gz" for study in studies]
    texts = [[name, f'Lungs of {name}:\n"clear", ≤ 4 mm, é', "No change."] for name in names]
    if gaps:
        texts[2][1] = ""
    write(dataset.reports, [["VolumeName", "Findings_EN", "Impressions_EN"], *texts])
    scales = [("1", "-1024"), ("0.5", "-1000.25"), ("1.0", "-8192.0")]
    rows = [[name, *scales[n % 3], "[0.75, 0.75]", "1.5" if n % 2 else "2.0"] for n, name in enumerate(names)]
    if gaps:
        rows[-1][-1] = ""
    write(dataset.meta, [["VolumeName", "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"], *rows])
    labels = [[name, n % 2, n / 10] for n, name in enumerate(names)]
    write(dataset.labels, [["VolumeName", "Lung nodule", "b"], *labels])


def write_volumes(dataset: Dataset, arrays: dict[str, tuple[str, npt.NDArray[Any], bool]], depth: int) -> None:
    """NPZ files: of each study, the array's name, the array, and whether it is deflated."""
    for study, (name, array, deflated) in arrays.items():
        path = dataset.folder / relative_path(study, depth)
        path.parent.mkdir(parents=True, exist_ok=True)
        (np.savez_compressed if deflated else np.savez)(path, **{name: array})


def mixed(dataset: Dataset) -> None:
    """Every dialect and order, several types; one study without a spacing, one volume in no table."""
    rng = np.random.default_rng(1)
    kinds = [
        ("data", "<f4", "C"),
        ("data", "<f4", "F"),
        ("data", "<i2", "C"),
        ("volume", "<i2", "C"),
        ("arr_0", "<f4", "C"),
        ("data", "<f8", "F"),
        ("data", ">f4", "C"),
        ("data", "<f2", "C"),
    ]
    arrays: dict[str, tuple[str, npt.NDArray[Any], bool]] = {}
    for n, (study, (name, dtype, order)) in enumerate(zip(study_ids(len(kinds)), kinds, strict=True)):
        low, high = {"data": (0, 2000), "volume": (-800, 800), "arr_0": (-1000, 1000)}[name]
        in_order = np.asfortranarray if order == "F" else np.ascontiguousarray
        values: npt.NDArray[Any] = rng.integers(low, high, (12, 10 + n % 3, 8))
        values = values / 1000 if name == "arr_0" else values
        arrays[study] = (name, in_order(values.astype(dtype)), n % 2 == 1)
    write_tables(dataset, list(arrays), gaps=True)
    write_volumes(dataset, {**arrays, "train_1_z_1": arrays["train_1_a_1"]}, 3)
    tables = {"reports_train": "reports.csv", "train_meta": "metadata.csv", "labels_train": "labels.csv"}
    lines = [f"  {key}: data/mixed/{path}\n" for key, path in {"train_dir": "volumes", **tables}.items()]
    shards = "  webdataset_shards_train: shards/shard-{000000..000002}.tar\n"
    (dataset.folder.parent / "config.yaml").write_text("".join(["data:\n", *lines, shards]), encoding="utf-8")
    listed = "".join(f"{study}\n" for study in study_ids(6))
    (dataset.folder.parent / "studies.txt").write_text(listed, encoding="utf-8")


def uniform(dataset: Dataset, count: int, shape: tuple[int, int, int], low: int, high: int, seed: int) -> list[str]:
    """Volumes of one type and shape."""
    rng, studies = np.random.default_rng(seed), study_ids(count)
    arrays = {study: ("data", rng.integers(low, high, shape).astype("<f4"), False) for study in studies}
    write_tables(dataset, studies)
    write_volumes(dataset, arrays, 1)
    return studies


def damaged(dataset: Dataset) -> None:
    """One volume whose checksum is wrong, and the list that leaves it out."""
    uniform(dataset, 6, (8, 6, 4), 0, 2000, 2)
    path = dataset.folder / f"{BAD}.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    (dataset.folder.parent / "bad.csv").write_text(f"study_id,path,reason\n{BAD},,known\n", encoding="utf-8")


def large(dataset: Dataset) -> None:
    """One volume of two compressed blocks."""
    array = (np.arange(64 * 64 * 40) // 64 % 1500).reshape(64, 64, 40).astype("<i2")
    write_tables(dataset, study_ids(1))
    write_volumes(dataset, {study_ids(1)[0]: ("data", array, True)}, 1)


DATA: dict[str, Callable[[Dataset], object]] = {
    "mixed": mixed,
    "damaged": damaged,
    "large": large,
    "beyond": lambda dataset: uniform(dataset, 3, (4, 6, 8), -90_000, 90_000, 3),
    "many": lambda dataset: uniform(dataset, 8, (8, 8, 6), 0, 2000, 4),
}

"""Folders, tables and options, byte for byte as the reference converter reads them: over files and over a mount."""

from __future__ import annotations

import csv
import itertools
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from harness import Program, shards
from make_dataset import Dataset, Options, make_dataset
from numpy.typing import NDArray
from reference import MISSING
from small_datasets import check_against_reference, write_csv, write_dataset

VOXELS = {"data": np.arange(24, dtype="f4").reshape(2, 3, 4)}


def volume(number: int) -> dict[str, NDArray[Any]]:
    """A volume that is told from the others."""
    return {"data": VOXELS["data"] + number}


def numbered(paths: list[str]) -> dict[str, dict[str, NDArray[Any]]]:
    """A different volume at each path."""
    return {path: volume(number) for number, path in enumerate(paths)}


def ids_in(folder: Path) -> list[str]:
    """The study ids of all samples, in order, by the JSON members."""
    found = []
    for path in shards(folder):
        with tarfile.open(path) as tar:
            for info in tar:
                if info.name.endswith(".json"):
                    member = tar.extractfile(info)
                    assert member is not None
                    found.append(member.read().decode().split('"')[3])
    return found


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("bom", [False, True])
def test_ct_rate_like(program: Program, via: str, tmp_path: Path, depth: int, bom: bool) -> None:
    """The generated data set at each folder depth, with gaps, strays, quoting and both intercepts."""
    options = Options(tmp_path, volumes=17, size=(24, 20, 12), depth=depth, bom=bom, missing_zspacing=3, seed=depth)
    right = check_against_reference(
        program, via, make_dataset(options), tmp_path, reference.Options(samples_per_shard=5)
    )
    assert len(ids_in(right)) == 14


@pytest.mark.parametrize(
    ("paths", "taken"),
    [
        (["a.npz", "b.npz", "p/c.npz", "p/q/d.npz"], "ab"),
        (["a.npz", "p/b.npz", "p/c.npz", "p/q/d.npz"], "bc"),
        (["a.npz", "p/b.npz", "p/q/c.npz", "p/q/d.npz"], "cd"),
        (["a.npz", "b.npz", "p/c.npz", "p/d.npz", "p/q/e.npz", "p/q/f.npz"], "ef"),
        (["a.npz", "b.npz", "p/c.npz", "p/d.npz", "p/q/e.npz"], "cd"),
        (["p/a.npz", "p/q/r/b.npz", "p/q/r/c.npz"], "a"),
    ],
)
def test_the_depth_with_the_most_files(
    program: Program, via: str, tmp_path: Path, paths: list[str], taken: str
) -> None:
    """A tie goes to the deepest; what lies deeper than three levels is not seen."""
    right = check_against_reference(program, via, write_dataset(tmp_path, numbered(paths)), tmp_path)
    assert "".join(ids_in(right)) == taken


def test_order_is_by_the_bytes_of_the_path(program: Program, via: str, tmp_path: Path) -> None:
    """Not by folder then file, not by locale, not by number: `-` is before `/`, capitals before small letters."""
    folders = ["a", "a-b", "a.b", "A", "a0", "é", "z", "train_10", "train_2"]
    paths = [f"{folder}/{folder}{name}.npz" for folder, name in itertools.product(folders, ["1", "10", "2", "B", "b"])]
    right = check_against_reference(program, via, write_dataset(tmp_path, numbered(paths)), tmp_path)
    assert ids_in(right)[:3] == ["A1", "A10", "A2"]


def test_names_outside_ascii(program: Program, via: str, tmp_path: Path) -> None:
    """Study ids that JSON and CSV must escape, with dots, and beyond the basic plane."""
    ids = ["süß", "su\u0308ß", "肺-🫁", "train.1.a", "a b"]
    ids += ['quo"te', "back\\slash", "tab\tdel\x7f", "com,ma", "new\nline"]
    paths = [f"{study_id}.npz" for study_id in ids]
    check_against_reference(program, via, write_dataset(tmp_path, numbered(paths)), tmp_path)


def test_symbolic_links_are_followed(program: Program, via: str, tmp_path: Path) -> None:
    """A linked folder and a linked file are as good as real ones, under the names of the links."""
    dataset = write_dataset(tmp_path, numbered(["p/a.npz", "p/b.npz", "q/c.npz", "q/d.npz"]))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (dataset.folder / "p").rename(elsewhere / "moved")
    (dataset.folder / "p").symlink_to(elsewhere / "moved")
    (dataset.folder / "q/c.npz").rename(elsewhere / "some-file")
    (dataset.folder / "q/c.npz").symlink_to(elsewhere / "some-file")
    right = check_against_reference(program, via, dataset, tmp_path)
    assert ids_in(right) == ["a", "b", "c", "d"]


def ugly_reports() -> list[list[str]]:
    """Report rows with everything that CSV allows, and every spelling of a missing value."""
    texts = [
        "plain",
        "com,ma",
        'quo"ted',
        '"all quoted"',
        "two\nlines",
        "three\r\nwindows\r\nlines",
        " spaces ",
        "'",
        "Not given.",
        "NAN",
        "none",
        "Nan",
        " nan",
        "0",
        "-",
        "é ü ğ 肺 🫁",
        "\ttab",
        "ends with newline\n",
        '""',
        ",",
    ]
    texts += sorted(MISSING)
    count = len(texts)
    return [[f"v{i:03d}.nii.gz", "x", texts[i], texts[(i * 7 + 3) % count]] for i in range(count)]


@pytest.mark.parametrize("missing_text", ["", "nan", "Not given."])
@pytest.mark.parametrize("style", ["minimal", "quoted-bom-crlf"])
def test_texts(program: Program, via: str, tmp_path: Path, missing_text: str, style: str) -> None:
    """Every cell arrives as it is, or as `--missing-text` says."""
    rows = ugly_reports()
    dataset = write_dataset(tmp_path, numbered([row[0].replace(".nii.gz", ".npz") for row in rows]))
    header = ["VolumeName", "Technique_EN", "Findings_EN", "Impressions_EN"]
    if style == "minimal":
        write_csv(dataset.reports, [header, *rows])
    else:
        write_csv(dataset.reports, [header, *rows], bom=True, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    check_against_reference(program, via, dataset, tmp_path, reference.Options(missing_text=missing_text))


def test_columns_in_any_order(program: Program, via: str, tmp_path: Path) -> None:
    """Columns are found by name, a blank line is none, and every other column of the labels is a class, in order."""
    dataset = write_dataset(tmp_path, numbered(["a.npz", "b.npz"]))
    names = ["b.nii.gz", "a.nii.gz"]
    write_csv(
        dataset.reports,
        [["Impressions_EN", "More", "Findings_EN", "VolumeName"]] + [["i", "m", "f" + name, name] for name in names],
    )
    write_csv(
        dataset.meta,
        [["ZSpacing", "XYSpacing", "VolumeName", "RescaleIntercept", "RescaleSlope"]]
        + [["2", "[1, 1]", name, "-8192", "1"] for name in names],
    )
    write_csv(dataset.labels, [["z class", "VolumeName", "a class"]] + [[i, n, 0.5] for i, n in enumerate(names)])
    for table in (dataset.reports, dataset.meta, dataset.labels):
        table.write_text(table.read_text() + "\n")
    check_against_reference(program, via, dataset, tmp_path)


def write_numbers(dataset: Dataset) -> None:
    """Metadata in every spelling of a number, and labels that are not 0 or 1; a row for each volume v000, v001, …"""
    spellings = [
        "1",
        "1.0",
        "-1024",
        "0.1",
        ".5",
        "5.",
        "+2",
        "1e-05",
        "1E3",
        "0.30000000000000004",
        "-0.0",
        "1e16",
        "1e22",
        "123456789012345678",
        "2.2250738585072014e-308",
        "4.9e-324",
        "0.0001",
        "0.00001",
        "9007199254740993",
        "1e300",
        "0.1234567890123456789",
        "3.4028234663852886e38",
    ]
    names = [f"v{i:03d}.nii.gz" for i in range(len(spellings))]
    header = ["VolumeName", "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"]
    rows = [
        [n, s, spellings[-i], f"[{s}, {s}]", spellings[i - 5]]
        for i, (n, s) in enumerate(zip(names, spellings, strict=True))
    ]
    write_csv(dataset.meta, [header, *rows])
    labels = [
        [n, s if abs(float(s)) < 1e38 else 0, i % 2, "1.0"]
        for i, (n, s) in enumerate(zip(names, spellings, strict=True))
    ]
    write_csv(dataset.labels, [["VolumeName", "a", "b", "c"], *labels])


def test_numbers(program: Program, via: str, tmp_path: Path) -> None:
    """Numbers are rounded correctly and written as Python's repr writes them; labels become float32."""
    dataset = write_dataset(tmp_path, numbered([f"v{i:03d}.npz" for i in range(22)]))
    write_numbers(dataset)
    check_against_reference(program, via, dataset, tmp_path)


@pytest.mark.parametrize("missing_meta", ["exclude", "nan"])
def test_missing_metadata(program: Program, via: str, tmp_path: Path, missing_meta: str) -> None:
    """A sample without required metadata leaves its slot empty, or has NaN there, as upstream writes it."""
    dataset = write_dataset(tmp_path, numbered([f"v{i}.npz" for i in range(9)]))
    fields = ["RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"]
    rows = [[f"v{i}.nii.gz", "1", "-1024", "[0.7, 0.7]", "1.5"] for i in range(9)]
    for row, column, missing in ((1, 4, ""), (2, 4, "nan"), (4, 1, "NA"), (5, 2, ""), (7, 3, "")):
        rows[row][column] = missing
    write_csv(dataset.meta, [["VolumeName", *fields], *rows])
    options = reference.Options(samples_per_shard=3, missing_meta=missing_meta)
    right = check_against_reference(program, via, dataset, tmp_path, options)
    assert ids_in(right) == [f"v{i}" for i in ((0, 3, 6, 8) if missing_meta == "exclude" else range(9))]


@pytest.mark.parametrize("limit", [1, 4, 5, 1000])
def test_limit(program: Program, via: str, dataset: Dataset, tmp_path: Path, limit: int) -> None:
    """The first volumes that the tables know; fewer than there are, and more."""
    options = reference.Options(samples_per_shard=2, limit=limit, missing_meta="nan")
    right = check_against_reference(program, via, dataset, tmp_path, options)
    assert len(ids_in(right)) == min(limit, 14)


def test_the_commands_of_the_migration_guide(program: Program, tmp_path: Path) -> None:
    """Flags with underscores, test mode and a number of workers: only the program's name differs."""
    dataset = write_dataset(tmp_path, numbered([f"v{i:03d}.npz" for i in range(103)]))
    out = tmp_path / "made"
    program.run(
        "materialize",
        "--data_folder",
        dataset.folder,
        "--reports_file",
        dataset.reports,
        "--meta_file",
        dataset.meta,
        "--labels_file",
        dataset.labels,
        "--output_dir",
        out,
        "--samples_per_shard",
        40,
        "--num_workers",
        8,
        "--test_mode",
    )
    assert [len(ids_in(out)), len(shards(out))] == [100, 3]
    options = reference.Options(samples_per_shard=40, limit=100)
    slots = reference.plan(dataset.folder, dataset.reports, dataset.meta, dataset.labels, options)
    reference.convert(slots, tmp_path / "expected", options, workers=2)
    for path in shards(tmp_path / "expected"):
        assert (out / path.name).read_bytes() == path.read_bytes()

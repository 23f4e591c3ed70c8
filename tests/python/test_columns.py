"""Tables of other people: columns by the user's names, ids in every spelling, labels that are missing or words."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ctreport_webdataset import LoaderError
from harness import Program, digest
from kinds import samples
from loading import collected, from_npz, from_shards
from make_dataset import Dataset
from small_datasets import noise_dataset, write_csv, write_dataset

SUFFIXES = ["", ".nii.gz", ".nii", ".npz", ".npy", ".dcm"]


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Three tiny volumes with the tables of CT-RATE."""
    voxels = np.arange(60, dtype="f4").reshape(3, 4, 5)
    return write_dataset(tmp_path / "data", {f"v{n}.npz": {"data": voxels + n} for n in range(3)})


def planned(program: Program, data: Dataset, *flags: object) -> dict[str, Any]:
    """The plan, as JSON."""
    found: dict[str, Any] = json.loads(program.run("plan", *data.flags(), *flags, "--json").stdout)
    return found


def one_table(path: Path, delimiter: str = ",") -> list[object]:
    """A table for all three roles under other names, and the flags that say what is what."""
    header = ["AccessionNo", "report", "a", "b", "c", "slope", "offset", "pixel", "slice", "note"]
    rows: list[list[object]] = [list(header)]
    rows += [[f"scans/v{n}.dcm", f"text {n}", n % 2, 1, 0, 1, -1024, "[0.7, 0.7]", 1.5, "x"] for n in range(3)]
    write_csv(path, rows)
    if delimiter != ",":
        path.write_text(
            path.read_text().replace("[0.7, 0.7]", "[0.7/ 0.7]").replace(",", delimiter).replace("/ ", ", ")
        )
    return [
        "--id-column",
        "AccessionNo",
        "--text-columns",
        "findings=report",
        "--label-columns",
        "a..c",
        "--meta-columns",
        "slope=slope,intercept=offset,xy=pixel,z=slice",
    ]


def test_one_table_for_all_roles(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Under any names; the shards are those of three tables with the same values."""
    table = tmp_path / "all.csv"
    flags = one_table(table)
    combined = Dataset(data.folder, table, table, table)
    out = program.materialize(combined, tmp_path / "out", *flags)
    found = samples(out)
    assert [(name, sample["json"]["RescaleIntercept"]) for name, sample in found.items()] == [
        ("v0", -1024.0),
        ("v1", -1024.0),
        ("v2", -1024.0),
    ]
    assert json.loads((out / "manifest.json").read_text())["label_names"] == ["a", "b", "c"]
    loaded = collected(from_shards(out))
    assert {study: (text, labels) for study, (_, text, labels) in loaded.items()} == {
        f"v{n}": (f"text {n}", (n % 2, 1.0, 0.0)) for n in range(3)
    }
    header = ["VolumeName", "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"]
    write_csv(data.meta, [header] + [[f"v{n}.nii.gz", 1, -1024, "[0.7, 0.7]", 1.5] for n in range(3)])
    write_csv(data.labels, [["VolumeName", "a", "b", "c"]] + [[f"v{n}.nii.gz", n % 2, 1, 0] for n in range(3)])
    write_csv(data.reports, [["VolumeName", "Findings_EN"]] + [[f"v{n}.nii.gz", f"text {n}"] for n in range(3)])
    three = program.materialize(data, tmp_path / "three", "--text-columns", "Findings_EN")
    assert digest(three / "shard-000000.tar") == digest(out / "shard-000000.tar")
    message = program.refuses("plan", *combined.flags(), *flags[:4], *flags[6:])
    assert "--label-columns" in message


@pytest.mark.parametrize("where", ["flags", "file"])
def test_the_file_names_columns_as_flags_do(program: Program, data: Dataset, tmp_path: Path, where: str) -> None:
    """Lists of names, in which a comma needs quotes."""
    header: list[list[object]] = [["VolumeName", "a, b", "c", "d1", "d2", "e"]]
    rows = header + [[f"v{n}.nii.gz", 0, 1, 0, 1, 1] for n in range(3)]
    write_csv(data.labels, rows)
    if where == "flags":
        flags = ["--label-columns", '"a, b", d?', "--label-columns=e"]
    else:
        file = tmp_path / "ctwds.toml"
        file.write_text("label_columns = ['\"a, b\"', 'd?', 'e']\n")
        flags = ["--dataset", str(file)]
    assert planned(program, data, *flags)["label_names"] == ["a, b", "d1", "d2", "e"]


def test_defaults_change_no_digest(program: Program, data: Dataset) -> None:
    """The flags with CT-RATE's names are as no flags."""
    flags = [
        "--id-column=VolumeName",
        "--text-columns=findings=Findings_EN,impressions=Impressions_EN",
        "--meta-columns=slope=RescaleSlope,intercept=RescaleIntercept,xy=XYSpacing,z=ZSpacing",
        "--missing-label=error",
    ]
    assert planned(program, data, *flags) == planned(program, data)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("folder", ["", "train/train_1/", "C:\\scans\\"])
def test_every_spelling_of_an_id(program: Program, data: Dataset, folder: str, suffix: str) -> None:
    """The plan is the same; so is what the loader finds."""
    right = planned(program, data)["plan_digest"], [(s.text, s.labels.tolist()) for s in from_npz(data).studies]
    for table in (data.reports, data.meta, data.labels):
        text = table.read_text()
        for n in range(3):
            text = text.replace(f"\nv{n}.nii.gz,", f"\n{folder}v{n}{suffix},")
        table.write_text(text)
    loaded = [(s.text, s.labels.tolist()) for s in from_npz(data).studies]
    assert (planned(program, data)["plan_digest"], loaded) == right


def test_two_ids_that_become_one(program: Program, data: Dataset) -> None:
    """An exact id wins; else the lines, or the two volumes, are named."""
    text = data.labels.read_text()
    data.labels.write_text(
        text.replace("v1.nii.gz", "v1") + text.splitlines()[1].replace("v0.nii.gz", "a/v1.nii") + "\n"
    )
    assert len(planned(program, data)["shards"][0]["samples"]) == 3, "v1 itself is there"
    assert len(from_npz(data)) == 3
    data.labels.write_text(data.labels.read_text().replace("\nv1,", "\nb/v1,"))
    message = program.refuses("plan", *data.flags())
    assert "lines 3 and 5" in message and "'v1'" in message and str(data.labels) in message
    with pytest.raises(LoaderError, match="lines 3 and 5"):
        from_npz(data)
    data.labels.write_text(text)
    (data.folder / "v1.nii.npz").write_bytes((data.folder / "v1.npz").read_bytes())
    message = program.refuses("plan", *data.flags())
    assert "line 3 is the row of two volumes" in message and "v1.nii.npz" in message
    with pytest.raises(LoaderError, match="line 3 is the row of two volumes"):
        from_npz(data)


def test_what_did_not_match_shows_both_sides(program: Program, data: Dataset) -> None:
    """With the nearest id of the table, where a sample is missing and where all are."""
    text = data.labels.read_text()
    data.labels.write_text(text.replace("v1.nii.gz", "v_1.nii.gz"))
    shown = program.run("plan", *data.flags()).stdout
    assert "the folder has 'v1', and the nearest id in the table of labels is 'v_1.nii.gz'" in shown
    data.labels.write_text(text.replace("nii.gz", "scan"))
    message = program.refuses("plan", *data.flags())
    assert "the folder has 'v0', and the nearest id in the table of labels is 'v0.scan'" in message


def test_missing_labels(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Refused by default; 0, NaN, or the sample is left out, its slot empty."""
    write_csv(
        data.labels, [["VolumeName", "a", "b"], ["v0.nii.gz", 1, ""], ["v1.nii.gz", "nan", 0], ["v2.nii.gz", 1, 1]]
    )
    message = program.refuses("plan", *data.flags())
    assert "line 2, column 'b'" in message and "--missing-label" in message

    def labels(treatment: str) -> dict[str, list[float]]:
        out = program.materialize(data, tmp_path / treatment, "--missing-label", treatment)
        found = collected(from_shards(out))
        return {study: list(values) for study, (_, _, values) in found.items()}

    assert labels("0") == {"v0": [1, 0], "v1": [0, 0], "v2": [1, 1]}
    assert str(labels("nan")) == "{'v0': [1.0, nan], 'v1': [nan, 0.0], 'v2': [1.0, 1.0]}"
    assert labels("exclude") == {"v2": [1, 1]}
    shown = program.run("plan", *data.flags(), "--missing-label", "exclude").stdout
    assert "v0.npz: the label table has no value of 'b' for it" in shown
    assert "no value of 'b'" in program.refuses("plan", *data.flags(), "--missing-label", "exclude", "--strict")


@pytest.mark.parametrize("treatment", ["0", "nan", "exclude"])
def test_missing_labels_are_counted(program: Program, data: Dataset, treatment: str) -> None:
    """As pandas counts them, whatever becomes of them; the volume that the table does not know is not counted."""
    rows: list[list[object]] = [
        ["VolumeName", "a", "b", "c", "d"],
        ["v0.nii.gz", 1, "", " NA ", 0],
        ["v1.nii.gz", "nan", 0, "", 0],
    ]
    write_csv(data.labels, [*rows, ["v2.nii.gz", 1, 1, 1, 1], ["v9.nii.gz", "", "", "", ""]])
    shown = program.run("plan", *data.flags(), "--missing-label", treatment).stdout
    table = pd.read_csv(data.labels, skipinitialspace=True, na_values=["NA "]).iloc[:3]
    words = {"0": "missing, taken as 0", "nan": "missing", "exclude": "missing, their samples left out"}[treatment]
    for name in "abcd":
        line = next(line for line in shown.splitlines() if line.split()[1:2] == [name])
        count = int(table[name].isna().sum())
        assert line.endswith(f"{name} ({count} {words})" if count else f" {name}"), (line, count)


def test_classes_that_a_later_file_has(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Are not read, and the warning names them, if they would be were they in the first file."""
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    write_csv(first, [["VolumeName", "a"], ["v0.nii.gz", 1]])
    write_csv(second, [["e 2", "a", "b", "VolumeName", ""]] + [[1, 0, 1, f"v{n}.nii.gz", n] for n in (1, 2)])
    for role, flags, unused in [
        ("labels", [], "'e 2', 'b' are"),
        ("labels", ["--label-columns=?"], "'b' is"),
        ("labels", ["--label-columns=a"], ""),
        ("labels", ["--label-columns=a", "--extra-columns=e*,a"], "'e 2' is"),
        ("reports", ["--text-columns=a"], ""),
    ]:
        given = [f"--data-folder={data.folder}", f"--{role}-file={first}", f"--{role}-file={second}"]
        done = program.run("plan", *given, *flags, check=not flags[1:], timeout=60)
        message = f"{second}: of its columns, {unused} not read, because {first}, the first file of the table, has"
        assert (message in done.stderr) == bool(unused) or done.returncode == 1, done.stderr


COMMAS = {
    "meta": {"RescaleSlope": "1,0", "RescaleIntercept": "-1024,0", "XYSpacing": "1,5", "ZSpacing": "1,25"},
    "labels": {"a": "0,0", "b": "1,0", "c": "0,5"},
}


@pytest.mark.parametrize(("sep", "encoding"), [(";", "utf-8"), ("\t", "utf-16"), ("|", "utf-8-sig")])
@pytest.mark.parametrize(("role", "column"), [(role, column) for role in COMMAS for column in COMMAS[role]])
def test_decimal_commas(
    program: Program, data: Dataset, tmp_path: Path, role: str, column: str, sep: str, encoding: str
) -> None:
    """Are refused by program and loader alike; the command of the message makes a table with points."""
    path = tmp_path / f"{role} x.csv"
    table = pd.read_csv(getattr(data, role), dtype=str)
    table[column] = COMMAS[role][column].replace(",", ".")
    table.to_csv(path, index=False)
    given = dataclasses.replace(data, **{role: path})
    right = planned(program, given)["plan_digest"]
    table[column] = COMMAS[role][column]
    table.to_csv(path, index=False, sep=sep, encoding=encoding)
    message = program.refuses("plan", *given.flags())
    assert f"line 2, column '{column}': " in message and "if its comma is a decimal one" in message, message
    with pytest.raises(LoaderError, match="if its comma is a decimal one") as error:
        from_npz(given)
    assert f"line 2, column '{column}': " in str(error.value)
    command = shlex.split(message.split("with points: ")[1].strip())
    subprocess.run([sys.executable, *command[1:]], check=True, timeout=60)
    given = dataclasses.replace(data, **{role: Path(f"{path}.csv")})
    assert planned(program, given)["plan_digest"] == right and len(from_npz(given)) == 3


def test_a_list_in_a_table_with_commas(program: Program, data: Dataset) -> None:
    """Two whole numbers are a list there."""
    text = data.meta.read_text().replace("[0.75, 0.75]", "1,2")
    data.meta.write_text(text)
    plan = planned(program, data)
    data.meta.write_text(text.replace("1,2", "[1, 2]"))
    assert len(plan["shards"][0]["samples"]) == len(planned(program, data)["shards"][0]["samples"]) == 3


def test_labels_in_words(program: Program, data: Dataset, tmp_path: Path) -> None:
    """True, no and the like are 1 and 0; other words are no classes. -1 stays, and is counted."""
    rows: list[list[object]] = [["VolumeName", "a", "b"], ["v0.nii.gz", "True", " no"]]
    rows += [["v1.nii.gz", "FALSE", "Yes"], ["v2.nii.gz", -1, 1]]
    write_csv(data.labels, rows)
    shown = program.run("plan", *data.flags()).stdout
    assert "a (1 uncertain)" in shown
    out = program.materialize(data, tmp_path / "out")
    found = {study: values for study, (_, _, values) in collected(from_shards(out)).items()}
    assert found == {"v0": (1, 0), "v1": (0, 1), "v2": (-1, 1)}
    assert [study.labels.tolist() for study in from_npz(data).studies] == [list(values) for values in found.values()]
    write_csv(data.labels, [["VolumeName", "a", "site"]] + [[f"v{n}.nii.gz", 1, "Ankara"] for n in range(3)])
    message = program.refuses("plan", *data.flags())
    assert "column 'site'" in message and "--label-columns" in message
    assert planned(program, data, "--label-columns", "a")["label_names"] == ["a"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--label-columns", "nodul"], ("--label-columns", "'nodul' is missing", "'nodule' meant")),
        (["--label-columns", "z*"], ("no column is 'z*'",)),
        (["--meta-columns", "slop=x"], ("--meta-columns", "slope=COLUMN")),
        (["--meta-columns", "slope=x"], ("column 'x' is missing",)),
        (["--text-columns", "f=x"], ("column 'x' is missing",)),
        (["--id-column", "x"], ("column 'x' is missing", "--id-column")),
    ],
)
def test_columns_that_are_not_there(program: Program, data: Dataset, flags: list[str], words: tuple[str, ...]) -> None:
    """The flag or the file, and the column that was meant."""
    write_csv(data.labels, [["VolumeName", "nodule"]] + [[f"v{n}.nii.gz", 1] for n in range(3)])
    done = program.run("plan", *data.flags(), *flags, check=False)
    assert done.returncode in (1, 2) and all(word in done.stderr for word in words), done.stderr


def test_plan_says_what_each_column_is_for(program: Program, tmp_path: Path) -> None:
    """A line for each table, and for each that is not there."""
    data = noise_dataset(tmp_path, 2, (2, 3, 4))
    said = program.run("plan", *data.flags()).stdout
    assert f"{data.reports}: id VolumeName, text Findings_EN, Impressions_EN\n" in said
    assert f"{data.meta}: id VolumeName, slope RescaleSlope, intercept RescaleIntercept, spacing XYSpacing and " in said
    assert f"{data.labels}: id VolumeName, all 3 others are classes\n" in said
    said = program.run("plan", *data.flags(), "--label-columns", "a..b", "--text-columns", "x=Findings_EN").stdout
    assert "text Findings_EN\n" in said and "2 classes (a..b)\n" in said
    said = program.run("plan", "--data-folder", data.folder).stdout
    assert "no reports: the texts are empty" in said and "no metadata" in said and "Table        no labels\n" in said

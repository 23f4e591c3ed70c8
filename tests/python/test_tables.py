"""Tables as people have them: what the program and the loader make of each is one answer, or one refusal."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ctreport_webdataset import LoaderError
from harness import Program
from loading import from_npz
from make_dataset import Dataset
from small_datasets import noise_dataset, write_csv, write_dataset

TABLES = ("reports", "meta", "labels")
SOUND = np.arange(24, dtype="f4").reshape(2, 3, 4)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Three tiny volumes without any fault."""
    return write_dataset(tmp_path / "data", {f"v{n}.npz": {"data": SOUND + n} for n in range(3)}, writer="numpy")


ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "utf-8": str.encode,
    "utf-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "utf-16 with a mark": lambda text: text.encode("utf-16"),
    "big-endian utf-16 with a mark": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
}


def members(content: bytes) -> bytes:
    """A gzip file of two members."""
    return gzip.compress(content[:20]) + gzip.compress(content[20:])


PACKINGS: dict[str, Callable[[bytes], bytes]] = {"plain": bytes, "gzip": gzip.compress, "members": members}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_every_form_of_a_table(program: Program, tmp_path: Path, delimiter: str, encoding: str, packing: str) -> None:
    """The same plan digest, and the same samples of the loader, whatever the fields hold; pandas reads the same."""
    texts: list[list[object]] = [["VolumeName", "Findings_EN", "Impressions_EN"]]
    texts += [[f"v{n}.nii.gz", f'a, b; c\td|e "{n}"', f"Größe ½\r\nline {n}"] for n in range(2)]
    labels: list[list[object]] = [
        ["VolumeName", "a, b", "c;d", "e\tf|g"],
        ["v0.nii.gz", 0, 1, 0.5],
        ["v1.nii.gz", 1, 0, -1],
    ]
    meta: list[list[object]] = [["VolumeName", "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"]]
    meta += [[f"v{n}.nii.gz", 1, 0, "[0.7, 0.7]", 1.5] for n in range(2)]
    dataset = write_dataset(tmp_path / "data", {f"v{n}.npz": {"data": np.full((4, 5, 3), n, "f4")} for n in range(2)})
    answers = []
    for form in ((",", "utf-8", "plain"), (delimiter, encoding, packing)):
        for path, rows in ((dataset.reports, texts), (dataset.labels, labels), (dataset.meta, meta)):
            text = io.StringIO(newline="")
            csv.writer(text, delimiter=form[0], lineterminator="\n").writerows(rows)
            path.write_bytes(PACKINGS[form[2]](ENCODINGS[form[1]](text.getvalue())))
            content = path.read_bytes() if form[2] == "plain" else gzip.decompress(path.read_bytes())
            name = "utf-8-sig" if "utf-8" in form[1] else "utf-16" if "mark" in form[1] else form[1]
            read = pd.read_csv(io.BytesIO(content), sep=form[0], encoding=name)
            assert read.columns.tolist() == rows[0] and read["VolumeName"].tolist() == [row[0] for row in rows[1:]]
            if path == dataset.reports:
                assert read.to_numpy().tolist() == rows[1:]
        done = program.run("plan", *dataset.flags(), "--json")
        plan = json.loads(done.stdout)
        data = from_npz(dataset)
        answers.append((plan["plan_digest"], plan["label_names"], [(s.text, s.labels.tolist()) for s in data.studies]))
    assert answers[0] == answers[1]


def both_refuse(program: Program, dataset: Dataset, *parts: object) -> None:
    """The program and the loader refuse the data set, and their messages contain all of the parts."""
    said = program.refuses("plan", *dataset.flags())
    with pytest.raises(LoaderError) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from_npz(dataset)
    for message in (said, str(caught.value)):
        missing = [str(part) for part in parts if str(part) not in message]
        assert not missing, f"{missing} not in: {message}"


def planned(program: Program, dataset: Dataset, *flags: object) -> dict[str, Any]:
    """What `plan` says."""
    return json.loads(program.run("plan", *dataset.flags(), "--json", *flags).stdout)


def studies(program: Program, dataset: Dataset, *flags: object) -> list[str]:
    """The studies of the plan, in order."""
    return [sample["study_id"] for shard in planned(program, dataset, *flags)["shards"] for sample in shard["samples"]]


def open_since(text: str) -> int | None:
    """The line of the quote that is open at the end; every quote of the text opens, closes, or stands twice."""
    opened = None
    for at, character in enumerate(text):
        if character == '"':
            opened = 1 + len(re.findall("\r\n|\r|\n", text[:at])) if opened is None else None
    return opened


# --- tables that are cut off -----------------------------------------------------------------------------------------

LAST_ROWS = {
    "reports": 'v2.nii.gz,"nodule, ""5 mm""\nstable","none, again"\n',
    "meta": 'v2.nii.gz,"1","-1024","[0.75, 0.75]","1.5"\n',
    "labels": 'v2.nii.gz,"1","0","2"\n',
}


@pytest.mark.parametrize(
    ("table", "ends"), [*((table, "\n") for table in TABLES), ("reports", "\r\n"), ("reports", "\r")]
)
def test_a_table_that_is_cut(program: Program, data: Dataset, table: str, ends: str) -> None:
    """At every byte of its last row: inside quotes, the line where the quote opened is named, as an editor counts."""
    path: Path = getattr(data, table)
    head = "".join(path.read_text().splitlines(keepends=True)[:3]).replace("\n", ends)
    whole = head + LAST_ROWS[table].replace("\n", ends)
    path.write_text(whole, newline="")
    assert studies(program, data) == ["v0", "v1", "v2"]
    inside = 0
    for end in range(len(head), len(whole)):
        if (line := open_since(whole[:end])) is not None:
            inside += 1
            path.write_text(whole[:end], newline="")
            both_refuse(program, data, path, f"line {line}: the file ends inside the quoted field")
    assert inside > 4


@pytest.mark.parametrize("flag", ["--exclude", "--studies"])
def test_a_list_that_is_cut(program: Program, data: Dataset, tmp_path: Path, flag: str) -> None:
    """The rows behind the quote would be taken, or left out, without a word."""
    path = tmp_path / "list.csv"
    whole = 'study_id,path,reason\nv0,,"CRC, wrong"\nv1,,"two\nlines"\n'
    head = whole.index('"')
    for end in range(head, len(whole)):
        path.write_text(whole[:end])
        line = open_since(whole[:end])
        if line is not None:
            said = program.refuses("plan", *data.flags(), flag, path)
            assert f"{path}: line {line}: the file ends inside" in said, said
    path.write_text(whole)
    assert studies(program, data, flag, path) == (["v2"] if flag == "--exclude" else ["v0", "v1"])


# --- lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("bom", ["", "\ufeff"], ids=["plain", "bom"])
def test_lines_are_those_of_an_editor(program: Program, data: Dataset, end: str, bom: str) -> None:
    """With blank lines, lines of blanks, and a quoted field of two lines before the wrong one."""
    lines = ["", "VolumeName,a,'b\"", "", "  ", "v0.nii.gz,1,0", 'v1.nii.gz,"1', '",0', "", "v2.nii.gz,0,often"]
    data.labels.write_bytes((bom + end.join(lines) + end).encode())
    both_refuse(program, data, data.labels, "line 9", "often", "'b\"'")
    data.labels.write_bytes((bom + end.join(lines).replace("often", "1")).encode())
    assert studies(program, data) == ["v0", "v1", "v2"] == [Path(study.path).stem for study in from_npz(data).studies]


# --- files that are no CSV with commas -------------------------------------------------------------------------------


def parquet(_: bytes) -> bytes:
    """The begin and the end of such a file."""
    return b"PAR1\x15\x04\x15\x00PAR1"


def workbook(_: bytes) -> bytes:
    """The begin of a zip archive."""
    return b"PK\x03\x04\x14\x00\x06\x00\x08\x00"


def recoded(encoding: str) -> Callable[[bytes], bytes]:
    """The table in another encoding."""
    return lambda text: text.decode().encode(encoding)


def separated(separator: bytes) -> Callable[[bytes], bytes]:
    """The table with another separator."""
    return lambda text: text.replace(b",", separator)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda text: gzip.compress(text)[:-9], "a damaged gzip file"),
        (lambda text: gzip.compress(parquet(text)), "a Parquet file"),
        (workbook, "an Excel workbook; unpack it, or: python3 -c"),
        (parquet, "a Parquet file; python3 -c"),
        (lambda text: text.decode().encode("utf-16")[:-1], "damaged text in UTF-16"),
        (recoded("utf-32"), "UTF-32"),
        (lambda text: text.replace(b"v1", b"v\xe9"), "line 3: not UTF-8 (byte 0xe9)"),
        (separated(b"/"), "column 'VolumeName' is missing"),
        (lambda text: text.replace(b"VolumeName", b" VolumeName", 1), "has blanks around it"),
    ],
)
def test_other_files(program: Program, data: Dataset, table: str, change: Callable[[bytes], bytes], what: str) -> None:
    """Each is called what it is."""
    path: Path = getattr(data, table)
    path.write_bytes(change(path.read_bytes()))
    both_refuse(program, data, path, what)


@pytest.mark.parametrize(("one", "other"), [("reports", "meta"), ("reports", "labels"), ("meta", "labels")])
def test_swapped_tables(program: Program, data: Dataset, one: str, other: str) -> None:
    """The flag, and the file that fits it, are named."""
    paths = {one: getattr(data, other), other: getattr(data, one)}
    swapped = Dataset(data.folder, **({name: getattr(data, name) for name in TABLES} | paths))
    said = program.refuses("plan", *swapped.flags())
    assert f"given as --{one}" in said and "are they swapped?" in said and str(paths[one]) in said, said
    with pytest.raises(LoaderError, match="are they swapped") as caught:
        from_npz(swapped)
    assert str(paths[one]) in str(caught.value)


def test_blanks_around_a_volume(program: Program, data: Dataset) -> None:
    """It names none, as for pandas; the warning says so."""
    data.labels.write_text(data.labels.read_text().replace("v1.nii.gz", "v1.nii.gz "))
    said = program.run("plan", *data.flags())
    assert 'line 3: VolumeName "v1.nii.gz " has blanks' in said.stderr and "v1: not in labels" in said.stdout
    assert [Path(study.path).stem for study in from_npz(data).studies] == ["v0", "v2"]


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", " ", "Unnamed: 0", "Unnamed: 0.1", "Unnamed: 0_level_0"])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_nameless_column_is_no_class(program: Program, data: Dataset, tmp_path: Path, name: str, at: int) -> None:
    """Row numbers, as pandas writes them, wherever they stand; other columns keep their order."""
    rows: list[list[object]]
    rows = [["VolumeName", "x", "y"], ["v0.nii.gz", 1, 0], ["v1.nii.gz", 1, 1], ["v2.nii.gz", 0, 1]]
    for number, row in enumerate(rows):
        row.insert(at, number - 1 if number else name)
    write_csv(data.labels, rows)
    said = program.run("plan", *data.flags())
    assert f"column {at + 1} has no name" in said.stderr and "Classes      2\n" in said.stdout
    out = program.materialize(data, tmp_path / "out", "--samples-per-shard", 1)
    assert json.loads((out / "manifest.json").read_text())["label_names"] == ["x", "y"]
    with pytest.warns(UserWarning, match="has no name"):
        loaded = from_npz(data)
    assert [study.labels.tolist() for study in loaded.studies] == [[1, 0], [1, 1], [0, 1]]


def test_a_table_of_row_numbers_alone(program: Program, data: Dataset) -> None:
    """It has no class."""
    write_csv(data.labels, [["", "VolumeName"], [0, "v0.nii.gz"]])
    both_refuse(program, data, data.labels, "no column with a name")


def test_classes_and_their_positives(program: Program, data: Dataset) -> None:
    """All of them; values that are neither 0 nor 1 are said, and only then is there a warning."""
    names = [f"class {n}" for n in range(30)]
    flags = np.random.default_rng(1).integers(0, 2, (3, 30))
    rows = [["VolumeName", *names]] + [[f"v{n}.nii.gz", *map(str, row)] for n, row in enumerate(flags)]
    write_csv(data.labels, rows)
    said = program.run("plan", *data.flags())
    for name, positive in zip(names, flags.sum(0), strict=True):
        assert f"  {positive:9}  {name}\n" in said.stdout, said.stdout
    assert "have values other than" not in said.stdout
    rows[1][3], rows[2][3], rows[1][4] = "-1", "", "nan"
    write_csv(data.labels, rows)
    said = program.run("plan", *data.flags(), "--missing-label", "nan")
    positive = [sum(row[n] == "1" for row in rows[1:]) for n in range(31)]
    assert f"  {positive[3]:9}  class 2 (1 missing, 1 uncertain)\n" in said.stdout, "-1 is kept, and counted"
    assert f"  {positive[4]:9}  class 3 (1 missing)\n" in said.stdout and "have values other than" not in said.stdout
    rows[1][3], rows[2][3], rows[1][4] = "0", "0", "0"
    rows[1][8], rows[2][8] = "7", "0.5"
    write_csv(data.labels, rows)
    said = program.run("plan", *data.flags())
    assert (
        "values other than 0, 1 and -1 in 1 of 30 classes (for example 'class 7': 2 values from 0.5 to 7)"
        in said.stdout
    )
    assert "  class 7 (2 values from 0.5 to 7)\n" in said.stdout


def test_left_out_by_reason(program: Program, tmp_path: Path) -> None:
    """The most frequent first; up to 20 names of each reason, else three; one alone keeps its name in front."""
    data = noise_dataset(tmp_path, 9, (2, 3, 4))
    (data.folder / "v00.npz").write_bytes(b"")
    header, *rows = data.meta.read_text().splitlines()
    rows = [row if int(row[1:3]) < 4 else ",".join([*row.split(",")[:-1], ""]) for row in rows]
    data.meta.write_text("\n".join([header, *rows]) + "\n")
    data.reports.write_text("".join(line for line in data.reports.open() if not line.startswith(("v01", "v02"))))
    said = program.run("plan", *data.flags()).stdout
    left_out, unmatched = said[said.index("\nLeft out") :].strip().split("\n\n")
    title, first, second = left_out.splitlines()
    assert title.endswith(": 6") and "no ZSpacing" in first
    assert first.startswith("  5 volumes: ") and first.endswith("(v04.npz, v05.npz, v06.npz, v07.npz, v08.npz)"), first
    assert second.startswith("  v00.npz: not a readable zip file")
    assert "  2 volumes: not in reports (v01, v02)\n" in unmatched + "\n"
    many = noise_dataset(tmp_path / "many", 22, (2, 3, 4))
    many.reports.write_text("".join(line for line in many.reports.open() if not line.startswith(("v1", "v2", "v0"))))
    many.reports.write_text(many.reports.read_text() + "v00.nii.gz,a,b\n")
    said = program.run("plan", *many.flags()).stdout
    assert "  21 volumes: not in reports (for example v01, v02, v03)\n" in said


@pytest.mark.parametrize("label", ["1e39", "-1e39", "3.4028236e38", "1e999", "nan", "inf", "", "1_0", "0x1", "often"])
def test_labels_that_are_no_float32(program: Program, data: Dataset, label: str) -> None:
    """They would become infinite, or another number."""
    data.labels.write_text(data.labels.read_text().replace("v1.nii.gz,1,", f"v1.nii.gz,{label},"))
    what = "beyond float32" if "e3" in label else "not a number"
    both_refuse(program, data, data.labels, "line 3", "column 'a'", label, what)


# --- kinds -----------------------------------------------------------------------------------------------------------


def test_plan_says_why_a_kind_has_no_sample(program: Program, data: Dataset) -> None:
    """With the reason that a sample of that kind is left out for."""
    data.meta.write_text(data.meta.read_text().replace('"[0.75, 0.75]"', "0"))
    said = program.run("plan", *data.flags()).stdout
    assert '    preprocessed no sample\n    3 samples cannot be made so, for example: XYSpacing "0"' in said, said

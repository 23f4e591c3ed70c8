"""Columns of the tables in each sample's JSON (`--extra-columns`): every value is what pandas makes of its field."""

from __future__ import annotations

import io
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ctreport_webdataset import Buffer, CTReportWebDataset, ShardReader
from harness import Program, Stored, digest, shards
from loading import STEPS, collected
from make_dataset import Dataset
from small_datasets import write_csv, write_dataset
from test_given_tables import KINDS, members

# Fields as tables spell them. Those of the second list pandas reads otherwise: see `right`.
SPELLINGS = [
    "63",
    "-5",
    "+7",
    "0",
    "63.5",
    "1e3",
    ".5",
    "1.",
    "1e16",
    "0.1",
    "F",
    "Köln, West",
    'say "no"',
    "a\nb",
    "NaN: 1",
]
SPELLINGS += [
    "",
    "NA",
    "null",
    " 41 ",
    "9223372036854775807",
    "40Y",
    "1.2.840.113619",
    "2019-04-01",
    "-",
    "1,5",
    "x: NaN",
]
OTHERS = ["007", "True", "inf", "9223372036854775808", "  "]
STUDIES = tuple(f"v{n:02d}" for n in range(len(SPELLINGS) + len(OTHERS)))


def right(field: str) -> Any:
    """The value of a field: that of a pandas table of one field, but for what would lose an id or be no number."""
    if field in ("007", "True", "inf", "9223372036854775808"):
        return field
    if not field.strip():
        return None
    column = pd.read_csv(io.StringIO(pd.DataFrame({"c": [field]}).to_csv(index=False)), float_precision="round_trip")[
        "c"
    ]
    value = column.tolist()[0]
    return None if pd.isna(value) else value


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """A volume for each spelling; metadata with four columns of them, and a column beside the reports and labels."""
    voxels = np.arange(60, dtype="f4").reshape(3, 4, 5)
    data = write_dataset(tmp_path / "data", {f"{study}.npz": {"data": voxels + n} for n, study in enumerate(STUDIES)})
    fields = SPELLINGS + OTHERS
    add(data.meta, {f"c{n}": [*fields[n:], *fields[:n]] for n in range(3)} | {"größe": fields})
    add(data.reports, {"scanner": ["A", "B"] * (len(STUDIES) // 2) + ["A"] * (len(STUDIES) % 2)})
    return data


def add(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Columns at the end of a table."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows = [
        [*table.columns, *columns],
        *([*row, *more] for row, *more in zip(table.values, *columns.values(), strict=True)),
    ]
    write_csv(path, rows)


def expected(data: Dataset, names: Sequence[str]) -> list[dict[str, Any]]:
    """The values of each study."""
    tables = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in (data.reports, data.meta, data.labels)]
    columns = {name: next(table[name] for table in tables if name in table) for name in names}
    return [{name: right(column[at]) for name, column in columns.items()} for at in range(len(STUDIES))]


def jsons(folder: Path) -> list[dict[str, Any]]:
    """The JSON of each sample."""
    return [json.loads(content) for name, content in members(folder) if name.endswith("json")]


def assert_extra(found: dict[str, Any], plain: dict[str, Any], values: dict[str, Any]) -> None:
    """The values stand behind the fields that the JSON has without them, before those of compressed volumes."""
    codec = {name: value for name, value in plain.items() if name in ("volume_codec", "volume_filter")}
    wanted = {name: value for name, value in plain.items() if name not in codec} | values | codec
    assert json.dumps(found) == json.dumps(wanted)  # order and types, too


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize(("kind", "form"), [("stored", "ctclip"), ("rescaled", "npy"), ("preprocessed", "ctclip")])
def test_every_value(program: Program, data: Dataset, tmp_path: Path, kind: str, form: str, packed: bool) -> None:
    """In files and a mount, of every kind, plain and compressed; `verify` finds nothing, the loader has them."""
    names = ["c2", "scanner", "c0", "c1", "größe", "VolumeName"]
    flags = [*KINDS[kind], f"--format={form}", "--samples-per-shard=20"]
    more = ["--extra-columns=c2,scanner", "--extra-columns", "c0..c1,größe,VolumeName"]
    codec = ["--compress=zstd"] if packed else []
    plain = program.materialize(data, tmp_path / "plain", *flags, *codec)
    out = program.materialize(data, tmp_path / "out", *flags, *more, *codec)
    values = expected(data, names)
    for found, without, extra in zip(jsons(out), jsons(plain), values, strict=True):
        assert_extra(found, without, extra)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["extra_columns"] == names and "extra_columns" not in (plain / "manifest.json").read_text()
    program.run("verify", "--shards", out, *data.flags(), *flags, *more)
    program.run("verify", "--shards", out)
    read = [raw.meta for path in shards(out) for raw in ShardReader(str(path), [Buffer()] * 40, "raise")]
    assert [{name: meta[name] for name in names} for meta in read] == values
    collected(CTReportWebDataset(out, shuffle=False, shape=STEPS.shape, dialect="hu"))
    with program.mounted(data, *flags, *more) as mounted:
        made = [digest(path) for path in shards(mounted)]
    with program.mounted(Stored(out)) as mounted:
        assert [digest(path) for path in shards(mounted)] == made
        assert json.loads((mounted / "manifest.json").read_text())["extra_columns"] == names


def test_verify_finds_a_changed_value(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Of every sort of value; other columns than those of the shards are refused."""
    out = program.materialize(data, tmp_path / "out", "--extra-columns=c0")
    table = pd.read_csv(data.meta, dtype=str, keep_default_na=False)
    for at, changed in {0: "64", 0.5: "63.0", 4: "63.25", 10: "M", 15: "1", 16: "nan!", 26: "7"}.items():
        other = table.copy()
        other.loc[int(at), "c0"] = changed
        other.to_csv(data.meta, index=False)
        done = program.run("verify", "--shards", out, *data.flags(), "--extra-columns=c0", check=False)
        assert done.returncode == 3 and "c0 is " in done.stdout and "by its table" in done.stdout, done.stdout
        assert "1 of 31 samples" in done.stdout or done.stdout.count("by its table") == 1, done.stdout
    table.to_csv(data.meta, index=False)
    for flags in ([], ["--extra-columns=c1"], ["--extra-columns=c0,c1"]):
        message = program.refuses("verify", "--shards", out, *data.flags(), *flags)
        assert "--extra-columns must be those that the shards were made with" in message


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--extra-columns=ScannerName"], ("of all tables", "'ScannerName' is missing", "is 'scanner' meant?")),
        (["--extra-columns=x*"], ("no column is 'x*'",)),
        (["--extra-columns=c2..c0"], ("none has both ends of 'c2..c0', in this order",)),
        (["--extra-columns=c0..scanner"], ("none has both ends of 'c0..scanner'",)),
        (["--extra-columns=c0,RescaleSlope"], ("'RescaleSlope' of its own", "rename")),
        (["--extra-columns=volume_*"], ("'volume_shape' of its own",)),
        (["--extra-columns=also_mask"], ("'also_mask' of its own",)),
        (["--extra-columns=affine"], ("'affine' of its own",)),
        (["--extra-columns=both"], ("reports.csv", "labels.csv", "'both' both", "rename it in one")),
        (["--extra-columns=bo*"], ("reports.csv", "labels.csv", "'both' both")),
        (["--extra-columns=twice"], ("two columns 'twice'",)),
        (["--extra-columns=a,,b"], ("names with commas",)),
    ],
)
def test_what_cannot_be_taken(program: Program, data: Dataset, flags: list[str], words: tuple[str, ...]) -> None:
    """With the column, the reason and the remedy."""
    add(data.reports, {"both": ["x"] * len(STUDIES), "volume_shape": ["x"] * len(STUDIES)})
    add(data.labels, {"both": [0] * len(STUDIES), "affine": [0] * len(STUDIES), "also_mask": [0] * len(STUDIES)})
    rows = data.meta.read_text().splitlines(keepends=True)
    rows[0] = rows[0].replace("c2", "twice").replace("c1", "twice") if "twice" in flags[0] else rows[0]
    data.meta.write_text("".join(rows))
    done = program.run("plan", *data.flags(), *flags, check=False)
    assert done.returncode in (1, 2) and all(word in done.stderr for word in words), done.stderr


def test_fields_of_the_json_are_no_columns(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Whatever the JSON has by itself, in any kind, dtype and codec, is refused as a column."""
    own: set[str] = set()
    for kind, flags in KINDS.items():
        out = tmp_path / kind
        dtype = [] if kind == "stored" else ["--output-dtype=uint8", "--window=-160,240"]
        program.run("materialize", *data.flags(), *flags, *dtype, "--compress=zstd", "--output-dir", out)
        own.update(*jsons(out))
    assert len(own) == 12
    add(data.reports, {name: ["x"] * len(STUDIES) for name in own - set(pd.read_csv(data.meta, nrows=0))})
    for name in own:
        assert f"a field '{name}' of its own" in program.refuses("plan", *data.flags(), f"--extra-columns={name}")


def test_no_table(program: Program, data: Dataset) -> None:
    """Is a wrong usage."""
    done = program.run("plan", "--data-folder", data.folder, "--extra-columns=age", check=False)
    assert done.returncode == 2 and "--extra-columns" in done.stderr and "--meta-file" in done.stderr


def test_one_table_for_all_and_several_files(program: Program, data: Dataset, tmp_path: Path) -> None:
    """The same values from one combined table, and from tables in two files with other delimiters."""
    names, flags = ["c1", "scanner"], ["--extra-columns=c1,scanner", "--label-columns=a..c"]
    shown = program.run("plan", *data.flags(), *flags).stdout
    assert "spacing XYSpacing and ZSpacing, in the JSON c1\n" in shown and "in the JSON scanner\n" in shown
    plan = json.loads(program.run("plan", *data.flags(), *flags, "--json").stdout)
    tables = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in (data.reports, data.meta, data.labels)]
    whole = tables[0].merge(tables[1]).merge(tables[2])
    one = tmp_path / "one.csv"
    whole.to_csv(one, index=False)
    of_one = [f"--data-folder={data.folder}", *(f"--{role}-file={one}" for role in ("reports", "meta", "labels"))]
    assert json.loads(program.run("plan", *of_one, *flags, "--json").stdout) == plan
    assert program.run("plan", *of_one, *flags).stdout.count("in the JSON c1, scanner\n") == 1
    first, second = tmp_path / "m1.csv", tmp_path / "m2.csv"
    tables[1][:5].to_csv(first, index=False)
    tables[1][5:][tables[1].columns[::-1]].to_csv(second, index=False, sep=";")
    several = [f"--data-folder={data.folder}", f"--reports-file={data.reports}", f"--labels-file={data.labels}"]
    several += [f"--meta-file={first}", f"--meta-file={second}"]
    assert json.loads(program.run("plan", *several, *flags, "--json").stdout) == plan
    out = tmp_path / "out"
    program.run("materialize", *several, *flags, "--output-dir", out)
    assert [{name: found[name] for name in names} for found in jsons(out)] == expected(data, names)
    second.write_text(second.read_text().replace("c1", "c9"))
    assert f"{second}: column 'c1' is missing" in program.refuses("plan", *several, *flags)


def test_the_file_of_the_data_set(program: Program, data: Dataset, tmp_path: Path) -> None:
    """`init` leaves the columns that nothing else is made of as a comment; without the mark, they are taken."""
    base = data.folder.parent
    add(data.meta, {"study_id": ["x"] * len(STUDIES), "site, town": ["x"] * len(STUDIES)})
    program.run("init", base, "--yes", cwd=base)
    file = base / "ctwds.toml"
    text = file.read_text()
    line = next(line for line in text.splitlines() if line.startswith("# extra_columns = "))
    assert tomllib.loads(line[2:])["extra_columns"] == ["scanner", "c0", "c1", "c2", "größe", '"site, town"', "b", "c"]
    assert "extra_columns" not in tomllib.loads(text)
    file.write_text(text.replace("# extra_columns", "extra_columns"))
    plan = json.loads(program.run("plan", "--dataset", file, "--json").stdout)
    assert plan["extra_columns"] == ["scanner", "c0", "c1", "c2", "größe", "site, town", "b", "c"]

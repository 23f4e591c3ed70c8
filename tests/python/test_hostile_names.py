"""Names that others chose, of files, columns and studies: a message shows them on one line and lets no terminal obey
them, a spreadsheet does not run them, and `--exclude` reads them back as they are."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from harness import Program, report_of, require_fuse
from make_dataset import Dataset
from small_datasets import flip_voxel, write_csv, write_dataset

FORGED = "ctwds-fs: error: forged"
NAMES = [
    f"line\n{FORGED}",
    f"carriage\r{FORGED}",
    "escape\x1b[2J\x1b]0;title\x07",
    "right-to-left\u202egpj.exe",
    "isolates\u2066\u2069",
    "separators\x85\u2028\u2029",
    "tab\tdelete\x7f",
    "=cmd|' -C calc'!A0",
    "@SUM(1+1)",
    "+1",
    "-2",
    "'=quoted",
    "''@twice",
    'quote"comma,',
    " blanks ",
]
# What a terminal obeys, or what changes the order of the text around it.
HIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# Reads all shards of a folder, whatever becomes of it.
READ = """
import glob, sys
for path in glob.glob(sys.argv[1] + "/*.tar"):
    try:
        open(path, "rb").read()
    except OSError:
        pass
"""
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def dataset_of(out: Path, paths: list[str], label: str = "a") -> Dataset:
    """Volumes at these paths, and tables with every field in quotes, as names with line ends need it."""
    arrays = {"data": np.arange(64, dtype="f4").reshape(4, 4, 4)}
    data = write_dataset(out, dict.fromkeys(paths, arrays))
    names = [f"{Path(path).name.removesuffix('.npz')}.nii.gz" for path in paths]
    reports = [["VolumeName", "Findings_EN", "Impressions_EN"], *([name, "none", "none"] for name in names)]
    meta = [
        ["VolumeName", "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"],
        *([name, "1", "-1024", "[0.75, 0.75]", "1.5"] for name in names),
    ]
    labels = [["VolumeName", label], *([name, "0.5"] for name in names)]
    for path, rows in ((data.reports, reports), (data.meta, meta), (data.labels, labels)):
        write_csv(path, rows, quoting=csv.QUOTE_ALL)
    return data


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A sound volume, and one of each name that is no zip file; a class has such a name, too."""
    paths = [f"{name}.npz" for name in [*NAMES, "sound"]]
    data = dataset_of(tmp_path_factory.mktemp("hostile"), paths, f"class\n{FORGED}\x1b[2J")
    for path in paths[:-1]:
        (data.folder / path).write_bytes(b"no zip file")
    return data


def harmless(done: subprocess.CompletedProcess[str]) -> str:
    """What a command said, which holds nothing that a name has done."""
    for text in (done.stdout, done.stderr):
        assert not HIDDEN.search(text), repr(text)
        assert not [line for line in text.splitlines() if line.startswith(FORGED)], text
    return done.stdout + done.stderr


def shown(name: str) -> str:
    """A name as messages have it."""
    notations = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return re.sub(f"{HIDDEN.pattern}|\n", lambda found: notations.get(found[0], f"\\u{{{ord(found[0]):x}}}"), name)


def test_lists(program: Program, hostile: Dataset) -> None:
    """`plan` shows each name, escaped."""
    said = harmless(program.run("plan", *hostile.flags()))
    assert [name for name in NAMES if f"{shown(name)}.npz" not in said] == []


@pytest.mark.parametrize("command", ["plan", "status", "reclaim", "verify --sources"])
def test_json(program: Program, hostile: Dataset, tmp_path: Path, command: str) -> None:
    """It is JSON, has the names as they are, and is harmless to a terminal."""
    out, listed = tmp_path / "out", tmp_path / "list.csv"
    if command == "status":
        require_fuse()
        with program.mounted(hostile) as point:
            json.loads(program.run("status", "--json", point).stdout)
        return
    arguments: dict[str, list[object]] = {
        "plan": ["plan", "--json", *hostile.flags()],
        "reclaim": ["reclaim", "--json", *hostile.flags(), "--shards", out],
        "verify --sources": ["verify", "--sources", "--json", *hostile.flags(), "--quarantine", listed],
    }
    if command == "reclaim":
        program.materialize(hostile, out)
    done = program.run(*arguments[command], check=False)
    report = json.loads(done.stdout) if command == "plan" else report_of(done)
    if command == "verify --sources":
        harmless(done)
        assert sorted(row["study_id"] for row in report["bad"]) == sorted(NAMES)


def test_a_list_of_bad_samples(program: Program, hostile: Dataset, tmp_path: Path) -> None:
    """No field begins like a formula, and the next command leaves out the very studies."""
    listed = tmp_path / "list.csv"
    harmless(program.run("verify", "--sources", *hostile.flags(), "--quarantine", listed, check=False))
    with listed.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [value for row in rows for value in row.values() if value.startswith(FORMULA)] == []
    said = harmless(program.run("plan", *hostile.flags(), "--exclude", listed))
    assert "are not in the data set" not in said
    assert f"{len(NAMES)} volumes: excluded by" in said
    # What is listed again is not escaped again.
    before = listed.read_bytes()
    program.run("verify", "--sources", *hostile.flags(), "--exclude", listed, "--quarantine", listed, check=False)
    assert listed.read_bytes() == before


@pytest.mark.parametrize("name", NAMES[:7])
def test_errors_name_files_and_columns_harmlessly(program: Program, tmp_path: Path, name: str) -> None:
    """A volume that is fatal, a table without a column, two volumes of one name, a folder that is not there."""
    data = dataset_of(tmp_path, [f"a/{name}.npz", f"b/{name}.npz"])
    assert f"'{shown(name)}'" in harmless(program.run("plan", *data.flags(), check=False))
    (data.folder / f"b/{name}.npz").unlink()
    (data.folder / f"a/{name}.npz").write_bytes(b"no zip file")
    assert f"{shown(name)}.npz" in harmless(program.run("plan", "--strict", *data.flags(), check=False))
    missing = [*data.flags()[2:], "--data-folder", tmp_path / name]
    assert shown(name) in harmless(program.run("plan", *missing, check=False))
    write_csv(data.reports, [["VolumeName", name], ["a", "b"]], quoting=csv.QUOTE_ALL)
    assert shown(name) in harmless(program.run("plan", *data.flags(), check=False))


def test_unreadable_volumes(program: Program, tmp_path: Path) -> None:
    """`run`, `status` and `materialize` name volumes that turn out to be damaged."""
    require_fuse()
    names = NAMES[:7]
    data = dataset_of(tmp_path, [f"{name}.npz" for name in names])
    for name in names:
        flip_voxel(data.folder / f"{name}.npz")
    at = tmp_path / "at"
    at.mkdir()
    log, one_each = ("--log-file", tmp_path / "log"), ("--samples-per-shard", 1)
    harmless(program.run("run", *data.flags(), *one_each, *log, "--at", at, "--", sys.executable, "-c", READ, at))
    with program.mounted(data, *one_each) as point:
        subprocess.run([sys.executable, "-c", READ, str(point)], check=True, timeout=60)
        said = harmless(program.run("status", point))
        assert [name for name in names if shown(name) not in said] == []
        lines = (point.parent / "log").read_text().splitlines()
        assert not [line for line in lines if HIDDEN.search(line) or line.startswith(FORGED)], lines
    for flags in ([], ["--on-error", "skip"]):
        harmless(program.run("materialize", *data.flags(), *flags, "--output-dir", tmp_path / "out", check=False))

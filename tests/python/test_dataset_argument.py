"""`CTReportDataset(dataset="ctwds.toml")`: NPZ files give what the shards of the same file give, or are refused."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import test_named_datasets as named
from ctreport_webdataset import CTReportDataset, CTReportWebDataset, LoaderError
from harness import Program
from loading import Samples, assert_same, collected
from make_dataset import Dataset, Options, make_dataset
from small_datasets import write_dataset

ROUNDING = 1e-6  # in the loader's unit of 1000 HU; the shards hold float32, so that only resampling rounds
FLOAT32 = "output_dtype = 'float32'"
STUDIES = ("v0", "v1", "v2", "v3")


@dataclass(frozen=True)
class File:
    """A file of a data set, where the harness takes a data set."""

    path: Path

    def flags(self) -> list[str]:
        """The arguments that name it."""
        return ["--dataset", str(self.path)]


def comparable(samples: Samples) -> Samples:
    """Samples with a number for a label that is NaN, which equals nothing."""
    return {
        study: (voxels, text, tuple(-99.0 if math.isnan(label) else label for label in labels))
        for study, (voxels, text, labels) in samples.items()
    }


def assert_equal(program: Program, file: Path, **options: Any) -> int:
    """The samples of NPZ files and of a mount are equal, and so is what stands in their metadata behind the usual."""
    steps: dict[str, Any] = {"shape": (8, 8, 8), "spacing": (1.0, 1.0, 1.5), "shuffle": False} | options
    of_npz = CTReportDataset(dataset=file, **steps)
    samples = collected(of_npz[at] for at in range(len(of_npz)))
    if of_npz.axes and of_npz.axes != "HWD":
        options |= {"axes": of_npz.axes}  # stored volumes keep theirs
    with program.mounted(File(file)) as point:
        found = collected(CTReportWebDataset(point, **steps | options))
        names = json.loads((point / "manifest.json").read_text()).get("extra_columns", [])
        assert list(found) == list(samples)
        assert_same(comparable(found), comparable(samples), ROUNDING)
        if names:
            assert extra_of(CTReportWebDataset(point, with_meta=True, **steps | options), names) == extra_of(
                CTReportDataset(dataset=file, with_meta=True, **steps), names
            )
    return len(samples)


def extra_of(data: CTReportDataset | CTReportWebDataset, names: list[str]) -> list[dict[str, Any]]:
    """The values of columns in the metadata of each sample, as batches give them."""
    loader = data.make_loader(batch_size=2, num_workers=0)
    metas = [meta for *_, batch in loader for meta in batch]
    assert len(metas) == sum(len(ids) for _, _, _, ids, *_ in loader) > 0
    return [{name: meta[name] for name in names} for meta in metas]


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Volumes of stored values, with the tables of CT-RATE."""
    rng = np.random.default_rng(3)
    volumes = {f"{study}.npz": {"data": rng.integers(0, 2000, (12, 10, 8)).astype("f4")} for study in STUDIES}
    return write_dataset(tmp_path / "data", volumes)


def tables_of(data: Dataset) -> dict[str, pd.DataFrame]:
    """The tables as texts, by role."""
    return {
        role: pd.read_csv(getattr(data, role), dtype=str, keep_default_na=False)
        for role in ("reports", "meta", "labels")
    }


def write(base: Path, tables: dict[str, pd.DataFrame], keys: str, **options: Any) -> Path:
    """Tables and `ctwds.toml` beside each other; each table is named by its role."""
    lines = [f"data_folder = '{base / 'data' / 'volumes'}'"]
    for role, table in tables.items():
        table.to_csv(base / f"{role}.csv", index=False, **options)
        lines.append(f"{role}-file = '{role}.csv'")
    file = base / "ctwds.toml"
    file.write_text("\n".join([*lines, FLOAT32, keys]), encoding="utf-8")
    return file


def renamed(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Other names for all columns, ids with other suffixes."""
    names = {"VolumeName": "Accession No", "Findings_EN": "Text, long", "Impressions_EN": "B", "RescaleSlope": "m"}
    names |= {"RescaleIntercept": "b0", "XYSpacing": "xy mm", "ZSpacing": "z mm"}
    changed = {role: table.rename(columns=names) for role, table in tables.items()}
    changed["reports"]["Accession No"] = changed["reports"]["Accession No"].str.replace(".nii.gz", ".dcm")
    changed["labels"] = changed["labels"].rename(columns={"Accession No": "id"})
    return changed


OTHER_NAMES = """
id_column = ["Accession No", "id"]
text_columns = ['impression=B', '"Text, long"']
meta_columns = "slope=m,intercept=b0,xy=xy mm,z=z mm"
"""


def blank(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """A label, a text and a spacing that are missing, and a label in words."""
    tables["labels"].loc[1, "a"], tables["labels"].loc[3, "b"] = "", "Yes"
    tables["reports"].loc[0, "Impressions_EN"] = "NA"
    tables["meta"].loc[2, "ZSpacing"] = ""
    return tables


def with_more(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Columns that no role takes."""
    tables["meta"]["age"], tables["meta"]["sex"] = ["63", "", "071", "5.50"], ["F", "M", "nan", "ü"]
    tables["reports"]["site"] = ["a", "b", "c", "1e3"]
    return tables


CASES: dict[str, tuple[Callable[[dict[str, pd.DataFrame]], dict[str, pd.DataFrame]], str, dict[str, Any], int]] = {
    "plain": (dict, "", {}, 4),
    "names": (renamed, OTHER_NAMES, {}, 4),
    "semicolons": (renamed, OTHER_NAMES, {"sep": ";", "encoding": "utf-16"}, 4),
    "tabs": (renamed, OTHER_NAMES, {"sep": "\t", "encoding": "utf-8-sig"}, 4),
    "labels": (dict, "label_columns = 'c,a..b'", {}, 4),
    "patterns": (dict, "label_columns = ['?', 'a']", {}, 4),
    "missing 0": (blank, "missing_label = 0\nmissing_text = 'none'", {}, 3),
    "missing nan": (blank, "missing_label = 'nan'", {}, 3),
    "missing excluded": (blank, "missing_label = 'exclude'", {}, 2),
    "extra": (with_more, "extra_columns = ['sex', 'age', 'site', 'VolumeName']", {}, 4),
    "extra patterns": (with_more, "extra_columns = 'a*,site,sex..sex'", {}, 4),
    "no reports": (lambda tables: {role: tables[role] for role in ("meta", "labels")}, "", {}, 4),
    "no labels": (lambda tables: {role: tables[role] for role in ("meta", "reports")}, "labels_empty = true", {}, 4),
    "no metadata": (lambda tables: {"labels": tables["labels"]}, "dialect = 'hu'", {}, 4),
    "no table": (lambda _: {}, "dialect = 'hu'\nmountpoint = '/nowhere'", {}, 4),
    "rescale": (dict, "rescale = [2, -1000]", {}, 4),
    "axes": (dict, "axes = 'dhw'\nrescale = 'none'", {}, 4),
    "hu, incomplete": (blank, "dialect = 'hu'\nmissing_label = 'nan'", {}, 3),
    "files": (dict, "pattern = ['v[0-2].npz', '*3.npz']\nsource = 'npz'\narray = 'data'", {}, 4),
}


@pytest.mark.parametrize("case", CASES)
def test_equal(program: Program, data: Dataset, tmp_path: Path, case: str) -> None:
    """Of every way to name and spell tables."""
    change, keys, options, count = CASES[case]
    file = write(tmp_path, change(tables_of(data)), keys, **options)
    assert assert_equal(program, file) == count


def test_one_table_and_several_files(program: Program, data: Dataset, tmp_path: Path) -> None:
    """One table for all roles; and tables in two files each."""
    tables = with_more(tables_of(data))
    whole = tables["reports"].merge(tables["meta"]).merge(tables["labels"])
    file = write(tmp_path, dict.fromkeys(tables, whole), "label_columns = 'a..c'\nextra_columns = 'site,age,sex'")
    text = file.read_text()
    for role in tables:
        text = text.replace(f"'{role}.csv'", "'reports.csv'")
    file.write_text(text)
    assert assert_equal(program, file) == 4
    lines = [f"data_folder = '{data.folder}'", FLOAT32, "extra_columns = 'age'"]
    for role, table in tables.items():
        table[:1].to_csv(tmp_path / f"{role}1.csv", index=False)
        table[1:][table.columns[::-1]].to_csv(tmp_path / f"{role}2.csv", index=False, sep=";")
        lines.append(f"{role}_file = ['{role}1.csv', '{role}2.csv']")
    file.write_text("\n".join(lines))
    assert assert_equal(program, file) == 4


LISTS = {
    "v2\n# v1\nv0.nii.gz\n": 2,
    "\ufeffn;study_id\r\n1;v3.npz\r\n2;v1\r\n3\r\n": 2,
    "VolumeName\nv1.nii\nv9\n\nv0\nv2\n": 3,
}


@pytest.mark.parametrize("excluded", ["", "v0", "v1"])
@pytest.mark.parametrize("limit", ["", "limit = 2", "limit = 0", "test_mode = true"])
@pytest.mark.parametrize("text", ["", *LISTS], ids=["all", *("lines", "column", "names")])
def test_selected(program: Program, data: Dataset, tmp_path: Path, text: str, limit: str, excluded: str) -> None:
    """A list of studies, a limit that counts those that are left out, and those that are."""
    keys = [limit]
    if text:
        (tmp_path / "list.txt").write_text(text, newline="")
        keys.append("studies = 'list.txt'")
    if excluded:
        (tmp_path / "quarantine.csv").write_text(f"reason,study_id\n=1,{excluded}\n,'=1+1\n")
        keys.append("exclude = 'quarantine.csv'")
    file = write(tmp_path, tables_of(data), "\n".join(keys))
    plan = program.run("plan", "--dataset", file, "--json", check=False)
    if plan.returncode:
        assert "no usable volume" in plan.stderr
        with pytest.raises(LoaderError, match="no volume is in all tables and selected"):
            CTReportDataset(dataset=file)
        return
    right = [sample["study_id"] for shard in json.loads(plan.stdout)["shards"] for sample in shard["samples"]]
    assert [study.meta["study_id"] for study in CTReportDataset(dataset=file).studies] == right
    assert bool(limit or excluded) or len(right) == LISTS.get(text, 4)


def test_preprocessed(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Volumes that the shards hold resampled: by the file's spacing; another shape than the loader's is refused."""
    file = write(tmp_path, tables_of(data), "volume = 'preprocessed'\nspacing = [1, 1, 1.5]\nshape = '8,8,8'")
    assert assert_equal(program, file) == 4
    with pytest.raises(LoaderError, match=r"shape is \[8.0, 8.0, 8.0\]"):
        CTReportDataset(dataset=file)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("where = 'a == 1'", "'where'"),
        ("limit = '2'", "limit is '2'"),
        ("exclude = 'labels.csv'", "needs the column study_id"),
        ("studies = 'list.txt'", "there is no study in it"),
        ("window = '-160,240'", "does not do"),
        ("volume = 'preprocessed'\nhu_range = [-500, 500]", "'hu_range'"),
        ("label_colums = 'a'", "is 'label_columns' meant?"),
        ("label_columns = 'z'", "column 'z' is missing"),
        ("extra_columns = 'agee'", "extra_columns: of all tables, column 'agee' is missing"),
        ("extra_columns = 'ZSpacing'", "'ZSpacing' of its own"),
        ("missing_label = 'zero'", "missing_label is 'zero'"),
        ("meta_columns = 'slop=a'", "slope=COLUMN"),
        ("rescale = '1'", "rescale is '1'"),
        ("a = [", "not TOML"),
    ],
)
def test_what_is_refused(data: Dataset, tmp_path: Path, keys: str, words: str) -> None:
    """With the key and the reason."""
    file = write(tmp_path, tables_of(data), keys)
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(LoaderError) as error:
        CTReportDataset(dataset=file, shape=(8, 8, 8)) if "hu_range" in keys else CTReportDataset(dataset=file)
    assert words in str(error.value), error.value


def test_arguments_win(data: Dataset, tmp_path: Path) -> None:
    """Over the keys of the file; and without Python's reader of TOML there is a message."""
    file = write(tmp_path, tables_of(data), "dialect = 'native'\npattern = 'v0.npz'\nlabels_files = ['x']")
    with pytest.raises(LoaderError, match="is 'labels_file' meant"):
        CTReportDataset(dataset=file)
    file.write_text(file.read_text().replace("labels_files = ['x']", ""))
    given = CTReportDataset(dataset=file, dialect="hu", pattern="v*.npz", labels=tmp_path / "labels.csv")
    assert given.dialect == "hu" and len(given) == 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tomllib", None)
        with pytest.raises(LoaderError, match="only Python 3"):
            CTReportDataset(dataset=file)


# --- data sets as they are published, from `init` ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ct_rate", "combined", "semicolons", "rad_chestct", "merlin", "export"])
def test_named(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What `init` writes for each is what the loader reads."""
    test = {
        "combined": named.test_one_combined_table,
        "semicolons": named.test_semicolons_and_utf_16,
        "rad_chestct": named.test_rad_chestct,
        "merlin": named.test_merlin,
        "export": named.test_an_export_without_labels,
    }.get(name)
    found: list[Path] = []
    if test is None:
        data = make_dataset(Options(tmp_path / "CT-RATE", volumes=4, size=(24, 20, 12), strays=False))
        found.append(named.init(program, data.folder.parent, data.folder.name).file)
    else:

        class Stop(Exception):
            """Ends the other test where its data set is there."""

        def init(program: Program, base: Path, folder: str) -> None:
            found.append(real(program, base, folder).file)
            raise Stop

        real = named.init
        monkeypatch.setattr(named, "init", init)
        with pytest.raises(Stop):
            test(program, tmp_path)
    keys = f"\n{FLOAT32}\n" + ("dialect = 'hu'\n" if name == "merlin" else "")
    found[0].write_text(found[0].read_text() + keys)
    assert assert_equal(program, found[0]) >= 4

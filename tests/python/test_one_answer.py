"""One answer on every path: the same samples and the same voxels come from a mount, from its shards through the loader,
from preprocessed shards, and from NPZ through the loader, whatever spelling the files and tables have. The judges are
`np.load`, pandas and PyTorch."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ctreport_webdataset import CTReportDataset
from harness import Program, payload, report_of, shards
from kinds import Steps, preprocessed
from loading import Samples, from_shards
from make_dataset import Dataset, dataset_at
from numpy.typing import NDArray
from spellings import (
    BYTE_ORDERS,
    CONTAINERS,
    DESCRS,
    DTYPES,
    HEADERS,
    MEMBERS,
    TABLES,
    VERSIONS,
    Form,
    Written,
    covering,
    load,
)

STEPS = Steps(shape=(8, 9, 6), spacing=(1.0, 1.0, 1.5))
NEAR = 2e-6  # in units of 1000 HU, between float32 sums of another order
HALF = 0.0005  # as float16 rounds below 1
COUNT = 520
# Height and width in mm, as the table spells them; none where no sample can be made.
SPACINGS: dict[str, tuple[float, float] | None] = {
    "0.7": (0.7, 0.7),
    "[0.7]": (0.7, 0.7),
    "[0.7, 0.9]": (0.7, 0.9),
    "[0.9, 0.7, 1.5]": (0.9, 0.7),
    "(1.3, 1.3)": (1.3, 1.3),
    "['0.7', '0.9']": (0.7, 0.9),
    "[np.float64(0.9), np.float64(0.7)]": (0.9, 0.7),
    "[1.0 0.8]": (1.0, 0.8),
    "1.2\\0.8": (1.2, 0.8),
    "[0.7000000001, 0.7]": (0.7000000001, 0.7000000001),
    "[0, 0]": None,
    "[0.7, nan]": None,
    "": None,
}
# Slope and intercept as the table spells them; the slopes of 0 and the missing one make no sample.
SLOPES = (
    ("1", "-1024"),
    ("1.0", "-8192"),
    ("0.5", "-500.25"),
    ("+2", "0"),
    ("1e0", "-1.024e3"),
    ("0.30000000000000004", "-0.1"),
    ("-1", "100"),
    ("0", "-1024"),
    ("-0.0", "0"),
    ("nan", "-1024"),
    ("", ""),
)
TEXTS = (
    ("Nodule, 5 mm", "none"),
    ('"Stable" since\nlast year', "a\n\nb"),
    ("", "NA"),
    ("Not given.", " blanks "),
    ("Überlauf – ½", "x\ty;z|'q'"),
)
LABELS = ("0", "1", "0.1", "-1", "1e-3", "3.0000000000000004")
FACTORS: dict[str, Any] = {
    "dtype": DTYPES,
    "byte_order": BYTE_ORDERS,
    "descr": tuple(DESCRS),
    "axes": "CF",
    "header": tuple(HEADERS),
    "version": VERSIONS,
    "member": tuple(MEMBERS),
    "zip": CONTAINERS,
    "table": tuple(TABLES),
    "spacing": tuple(SPACINGS),
    "slope": SLOPES,
    "text": TEXTS,
    "label": LABELS,
    "quoting": (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC),
    "end": ("\n", "\r\n", "\n\n", "\n \n"),
}
ROLES = ("reports", "meta", "labels")
OF_FILE = ("dtype", "byte_order", "descr", "axes", "header", "version", "member", "zip")


@dataclass(frozen=True)
class Case:
    """A study: how its volume and its rows are written."""

    study: str
    row: dict[str, Any]

    def written(self) -> Written:
        """The volume's file."""
        return Written(**{name: self.row[name] for name in OF_FILE})

    def values(self) -> NDArray[Any]:
        """Voxels that every type of number holds; no two studies, and no two orders of one, have the same."""
        rng = np.random.default_rng([int(self.study[1:])])
        return rng.integers(0, 2 if self.row["dtype"] == "b1" else 100, rng.integers(3, 9, 3))


def make_cases(count: int) -> list[Case]:
    """Every pair of values of two factors, and more."""
    return [Case(f"s{at:03d}", row) for at, row in enumerate(covering(FACTORS, 20, count))]


@dataclass(frozen=True)
class Tables(Dataset):
    """A data set each of whose tables may be in several files: the first ones are those of `Dataset`."""

    more: tuple[Dataset, ...] = ()

    def flags(self) -> list[str]:
        """The arguments for `ctwds-fs`."""
        return super().flags() + [flag for part in self.more for flag in part.flags()[2:]]

    def files(self, role: str) -> list[Path]:
        """The files of a table."""
        return [getattr(part, role) for part in (self, *self.more)]


def write_table(
    path: Path, form: Form, cases: Iterable[Case], header: list[str], fields: Callable[[Case], list[str]]
) -> None:
    """A table, each row of which is quoted and ends as its case says."""
    text = io.StringIO()
    csv.writer(text, delimiter=form.delimiter, lineterminator="\n").writerow(header)
    for case in cases:
        rows = csv.writer(text, delimiter=form.delimiter, quoting=case.row["quoting"], lineterminator=case.row["end"])
        rows.writerow(fields(case))
    form.write(path, text.getvalue())


def write_data(out: Path, cases: list[Case]) -> Tables:
    """The data set of the cases; the rows of those whose tables have one form are in one file."""
    whole = dataset_at(out)
    for case in cases:
        case.written().write(case.written().path(whole.folder, case.study), case.values())
    parts = []
    for at, form in enumerate(form for form in TABLES if any(case.row["table"] == form for case in cases)):
        paths = {role: out / f"{role}-{at}.csv" for role in ROLES}
        parts.append(replace(whole, **paths))
        write_tables(parts[-1], TABLES[form], [case for case in cases if case.row["table"] == form])
    first, *more = parts
    return Tables(whole.folder, first.reports, first.meta, first.labels, tuple(more))


def write_tables(dataset: Dataset, form: Form, cases: list[Case]) -> None:
    """The three tables of some cases."""

    def name(case: Case) -> str:
        return f"{case.study}.nii.gz"

    def labels(case: Case) -> list[str]:
        first = LABELS.index(case.row["label"])
        return [name(case), *(LABELS[(first + n) % len(LABELS)] for n in range(3))]

    header = ["VolumeName", "Findings_EN", "Impressions_EN"]
    write_table(dataset.reports, form, cases, header, lambda case: [name(case), *case.row["text"]])
    header = ["XYSpacing", "VolumeName", "RescaleSlope", "RescaleIntercept", "other", "ZSpacing"]
    write_table(
        dataset.meta,
        form,
        cases,
        header,
        lambda case: [case.row["spacing"], name(case), *case.row["slope"], "x", "1.2"],
    )
    write_table(dataset.labels, form, cases, ["VolumeName", "a", "b, c", "d"], labels)


# --- what is right ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judge:
    """What the samples of a data set are, by readers that are not the project's."""

    dataset: Tables
    cases: list[Case]

    def table(self, role: str) -> Any:
        """A table by pandas, of all its files."""
        forms = [form for name, form in TABLES.items() if any(case.row["table"] == name for case in self.cases)]
        files = zip(forms, self.dataset.files(role), strict=True)
        return pd.concat([form.read(path) for form, path in files]).set_index("VolumeName")

    def stored(self) -> dict[str, tuple[NDArray[Any], dict[str, Any], str, tuple[float, ...]]]:
        """Voxels, metadata, text and labels of those that have all metadata."""
        reports, meta, labels = map(self.table, ROLES)
        found = {}
        for case in self.cases:
            name = f"{case.study}.nii.gz"
            fields = meta.loc[name, ["RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"]].to_dict()
            if any(pd.isna(value) for value in fields.values()):
                continue
            array = load(case.written().path(self.dataset.folder, case.study), case.written().array())
            text = "\n".join("" if pd.isna(part) else part for part in reports.loc[name])
            values = tuple(labels.loc[name].to_numpy().astype(np.float32).tolist())
            found[case.study] = (array, fields, text, values)
        return found

    def loaded(self) -> Samples:
        """What the loader gives: HU, resampled, of those that can be."""
        found: Samples = {}
        for study, (array, fields, text, labels) in self.stored().items():
            plane = SPACINGS[fields["XYSpacing"]]
            if plane and fields["RescaleSlope"] != 0:
                spacing = (*plane, fields["ZSpacing"])
                volume, _ = preprocessed(array, fields["RescaleSlope"], fields["RescaleIntercept"], spacing, STEPS)
                found[study] = (volume.transpose(2, 0, 1)[None], text.translate(CLEANED), labels)
                if text == "Not given.":
                    found[study] = (found[study][0], "", labels)
        return found


CLEANED = str.maketrans("", "", "\"'()")


# --- what the paths give ---------------------------------------------------------------------------------------------


def of_tars(folder: Path) -> dict[str, tuple[NDArray[Any], dict[str, Any], str, tuple[float, ...]]]:
    """The samples of shards as their bytes are."""
    found = {}
    for path in shards(folder):
        with tarfile.open(path) as tar:
            members = [payload(tar, member) for member in tar]
        for voxels, meta, text, labels in zip(*[iter(members)] * 4, strict=True):
            fields = json.loads(meta)
            array = np.frombuffer(voxels, "<f2").reshape(fields["volume_shape"])
            found[fields["study_id"]] = (array, fields, text.decode(), tuple(np.frombuffer(labels, "<f4").tolist()))
    return found


def of_loader(samples: Iterable[Any]) -> Samples:
    """The samples of a loader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the samples that are left out
        return {sample[3]: (sample[0].numpy().copy(), sample[1], tuple(sample[2].tolist())) for sample in samples}


def through_shards(folder: Path, **options: Any) -> Samples:
    """Shards, mounted or files."""
    options = {"shape": STEPS.shape, "spacing": STEPS.spacing, "dialect": "native", "on_error": "skip"} | options
    return of_loader(from_shards(folder, **options))


def through_npz(dataset: Dataset, **options: Any) -> Samples:
    """NPZ and tables; the array of a file without a known name has no dialect of its own."""
    given: dict[str, Any] = {"shape": STEPS.shape, "spacing": STEPS.spacing, "dialect": "native", "shuffle": False}
    files = dataset.files if isinstance(dataset, Tables) else lambda role: [getattr(dataset, role)]
    reports, meta, labels = map(files, ROLES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = CTReportDataset(dataset.folder, reports, meta, labels, **given | options)
        return of_loader(data[at] for at in range(len(data)))


def differences(found: Samples, right: Samples, within: float) -> list[str]:
    """What is different, a line for each sample."""
    lines = [f"{study}: missing" for study in right.keys() - found.keys()]
    lines += [f"{study}: one too many" for study in found.keys() - right.keys()]
    for study in right.keys() & found.keys():
        (volume, text, labels), (right_volume, right_text, right_labels) = found[study], right[study]
        if volume.shape != right_volume.shape:
            lines.append(f"{study}: shape {volume.shape}, not {right_volume.shape}")
        elif not (np.abs(volume.astype(np.float64) - right_volume) <= within).all():
            lines.append(f"{study}: voxels, by up to {np.abs(volume.astype(np.float64) - right_volume).max()}")
        lines += [f"{study}: text {text!r}, not {right_text!r}"] if text != right_text else []
        lines += [f"{study}: labels {labels}, not {right_labels}"] if labels != right_labels else []
    return sorted(lines)


# --- the matrix ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """A data set of all pairs, never changed."""
    cases = make_cases(COUNT)
    return Judge(write_data(tmp_path_factory.mktemp("all"), cases), cases)


def test_the_matrix_has_every_pair(judge: Judge) -> None:
    """As it says; and enough of them can be made."""
    pairs = {(a, case.row[a], b, case.row[b]) for case in judge.cases for a in FACTORS for b in FACTORS}
    for a, values in FACTORS.items():
        for b, others in FACTORS.items():
            assert a == b or all((a, x, b, y) in pairs for x in values for y in others), (a, b)
    assert len(judge.cases) >= 500 and len(judge.loaded()) > 250


def test_every_path_gives_the_same(program: Program, judge: Judge, tmp_path: Path) -> None:
    """The mount's bytes are NumPy's and pandas'; both loaders and the preprocessed shards give PyTorch's."""
    flags = ("--dialect", "native", "--samples-per-shard", 60)
    stored, right = judge.stored(), judge.loaded()
    with program.mounted(judge.dataset, *flags) as point:
        raw, loaded = of_tars(point), through_shards(point)
        report = program.run("verify", "--webdataset_dir", point, *judge.dataset.flags(), *flags, "--json", check=False)
    assert sorted(raw) == sorted(stored)
    for study, (array, fields, text, labels) in stored.items():
        voxels, meta, *others = raw[study]
        assert np.array_equal(voxels, array.astype(np.float16)), study
        assert voxels.shape == array.shape and others == [text, labels], study
        assert {name: meta[name] for name in fields} == fields, study
    assert differences(loaded, right, NEAR) == []
    assert differences(through_npz(judge.dataset), right, NEAR) == []
    source = report_of(report)["source"]
    assert (source["compared"], source["different"]) == (len(stored), 0), report.stdout[-2000:]
    options = ("--volume", "preprocessed", *STEPS.flags(), *flags)
    made = program.materialize(judge.dataset, tmp_path / "made", *options)
    assert differences(through_shards(made), right, HALF) == []
    report = program.run("verify", "--webdataset_dir", made, *judge.dataset.flags(), *options, "--json", check=False)
    source = report_of(report)["source"]
    assert (source["compared"], source["different"]) == (len(right), 0), report.stdout[-2000:]


@pytest.mark.parametrize("more", [("--format", "npy"), ("--compress", "zstd")], ids=["npy", "zstd"])
def test_other_shards_give_the_same(program: Program, judge: Judge, tmp_path: Path, more: tuple[str, str]) -> None:
    """With other members, or compressed."""
    flags: list[object] = ["--dialect", "native", "--samples-per-shard", 60]
    made = program.materialize(judge.dataset, tmp_path / "made", *flags, *more)
    assert differences(through_shards(made), judge.loaded(), NEAR) == []
    flags += more if more[0] == "--format" else []
    report = program.run("verify", "--webdataset_dir", made, *judge.dataset.flags(), *flags, "--json", check=False)
    source = report_of(report)["source"]
    assert (source["compared"], source["different"]) == (len(judge.stored()), 0), report.stdout[-2000:]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("bom", ["", "\ufeff"], ids=["plain", "bom"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "open"])
def test_dialects_of_whole_tables(program: Program, tmp_path: Path, end: str, bom: str, last: bool) -> None:
    """All three tables with the same ends of lines, a mark or none, and a last line that ends or does not."""
    cases = [Case(case.study, case.row | {"end": "\n", "table": "commas"}) for case in make_cases(0)[:40]]
    dataset = write_data(tmp_path / "data", cases)
    judge = Judge(dataset, cases)
    right = judge.loaded()
    for path in (dataset.reports, dataset.meta, dataset.labels):
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(keepends=True)))
        text = io.StringIO()
        csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=end).writerows(rows)
        path.write_text(bom + (text.getvalue() if last else text.getvalue().removesuffix(end)), newline="")
    assert differences(judge.loaded(), right, 0) == []
    out = program.materialize(dataset, tmp_path / "out", "--dialect", "native")
    assert differences(through_shards(out), right, NEAR) == []
    assert differences(through_npz(dataset), right, NEAR) == []

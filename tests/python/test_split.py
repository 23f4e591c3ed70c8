"""`plan --split-by`: lists for training and validation that `--studies` takes, and that never part a patient."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from harness import Program
from make_dataset import Dataset
from small_datasets import write_dataset

SHARES = {"train": 0.7, "val": 0.2, "test": 0.1}
BY_SHARES = ",".join(f"{name}:{share}" for name, share in SHARES.items())


def dataset_of(out: Path, ids: Iterable[str]) -> Dataset:
    """A tiny volume for each id."""
    return write_dataset(out, {f"{name}.npz": {"data": np.zeros((2, 3, 4), "i2")} for name in ids}, writer="numpy")


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Ids as those of CT-RATE: 60 patients with one to three scans of one or two reconstructions."""
    rng = np.random.default_rng(7)
    ids = [
        f"train_{patient}_{'abc'[scan]}_{reconstruction + 1}"
        for patient in range(60)
        for scan in range(rng.integers(1, 4))
        for reconstruction in range(rng.integers(1, 3))
    ]
    return dataset_of(tmp_path_factory.mktemp("patients"), ids)


def studies_of(path: Path) -> list[str]:
    """The ids of a list, as pandas reads them."""
    return list(pd.read_csv(path, dtype=str)["study_id"])


def planned(program: Program, dataset: Dataset, *flags: object) -> list[str]:
    """The studies of a plan, in order."""
    plan = json.loads(program.run("plan", *dataset.flags(), "--json", *flags).stdout)
    return [sample["study_id"] for shard in plan["shards"] for sample in shard["samples"]]


def expected(studies: list[str], seed: int) -> dict[str, list[str]]:
    """The splits by chance, by their definition in the guide."""
    groups = defaultdict(list)
    for study in studies:
        groups[study.rsplit("_", 2)[0]].append(study)
    start = b"ctwds-fs split 1" + seed.to_bytes(8, "little")
    order = sorted(groups, key=lambda group: hashlib.sha256(start + group.encode()).digest())
    ends = np.cumsum(list(SHARES.values())) * len(studies)
    splits: dict[str, list[str]] = {name: [] for name in SHARES}
    before = 0
    for group in order:
        middle = before + len(groups[group]) / 2
        at = min(int(np.searchsorted(ends, middle)), len(SHARES) - 1)
        splits[list(SHARES)[at]] += groups[group]
        before += len(groups[group])
    return {name: sorted(split) for name, split in splits.items()}


@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_lists_are_those_of_the_definition(program: Program, patients: Dataset, tmp_path: Path, seed: int) -> None:
    """Every study is in one list, each list is a data set, and the same command writes nothing new."""
    flags = ["--split-by", BY_SHARES, "--seed", seed, "--split-dir", tmp_path]
    said = program.run("plan", *patients.flags(), *flags).stdout
    whole = planned(program, patients)
    lists = {name: studies_of(tmp_path / f"{name}.csv") for name in SHARES}
    assert lists == expected(whole, seed)
    for name, studies in lists.items():
        assert f"{name}.csv: {len(studies)} studies" in said
        assert planned(program, patients, "--studies", tmp_path / f"{name}.csv") == studies
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = program.run("plan", *patients.flags(), *flags, "--json")
    assert json.loads(again.stdout) and "train.csv" in again.stderr
    assert before == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_patients_stay_when_studies_are_added(program: Program, tmp_path: Path) -> None:
    """Of 100 patients that are there before and after, hardly one changes its split."""
    lists = []
    for count in (100, 103):
        data = dataset_of(tmp_path / f"data{count}", [f"train_{patient}_a_1" for patient in range(count)])
        out = tmp_path / f"lists{count}"
        out.mkdir()
        program.run("plan", *data.flags(), "--split-by", "train:0.8,val:0.2", "--split-dir", out)
        lists.append(set(studies_of(out / "val.csv")))
    assert len(lists[0] - lists[1]) <= 3


def test_a_column_decides(program: Program, patients: Dataset, tmp_path: Path) -> None:
    """That of any of the tables; a patient in two splits is refused, by the names of both studies."""
    whole = planned(program, patients)
    table = pd.read_csv(patients.meta, dtype=str)
    patient = table["VolumeName"].str.extract(r"^train_(\d+)_")[0].astype(int)
    table["fold"] = np.where(patient % 3 == 0, "val", "train")
    data = Dataset(patients.folder, patients.reports, tmp_path / "meta.csv", patients.labels)
    table.to_csv(data.meta, index=False)
    program.run("plan", *data.flags(), "--split-by", "fold", "--split-dir", tmp_path)
    split_of = dict(zip(table["VolumeName"].str.removesuffix(".nii.gz"), table["fold"], strict=True))
    for name in ("train", "val"):
        assert studies_of(tmp_path / f"{name}.csv") == [study for study in whole if split_of[study] == name]
    one, other = next(
        (one, other) for one, other in pairwise(whole) if one.rsplit("_", 2)[0] == other.rsplit("_", 2)[0]
    )
    row = table.index[table["VolumeName"].str.removesuffix(".nii.gz") == other]
    for value, words in {
        "another": f"'{one}' and '{other}' belong together",
        "": f"has no value for '{other}'",
        "../up": "no name of a split",
    }.items():
        rows = row if value != "../up" else table.index
        changed = table.copy()
        changed.loc[rows, "fold"] = value
        changed.to_csv(data.meta, index=False)
        empty = tmp_path / f"empty{len(value)}"
        empty.mkdir()
        done = program.run("plan", *data.flags(), "--split-by", "fold", "--split-dir", empty, check=False)
        assert done.returncode == 1 and words in done.stderr, done.stderr
        assert not list(empty.iterdir())
    done = program.run("plan", *data.flags(), "--split-by", "nothing", "--split-dir", tmp_path, check=False)
    assert done.returncode == 1 and "no table has the column 'nothing'" in done.stderr
    done = program.run("plan", *data.flags(), "--split-by", "VolumeName", "--split-dir", tmp_path, check=False)
    assert done.returncode == 1 and "have the column 'VolumeName' both" in done.stderr


def test_ids_of_other_data_sets(program: Program, tmp_path: Path) -> None:
    """Without an expression that fits nobody knows the patients: three ids are named, and what to give."""
    data = dataset_of(tmp_path, [f"P{patient}-{scan}" for patient in range(8) for scan in range(2)])
    out = tmp_path / "lists"
    out.mkdir()
    by = ["--split-by", "a:0.5,b:0.5", "--split-dir", out]
    done = program.run("plan", *data.flags(), *by, check=False)
    assert done.returncode == 1 and "16 of 16 studies (for example P0-0, P0-1, P1-0)" in done.stderr
    assert not list(out.iterdir())
    assert "8 of 16 studies" in program.run("plan", *data.flags(), *by, "--group-by", "^(P[0-9]+)-").stdout
    one, other = ({name.split("-")[0] for name in studies_of(out / f"{split}.csv")} for split in "ab")
    assert not one & other and len(one | other) == 8
    wrong = program.run("plan", *data.flags(), "--group-by", "(", check=False)
    assert wrong.returncode == 2 and "--group-by" in wrong.stderr
    assert "16 of 16 studies" in program.run("plan", *data.flags(), "--group-by", ".*").stdout


def test_nothing_is_overwritten(program: Program, patients: Dataset, tmp_path: Path) -> None:
    """Neither a list of other content nor the folder of the data is written to, and no list is left alone."""
    by = ["--split-by", "train:0.8,val:0.2"]
    (tmp_path / "val.csv").write_text("mine\n")
    done = program.run("plan", *patients.flags(), *by, "--split-dir", tmp_path, check=False)
    assert done.returncode == 1 and "not overwritten" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["val.csv"] and (tmp_path / "val.csv").read_text() == "mine\n"
    before = sorted(patients.folder.iterdir())
    done = program.run("plan", *patients.flags(), *by, "--split-dir", patients.folder, check=False)
    assert done.returncode == 1 and "data folder" in done.stderr and before == sorted(patients.folder.iterdir())
    done = program.run("plan", *patients.flags(), *by, "--split-dir", tmp_path / "none", check=False)
    assert done.returncode == 1 and str(tmp_path / "none") in done.stderr


def test_ids_that_a_list_can_have(program: Program, tmp_path: Path) -> None:
    """Commas and quotes are quoted; what a list would read otherwise is refused."""
    names = ['a,"b"', "c d", "é;x"]
    data = dataset_of(tmp_path, names)
    out = tmp_path / "lists"
    out.mkdir()
    program.run("plan", *data.flags(), "--split-by", "all:1", "--group-by", ".*", "--split-dir", out)
    assert studies_of(out / "all.csv") == sorted(names)
    assert planned(program, data, "--studies", out / "all.csv") == sorted(names)
    odd = dataset_of(tmp_path / "odd", ["#x"])
    done = program.run("plan", *odd.flags(), "--split-by", "odd:1", "--group-by", ".*", "--split-dir", out, check=False)
    assert done.returncode == 1 and "'#x'" in done.stderr and not (out / "odd.csv").exists()

"""`--where` and `--studies`: the volumes that they select, against NumPy on the label table."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Program, is_mounted
from make_dataset import Dataset, dataset_at
from numpy.typing import NDArray
from openings import openings, wait_until_settled
from small_datasets import noise_dataset, write_csv

Columns = dict[str, NDArray[Any]]


def planned(program: Program, dataset: Dataset, *flags: object) -> dict[str, Any]:
    """What `plan` says."""
    return json.loads(program.run("plan", *dataset.flags(), "--json", *flags).stdout)


def samples(plan: dict[str, Any]) -> list[str]:
    """The studies of a plan, in order."""
    return [sample["study_id"] for shard in plan["shards"] for sample in shard["samples"]]


def label_table(dataset: Dataset) -> tuple[list[str], Columns]:
    """The studies and their labels as the training sees them."""
    with dataset.labels.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    at = header.index("VolumeName")
    columns = {name: np.array([row[n] for row in rows], "f4") for n, name in enumerate(header) if n != at}
    return [row[at].removesuffix(".nii.gz") for row in rows], columns


@pytest.mark.parametrize(
    ("condition", "holds"),
    {
        "Lung nodule == 1": lambda c: c["Lung nodule"] == 1,
        "Lung nodule==1 and Emphysema==0": lambda c: (c["Lung nodule"] == 1) & (c["Emphysema"] == 0),
        "not 'Lung nodule' == 1 or \"Hiatal hernia\" > 0": lambda c: (
            ~(c["Lung nodule"] == 1) | (c["Hiatal hernia"] > 0)
        ),
        "Atelectasis == 1 or Lung opacity == 1 and Emphysema == 1": lambda c: (
            (c["Atelectasis"] == 1) | (c["Lung opacity"] == 1) & (c["Emphysema"] == 1)
        ),
        "(Atelectasis == 1 or Lung opacity == 1) and Emphysema != 1": lambda c: (
            ((c["Atelectasis"] == 1) | (c["Lung opacity"] == 1)) & (c["Emphysema"] != 1)
        ),
        "Lung nodule >= Emphysema": lambda c: c["Lung nodule"] >= c["Emphysema"],
    }.items(),
)
def test_where_selects_what_numpy_selects(
    program: Program, dataset: Dataset, condition: str, holds: Callable[[Columns], NDArray[Any]]
) -> None:
    """Of the volumes that are in the plan at all, in its order."""
    studies, columns = label_table(dataset)
    wanted = {study for study, selected in zip(studies, holds(columns), strict=True) if selected}
    whole = samples(planned(program, dataset))
    plan = planned(program, dataset, "--where", condition)
    expected = [study for study in whole if study in wanted]
    assert samples(plan) == expected and 0 < len(expected) < len(whole)
    assert plan["selection"]["where"] == condition
    assert plan["selection"]["of"] == len(whole) + len(planned(program, dataset)["left_out"])


def test_fractions_are_float32(program: Program, small: Dataset) -> None:
    """As labels are for the training: 0.1 of the table is 0.1 of the condition."""
    assert len(samples(planned(program, small, "--where", "b == 0.1"))) == 6
    assert samples(planned(program, small, "--where", "-1 < c and c <= 1")) == ["v00", "v01"]


def test_a_selection_is_a_smaller_data_set(program: Program, tmp_path: Path) -> None:
    """It closes up: the same plan as from tables that have only these rows. A limit counts what is selected."""
    whole = noise_dataset(tmp_path / "whole", 6, (4, 5, 6))
    part = dataset_at(tmp_path / "part")
    part.folder.parent.mkdir(exist_ok=True)
    part.folder.symlink_to(whole.folder)
    for table in ("reports", "meta", "labels"):
        with getattr(whole, table).open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        write_csv(getattr(part, table), [row for n, row in enumerate(rows) if n in (0, 2, 4, 6)])
    expected = planned(program, part)
    assert samples(expected) == ["v01", "v03", "v05"]
    selected = planned(program, whole, "--where", "a == 1")
    assert selected["plan_digest"] == expected["plan_digest"] and selected["shards"] == expected["shards"]
    assert samples(planned(program, whole, "--where", "a == 1", "--limit", 2)) == ["v01", "v03"]


def test_studies(program: Program, small: Dataset, tmp_path: Path) -> None:
    """A list or a table; both selections together; what is not there is said."""
    file = tmp_path / "studies.txt"
    file.write_text("# mine\nv05\nv01.nii.gz\n\nv03\nv77\nv78\nv79\nv80\n", encoding="utf-8")
    done = program.run("plan", *small.flags(), "--studies", file)
    assert "Selected     3 of the 6 volumes" in done.stdout and "which lists 7" in done.stdout
    assert f"{file}: 4 of 7 studies" in done.stderr and "v77, v78, v79)" in done.stderr
    assert samples(planned(program, small, "--studies", file, "--where", "c > 1")) == ["v03", "v05"]
    table = tmp_path / "studies.csv"
    write_csv(table, [["note", "VolumeName"], ["x", "v02.nii.gz"], ["y", "v00.nii.gz"]], bom=True)
    assert samples(planned(program, small, "--studies", table)) == ["v00", "v02"]


def test_strict_takes_no_list_that_does_not_fit(program: Program, small: Dataset, tmp_path: Path) -> None:
    """Not even one with a single study too many."""
    file = tmp_path / "studies.txt"
    file.write_text("v01\nv77\n", encoding="utf-8")
    message = program.refuses("plan", *small.flags(), "--studies", file, "--strict")
    assert f"{file}: 1 of 2 studies" in message and "v77" in message
    file.write_text("v01\n", encoding="utf-8")
    assert samples(planned(program, small, "--studies", file, "--strict")) == ["v01"]


def test_finished_shards_are_not_selected_from(program: Program, right: Path, tmp_path: Path) -> None:
    """A selection has no meaning for them, and is refused rather than ignored."""
    for flags in (["--where", "a == 1"], ["--studies", tmp_path / "list.txt"]):
        done = program.run("plan", "--shards", right, *flags, check=False)
        assert done.returncode == 2 and str(flags[0]) in done.stderr and "cannot be used with" in done.stderr


def test_a_folder_of_another_selection_is_refused(program: Program, small: Dataset, tmp_path: Path) -> None:
    """The plan's digest tells them apart."""
    digests = {
        planned(program, small, *flags)["plan_digest"] for flags in ([], ["--where", "a == 1"], ["--where", "a == 0"])
    }
    assert len(digests) == 3
    out = program.materialize(small, tmp_path / "out", "--where", "a == 1")
    assert "another" in program.refuses("materialize", *small.flags(), "--output-dir", out)
    program.run("verify", *small.flags(), "--where", "a == 1", "--webdataset-dir", out)


def test_a_changed_list_is_noticed(program: Program, tmp_path: Path) -> None:
    """Also when everything else, and thereby the saved plan, is as it was."""
    dataset = noise_dataset(tmp_path, 4, (4, 5, 6))
    file = tmp_path / "studies.txt"

    def selected() -> list[str]:
        return samples(planned(program, dataset, "--studies", file))

    for study in ("v01", "v02"):
        file.write_text(f"{study}\n", encoding="utf-8")
        os.utime(file, (1_600_000_000,) * 2)
        assert selected() == [study]
        wait_until_settled()
        assert selected() == [study]
        with openings([dataset.reports]) as opened:
            assert selected() == [study]
            assert opened() == set(), "the plan was not saved: this test shows nothing"


def test_a_part_forgets_nothing_of_the_whole(program: Program, tmp_path: Path) -> None:
    """What was found in the other volumes is kept: they are not opened again. `--rescale` leaves nothing to look at in
    their values, which a new plan would do."""
    dataset = noise_dataset(tmp_path, 4, (4, 5, 6))
    wait_until_settled()
    told = ("--rescale", "table")
    assert len(samples(planned(program, dataset, *told))) == 4
    with openings(dataset.volumes()) as opened:
        os.utime(dataset.folder / "v01.npz")  # one of the part, so that there is something to save
        assert len(samples(planned(program, dataset, *told, "--where", "a == 1"))) == 2
        assert opened() == {"v01.npz"}
        wait_until_settled()
        assert len(samples(planned(program, dataset, *told, "--limit", 2))) == 2
        opened()
        dataset.labels.write_text(dataset.labels.read_text())  # no saved plan is used, the findings are
        assert len(samples(planned(program, dataset, *told))) == 4
        assert opened() == set()


def test_mistakes(program: Program, small: Dataset, base: Path, tmp_path: Path) -> None:
    """In the text: a usage error that points there. Against the data: the classes that there are."""
    done = program.run("plan", *small.flags(), "--where", "a = 1", check=False)
    assert done.returncode == 2 and "  a = 1\n    ^ expected a comparison" in done.stderr
    for command in (["plan"], ["mount", "--log-file", base / "log", base / "mount"]):
        message = program.refuses(*command, *small.flags(), "--where", "a == 1 and Nodule == 1")
        assert "no class 'Nodule'; the classes are: a, b, c" in message and str(small.labels) in message
    assert not is_mounted(base / "mount")
    message = program.refuses("plan", *small.flags(), "--where", "a == 7")
    assert "--where 'a == 7': selects none of the 6 volumes" in message
    file = tmp_path / "studies.txt"
    assert f"{file}: cannot read" in program.refuses("plan", *small.flags(), "--studies", file)
    file.write_text("v77\n", encoding="utf-8")
    assert f"--studies {file}: selects none" in program.refuses("plan", *small.flags(), "--studies", file)
    file.write_text("v01,v02\n", encoding="utf-8")
    assert f"{file}: line 1: more than" in program.refuses("plan", *small.flags(), "--studies", file)


def test_the_daemon_selects_the_same(program: Program, small: Dataset, tmp_path: Path) -> None:
    """Conditions with spaces and quotes, and a relative list, reach it."""
    (tmp_path / "list.txt").write_text("v01\nv03\nv04\n", encoding="utf-8")
    flags = ("--where", "'a' == 1 and\n c < 4", "--studies", os.path.relpath(tmp_path / "list.txt"))
    with program.mounted(small, *flags) as point:
        assert samples(json.loads((point / "manifest.json").read_text())) == ["v01", "v03"]

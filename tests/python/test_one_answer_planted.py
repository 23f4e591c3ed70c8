"""A divergence that is planted into one side: the comparison of test_one_answer.py names its sample, and so does
`verify`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from harness import Program
from make_dataset import Dataset
from test_one_answer import FACTORS, NEAR, Case, Judge, differences, through_npz, through_shards, write_data
from verifying import verify


def edit_npz(dataset: Dataset, study: str) -> None:
    """One voxel is another one."""
    path = dataset.folder / f"{study}.npz"
    with np.load(path) as arrays:
        array = arrays["data"].copy()
    array[0, 0, 0] += 1
    np.savez(path, data=array)


def edit_table(path: Path, study: str, change: Callable[[str], str]) -> None:
    """One row is another one, or gone."""
    lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    assert any(study in line and change(line) != line for line in lines)
    path.write_text("".join(change(line) if study in line else line for line in lines), newline="")


PLANTED: dict[str, tuple[Callable[[Dataset], None], str]] = {
    "voxel": (lambda dataset: edit_npz(dataset, "s2"), "s2: voxels"),
    "slope": (
        lambda dataset: edit_table(dataset.meta, "s2", lambda line: line.replace("s2.nii.gz,1,", "s2.nii.gz,2,")),
        "s2: voxels",
    ),
    "spacing": (
        lambda dataset: edit_table(dataset.meta, "s2", lambda line: line.replace("[0.7, 0.9]", "[0.9, 0.7, 1.5]")),
        "s2: voxels",
    ),
    "sample": (lambda dataset: edit_table(dataset.labels, "s2", lambda _: ""), "s2: missing"),
    "label": (lambda dataset: edit_table(dataset.labels, "s2", lambda line: line[:-2] + "7\n"), "s2: labels"),
    "text": (lambda dataset: edit_table(dataset.reports, "s2", lambda line: line.replace("Nodule", "X")), "s2: text"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_divergence_is_seen(program: Program, tmp_path: Path, name: str) -> None:
    """Of one sample, on either side: the comparison names it, and nothing else."""
    plain = {factor: values[0] for factor, values in FACTORS.items()} | {"dtype": "f4", "spacing": "[0.7, 0.9]"}
    cases = [Case(f"s{at}", plain) for at in range(4)]
    dataset = write_data(tmp_path / "data", cases)
    judge = Judge(dataset, cases)
    before = judge.loaded()
    made = through_shards(program.materialize(dataset, tmp_path / "out"))
    assert differences(made, before, NEAR) == [] == differences(through_npz(dataset), before, NEAR)
    plant, what = PLANTED[name]
    plant(dataset)
    if name != "sample":
        after = judge.loaded()
        assert differences(through_npz(dataset), after, NEAR) == []
        (line,) = differences(made, after, NEAR)
        assert line.startswith(what), line
    (line,) = differences(through_npz(dataset), before, NEAR)
    assert line.startswith(what), line
    assert verify(program, tmp_path / "out", *dataset.flags())[0] != 0

"""A second start looks at metadata only, and never takes an old finding, or an old plan, for a new file."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from harness import Program
from make_dataset import Dataset
from openings import openings, wait_until_settled
from small_datasets import noise_dataset

LONG_AGO = 1_600_000_000


def old_dataset(out: Path) -> Dataset:
    """Three volumes whose times have settled: a file that was just written is not trusted to be finished."""
    dataset = noise_dataset(out, 3, (4, 4, 4))
    for path in dataset.folder.glob("*.npz"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    wait_until_settled()
    return dataset


def settled_dataset(out: Path) -> Dataset:
    """The same, with tables and folders that have settled too: now the plan as a whole is saved."""
    return old_dataset(out)


def tables(dataset: Dataset) -> list[Path]:
    """The three tables."""
    return [dataset.reports, dataset.meta, dataset.labels]


def planned(program: Program, dataset: Dataset, *flags: object) -> list[str]:
    """The studies that are left out. With `--rescale`, a new plan has nothing to look at in the values."""
    plan = json.loads(program.run("plan", *dataset.flags(), "--rescale", "table", "--json", *flags).stdout)
    return [left_out["study_id"] for left_out in plan["left_out"]]


def spoil(path: Path, mtime: int) -> None:
    """Make it no zip file any more, in place and of the same size, so that only its times can tell."""
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    os.utime(path, (mtime, mtime))


def test_an_unchanged_file_is_not_opened_again(program: Program, tmp_path: Path) -> None:
    """Only `--rescan` opens all; and a file that changed under its old modification time is opened, and it alone."""
    dataset = old_dataset(tmp_path)
    with openings(dataset.volumes()) as opened:
        assert planned(program, dataset) == [] and opened() == {"v00.npz", "v01.npz", "v02.npz"}
        assert planned(program, dataset) == [] and opened() == set()
        assert planned(program, dataset, "--limit", 2) == [] and opened() == set()
        assert planned(program, dataset, "--rescan") == [] and opened() == {"v00.npz", "v01.npz", "v02.npz"}
        spoil(dataset.folder / "v01.npz", LONG_AGO)
        opened()
        assert planned(program, dataset) == ["v01"] and opened() == {"v01.npz"}


def test_a_changed_file_is_opened_again(program: Program, tmp_path: Path) -> None:
    """Whether it became worse or better."""
    dataset = old_dataset(tmp_path)
    right = (dataset.folder / "v01.npz").read_bytes()
    assert planned(program, dataset) == []
    spoil(dataset.folder / "v01.npz", LONG_AGO + 1)
    assert planned(program, dataset) == ["v01"]
    (dataset.folder / "v01.npz").write_bytes(right)
    assert planned(program, dataset) == []
    (dataset.folder / "v02.npz").unlink()
    assert planned(program, dataset) == []


def test_the_array_option_has_findings_of_its_own(program: Program, tmp_path: Path) -> None:
    """What is a volume by default may be none under another name."""
    dataset = old_dataset(tmp_path)
    assert planned(program, dataset) == []
    assert "no usable volume" in program.refuses("plan", *dataset.flags(), "--array", "other")
    assert planned(program, dataset) == []


def test_findings_are_private_and_expendable(program: Program, own_cache: Path, tmp_path: Path) -> None:
    """Study ids are patient data; and rubbish in the cache changes nothing."""
    dataset = old_dataset(tmp_path)
    assert planned(program, dataset) == []
    files = list((own_cache / "ctwds-fs").iterdir())
    assert files and all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert stat.S_IMODE((own_cache / "ctwds-fs").stat().st_mode) == 0o700
    for content in (b"", b"{}", b"\xff", b'{"version": "0.1.0", "findings": {"v00.npz": 1}}'):
        for file in files:
            file.write_bytes(content)
        assert planned(program, dataset) == []


def texts(program: Program, dataset: Dataset, *flags: object) -> str:
    """The plan's digest, which covers every byte of the tables that is used."""
    return json.loads(program.run("plan", *dataset.flags(), "--json", *flags).stdout)["plan_digest"]


def test_a_second_start_reads_no_table(program: Program, tmp_path: Path) -> None:
    """Until one has changed."""
    dataset = settled_dataset(tmp_path)
    all_tables = {path.name for path in tables(dataset)}
    with openings(tables(dataset)) as opened:
        first = texts(program, dataset)
        assert opened() == all_tables
        assert texts(program, dataset) == first and opened() == set()
        assert texts(program, dataset, "--rescan") == first and opened() == all_tables
        table = dataset.reports.read_text(encoding="utf-8")
        dataset.reports.write_text(table.replace("findings of v01", "Findings of v01"), encoding="utf-8")
        changed = texts(program, dataset)
        assert changed != first
        dataset.reports.write_text(table, encoding="utf-8")
        assert texts(program, dataset) == first
        dataset.labels.unlink()
        assert str(dataset.labels) in program.refuses("plan", *dataset.flags())


def test_a_saved_plan_sees_volumes_come_and_go(program: Program, tmp_path: Path) -> None:
    """A folder's time tells that; so does the time of a folder that a link leads to."""
    dataset = settled_dataset(tmp_path)
    three = texts(program, dataset)
    parked = tmp_path / "parked.npz"
    (dataset.folder / "v02.npz").rename(parked)
    two = texts(program, dataset)
    assert two != three
    parked.rename(dataset.folder / "v02.npz")
    wait_until_settled()
    assert texts(program, dataset) == three
    elsewhere = tmp_path / "elsewhere"
    dataset.folder.rename(elsewhere)
    dataset.folder.mkdir()
    (dataset.folder / "link").symlink_to(elsewhere)
    wait_until_settled()
    linked = texts(program, dataset)
    assert linked != three
    (elsewhere / "v02.npz").rename(parked)
    assert texts(program, dataset) not in (linked, three)


def test_a_link_to_nowhere_may_become_a_folder(program: Program, tmp_path: Path) -> None:
    """Which changes no time of what was looked at: such a plan is not saved."""
    dataset = settled_dataset(tmp_path)
    (dataset.folder / "later").symlink_to(tmp_path / "later")
    wait_until_settled()
    before = texts(program, dataset)
    (tmp_path / "later").mkdir()
    for path in dataset.folder.glob("*.npz"):
        (tmp_path / "later" / path.name).write_bytes(path.read_bytes())
    (dataset.folder / "v02.npz").unlink()
    assert texts(program, dataset) != before


def test_each_choice_of_options_has_a_saved_plan_of_its_own(program: Program, own_cache: Path, tmp_path: Path) -> None:
    """And only the latest are kept."""
    dataset = settled_dataset(tmp_path)
    options = [("--samples-per-shard", n) for n in range(1, 12)]
    digests = [texts(program, dataset, *option) for option in options]
    assert len(set(digests)) == len(options)
    assert [texts(program, dataset, *option) for option in options] == digests
    assert len(list((own_cache / "ctwds-fs").glob("plan-*"))) <= 8


def test_a_saved_plan_serves_the_same_bytes(program: Program, tmp_path: Path) -> None:
    """Whether the plan was made or read."""
    dataset = settled_dataset(tmp_path)
    with openings(tables(dataset)) as opened:
        for number in range(2):
            opened()
            program.run("materialize", *dataset.flags(), "--output-dir", tmp_path / f"out{number}")
        assert opened() == set(), "the plan was not saved: this test shows nothing"
    first, second = ((tmp_path / f"out{number}" / "shard-000000.tar").read_bytes() for number in range(2))
    assert first == second
    spoil(dataset.folder / "v01.npz", LONG_AGO)
    result = program.run("materialize", *dataset.flags(), "--output-dir", tmp_path / "out2")
    assert "left out: 1 of 3 volumes" in result.stderr and "v01" in result.stderr

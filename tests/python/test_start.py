"""A second start looks at time stamps only, and never takes an old finding for a new file."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from harness import Program
from make_dataset import Dataset
from small_datasets import noise_dataset

LONG_AGO = 1_600_000_000  # a file that was just written is not trusted to be finished


def old_dataset(out: Path) -> Dataset:
    """Three volumes whose time stamps have settled."""
    dataset = noise_dataset(out, 3, (4, 4, 4))
    for path in dataset.folder.glob("*.npz"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    return dataset


def planned(program: Program, dataset: Dataset, *flags: object) -> list[str]:
    """The studies that are left out."""
    plan = json.loads(program.run("plan", *dataset.flags(), "--json", *flags).stdout)
    return [left_out["study_id"] for left_out in plan["left_out"]]


def spoil(path: Path, mtime: int) -> None:
    """Make it no zip file any more, in place and of the same size, so that only its time can tell."""
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    os.utime(path, (mtime, mtime))


def test_an_unchanged_file_is_not_opened_again(program: Program, tmp_path: Path) -> None:
    """Shown by a file that changed behind its time stamp's back, which only `--rescan` notices."""
    dataset = old_dataset(tmp_path)
    assert planned(program, dataset) == []
    spoil(dataset.folder / "v01.npz", LONG_AGO)
    assert planned(program, dataset) == []
    assert planned(program, dataset, "--rescan") == ["v01"]
    assert planned(program, dataset) == ["v01"]


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

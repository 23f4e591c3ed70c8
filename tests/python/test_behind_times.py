"""Changes behind a file's size, modification time and inode, as `touch -r` and `tar` make them: they are noticed by
every command. And changes of the ctime alone, as `chmod` and snapshots of hard links make them: the content decides."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from harness import Program, Stored, digest, shards
from make_dataset import Dataset
from openings import openings, wait_until_settled
from small_datasets import noise_dataset, write_dataset
from test_damage import HUGE, KINDS, Case, backward, forward, mapped, scattered
from verifying import verify

TABLES = ["reports", "meta", "labels", "exclude", "studies"]
EDITS = {
    "reports": ("findings of v01", "Findings of v01"),
    "meta": ("1,-1024,", "1,-8192,"),
    "labels": (",0.1,1", ",0.1,7"),
    "exclude": ("v02", "v03"),
    "studies": ("v03", "v02"),
}


def edit(path: Path, old: str, new: str) -> None:
    """Change a text in place, so that neither size, time nor inode tells."""
    before = path.stat()
    text = path.read_text(encoding="utf-8")
    assert old in text and len(old) == len(new)
    with path.open("r+", encoding="utf-8", newline="") as file:
        file.write(text.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


def plan(program: Program, dataset: Dataset, *flags: object) -> tuple[str, list[str]]:
    """The plan's digest, and the studies that are left out."""
    found = json.loads(program.run("plan", *dataset.flags(), "--json", *flags).stdout)
    return found["plan_digest"], [left_out["study_id"] for left_out in found["left_out"]]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_was_edited_in_place(program: Program, tmp_path: Path, table: str) -> None:
    """A saved plan of it is not used any more."""
    dataset = noise_dataset(tmp_path, 5, (4, 4, 4))
    (tmp_path / "exclude.csv").write_text("study_id\nv02\n")
    (tmp_path / "studies.txt").write_text("v00\nv01\nv03\n")
    files = {name: getattr(dataset, name, tmp_path / f"{name}.csv") for name in TABLES[:4]}
    files["studies"] = tmp_path / "studies.txt"
    flags = ["--studies", files["studies"]] if table == "studies" else ["--exclude", files["exclude"]]
    wait_until_settled()
    before = plan(program, dataset, *flags)
    with openings([dataset.reports, dataset.meta, dataset.labels]) as opened:
        assert plan(program, dataset, *flags) == before
        assert opened() == set(), "the plan was not saved: this test shows nothing"
    edit(files[table], *EDITS[table])
    after = plan(program, dataset, *flags)
    assert after != before
    assert plan(program, dataset, "--rescan", *flags) == after


def test_verify_and_reclaim_use_no_saved_plan(program: Program, tmp_path: Path) -> None:
    """They read the tables themselves; shards with labels of before are wrong, and no source is removed for them."""
    dataset = noise_dataset(tmp_path, 3, (4, 4, 4))
    wait_until_settled()
    made = program.materialize(dataset, tmp_path / "made")
    tables = [dataset.reports, dataset.meta, dataset.labels]
    with openings(tables) as opened:
        plan(program, dataset)
        assert opened() == set(), "the plan was not saved: this test shows nothing"
        sources = ["verify", "--sources", "--quarantine", tmp_path / "quarantine.csv"]
        for command in (["verify", "--webdataset-dir", made], sources, ["reclaim", "--shards", made]):
            program.run(*command, *dataset.flags())
            assert opened() == {path.name for path in tables}, command
    edit(dataset.labels, *EDITS["labels"])
    code, report = verify(program, made, *dataset.flags())
    assert code == 3 and "its labels are not those of the table" in report
    done = program.run("reclaim", "--shards", made, *dataset.flags(), "--delete", "--yes", check=False)
    assert done.returncode == 1 and len(dataset.volumes()) == 3, done.stdout
    again = program.materialize(dataset, tmp_path / "again")
    assert verify(program, again, *dataset.flags())[0] == 0


def chmod(path: Path) -> None:
    """As an administrator does who protects the files."""
    path.chmod(0o440)


def link(path: Path) -> None:
    """As a snapshot does that is made of hard links."""
    path.with_suffix(".snapshot").hardlink_to(path)


MADE_OF = {
    "rescaled": ["--volume", "rescaled", "--rescale", "1,-24"],
    "preprocessed": ["--volume", "preprocessed", "--rescale", "none", "--shape", "160,160,96"],
}


@pytest.mark.parametrize("read", [forward, backward, scattered, mapped])
@pytest.mark.parametrize("kind", [*KINDS, *MADE_OF])
def test_ctime_alone(program: Program, tmp_path: Path, kind: str, read: Callable[[Path, range], bytes]) -> None:
    """Every volume is served on, in whatever order it is read, also one that somebody is in the middle of."""
    shape, options = KINDS.get(kind, (HUGE, {}))
    made_of = MADE_OF.get(kind, [])
    dataset = noise_dataset(tmp_path, 4, shape, **options)
    flags = ["--samples-per-shard", 3, *made_of]
    case = Case(dataset, program.materialize(dataset, tmp_path / "right", *flags))
    right, wanted = (case.right / "shard-000000.tar").read_bytes(), case.bad_range()
    cold = ["--page-cache", "off"] if read is not mapped else []
    with program.mounted(dataset, *flags, "--cache-size", "1MiB", "--read-ahead", 0, *cold) as point:
        shard = point / "shard-000000.tar"
        with shard.open("rb", buffering=0) as file:
            begun = os.pread(file.fileno(), 4096, wanted.start)
            for change, path in zip([chmod, link] * 2, dataset.volumes(), strict=True):
                change(path)
            rest = b""
            while len(begun + rest) < len(wanted):
                rest += os.pread(file.fileno(), 1 << 16, wanted.start + len(begun + rest))
        assert (begun + rest)[: len(wanted)] == right[wanted.start : wanted.stop]
        assert read(shard, wanted) == right[wanted.start : wanted.stop]
        assert shard.read_bytes() == right
        case.check_all_but_the_bad(point)
        assert "ERROR" not in (point.parent / "log").read_text()


def test_ctime_alone_and_a_value_that_does_not_fit(program: Program, tmp_path: Path) -> None:
    """That is the error, as before; and no changed file."""
    dataset = write_dataset(tmp_path, {"v0.npz": {"data": np.full((4, 5, 6), 1e6, "f4")}})
    with program.mounted(dataset) as point:
        chmod(dataset.volumes()[0])
        with pytest.raises(OSError) as caught:
            (point / "shard-000000.tar").read_bytes()
        log = (point.parent / "log").read_text()
        assert caught.value.errno == errno.EIO and "float16 cannot hold" in log and "changed" not in log


@pytest.mark.parametrize("change", [chmod, link])
def test_ctime_alone_of_compressed_shards(program: Program, tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Their blocks have checksums, and the table of these is the planned one."""
    dataset = noise_dataset(tmp_path, 3, (32, 32, 32))
    right = program.materialize(dataset, tmp_path / "right")
    packed = program.materialize(dataset, tmp_path / "packed", "--compress", "zstd")
    with program.mounted(Stored(packed), "--page-cache", "off") as point:
        for path in shards(packed):
            change(path)
        assert [digest(path) for path in shards(point)] == [digest(path) for path in shards(right)]


def test_a_compressed_shard_that_changed_under_the_old_times(program: Program, tmp_path: Path) -> None:
    """No other byte is served from it than the planned ones."""
    dataset = noise_dataset(tmp_path, 1, (32, 32, 32))
    right = (program.materialize(dataset, tmp_path / "right") / "shard-000000.tar").read_bytes()
    stored = program.materialize(dataset, tmp_path / "stored", "--compress", "zstd")
    (shard,) = shards(stored)
    with program.mounted(Stored(stored), "--page-cache", "off") as point:
        before, content = shard.stat(), bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        with shard.open("r+b") as file:
            file.write(content)
        os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
        with (point / shard.name).open("rb", buffering=0) as file, pytest.raises(OSError) as caught:
            got = b""
            while part := file.read(4096):
                got += part
        assert right.startswith(got) and caught.value.errno in (errno.ESTALE, errno.EIO)

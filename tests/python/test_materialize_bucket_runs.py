"""Runs that write into one bucket: parts side by side, and runs that take over from older ones."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from bucket_runs import COUNT, FLAGS, Output, changed, held, tree
from harness import Program
from make_dataset import Dataset
from object_server import free_port
from objects import variables

PARTS = 2


def assert_is_besides_records(out: Output, right: Path) -> None:
    """The objects are the files of a folder in which other parts may have left their records."""
    found, expected = (
        {path: value for path, value in tree(folder).items() if ".ctwds" not in path} for folder in (out.folder, right)
    )
    assert found == expected


# --- parts -----------------------------------------------------------------------------------------------------------


def test_parts_at_once(program: Program, slivers: Dataset, sliver_files: Path, out: Output, tmp_path: Path) -> None:
    """They fill a prefix side by side, each with a record of its own; the merged manifest is that of one run."""
    commands = [out.command(slivers, "--partition", f"{index}/{PARTS}") for index in range(PARTS)]
    with ExitStack() as stack:
        runs = [stack.enter_context(program.running(*command, env=out.environment)) for command in commands]
        outputs = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0] * PARTS, outputs
    for index in range(PARTS):
        program.materialize(slivers, tmp_path / "parts", *FLAGS, "--partition", f"{index}/{PARTS}")
    assert tree(out.folder) == tree(tmp_path / "parts")
    flags = ["--endpoint-url", f"http://127.0.0.1:{out.between.port}", "--storage-timeout", 20]
    for _ in range(2):
        done = program.run("manifest", "merge", out.address, *flags, env=variables(free_port()))
        assert f"{COUNT} shards" in done.stdout
    program.run("manifest", "merge", tmp_path / "parts")
    assert_is_besides_records(out, tmp_path / "parts")
    assert (out.folder / "manifest.json").read_bytes() == (sliver_files / "manifest.json").read_bytes()
    program.run("verify", "--shards", out.address, "--integrity", env=out.environment)


def test_one_run_goes_on_where_a_part_was(program: Program, slivers: Dataset, sliver_files: Path, out: Output) -> None:
    """All read all records. Before, a merge lists what is missing, and no manifest comes into being."""
    out.run(program, slivers, "--partition", f"0/{PARTS}")
    message = program.refuses("manifest", "merge", out.address, env=out.environment)
    assert "1/2" in message and not (out.folder / "manifest.json").exists()
    assert "2 shards written, 2 kept" in out.run(program, slivers).stdout
    assert_is_besides_records(out, sliver_files)


def test_nothing_to_merge(program: Program, out: Output) -> None:
    """A prefix under which nothing is."""
    message = program.refuses("manifest", "merge", out.address, env=out.environment)
    assert out.address in message and "nothing" in message and not out.folder.exists()


# --- two runs --------------------------------------------------------------------------------------------------------


MOMENTS = {"journal": 2, "create": 1, "part": 1, "complete": 1, "index": 3, "manifest": 0}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("is_changed", [False, True], ids=["same plan", "other plan"])
def test_the_newer_run_wins(
    program: Program,
    slivers: Dataset,
    sliver_files: Path,
    out: Output,
    tmp_path: Path,
    moment: str,
    *,
    is_changed: bool,
) -> None:
    """Wherever the older one was, it ends with a message; the newer one completes, and what it made stays as it is,
    also where its plan is another one."""
    newer = changed(slivers, "v01", tmp_path) if is_changed else slivers
    expected = program.materialize(newer, tmp_path / "right", *FLAGS) if is_changed else sliver_files
    older = out.command(slivers, "--num-workers", 1)
    with held(program, out.bucket.port, older, moment, MOMENTS[moment]) as (process, gate):
        out.run(program, newer)
        out.assert_is(expected)
        gate.opened.set()
        _, said = process.communicate(timeout=30)
    out.assert_is(expected)
    if is_changed or process.returncode != 0 or moment not in ("index", "manifest"):  # then all was done
        assert process.returncode == 1 and "another materialize has taken over" in said, said
    assert f"0 shards written, {COUNT} kept" in out.run(program, newer).stdout


@pytest.mark.parametrize(("older", "newer"), [("0/2", None), (None, "0/2"), ("0/2", "0/2"), ("0/2", "2/4")])
def test_the_newer_run_wins_among_parts(
    program: Program, slivers: Dataset, sliver_files: Path, out: Output, older: str | None, newer: str | None
) -> None:
    """Runs that share a shard never go on at once, although their records are different objects."""

    def part(name: str | None) -> list[object]:
        return ["--partition", name] if name else []

    with held(program, out.bucket.port, out.command(slivers, *part(older), "--num-workers", 1), "part", 1) as (
        process,
        gate,
    ):
        out.run(program, slivers, *part(newer))
        out.assert_whole_shards(sliver_files)
        gate.opened.set()
        _, said = process.communicate(timeout=30)
        assert process.returncode == 1 and "another materialize has taken over" in said, said
    out.assert_whole_shards(sliver_files)
    out.run(program, slivers)
    assert_is_besides_records(out, sliver_files)


def test_parts_that_share_no_shard_leave_each_other_alone(
    program: Program, slivers: Dataset, sliver_files: Path, out: Output
) -> None:
    """The uploads of the one are not aborted by the other, and both do their work."""
    with held(program, out.bucket.port, out.command(slivers, "--partition", "0/2"), "complete") as (process, gate):
        out.run(program, slivers, "--partition", "1/2")
        gate.opened.set()
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
    program.run("manifest", "merge", out.address, env=out.environment)
    assert (out.folder / "manifest.json").read_bytes() == (sliver_files / "manifest.json").read_bytes()
    assert not out.open_uploads()


@pytest.mark.parametrize("count", [2, 5])
def test_runs_that_begin_at_once(
    program: Program, slivers: Dataset, sliver_files: Path, out: Output, count: int
) -> None:
    """One of them at least does all; the others do it too, or say that they were taken over."""
    with ExitStack() as stack:
        command = out.command(slivers)
        runs = [stack.enter_context(program.running(*command, env=out.environment)) for _ in range(count)]
        outputs = [run.communicate(timeout=60)[1] for run in runs]
    codes = [run.returncode for run in runs]
    assert 0 in codes and set(codes) <= {0, 1}, outputs
    assert all("taken over" in said for code, said in zip(codes, outputs, strict=True) if code), outputs
    out.assert_is(sliver_files)
    assert not out.open_uploads()
    assert f"0 shards written, {COUNT} kept" in out.run(program, slivers).stdout


# --- what others do under the prefix ---------------------------------------------------------------------------------


def test_a_prefix_that_is_removed_meanwhile(
    program: Program, slivers: Dataset, sliver_files: Path, out: Output
) -> None:
    """The run does not know any more what it has: it ends with a message, and the next one begins anew."""
    with held(program, out.bucket.port, out.command(slivers, "--num-workers", 1), "part", 2) as (process, gate):
        shutil.rmtree(out.folder)
        gate.opened.set()
        _, said = process.communicate(timeout=30)
        assert process.returncode == 1 and out.address in said and "panicked" not in said, said
    assert not (out.folder / "manifest.json").exists()
    out.run(program, slivers)
    out.assert_is(sliver_files)


def test_a_folder_moves_into_the_bucket_and_back(
    program: Program, slivers: Dataset, sliver_files: Path, out: Output, tmp_path: Path
) -> None:
    """With its record, whatever was begun here goes on there."""
    begun = tmp_path / "begun"
    shutil.copytree(sliver_files, begun)
    for name in ("manifest.json", "shard-000002.tar"):
        (begun / name).unlink()
    out.bucket.put(begun, out.prefix)
    assert f"1 shard written, {COUNT - 1} kept" in out.run(program, slivers).stdout
    out.assert_is(sliver_files)
    shutil.copytree(out.folder, tmp_path / "back")
    (tmp_path / "back" / "shard-000001.tar").unlink()
    command = ["materialize", *slivers.flags(), *FLAGS, "--output_dir", tmp_path / "back"]
    assert f"1 shard written, {COUNT - 1} kept" in program.run(*command).stdout
    assert tree(tmp_path / "back") == tree(sliver_files)


def test_objects_of_others_stay(program: Program, slivers: Dataset, sliver_files: Path, out: Output) -> None:
    """So many of them that a list of the prefix comes in several answers, the shards in the last one."""
    out.folder.mkdir(parents=True)
    names = [f"{number:04d}.txt" for number in range(2100)] + [
        "shard-000001.tar.bak",
        "manifest.json.old",
        "x/shard.tar",
    ]
    (out.folder / "x").mkdir()
    for name in names:
        (out.folder / name).write_text(name)
    out.run(program, slivers)
    (out.folder / "shard-000003.tar").unlink()
    assert f"1 shard written, {COUNT - 1} kept" in out.run(program, slivers).stdout
    assert tree(out.folder).keys() - set(names) == tree(sliver_files).keys()
    assert all((out.folder / name).read_text() == name for name in names)


@pytest.mark.parametrize("noise", [b"\0" * 300, b"\xff\xfe\n", b"{}\n[]\nnull\n", b'{"holder":{}}\n'])
def test_record_with_rubbish(program: Program, slivers: Dataset, sliver_files: Path, out: Output, noise: bytes) -> None:
    """What is no line of the record is passed over, and what is wholly recorded is kept."""
    out.run(program, slivers)
    journal = out.folder / ".ctwds" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + noise)
    (out.folder / "shard-000003.tar").unlink()
    for written in (1, 0):
        assert f"{COUNT - written} kept" in out.run(program, slivers).stdout
        out.assert_is(sliver_files)


def test_a_record_that_is_gone(program: Program, slivers: Dataset, sliver_files: Path, out: Output) -> None:
    """The shards might be anybody's: they are made again, compared, and left alone."""
    out.run(program, slivers)
    (out.folder / ".ctwds" / "journal.jsonl").unlink()
    (out.folder / "manifest.json").unlink()
    before = {path: (out.folder / path).stat().st_mtime_ns for path in tree(out.folder) if path.endswith(".tar")}
    out.run(program, slivers)
    out.assert_is(sliver_files)
    assert {path: (out.folder / path).stat().st_mtime_ns for path in before} == before

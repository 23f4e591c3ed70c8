"""Shards that are written into a bucket: the objects are the files of a folder on disk, however many runs and parts
write them, and whichever of them is killed or taken over."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from bucket_runs import FLAGS, Output, held, output, tree, upload_of
from harness import Program, digest, report_of, require_fuse, shards
from make_dataset import Dataset
from object_server import free_port
from objects import BUCKET, SECRET_KEY, Faults, Shards, proxy, require_s3, storage, variables
from small_datasets import flip_voxel, noise_dataset

COUNT = 5
PARTS = 2
PART = 8 << 20  # bytes of each part of an upload but the last
PACKED = ("--compress", "zstd")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A volume of a kilobyte for each of five shards."""
    return noise_dataset(tmp_path_factory.mktemp("tiny"), COUNT, (8, 8, 8))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A volume of 12.5 MiB (as float16) for each of two shards, which take two parts each, compressed as well."""
    return noise_dataset(tmp_path_factory.mktemp("large"), 2, (128, 128, 400), dtype="i2")


@pytest.fixture(scope="module")
def right(program: Program, tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run makes of the tiny data set on disk."""
    return program.materialize(tiny, tmp_path_factory.mktemp("right"), *FLAGS)


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Output]:
    """An output in an empty bucket."""
    require_s3()
    with output(tmp_path / "storage") as out:
        yield out


def changed(dataset: Dataset, study: str, tmp_path: Path) -> Dataset:
    """The data set with another text of the same length for one study: a plan that differs in one shard."""
    text, reports = dataset.reports.read_text(), tmp_path / "reports.csv"
    reports.write_text(text.replace(f"findings of {study}", f"FINDINGS of {study}"))
    assert reports.read_text() != text
    return replace(dataset, reports=reports)


# --- the result ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [(), PACKED], ids=["plain", "packed"])
def test_the_objects_are_the_files(
    program: Program, large: Dataset, out: Output, tmp_path: Path, codec: tuple[str, ...]
) -> None:
    """Names and bytes. Shards come by parts of 8 MiB, each upload is recorded before its first part, the record is
    written on condition that nobody else has, and the manifest comes last."""
    right = program.materialize(large, tmp_path / "right", *FLAGS, *codec)
    unrecorded: list[str] = []

    def look(path: str, number: int) -> int:
        if faults.kind(number) == "part" and upload_of(path) not in out.recorded("uploading", "upload"):
            unrecorded.append(path)
        return 0

    faults = out.between.faults = Faults(status=look)
    done = out.run(program, large, *codec, "--json")
    assert report_of(done)["written"] == len(shards(right)), done.stdout
    out.assert_is(right)
    assert not unrecorded and not out.open_uploads()
    parts = sum(-(-path.stat().st_size // PART) for path in shards(right))
    assert len(set(out.asked("part"))) == parts == 4
    kinds = faults.kinds()
    assert {number for number, kind in enumerate(kinds) if kind == "journal"} <= faults.conditional
    assert [kind for kind in kinds if kind not in ("read", "journal")][-1] == "manifest"
    program.run("verify", "--shards", out.address, "--integrity", env=out.environment)
    assert out.recorded("finished", "name") == {path.name for path in shards(right)}


def test_the_record_says_who_holds_it(program: Program, tiny: Dataset, out: Output) -> None:
    """Host and process of the run that is at work."""
    with held(program, out.bucket.port, out.command(tiny), "complete") as (process, _):
        (holder,) = [line["holder"] for line in out.journal() if "holder" in line]
        assert f"{process.pid}" in str(holder) and os.uname().nodename in str(holder)


@pytest.mark.parametrize("prefix", ["out", "ct/out/", "a b/ü+é=1&2"])
def test_what_is_written_is_read(program: Program, tiny: Dataset, right: Path, out: Output, prefix: str) -> None:
    """`verify`, `cat` and `mount` take the address that `materialize` took, whatever characters are in it."""
    out.prefix = prefix
    out.run(program, tiny)
    out.assert_is(right)
    require_fuse()
    program.run("verify", "--shards", out.address, *tiny.flags(), *FLAGS, env=out.environment)
    program.run("verify", "--shards", out.address, "--integrity", env=out.environment)
    command = [str(program.path), "cat", "--shards", out.address, "0"]
    done = subprocess.run(command, env=out.environment, capture_output=True, timeout=60, check=True)
    assert done.stdout == shards(right)[0].read_bytes()
    with program.mounted(Shards(out.address), env=out.environment) as point:
        assert [digest(path) for path in shards(point)] == [digest(path) for path in shards(right)]


def test_a_finished_run_does_nothing_again(program: Program, tiny: Dataset, right: Path, out: Output) -> None:
    """Nothing but its record is written."""
    out.run(program, tiny)
    out.between.faults = Faults()
    assert f"0 shards written, {COUNT} kept" in out.run(program, tiny).stdout
    assert set(out.between.faults.kinds()) <= {"read", "journal", "manifest"}
    out.assert_is(right)


def test_shards_of_a_bucket_into_a_bucket(
    program: Program, tiny: Dataset, right: Path, out: Output, tmp_path: Path
) -> None:
    """Compressed ones become plain ones."""
    source = out.bucket.put(program.materialize(tiny, tmp_path / "packed", *FLAGS, *PACKED), "packed")
    flags = ["--shards", source, "--output_dir", out.address]
    program.run("materialize", *flags, env=out.environment)
    assert [path.read_bytes() for path in shards(out.folder)] == [path.read_bytes() for path in shards(right)]
    program.run("verify", "--shards", out.address, "--integrity", env=out.environment)


def test_flags_of_the_storage(program: Program, tiny: Dataset, right: Path, out: Output) -> None:
    """The endpoint on the command line wins, and a public bucket takes what nobody signs."""
    endpoint = ["--endpoint-url", f"http://127.0.0.1:{out.between.port}"]
    program.run(*out.command(tiny, *endpoint), env=variables(free_port()))
    out.assert_is(right)
    shutil.rmtree(out.folder)
    nobody = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with storage(out.bucket.folder, is_public=True) as public, proxy(public.port) as between:
        flags = ["--no-sign-request", "--endpoint-url", f"http://127.0.0.1:{between.port}"]
        program.run(*out.command(tiny, *flags), env=nobody)
    out.assert_is(right)


# --- finished shards, and what somebody did to them ------------------------------------------------------------------


def test_recheck(program: Program, tiny: Dataset, right: Path, out: Output) -> None:
    """Every finished shard is read and compared with the record; one that differs is named and made again."""
    out.run(program, tiny)
    flip_voxel(out.folder / "shard-000003.tar")
    assert f"0 shards written, {COUNT} kept" in out.run(program, tiny).stdout
    out.between.faults = Faults()
    done = out.run(program, tiny, "--recheck")
    (line,) = [line for line in done.stderr.splitlines() if "made again" in line]
    assert "shard-000003.tar" in line and f"1 shard written, {COUNT - 1} kept" in done.stdout
    assert {path.partition("?")[0] for path in out.asked("create")} == {f"/{BUCKET}/{out.prefix}/shard-000003.tar"}
    out.assert_is(right)
    assert f"0 shards written, {COUNT} kept" in out.run(program, tiny, "--recheck").stdout


@pytest.mark.parametrize("change", ["delete", "truncate", "empty", "grow"])
def test_only_what_is_not_whole_is_made_again(
    program: Program, tiny: Dataset, right: Path, out: Output, change: str
) -> None:
    """A finished shard that was deleted or has another size is remade, also with the manifest gone."""
    out.run(program, tiny)
    victim = out.folder / "shard-000002.tar"
    size = victim.stat().st_size
    victim.unlink()
    if change != "delete":
        victim.write_bytes(bytes({"truncate": size - 1, "empty": 0, "grow": size + 512}[change]))
    (out.folder / "manifest.json").unlink()
    assert f"1 shard written, {COUNT - 1} kept" in out.run(program, tiny).stdout
    out.assert_is(right)


def test_samples_that_cannot_be_made(program: Program, out: Output, tmp_path: Path) -> None:
    """As on disk: a list of them, without their shards at first, then with their slots empty, then mended."""
    bad = noise_dataset(tmp_path / "bad", 4, (8, 8, 8))
    for number in (1, 3):
        flip_voxel(bad.folder / f"v{number:02d}.npz")
    command = ["materialize", *bad.flags(), *FLAGS, "--output_dir", tmp_path / "right"]
    assert program.run(*command, check=False).returncode == 1
    assert "v01" in out.refuses(program, bad)
    out.assert_is(tmp_path / "right")
    assert (out.folder / "quarantine.csv").exists()
    program.run(*command, "--on-error", "skip")
    out.run(program, bad, "--on-error", "skip")
    out.assert_is(tmp_path / "right")
    for number in (1, 3):
        flip_voxel(bad.folder / f"v{number:02d}.npz")
    program.run(*command)
    out.run(program, bad)
    out.assert_is(tmp_path / "right")
    assert not (out.folder / "quarantine.csv").exists()


def test_a_plan_that_differs_in_one_sample_remakes_its_shard(
    program: Program, tiny: Dataset, out: Output, tmp_path: Path
) -> None:
    """The others are kept."""
    out.run(program, tiny)
    other = changed(tiny, "v02", tmp_path)
    assert f"1 shard written, {COUNT - 1} kept" in out.run(program, other).stdout
    out.assert_is(program.materialize(other, tmp_path / "right", *FLAGS))


def test_folders_of_others_are_refused(program: Program, tiny: Dataset, right: Path, out: Output) -> None:
    """Another plan, another codec, and shards of which nothing is recorded: nothing there changes."""
    out.run(program, tiny)
    before = tree(out.folder)
    assert "another plan" in out.refuses(program, tiny, "--limit", COUNT - 1)
    message = out.refuses(program, tiny, *PACKED)
    assert "plain shards" in message and "--compress" in message and out.address in message
    assert tree(out.folder) == before
    shutil.rmtree(out.folder)
    out.folder.mkdir()
    shutil.copy(right / "shard-000001.tar", out.folder / "shard-000002.tar")
    message = out.refuses(program, tiny)
    assert "shard-000002.tar" in message and "no record" in message
    assert digest(out.folder / "shard-000002.tar") == digest(right / "shard-000001.tar")


# --- parts -----------------------------------------------------------------------------------------------------------


def test_parts_at_once(program: Program, tiny: Dataset, right: Path, out: Output, tmp_path: Path) -> None:
    """They fill a prefix side by side, each with a record of its own; the merged manifest is that of one run."""
    commands = [out.command(tiny, "--partition", f"{index}/{PARTS}") for index in range(PARTS)]
    with ExitStack() as stack:
        runs = [stack.enter_context(program.running(*command, env=out.environment)) for command in commands]
        outputs = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0] * PARTS, outputs
    for index in range(PARTS):
        program.materialize(tiny, tmp_path / "parts", *FLAGS, "--partition", f"{index}/{PARTS}")
    out.assert_is(tmp_path / "parts")
    flags = ["--endpoint-url", f"http://127.0.0.1:{out.between.port}", "--storage-timeout", 20]
    for _ in range(2):
        done = program.run("manifest", "merge", out.address, *flags, env=variables(free_port()))
        assert f"{COUNT} shards" in done.stdout
    program.run("manifest", "merge", tmp_path / "parts")
    out.assert_is(tmp_path / "parts")
    assert (out.folder / "manifest.json").read_bytes() == (right / "manifest.json").read_bytes()
    program.run("verify", "--shards", out.address, "--integrity", env=out.environment)


def test_one_run_goes_on_where_a_part_was(program: Program, tiny: Dataset, right: Path, out: Output) -> None:
    """All read all records. Before, a merge lists what is missing, and no manifest comes into being."""
    out.run(program, tiny, "--partition", f"0/{PARTS}")
    message = program.refuses("manifest", "merge", out.address, env=out.environment)
    assert "1/2" in message and not (out.folder / "manifest.json").exists()
    assert "2 shards written, 3 kept" in out.run(program, tiny).stdout
    assert {path: found for path, found in tree(out.folder).items() if "journal-" not in path} == tree(right)


def test_nothing_to_merge(program: Program, out: Output) -> None:
    """A prefix under which nothing is."""
    message = program.refuses("manifest", "merge", out.address, env=out.environment)
    assert out.address in message and "nothing" in message and not out.folder.exists()


# --- two runs --------------------------------------------------------------------------------------------------------


MOMENTS = {"journal": 2, "create": 1, "part": 1, "complete": 1, "index": 3, "manifest": 0}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("is_changed", [False, True], ids=["same plan", "other plan"])
def test_the_newer_run_wins(
    program: Program, tiny: Dataset, right: Path, out: Output, tmp_path: Path, moment: str, *, is_changed: bool
) -> None:
    """Wherever the older one was, it ends with a message; the newer one completes, and what it made stays as it is,
    also where its plan is another one."""
    newer = changed(tiny, "v01", tmp_path) if is_changed else tiny
    expected = program.materialize(newer, tmp_path / "right", *FLAGS) if is_changed else right
    older = out.command(tiny, "--num-workers", 1)
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
    program: Program, tiny: Dataset, right: Path, out: Output, older: str | None, newer: str | None
) -> None:
    """Runs that share a shard never go on at once, although their records are different objects."""

    def part(name: str | None) -> list[object]:
        return ["--partition", name] if name else []

    with held(program, out.bucket.port, out.command(tiny, *part(older), "--num-workers", 1), "part", 1) as (
        process,
        gate,
    ):
        out.run(program, tiny, *part(newer))
        out.assert_whole_shards(right)
        gate.opened.set()
        _, said = process.communicate(timeout=30)
        assert process.returncode == 1 and "another materialize has taken over" in said, said
    out.assert_whole_shards(right)
    out.run(program, tiny)
    assert {path: found for path, found in tree(out.folder).items() if "journal-" not in path} == tree(right)


def test_parts_that_share_no_shard_leave_each_other_alone(
    program: Program, tiny: Dataset, right: Path, out: Output
) -> None:
    """The uploads of the one are not aborted by the other, and both do their work."""
    with held(program, out.bucket.port, out.command(tiny, "--partition", "0/2"), "complete") as (process, gate):
        out.run(program, tiny, "--partition", "1/2")
        gate.opened.set()
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
    program.run("manifest", "merge", out.address, env=out.environment)
    assert (out.folder / "manifest.json").read_bytes() == (right / "manifest.json").read_bytes()
    assert not out.open_uploads()


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_web_server_can_only_be_read(program: Program, tiny: Dataset, tmp_path: Path) -> None:
    """Refused at once, with the address."""
    for address in ("https://127.0.0.1:1/out", "http://127.0.0.1:1/out"):
        flags = [*tiny.flags(), "--output_dir", address]
        done = program.run("materialize", *flags, cwd=tmp_path, check=False)
        assert done.returncode in (1, 2) and address in done.stderr and "read" in done.stderr
        assert not list(tmp_path.iterdir())


REFUSED: dict[str, tuple[Callable[[Output], dict[str, str]], str]] = {
    "wrong secret": (
        lambda out: out.environment | {"AWS_SECRET_ACCESS_KEY": SECRET_KEY[::-1]},
        "AWS_SECRET_ACCESS_KEY",
    ),
    "no secret": (
        lambda out: out.environment | {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        "no credentials",
    ),
    "nobody listens": (lambda out: variables(free_port()), "refused"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_credentials_that_do_not_fit(program: Program, tiny: Dataset, out: Output, why: str) -> None:
    """Address, reason and remedy, and no secret."""
    environment, remedy = REFUSED[why]
    message = program.refuses(*out.command(tiny, "--storage-timeout", 2), env=environment(out))
    assert out.address in message and remedy in message, message
    assert SECRET_KEY not in message and SECRET_KEY[::-1] not in message
    assert not out.folder.exists() and not out.open_uploads()


ANSWERS = {"NoSuchBucket": (404, "no such bucket"), "AccessDenied": (403, "credentials may not")}


@pytest.mark.parametrize("code", ANSWERS)
@pytest.mark.parametrize("is_all", [True, False], ids=["all", "writes"])
def test_where_nothing_can_be_written(program: Program, tiny: Dataset, out: Output, code: str, *, is_all: bool) -> None:
    """There is no such bucket, or the credentials give no right to it, or none to write."""
    status, remedy = ANSWERS[code]
    faults = out.between.faults = Faults(body=f"<Error><Code>{code}</Code><Message>no</Message></Error>")
    faults.status = lambda path, number: status if is_all or faults.kind(number) != "read" else 0
    message = out.refuses(program, tiny)
    assert out.address in message and remedy in message, message
    assert not out.folder.exists() and not out.open_uploads()

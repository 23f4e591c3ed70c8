"""Shards that are written into a bucket: the objects are the files of a folder on disk, however many runs and parts
write them, and whichever of them is killed or taken over."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from bucket_runs import COUNT, FLAGS, PACKED, Output, changed, held, tree, upload_of
from harness import Program, digest, report_of, require_fuse, shards
from make_dataset import Dataset
from object_server import free_port
from objects import BUCKET, SECRET_KEY, Faults, Shards, proxy, storage, variables
from small_datasets import flip_voxel, noise_dataset

PART = 8 << 20  # bytes of each part of an upload but the last


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A volume of 12.5 MiB (as float16) for each of two shards, which take two parts each, compressed as well."""
    return noise_dataset(tmp_path_factory.mktemp("large"), 2, (128, 128, 400), dtype="i2")


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


def test_the_record_says_who_holds_it(program: Program, slivers: Dataset, out: Output) -> None:
    """Host and process of the run that is at work."""
    with held(program, out.bucket.port, out.command(slivers), "complete") as (process, _):
        (holder,) = [line["holder"] for line in out.journal() if "holder" in line]
        assert f"{process.pid}" in str(holder) and os.uname().nodename in str(holder)


@pytest.mark.parametrize("prefix", ["out", "ct/out/", "a b/ü+é=1&2"])
def test_what_is_written_is_read(
    program: Program, slivers: Dataset, sliver_files: Path, out: Output, prefix: str
) -> None:
    """`verify`, `cat` and `mount` take the address that `materialize` took, whatever characters are in it."""
    out.prefix = prefix
    out.run(program, slivers)
    out.assert_is(sliver_files)
    require_fuse()
    program.run("verify", "--shards", out.address, *slivers.flags(), *FLAGS, env=out.environment)
    program.run("verify", "--shards", out.address, "--integrity", env=out.environment)
    command = [str(program.path), "cat", "--shards", out.address, "0"]
    done = subprocess.run(command, env=out.environment, capture_output=True, timeout=60, check=True)
    assert done.stdout == shards(sliver_files)[0].read_bytes()
    with program.mounted(Shards(out.address), env=out.environment) as point:
        assert [digest(path) for path in shards(point)] == [digest(path) for path in shards(sliver_files)]


def test_a_finished_run_does_nothing_again(program: Program, slivers: Dataset, sliver_files: Path, out: Output) -> None:
    """Nothing but its record is written."""
    out.run(program, slivers)
    out.between.faults = Faults()
    assert f"0 shards written, {COUNT} kept" in out.run(program, slivers).stdout
    assert set(out.between.faults.kinds()) <= {"read", "journal", "manifest"}
    out.assert_is(sliver_files)


def test_shards_of_a_bucket_into_a_bucket(
    program: Program, slivers: Dataset, sliver_files: Path, out: Output, tmp_path: Path
) -> None:
    """Compressed ones become plain ones."""
    source = out.bucket.put(program.materialize(slivers, tmp_path / "packed", *FLAGS, *PACKED), "packed")
    flags = ["--shards", source, "--output_dir", out.address]
    program.run("materialize", *flags, env=out.environment)
    assert [path.read_bytes() for path in shards(out.folder)] == [path.read_bytes() for path in shards(sliver_files)]
    program.run("verify", "--shards", out.address, "--integrity", env=out.environment)


def test_flags_of_the_storage(program: Program, slivers: Dataset, sliver_files: Path, out: Output) -> None:
    """The endpoint on the command line wins, and a public bucket takes what nobody signs."""
    endpoint = ["--endpoint-url", f"http://127.0.0.1:{out.between.port}"]
    program.run(*out.command(slivers, *endpoint), env=variables(free_port()))
    out.assert_is(sliver_files)
    shutil.rmtree(out.folder)
    nobody = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with storage(out.bucket.folder, is_public=True) as public, proxy(public.port) as between:
        flags = ["--no-sign-request", "--endpoint-url", f"http://127.0.0.1:{between.port}"]
        program.run(*out.command(slivers, *flags), env=nobody)
    out.assert_is(sliver_files)


# --- finished shards, and what somebody did to them ------------------------------------------------------------------


def test_recheck(program: Program, slivers: Dataset, sliver_files: Path, out: Output) -> None:
    """Every finished shard is read and compared with the record; one that differs is named and made again."""
    out.run(program, slivers)
    flip_voxel(out.folder / "shard-000003.tar")
    assert f"0 shards written, {COUNT} kept" in out.run(program, slivers).stdout
    out.between.faults = Faults()
    done = out.run(program, slivers, "--recheck")
    (line,) = [line for line in done.stderr.splitlines() if "made again" in line]
    assert "shard-000003.tar" in line and f"1 shard written, {COUNT - 1} kept" in done.stdout
    assert {path.partition("?")[0] for path in out.asked("create")} == {f"/{BUCKET}/{out.prefix}/shard-000003.tar"}
    out.assert_is(sliver_files)
    assert f"0 shards written, {COUNT} kept" in out.run(program, slivers, "--recheck").stdout


@pytest.mark.parametrize("change", ["delete", "truncate", "empty", "grow"])
def test_only_what_is_not_whole_is_made_again(
    program: Program, slivers: Dataset, sliver_files: Path, out: Output, change: str
) -> None:
    """A finished shard that was deleted or has another size is remade, also with the manifest gone."""
    out.run(program, slivers)
    victim = out.folder / "shard-000002.tar"
    size = victim.stat().st_size
    victim.unlink()
    if change != "delete":
        victim.write_bytes(bytes({"truncate": size - 1, "empty": 0, "grow": size + 512}[change]))
    (out.folder / "manifest.json").unlink()
    assert f"1 shard written, {COUNT - 1} kept" in out.run(program, slivers).stdout
    out.assert_is(sliver_files)


def test_samples_that_cannot_be_made(program: Program, out: Output, tmp_path: Path) -> None:
    """As on disk: a list of them, without their shards at first, then with their slots empty, then mended."""
    bad = noise_dataset(tmp_path / "bad", 4, (8, 8, 8))
    for number in (1, 3):
        flip_voxel(bad.folder / f"v{number:02d}.npz")
    command = ["materialize", *bad.flags(), *FLAGS, "--output_dir", tmp_path / "right"]
    assert program.run(*command, check=False).returncode == 1
    assert "v01" in out.refuses(program, bad)
    out.assert_is(tmp_path / "right")
    assert (out.folder / "quarantine.csv").exists() and not out.open_uploads()
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
    program: Program, slivers: Dataset, out: Output, tmp_path: Path
) -> None:
    """The others are kept."""
    out.run(program, slivers)
    other = changed(slivers, "v02", tmp_path)
    assert f"1 shard written, {COUNT - 1} kept" in out.run(program, other).stdout
    out.assert_is(program.materialize(other, tmp_path / "right", *FLAGS))


def test_folders_of_others_are_refused(program: Program, slivers: Dataset, sliver_files: Path, out: Output) -> None:
    """Another plan, another codec, and shards of which nothing is recorded: nothing there changes."""
    out.run(program, slivers)
    before = tree(out.folder)
    assert "another plan" in out.refuses(program, slivers, "--limit", COUNT - 1)
    message = out.refuses(program, slivers, *PACKED)
    assert "plain shards" in message and "--compress" in message and out.address in message
    assert tree(out.folder) == before
    shutil.rmtree(out.folder)
    out.folder.mkdir()
    shutil.copy(sliver_files / "shard-000001.tar", out.folder / "shard-000002.tar")
    message = out.refuses(program, slivers)
    assert "shard-000002.tar" in message and "no record" in message
    assert digest(out.folder / "shard-000002.tar") == digest(sliver_files / "shard-000001.tar")


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_web_server_can_only_be_read(program: Program, slivers: Dataset, tmp_path: Path) -> None:
    """Refused at once, with the address."""
    for address in ("https://127.0.0.1:1/out", "http://127.0.0.1:1/out"):
        flags = [*slivers.flags(), "--output_dir", address]
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
def test_credentials_that_do_not_fit(program: Program, slivers: Dataset, out: Output, why: str) -> None:
    """Address, reason and remedy, and no secret."""
    environment, remedy = REFUSED[why]
    message = program.refuses(*out.command(slivers, "--storage-timeout", 2), env=environment(out))
    assert out.address in message and remedy in message, message
    assert SECRET_KEY not in message and SECRET_KEY[::-1] not in message
    assert not out.folder.exists() and not out.open_uploads()


ANSWERS = {"NoSuchBucket": (404, "no such bucket"), "AccessDenied": (403, "credentials may not")}


@pytest.mark.parametrize("code", ANSWERS)
@pytest.mark.parametrize("is_all", [True, False], ids=["all", "writes"])
def test_where_nothing_can_be_written(
    program: Program, slivers: Dataset, out: Output, code: str, *, is_all: bool
) -> None:
    """There is no such bucket, or the credentials give no right to it, or none to write."""
    status, remedy = ANSWERS[code]
    faults = out.between.faults = Faults(body=f"<Error><Code>{code}</Code><Message>no</Message></Error>")
    faults.status = lambda path, number: status if is_all or faults.kind(number) != "read" else 0
    message = out.refuses(program, slivers)
    assert out.address in message and remedy in message, message
    assert not out.folder.exists() and not out.open_uploads()

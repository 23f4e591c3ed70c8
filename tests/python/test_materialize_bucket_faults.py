"""Shards on their way into a bucket while runs are killed and interrupted, and requests are refused, cut or answered in
vain: the same command ends with the right objects, and no upload is left open."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from bucket_runs import COUNT, FLAGS, Output, every_other, held, killed_at, output, tree, upload_of
from harness import Program, shards
from make_dataset import Dataset
from object_server import PROGRAMS
from objects import BUCKET, Faults, moto, proxy, require_s3, variables
from small_datasets import noise_dataset

PERCENT = range(4, 100, 13)
SLOW_DOWN = "<Error><Code>SlowDown</Code><Message>later</Message></Error>"
# Prints digests by key, and the number of parts of open uploads, as Amazon's own client sees them.
LOOK = """
import boto3, hashlib, json, sys

client = boto3.client("s3", region_name="us-east-1")
listed = client.list_objects_v2(Bucket=sys.argv[1], Prefix=sys.argv[2]).get("Contents", [])
keys = [found["Key"] for found in listed]
bodies = {key: client.get_object(Bucket=sys.argv[1], Key=key)["Body"].read() for key in keys}
uploads = client.list_multipart_uploads(Bucket=sys.argv[1]).get("Uploads", [])
of = [client.list_parts(Bucket=sys.argv[1], Key=one["Key"], UploadId=one["UploadId"]) for one in uploads]
digests = {key.removeprefix(sys.argv[2]): hashlib.sha256(body).hexdigest() for key, body in bodies.items()}
print(json.dumps([digests, sum(len(parts.get("Parts", [])) for parts in of)]))
"""


@pytest.fixture(scope="module")
def large(program: Program, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    """Two shards of two parts each, and what a run makes of them on disk."""
    data = noise_dataset(tmp_path_factory.mktemp("large"), 2, (128, 128, 288), dtype="i2")
    return data, program.materialize(data, tmp_path_factory.mktemp("large-right"), *FLAGS)


@pytest.fixture(scope="module")
def requests(program: Program, slivers: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The kinds of requests that an undisturbed run makes."""
    require_s3()
    with output(tmp_path_factory.mktemp("storage")) as out:
        out.run(program, slivers)
        return out.between.faults.kinds()


# --- kills -----------------------------------------------------------------------------------------------------------


def assert_goes_on(program: Program, dataset: Dataset, right: Path, out: Output) -> None:
    """The same command keeps what is recorded as finished, aborts the uploads of the dead run, and ends as any run."""
    out.assert_whole(right)
    finished, recorded = out.recorded("finished", "name"), out.recorded("uploading", "upload")
    orphans = recorded & out.open_uploads()
    faults = out.between.faults = Faults()
    done = out.run(program, dataset)
    begun = {path.partition("?")[0].rpartition("/")[2] for path in out.asked("create")}
    assert not begun & finished, faults.requests
    assert f"{len(shards(right)) - len(begun)} kept" in done.stdout, done.stdout
    assert orphans <= {upload_of(path) for path in out.asked("abort")}, faults.requests
    assert not recorded & out.open_uploads()
    out.assert_is(right)


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("percent", PERCENT)
def test_a_run_that_was_killed_is_continued(
    program: Program,
    slivers: Dataset,
    sliver_files: Path,
    requests: list[str],
    out: Output,
    percent: int,
    *,
    is_done: bool,
) -> None:
    """With any of its requests, before the storage has it, or when the storage has done it."""
    moment = len(requests) * percent // 100
    assert killed_at(program, out, out.command(slivers), moment, is_done=is_done) is None
    assert_goes_on(program, slivers, sliver_files, out)


@pytest.mark.parametrize("moment", [8, 11, 14, 17])
def test_a_run_that_was_killed_within_large_shards(
    program: Program, large: tuple[Dataset, Path], out: Output, moment: int
) -> None:
    """Parts of several megabytes are in flight."""
    killed_at(program, out, out.command(large[0]), moment, is_done=moment % 2 == 0)
    assert_goes_on(program, *large, out)


def test_kills_again_and_again(
    program: Program, slivers: Dataset, sliver_files: Path, requests: list[str], out: Output
) -> None:
    """Each run does something before it dies, and at last one comes to the end."""
    moment = len(requests) * 3 // 5
    for _ in range(8):
        done = killed_at(program, out, out.command(slivers, "--num-workers", 1), moment, is_done=True)
        out.assert_whole(sliver_files)
        if done:
            assert done.returncode == 0, done.stderr
            break
    else:
        pytest.fail(f"no run comes to the end: {out.between.faults.requests}")
    out.assert_is(sliver_files)


@pytest.mark.parametrize("moment", [2, 3, 4, 7, 10, 14])
def test_killed_while_it_takes_over(
    program: Program, slivers: Dataset, sliver_files: Path, out: Output, moment: int
) -> None:
    """The uploads of the first run are not forgotten by the third."""
    killed_at(program, out, out.command(slivers), "complete", is_done=False)
    orphans = out.recorded("uploading", "upload") & out.open_uploads()
    assert orphans
    assert killed_at(program, out, out.command(slivers), moment, is_done=True) is None
    assert_goes_on(program, slivers, sliver_files, out)
    assert not orphans & out.open_uploads()


@pytest.mark.parametrize("kind", ["journal", "create", "part", "complete", "index", "manifest"])
def test_interrupted(program: Program, slivers: Dataset, sliver_files: Path, out: Output, kind: str) -> None:
    """Ctrl-C at each kind of request: no upload is left open, and the message says how to go on."""
    with held(program, out.bucket.port, out.command(slivers), kind, passing=1 if kind != "manifest" else 0) as (
        process,
        gate,
    ):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        gate.opened.set()
        _, said = process.communicate(timeout=30)
    if process.returncode != 0 or kind not in ("index", "manifest"):  # then all was done
        assert process.returncode == 130 and "interrupted" in said and "same command" in said, said
    assert not out.open_uploads() and not out.parts()
    assert_goes_on(program, slivers, sliver_files, out)


def test_interrupted_while_nobody_answers(program: Program, slivers: Dataset, sliver_files: Path, out: Output) -> None:
    """The command does not wait for the network."""
    with held(program, out.bucket.port, out.command(slivers, "--storage-timeout", 100), "part") as (process, _):
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130 and time.monotonic() - begun < 20, said
    assert_goes_on(program, slivers, sliver_files, out)


# --- requests that fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [503, -1])
def test_every_third_request_fails(
    program: Program, slivers: Dataset, sliver_files: Path, out: Output, status: int
) -> None:
    """Throttled, a fault of the server, or a connection that is closed."""
    out.between.faults = Faults(status=lambda path, number: status if number % 3 == 2 else 0, body=SLOW_DOWN)
    out.run(program, slivers)
    out.assert_is(sliver_files)
    assert not out.open_uploads()


LOST = [("create",), ("part",), ("journal",), ("complete",), ("index", "manifest"), ("read", "delete", "abort")]


@pytest.mark.parametrize("kinds", [*LOST, tuple(sum(LOST, ()))], ids="+".join)
def test_answers_that_are_lost(
    program: Program, slivers: Dataset, sliver_files: Path, requests: list[str], out: Output, kinds: tuple[str, ...]
) -> None:
    """The storage has done what was asked, and the run does not know: it asks again, and takes its own record and its
    own shard for its own. Only of an upload whose identity nobody heard of, nothing is known; it has no parts."""
    killed_at(program, out, out.command(slivers), len(requests) * 2 // 5, is_done=False)
    faults = out.between.faults = Faults()
    faults.lost = every_other(faults, *kinds)
    out.run(program, slivers)
    out.assert_is(sliver_files)
    assert "create" in kinds or not out.open_uploads()


def test_large_shards_through_a_bad_network(program: Program, large: tuple[Dataset, Path], out: Output) -> None:
    """Refusals, connections that break, and lost answers at once."""
    bad = {1: 503, 4: -1}
    faults = out.between.faults = Faults(status=lambda path, number: bad.get(number % 7, 0), body=SLOW_DOWN)
    faults.lost = every_other(faults, "part", "complete", "journal")
    out.run(program, large[0])
    out.assert_is(large[1])
    assert not out.open_uploads()


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("complete", 200, "InternalError"),
        ("journal", 409, "ConditionalRequestConflict"),
        ("complete", 409, "OperationAborted"),
    ],
)
def test_refusals_of_a_kind(
    program: Program, slivers: Dataset, sliver_files: Path, out: Output, kind: str, status: int, code: str
) -> None:
    """What services answer to be asked again: an error behind a status that all is well, and conflicts."""
    faults = out.between.faults = Faults(body=f"<Error><Code>{code}</Code><Message>again</Message></Error>")
    picked = every_other(faults, kind)
    faults.status = lambda path, number: status if picked(path, number) else 0
    out.run(program, slivers)
    out.assert_is(sliver_files)


@pytest.mark.parametrize("percent", [0, 25, 35, 95])
def test_a_network_that_is_gone(
    program: Program, slivers: Dataset, sliver_files: Path, requests: list[str], out: Output, percent: int
) -> None:
    """For longer than the user wants to wait: an error in time, and the same command goes on later."""
    last = len(requests) * percent // 100
    out.between.faults = Faults(status=lambda path, number: -1 if number >= last else 0)
    begun = time.monotonic()
    message = out.refuses(program, slivers, "--storage-timeout", 1)
    assert out.address in message and time.monotonic() - begun < 15
    assert_goes_on(program, slivers, sliver_files, out)


CODES = {
    "ExpiredToken": (400, "expired"),
    "AccessDenied": (403, "credentials may not"),
    "QuotaExceeded": (403, "QuotaExceeded"),
}


@pytest.mark.parametrize("code", CODES)
def test_rights_that_end(program: Program, slivers: Dataset, sliver_files: Path, out: Output, code: str) -> None:
    """In the middle of a run: it says so at once, and goes on with better ones."""
    status, remedy = CODES[code]
    faults = out.between.faults = Faults(body=f"<Error><Code>{code}</Code><Message>no</Message></Error>")
    faults.status = lambda path, number: status if faults.kinds()[: number + 1].count("part") > 1 else 0
    begun = time.monotonic()
    message = out.refuses(program, slivers)
    assert out.address in message and remedy in message and time.monotonic() - begun < 20, message
    assert_goes_on(program, slivers, sliver_files, out)


# --- a server of another maker ---------------------------------------------------------------------------------------


def look(port: int, prefix: str) -> tuple[dict[str, str], int]:
    """The digests of the objects under a prefix, and the number of parts in open uploads."""
    command = [str(PROGRAMS / "python"), "-c", LOOK, BUCKET, prefix]
    done = subprocess.run(command, env=variables(port), capture_output=True, text=True, timeout=60, check=True)
    digests, parts = json.loads(done.stdout)
    return {key: "" if key.startswith(".ctwds/") else value for key, value in digests.items()}, parts


def test_another_server(program: Program, slivers: Dataset, sliver_files: Path, tmp_path: Path) -> None:
    """A run that is killed, one that is interrupted, and one that comes to the end through lost answers."""
    (tmp_path / "nothing").mkdir()
    with moto(tmp_path / "nothing", "") as port, proxy(port) as between:
        address, environment = f"s3://{BUCKET}/a b/ü+é", variables(between.port)
        command = ["materialize", *slivers.flags(), *FLAGS, "--output-dir", address]
        for sent, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
            with held(program, port, command, "part", passing=1) as (process, gate):
                process.send_signal(sent)
                time.sleep(0.1)
                gate.opened.set()
                _, said = process.communicate(timeout=60)
                assert process.returncode == code, said
        assert look(port, "a b/ü+é/")[1] == 0
        faults = between.faults = Faults()
        faults.lost = every_other(faults, "part", "complete", "journal", "index", "manifest")
        program.run(*command, env=environment)
        assert look(port, "a b/ü+é/") == (tree(sliver_files), 0)
        program.run("verify", "--shards", address, "--integrity", env=environment)
        assert f"0 shards written, {COUNT} kept" in program.run(*command, "--recheck", env=environment).stdout

"""Finished shards in object storage: the bytes of the files, whatever the network does, or an error that says why."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from harness import (
    REPOSITORY,
    SMALL_FLAGS,
    Program,
    digest,
    files_in,
    mount_folder,
    require_fuse,
    shards,
    wait_until,
)
from make_dataset import Dataset
from object_server import free_port, serving
from objects import (
    BUCKET,
    SECRET_KEY,
    Faults,
    Proxy,
    Shards,
    Storage,
    cat,
    moto,
    upload,
    variables,
    why_not,
)
from small_datasets import noise_dataset


@pytest.fixture(scope="module")
def packed(program: Program, small: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of the small data set, compressed."""
    return program.materialize(small, tmp_path_factory.mktemp("packed"), *SMALL_FLAGS, "--compress", "zstd")


@pytest.fixture(scope="module")
def address(bucket: Storage, right: Path) -> str:
    """The plain shards in the bucket."""
    return bucket.put(right, "plain")


@pytest.fixture(scope="module")
def packed_address(bucket: Storage, packed: Path) -> str:
    """The compressed shards in the bucket."""
    return bucket.put(packed, "packed")


@pytest.mark.parametrize("which", ["address", "packed_address"])
def test_shards_are_read_from_a_bucket(
    program: Program, right: Path, between: Proxy, which: str, request: pytest.FixtureRequest
) -> None:
    """Plain and compressed shards are the bytes of the plain files."""
    address = request.getfixturevalue(which)
    for number, path in enumerate(shards(right)):
        assert cat(program, address, number, variables(between.port)) == path.read_bytes()
    assert between.faults.requests, "the proxy is on the way"


@pytest.mark.parametrize("codec", [(), ("--compress", "zstd")], ids=["plain", "packed"])
def test_a_volume_of_several_requests(
    program: Program, bucket: Storage, between: Proxy, tmp_path: Path, codec: tuple[str, ...]
) -> None:
    """A volume of 25 MiB is asked for by seven requests, of which four are in flight: some break off, some are refused,
    and they come in any order. Two readers at once get the same."""
    large = noise_dataset(tmp_path / "large", 1, (256, 256, 200))
    files = program.materialize(large, tmp_path / "files")
    made = program.materialize(large, tmp_path / "made", *codec) if codec else files
    # Of what is only put into its folder, the server would compute the ETag for each request.
    address = upload(bucket.port, made, f"large-{len(codec)}")
    lengths = [2_000_000, None, 70_000, None, None]
    between.faults = Faults(
        cut=lambda path, number: lengths[number % 5], status=lambda path, number: 503 if number % 7 == 3 else 0
    )
    environment, (right,) = variables(between.port), shards(files)
    assert cat(program, address, 0, environment) == right.read_bytes()
    assert len([wanted for _, path, wanted in between.faults.requests if path.endswith(".tar")]) > 7
    program.run("verify", "--shards", address, "--integrity", env=environment)
    with program.mounted(Shards(address), "--page-cache", "off", env=environment) as point:
        command = ["sha256sum", str(shards(point)[0])]
        readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [reader.communicate(timeout=120)[0].split()[0] for reader in readers] == [digest(right)] * 2


@pytest.mark.parametrize("which", ["address", "packed_address"])
def test_a_mount_of_a_bucket(
    program: Program, right: Path, between: Proxy, which: str, request: pytest.FixtureRequest
) -> None:
    """A mount shows sizes and bytes of the files, and secrets stand neither in its status nor in the process list."""
    address = request.getfixturevalue(which)
    with program.mounted(Shards(address), env=variables(between.port)) as point:
        assert [path.stat().st_size for path in shards(point)] == [path.stat().st_size for path in shards(right)]
        assert {path.name: path.read_bytes() for path in shards(point)} == {
            path.name: path.read_bytes() for path in shards(right)
        }
        status = program.run("status", point, "--json").stdout
        assert SECRET_KEY not in status and json.loads(status)
        daemons = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert SECRET_KEY not in daemons


def test_a_plan_asks_once_for_each_sample(program: Program, between: Proxy, packed_address: str) -> None:
    """Headers, small members and seek tables of a sample come by one request."""
    program.run("plan", "--shards", packed_address, env=variables(between.port))
    # One for the manifest, one for the beginning of each shard, and one behind each volume.
    assert len(between.faults.requests) <= 1 + 2 + 6, between.faults.requests


def test_bodies_that_break_off_are_asked_for_again(program: Program, right: Path, between: Proxy, address: str) -> None:
    """Every third answer ends early."""
    between.faults = Faults(cut=lambda path, number: 20_000 if number % 3 == 2 else None)
    assert cat(program, address, 1, variables(between.port)) == shards(right)[1].read_bytes()


@pytest.mark.parametrize("status", [503, 429, 500, -1])
def test_refusals_that_pass_are_waited_for(
    program: Program, right: Path, between: Proxy, address: str, status: int
) -> None:
    """Every other request is refused, or its connection is closed."""
    slow_down = "<Error><Code>SlowDown</Code><Message>later</Message></Error>"
    between.faults = Faults(status=lambda path, number: status if number % 2 == 0 else 0, body=slow_down)
    assert cat(program, address, 0, variables(between.port)) == shards(right)[0].read_bytes()


def test_a_network_that_is_gone_ends_in_an_error_in_time(program: Program, address: str) -> None:
    """Where nobody listens, the error names the object, within the time that the user chose."""
    begun = time.monotonic()
    message = why_not(program, address, variables(free_port()), "--storage-timeout", 2)
    assert f"{address}/manifest.json" in message and "refused" in message
    assert time.monotonic() - begun < 20


CODES = {
    "AccessDenied": (403, "may not read"),
    "InvalidAccessKeyId": (403, "AWS_ACCESS_KEY_ID"),
    "SignatureDoesNotMatch": (403, "AWS_SECRET_ACCESS_KEY"),
    "RequestTimeTooSkewed": (403, "clock"),
    "ExpiredToken": (400, "expired"),
    "AuthorizationHeaderMalformed": (400, "AWS_REGION"),
    "PermanentRedirect": (301, "AWS_REGION"),
    "NoSuchBucket": (404, "no such bucket"),
    "SlowDown": (503, "--storage-timeout"),
}


@pytest.mark.parametrize("code", CODES)
def test_each_refusal_has_its_remedy(program: Program, between: Proxy, address: str, code: str) -> None:
    """What a code of S3 means stands in the message."""
    status, remedy = CODES[code]
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    between.faults = Faults(status=lambda path, number: status, body=body)
    begun = time.monotonic()
    message = why_not(program, address, variables(between.port), "--storage-timeout", 3)
    assert remedy in message and address in message, message
    assert time.monotonic() - begun < 30


def test_what_is_not_there(program: Program, bucket: Storage, address: str) -> None:
    """A prefix, a bucket, a name of a bucket, and the right secret."""
    environment = variables(bucket.port)
    assert "no manifest.json here" in why_not(program, f"s3://{BUCKET}/nowhere", environment)
    assert "bucket" in why_not(program, "s3://nobucket/plain", environment)
    assert "no bucket" in why_not(program, "s3://", environment)
    assert "AWS_SECRET_ACCESS_KEY" in why_not(program, address, variables(bucket.port, AWS_SECRET_ACCESS_KEY="wrong"))


def test_an_object_that_was_replaced_is_an_error(
    program: Program, right: Path, between: Proxy, bucket: Storage
) -> None:
    """Another object under the name of a shard is ESTALE, never other voxels."""
    address = bucket.put(right, "replaced")
    with program.mounted(Shards(address), "--cache-size", "2MiB", env=variables(between.port)) as point:
        first, second = shards(point)
        assert first.read_bytes() == shards(right)[0].read_bytes()
        changed = bytearray(shards(right)[1].read_bytes())
        changed[-20_000] ^= 1
        bucket.object(f"{address}/{second.name}").write_bytes(changed)
        with pytest.raises(OSError) as caught:
            second.read_bytes()
        assert caught.value.errno == 116, "ESTALE"


def test_an_answer_of_another_object_is_never_mixed_in(program: Program, between: Proxy, address: str) -> None:
    """A server may answer the requests for one volume from two objects."""

    def tag(path: str, number: int) -> str | None:
        return '"other"' if path.endswith("shard-000000.tar") and number > 8 else None

    between.faults = Faults(tag=tag)
    message = why_not(program, address, variables(between.port))
    assert "has changed since it was planned" in message and "shard-000000.tar" in message


def test_status_answers_while_the_network_is_gone(program: Program, right: Path, between: Proxy, address: str) -> None:
    """`stat` and `status` do not wait for a read that does; it ends in an error that is not kept."""
    with program.mounted(Shards(address), "--storage-timeout", 4, env=variables(between.port)) as point:
        between.faults = Faults(status=lambda path, number: -1)
        reader = subprocess.Popen(["cat", shards(point)[0]], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            wait_until(lambda: bool(between.faults.requests), "the mount asks")
            begun = time.monotonic()
            assert shards(point)[1].stat().st_size == shards(right)[1].stat().st_size
            program.run("status", point)
            assert time.monotonic() - begun < 3
            assert reader.wait(60) == 1
        finally:
            reader.kill()
            reader.wait()
        between.faults = Faults()
        assert shards(point)[0].read_bytes() == shards(right)[0].read_bytes(), "the error was not kept"


def test_an_unmount_does_not_wait_for_the_network(program: Program, between: Proxy, address: str) -> None:
    """A mount whose storage is gone is ended at once."""
    with program.mounted(Shards(address), "--storage-timeout", 100, env=variables(between.port)) as point:
        between.faults = Faults(status=lambda path, number: -1)
        reader = subprocess.Popen(["cat", shards(point)[0]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: bool(between.faults.requests), "the mount asks")
            reader.kill()
            reader.wait(20)
        finally:
            reader.kill()
        begun = time.monotonic()
    assert time.monotonic() - begun < 15


def test_another_server_with_what_amazons_client_uploaded(program: Program, right: Path, packed: Path) -> None:
    """Keys with blanks and letters of other languages are taken as they are."""
    with moto(packed, "a b/ü+é") as port:  # keys are taken as they are
        address, environment = f"s3://{BUCKET}/a b/ü+é/", variables(port)
        assert [cat(program, address, number, environment) for number in range(2)] == [
            path.read_bytes() for path in shards(right)
        ]
        program.run("verify", "--shards", address, "--integrity", env=environment)


def test_a_web_server_without_ranges_is_named(program: Program, right: Path, tmp_path: Path) -> None:
    """Python's own server sends whole files only."""
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(right), str(port)]
    with serving(port, *command):
        assert "requests of ranges" in why_not(program, f"http://127.0.0.1:{port}", variables(port))


@pytest.mark.parametrize("which", ["address", "packed_address"])
def test_verify_reads_a_bucket(
    program: Program, small: Dataset, bucket: Storage, which: str, request: pytest.FixtureRequest
) -> None:
    """It compares with the sources, and finds one byte that differs."""
    address, environment = request.getfixturevalue(which), variables(bucket.port)
    program.run("verify", "--shards", address, *small.flags(), *SMALL_FLAGS, env=environment)
    program.run("verify", "--shards", address, "--integrity", env=environment)
    shard = bucket.object(f"{address}/shard-000001.tar")
    sound = shard.read_bytes()
    shard.write_bytes(sound[:-30_000] + bytes([sound[-30_000] ^ 1]) + sound[-29_999:])
    try:
        assert program.run("verify", "--shards", address, "--integrity", env=environment, check=False).returncode == 3
    finally:
        shard.write_bytes(sound)


def test_the_package_opens_an_address(program: Program, right: Path, bucket: Storage, packed_address: str) -> None:
    """`ctwds.open` takes an address, and so do processes that are forked after it."""
    code = f"""
import ctwds, os, torch
data = ctwds.open({packed_address!r})
first, second = data[0].volume, data[1].volume
if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0
else:  # its parent's connections are not its own
    os._exit(0 if (data[1].volume == second).all() else 1)
loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=2)
assert (next(iter(loader)).volume == torch.as_tensor(first)).all()
print(len(data))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=variables(bucket.port, PYTHONPATH=str(REPOSITORY / "python")),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and done.stdout == "6\n", done.stderr


def test_other_readers_take_the_address(program: Program, right: Path, bucket: Storage, address: str) -> None:
    """`run` mounts it for a command."""
    environment = variables(bucket.port)
    require_fuse()
    with mount_folder() as base:
        command = [
            "run",
            "--shards",
            address,
            "--at",
            base / "mount",
            "--",
            "sha256sum",
            base / "mount/shard-000000.tar",
        ]
        done = program.run(*command, env=environment)
        assert done.stdout.split()[0] == files_in(right)["shard-000000.tar"]


def test_a_copy_on_disk_of_what_a_bucket_holds(
    program: Program, right: Path, bucket: Storage, packed_address: str, tmp_path: Path
) -> None:
    """`materialize` makes plain shards on disk of compressed ones in a bucket."""
    flags = ["--shards", packed_address, "--output_dir", tmp_path / "out"]
    program.run("materialize", *flags, env=variables(bucket.port))
    with tarfile.open(shards(tmp_path / "out")[0]) as archive:
        assert archive.getnames()
    assert [path.read_bytes() for path in shards(tmp_path / "out")] == [path.read_bytes() for path in shards(right)]

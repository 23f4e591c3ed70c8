"""Shards in a bucket of a server on this machine, behind a network that is as slow as asked for."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import Absent, Failure
from bench.lab import Lab, Sample, Samples, split
from bench.mounting import mounted, run
from bench.row import COST, Row

HERE = Path(__file__).resolve().parent
SERVERS = HERE.parents[1] / ".venv-s3" / "bin"
BUCKET, PREFIX = "bench", "shards"
RATE = 200e6  # bytes in a second
DELAY = 0.02  # seconds for each request
VARIABLES = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1"}
UPLOAD = """
import sys
from pathlib import Path
import boto3

client = boto3.client("s3", region_name="us-east-1")
for path in filter(Path.is_file, Path(sys.argv[1]).iterdir()):
    client.upload_file(str(path), sys.argv[2], f"{sys.argv[3]}/{path.name}")
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(port: int, *command: object) -> Iterator[None]:
    """A server that listens on the port until the block ends."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(list(map(str, command)), stdout=quiet, stderr=quiet) as process:
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Failure(f"{command[0]} does not listen")
                time.sleep(0.02)
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def network(upstream: int, rate: float = 0, delay: float = 0) -> Iterator[None]:
    """A network before the server, by which clients go until the block ends."""
    port = free_port()
    with serving(port, sys.executable, "-m", "bench.slow_network", port, upstream, rate, delay):
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
        yield


def bare_client(lab: Lab) -> Path:
    """The program that only asks."""

    def build() -> Path:
        target = lab.folder / "bare-client"
        manifest = HERE / "bare_client" / "Cargo.toml"
        run("cargo", "build", "--release", "--manifest-path", manifest, "--target-dir", target, deadline=900)
        return target / "release" / "bare-client"

    built: Path = lab.once("bare-client", build)
    return built


@dataclass(frozen=True)
class Bucket:
    """The shards on disk, and the port of the server that has them too."""

    shards: list[Path]
    port: int

    def read_bare(self, client: Path) -> Sample:
        """The objects by ranged requests alone."""
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        read = int(run(client, BUCKET, *(f"{PREFIX}/{path.name}" for path in self.shards)))
        wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        expected = sum(path.stat().st_size for path in self.shards)
        if read != expected:
            raise Failure(f"the bare client read {read} bytes, not {expected}")
        return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}

    def read_mounted(self, lab: Lab, readers: int) -> Sample:
        """A fresh mount, with the memory of the other cold runs and the threads of the program's choice."""
        memory = ["--cache-size", lab.settings.cache_bytes(), "--page-cache", "off"]
        with mounted(lab.program, lab.folder, "--shards", f"s3://{BUCKET}/{PREFIX}", *memory) as mount:
            return lab.read("raw", split(mount.shards(), readers), mount)


@contextlib.contextmanager
def bucket(lab: Lab) -> Iterator[Bucket]:
    """A server with the shards, uploaded by Amazon's own client, until the block ends."""
    if not (SERVERS / "s3s-fs").exists():
        raise Absent("the server of object storage is not installed: scripts/setup.sh --s3")
    shards, folder, port = lab.files(), lab.folder / "bucket", free_port()
    (folder / BUCKET).mkdir(parents=True)
    kept = {name: os.environ.get(name) for name in (*VARIABLES, "AWS_ENDPOINT_URL")}
    keys = ["--access-key", "bench", "--secret-key", "bench"]
    try:
        with serving(port, SERVERS / "s3s-fs", *keys, "--host", "127.0.0.1", "--port", port, folder):
            os.environ.update(VARIABLES, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
            run(SERVERS / "python", "-c", UPLOAD, shards[0].parent, BUCKET, PREFIX)
            yield Bucket(shards, port)
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(folder)


def limited(lab: Lab) -> Samples:
    """One reader, over a network of 200 MB/s."""
    client = bare_client(lab)
    with bucket(lab) as stored, network(stored.port, rate=RATE):
        return lab.interleave(
            {"bare client": lambda: stored.read_bare(client), "mount": lambda: stored.read_mounted(lab, 1)}
        )


def delayed(lab: Lab) -> Samples:
    """Four readers of four shards, with and without a delay of each request."""
    with bucket(lab) as stored:

        def read(delay: float) -> Sample:
            with network(stored.port, delay=delay):
                return stored.read_mounted(lab, len(stored.shards))

        return lab.interleave({"near": lambda: read(0), "far": lambda: read(DELAY)})


EXPERIMENTS: dict[str, Callable[[Lab], Samples]] = {
    "object storage, limited": limited,
    "object storage, delayed": delayed,
}


def object_storage_rows() -> list[Row]:
    """Against a bare client, and against the same mount without delay."""
    name, against = "object storage, limited", "a bare client with as many requests in flight"
    path = "mount of s3://, plain, 1 reader, 200 MB/s"
    return [
        Row("object-storage/limited", path, against, name, "mount", "bare client", 0.9),
        Row("object-storage/cpu", f"CPU seconds, {path}", against, name, "mount", "bare client", 2.0, COST, "cpu"),
        Row(
            "object-storage/delayed",
            "mount of s3://, 4 readers, 20 ms a request",
            "without delay",
            "object storage, delayed",
            "far",
            "near",
            0.8,
        ),
    ]

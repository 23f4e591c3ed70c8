"""Shards in a bucket of a server on this machine, behind a network that is as slow as asked for."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from object_server import S3S_FS, free_port, s3s_fs, serving, signed, upload

from bench import Absent, Failure
from bench.lab import Lab, Sample, Samples, digests, remove, split
from bench.mounting import command, mounted, run
from bench.row import COST, Row

HERE = Path(__file__).resolve().parent
BUCKET, PREFIX = "bench", "shards"
MIB = 1 << 20
RATE = 200e6  # bytes in a second
DELAY = 0.02  # seconds for each request
VARIABLES = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1"}


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
    """The shards on disk, the port of the server that has them too, and the folder of its buckets."""

    shards: list[Path]
    port: int
    folder: Path

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

    def write(self, lab: Lab, address: object) -> Sample:
        """All shards by a whole command, into a folder or a bucket; they must be the right ones."""
        data, out = lab.dataset("C", "deflated"), self.folder / BUCKET / "written"
        local = lab.folder / "written"
        try:
            words = [lab.program, "materialize", *data.flags(), *lab.shard_flags(), "--num-workers", 2]
            sample = command(*words, "--output-dir", address)
            made = sorted((out if str(address).startswith("s3://") else local).glob("*.tar"))
            if digests(made) != digests(self.shards):
                raise Failure(f"wrong shards in {address}")
            return sample
        finally:
            remove(out)
            remove(local)


@contextlib.contextmanager
def bucket(lab: Lab) -> Iterator[Bucket]:
    """A server with the shards, uploaded by Amazon's own client, until the block ends."""
    if not S3S_FS.exists():
        raise Absent("the server of object storage is not installed: scripts/setup.sh --s3")
    shards, folder = lab.files(), lab.folder / "bucket"
    (folder / BUCKET).mkdir(parents=True)
    kept = {name: os.environ.get(name) for name in (*VARIABLES, "AWS_ENDPOINT_URL")}
    try:
        with s3s_fs(folder, ("bench", "bench")) as port:
            os.environ.update(VARIABLES, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
            upload(os.environ, shards[0].parent, BUCKET, PREFIX)
            yield Bucket(shards, port, folder)
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


def written(lab: Lab) -> Samples:
    """Writing into a bucket, over a network of 200 MB/s, and into a folder."""
    with bucket(lab) as stored, network(stored.port, rate=RATE):
        places = {"folder": lab.folder / "written", "bucket": f"s3://{BUCKET}/written"}
        return lab.interleave({name: partial(stored.write, lab, place) for name, place in places.items()})


def through_webdataset(lab: Lab) -> Samples:
    """What one does without the program: a pipe of curl for each shard, over a network of 200 MB/s."""
    with bucket(lab) as stored, network(stored.port, rate=RATE):
        keys = [f"{PREFIX}/{path.name}" for path in stored.shards]
        pipes = [f"pipe:curl -sf '{address}'" for address in signed(os.environ, BUCKET, keys)]

        def mount() -> Sample:
            memory = ["--cache-size", lab.settings.cache_bytes(), "--page-cache", "off"]
            with mounted(lab.program, lab.folder, "--shards", f"s3://{BUCKET}/{PREFIX}", *memory) as mount:
                return lab.read("webdataset_loader", split(mount.shards(), 1), mount, workers=2)

        return lab.interleave({"curl": lambda: lab.read("webdataset_loader", [pipes], workers=2), "mount": mount})


def memory(lab: Lab) -> Samples:
    """The daemon's peak with a reader for each shard, eight decoders, and a cache of four volumes: against
    the bound of files on a disk and what the requests in flight may hold."""
    budget = 4 * lab.settings.voxel_bytes()
    threads, requests = 8, 8 * 4  # four for each volume that is filled
    limit = budget + threads * 32 * MIB + 64 * MIB + requests * 8 * MIB

    def peak(readers: int) -> Sample:
        flags = ["--cache-size", budget, "--page-cache", "off", "--threads", threads]
        with mounted(lab.program, lab.folder, "--shards", f"s3://{BUCKET}/{PREFIX}", *flags) as mount:
            sample = lab.read("raw", split(mount.shards(), readers), mount)
            return {"bytes": mount.peak_rss(), "read": sample}

    with bucket(lab) as stored:
        readers = len(stored.shards)
        return lab.interleave({"daemon": lambda: peak(readers), "limit": lambda: {"bytes": limit}})


EXPERIMENTS: dict[str, Callable[[Lab], Samples]] = {
    "object storage, limited": limited,
    "object storage, delayed": delayed,
    "object storage, written": written,
    "object storage, webdataset": through_webdataset,
    "object storage, memory": memory,
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
        Row(
            "object-storage/written",
            "CPU seconds, materialize to s3://, 200 MB/s",
            "to a folder",
            "object storage, written",
            "bucket",
            "folder",
            1.3,
            COST,
            "cpu",
        ),
        Row(
            "object-storage/webdataset",
            "webdataset on a mount of s3://, 2 workers, 200 MB/s",
            "webdataset with pipes of curl",
            "object storage, webdataset",
            "mount",
            "curl",
            1.5,
        ),
        Row(
            "object-storage/memory",
            "daemon's peak memory, mount of s3://, 8 decoders, a cache of 4 volumes",
            "the bound of files + 8 MiB for each request in flight",
            "object storage, memory",
            "daemon",
            "limit",
            1.0,
            COST,
            "bytes",
        ),
    ]

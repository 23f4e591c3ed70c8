"""Shards in a bucket, behind a network that is as slow as asked for: a namespace of the kernel with a loopback of its
own, in which the server and the program run."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
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
PORT = 8014  # of a namespace that has nothing else
RATE = "1600mbit"  # 200 MB/s
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
UPLOAD = """
import sys
from pathlib import Path
import boto3

client = boto3.client("s3", region_name="us-east-1")
for path in filter(Path.is_file, Path(sys.argv[1]).iterdir()):
    client.upload_file(str(path), sys.argv[2], f"{sys.argv[3]}/{path.name}")
"""


@dataclass(frozen=True)
class Far:
    """A bucket with the shards, the program and a bare client in the namespace."""

    inside: list[str]
    program: Path
    client: Path

    def shape(self, *how: str) -> None:
        """Make the network as slow as `tc` says; without words as fast as it is."""
        subprocess.run([*self.inside, "tc", "qdisc", "del", "dev", "lo", "root"], capture_output=True, check=False)
        if how:
            run(*self.inside, "tc", "qdisc", "add", "dev", "lo", "root", "netem", *how)

    def read_bare(self, shards: list[Path]) -> Sample:
        """The objects by ranged requests alone."""
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        read = int(run(*self.inside, self.client, BUCKET, *(f"{PREFIX}/{path.name}" for path in shards)))
        wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        expected = sum(path.stat().st_size for path in shards)
        if read != expected:
            raise Failure(f"the bare client read {read} bytes, not {expected}")
        return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def bare_client(lab: Lab) -> Path:
    """The program that only asks."""

    def build() -> Path:
        target = lab.folder / "bare-client"
        manifest = HERE / "bare_client" / "Cargo.toml"
        run("cargo", "build", "--release", "--manifest-path", manifest, "--target-dir", target, deadline=900)
        return target / "release" / "bare-client"

    built: Path = lab.once("bare-client", build)
    return built


@contextlib.contextmanager
def far(lab: Lab, shards: Path) -> Iterator[Far]:
    """The server, with the shards uploaded, until the block ends."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "tc", "nsenter"))):
        raise Absent("only root may slow a network down, by ip, tc and nsenter")
    if not (SERVERS / "s3s-fs").exists():
        raise Absent("the server of object storage is not installed: scripts/setup.sh --s3")
    client, name, folder = bare_client(lab), f"ctwds-bench-{os.getpid()}", lab.folder / "bucket"
    inside = ["nsenter", f"--net=/run/netns/{name}"]
    program = lab.folder / "ctwds-fs-far"
    program.write_text(f'#!/bin/sh\nexec {" ".join(inside)} "{lab.program}" "$@"\n')
    program.chmod(0o755)
    (folder / BUCKET).mkdir(parents=True)
    kept = {key: os.environ.get(key) for key in (*KEYS, "AWS_ENDPOINT_URL", "AWS_REGION")}
    os.environ.update(KEYS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{PORT}", AWS_REGION="us-east-1")
    run("ip", "netns", "add", name)
    try:
        run(*inside, "ip", "link", "set", "lo", "up")
        keys = ["--access-key", "bench", "--secret-key", "bench"]
        server = [*inside, str(SERVERS / "s3s-fs"), *keys, "--host", "127.0.0.1", "--port", str(PORT), str(folder)]
        with subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                time.sleep(1)
                run(*inside, SERVERS / "python", "-c", UPLOAD, shards, BUCKET, PREFIX)
                yield Far(inside, program, client)
            finally:
                process.kill()
    finally:
        run("ip", "netns", "del", name)
        for key, value in kept.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value
        shutil.rmtree(folder)


def flags(lab: Lab) -> list[object]:
    """Of a mount of the bucket, with the memory of the other cold runs and the threads of the program's choice."""
    return ["--shards", f"s3://{BUCKET}/{PREFIX}", "--cache-size", lab.settings.cache_bytes(), "--page-cache", "off"]


def limited(lab: Lab) -> Samples:
    """One reader, over a network of 200 MB/s."""
    files = lab.files()
    with far(lab, files[0].parent) as far_away:
        far_away.shape("rate", RATE)

        def mount() -> Sample:
            with mounted(far_away.program, lab.folder, *flags(lab)) as mount:
                return lab.read("raw", split(mount.shards(), 1), mount)

        return lab.interleave({"bare client": lambda: far_away.read_bare(files), "mount": mount})


def delayed(lab: Lab) -> Samples:
    """Four readers of four shards; 20 ms later for each request."""
    files = lab.files()
    with far(lab, files[0].parent) as far_away:

        def mount(*how: str) -> Sample:
            far_away.shape(*how)
            with mounted(far_away.program, lab.folder, *flags(lab)) as mount:
                return lab.read("raw", split(mount.shards(), len(files)), mount)

        return lab.interleave({"near": mount, "far": lambda: mount("delay", "10ms", "limit", "100000")})


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

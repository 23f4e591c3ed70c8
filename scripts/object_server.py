"""Servers of object storage on this machine, for tests and benchmarks: `scripts/setup.sh --s3` installs them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

PROGRAMS = Path(__file__).resolve().parents[1] / ".venv-s3" / "bin"
S3S_FS, MOTO = PROGRAMS / "s3s-fs", PROGRAMS / "moto_server"
DEADLINE = 30  # seconds until a server listens
UPLOAD = """
import sys
from pathlib import Path
import boto3

client = boto3.client("s3", region_name="us-east-1")
if not any(bucket["Name"] == sys.argv[2] for bucket in client.list_buckets()["Buckets"]):
    client.create_bucket(Bucket=sys.argv[2])
for path in filter(Path.is_file, Path(sys.argv[1]).iterdir()):
    client.upload_file(str(path), sys.argv[2], f"{sys.argv[3]}/{path.name}")
"""


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(port: int, *command: object) -> Iterator[None]:
    """A server that listens on the port until the block ends."""
    quiet, deadline = subprocess.DEVNULL, time.monotonic() + DEADLINE
    with subprocess.Popen(list(map(str, command)), stdout=quiet, stderr=quiet) as process:
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} does not listen on port {port}")
                time.sleep(0.01)
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def s3s_fs(folder: Path, keys: tuple[str, str] | None) -> Iterator[int]:
    """A server whose buckets are the folders below `folder`; its port. Without keys it answers to nobody else but those
    who sign nothing."""
    port = free_port()
    credentials = ["--access-key", keys[0], "--secret-key", keys[1]] if keys else []
    with serving(port, S3S_FS, *credentials, "--host", "127.0.0.1", "--port", port, folder):
        yield port


def upload(environment: Mapping[str, str], source: Path, bucket: str, prefix: str) -> str:
    """Upload the files of a folder by Amazon's own client, which finds server and keys in the environment; their
    address. Of files that are only put into its folder, s3s-fs would compute the ETag for each request."""
    command = list(map(str, [PROGRAMS / "python", "-c", UPLOAD, source, bucket, prefix]))
    subprocess.run(command, env=dict(environment), check=True, timeout=120, capture_output=True)
    return f"s3://{bucket}/{prefix}"


SIGN = """
import sys
import boto3

client = boto3.client("s3", region_name="us-east-1")
for key in sys.argv[2:]:
    print(client.generate_presigned_url("get_object", Params={"Bucket": sys.argv[1], "Key": key}, ExpiresIn=36000))
"""


def signed(environment: Mapping[str, str], bucket: str, keys: list[str]) -> list[str]:
    """Addresses of objects that any client may ask for, signed by Amazon's own client."""
    command = list(map(str, [PROGRAMS / "python", "-c", SIGN, bucket, *keys]))
    done = subprocess.run(command, env=dict(environment), check=True, timeout=60, capture_output=True, text=True)
    return done.stdout.split()

"""How object storage is reached: service, credentials, profiles, certificates; and where an address cannot stand."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from harness import Program, shards
from make_dataset import Dataset
from object_server import free_port
from objects import ACCESS_KEY, BUCKET, SECRET_KEY, Storage, cat, proxy, storage, variables, why_not


@pytest.fixture(scope="module")
def address(bucket: Storage, right: Path) -> str:
    """The plain shards in the bucket."""
    return bucket.put(right, "plain")


def test_an_endpoint_on_the_command_line_wins(program: Program, right: Path, bucket: Storage, address: str) -> None:
    """The flag wins over both variables that name a service."""
    environment = variables(free_port(), AWS_ENDPOINT_URL_S3="http://127.0.0.1:1")
    flags = ["--endpoint-url", f"http://127.0.0.1:{bucket.port}/"]
    assert cat(program, address, 0, environment, *flags) == shards(right)[0].read_bytes()


def test_variables_of_other_clients_are_left_alone(
    program: Program, right: Path, bucket: Storage, address: str
) -> None:
    """Values that other clients of S3 take are no reason to refuse: seconds without a unit, empty texts, profiles."""
    environment = variables(bucket.port, AWS_TIMEOUT="30", AWS_ALLOW_HTTP="", AWS_REGION="", AWS_PROFILE="none")
    assert cat(program, address, 0, environment) == shards(right)[0].read_bytes()


def test_without_credentials_nothing_is_waited_for(program: Program, bucket: Storage, address: str) -> None:
    """Off Amazon's machines nobody answers for them."""
    environment = {name: value for name, value in variables(bucket.port).items() if "KEY" not in name}
    begun = time.monotonic()
    message = why_not(program, address, environment)
    assert "AWS_ACCESS_KEY_ID" in message and "--no-sign-request" in message
    assert time.monotonic() - begun < 10


def test_public_shards_need_no_credentials(program: Program, right: Path, bucket: Storage, address: str) -> None:
    """By S3 without a signature, and by plain HTTP."""
    nobody = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with storage(bucket.folder, is_public=True) as public:
        web = f"http://127.0.0.1:{public.port}"
        for place, flags in ((address, ["--no-sign-request", "--endpoint-url", web]), (f"{web}/{BUCKET}/plain/", [])):
            assert cat(program, place, 0, nobody, *flags) == shards(right)[0].read_bytes()
        done = program.run("verify", "--shards", f"{web}/{BUCKET}/plain", env=nobody, check=False)
        assert done.returncode == 1 and "does not list its files; mount them" in done.stderr
    web = f"http://127.0.0.1:{bucket.port}/{BUCKET}/plain"
    assert "may not read" in why_not(program, web, nobody), "this server asks for credentials"


def test_a_web_server_with_tls(program: Program, right: Path, bucket: Storage, address: str, tmp_path: Path) -> None:
    """The certificate must be one that this machine trusts."""
    trusted, key, both = tmp_path / "trusted.pem", tmp_path / "ca.key", tmp_path / "both.pem"
    certificate = tmp_path / "server.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
    of_server: list[str | Path] = [
        "/CN=server",
        *names,
        "-CA",
        trusted,
        "-CAkey",
        key,
        "-keyout",
        both,
        "-out",
        certificate,
    ]
    of_authority: list[str | Path] = ["/CN=tests", "-keyout", key, "-out", trusted]
    for rest in (of_authority, of_server):
        subprocess.run([*request, *rest], check=True, capture_output=True, timeout=60)
    both.write_bytes(both.read_bytes() + certificate.read_bytes())
    nobody = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SSL_"))}
    with storage(bucket.folder, is_public=True) as public, proxy(public.port, both) as between:
        web = f"https://127.0.0.1:{between.port}/{BUCKET}/plain"
        trusting = nobody | {"SSL_CERT_FILE": str(trusted)}
        assert cat(program, web, 1, trusting) == shards(right)[1].read_bytes()
        assert "certificate" in why_not(program, web, nobody, "--storage-timeout", 1)


def test_paths_that_must_be_on_a_disk(program: Program, small: Dataset, tmp_path: Path) -> None:
    """An address there is refused before anything is made, on the command line and in the data set's file."""
    done = program.run("mount", *small.flags(), "s3://b/shards", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "MOUNTPOINT s3://b/shards: it must be on a disk" in done.stderr
    (tmp_path / "ctwds.toml").write_text('data_folder = "s3://b/ct"\n')
    done = program.run("reclaim", "--dataset", "ctwds.toml", "--shards", tmp_path, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "--data-folder s3://b/ct: it must be on a disk" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["ctwds.toml"]


def at_home(home: Path, name: str, section: str, **values: str) -> dict[str, str]:
    """An environment with this home and no variable of AWS clients; a section is added to a file there."""
    (home / ".aws").mkdir(exist_ok=True)
    with (home / ".aws" / name).open("a") as file:
        file.write("\n".join([f"[{section}]", *(f"{key} = {value}" for key, value in values.items()), ""]))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return kept | {"HOME": str(home)}


def test_profiles(program: Program, right: Path, bucket: Storage, address: str, tmp_path: Path) -> None:
    """Keys, region and service of a profile; the environment wins, and no message has a key."""
    keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
    at_home(tmp_path, "credentials", "lab", **keys)
    home = at_home(
        tmp_path, "config", "profile lab", region="us-east-1", endpoint_url=f"http://127.0.0.1:{bucket.port}"
    )
    wanted = shards(right)[0].read_bytes()
    assert cat(program, address, 0, home | {"AWS_PROFILE": "lab"}) == wanted
    assert "no credentials" in why_not(program, address, home | {"AWS_METADATA_ENDPOINT": "http://127.0.0.1:1"})
    assert "no profile other" in why_not(program, address, home | {"AWS_PROFILE": "other"})
    given = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    assert cat(program, address, 0, home | given | {"AWS_PROFILE": "lab"}) == wanted, "service and region of a profile"
    service = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{bucket.port}"}
    home = at_home(tmp_path, "credentials", "default", **keys) | service
    assert cat(program, address, 0, home) == wanted
    wrong = {"AWS_ACCESS_KEY_ID": "AKIDOTHER", "AWS_SECRET_ACCESS_KEY": "other"}
    assert "these credentials" in why_not(program, address, home | wrong)


def test_a_profile_without_keys(program: Program, right: Path, bucket: Storage, address: str, tmp_path: Path) -> None:
    """Ways to get keys that are not known are named."""
    home = at_home(tmp_path, "config", "default", sso_session="lab")
    message = why_not(program, address, home)
    assert "gets its keys by sso_session" in message and "AWS_SESSION_TOKEN" in message
    (tmp_path / ".aws" / "config").write_text(f"[default\naws_secret_access_key = {SECRET_KEY}\n")
    assert "no file of profiles" in why_not(program, address, home)
    given = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    service = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{bucket.port}"}
    assert cat(program, address, 0, home | given | service) == shards(right)[0].read_bytes(), "nothing asked for it"

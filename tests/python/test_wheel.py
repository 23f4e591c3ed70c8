"""The wheel that scripts/package.sh has built, in new virtual environments without Rust and the clone; and
`pip install .` in a clone."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from harness import REPOSITORY, is_mounted

WHEELS = sorted((REPOSITORY / "dist").glob("ctwds_fs-*.whl"))
DEADLINE = 200  # seconds; NumPy is fetched
BUILDING = 1500  # seconds for all crates on two cores
MAX_SIZE = 20 << 20  # bytes
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
PROGRAM = re.compile(r"ctwds_fs-[^/]*\.data/scripts/ctwds-fs")


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The wheel."""
    if not WHEELS:
        pytest.skip("there is no wheel in dist/: scripts/package.sh builds it")
    assert len(WHEELS) == 1, WHEELS
    return WHEELS[0]


def interpreter(version: str) -> str | None:
    """A CPython of this version that can make environments: on the PATH, or of pyenv."""
    of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    for path in (shutil.which(f"python{version}"), *map(str, of_pyenv)):
        if path is None:
            continue
        command = [path, "-c", "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        if done.stdout.strip() == version:
            return path
    return None


def bare(folder: Path) -> dict[str, str]:
    """An environment without Rust, in which pip finds packages as it does here."""
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "TMPDIR": str(folder)}
    for name in ("PIP_INDEX_URL", "PIP_CONFIG_FILE", "PIP_CERT", "SSL_CERT_FILE", "https_proxy", "HTTPS_PROXY"):
        if name in os.environ:
            environment[name] = os.environ[name]
    return environment


def run(command: list[object], folder: Path, environment: dict[str, str], deadline: float = DEADLINE) -> str:
    """The output of a command that must succeed."""
    arguments = [str(argument) for argument in command]
    done = subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=deadline, check=False
    )
    assert done.returncode == 0, f"{arguments}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def version_of_cargo() -> str:
    """The version of the workspace."""
    return str(tomllib.loads((REPOSITORY / "Cargo.toml").read_text("utf-8"))["workspace"]["package"]["version"])


def test_what_is_in_it(wheel: Path) -> None:
    """The modules, the extension and the program, which is an executable of its own; nothing else. It runs on every
    CPython from 3.10 on, with glibc 2.17."""
    assert re.fullmatch(
        rf"ctwds_fs-{version_of_cargo()}-cp310-abi3-manylinux2014_(\w+)\.manylinux_2_17_\1\.whl", wheel.name
    )
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name and not name.endswith("/")]
        program = next(name for name in names if PROGRAM.fullmatch(name))
        binaries = {program, "ctwds/_native.abi3.so"}
        sources = {f"ctwds/{path.name}" for path in (REPOSITORY / "python" / "ctwds").glob("*.py*") if path.is_file()}
        assert set(names) == binaries | sources | {"ctwds/py.typed"}
        assert all(archive.read(name)[:4] == b"\x7fELF" for name in binaries)
        assert stat.S_IMODE(archive.getinfo(program).external_attr >> 16) & 0o111 == 0o111
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        required = re.findall(r"^Requires-Dist: (.*)$", archive.read(metadata).decode(), re.MULTILINE)
    assert [line for line in required if "extra ==" not in line] == ["numpy>=1.24"]
    assert wheel.stat().st_size <= MAX_SIZE


def test_no_symbol_is_newer_than_glibc_217(wheel: Path, tmp_path: Path) -> None:
    """As auditwheel has found; asked of the files once more, as the name of a wheel is only a promise."""
    readelf = shutil.which("readelf")
    assert readelf, "readelf is missing, which is in Debian's package binutils"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    for path in [*tmp_path.rglob("*.so"), *tmp_path.rglob("scripts/ctwds-fs")]:
        text = run([readelf, "--version-info", path], tmp_path, dict(os.environ))
        wanted = {tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_([0-9.]+)", text)}
        assert wanted and max(wanted) <= (2, 17), (path, max(wanted))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_fresh_environment(wheel: Path, tmp_path: Path, version: str) -> None:
    """With the wheel and NumPy alone: the package is imported, and the program shows what it does."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no CPython {version} here")
    environment = bare(tmp_path)
    run([python, "-m", "venv", tmp_path / "venv"], tmp_path, environment)
    here = tmp_path / "venv" / "bin"
    run([here / "python", "-m", "pip", "install", "--quiet", "--only-binary=:all:", wheel], tmp_path, environment)
    assert shutil.which("cargo", path=environment["PATH"]) is None
    said = run(
        [here / "python", "-c", "import ctwds, sys; print(ctwds.__version__, 'torch' in sys.modules, ctwds.__file__)"],
        tmp_path,
        environment,
    ).split()
    assert said[:2] == [version_of_cargo(), "False"] and said[2].startswith(str(tmp_path))
    assert run([here / "ctwds-fs", "--version"], tmp_path, environment) == f"ctwds-fs {version_of_cargo()}\n"
    if version in (VERSIONS[0], f"{sys.version_info[0]}.{sys.version_info[1]}"):
        shown = run([here / "ctwds-fs", "demo", tmp_path / "demo"], tmp_path, environment)
        assert "Everything passed" in shown and not is_mounted(tmp_path / "demo" / "shards")


@pytest.mark.timeout(BUILDING + DEADLINE)
def test_pip_install_of_a_clone(tmp_path: Path) -> None:
    """What is committed is enough, with Rust and a C compiler: the program and the package of the same version. Not
    optimised, as this is about what is installed and not about how fast it is."""
    if os.environ.get("CTWDS_TEST_INSTALL") != "1":
        pytest.skip("it compiles all crates anew, which takes minutes: CTWDS_TEST_INSTALL=1 does so")
    cargo = shutil.which("cargo")
    assert cargo, "cargo is not on the PATH"
    clone, here = tmp_path / "clone", tmp_path / "venv" / "bin"
    run(["git", "clone", "--quiet", REPOSITORY, clone], tmp_path, dict(os.environ))
    run([sys.executable, "-m", "venv", tmp_path / "venv"], tmp_path, dict(os.environ))
    quick = {"LTO": "off", "OPT_LEVEL": "0", "CODEGEN_UNITS": "16"}
    building = os.environ | {f"CARGO_PROFILE_RELEASE_{name}": value for name, value in quick.items()}
    building["CARGO_TARGET_DIR"] = str(tmp_path / "target")
    building["PATH"] = f"{Path(cargo).parent}:/usr/bin:/bin"
    run([here / "python", "-m", "pip", "install", "--quiet", "."], clone, building, BUILDING)
    said = run(
        [here / "python", "-c", "import ctwds; print(ctwds.__version__, ctwds.__file__)"], tmp_path, bare(tmp_path)
    )
    assert said.split()[0] == version_of_cargo() and said.split()[1].startswith(str(tmp_path / "venv"))
    assert run([here / "ctwds-fs", "--version"], tmp_path, bare(tmp_path)) == f"ctwds-fs {version_of_cargo()}\n"
    assert "Everything passed" in run([here / "ctwds-fs", "demo", tmp_path / "demo"], tmp_path, bare(tmp_path))

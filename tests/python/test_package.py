"""What `cargo package` would put into the crate, and what the manifests say of it. Needs no network and no build."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import PurePosixPath
from typing import Any

import pytest
from harness import REPOSITORY

LICENCE = "MIT OR Apache-2.0"
# Written by cargo itself.
GENERATED = {"Cargo.toml.orig", ".cargo_vcs_info.json"}
# Each of these must match a file of the package, and each file of the package one of these.
WANTED = (
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "README.md",
    "README.zh-CN.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "docs/flow.svg",
    "docs/report.webp",
    "askama.toml",
    "src/report/page.html",
    "contrib/*",
    "src/main.rs",
    "src/**/*.rs",
    "src/bench/read_npz.py",
    "scripts/ctreport_webdataset.py",
    "scripts/packed_volume.py",
    "scripts/configs/*.yaml",
)


def manifest(path: str) -> dict[str, Any]:
    """The section `package` of a Cargo.toml."""
    package: dict[str, Any] = tomllib.loads((REPOSITORY / path).read_text(encoding="utf-8"))["package"]
    return package


@pytest.fixture(scope="module")
def packaged() -> list[str]:
    """The files of the package."""
    assert shutil.which("cargo"), "cargo is not on the PATH; install a stable Rust toolchain first"
    command = ["cargo", "package", "--list", "--allow-dirty", "--offline"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [name for name in done.stdout.splitlines() if name not in GENERATED]


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern means this file; `**` stands for any folders, also none."""
    head, deep, tail = pattern.partition("/**/")
    if deep:
        return name.startswith(head + "/") and PurePosixPath(name).match(tail)
    return len(PurePosixPath(name).parts) == len(PurePosixPath(pattern).parts) and PurePosixPath(name).match(pattern)


def test_the_package_holds_what_it_should(packaged: list[str]) -> None:
    """All that a user builds, reads or copies."""
    assert [pattern for pattern in WANTED if not any(matches(name, pattern) for name in packaged)] == []


def test_the_package_holds_nothing_else(packaged: list[str]) -> None:
    """No fixture, no corpus, no test, no file of somebody's editor."""
    assert [name for name in packaged if not any(matches(name, pattern) for pattern in WANTED)] == []


def test_every_source_file_is_packaged(packaged: list[str]) -> None:
    """Rust files, and what they include; what tools leave there is none."""
    paths = [path for path in (REPOSITORY / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {str(path.relative_to(REPOSITORY)) for path in paths} - set(packaged) == set()


def test_a_build_needs_no_cmake() -> None:
    """zlib-ng, which the tests compare with, is built with cmake: the program's own build knows nothing of it."""
    command = ["cargo", "tree", "--offline", "--edges", "normal,build", "--prefix", "none"]
    graphs = []
    for more in ([], ["--package", "ctwds-fs-zlib-ng"]):
        done = subprocess.run(
            [*command, *more], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        graphs.append({line.split()[0] for line in done.stdout.splitlines() if line})
    program, oracle = graphs
    needs_cmake = {"cmake", "libz-ng-sys", "libz-sys"}
    assert program & needs_cmake == set() and "flate2" in program
    assert oracle & needs_cmake == {"cmake", "libz-ng-sys"}


@pytest.mark.parametrize("path", ["Cargo.toml", "fuzz/Cargo.toml", "python/Cargo.toml", "tests/zlib_ng/Cargo.toml"])
def test_licence(path: str) -> None:
    """The same two for all code, with their texts beside it."""
    assert manifest(path)["license"] == LICENCE
    mit = (REPOSITORY / "LICENSE-MIT").read_text(encoding="utf-8")
    apache = (REPOSITORY / "LICENSE-APACHE").read_text(encoding="utf-8")
    assert "Copyright (c) 2026 the ctwds-fs authors" in mit and "Permission is hereby granted" in mit
    assert "Apache License" in apache and "END OF TERMS AND CONDITIONS" in apache and "[yyyy]" not in apache


def test_metadata() -> None:
    """What a registry asks for, within its limits."""
    package = manifest("Cargo.toml")
    assert {"description", "readme", "keywords", "categories", "rust-version"} <= package.keys()
    assert len(package["keywords"]) <= 5 and all(len(word) <= 20 for word in package["keywords"])
    assert (REPOSITORY / package["readme"]).is_file()
    # While no address is known, none is made up; who sets one lifts the bar on purpose.
    assert "repository" in package or package["publish"] is False

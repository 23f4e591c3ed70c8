"""The tarball and the .deb: what they hold, and that both run where they are unpacked."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from docpages import read
from harness import REPOSITORY, Program

SHELLS = ("bash-completion/completions/ctwds-fs", "fish/vendor_completions.d/ctwds-fs.fish")


@pytest.fixture(scope="module")
def archives(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both, made of the program under test, whose symbols would take minutes to pack."""
    folder = tmp_path_factory.mktemp("archives")
    subprocess.run(["strip", "-o", folder / "ctwds-fs", program.path], check=True, timeout=120)
    script = [REPOSITORY / "scripts" / "archives.sh", folder / "ctwds-fs", folder / "dist"]
    done = subprocess.run(script, check=False, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


def check(root: Path, zsh: str) -> None:
    """The program runs, and its manual pages and completions are there."""
    command = [str(root / "bin" / "ctwds-fs"), "--version"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.startswith("ctwds-fs ")
    pages = list((root / "share" / "man" / "man1").iterdir())
    assert len(pages) >= 18 and all(path.suffix == ".gz" for path in pages)
    assert b"ctwds-fs-mount" in gzip.decompress((root / "share/man/man1/ctwds-fs-mount.1.gz").read_bytes())
    for name in (*SHELLS, zsh):
        assert (root / "share" / name).stat().st_size > 1000, name


def check_pages(folder: Path) -> None:
    """Whatever the READMEs link to is there, the loader as one file among it."""
    for name in ("README.md", "README.zh-CN.md"):
        targets = {target.partition("#")[0] for target in read(folder / name).links() if "://" not in target}
        assert len(targets) > 5, f"the links of {name} are not found"
        assert [target for target in sorted(targets) if not (folder / target).exists()] == []
    assert (folder / "scripts/ctreport_webdataset.py").is_file()


def test_the_tarball(archives: Path, tmp_path: Path) -> None:
    """One folder, which may stand anywhere."""
    (path,) = archives.glob("*.tar.gz")
    with tarfile.open(path) as tar:
        assert {name.split("/")[0] for name in tar.getnames()} == {path.name.removesuffix(".tar.gz")}
        assert {(info.uid, info.gid) for info in tar} == {(0, 0)}
        tar.extractall(tmp_path)
    check(tmp_path / path.name.removesuffix(".tar.gz"), "zsh/site-functions/_ctwds-fs")
    check_pages(tmp_path / path.name.removesuffix(".tar.gz"))


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb")
def test_the_debian_package(archives: Path, tmp_path: Path) -> None:
    """It recommends fuse3, needs glibc 2.17 and nothing else, and is root's."""
    (path,) = archives.glob("*.deb")

    def field(name: str) -> str:
        return subprocess.run(["dpkg-deb", "-f", path, name], check=True, capture_output=True, text=True).stdout

    assert [field(name).strip() for name in ("Package", "Depends", "Recommends")] == [
        "ctwds-fs",
        "libc6 (>= 2.17)",
        "fuse3",
    ]
    listed = subprocess.run(["dpkg-deb", "-c", path], check=True, capture_output=True, text=True).stdout
    assert all(" root/root " in line for line in listed.splitlines())
    subprocess.run(["dpkg-deb", "-x", path, tmp_path], check=True)
    check(tmp_path / "usr", "zsh/vendor-completions/_ctwds-fs")
    assert (tmp_path / "usr/share/doc/ctwds-fs/copyright").exists()
    check_pages(tmp_path / "usr/share/doc/ctwds-fs")
    if os.geteuid() == 0:  # dpkg itself takes it, into a root of its own
        root = tmp_path / "root"
        (root / "var/lib/dpkg/updates").mkdir(parents=True)
        (root / "var/lib/dpkg/info").mkdir()
        (root / "var/lib/dpkg/status").touch()
        (root / "var/lib/dpkg/available").touch()
        command = ["dpkg", f"--root={root}", "--force-depends", "--install", str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        check(root / "usr", "zsh/vendor-completions/_ctwds-fs")

"""Logs and saved plans have study ids in them: they are in folders of the user's own, or nowhere."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import NOBODY, SMALL_FLAGS, Program, force_unmount, needs_root, require_fuse
from make_dataset import Dataset

SYSTEM = {"PATH": os.environ["PATH"]}


@contextlib.contextmanager
def points(folder: Path, *names: str) -> Iterator[list[Path]]:
    """Empty folders to mount at; whatever is mounted there is ended."""
    require_fuse()
    made = [folder.resolve() / name for name in names]
    try:
        for point in made:
            point.mkdir(parents=True)
        yield made
    finally:
        for point in made:
            force_unmount(point)


def log_of(program: Program, dataset: Dataset, point: Path, env: dict[str, str], *flags: object) -> Path:
    """Mounts, and returns the log that the command names."""
    done = program.run("mount", *dataset.flags(), *SMALL_FLAGS, *flags, point, env=env)
    return Path(done.stdout.split("(log: ")[1].split(")\n")[0])


def link_to_folder(place: Path, victim: Path) -> None:
    """A link to a folder that the user may write to."""
    place.symlink_to(victim)


def others_folder(place: Path, victim: Path) -> None:
    """A folder that another user made before."""
    place.mkdir(mode=0o777)
    os.chown(place, NOBODY, NOBODY)


def plain_file(place: Path, victim: Path) -> None:
    """No folder at all."""
    place.touch()


@needs_root
@pytest.mark.parametrize("trap", [link_to_folder, others_folder, plain_file])
def test_a_log_without_a_home(
    program: Program, small: Dataset, tmp_path: Path, trap: Callable[[Path, Path], None]
) -> None:
    """A folder that others can foresee is used if it is the user's own; else the option is named."""
    shared, victim = tmp_path / "shared", tmp_path / "victim"
    victim.mkdir(mode=0o755)
    shared.mkdir()
    shared.chmod(0o1777)
    env = SYSTEM | {"TMPDIR": str(shared)}
    own = shared / f"ctwds-fs-{os.geteuid()}"
    trap(shared / "ctwds-fs", victim)
    with points(tmp_path, "mount") as (point,):
        log = log_of(program, small, point, env)
        program.run("unmount", point)
        assert log.parent == own and stat.S_IMODE(own.stat().st_mode) == 0o700
        assert stat.S_IMODE(log.stat().st_mode) == 0o600 and str(point) in log.read_text()
        log.unlink()
        own.rmdir()
        trap(own, victim)
        before = own.lstat()
        said = program.refuses("mount", *small.flags(), point, env=env)
        assert str(own) in said and "--log-file" in said, said
        assert os.listdir(victim) == [] and own.lstat() == before
        if own.is_dir():
            assert os.listdir(own) == []


@needs_root
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "others"])
def test_a_log_that_is_something_else(program: Program, small: Dataset, tmp_path: Path, kind: str) -> None:
    """Neither a link nor a pipe is opened, and no file that another user could read on; given or not."""
    victim = tmp_path / "victim"
    env = SYSTEM | {"XDG_STATE_HOME": str(tmp_path)}
    with points(tmp_path, "m") as (point,):
        log = log_of(program, small, point, env)
        program.run("unmount", point)
        log.unlink()
        if kind == "pipe":
            os.mkfifo(log)
        elif kind == "others":
            log.touch()
            os.chown(log, NOBODY, NOBODY)
        else:
            log.symlink_to(victim)
            os.chown(log, NOBODY, NOBODY, follow_symlinks=False)
        if kind == "link":
            victim.write_text("whatever")
        for flags in ([], ["--log-file", log]):
            said = program.refuses("mount", *small.flags(), *flags, point, env=env)
            assert str(log) in said and "--log-file" in said, said
        assert not victim.exists() or victim.read_text() == "whatever"


@pytest.mark.parametrize("given", [False, True])
def test_a_log_that_others_could_read(program: Program, small: Dataset, tmp_path: Path, given: bool) -> None:
    """It is closed to them, and goes on."""
    env = SYSTEM | {"XDG_STATE_HOME": str(tmp_path)}
    with points(tmp_path, "m") as (point,):
        log = tmp_path / "given.log"
        flags = ["--log-file", log] if given else []
        if not given:
            log = log_of(program, small, point, env)
            program.run("unmount", point)
        log.write_text("before\n")
        log.chmod(0o666)
        assert log_of(program, small, point, env, *flags) == log
        assert log.read_text().startswith("before\n") and str(point) in log.read_text()
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        program.run("unmount", point)


@pytest.mark.parametrize("home", ["/proc/none", "/dev/null"])
def test_a_home_without_room_for_a_log(program: Program, small: Dataset, tmp_path: Path, home: str) -> None:
    """The message names the option, with which it works."""
    env = SYSTEM | {"HOME": home}
    with points(tmp_path, "mount") as (point,):
        said = program.refuses("mount", *small.flags(), point, env=env)
        assert home in said and "--log-file" in said, said
        log_of(program, small, point, env, "--log-file", tmp_path / "log")
        program.run("unmount", point)


@pytest.mark.parametrize("home", ["", ".", "here"])
def test_a_home_that_is_no_place(program: Program, small: Dataset, tmp_path: Path, home: str) -> None:
    """Nothing is written into whatever folder the command is started in."""
    cwd, shared = tmp_path / "cwd", tmp_path / "shared"
    cwd.mkdir()
    shared.mkdir()
    env = SYSTEM | {"HOME": home, "XDG_STATE_HOME": home, "XDG_CACHE_HOME": home, "TMPDIR": str(shared)}
    program.run("plan", *small.flags(), env=env, cwd=cwd)
    with points(tmp_path, "mount") as (point,):
        program.run("mount", *small.flags(), point, env=env, cwd=cwd)
        program.run("unmount", point)
    assert os.listdir(cwd) == []


def test_mounts_never_share_a_log(program: Program, small: Dataset, tmp_path: Path) -> None:
    """Paths that read alike, a log that a mount elsewhere holds, and one that was given twice."""
    env = SYSTEM | {"XDG_STATE_HOME": str(tmp_path)}
    names = ("a/b", "a-b", "a--b", "a\nb")
    with points(tmp_path, *names, "c", "d") as (*alike, third, fourth):
        logs = [log_of(program, small, point, env) for point in alike]
        assert len(set(logs)) == len(names), logs
        for log, point in zip(logs, alike, strict=True):
            assert log.read_text().count(" samples in ") == 1
            program.run("unmount", point)
        with logs[0].open() as held:  # as a mount of another host or namespace does at the same path
            fcntl.flock(held, fcntl.LOCK_EX)
            other = log_of(program, small, alike[0], env)
            program.run("unmount", alike[0])
            assert other != logs[0] and other.parent == logs[0].parent
        given = tmp_path / "given.log"
        log_of(program, small, third, env, "--log-file", given)
        said = program.refuses("mount", *small.flags(), "--log-file", given, fourth, env=env)
        assert str(given) in said and "--log-file" in said, said
        program.run("unmount", third)


@needs_root
@pytest.mark.parametrize("trap", [link_to_folder, others_folder])
def test_a_cache_that_is_not_ones_own(
    program: Program, small: Dataset, tmp_path: Path, trap: Callable[[Path, Path], None]
) -> None:
    """It decides what is made of the data: it is neither read nor written, and no command needs it."""
    cache, victim = tmp_path / "cache", tmp_path / "victim"
    cache.mkdir()
    victim.mkdir()
    trap(cache / "ctwds-fs", victim)
    for _ in range(2):
        assert "6 " in program.run("plan", *small.flags(), env=SYSTEM | {"XDG_CACHE_HOME": str(cache)}).stdout
    assert os.listdir(victim) == [] and os.listdir(cache / "ctwds-fs") == []

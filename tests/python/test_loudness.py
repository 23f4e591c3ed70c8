"""How much a command says: quiet, verbose, JSON for programs, and colours where a person can see them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import SMALL_FLAGS, Program, mount_folder, on_a_terminal, require_fuse, shards
from make_dataset import Dataset
from small_datasets import noise_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four volumes, and one that is left out with a warning."""
    dataset = noise_dataset(tmp_path_factory.mktemp("data"), 5)
    (dataset.folder / "v04.npz").write_bytes(b"no zip file")
    return dataset


def test_quiet_says_warnings_and_errors(program: Program, data: Dataset, tmp_path: Path) -> None:
    """The result is the same; what only tells how far it is goes away."""
    said = {}
    for name, flags in (("usual", []), ("quiet", ["-q"])):
        done = program.run("materialize", *flags, *data.flags(), *SMALL_FLAGS, "--output-dir", tmp_path / name)
        assert "2 shards written" in done.stdout and "warning: left out: 1 of 5" in done.stderr
        said[name] = done.stderr
    assert "shard-000000.tar" in said["usual"] and "shard-000000.tar" not in said["quiet"]
    assert all(line.startswith("ctwds-fs: warning: ") for line in said["quiet"].splitlines())
    assert "cannot" in program.refuses("plan", "--quiet", "--data-folder", tmp_path / "none")


def test_verbose_says_more(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Which flags a file has added, and what was planned; twice, each read of a mount. Not with -q."""
    (tmp_path / "ctwds.toml").write_text(f'data_folder = "{data.folder}"\n')
    quiet, loud = (program.run("plan", *flags, cwd=tmp_path) for flags in ([], ["-v"]))
    assert quiet.stdout == loud.stdout and "planned 4 samples in 1 shard" not in quiet.stderr
    assert "planned 4 samples in 1 shard" in loud.stderr and f"--data-folder={data.folder}" in loud.stderr
    require_fuse()
    with mount_folder() as base:
        logs = []
        for flag in ([], ["-vv"]):
            program.run("mount", *flag, *data.flags(), "--log-file", base / "log", base / "mount")
            (base / "mount" / "shard-000000.tar").read_bytes()
            program.run("unmount", base / "mount")
            logs.append((base / "log").read_text())
            (base / "log").unlink()
        assert "read handle" not in logs[0] and "read handle" in logs[1]
    assert program.run("plan", "-q", "-v", *data.flags(), check=False).returncode == 2


def test_flags_before_the_command(program: Program, data: Dataset, tmp_path: Path) -> None:
    """They are the same there, the ctwds.toml is found all the same, and another option is told where it belongs."""
    (tmp_path / "ctwds.toml").write_text(f'data_folder = "{data.folder}"\n')
    for flag, is_loud in (("-v", True), ("--verbose", True), ("-q", False)):
        before, behind = (program.run(*order, cwd=tmp_path) for order in ((flag, "plan"), ("plan", flag)))
        assert before.stdout == behind.stdout and "Samples      4 " in before.stdout
        assert ("planned 4 samples" in before.stderr) == ("planned 4 samples" in behind.stderr) == is_loud
    assert program.run("-q", "plan", "-v", cwd=tmp_path, check=False).returncode == 2
    program.run("-q", "plan", "-q", cwd=tmp_path)
    message = program.run("-q", "--data-folder", "npz", "plan", check=False).stderr
    assert "options stand behind the command" in message
    done = program.run("--samples-per-shard", 3, "plan", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "options stand behind the command, as in `ctwds-fs plan --samples" in done.stderr
    require_fuse()
    with mount_folder() as base:  # the daemon is started by the place of the command among the arguments
        program.run("-v", "mount", *data.flags(), "--log-file", base / "log", base / "mount")
        assert (base / "mount" / "shard-000000.tar").exists()
        program.run("-q", "unmount", base / "mount")


def test_materialize_for_programs(program: Program, data: Dataset, tmp_path: Path) -> None:
    """An object a line: the begin, each shard when it is finished, and the end with what failed."""
    command = ["materialize", "--json", *data.flags(), *SMALL_FLAGS, "--output-dir", tmp_path]
    events = [json.loads(line) for line in program.run(*command).stdout.splitlines()]
    assert [event["event"] for event in events] == ["begin", "shard", "shard", "end"]
    assert events[0]["shards"] == 2 and events[0]["kept"] == 0
    sizes = {path.name: path.stat().st_size for path in shards(tmp_path)}
    assert {event["name"]: event["bytes"] for event in events[1:3]} == sizes
    assert events[-1]["written"] == 2 and events[-1]["bytes"] == sum(sizes.values()) and events[-1]["failed"] == []
    again = [json.loads(line) for line in program.run(*command).stdout.splitlines()]
    assert again[-1]["written"] == 0 and again[-1]["kept"] == 2
    broken = noise_dataset(tmp_path / "broken", 4)
    content = bytearray((broken.folder / "v01.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (broken.folder / "v01.npz").write_bytes(content)
    done = program.run("materialize", "--json", *broken.flags(), "--output-dir", tmp_path / "out", check=False)
    end = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1 and "v01.npz" in end["failed"][0]["error"]


def test_mount_for_programs(program: Program, data: Dataset) -> None:
    """One object: where, what, and the pattern for readers that expand braces."""
    require_fuse()
    with mount_folder() as base:
        flags = [*data.flags(), *SMALL_FLAGS, "--log-file", base / "log", base / "mount"]
        found = json.loads(program.run("mount", "--json", *flags).stdout)
        try:
            assert found["mountpoint"] == str(base / "mount") and found["mount"]["samples"] == 4
            assert found["pattern"] == f"{base / 'mount'}/shard-{{000000..000001}}.tar"
            assert found["mount"]["kind"] == "stored" and found["mount"]["log_file"] == str(base / "log")
        finally:
            program.run("unmount", base / "mount")


def test_colours_where_a_person_sees_them(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Of the word that says what a message is; never with NO_COLOR, on a dumb terminal, or without one."""
    wrong = ["plan", "--data-folder", tmp_path / "none"]
    warns = ["cat", *data.flags(), "no-such-shard"]
    assert "ctwds-fs: \x1b[1;31merror:\x1b[0m " in on_a_terminal(program, *wrong)
    assert "\x1b[1;3" in on_a_terminal(program, *warns)
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": "dumb", "CI": "true"}):
        for command in (wrong, ["plan", "--no-such-option"]):
            shown = on_a_terminal(program, *command, variables=variables)
            assert "error: " in shown and "\x1b[" not in shown
    assert "\x1b" not in program.run(*wrong, check=False).stderr

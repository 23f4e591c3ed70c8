"""`--json`: what each command prints for programs, and what commands of long work print while they work."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from every_command import COMMANDS, Command, placed
from faulty import faulty_folder
from harness import COMMAND_DEADLINE, SMALL_FLAGS, Program, mount_folder, needs_root, report_of, require_fuse, shards
from make_dataset import Dataset
from small_datasets import noise_dataset

# What has no facts for programs: bytes of a shard, another program's output, completions, help.
WITHOUT = {"cat", "run", "completions", "man", "--help", "--version", "a wrong option", "an error"}
NAMES = sorted(name for name in COMMANDS if name not in WITHOUT)
LONG = ("materialize", "manifest", "verify", "reclaim", "bench")
COUNT = 40
DELAY = 0.06  # seconds a read of a volume: more than two in all, as the test's file system answers one read at a time


@pytest.mark.parametrize("name", NAMES)
def test_a_command_prints_json_alone(program: Program, tmp_path: Path, name: str) -> None:
    """One object; of long work an object a line, the last with `"event": "end"`. Messages are on standard error, and
    the exit code is the one without it."""
    command: Command = COMMANDS[name]
    with placed(command, program, tmp_path) as place:
        first, *rest = command.arguments(place)
        at = 1 if first in ("manifest", "cache") else 0
        arguments = [first, *rest[:at], *(["--json"] if "--json" not in rest else []), *rest[at:]]
        done = program.run(*arguments, check=False)
        assert done.returncode == command.code, done.stderr
        found = report_of(done) if name.startswith(LONG) else json.loads(done.stdout)
        assert found
        assert command.made(place, command.code)


def test_every_command_with_facts_has_it(program: Program) -> None:
    """By its help; and the others are those that have none."""
    having = {name for name in COMMANDS if "--json" in program.run(name.split()[0], "--help", check=False).stdout}
    assert {name for name in COMMANDS if name not in WITHOUT} - having == {"cache", "manifest"}  # theirs have it
    for name, deeper in (("manifest", "merge"), ("manifest", "rebuild"), ("cache", "ls"), ("cache", "clear")):
        assert "--json" in program.run(name, deeper, "--help").stdout


@needs_root
@pytest.mark.parametrize("command", ["verify --shards", "verify --sources", "reclaim"])
def test_long_work_says_how_far_it_is(program: Program, tmp_path: Path, command: str) -> None:
    """Once a second, as bytes or voxels that are done, of how many; for `reclaim` and both kinds of `verify`."""
    require_fuse()
    data = noise_dataset(tmp_path / "data", COUNT, (8, 8, 8))
    made = program.materialize(data, tmp_path / "shards")
    arguments: dict[str, list[object]] = {
        "verify --shards": ["verify", "--shards", made],
        "verify --sources": ["verify", "--sources", "--quarantine", tmp_path / "list.csv"],
        "reclaim": ["reclaim", "--shards", made],
    }
    with faulty_folder({path.name: path.read_bytes() for path in data.volumes()}) as folder:
        folder.on_read = lambda name: time.sleep(DELAY)
        slow = Dataset(folder.point, data.reports, data.meta, data.labels)
        done = program.run(*arguments[command], *slow.flags(), "--json", check=False)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    begun = {event["what"]: event["total"] for event in events if event["event"] == "begin"}
    told = [event for event in events if event["event"] == "progress"]
    assert told, done.stdout + done.stderr
    assert all(0 < event["done"] <= event["total"] == begun[event["what"]] for event in told), told
    assert report_of(done)


def test_bench_names_each_step(program: Program, tmp_path: Path) -> None:
    """The measurement that begins, and how many there are."""
    require_fuse()
    data = noise_dataset(tmp_path / "data", 2)
    flags = ["--runs", 2, "--readers", 1, "--read-ahead", 0, "--python", "/none", "--work-dir", tmp_path]
    done = program.run("bench", *data.flags(), *flags, "--json")
    steps = [json.loads(line) for line in done.stdout.splitlines()][:-1]
    assert [step["done"] for step in steps] == [0, 1, 2, 3, 4] and {step["of"] for step in steps} == {5}
    assert (
        steps[0]["what"] == "materialize" and steps[1]["what"] == steps[3]["what"] == "mount --read-ahead 0, 1 reader"
    )


def test_the_page_takes_what_was_printed(program: Program, tmp_path: Path) -> None:
    """All lines of `verify --json`, of which the last counts; what is something else is refused."""
    data = noise_dataset(tmp_path / "data", 2, (16, 16, 16))
    made = program.materialize(data, tmp_path / "shards")
    printed = tmp_path / "verify.json"
    printed.write_text(program.run("verify", "--shards", made, "--json").stdout)
    page = tmp_path / "page.html"
    for text in (printed.read_text(), json.dumps(json.loads(printed.read_text().splitlines()[-1]), indent=2)):
        printed.write_text(text)
        program.run("report", *data.flags(), "--verified", printed, "-o", page)
        assert "fine" in page.read_text()
    for text in ("", '{"event": "begin"}\n{"event"'):
        printed.write_text(text)
        refused = program.refuses("report", *data.flags(), "--verified", printed, "-o", page)
        assert str(printed) in refused and "this is not what `ctwds-fs verify --json` prints" in refused


def test_a_manifest_that_cannot_be_written(program: Program, tmp_path: Path) -> None:
    """What is missing is in the object, as it is in the message."""
    data = noise_dataset(tmp_path / "data", 4)
    out = tmp_path / "out"
    part = [*data.flags(), *SMALL_FLAGS, "--output-dir", out, "--partition", "0/2"]
    program.run("materialize", *part)
    done = program.run("manifest", "merge", out, "--json", check=False)
    found = report_of(done)
    assert done.returncode == 1 and not found["written"] and found["shards"] is None
    assert len(found["missing"]) == 1 and found["missing"][0] in done.stderr
    program.run("materialize", *part[:-1], "1/2")
    found = report_of(program.run("manifest", "merge", out, "--json"))
    assert found["written"] and found["shards"] == len(shards(out)) and found["missing"] == []
    assert found["manifest"] == str(out / "manifest.json")


def keys_of(found: dict[str, Any]) -> dict[str, Any]:
    """The keys that `init` found, with their values."""
    return {key["key"]: key["value"] for key in found["keys"] if key["decision"] == "found"}


def test_init_without_a_terminal(program: Program, tmp_path: Path) -> None:
    """What was found, and that nothing is written: a look, for programs. With --yes, it is written."""
    data = noise_dataset(tmp_path / "data", 4)
    file = tmp_path / "ctwds.toml"
    done = program.run("init", data.folder, "--json", cwd=tmp_path, check=False)
    looked = json.loads(done.stdout)
    assert done.returncode == 1 and not looked["written"] and not file.exists()
    assert keys_of(looked)["data_folder"] == str(data.folder)
    assert all(key["reason"] for key in looked["keys"]) and "no terminal to ask on" in done.stderr
    written = json.loads(program.run("init", data.folder, "--json", "--yes", cwd=tmp_path).stdout)
    assert written == looked | {"written": True} and file.exists()


@pytest.mark.parametrize("answer", ["y", "n"])
def test_init_asks_about_the_file(program: Program, tmp_path: Path, answer: str) -> None:
    """The user sees on standard error what would be written; the object says what became of it."""
    data = noise_dataset(tmp_path / "data", 4)
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode() + b"\n")
    try:
        done = program.run("init", data.folder, "--json", cwd=tmp_path, stdin=theirs, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    assert "data_folder = " in done.stderr and "Write ctwds.toml?" in done.stderr
    is_written = json.loads(done.stdout)["written"]
    assert is_written == (answer == "y") == (done.returncode == 0) == (tmp_path / "ctwds.toml").exists()


def test_unmount_says_what_became_of_it(program: Program, tmp_path: Path) -> None:
    """A mount with an open file is detached with --lazy, and ended with --force."""
    require_fuse()
    data = noise_dataset(tmp_path / "data", 2)
    with mount_folder() as base:
        point = base / "mount"
        for flag, state in (("--lazy", "detached"), ("--force", "unmounted")):
            told = json.loads(program.run("mount", *data.flags(), "--json", "--log-file", base / "log", point).stdout)
            with (point / "shard-000000.tar").open("rb"):
                ended = json.loads(program.run("unmount", flag, "--json", point).stdout)
            expected = {"mountpoint": str(point), "pid": told["mount"]["pid"], "state": state, "elsewhere": []}
            assert ended == expected


def test_the_demonstration_speaks_to_people_aside(program: Program, tmp_path: Path) -> None:
    """What its commands say is on standard error; the object has what it made and read."""
    require_fuse()
    folder = tmp_path / "demo"
    done = program.run("demo", folder, "--json", timeout=COMMAND_DEADLINE)
    found = json.loads(done.stdout)
    assert "$ ctwds-fs verify" in done.stderr and "Everything passed" in done.stderr
    assert (found["folder"], found["volumes"], found["shards"], found["mounted"]) == (str(folder), 8, 2, True)
    assert found["npz_bytes"] == sum(path.stat().st_size for path in folder.glob("volumes/*.npz"))
    made = subprocess.run([program.path, "materialize", "--output-dir", "files"], cwd=folder, check=True, timeout=60)
    assert made and found["shard_bytes"] == sum(path.stat().st_size for path in shards(folder / "files"))

"""What is said of one thing, and of much more than all: `1 shard`, no range of one, and no 42378 %."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from every_command import COMMANDS, Place
from harness import Program, mount_folder, require_fuse
from small_datasets import write_dataset

# Shares are as they are: `1 of 1 files`.
PLURAL = re.compile(
    r"(?<![\w.,/:-])(?<!\d of )1 (?:[A-Za-z]+ )?"
    r"(?:samples|shards|volumes|files|readers|runs|rows|labels|classes|values|studies)\b"
)
RANGE_OF_ONE = re.compile(r"(?<!\S)(\S+) to \1(?![\w.])")
PERCENT = re.compile(r"\d{4,}(?:\.\d+)? %")
QUIET = {"completions", "man", "--help", "--version", "a wrong option", "an error"}  # they say nothing of data


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - QUIET))
def test_one_of_each(program: Program, tmp_path: Path, name: str) -> None:
    """Of a data set of one volume, which is so well packed that its shard is hundreds of times as large."""
    command = COMMANDS[name]
    if command.mounts:
        require_fuse()
    zeros = {"v00.npz": {"data": np.zeros((96, 96, 96), np.float32)}}
    data = write_dataset(tmp_path / "data", zeros, deflated=True)
    (out := tmp_path / "out").mkdir()
    made = program.materialize(data, tmp_path / "shards")
    with mount_folder() as base:
        place = Place(data, made, out, base / "mount")
        command.run_before(program, place)
        try:
            arguments = command.arguments(place)
            if name == "cat":
                arguments = [*arguments[:-1], "no-such-shard"]
            done = program.run(*arguments, check=False)
        finally:
            program.run("unmount", place.mount, check=False)
    said = done.stdout + done.stderr
    assert said != ""
    for wrong in (PLURAL, RANGE_OF_ONE, PERCENT):
        assert not wrong.search(said), said


def test_an_estimate(program: Program, tmp_path: Path) -> None:
    """Its percentages, which are below zero where shards are larger than the files."""
    data = write_dataset(tmp_path, {"v00.npz": {"data": np.zeros((96, 96, 96), np.float32)}}, deflated=True)
    said = program.run("plan", *data.flags(), "--estimate", "--estimate-samples", 1).stdout
    assert re.search(r" -\d+ x ", said) and " times the source files" in said and not PERCENT.search(said), said


def test_the_patterns_see_what_they_should() -> None:
    """A pattern that matches nothing would hold anything."""
    assert (
        PLURAL.search("in 1 shards,")
        and PLURAL.search("1 NPZ files")
        and not PLURAL.search("0/1 shard, 11 shards, 1 of 1 files")
    )
    assert RANGE_OF_ONE.search("shard-000000.tar to shard-000000.tar, 3") and not RANGE_OF_ONE.search("1 to 10")
    assert PERCENT.search("(42378.0 % of") and not PERCENT.search("320.4 % of")

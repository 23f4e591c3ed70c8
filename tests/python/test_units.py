"""One system of units: whatever is said of bytes is in KiB, MiB and GiB."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from every_command import COMMANDS, noisy_dataset, placed
from harness import Program

PACKAGE = Path(__file__).resolve().parents[2] / "python" / "ctwds"
DECIMAL = re.compile(r"(?<![A-Za-z])[kKMGT]B(?![A-Za-z])|(?<![A-Za-z])[kMGT]bytes\b")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_what_a_command_says(program: Program, tmp_path: Path, name: str) -> None:
    """Its result, its messages, and both forms of its help."""
    command = COMMANDS[name]
    with placed(command, program, tmp_path) as place:
        asked = [command.arguments(place)]
        asked += [[asked[0][0], flag] for flag in ("-h", "--help")]
        for arguments in asked:
            done = program.run(*arguments, check=False, errors="replace")
            said = done.stderr + ("" if arguments[0] == "cat" else done.stdout)  # of noise, any two bytes
            assert not DECIMAL.findall(said), said


def test_an_estimate(program: Program, tmp_path: Path) -> None:
    """Its table of rates, as all else of `plan`."""
    data = noisy_dataset(tmp_path / "data")
    said = program.run("plan", *data.flags(), "--estimate", "--estimate-samples", 2).stdout
    assert "MiB of" in said and "KiB" in said and not DECIMAL.findall(said)


def test_what_the_package_says() -> None:
    """No message of the loader puts a number before another unit."""
    for file in PACKAGE.glob("*.py"):
        assert not re.findall(r"\} ?[kKMGT]B\b", file.read_text()), file

"""Where the command line says that the data set is: by flags, or by the configuration that the training reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Program, is_mounted
from make_dataset import Dataset

INPUTS = ("--data-folder", "--reports-file", "--meta-file", "--labels-file")


@pytest.mark.parametrize("command", ["plan", "mount", "materialize", "bench"])
def test_missing_inputs_are_named(program: Program, small: Dataset, base: Path, command: str) -> None:
    """All at once, and as a usage error; in the background daemon's stead as well."""
    more = {"mount": [base / "mount"], "materialize": ["--output-dir", base / "out"]}.get(command, [])
    for given in range(len(INPUTS)):
        flags = small.flags()[: 2 * given]
        done = program.run(command, *flags, *more, check=False)
        assert done.returncode == 2 and "panicked" not in done.stderr, done.stderr
        named = [flag for flag in INPUTS if flag in done.stderr]
        assert named == list(INPUTS[given:]), done.stderr
    assert not is_mounted(base / "mount") and not (base / "out").exists()

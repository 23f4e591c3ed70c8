"""What the tests of `ctwds-fs verify` share: the kinds of volume, and the command."""

from __future__ import annotations

from pathlib import Path

from harness import Program
from kinds import Steps

KINDS = ("stored", "rescaled", "preprocessed")
STEPS = Steps(shape=(10, 7, 6)).flags()


def verify(program: Program, folder: Path, *more: object) -> tuple[int, str]:
    """The exit code of `ctwds-fs verify` on a folder, and what it printed on both streams."""
    done = program.run("verify", "--webdataset_dir", folder, *more, check=False)
    assert "panicked" not in done.stderr
    return done.returncode, done.stdout + done.stderr

"""`ctwds-fs demo`: what it leaves, with a mount and without, and where it cannot go on."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import webdataset
from harness import COMMAND_DEADLINE, Program, is_mounted, require_fuse, shards


def test_with_a_mount(program: Program, tmp_path: Path) -> None:
    """It mounts, reads, verifies and unmounts; the data set is real for NumPy, and the next commands are right."""
    require_fuse()
    shown = program.run("demo", tmp_path / "demo").stdout
    folder = tmp_path / "demo"
    assert "Everything passed" in shown and not is_mounted(folder / "shards") and shards(folder / "shards") == []
    arrays = [np.load(path)["data"] for path in sorted(folder.glob("volumes/*.npz"))]
    assert len(arrays) == 8 and {array.shape for array in arrays} == {(160, 160, 64)}
    assert all(array.dtype == np.float32 and -1500 < array.min() - 1024 < array.max() - 1024 < 1500 for array in arrays)
    for line in ("ctwds-fs mount shards", "ctwds-fs unmount shards", "ctwds-fs materialize --output-dir files"):
        assert line in shown
        program.run(*line.split()[1:], cwd=folder)
    found = webdataset.WebDataset([str(path) for path in shards(folder / "files")], shardshuffle=False)
    assert len(list(found)) == 8


def test_without_the_device(program: Program, tmp_path: Path) -> None:
    """As in a container: the shards are written, and it says so; what to do next needs no mount either."""
    hide = 'mount -t tmpfs -o mode=755 ctwds-test /dev && : > /dev/null && exec "$@"'
    command = [str(program.path), "demo", str(tmp_path / "demo")]
    session = ["unshare", "--mount", "--propagation", "private", "bash", "-c", hide, "bash", *command]
    done = subprocess.run(session, capture_output=True, text=True, timeout=COMMAND_DEADLINE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing can be mounted here" in done.stderr and "Everything passed" in done.stdout
    assert len(shards(tmp_path / "demo" / "shards")) == 2 and "ctwds-fs cat 0" in done.stdout


def test_a_folder_with_something_in_it(program: Program, tmp_path: Path) -> None:
    """Nothing is written into it."""
    (tmp_path / "note.txt").touch()
    assert "there is something in this folder" in program.refuses("demo", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_variables_of_another_data_set(program: Program, tmp_path: Path) -> None:
    """They are the user's, and no flags of the demonstration."""
    environment = os.environ | {"CTWDS_DATA_FOLDER": str(tmp_path / "none"), "CTWDS_LIMIT": "0"}
    program.run("demo", tmp_path / "demo", env=environment)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_is_ended(program: Program, tmp_path: Path, number: signal.Signals) -> None:
    """While it is mounted: nothing stays mounted, and the exit code says that it was not done."""
    require_fuse()
    folder = tmp_path / "demo"
    with program.running("demo", folder) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("$ ctwds-fs verify"):
                break
        assert is_mounted(folder / "shards")
        process.send_signal(number)
        process.communicate(timeout=COMMAND_DEADLINE)
        assert process.returncode == 128 + number
    assert not is_mounted(folder / "shards")

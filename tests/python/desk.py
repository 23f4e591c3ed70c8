"""A folder in which the commands of the documentation are run, as a reader would run them.

The folders that the pages name (`/mnt`, `/data`, `/fast`, `/scratch`) stand for some below a temporary folder, in which
there also is what the pages take for granted: two data sets, `ctwds.toml`, the training's configuration, masks, a list
of studies, and a `train.py` that reads shards."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from docpages import Block, Page
from harness import REPOSITORY, Program, daemon_of, is_running, mount_points, wait_until
from make_dataset import Dataset
from niftis import nib

VOLUMES = 4
PARTS = 8
DEADLINE = 200  # seconds for one command
# Run by others: scripts/test.sh builds and runs the demonstration, test_wheel.py and test_archives.py install; a
# benchmark takes a quarter of an hour. That the scripts are there is checked here.
BY_OTHERS = re.compile(r"^(?:scripts/\w+\.sh|pip install|apt install|tar -xzf|cargo build)\b")
ROOTS = re.compile(r"(?<![\w./])/(?=(?:mnt|data|fast|scratch)/)")
TABLES = ("train_reports.csv", "train_metadata.csv", "train_predicted_labels.csv")
VALID_TABLES = ("validation_reports.csv", "validation_metadata.csv", "valid_predicted_labels.csv")
INIT = re.compile(r"\bctwds-fs init\b(?!.* --output\b)")
TRAIN_PY = re.compile(r"^# train\.py\b")

# Reads every sample of the shards that are there: the pattern of the pages is that of a larger data set.
TRAIN = """\
import glob, re, sys, tarfile
pattern = sys.argv[sys.argv.index("--shards") + 1]
found = sorted(glob.glob(re.sub(r"[{].*[}]", "*", pattern)))
members = [tar.extractfile(info).read() for path in found for tar in [tarfile.open(path)] for info in tar]
assert found and found[0].endswith("shard-000000.tar") and len(members) == 4 * {volumes}, (found, len(members))
"""
CONFIG = """\
data:
  train_dir: train_fixed_npz
  reports_train: train_reports.csv
  train_meta: train_metadata.csv
  labels_train: train_predicted_labels.csv
  webdataset_shards_train: {root}/mnt/configured/shard-{{000000..000471}}.tar
"""
TOML = """\
data_folder = "train_fixed_npz"
reports_file = "train_reports.csv"
meta_file = "train_metadata.csv"
labels_file = "train_predicted_labels.csv"
"""
FOLDERS = ("home", "bin", "tmp", "state", "configs", "masks", "mnt/shards", "mnt/configured", "data/shards")


@dataclass
class Desk:
    """A folder in which the commands of a page are run."""

    root: Path
    program: Program
    source: Dataset
    variables: list[str] = field(default_factory=list)
    # What stands for the servers that a page names.
    hosts: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> None:
        """What is there before the first command; nothing of the machine is used or changed."""
        for name in FOLDERS:
            (self.root / name).mkdir(parents=True)
        (self.root / "bin" / "ctwds-fs").symlink_to(self.program.path)
        for python in ("python", "python3"):
            script = self.root / "bin" / python
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
            script.chmod(0o755)
        (self.root / "configs" / "base_config.yaml").write_text(CONFIG.format(root=self.root))
        given = (self.source.reports, self.source.meta, self.source.labels)
        for table, train, valid in zip(given, TABLES, VALID_TABLES, strict=True):
            shutil.copy2(table, self.root / train)
            text = table.read_text(encoding="utf-8").replace("train_", "valid_")
            (self.root / valid).write_text(text, encoding="utf-8")
        for path in self.source.volumes():
            copy = self.root / "valid_fixed_npz" / path.name.replace("train_", "valid_")
            copy.parent.mkdir(exist_ok=True)
            shutil.copy2(path, copy)
            mask = (np.load(path)["data"] > 0).astype(np.uint8)
            np.savez_compressed(self.root / "masks" / f"{path.stem}_seg.npz", seg=mask)
            nib.save(nib.Nifti1Image(mask, np.eye(4)), self.root / "masks" / f"{path.stem}.nii.gz")
        studies = [path.stem for path in self.source.volumes()]
        (self.root / "validation.txt").write_text("\n".join(studies[:2]) + "\n")

    def lay(self, page: Page) -> None:
        """What a page's reader has: `ctwds.toml`, unless `init` of the page writes it, and the page's own `train.py`,
        if it shows one."""
        commands = [line for block in page.blocks if block.language == "sh" for line in block.commands()]
        if not any(INIT.search(line) for line in commands):
            self.write_toml()
        shown = [block for block in page.blocks if block.language == "python" and TRAIN_PY.match(block.lines[0])]
        own = "\n".join(shown[0].lines) + "\n" if shown else TRAIN.replace("{volumes}", str(VOLUMES))
        (self.root / "train.py").write_text(own, encoding="utf-8")

    def write_toml(self) -> None:
        """The file that names the training set."""
        (self.root / "ctwds.toml").write_text(TOML)

    def refill(self) -> None:
        """The NPZ files that a block has removed: the next one may need them."""
        for path in self.source.volumes():
            copy = self.root / "train_fixed_npz" / path.relative_to(self.source.folder)
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)

    def mounts(self) -> list[Path]:
        """What is mounted here."""
        return [Path(point) for point in mount_points() if Path(point).is_relative_to(self.root)]

    def environment(self) -> dict[str, str]:
        """Folders of its own, the program and the Python package by their names."""
        own = {"HOME": "home", "TMPDIR": "tmp", "XDG_STATE_HOME": "state"}
        folders = {name: str(self.root / folder) for name, folder in own.items()}
        names = {"PATH": f"{self.root / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY / "python")}
        return os.environ | folders | names

    def shell(self, command: str, answer: str | None = None, **more: str) -> None:
        """Run one command line, with an answer typed on a terminal if one is asked for."""
        for named, stand_in in self.hosts.items():
            command = command.replace(named, stand_in)
        script = "\n".join([*self.variables, ROOTS.sub(f"{self.root}/", command)])
        ours, theirs = pty.openpty() if answer else (None, subprocess.DEVNULL)
        try:
            if answer and ours:
                os.write(ours, answer.encode())
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=self.root,
                env=self.environment() | more,
                stdin=theirs,
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                check=False,
            )
        finally:
            for end in (ours, theirs):
                if answer and end is not None:
                    os.close(end)
        if done.returncode != 0:
            pytest.fail(f"exit code {done.returncode}: {command}\n{done.stdout}{done.stderr}", pytrace=False)

    def run(self, command: str) -> None:
        """Run one line of a page, and check what only this kind of line does."""
        if re.match(r"^[A-Z]+=", command):
            self.variables.append(command)
        elif BY_OTHERS.match(command):
            script = command.split()[0]
            is_there = not script.startswith("scripts/") or os.access(REPOSITORY / script, os.X_OK)
            assert is_there, f"{script} is not there"
        elif f"--partition auto/{PARTS}" in command:
            for index in range(PARTS):
                self.shell(command, SLURM_ARRAY_TASK_ID=str(index))
        elif re.search(r"\breclaim\b.* --delete\b", command):
            self.shell(command, answer="delete\n")
            assert not list((self.root / "train_fixed_npz").rglob("*.npz")), f"NPZ files are left: {command}"
        elif re.search(r"\binit\b(?![^#]* --yes\b)", command):
            self.shell(command, answer="y\n")
        else:
            self.shell(command)

    def run_block(self, block: Block) -> int:
        """Run a block of commands from a whole data set on; how many there are. What it leaves mounted stays for the
        blocks behind it that mount nothing themselves."""
        commands = list(block.commands())
        if any(re.search(r"\bctwds-fs (?:mount|reclaim)\b", line) for line in commands):
            self.end_mounts()
        self.refill()
        for command in commands:
            self.run(command)
        return len(commands)

    def run_python(self, block: Block) -> None:
        """Run a block of Python, as a file."""
        code = ROOTS.sub(f"{self.root}/", "\n".join(block.lines))
        (self.root / "block.py").write_text(code + "\n", encoding="utf-8")
        self.shell("python block.py")

    def end_mounts(self) -> None:
        """Unmount what is mounted here, and see the daemons go."""
        for point in self.mounts():
            self.end(point)
        assert self.mounts() == []

    def end(self, point: Path) -> None:
        """Unmount, and see the daemon go."""
        daemon = daemon_of(point)
        self.program.run("unmount", point)
        wait_until(lambda: not is_running(daemon), "the mount's daemon ends")

"""Runs the README and `docs/`: every command line, as it is written, in the order of the page.

The folders that the pages name (`/mnt`, `/data`, `/fast`, `/scratch`) stand for some below a temporary folder, in which
there also is what the pages take for granted: the data set, the training's configuration, a list of studies, and a
`train.py` that reads shards."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from docpages import Block, Page, manual
from harness import (
    PREFIX,
    REPOSITORY,
    Program,
    daemon_of,
    force_unmount,
    is_running,
    mount_points,
    require_fuse,
    shards,
    wait_until,
)
from make_dataset import Dataset, Options, make_dataset
from niftis import nib
from small_datasets import write_csv

MANUAL = manual()
PAGES = [page for page in MANUAL if any(block.language == "sh" for block in page.blocks)]
VOLUMES = 4
DEADLINE = 200  # seconds for one command
PARTS = 8
# Run by others: scripts/test.sh builds and runs the demonstration, test_wheel.py installs; a benchmark takes a quarter
# of an hour. That the scripts are there is checked here.
BY_OTHERS = re.compile(r"^(?:scripts/\w+\.sh|pip install|cargo build|cp target/release/ctwds-fs)\b")
ROOTS = re.compile(r"(?<![\w./])/(?=(?:mnt|data|fast|scratch)/)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z_-]*[a-z]")
FOREIGN = {"--array", "--open"}  # of sbatch and of `cargo doc`

# Reads every sample of the shards that are there: the pattern of the pages is that of a larger data set.
TRAIN = """\
import glob, os, re, sys, tarfile
pattern = sys.argv[sys.argv.index("--shards") + 1]
found = sorted(glob.glob(re.sub(r"[{].*[}]", "*", pattern)))
members = [tar.extractfile(info).read() for path in found for tar in [tarfile.open(path)] for info in tar]
assert found and found[0].endswith("shard-000000.tar") and len(members) == 4 * {volumes}, (found, len(members))
"""
CONFIG = """\
data:
  train_dir: train_fixed_npz
  reports_train: reports.csv
  train_meta: metadata.csv
  labels_train: labels.csv
  webdataset_shards_train: {root}/mnt/configured/shard-{{000000..000471}}.tar
"""


@dataclass
class Desk:
    """A folder in which the commands of a page are run."""

    root: Path
    program: Program
    source: Dataset
    variables: list[str] = field(default_factory=list)

    def prepare(self) -> None:
        """What is there before the first command; nothing of the machine is used or changed."""
        for name in ("home", "bin", "tmp", "state", "configs", "mnt/shards", "mnt/configured", "data/shards"):
            (self.root / name).mkdir(parents=True)
        (self.root / "bin" / "ctwds-fs").symlink_to(self.program.path)
        for name in ("python", "python3"):
            script = self.root / "bin" / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
            script.chmod(0o755)
        (self.root / "train.py").write_text(TRAIN.replace("{volumes}", str(VOLUMES)))
        (self.root / "configs" / "base_config.yaml").write_text(CONFIG.format(root=self.root))
        for table in (self.source.reports, self.source.meta, self.source.labels):
            shutil.copy2(table, self.root / table.name)
        studies = [path.stem for path in self.source.volumes()]
        (self.root / "masks").mkdir()
        for path in self.source.volumes():
            mask = (np.load(path)["data"] > 0).astype(np.uint8)
            np.savez_compressed(self.root / "masks" / f"{path.stem}_seg.npz", seg=mask)
            nib.save(nib.Nifti1Image(mask, np.eye(4)), self.root / "masks" / f"{path.stem}.nii.gz")
        (self.root / "validation.txt").write_text("\n".join(studies[:2]) + "\n")

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
        """Folders of its own, and the program by its name."""
        own = {"HOME": "home", "TMPDIR": "tmp", "XDG_STATE_HOME": "state"}
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"
        return os.environ | {name: str(self.root / folder) for name, folder in own.items()} | {"PATH": path}

    def shell(self, command: str, answer: str | None = None, **more: str) -> None:
        """Run one command line, with an answer typed on a terminal if one is asked for."""
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
        elif re.search(r"\binit\b(?!.* --yes\b)", command):
            self.shell(command, answer="y\n")
        else:
            self.shell(command)

    def end(self, point: Path) -> None:
        """Unmount, and see the daemon go."""
        daemon = daemon_of(point)
        self.program.run("unmount", point)
        wait_until(lambda: not is_running(daemon), "the mount's daemon ends")

    def run_block(self, block: Block) -> int:
        """Run a block from a whole data set on, and unmount what it leaves mounted; how many commands it has."""
        self.refill()
        commands = list(block.commands())
        for command in commands:
            self.run(command)
        for point in self.mounts():
            self.end(point)
        assert self.mounts() == []
        return len(commands)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A data set without strays, so that nothing is left out; one of its studies is what the pages select by labels."""
    out = tmp_path_factory.mktemp("source")
    dataset = make_dataset(Options(out, volumes=VOLUMES, size=(40, 32, 16), strays=False))
    names = [path.stem + ".nii.gz" for path in dataset.volumes()]
    rows = [[name, int(at < 2), int(at == 0), 0] for at, name in enumerate(names)]
    write_csv(dataset.labels, [["VolumeName", "Lung nodule", "Emphysema", "Hiatal hernia"], *rows])
    return dataset


@pytest.fixture
def desk(program: Program, source: Dataset) -> Iterator[Desk]:
    """A new one; whatever a failed command has left mounted is ended."""
    require_fuse()
    desk = Desk(Path(tempfile.mkdtemp(prefix=PREFIX)).resolve(), program, source)
    try:
        desk.prepare()
        yield desk
    finally:
        for point in desk.mounts():
            force_unmount(point)
        if not desk.mounts():  # else a recursive delete would walk into it
            with contextlib.suppress(OSError):
                shutil.rmtree(desk.root)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands(desk: Desk, page: Page) -> None:
    """Each command of a page ends with exit code 0."""
    run = sum(desk.run_block(block) for block in page.blocks if block.language == "sh")
    assert run > 0
    if page.name == "README.md":  # the desk is real: what the page says is made was made
        assert shards(desk.root / "fast" / "shards") != []


def test_every_command_of_the_program_is_shown(program: Program) -> None:
    """A command that no page shows is neither found by users nor run by the test above."""
    listed = program.run("--help").stdout.partition("Commands:")[2].partition("General:")[0]
    commands = set(re.findall(r"^ {2}([a-z]+) ", listed, re.MULTILINE)) - {"help"}
    lines = [line for page in PAGES for block in page.blocks if block.language == "sh" for line in block.commands()]
    shown = {word for line in lines for word in re.findall(r"(?:^|\s)ctwds-fs ([a-z]+)", line)}
    assert len(commands) >= 10 and commands - shown == set()


@pytest.mark.parametrize("page", MANUAL, ids=lambda page: page.name)
def test_options(program: Program, page: Page) -> None:
    """Each option that a page names is one of the program, or of a script that it names."""
    helps = [program.run(*command, "--help").stdout for command in commands_with_help(program)]
    scripts = [path for path in (REPOSITORY / "scripts").rglob("*") if path.suffix in {".py", ".sh"}]
    texts = [*helps, *(path.read_text(encoding="utf-8") for path in scripts)]
    known = FOREIGN.union(*(FLAG.findall(text) for text in texts))
    lines = [line for block in page.blocks if block.language == "sh" for line in block.commands()]
    used = {flag.replace("_", "-") for text in [*page.code(), *lines] for flag in FLAG.findall(text)}
    assert used - known == set()


def commands_with_help(program: Program) -> list[list[str]]:
    """All commands, and those of `manifest`."""
    listed = program.run("--help").stdout.partition("Commands:")[2].partition("General:")[0]
    commands = [[name] for name in re.findall(r"^ {2}([a-z]+) ", listed, re.MULTILINE) if name != "help"]
    return [*commands, ["manifest", "merge"], ["manifest", "rebuild"]]

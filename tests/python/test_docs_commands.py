"""Runs the READMEs, `docs/` and `contrib/`: every command line, as it is written, in the order of the page; of the
READMEs the Python as well. See desk.py for what the commands find."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ctwds
import numpy as np
import pytest
from desk import PARTS, VOLUMES, Desk
from docpages import Page, manual
from harness import PREFIX, REPOSITORY, Program, force_unmount, require_fuse, shards
from make_dataset import Dataset, Options, make_dataset
from objects import BUCKET, require_s3, storage, variables
from small_datasets import write_csv

MANUAL = manual()
PAGES = [page for page in MANUAL if any(block.language == "sh" for block in page.blocks)]
BUCKETS = [page for page in PAGES if page.path.name == "object-storage.md"]
READMES = [page for page in MANUAL if page.path.parent == REPOSITORY]
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z_-]*[a-z]")
# Of sbatch, pip, containers, and `cargo doc`.
FOREIGN = {"--array", "--mem", "--parsable", "--time"}
FOREIGN |= {"--bind", "--cap-add", "--device", "--security-opt", "--shm-size", "--open"}


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
@pytest.mark.parametrize("page", [page for page in PAGES if page not in BUCKETS], ids=lambda page: page.name)
def test_commands(desk: Desk, page: Page) -> None:
    """Each command of a page ends with exit code 0, and so does the Python of a README."""
    desk.lay(page)
    run = 0
    for block in page.blocks:
        if block.language == "sh":
            run += desk.run_block(block)
        elif block.language == "python" and page in READMES and "train.py" not in block.lines[0]:
            desk.run_python(block)
    desk.end_mounts()
    assert run > 0
    if page in READMES:  # the desk is real: what the page says is made was made
        assert shards(desk.root / "fast" / "shards") != []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", BUCKETS, ids=lambda page: page.name)
def test_commands_on_buckets(desk: Desk, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, with the shards in a bucket, and on a web server that stands for the one on the page."""
    require_s3()
    desk.write_toml()
    made = desk.program.materialize(desk.source, desk.root / "data" / "uploaded")
    with storage(desk.root / "bucket") as bucket, storage(bucket.folder, is_public=True) as public:
        bucket.put(made, "ct/shards")
        bucket.put(desk.source.folder, "ct/volumes")
        bucket.put(desk.root / "masks", "ct/masks")
        shutil.copy2(desk.source.reports, bucket.object(f"s3://{BUCKET}/ct"))
        for name, value in variables(bucket.port).items():
            monkeypatch.setenv(name, value)
        desk.lay(page)
        desk.hosts["https://data.example.org"] = f"http://127.0.0.1:{public.port}"
        assert sum(desk.run_block(block) for block in page.blocks if block.language == "sh") > 0
        desk.end_mounts()


@pytest.mark.timeout(300)
def test_batch_files(desk: Desk) -> None:
    """Those of `contrib/`, without Slurm: as the job's shell runs them, in the environment of the job."""
    desk.write_toml()
    folder = f"/tmp/ctwds-{desk.root.name}"
    (desk.root / "train.py").write_text("import os, sys\nassert 'shard-000000.tar' in os.listdir(sys.argv[1])\n")
    desk.refill()
    desk.shell(f"bash {REPOSITORY}/contrib/train.sbatch", SLURM_JOB_ID=desk.root.name)
    assert not os.path.exists(folder), "`run` removes the folders that it made"
    convert = (REPOSITORY / "contrib" / "convert.sbatch").read_text(encoding="utf-8")
    last, parts = re.findall(r"^#SBATCH --array=0-(\d+)$|--partition auto/(\d+)$", convert, re.MULTILINE)
    assert int(last[0]) + 1 == int(parts[1]) == PARTS, "the jobs of the array are all parts"
    for part in range(PARTS):
        desk.shell(f"bash {REPOSITORY}/contrib/convert.sbatch /fast/shards", SLURM_ARRAY_TASK_ID=str(part))
    desk.shell("ctwds-fs manifest merge /fast/shards && ctwds-fs verify --shards /fast/shards")


def tree_of(page: Page, folder: Path) -> None:
    """Write the folder that a README draws: one volume, and the tables with the lines that stand below their names."""
    drawing = next(block for block in page.blocks if any("├──" in line for line in block.lines))
    table: Path | None = None
    for line in drawing.lines:
        text = line.lstrip("│├└─ ").strip()
        if "── " in line:
            name = text.split()[0]
            table = folder / name if name.endswith(".csv") else None
            if name.endswith(".npz"):
                path = folder / "train_fixed_npz" / name
                path.parent.mkdir(parents=True)
                np.savez_compressed(path, data=np.zeros((16, 16, 8), np.float32))
        elif table is not None:
            with table.open("a", encoding="utf-8") as file:
                file.write(text + "\n")


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_the_data_set_that_is_drawn(program: Program, tmp_path: Path, page: Page) -> None:
    """`init` finds it, and its sample has what stands in the three tables."""
    tree_of(page, tmp_path)
    assert len(list(tmp_path.glob("*.csv"))) == 3
    program.run("init", "--yes", "train_fixed_npz", cwd=tmp_path)
    (sample,) = ctwds.open(tmp_path / "ctwds.toml")
    assert sample.id == "train_1_a_1" and sample.text == "Emphysema in both upper lobes.\nEmphysema."
    assert sample.labels.tolist() == [1, 0] and sample.meta["RescaleIntercept"] == -1024, sample.meta


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

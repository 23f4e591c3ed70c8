"""The readers for which the index files are, as they are installed: over files, a mount, and its epochs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import wids
from harness import READER_OPTIONS, REPOSITORY, Program, payload, shards
from make_dataset import Dataset

DEADLINE = 100  # seconds; each reader takes a few
DALI = REPOSITORY / ".venv-dali" / "bin" / "python"


@pytest.fixture(scope="module")
def folders(
    program: Program, dataset: Dataset, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Path]]:
    """Files, a mount, and two of its epochs; and files of samples without labels."""
    tables = ["--data-folder", dataset.folder, "--reports-file", dataset.reports, "--meta-file", dataset.meta]
    more = ["--studies", studies_of(dataset, tmp_path_factory.mktemp("list")), "--extra-columns=VolumeName"]
    unlabelled = tmp_path_factory.mktemp("unlabelled")
    program.run("materialize", *tables, *more, *READER_OPTIONS.flags(), "--output-dir", unlabelled)
    with program.mounted(dataset, *READER_OPTIONS.flags(), "--shuffle-seed", 7, "--epochs", 2) as point:
        yield [files, point, point / "epochs" / "000000", point / "epochs" / "000001", unlabelled]


def studies_of(dataset: Dataset, folder: Path) -> Path:
    """A list of the studies that have labels: the others are in no shard with labels."""
    table = pd.read_csv(dataset.labels, dtype=str)
    names = table["VolumeName"].str.removesuffix(".nii.gz")
    names.to_csv(folder / "studies.txt", index=False, header=False)
    return folder / "studies.txt"


def by_tarfile(folder: Path) -> list[dict[str, Any]]:
    """The samples in their order."""
    found: list[dict[str, Any]] = []
    for path in shards(folder):
        with tarfile.open(path) as tar:
            members = [(info.name, payload(tar, info)) for info in tar]
        keys = [name.partition(".")[0] for name, _ in members]
        count = keys.count(keys[0])
        for at in range(0, len(members), count):
            voxels, meta, text, *labels = (payload for _, payload in members[at : at + count])
            found.append(
                {
                    "key": members[at][0].partition(".")[0],
                    "shard": path.name,
                    "voxels": hashlib.sha256(voxels).hexdigest(),
                    "meta": json.loads(meta),
                    "text": text.decode(),
                    "labels": np.frombuffer(b"".join(labels), "<f4").tolist(),
                }
            )
    return found


def run(python: Path | str, script: str, folders: list[Path]) -> Any:
    """What a reader's own process found."""
    command = [str(python), str(Path(__file__).with_name(script)), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_energon(folders: list[Path]) -> None:
    """It takes a folder as it is, without `energon prepare`: in its order, by several workers, and to train."""
    found = run(sys.executable, "energon_reader.py", folders)
    for folder in folders:
        right = by_tarfile(folder)
        assert len(right) == 13 and (folder != folders[-1] or not any(each["labels"] for each in right))
        assert found[str(folder)]["0 workers"] == right, folder
        for several in ("2 workers", "training"):
            assert sorted(found[str(folder)][several], key=lambda each: each["key"]) == sorted(
                right, key=lambda each: each["key"]
            ), (folder, several)


@pytest.mark.skipif(not DALI.exists(), reason="NVIDIA DALI is 820 MB: scripts/setup.sh --dali installs it")
def test_dali(folders: list[Path]) -> None:
    """Its CPU reader with our indexes, which are to the byte those of its own program."""
    found = run(DALI, "dali_reader.py", folders[:-1])
    for folder in folders[:-1]:  # it is told which members there are
        right = [{field: each[field] for field in ("voxels", "labels", "text")} for each in by_tarfile(folder)]
        assert found[str(folder)]["samples"] == right, folder
        assert found[str(folder)]["indexes"] == {
            path.name: path.with_suffix(".idx").read_text() for path in shards(folder)
        }, folder


@pytest.mark.filterwarnings("ignore:String specifications")  # wids' own
def test_wids(folders: list[Path], tmp_path: Path) -> None:
    """Any sample by its number, decoded by wids' own rules, with links to the shards in its cache: nothing is
    copied."""
    for number, folder in enumerate(folders):
        links = tmp_path / str(number)
        links.mkdir()
        for path in shards(folder):
            os.symlink(path, links / path.name)
        data = wids.ShardListDataset(str(folder / "shardindex.json"), cache_dir=str(links), keep=True)
        right = by_tarfile(folder)
        assert len(data) == len(right)
        for at in (12, 0, 5, 4, 11):
            sample = data[at]
            assert (sample["__key__"], sample[".json"], sample[".txt"]) == (
                right[at]["key"],
                right[at]["meta"],
                right[at]["text"],
            )
            voxels = np.frombuffer(sample[".bin"].read(), "<f2").reshape(sample[".json"]["volume_shape"])
            assert hashlib.sha256(voxels.tobytes()).hexdigest() == right[at]["voxels"]
        data.cache.clear()  # wids keeps its shards open, and an open file keeps a mount busy
        assert all(path.is_symlink() for path in links.glob("*.tar"))

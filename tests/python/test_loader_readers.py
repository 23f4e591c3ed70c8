"""Training pipelines of other packages, over the mount and over the materialised files: the voxels are NPZ's. What a
plain `webdataset` pipeline, `tarfile` and `wids` see is in test_readers.py; Energon and DALI are in
test_index_readers.py."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds
from harness import REPOSITORY, Program, shards
from loading import DEADLINE
from make_dataset import Dataset
from numpy.typing import NDArray
from torch.utils.data import DataLoader

DATASETS = REPOSITORY / ".venv-datasets" / "bin" / "python"
SAMPLES = 13

Decoded = tuple[str, NDArray[Any], str]


@pytest.fixture(scope="module")
def npz(dataset: Dataset) -> dict[str, NDArray[Any]]:
    """The arrays of the data set's volumes, as float16."""
    return {path.stem: np.load(path)["data"].astype(np.float16) for path in dataset.volumes()}


def parts(sample: dict[str, Any]) -> Decoded:
    """Study, voxels and text of a sample that webdataset decoded."""
    assert np.frombuffer(sample["labels"], "<f4").shape == (18,)
    voxels = np.frombuffer(bytearray(sample["bin"]), np.float16).reshape(sample["json"]["volume_shape"])
    return sample["json"]["study_id"], voxels, sample["txt"]


def studies(samples: Iterable[Decoded], npz: dict[str, NDArray[Any]]) -> list[str]:
    """The studies in the order in which they came, each with NPZ's voxels."""
    order = []
    for study, voxels, text in samples:
        np.testing.assert_array_equal(voxels, npz[study])
        assert "\n" in text
        order.append(study)
    return order


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("workers", [0, 2, 4])
def test_webdataset_shuffled(folder: Path, npz: dict[str, NDArray[Any]], workers: int) -> None:
    """Forked workers."""
    check_shuffled(folder, npz, workers, "fork")


def test_webdataset_in_spawned_workers(mount: Path, npz: dict[str, NDArray[Any]]) -> None:
    """Over the mount only, as each of them imports PyTorch for seconds."""
    check_shuffled(mount, npz, 2, "spawn")


def check_shuffled(folder: Path, npz: dict[str, NDArray[Any]], workers: int, start: str) -> None:
    """Shards shuffled and split by worker, samples decoded and shuffled in a buffer; two epochs of the same workers,
    each with every sample once, in another order."""
    data = (
        wds.WebDataset(
            [str(path) for path in shards(folder)],
            shardshuffle=4,
            seed=1,
            nodesplitter=wds.split_by_node,
            workersplitter=wds.split_by_worker,
        )
        .shuffle(5)
        .decode()
        .map(parts)
    )
    more: dict[str, Any] = (
        {"persistent_workers": True, "timeout": DEADLINE, "multiprocessing_context": start} if workers else {}
    )
    loader = DataLoader(data, batch_size=None, num_workers=workers, **more)
    epochs = [studies(loader, npz) for _ in range(2)]
    assert [len(epoch) for epoch in epochs] == [SAMPLES, SAMPLES] and set(epochs[0]) == set(epochs[1])
    assert len(set(epochs[0])) == SAMPLES and epochs[0] != epochs[1]


def test_webdataset_resampled(folder: Path, npz: dict[str, NDArray[Any]]) -> None:
    """As many samples as asked for, of shards drawn with replacement, by two workers."""
    data = wds.WebDataset([str(path) for path in shards(folder)], resampled=True, shardshuffle=False)
    data = data.shuffle(5).decode().map(parts).with_epoch(30)
    found = studies(wds.WebLoader(data, batch_size=None, num_workers=2, timeout=DEADLINE), npz)
    assert len(found) == 2 * 30, "an epoch of 30 for each worker"
    assert 1 < len(set(found)) <= SAMPLES


needs_datasets = pytest.mark.skipif(
    not DATASETS.exists(), reason="Hugging Face datasets is 305 MB: scripts/setup.sh --datasets installs it"
)


@needs_datasets
def test_hugging_face_streaming(files: Path, mount: Path, npz: dict[str, NDArray[Any]]) -> None:
    """`datasets` reads the shards where they are: in order, shuffled, and behind a DataLoader of two workers."""
    command = [str(DATASETS), str(Path(__file__).with_name("datasets_reader.py")), str(files), str(mount)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * DEADLINE, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found[str(files)] == found[str(mount)]
    passes = found[str(files)]
    for samples in passes.values():
        assert len(samples) == SAMPLES == len({sample["study"] for sample in samples})
        for sample in samples:
            assert sample["voxels"] == hashlib.sha256(np.ascontiguousarray(npz[sample["study"]]).tobytes()).hexdigest()
            assert len(sample["labels"]) == 18 and "\n" in sample["text"]
    assert passes["shuffled"] != passes["in order"]


@needs_datasets
def test_hugging_face_takes_the_folder(
    program: Program, dataset: Dataset, files: Path, mount: Path, tmp_path: Path
) -> None:
    """`load_dataset(FOLDER)` gives exactly the samples, as one split, streaming and not: of one shard and of several,
    plain and compressed, merged from parts, of a mount and of its epochs."""
    folders = {"files": files, "mount": mount}
    folders["one shard"] = program.materialize(dataset, tmp_path / "one", "--samples-per-shard", 100)
    for name, more in {"compressed": [], "one compressed shard": ["--samples-per-shard", 100]}.items():
        folders[name] = program.materialize(dataset, tmp_path / name, "--compress", "zstd", *more)
    folders["merged"] = tmp_path / "merged"
    for index in range(2):
        program.materialize(dataset, folders["merged"], "--samples-per-shard", 3, "--partition", f"{index}/2")
    program.run("manifest", "merge", folders["merged"])
    with program.mounted(dataset, "--samples-per-shard", 3, "--shuffle-seed", 7, "--epochs", 2) as point:
        folders["epoch"] = point / "epochs" / "000001"
        command = [str(DATASETS), str(Path(__file__).with_name("datasets_reader.py")), "--folder"]
        command += map(str, folders.values())
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * DEADLINE, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        found = json.loads(done.stdout.splitlines()[-1])
        for name, folder in folders.items():
            manifest = json.loads((folder / "manifest.json").read_text())
            samples = [
                [sample["key"], sample["study_id"]] for shard in manifest["shards"] for sample in shard["samples"]
            ]
            assert len(samples) == SAMPLES
            assert found[str(folder)] == {"streaming": {"train": samples}, "on disk": {"train": samples}}, name

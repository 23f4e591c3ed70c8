"""Other readers behind PyTorch, over a mount and over materialised files: the voxels are NPZ's. What plain `webdataset`
and `tarfile` see is in test_readers.py, the readers of indexes are in test_index_readers.py."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset as wds
from harness import shards
from loading import DEADLINE
from make_dataset import Dataset
from torch.utils.data import DataLoader


@pytest.fixture(scope="module")
def npz(dataset: Dataset) -> dict[str, np.ndarray]:
    """The arrays of the data set's volumes, as float16."""
    return {path.stem: np.load(path)["data"].astype(np.float16) for path in dataset.volumes()}


def decoded(sample: dict[str, Any]) -> tuple[str, torch.Tensor, str]:
    """A sample whose parts a reader decoded, or left as bytes."""
    meta = sample["json"] if isinstance(sample["json"], dict) else json.loads(sample["json"])
    shape = [int(n) for n in meta["volume_shape"]]  # of a list Hugging Face's format "torch" makes a tensor
    voxels = torch.frombuffer(bytearray(sample["bin"]), dtype=torch.float16).reshape(shape)
    text = sample["txt"] if isinstance(sample["txt"], str) else bytes(sample["txt"]).decode()
    assert len(sample["labels"]) == 18 * 4
    return meta["study_id"], voxels, text


def check(samples: Iterable[tuple[str, torch.Tensor, str]], npz: dict[str, np.ndarray], count: int = 13) -> list[str]:
    """Every sample once, with NPZ's voxels; their order."""
    order = []
    for study, voxels, text in samples:
        np.testing.assert_array_equal(voxels.numpy(), npz[study])
        assert "\n" in text
        order.append(study)
    assert len(order) == len(set(order)) == count
    return order


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_webdataset_shuffled(folder: Path, npz: dict[str, np.ndarray], workers: int) -> None:
    """Shards shuffled and split by worker, samples shuffled in a buffer and decoded; two epochs of the same workers."""
    data = wds.WebDataset(
        [str(path) for path in shards(folder)], shardshuffle=4, seed=1, workersplitter=wds.split_by_worker,
        nodesplitter=wds.split_by_node,
    ).shuffle(5).decode().map(decoded)  # fmt: skip
    more = {"persistent_workers": True, "timeout": DEADLINE} if workers else {}
    loader = DataLoader(data, batch_size=None, num_workers=workers, **more)
    assert len({tuple(check(loader, npz)) for _ in range(2)}) == 2, "two epochs, two orders"


def test_webdataset_resampled(folder: Path, npz: dict[str, np.ndarray]) -> None:
    """As many samples as asked for, in batches, of shards drawn with replacement."""
    data = wds.WebDataset([str(path) for path in shards(folder)], resampled=True, shardshuffle=False, seed=1).decode().map(decoded)
    found = list(wds.WebLoader(data.with_epoch(30), batch_size=None, num_workers=2, timeout=DEADLINE))
    assert len(found) == 60, "an epoch of 30 each"
    for study, voxels, _ in found:
        np.testing.assert_array_equal(voxels.numpy(), npz[study])


@pytest.mark.parametrize("workers", [0, 2])
def test_hugging_face_streaming(
    folder: Path, npz: dict[str, np.ndarray], workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """`datasets` reads the shards where they are: shuffled, another way in the next epoch, and behind two workers."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    from datasets import load_dataset  # reads the environment

    files = {"train": [str(path) for path in shards(folder)]}
    data = load_dataset("webdataset", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path))
    in_order = check(map(decoded, data), npz)
    assert in_order == [study for study in npz if study in in_order], "that of the NPZ files"
    shuffled = data.shuffle(seed=1, buffer_size=4).with_format("torch")
    loader = DataLoader(shuffled, batch_size=None, num_workers=workers, timeout=DEADLINE if workers else 0)
    orders = []
    for epoch in range(2):
        shuffled.set_epoch(epoch)
        orders.append(check(map(decoded, loader), npz))
    assert len({tuple(order) for order in [in_order, *orders]}) == 3

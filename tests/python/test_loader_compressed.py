"""The loader reads compressed shards as it reads plain ones; damaged blocks are errors, never voxels."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ctreport_webdataset import CTReportWebDataset, LoaderError
from harness import Program
from make_dataset import Dataset
from packed_damages import DAMAGES, apply
from small_datasets import noise_dataset

FLAGS = ("--samples-per-shard", 2)
SHAPE = (40, 30, 20)
IMPLEMENTATIONS = ("ctwds._native", "backports.zstd", "pyzstd")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Volumes of three blocks."""
    return noise_dataset(tmp_path_factory.mktemp("data"), 3)


@pytest.fixture(scope="module")
def packed(program: Program, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their compressed shards."""
    return program.materialize(data, tmp_path_factory.mktemp("packed"), *FLAGS, "--compress", "zstd")


def samples(folder: Path, **more: Any) -> list[Any]:
    """All of them, in order."""
    return list(CTReportWebDataset(folder, shuffle=False, shape=SHAPE, **more))


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """As if of the implementations of zstd these alone were installed; returns those that are used, as they are."""
    used: list[str] = []

    def import_module(name: str) -> object:
        if name not in names:
            raise ImportError(name)
        used.append(name)
        return importlib.__import__(name, fromlist=["decompress"])

    monkeypatch.setattr(importlib, "import_module", import_module)
    return used


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("profile", ["ctclip", "npy"])
def test_as_plain_shards(
    program: Program, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, name: str
) -> None:
    """Every sample is the same, whichever implementation is there."""
    flags = (*FLAGS, "--format", profile)
    plain = samples(program.materialize(data, tmp_path / "plain", *flags))
    used = only(monkeypatch, name)
    found = samples(program.materialize(data, tmp_path / "packed", *flags, "--compress", "zstd"))
    assert len(found) == len(plain) == 3 and set(used) == {name}
    for a, b in zip(found, plain, strict=True):
        assert torch.equal(a[0], b[0]) and a[1] == b[1] and (a[2] == b[2]).all() and a[3] == b[3]


def test_in_workers(packed: Path) -> None:
    """Batches of several processes; each volume's buffer is its own."""
    one = {sample[3]: sample[0] for sample in samples(packed)}
    loader = CTReportWebDataset(packed, shape=SHAPE, buffer_size=2).make_loader(batch_size=1, num_workers=2)
    found = {ids[0]: volumes[0] for volumes, _, _, ids, _ in loader}
    assert found.keys() == one.keys() and all(torch.equal(found[name], one[name]) for name in one)


@pytest.mark.parametrize("by", IMPLEMENTATIONS[:2])
@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_an_error(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, by: str) -> None:
    """That names the shard; without the sample, the others are read."""
    only(monkeypatch, by)
    folder = Path(shutil.copytree(packed, tmp_path / "copy"))
    apply(folder, DAMAGES[name].do)
    with pytest.raises(LoaderError, match=r"shard-000000\.tar"):
        samples(folder)
    with pytest.warns(UserWarning, match="left out"):
        assert [sample[3] for sample in samples(folder, on_error="skip")] == ["v01", "v02"]


def test_without_zstd(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install, and on_error does not hide it."""
    only(monkeypatch)
    for on_error in ("raise", "skip"):
        with pytest.raises(ImportError, match=r"pip install backports\.zstd"):
            samples(packed, on_error=on_error)

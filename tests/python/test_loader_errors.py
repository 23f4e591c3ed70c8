"""What the loader says when something is wrong: the shard, the member and the remedy, at once and never by hanging."""

from __future__ import annotations

import gc
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ctreport_webdataset import (
    CTReportDataset,
    CTReportWebDataset,
    LoaderError,
    Sample,
    create_dataset_from_config,
    create_loader_from_config,
    create_webdataset_from_config,
    shard_paths,
)
from harness import SMALL_FLAGS, Program, shards
from loading import DEADLINE, from_npz, from_shards, ids
from make_dataset import Dataset, dataset_at
from small_datasets import noise_dataset, write_csv, write_dataset

SHAPE = {"shape": (16, 16, 12), "spacing": (3.0, 3.0, 12.0)}


def message(action: Callable[[], Any]) -> str:
    """What a LoaderError says."""
    with pytest.raises(LoaderError) as caught:
        action()
    return str(caught.value)


@pytest.fixture
def copy(right: Path, tmp_path: Path) -> Path:
    """The shards of the small data set, to be damaged: six samples in two shards."""
    return Path(shutil.copytree(right, tmp_path / "copy"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_volume(program: Program, tmp_path: Path, workers: int) -> None:
    """Names its shard, its member and `ctwds-fs status`; or is left out with a warning, and nothing else is."""
    options = {"timeout": DEADLINE, "persistent_workers": False} if workers else {}
    dataset = noise_dataset(tmp_path / "data", 6, (48, 48, 48), deflated=True, dtype="i2")
    flip(dataset.folder / "v01.npz")
    with program.mounted(dataset, *SMALL_FLAGS) as point:
        loader = from_shards(point, **SHAPE).make_loader(1, workers, **options)
        said = message(lambda: list(loader))
        assert "shard-000000.tar" in said and "000000_000001.bin" in said and "ctwds-fs status" in said, said
        data = from_shards(point, **SHAPE, on_error="skip")
        if workers == 0:
            with pytest.warns(UserWarning, match=r"left out: .*000000_000001\.bin"):
                found = ids(data.make_loader(1, 0))
        else:
            found = ids(data.make_loader(1, workers, **options))
        assert sorted(found) == ["v00", "v02", "v03", "v04", "v05"]
        gc.collect()  # the error's traceback keeps the workers, and they the shards


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize("shape", [(32, 32, 8), (48, 48, 40), (17, 19, 23)])
def test_a_damaged_volume_costs_one_sample(
    program: Program, tmp_path: Path, shape: tuple[int, int, int], cache: str
) -> None:
    """Wherever it is in its shard, and whatever shares the pages of memory that it begins and ends in; the mount names
    the option that leaves it out."""
    dataset = noise_dataset(tmp_path / "data", 12, shape, deflated=True, dtype="i2")
    for name in ("v00", "v05", "v06", "v11"):
        flip(dataset.folder / f"{name}.npz")
    with program.mounted(dataset, "--samples-per-shard", 12, "--page-cache", cache) as point:
        with pytest.warns(UserWarning, match="left out") as said:
            found = ids(from_shards(point, **SHAPE, on_error="skip").make_loader(1, 0))
        assert found == [f"v{n:02d}" for n in range(12) if n not in (0, 5, 6, 11)]
        assert len(said) == 4 and all("--exclude" in str(each.message) for each in said)
        errors = json.loads(program.run("status", "--json", point).stdout)["errors"]
        assert len(errors) == 4 and all("--exclude" in error["error"] for error in errors)


def flip(volume: Path) -> None:
    """A byte of the deflated voxels, of which a plan reads nothing."""
    content = bytearray(volume.read_bytes())
    content[len(content) // 2] ^= 0x55
    volume.write_bytes(content)


@pytest.mark.parametrize("damage", ["another size", "zeros"])
def test_a_damaged_header_costs_one_sample(copy: Path, damage: str) -> None:
    """Each header of a shard, also one of zeros, which would end an archive: the index beside the shard finds the next
    sample. Without one, or with one that is none, what comes before the header is read."""
    path = shards(copy)[0]
    index, good = path.with_name(path.name + ".idx"), path.read_bytes()
    right_index = index.read_bytes()
    with tarfile.open(path) as tar:
        members = [(info.offset, int(info.name[7:13])) for info in tar]
    assert [sample for _, sample in members] == sorted([0, 1, 2] * 4)

    def left() -> list[str]:
        with pytest.warns(UserWarning, match=str(path)):
            return [sample[3] for sample in from_shards([path], **SHAPE, on_error="skip")]

    for offset, damaged in members:
        content = bytearray(good)
        if damage == "zeros":
            content[offset : offset + 512] = bytes(512)
        else:
            content[offset + 124] ^= 1
        path.write_bytes(content)
        index.write_bytes(right_index)
        said = message(lambda: list(from_shards([path], **SHAPE)))
        assert str(path) in said and "header" in said, said
        assert left() == [f"v{n:02d}" for n in range(3) if n != damaged], offset
        for other in (b"", b"no index of ours", np.arange(1, 40_000, 7, "<u8").tobytes()):
            index.write_bytes(other)
            assert left()[:damaged] in (
                [f"v{n:02d}" for n in range(damaged)],
                [f"v{n:02d}" for n in range(damaged - 1)],
            )


@pytest.mark.parametrize("text", ["{'descr': '''<f2'", "{1: 2, 'descr': '<f2'", "[" * 99], ids=["open", "keys", "deep"])
@pytest.mark.parametrize("suffix", [".volume.npy", ".labels.npy"])
def test_a_damaged_npy_header_costs_one_sample(program: Program, tmp_path: Path, suffix: str, text: str) -> None:
    """Whatever NumPy raises of it."""
    out = program.materialize(noise_dataset(tmp_path / "data", 6, (16, 16, 8)), tmp_path / "out", "--format", "npy")
    path = shards(out)[0]
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        at = next(info.offset_data for info in tar if info.name.endswith(f"000001{suffix}"))
    content[at + 10 : at + 10 + len(text)] = text.encode()
    path.write_bytes(content)
    with pytest.raises(LoaderError, match=f"{path.name}.*header"):
        list(from_shards(out, **SHAPE))
    with pytest.warns(UserWarning, match="left out"):
        assert "v01" not in (found := [sample[3] for sample in from_shards(out, **SHAPE, on_error="skip")])
    assert len(found) > 3


def cut(path: Path) -> None:
    """Within the second volume."""
    os.truncate(path, path.stat().st_size // 2)


def break_header(path: Path) -> None:
    """Of the first JSON."""
    content = bytearray(path.read_bytes())
    content[content.index(b"000000_000000.json")] ^= 1
    path.write_bytes(content)


def break_json(path: Path) -> None:
    """Its first brace."""
    content = path.read_bytes()
    path.write_bytes(content.replace(b'{"study_id"', b'["study_id"', 1))


def lose_text(path: Path) -> None:
    """Rename the first text, with a right checksum."""
    content = bytearray(path.read_bytes())
    at = content.index(b"000000_000000.txt")
    content[at : at + 17] = b"000000_000000.tyt"
    content[at + 148 : at + 156] = b"%06o\0 " % (int(content[at + 148 : at + 154], 8) + 1)
    path.write_bytes(content)


def wrong_size(path: Path) -> None:
    """The JSON's shape is another than the volume's."""
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"volume_shape": [64, 64, 96]', b'"volume_shape": [64, 64, 97]', 1))


@pytest.mark.parametrize(
    ("damage", "words", "left"),
    [
        (cut, ("ends here", "000000_000001.bin"), ["v00"]),
        (break_header, ("checksum", "behind 000000_000000.bin"), ["v01", "v02"]),
        (break_json, ("000000_000000",), ["v01", "v02"]),
        (lose_text, ("no text among", "tyt"), ["v01", "v02"]),
        (wrong_size, ("000000_000000", "97"), ["v01", "v02"]),
    ],
)
def test_a_damaged_file(copy: Path, damage: Callable[[Path], None], words: tuple[str, ...], left: list[str]) -> None:
    """Of a shard on disk: it costs the sample, and what the file has lost."""
    path = shards(copy)[0]
    damage(path)
    said = message(lambda: list(from_shards(copy, **SHAPE)))
    assert str(path) in said and all(word in said for word in words), said
    with pytest.warns(UserWarning, match="left out"):
        found = [sample[3] for sample in from_shards(copy, **SHAPE, on_error="skip")]
    assert found == [*left, "v03", "v04", "v05"]


def test_a_shard_without_a_sample(copy: Path) -> None:
    """Asked for more samples than there are, it does not search for ever."""
    path = shards(copy)[0]
    break_header(path)
    path.with_name(path.name + ".idx").unlink()
    data = from_shards(path, **SHAPE, on_error="skip", epoch_length=3)
    with pytest.warns(UserWarning, match="left out"):
        assert "no sample" in message(lambda: list(data))


def test_a_mount_that_is_not_there(program: Program, small: Dataset, tmp_path: Path) -> None:
    """Neither an empty folder nor a missing one is an empty data set; a mount that went away is told as such."""
    assert "is it mounted" in message(lambda: from_shards(tmp_path))
    assert "is it mounted" in message(lambda: from_shards(tmp_path / "shard-{000000..000003}.tar"))
    assert "is it mounted" in message(lambda: from_shards(str(tmp_path / "no" / "*.tar")))
    with program.mounted(small, *SMALL_FLAGS) as point:
        data = from_shards(point, **SHAPE)
        assert len(data) == 6
    assert "is it mounted" in message(lambda: list(data))


def test_no_manifest(copy: Path) -> None:
    """Everything but lengths works without; a broken one is an error."""
    (copy / "manifest.json").unlink()
    data = from_shards(copy, **SHAPE)
    assert len([*data.make_loader(4, 0)]) == 2
    for action in (lambda: len(data), lambda: len(data.make_loader(4, 0))):
        assert "manifest.json" in message(action) and "materialize" in message(action)
    ranked = from_shards(copy, **SHAPE, rank=0, world_size=2)
    assert "manifest.json" in message(lambda: list(ranked))
    assert len(list(from_shards(copy, **SHAPE, rank=0, world_size=2, uneven="keep"))) == 3
    (copy / "manifest.json").write_text("{")
    assert "manifest.json" in message(lambda: from_shards(copy, **SHAPE))


def test_fewer_shards_than_workers(right: Path) -> None:
    """Before anything is read, with the flag that helps; not a hang, nor a worker without work."""
    data = from_shards(right, **SHAPE)
    said = message(lambda: data.make_loader(1, 3))
    assert "2 shards" in said and "--samples-per-shard" in said and "at most 2" in said and "num_workers" in said
    ranked = from_shards(right, **SHAPE, rank=1, world_size=3)
    assert "3 ranks" in message(lambda: list(ranked))
    from torch.utils.data import DataLoader

    plain = DataLoader(data, batch_size=None, num_workers=3, timeout=DEADLINE)
    assert "--samples-per-shard" in message(lambda: list(plain))
    assert len(list(from_shards(right, **SHAPE, resampled=True).make_loader(1, 3, timeout=DEADLINE))) == 6


def test_options(right: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no such value is refused, with those there are."""
    for options, words in (
        ({"mode": "valid"}, ("'valid'", "'val'")),
        ({"uneven": "wrap"}, ("uneven", "'pad'")),
        ({"on_error": "ignore"}, ("on_error", "'skip'")),
        ({"rescale": "never"}, ("rescale", "'table'")),
        ({"dtype": "float16"}, ("dtype", "torch.float16")),
        ({"dtype": torch.int8}, ("dtype", "torch.float32")),
        ({"epoch_length": 0}, ("epoch_length is 0", "1 or more")),
        ({"rank": 2, "world_size": 2}, ("rank 2 of 2",)),
        ({"rank": 2}, ("rank and world_size",)),
    ):
        said = message(partial(CTReportWebDataset, right, **options))
        assert all(word in said for word in words), said
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "RANK" in message(lambda: CTReportWebDataset(right))


def test_missing_metadata(program: Program, tmp_path: Path) -> None:
    """A shard with NaN in it (--missing-meta nan) cannot be resampled: the study and the field are named."""
    dataset = noise_dataset(tmp_path / "data", 2, (16, 16, 12))
    rows = [["VolumeName", "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"]]
    rows += [["v00.nii.gz", "1", "0", "[1, 1]", ""], ["v01.nii.gz", "1", "0", "[1, 1]", "1"]]
    write_csv(dataset.meta, rows)
    out = program.materialize(dataset, tmp_path / "out", "--missing-meta", "nan")
    said = message(lambda: list(from_shards(out, **SHAPE)))
    assert "v00" in said and "ZSpacing" in said
    with pytest.warns(UserWarning, match="v00"):
        assert [sample[3] for sample in from_shards(out, **SHAPE, on_error="skip")] == ["v01"]
    assert [study.meta["study_id"] for study in from_npz(dataset).studies] == ["v01"], "left out, as ctwds-fs does"


def all_but_bad(folder: Path) -> list[Sample]:
    """The samples of a folder, without those that cannot be made."""
    return list(CTReportWebDataset(folder, on_error="skip"))


def test_volumes_that_were_resampled_before(program: Program, tmp_path: Path) -> None:
    """Resampled again they would be wrong voxels. Where no manifest tells it, the sample and the option are named, and
    nothing is skipped."""
    whole, small = np.zeros((480, 480, 240), np.int16), np.random.default_rng(7).random((12, 16, 16), np.float32)
    for name, array, dialect in (("volume", whole, "hu"), ("arr_0", small, "normalized")):
        dataset = write_dataset(tmp_path / name, {"v.npz": {name: array}})
        out = program.materialize(dataset, tmp_path / name / "out")
        manifest = json.loads((out / "manifest.json").read_text())
        del manifest["value_groups"]  # as version 0.1 wrote it
        (out / "manifest.json").write_text(json.dumps(manifest))
        said = message(partial(all_but_bad, out))
        assert "000000_000000 (v)" in said and f"dialect='{dialect}'" in said, said
    told = from_shards(out, **SHAPE, dialect="native")
    assert len(list(told)) == 1, "whoever says so is believed"


def test_npz_and_tables(tmp_path: Path) -> None:
    """Each message names the file."""
    hu = np.zeros((4, 4, 4), np.int16)
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"image": hu}, "w.npz": {"data": hu}, "x.npz": {"data": hu}})
    data = from_npz(dataset)
    said = message(lambda: data[0])
    assert "v.npz" in said and "image" in said and "dialect" in said
    assert from_npz(dataset, dialect="hu")[0][0].shape == data[1][0].shape
    (dataset.folder / "w.npz").write_bytes(b"PK\3\4 this is no zip file")
    assert "w.npz" in message(lambda: data[1])
    write_csv(dataset.labels, [["VolumeName", "a"], ["v.nii.gz", "often"]])
    assert "labels.csv" in message(lambda: from_npz(dataset)) and "often" in message(lambda: from_npz(dataset))
    write_csv(dataset.labels, [["VolumeName", "a"], ["v.nii.gz", 1], ["v.nii.gz", 2]])
    assert "labels.csv: line 3" in message(lambda: from_npz(dataset))
    write_csv(dataset.labels, [["VolumeName", "a"], ["other.nii.gz", 1]])
    assert "VolumeName" in message(lambda: from_npz(dataset))
    write_csv(dataset.reports, [["VolumeName", "Findings_EN"], ["v.nii.gz", "x"]])
    assert "'Impressions_EN' is missing" in message(lambda: from_npz(dataset))
    empty = dataset_at(tmp_path / "empty")
    empty.folder.mkdir(parents=True)
    write_plain = write_dataset(tmp_path / "full", {"v.npz": {"data": hu}})
    said = message(lambda: CTReportDataset(empty.folder, write_plain.reports, write_plain.meta, write_plain.labels))
    assert "no NPZ or NPY or NIfTI file" in said


def test_folder_depths(tmp_path: Path) -> None:
    """The depth with the most files, of equals the deepest; in the order of the paths' bytes."""
    hu = {"data": np.zeros((2, 2, 2), np.float32)}
    names = ["b.npz", "a/x.npz", "a-/y.npz", "a/Z.npz", "c/d/e.npz", ".hidden/h.npz"]
    dataset = write_dataset(tmp_path / "data", dict.fromkeys(names, hu))
    assert [study.meta["study_id"] for study in from_npz(dataset).studies] == ["y", "Z", "x"]


def test_configuration(right: Path) -> None:
    """A misspelt key, and one that is missing, are named; a training's own keys are left to it."""
    good = {"dataset_format": "webdataset", "webdataset_shards_train": str(right)}

    def refused(action: Callable[..., Any], cfg: Any, mode: str = "train") -> str:
        return message(lambda: action(cfg, mode))

    for key, meant in (("shufle_buffer_size", "shuffle_buffer_size"), ("num_worker", "num_workers"), ("seeds", "seed")):
        said = refused(create_dataset_from_config, {"data": good | {key: 3}})
        assert f"data.{key} is not known: is {meant} meant?" in said
    own = {"tokenizer": "bert", "max_length": 512, "num_workers_val": 2, "batch_size_val": 1, "val_dir": "x"}
    assert len(create_dataset_from_config({"data": good | own})) == 6
    assert "data.webdataset_shards_val is missing" in refused(create_dataset_from_config, {"data": good}, "val")
    assert "data.webdataset_shards_train is missing" in refused(create_webdataset_from_config, {}, "train")
    assert "'test'" in refused(create_webdataset_from_config, good, "test")
    assert "'tfrecord'" in refused(create_loader_from_config, {"data": good | {"dataset_format": "tfrecord"}})
    npz = {"dataset_format": "npz", "train_dir": "x"}
    assert "x: no NPZ or NPY or NIfTI file" in refused(create_dataset_from_config, {"data": npz})
    assert "data.valid_dir is missing" in refused(create_dataset_from_config, {"data": npz}, "val")
    assert "no section 'data'" in refused(create_loader_from_config, {"model": {}})
    assert "dtype" in refused(create_dataset_from_config, {"data": good | {"dtype": "int8"}})


def test_braces(tmp_path: Path) -> None:
    """As a shell expands them."""
    from ctreport_webdataset import expand_braces

    assert expand_braces("s-{000008..000011}.tar") == [f"s-{n:06d}.tar" for n in range(8, 12)]
    assert expand_braces("{a,b}/{9..10}") == ["a/9", "a/10", "b/9", "b/10"]
    (tmp_path / "a[1].tar").touch()
    assert shard_paths(tmp_path) == [str(tmp_path / "a[1].tar")], "a folder's files are not patterns"
    (tmp_path / "manifest.json").write_text(json.dumps({"shards": []}))

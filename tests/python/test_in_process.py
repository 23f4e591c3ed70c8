"""The package without a mount: samples, regions and single files equal those of the shards, to the bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import tarfile
import threading
from pathlib import Path
from typing import Any

import ctwds
import numpy as np
import pytest
import torch
from harness import Program, payload, shards
from make_dataset import Dataset
from npzfiles import write_npz
from numpy.typing import NDArray
from small_datasets import noise_dataset, write_dataset

MANY = (
    ["--volume=stored"],
    ["--volume=rescaled", "--format=npy"],
    ["--volume=preprocessed", "--shape=20,24,16"],
    ["--output-dtype=int16"],
    ["--format=npy", "--output-dtype=float32"],
)


def options(data: Dataset, *flags: str) -> dict[str, Any]:
    """Flags of the program as keyword arguments of `open`."""
    found: dict[str, Any] = {"rescale": "none"}  # or each is warned of: the noise is like HU
    for flag in [*zip(data.flags()[::2], data.flags()[1::2], strict=True), *(flag.split("=", 1) for flag in flags)]:
        found[flag[0].removeprefix("--").replace("-", "_")] = flag[1]
    return found


def mixed(out: Path, count: int = 7) -> Dataset:
    """Volumes of several shapes, orders and dtypes, beside each a mask."""
    rng = np.random.default_rng(5)
    volumes = {}
    for n in range(count):
        shape = (24 + n % 3, 20, 16 + n % 2)
        order: Any = "CF"[n % 2]
        data = rng.integers(-1000, 1000, shape).astype(["f4", "i2", "f8"][n % 3], order=order)
        volumes[f"v{n}.npz"] = {"data": data, "mask": (data > 0).astype("u1")}
    return write_dataset(out, volumes, deflated=True, writer="numpy")


def of_tars(folder: Path) -> list[dict[str, bytes]]:
    """The members of each sample of plain shards, by their suffix, read by tarfile."""
    found: dict[str, dict[str, bytes]] = {}
    for shard in shards(folder):
        with tarfile.open(shard) as archive:
            for member in archive:
                key, _, suffix = member.name.partition(".")
                found.setdefault(key, {})[suffix] = payload(archive, member)
    return list(found.values())


def assert_equal(data: ctwds.Volumes, expected: list[dict[str, bytes]]) -> None:
    """Each sample of the data set is that of the shards."""
    assert len(data) == len(expected) > 0
    for sample, members in zip(data, expected, strict=True):
        by_end = {name.rsplit("/")[-1]: content for name, content in members.items()}
        assert sample.meta == json.loads(by_end.get("json") or by_end["meta.json"])
        assert sample.id == sample.meta["study_id"]
        assert sample.text.encode() == (by_end["txt"] if "txt" in by_end else by_end["report.txt"])
        assert by_end.get("labels", by_end.get("labels.npy", b"")).endswith(sample.labels.tobytes())
        assert sample.labels.tolist()
        voxels = by_end["bin"] if "bin" in by_end else by_end["volume.npy"]
        assert voxels.endswith(sample.volume.tobytes())
        assert len(voxels) - sample.volume.nbytes in (0, 128)
        for name, mask in sample.also.items():
            assert by_end[f"{name}.npy"].endswith(mask.tobytes())
            assert mask.shape == sample.volume.shape


@pytest.mark.parametrize("flags", MANY, ids=" ".join)
def test_samples_equal_the_shards(program: Program, tmp_path: Path, flags: list[str]) -> None:
    """Of the data set itself, and of its plain and its compressed shards."""
    data = mixed(tmp_path / "d")
    flags = [*flags, "--also=mask=mask", "--rescale=none"]
    plain = program.materialize(data, tmp_path / "plain", "--samples-per-shard", 3, *flags)
    packed = program.materialize(data, tmp_path / "packed", "--samples-per-shard", 3, "--compress", "zstd", *flags)
    expected = of_tars(plain)
    for opened in (ctwds.open(**options(data, *flags), samples_per_shard=3), ctwds.open(plain), ctwds.open(packed)):
        with opened:
            assert_equal(opened, expected)
            assert opened.also_names == ["mask"]
            assert opened.label_names == ["a", "b", "c"]


def test_into_arrays_and_tensors(tmp_path: Path) -> None:
    """Of float16 and float32; anything that does not fit is refused before a byte is written."""
    with ctwds.open(**options(noise_dataset(tmp_path, 3))) as data:
        expected = data[1].volume
        half = np.empty(expected.shape, np.float16)
        data.read_into("v01", half)
        assert half.tobytes() == expected.tobytes()
        wide = torch.full(expected.shape, -7.0)
        data.read_into(1, wide)
        assert torch.equal(wide, torch.from_numpy(expected.astype(np.float32)))
        data.read_into(1, torch.empty((2, *expected.shape), dtype=torch.float16)[1])
        for wrong in (
            np.empty((1, *expected.shape), np.float16),
            np.empty(expected.shape, np.int16),
            np.empty(expected.shape[::-1], np.float16).T,
            np.empty(expected.shape, np.float64),
            torch.empty(expected.shape).permute(0, 2, 1),
            "text",
        ):
            with pytest.raises(ctwds.UsageError, match=r"out"):
                data.read_into(1, wrong)
        frozen = np.empty(expected.shape, np.float16)
        frozen.flags.writeable = False
        with pytest.raises(ctwds.UsageError, match="writable"):
            data.read_into(1, frozen)


def test_regions(program: Program, tmp_path: Path) -> None:
    """Random boxes, each by decoders that hold nothing yet."""
    data = noise_dataset(tmp_path / "d", 2, (70, 60, 90), deflated=True)
    plain = program.materialize(data, tmp_path / "plain", "--rescale", "none")
    packed = program.materialize(data, tmp_path / "packed", "--compress", "zstd", "--rescale", "none")
    rng = np.random.default_rng(0)
    for source in (options(data), plain, packed):
        opened = ctwds.open(**source) if isinstance(source, dict) else ctwds.open(source)
        with opened:
            whole = opened[1].volume
        for _ in range(25):
            with ctwds.open(**source) if isinstance(source, dict) else ctwds.open(source) as fresh:
                cut = [slice(*sorted(int(x) for x in rng.integers(0, size + 1, 2))) for size in whole.shape]
                assert np.array_equal(fresh.region(1, cut), whole[tuple(cut)])
        with ctwds.open(plain) as fresh:
            assert np.array_equal(fresh.region("v01", [slice(None), slice(-5, None), slice(3)]), whole[:, -5:, :3])
            for wrong in ([slice(0, 4, 2)] * 3, [slice(4)] * 2):
                with pytest.raises(ctwds.UsageError, match="three slices"):
                    fresh.region(1, wrong)


def test_a_region_reads_few_bytes(program: Program, tmp_path: Path) -> None:
    """Of plain shards those of its rows, of compressed ones those of its blocks: a tenth of the volume is wanted."""
    data = noise_dataset(tmp_path / "d", 1, (64, 128, 128))
    plain = program.materialize(data, tmp_path / "plain")
    packed = program.materialize(data, tmp_path / "packed", "--compress", "zstd")
    for folder in (plain, packed):
        with ctwds.open(folder) as opened:
            size = np.prod(opened.info(0).shape) * 2

            def read() -> int:
                return int(Path("/proc/self/io").read_text(encoding="ascii").split()[1])

            before = read()
            opened.region(0, [slice(29, 35), slice(None), slice(None)])
            assert read() - before < 0.4 * size
            before = read()
            _ = opened[0]
            assert read() - before > 0.5 * size


def test_a_region_unpacks_few_blocks(program: Program, tmp_path: Path) -> None:
    """The rest of the volume may even be damaged."""
    data = noise_dataset(tmp_path / "d", 1, (64, 128, 128), deflated=True)
    packed = program.materialize(data, tmp_path / "packed", "--compress", "zstd", "--rescale", "none")
    with ctwds.open(packed) as opened:
        whole = opened[0].volume
    content = bytearray(shards(packed)[0].read_bytes())
    place = len(content) // 2
    times = os.stat(shards(packed)[0])
    with shards(packed)[0].open("r+b") as file:
        file.seek(place)
        file.write(bytes([content[place] ^ 0xFF]))
    os.utime(shards(packed)[0], ns=(times.st_atime_ns, times.st_mtime_ns))
    with ctwds.open(packed) as opened:
        cut = (slice(0, 6), slice(None), slice(None))
        assert np.array_equal(opened.region(0, cut), whole[cut])
        with pytest.raises(ctwds.DamagedError, match=r"shard-000000\.tar.*damaged"):
            _ = opened[0]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f4", "f2", "f8", ">i2", "u1", "i4", "?"])
def test_load_of_one_file(tmp_path: Path, dtype: str, order: Any) -> None:
    """NumPy is the judge."""
    array: NDArray[Any] = np.random.default_rng(1).integers(0, 99, (9, 17, 33)).astype(dtype, order=order)
    packed, plain = tmp_path / "a.npz", tmp_path / "b.npy"
    write_npz(packed, {"data": array, "other": array[:4]}, deflated=True, writer="numpy")
    np.save(plain, array)
    for path in (packed, plain):
        half, same = ctwds.load(path), ctwds.load(path, dtype=None)
        assert half.dtype == np.float16 and np.array_equal(half, array.astype(np.float16))
        assert same.dtype == np.dtype(dtype).newbyteorder("<") and np.array_equal(same, array)
    assert np.array_equal(ctwds.load(packed, array="other"), array[:4].astype(np.float16))


def test_load_of_nifti(tmp_path: Path) -> None:
    """nibabel is the judge."""
    import nibabel

    nib: Any = nibabel
    path = tmp_path / "a.nii.gz"
    image = nib.Nifti1Image(np.random.default_rng(1).integers(-900, 900, (9, 17, 33)).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    image.to_filename(path)
    expected = nib.load(path).get_fdata().astype(np.float32)
    assert np.array_equal(ctwds.load(path, dtype=None), expected)
    assert np.array_equal(ctwds.load(path), expected.astype(np.float16))


def test_dictionaries(tmp_path: Path) -> None:
    """With the affine of a NIfTI file, and an array beside the volume."""
    import nibabel

    nib: Any = nibabel
    array = np.random.default_rng(1).integers(-900, 900, (9, 8, 7)).astype(np.int16)
    affine = np.diag([-0.5, 0.75, 2.0, 1.0])
    for name, values in {"a": array, "a_mask": (array > 0).astype(np.uint8)}.items():
        path = tmp_path / ("masks" if "mask" in name else "images") / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nib.Nifti1Image(values, affine).to_filename(path)
    with ctwds.open(tmp_path / "images", orientation="keep", also=f"mask={tmp_path}/masks/*_mask.nii.gz") as data:
        (found,) = data.dictionaries()
    assert found["image"].dtype == np.float32 and np.array_equal(found["image"], array[None].astype(np.float32))
    assert np.array_equal(found["mask"], array[None] > 0) and np.array_equal(found["affine"], affine)
    assert found["id"] == "a" and found["meta"]["volume_shape"] == [9, 8, 7]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """Each is an exception of the package, with the file or the argument."""
    data = noise_dataset(tmp_path, 3, deflated=True)
    with pytest.raises(ctwds.ReadError, match=r"nowhere\.npz.*No such file"):
        ctwds.load(tmp_path / "nowhere.npz")
    with pytest.raises(ctwds.DamagedError, match="no array"):
        ctwds.load(data.folder / "v00.npz", array="missing")
    with pytest.raises(ctwds.UsageError, match="float64"):
        ctwds.load(data.folder / "v00.npz", dtype="float64")
    with pytest.raises(ctwds.UsageError, match="--volum"):
        ctwds.open(**options(data), volum="stored")
    with pytest.raises(ctwds.Error, match=r"nothing-here"):
        ctwds.open(data_folder=tmp_path / "nothing-here")
    content = bytearray((data.folder / "v01.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (data.folder / "v01.npz").write_bytes(content)
    opened = ctwds.open(**options(data))
    with pytest.raises(ctwds.DamagedError, match=r"v01\.npz"):
        _ = opened[1]
    assert opened[2].id == "v02" and {"v01", "v09"}.intersection(opened.keys()) == {"v01"}
    with pytest.raises(ctwds.UnknownStudyError, match=r"^there is no study 'v09'$"):
        _ = opened["v09"]
    with pytest.raises(IndexError):
        _ = opened[3]
    os.utime(data.folder / "v02.npz", (1, 1))
    with pytest.raises(ctwds.ChangedError, match=r"v02\.npz"):
        fresh = ctwds.open(**options(data))
        os.truncate(data.folder / "v02.npz", 100)
        _ = fresh[2]
    opened.close()
    with pytest.raises(ctwds.Error, match="closed"):
        _ = opened[0]


def test_subsets(tmp_path: Path) -> None:
    """By labels, ids and slices."""
    with ctwds.open(**options(noise_dataset(tmp_path, 6, (8, 8, 8)))) as data:
        odd = data.subset(where="a == 1")
        assert odd.keys() == ["v01", "v03", "v05"] and odd[1].id == "v03"
        assert odd.subset(ids=["v05", "v01"]).keys() == ["v01", "v05"]
        assert data[4:].keys() == ["v04", "v05"]
        with pytest.raises(ctwds.UsageError, match=r"no class 'd'"):
            data.subset(where="d == 1")
        with pytest.raises(ctwds.UsageError, match="no study 'v02'"):
            odd.subset(ids=["v02"])


def test_a_changed_data_set_is_not_opened_again(tmp_path: Path) -> None:
    """A worker that is spawned later would read other data."""
    data = noise_dataset(tmp_path, 3, (8, 8, 8))
    opened = ctwds.open(**options(data)).subset(ids=["v00", "v02"])
    pickled = pickle.dumps(opened)
    assert [sample.id for sample in pickle.loads(pickled)] == ["v00", "v02"]
    text = data.reports.read_text(encoding="utf-8")
    data.reports.write_text(text.replace("findings of v00", "other findings"), encoding="utf-8")
    with pytest.raises(ctwds.ChangedError, match="open it again"):
        pickle.loads(pickled)


def test_forked_while_decoding(tmp_path: Path) -> None:
    """Neither process waits for the other's threads, and both read the right voxels."""
    data = ctwds.open(**options(noise_dataset(tmp_path, 4, (64, 128, 128), deflated=True)), threads=2)
    expected = [sample.volume.tobytes() for sample in data]
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            assert data[0].volume.tobytes() == expected[0]

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(5):
            child = multiprocessing.get_context("fork").Process(target=_check, args=(data, expected))
            child.start()
            child.join(60)
            assert child.exitcode == 0
    finally:
        stop.set()
        reader.join()


def _check(data: ctwds.Volumes, expected: list[bytes]) -> None:
    assert [sample.volume.tobytes() for sample in data] == expected


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_under_a_data_loader(tmp_path: Path, method: str) -> None:
    """PyTorch's own, with worker processes."""
    data = ctwds.open(**options(noise_dataset(tmp_path, 7, (8, 9, 10))))
    first = data[0].volume  # decoders run in this process already
    loader: Any = torch.utils.data.DataLoader(
        data,  # type: ignore[arg-type]  # any sequence is a map-style data set
        batch_size=2,
        num_workers=2,
        multiprocessing_context=method,
    )
    batches = list(loader)
    assert [name for batch in batches for name in batch.id] == [f"v{n:02d}" for n in range(7)]
    assert torch.equal(batches[0].volume[0], torch.from_numpy(first))

"""Arrays beside the volumes (`--also`): masks and others as members of their own dtype, of the same NPZ or of other
files, in every kind. NumPy, and PyTorch's `nearest-exact` and `trilinear`, are the judges."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import webdataset
from ctreport_webdataset import CTReportWebDataset, LoaderError
from damages import DAMAGED, members_of, write_shard
from harness import Program, Stored, payload, shards
from kinds import Steps
from make_dataset import Dataset
from niftis import nib
from numpy.typing import NDArray
from reclaiming import names as names_left
from reclaiming import reclaim
from small_datasets import flip_voxel, set_meta, write_dataset
from verifying import verify

DTYPES = ("|u1", "|i1", "|b1", "<u2", ">i2", "<i4", ">u4", "<i8", ">u8", "<f2", ">f4", "<f8")
AXES = {"H": 9, "W": 7, "D": 5}
ORDER = "DHW"  # of the arrays: not that of the volumes
MM = (0.7, 1.3, 2.0)
STEPS = Steps(shape=(8, 9, 6), spacing=(1.0, 1.0, 1.5))
PAD = 1  # which every dtype has
KINDS = ("stored", "rescaled", "preprocessed")
Arrays = dict[str, NDArray[Any]]


def array(number: int, dtype: str) -> NDArray[Any]:
    """An array with values at both ends of its dtype; of 64 bits also such as float64 cannot hold."""
    rng = np.random.default_rng(number)
    shape = [AXES[axis] for axis in ORDER]
    kind = np.dtype(dtype)
    values: NDArray[Any]
    if kind.kind == "f":
        values = rng.normal(0, 100, shape)
    elif kind.kind == "b":
        values = rng.integers(0, 2, shape)
    else:
        bounds = np.iinfo(kind)
        values = rng.integers(bounds.min, bounds.max, shape, dtype=kind.newbyteorder("="), endpoint=True)
    return np.asarray(values.astype(dtype), order=rng.choice(["C", "F"]))


def write(out: Path) -> tuple[Dataset, Path, dict[str, Arrays]]:
    """Volumes with an array `gts` beside them, each of another dtype; and files of their own with an array `seg`."""
    studies: dict[str, Arrays] = {}
    for number, dtype in enumerate(DTYPES):
        image = np.random.default_rng(number).integers(0, 2000, [AXES[axis] for axis in ORDER]).astype("f4")
        studies[f"v.{number:02d}"] = {"imgs": image, "gts": array(number, dtype), "seg": array(99 - number, dtype)}
    files = {f"{study}.npz": {key: found[key] for key in ("imgs", "gts")} for study, found in studies.items()}
    dataset = write_dataset(out / "data", files, deflated=True)
    set_meta(dataset, dict.fromkeys(studies, ("1", "-1024", f"[{MM[0]}, {MM[1]}]", MM[2])))
    masks = out / "masks"
    masks.mkdir()
    for study, found in studies.items():
        if study.endswith("3"):
            np.save(masks / f"{study}_seg.npy", found["seg"])
        else:
            np.savez(masks / f"{study}_seg.npz", other=np.arange(3), seg=found["seg"])
    return dataset, masks, studies


def flags(masks: Path, kind: str = "stored") -> list[object]:
    """What the program is asked for."""
    also = ["--also", "gts=gts", "--also", f"tumour={masks}/*_seg.*:seg", f"--also-pad={PAD}"]
    return ["--array", "imgs", "--dialect", "native", "--axes", ORDER, "--volume", kind, *STEPS.flags(), *also]


def nearest(length: int, resampled: int) -> NDArray[np.int64]:
    """The voxel that each voxel is, along one axis."""
    axis = torch.arange(length, dtype=torch.float32)[None, None, :, None, None]
    return F.interpolate(axis, (resampled, 1, 1), mode="nearest-exact").flatten().numpy().astype(np.int64)


def on_the_grid(voxels: NDArray[Any], pad: float) -> NDArray[Any]:
    """Resampled, cropped and padded around the middle, in the array's own dtype."""
    sizes = [int(n * (now / target)) for n, now, target in zip(voxels.shape, MM, STEPS.spacing, strict=True)]
    if voxels.dtype.kind == "f":
        tensor = torch.from_numpy(np.ascontiguousarray(voxels.astype("f4")))[None, None]
        made = F.interpolate(tensor, sizes, mode="trilinear", align_corners=False)[0, 0].numpy().astype(voxels.dtype)
    else:
        made = voxels[np.ix_(*(nearest(n, size) for n, size in zip(voxels.shape, sizes, strict=True)))]
    result = np.full(STEPS.shape, pad, voxels.dtype)
    from_, to = [], []
    for n, t in zip(sizes, STEPS.shape, strict=True):
        start, before, count = max((n - t) // 2, 0), max((t - n) // 2, 0), min(n, t)
        from_.append(slice(start, start + count))
        to.append(slice(before, before + count))
    result[tuple(to)] = made[tuple(from_)]
    return result


def expected(source: NDArray[Any], kind: str, pad: float) -> NDArray[Any]:
    """The member of an array, by definition."""
    own = source.astype(source.dtype.newbyteorder("<"))
    if kind == "stored":
        return own
    voxels = own.transpose([ORDER.index(axis) for axis in "HWD"])
    return voxels if kind == "rescaled" else on_the_grid(voxels, pad)


def extras_in(folder: Path) -> dict[str, dict[str, NDArray[Any]]]:
    """The arrays beside the volumes, by study and name; they stand behind the fixed members, in the order asked for."""
    found = {}
    for shard in shards(folder):
        with tarfile.open(shard) as tar:
            members: dict[str, dict[str, bytes]] = {info.name.split(".", 1)[0]: {} for info in tar}
            for info in tar:
                key, extension = info.name.split(".", 1)
                members[key][extension] = payload(tar, info)
        for sample in members.values():
            at = [extension in ("json", "meta.json") for extension in sample].index(True)
            assert at == 1 and list(sample)[4:] == ["gts.npy", "tumour.npy"], list(sample)
            study = json.loads(list(sample.values())[at])["study_id"]
            arrays = {name: np.load(io.BytesIO(sample[f"{name}.npy"])) for name in ("gts", "tumour")}
            found[study] = arrays
    return found


def check(folder: Path, studies: dict[str, Arrays], kind: str) -> None:
    """Every array of every study."""
    found = extras_in(folder)
    assert found.keys() == studies.keys()
    for study, arrays in found.items():
        for name, key in (("gts", "gts"), ("tumour", "seg")):
            right, made = expected(studies[study][key], kind, PAD), arrays[name]
            assert (made.dtype, made.shape) == (right.dtype, right.shape), (study, name)
            assert made.flags.c_contiguous
            if kind == "preprocessed" and right.dtype.kind == "f":
                near = 1e-3 if right.dtype.itemsize == 2 else 1e-5
                assert np.abs(made.astype("f8") - right).max() <= near * np.abs(right).max(), (study, name)
            else:
                assert made.tobytes() == right.tobytes(), (study, name)


@pytest.mark.parametrize("profile", ["ctclip", "npy"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_dtype_in_every_kind(program: Program, via: str, tmp_path: Path, kind: str, profile: str) -> None:
    """Integers are elements of the array, whatever the kind; floats that are resampled are interpolated."""
    dataset, masks, studies = write(tmp_path)
    asked = [*flags(masks, kind), "--format", profile]
    with program.produced(via, dataset, tmp_path / "made", *asked) as made:
        check(made, studies, kind)
        code, said = verify(program, made, *dataset.flags(), *asked)
        assert code == 0, said


@pytest.mark.parametrize("profile", ["ctclip", "npy"])
def test_compressed_shards_have_them_too(program: Program, tmp_path: Path, profile: str) -> None:
    """Packed by the size of their own values, unpacked by `mount --shards` and `unmount`ed to the plain bytes."""
    dataset, masks, studies = write(tmp_path)
    asked = [*flags(masks), "--format", profile, "--samples-per-shard", 5]
    plain = program.materialize(dataset, tmp_path / "plain", *asked)
    packed = program.materialize(dataset, tmp_path / "packed", *asked, "--compress", "zstd")
    with tarfile.open(shards(packed)[0]) as tar:
        suffixes = {info.name.split(".npy.")[1] for info in tar if ".gts.npy." in info.name}
    assert suffixes == {"predict1.zst", "split2.zst"}, suffixes
    code, said = verify(program, packed, *dataset.flags(), *asked)
    assert code == 0, said
    for folder in (plain, packed):
        with program.mounted(Stored(folder)) as made:
            check(made, studies, "stored")
            assert [shard.read_bytes() for shard in shards(made)] == [shard.read_bytes() for shard in shards(plain)]


def test_epochs_and_finished_shards_give_the_same_members(program: Program, tmp_path: Path) -> None:
    """A shuffled view, made from the sources and from finished shards."""
    dataset, masks, studies = write(tmp_path)
    asked = [*flags(masks, "rescaled"), "--samples-per-shard", 4]
    made = program.materialize(dataset, tmp_path / "made", *asked)
    views = []
    for more in ([], ["--materialized", made]):
        with program.mounted(dataset, *asked, "--epochs", 2, "--shuffle-seed", 7, *more) as mount:
            for epoch in sorted((mount / "epochs").iterdir()):
                check(epoch, studies, "rescaled")
                views.append(b"".join(shard.read_bytes() for shard in shards(epoch)))
            check(mount, studies, "rescaled")
    assert len(views) == 4 and views[:2] == views[2:] and views[0] != views[1]


def test_an_image_without_them_is_what_it_was(program: Program, tmp_path: Path) -> None:
    """Volume, JSON, text and labels are to the byte those of shards without `--also`."""
    dataset, masks, _ = write(tmp_path)
    asked = flags(masks)
    small = asked[: asked.index("--also")]
    with_them = program.materialize(dataset, tmp_path / "with", *asked)
    without = program.materialize(dataset, tmp_path / "without", *small)
    members = [member for member in members_of(shards(with_them)[0]) if not member[0].endswith(".npy")]
    assert members == members_of(shards(without)[0])


def loaded(array: NDArray[Any], kind: str) -> NDArray[Any]:
    """What the loader gives of an array of the shards: depth, height, width, cropped and padded with zeros."""
    made = expected(array, kind, PAD)
    if kind == "stored":
        made = made.transpose([ORDER.index(axis) for axis in "HWD"])
    if kind != "preprocessed":
        made = on_the_grid(made, 0)
    return made.transpose(2, 0, 1)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loader_hands_them_over_by_name(program: Program, tmp_path: Path, kind: str, packed: bool) -> None:
    """On the voxels of the volume, whatever the kind of the shards, in batches too."""
    dataset, masks, studies = write(tmp_path)
    out = program.materialize(
        dataset, tmp_path / "out", *flags(masks, kind), *(["--compress", "zstd"] if packed else [])
    )
    options: dict[str, Any] = {"shape": STEPS.shape, "spacing": STEPS.spacing, "axes": ORDER, "also": ["gts", "tumour"]}
    data = CTReportWebDataset(out, shuffle=False, rescale="table", on_error="skip", **options)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        samples: Any = data
        found = {sample[3]: sample[5] for sample in samples}
    # PyTorch has no uint64: those beyond int64 are no tensor.
    assert found.keys() == studies.keys() - {"v.08"} and any("int64" in str(each.message) for each in said)
    for study, extras in found.items():
        for name, key in (("gts", "gts"), ("tumour", "seg")):
            right, made = loaded(studies[study][key], kind), extras[name].numpy()[0]
            assert made.shape == (STEPS.shape[2], *STEPS.shape[:2]), (study, name)
            if right.dtype.kind == "f":
                near = (2e-3 if right.dtype.itemsize == 2 else 1e-5) * np.abs(right.astype("f8")).max()
                assert np.abs(made.astype("f8") - right).max() <= near, (study, name)
            else:
                assert (made == right).all(), (study, name)
    loader = CTReportWebDataset(out, shuffle=False, rescale="table", **(options | {"also": "tumour"})).make_loader(
        3, num_workers=0
    )
    batch = next(iter(loader))
    assert batch[5]["tumour"].shape == (3, 1, STEPS.shape[2], *STEPS.shape[:2]) and len(batch) == 6
    with pytest.raises(LoaderError, match=r"no mask\.npy among its members"):
        next(iter(CTReportWebDataset(out, shuffle=False, rescale="table", **(options | {"also": ["mask"]}))))


def test_webdataset_decodes_them(program: Program, tmp_path: Path) -> None:
    """By their extension, as any `.npy`."""
    dataset, masks, studies = write(tmp_path)
    out = program.materialize(dataset, tmp_path / "out", *flags(masks))
    samples = list(webdataset.WebDataset(str(shards(out)[0]), shardshuffle=False).decode())
    assert len(samples) == len(studies)
    for sample in samples:
        source = studies[sample["json"]["study_id"]]
        assert np.array_equal(sample["gts.npy"], source["gts"]) and np.array_equal(sample["tumour.npy"], source["seg"])


def test_a_wrong_element_is_found(program: Program, tmp_path: Path) -> None:
    """`verify` compares every element with the sources, by code of its own."""
    dataset, masks, _ = write(tmp_path)
    for kind in KINDS:
        made = program.materialize(dataset, tmp_path / kind, *flags(masks, kind))
        (made / "manifest.json").unlink()
        shutil.rmtree(made / ".ctwds")
        sound = members_of(shards(made)[0])
        for at in (n for n, (name, _) in enumerate(sound) if name.endswith(".npy") and n % 3 == 0):
            name, content = sound[at]
            changed = bytearray(content)
            changed[-40] ^= 0x41
            write_shard(shards(made)[0], [*sound[:at], (name, bytes(changed)), *sound[at + 1 :]])
            code, said = verify(program, made, *dataset.flags(), *flags(masks, kind))
            assert code == DAMAGED and "of its elements are wrong" in said, (kind, name, said)


def reasons(program: Program, dataset: Dataset, out: Path, *asked: object) -> dict[str, str]:
    """Who is left out, and why."""
    program.materialize(dataset, out, *asked)
    manifest = json.loads((out / "manifest.json").read_text())
    return {left["study_id"]: left["reason"] for left in manifest["left_out"]}


def test_samples_without_an_array_of_their_shape_are_left_out(program: Program, tmp_path: Path) -> None:
    """With the reason; and they come back when their file is there, whatever was kept of the last plan."""
    dataset, masks, studies = write(tmp_path)
    kept = masks / "v.00_seg.npz"
    hidden = kept.rename(tmp_path / "hidden.npz")
    np.savez(masks / "v.01_seg.npz", seg=np.zeros((5, 9, 8), "u1"))
    (masks / "v.02_seg.npz").write_bytes(b"PK\x05\x06")
    found = reasons(program, dataset, tmp_path / "first", *flags(masks))
    assert found.keys() == {"v.00", "v.01", "v.02"}
    assert "'tumour'" in found["v.00"] and "no file for it" in found["v.00"], found
    assert "[5, 9, 8]" in found["v.01"] and "[5, 9, 7]" in found["v.01"], found
    assert "v.02_seg.npz" in found["v.02"], found
    message = program.refuses("plan", *dataset.flags(), *flags(masks), "--strict")
    assert "--strict" in message
    time.sleep(2.1)  # what is written now, is not taken for what was there
    program.run("plan", *dataset.flags(), *flags(masks))
    hidden.rename(kept)
    np.savez(masks / "v.01_seg.npz", seg=studies["v.01"]["seg"])
    np.savez(masks / "v.02_seg.npz", seg=studies["v.02"]["seg"])
    check(program.materialize(dataset, tmp_path / "second", *flags(masks)), studies, "stored")


def test_a_padding_that_an_array_cannot_have_leaves_its_sample_out(program: Program, tmp_path: Path) -> None:
    """-1 is no unsigned integer and no bool."""
    dataset, masks, studies = write(tmp_path)
    asked = [*flags(masks, "preprocessed")[:-1], "--also-pad=-1"]
    found = reasons(program, dataset, tmp_path / "made", *asked)
    right = {study for study, arrays in studies.items() if arrays["gts"].dtype.kind in "ub"}
    assert found.keys() == right and "--also-pad -1 is no uint8" in found["v.00"], found


def test_a_changed_array_makes_its_shard_again(program: Program, tmp_path: Path) -> None:
    """The digest of a shard covers its extras: of another content, name or padding it is another."""
    dataset, masks, studies = write(tmp_path)
    asked = [*flags(masks), "--samples-per-shard", 4]
    made = program.materialize(dataset, tmp_path / "made", *asked)
    before = {shard.name: shard.stat().st_ino for shard in shards(made)}
    studies["v.05"]["seg"] = studies["v.05"]["seg"][::-1]
    np.savez(masks / "v.05_seg.npz", other=np.arange(3), seg=studies["v.05"]["seg"])
    program.materialize(dataset, made, *asked)
    check(made, studies, "stored")
    changed = [shard.name for shard in shards(made) if shard.stat().st_ino != before[shard.name]]
    assert changed == ["shard-000001.tar"], changed


def test_an_array_without_a_checksum_makes_its_shard_again(program: Program, tmp_path: Path) -> None:
    """Of an NPY file size and header alone are in the digest: the journal remembers its times."""
    dataset, masks, studies = write(tmp_path)
    asked = [*flags(masks), "--samples-per-shard", 4]
    made = program.materialize(dataset, tmp_path / "made", *asked)
    file = masks / "v.03_seg.npy"
    before = file.read_bytes()
    file.write_bytes(before[:128] + before[128:][::-1])
    studies["v.03"]["seg"] = np.load(file)
    assert file.read_bytes() != before
    program.materialize(dataset, made, *asked)
    check(made, studies, "stored")


def test_a_damaged_array_fails_as_a_volume_does(program: Program, tmp_path: Path) -> None:
    """A checksum that is wrong is seen before the last element, and `--on-error skip` leaves the sample out."""
    dataset, masks, studies = write(tmp_path)
    flip_voxel(masks / "v.07_seg.npz")
    message = program.refuses("materialize", *dataset.flags(), *flags(masks), "--output_dir", tmp_path / "made")
    assert "v.07_seg.npz" in message and "CRC" in message, message
    made = tmp_path / "skipped"
    program.run("materialize", *dataset.flags(), *flags(masks), "--on-error", "skip", "--output_dir", made)
    del studies["v.07"]
    check(made, studies, "stored")


def test_reclaim_compares_them_and_removes_volumes_alone(program: Program, tmp_path: Path) -> None:
    """Files of other folders stay; an NPZ whose extra is not in the shard as planned stays too."""
    dataset, masks, _ = write(tmp_path)
    asked = [*flags(masks), "--samples-per-shard", 4]
    made = program.materialize(dataset, tmp_path / "made", *asked)
    reclaim(program, dataset, made, "--delete", "--yes", given=tuple(asked))
    assert names_left(dataset) == [] and len(list(masks.iterdir())) == len(DTYPES)


def write_niftis(folder: Path, dtypes: Sequence[str], affine: NDArray[Any]) -> Arrays:
    """A file for each dtype, with small numbers; nibabel writes them."""
    folder.mkdir()
    found = {}
    for number, dtype in enumerate(dtypes):
        values = np.random.default_rng(number).integers(0, 5, (9, 7, 5)).astype(dtype)
        nib.save(nib.Nifti1Image(values, affine, dtype=dtype), folder / f"s{number}.nii.gz")
        found[f"s{number}"] = values
    return found


NIFTI_DTYPES = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
AFFINE = np.array([[-0.7, 0, 0, 90], [0, -0.7, 0, 80], [0, 0, 1.5, -200], [0, 0, 0, 1]])


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_nifti_files_keep_their_integers(program: Program, via: str, tmp_path: Path, kind: str) -> None:
    """Beside volumes of NIfTI files: labels are what nibabel reads of them, turned as their volume is."""
    write_niftis(tmp_path / "images", ["i2"] * len(NIFTI_DTYPES), AFFINE)
    masks = write_niftis(tmp_path / "masks", NIFTI_DTYPES, AFFINE + np.eye(4) * 1e-4)
    dataset = Folder(tmp_path / "images")
    for turned in ((), ("--orientation", "RAS")):
        asked = ["--volume", kind, "--rescale", "none", *STEPS.flags(), *turned]
        asked += ["--also", f"mask={tmp_path / 'masks'}/*.nii.gz"]
        with program.produced(via, dataset, tmp_path / f"made{len(turned)}", *asked) as made:  # type: ignore[arg-type]  # flags are enough
            for shard in shards(made):
                members = members_of(shard)
                for (_, meta), (name, content) in zip(members[1::4], members[3::4], strict=True):
                    source = masks[json.loads(meta)["study_id"]]
                    right = source[::-1, ::-1] if turned else source
                    found = np.load(io.BytesIO(content))
                    assert name.endswith(".mask.npy") and found.dtype == source.dtype
                    if kind != "preprocessed":
                        assert np.array_equal(found, right), (name, turned)
                    elif source.dtype.kind != "f":
                        assert set(np.unique(found)) <= set(range(5)) and found.any()
            code, said = verify(program, made, *dataset.flags(), *asked)
            assert code == 0, said


def test_a_mask_that_lies_elsewhere_is_refused(program: Program, tmp_path: Path) -> None:
    """By the headers: more than rounding apart, with both affines in the message."""
    write_niftis(tmp_path / "images", ["i2"] * 2, AFFINE)
    write_niftis(tmp_path / "masks", ["u1"] * 2, AFFINE + np.eye(4) * 2e-3)
    message = program.refuses(
        "plan", "--data-folder", tmp_path / "images", "--also", f"mask={tmp_path / 'masks'}/*.nii.gz", "--strict"
    )
    assert "extra 'mask'" in message and "-0.698000" in message and "-0.69999" in message, message


@dataclass(frozen=True)
class Folder:
    """A data folder without tables."""

    folder: Path

    def flags(self) -> list[str]:
        """The arguments that name it."""
        return ["--data-folder", str(self.folder)]


@pytest.mark.parametrize("wrong", ["mask", "Mask=gts", "volume=gts", "json=gts", "m=seg/x.npz", "a.b=gts"])
def test_a_name_that_no_member_can_have_is_refused(program: Program, tmp_path: Path, wrong: str) -> None:
    """Before anything is read."""
    done = program.run("plan", "--data-folder", tmp_path, "--also", wrong, check=False)
    assert done.returncode == 2 and "--also" in done.stderr, done.stderr


def test_a_pattern_that_finds_nothing_says_where_it_looked(program: Program, tmp_path: Path) -> None:
    """And two arrays of one name, and two files of one study, are refused."""
    dataset, masks, studies = write(tmp_path)
    named = [*dataset.flags(), "--array", "imgs"]
    assert "no such folder" in program.refuses("plan", *named, "--also", f"m={tmp_path}/mask/*.npz")
    message = program.refuses("plan", *named, "--also", f"m={masks}/*.npx")
    assert "--also m=…" in message and str(masks) in message, message
    np.savez(masks / "v.03_seg.npz", seg=studies["v.03"]["seg"])
    assert "two files are of study 'v.03'" in program.refuses("plan", *named, "--also", f"m={masks}/*_seg.*")
    done = program.run("plan", *named, "--also", "m=gts", "--also", f"m={masks}/*.npz", check=False)
    assert done.returncode == 2 and "one name" in done.stderr


def test_the_file_of_the_data_set_says_it(program: Program, tmp_path: Path) -> None:
    """Patterns start at the folder of `ctwds.toml`, wherever the program runs."""
    dataset, masks, studies = write(tmp_path)
    lines = [f'data_folder = "{os.path.relpath(dataset.folder, tmp_path)}"', 'array = "imgs"']
    lines += [f'also = ["gts=gts", "tumour={masks.name}/*_seg.*:seg"]']
    (tmp_path / "ctwds.toml").write_text("\n".join(lines))
    program.run("materialize", "--dataset", tmp_path / "ctwds.toml", "--output-dir", tmp_path / "made", cwd="/")
    found = extras_without_labels(tmp_path / "made")
    assert found == {study: ["gts.npy", "tumour.npy"] for study in studies}


def extras_without_labels(folder: Path) -> dict[str, list[str]]:
    """The extensions behind text, by study."""
    found: dict[str, list[str]] = {}
    for shard in shards(folder):
        members = members_of(shard)
        for at in range(0, len(members), 5):
            sample = members[at : at + 5]
            found[json.loads(sample[1][1])["study_id"]] = [name.split(".", 1)[1] for name, _ in sample[3:]]
    return found

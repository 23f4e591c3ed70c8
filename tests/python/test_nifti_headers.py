"""What is read of a NIfTI file, and what is refused: each fact about headers, extensions and gzip is a file. nibabel is
the judge; where it reads what is refused here, or the other way round, the case says why."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctreport_webdataset import ArrayChoice, LoaderError, read_volume
from harness import Program, report_of
from kinds import samples
from loading import from_npz
from make_dataset import Dataset
from niftis import FIELDS, Nifti, gzip_member, load, stored_gzip, write_niftis, written

VALUES = np.random.default_rng(4).integers(
    0, 100, (8, 9, 10)
)  # more than the 1024 bytes by which nibabel tells formats apart
PLAIN, SECOND = written(VALUES), written(VALUES, version=2)
BIG = written(VALUES, byte_order=">")
NIBABEL_READS, NIBABEL_FAILS = True, False


@dataclass(frozen=True)
class Read:
    """A file that is read as nibabel reads it; or whose numbers are those of another file, where nibabel fails."""

    content: Nifti | bytes
    suffix: str = ".nii"
    like: Nifti | None = None


@dataclass(frozen=True)
class Refused:
    """A file that is left out, or an error when it is read: a word of the reason, and whether nibabel reads it."""

    content: Nifti | bytes
    says: str
    nibabel: bool = NIBABEL_FAILS
    suffix: str = ".nii"


def extensions(*sizes: int, gap: int = 0) -> bytes:
    """The flag and extensions of such sizes, as they claim."""
    block = b"".join(struct.pack("<ii", size, 6) + b"x" * (size - 8) for size in sizes)
    return b"\1\0\0\0" + block + bytes(gap)


def with_dims(file: Nifti, *dims: int) -> Nifti:
    """Other dimensions in the header: their number, and their lengths."""
    at, kind = file.fields.dim
    return file.put(at, f"{len(dims)}{kind[1:]}", *dims)


def with_type(code: int, bits: int, width: int) -> Nifti:
    """Voxels of another datatype, of so many bytes."""
    voxels = replace_voxels(PLAIN, bytes(VALUES.size * width))
    return voxels.put(FIELDS[1].datatype, "hh", code, bits)


def replace_voxels(file: Nifti, voxels: bytes) -> Nifti:
    """Other bytes behind the header and its flag."""
    return Nifti(file.content[: file.fields.size + 4] + voxels, file.version, file.byte_order)


def wrong_at(content: bytes, at: int) -> bytes:
    """A byte with another bit."""
    changed = bytearray(content)
    changed[at] ^= 4
    return bytes(changed)


PACKED = gzip.compress(PLAIN.content)
HALF = len(PLAIN.content) // 2
NAN, INF = float("nan"), float("inf")

READ: dict[str, Read] = {
    # Scaling.
    "slope-0": Read(PLAIN.scaled(0, 7)),
    "slope-nan-intercept-nan": Read(PLAIN.scaled(NAN, NAN)),
    "slope-inf-intercept-nan": Read(PLAIN.scaled(-INF, NAN)),
    "slope-negative": Read(PLAIN.scaled(-2.5, 10)),
    "slope-tiny": Read(PLAIN.scaled(1e-45, 3)),
    "slope-1-intercept": Read(PLAIN.scaled(1, -1024)),
    "slope-no-intercept": Read(PLAIN.scaled(0.1, 0)),
    "slope-minus-0": Read(PLAIN.scaled(-0.0, 3)),
    "slope-second": Read(SECOND.scaled(0.1, -0.3)),
    "slope-of-negative-zeros": Read(written(VALUES * -0.0, "f4").scaled(0.5, 0)),
    "intercept-of-negative-zeros": Read(written(VALUES * -0.0, "f4").scaled(1, -0.0)),
    "bitpix-wrong": Read(PLAIN.put(FIELDS[1].bitpix, "h", 64)),
    # Layout.
    "offset-352": Read(PLAIN.put(108, "f", 352)),
    "offset-fraction": Read(PLAIN.put(108, "f", 352.75)),
    "offset-360": Read(PLAIN.voxels_at(360)),
    "offset-512-without-extensions": Read(PLAIN.voxels_at(512)),
    "offset-second": Read(SECOND.voxels_at(560)),
    "extensions": Read(PLAIN.voxels_at(352 + 48, extensions(16, 32))),
    "extension-of-24": Read(PLAIN.voxels_at(376, extensions(24))),
    "extension-gap": Read(PLAIN.voxels_at(400, extensions(16, gap=32)), like=PLAIN),
    "extension-big": Read(written(VALUES, byte_order=">", extension=b"a comment " * 90)),
    "trailing": Read(PLAIN.content + b"behind the voxels" * 100),
    "big": Read(BIG),
    "big-second": Read(written(VALUES, "f8", ">", 2)),
    "sizeof-0": Read(PLAIN.put(0, "i", 0)),
    "magic-ni1": Read(PLAIN.put(344, "4s", b"ni1\0")),
    "dims-behind-count": Read(with_dims(PLAIN, 3, 8, 9, 10, 9, -9, 0, 7)),
    "dims-4-of-1": Read(with_dims(PLAIN, 4, 8, 9, 10, 1)),
    "dims-1-at-first": Read(with_dims(PLAIN, 4, 1, 72, 10, 1)),
    "dims-1-as-second": Read(with_dims(PLAIN, 5, 72, 1, 10, 1, 1)),
    "dims-1-before-three": Read(with_dims(PLAIN, 4, 1, 8, 9, 10)),
    "dims-1-between": Read(with_dims(PLAIN, 5, 8, 1, 9, 1, 10)),
    "dims-1-of-three": Read(with_dims(PLAIN, 3, 1, 72, 10)),
    "dims-7-of-1": Read(with_dims(PLAIN, 7, 8, 9, 10, 1, 1, 1, 1)),
    "units-micrometres": Read(PLAIN.zooms(700, 700, 1500).put(FIELDS[1].units, "b", 3)),
    "voxel-of-1": Read(written(VALUES[:1, :1, :1])),
    # gzip.
    "gz": Read(PACKED, ".nii.gz"),
    "gz-stored": Read(stored_gzip(PLAIN.content), ".nii.gz"),
    "gz-fields": Read(gzip_member(PLAIN.content, b"name.nii", b"a comment", b"extra" * 50, crc=True), ".nii.gz"),
    "gz-members": Read(
        b"".join(gzip_member(PLAIN.content[at : at + 100], b"n") for at in range(0, 1800, 100)), ".nii.gz"
    ),
    "gz-members-in-header": Read(gzip.compress(PLAIN.content[:9]) + gzip.compress(PLAIN.content[9:]), ".nii.gz"),
    "gz-empty-members": Read(gzip.compress(b"") + PACKED + gzip.compress(b""), ".nii.gz"),
    "gz-zeros": Read(PACKED + bytes(1000), ".nii.gz"),
    "gz-zeros-between": Read(
        gzip.compress(PLAIN.content[:HALF]) + bytes(99) + gzip.compress(PLAIN.content[HALF:]), ".nii.gz"
    ),
    "gz-trailing": Read(gzip.compress(PLAIN.content + b"behind" * 100), ".nii.gz"),
    "gz-second": Read(gzip.compress(written(VALUES, "u2", ">", 2, b"extension").content), ".nii.gz"),
}

REFUSED: dict[str, Refused] = {
    "intercept-nan": Refused(PLAIN.scaled(2, NAN), "intercept"),
    "intercept-inf": Refused(SECOND.scaled(2, INF), "intercept"),
    # nibabel takes the header for voxels, SimpleITK and others begin elsewhere.
    "offset-0": Refused(PLAIN.put(108, "f", 0), "begin", NIBABEL_READS),
    "offset-348": Refused(PLAIN.put(108, "f", 348), "begin"),
    "offset-negative": Refused(PLAIN.put(108, "f", -352), "begin"),
    "offset-nan": Refused(PLAIN.put(108, "f", NAN), "begin"),
    "offset-behind-the-end": Refused(PLAIN.put(108, "f", 1e9), "cut short"),
    "complex64": Refused(with_type(32, 64, 8), "complex", NIBABEL_READS),
    "complex128": Refused(with_type(1792, 128, 16), "complex", NIBABEL_READS),
    "complex256": Refused(with_type(2048, 256, 32), "complex"),
    "rgb": Refused(with_type(128, 24, 3), "RGB"),
    "rgba": Refused(with_type(2304, 32, 4), "RGB"),
    "float128": Refused(with_type(1536, 128, 16), "float128"),
    "datatype-0": Refused(with_type(0, 16, 2), "datatype"),
    "datatype-1": Refused(with_type(1, 1, 2), "datatype"),
    "datatype-77": Refused(with_type(77, 16, 2), "datatype"),
    "dims-2": Refused(with_dims(PLAIN, 2, 8, 9), "three", NIBABEL_READS),
    "dims-0-long": Refused(with_dims(PLAIN, 3, 8, 9, 0), "empty", NIBABEL_READS),
    "dims-negative": Refused(with_dims(PLAIN, 3, 8, -9, 10), "length"),
    "dims-4-of-2": Refused(with_dims(PLAIN, 4, 8, 9, 5, 2), "channel", NIBABEL_READS),
    "dims-8": Refused(with_dims(PLAIN, 8, 8, 9, 10), ""),
    "dims-huge": Refused(with_dims(SECOND, 3, 2**40, 2**40, 2**40), ""),
    "dims-larger-than-file": Refused(with_dims(PLAIN, 3, 400, 500, 60), ""),
    "cut": Refused(PLAIN.content[:-1], ""),
    "cut-in-header": Refused(PLAIN.content[:100], ""),
    "empty": Refused(b"", ""),
    "no-magic": Refused(PLAIN.put(344, "4s", b"abcd"), ""),
    "analyze": Refused(PLAIN.put(344, "4s", bytes(4)), ""),
    "text": Refused(b"VolumeName,Findings\n" * 100, ""),
    "gz-as-nii": Refused(PACKED, "gzip"),
    "nii-as-gz": Refused(PLAIN.content, "gzip", suffix=".nii.gz"),
    "gz-of-gz": Refused(gzip.compress(PACKED), "", suffix=".nii.gz"),
    # nibabel reads as many bytes as it needs, and does not get to what stands behind them.
    "gz-crc": Refused(wrong_at(PACKED, -5), "CRC", NIBABEL_READS, ".nii.gz"),
    "gz-length": Refused(wrong_at(PACKED, -2), "unpacks to", NIBABEL_READS, ".nii.gz"),
    "gz-cut": Refused(PACKED[:-1], "", NIBABEL_READS, ".nii.gz"),
    "gz-without-trailer": Refused(PACKED[:-8], "", NIBABEL_READS, ".nii.gz"),
    "gz-cut-in-data": Refused(PACKED[: len(PACKED) // 2], "", suffix=".nii.gz"),
    "gz-crc-of-first-member": Refused(
        wrong_at(gzip.compress(PLAIN.content[:HALF]), -5) + gzip.compress(PLAIN.content[HALF:]), "", suffix=".nii.gz"
    ),
    "gz-method": Refused(wrong_at(PACKED, 2), "method", suffix=".nii.gz"),
    "gz-too-short": Refused(gzip.compress(PLAIN.content[:-1]), "", suffix=".nii.gz"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """All files, each a study."""
    cases: dict[str, Read | Refused] = {**READ, **REFUSED}
    files = {f"{name}{case.suffix}": case.content for name, case in cases.items()}
    return write_niftis(tmp_path_factory.mktemp("headers"), files)


@pytest.fixture(scope="module")
def made(program: Program, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """What `materialize` makes of them: the folder, and the reason for each that is left out."""
    out = tmp_path_factory.mktemp("made")
    listed = out / "list.csv"
    done = program.run("verify", "--sources", *data.flags(), "--quarantine", listed, "--json", check=False)
    assert done.returncode == 3 and "panicked" not in done.stderr, done.stderr
    reasons = {bad["study_id"]: bad["reason"] for bad in report_of(done)["bad"]}
    program.run("materialize", *data.flags(), "--on-error", "skip", "--output_dir", out / "shards", check=False)
    return out / "shards", reasons


def judged(path: Path) -> Any:
    """What nibabel reads; none if it fails."""
    try:
        return load(path)
    except Exception:  # of many kinds
        return None


def volume_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """That of the volume in an NPZ: axes of length 1 go, from the first on, until three are left."""
    axes = list(shape)
    while len(axes) > 3 and 1 in axes:
        axes.remove(1)
    return tuple(axes)


@pytest.mark.parametrize("name", READ)
def test_read(data: Dataset, made: tuple[Path, dict[str, str]], name: str) -> None:
    """As nibabel reads it, by a shard and by the loader."""
    case, (folder, reasons) = READ[name], made
    path = data.folder / f"{name}{case.suffix}"
    right = judged(path)
    if case.like is not None:
        assert right is None, "nibabel reads it by now"
        right = VALUES.astype(np.float32)
    assert right is not None and name not in reasons, reasons.get(name)
    right = right.reshape(volume_shape(right.shape))
    assert np.array_equal(samples(folder)[name]["volume"].view("u2"), right.astype(np.float16).view("u2"))
    loaded = read_by_loader(path)
    assert np.array_equal(loaded.view("u4"), right.view("u4"))


@pytest.mark.parametrize("name", REFUSED)
def test_refused(data: Dataset, made: tuple[Path, dict[str, str]], name: str) -> None:
    """With a reason that says what it is, and by the loader as well."""
    case, (folder, reasons) = REFUSED[name], made
    assert name in reasons and case.says in reasons[name], reasons.get(name)
    assert name not in samples(folder)
    path = data.folder / f"{name}{case.suffix}"
    assert (judged(path) is not None) == case.nibabel
    with pytest.raises(LoaderError):
        read_by_loader(path)


def test_the_loader_leaves_out_what_has_no_header(data: Dataset, made: tuple[Path, dict[str, str]]) -> None:
    """As the program does, with a warning; what is damaged behind its header is an error when it is read."""
    with pytest.warns(UserWarning, match="volumes are left out"):
        loader = from_npz(data)
    found = {study.meta["study_id"] for study in loader.studies}
    assert set(READ) <= found and not found & {"analyze", "complex64", "gz-as-nii", "nii-as-gz", "dims-negative"}
    at = next(at for at, study in enumerate(loader.studies) if study.meta["study_id"] == "gz-crc")
    with pytest.raises(LoaderError, match="CRC"):
        loader[at]


def read_by_loader(path: Path) -> Any:
    """The volume that the loader finds in a file."""
    return np.ascontiguousarray(read_volume(str(path), ArrayChoice(), None)[1])


def test_all_that_is_read_is_fine(program: Program, data: Dataset, made: tuple[Path, dict[str, str]]) -> None:
    """By the code of `verify`, which shares none with what made it."""
    done = program.run("verify", "--webdataset_dir", made[0], *data.flags(), "--json", check=False)
    source = report_of(done)["source"]
    assert (source["compared"], source["different"]) == (len(READ), 0), done.stdout[-2000:]

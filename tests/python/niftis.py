"""NIfTI files as nibabel writes them, and damaged or rare ones made of these byte by byte; nibabel is the judge of what
they hold."""

from __future__ import annotations

import gzip
import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from make_dataset import Dataset, dataset_at
from numpy.typing import NDArray
from small_datasets import set_meta, write_plain_tables

nib: Any = nibabel  # of which not everything has types
DTYPES = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
# Slope and intercept of a header. The first ones scale nothing: there the intercept counts for nothing either.
UNSCALED = ((1.0, 0.0), (0.0, 5.0), (np.nan, np.nan), (np.inf, 1.0), (-np.inf, np.nan))
SCALED = ((1.0, -1024.0), (0.5, 0.0), (-0.3, 100.7), (1e-45, 3.0))
ZOOMS = (0.7, 0.9, 1.3)  # mm, none of which float32 holds
SUFFIXES = (".nii", ".nii.gz")
LARGEST = 10_000_000  # voxels


@dataclass(frozen=True)
class Fields:
    """Where a header has its fields, and their types as `struct` spells them."""

    size: int
    dim: tuple[int, str]
    datatype: int
    bitpix: int
    pixdim: tuple[int, str]
    vox_offset: tuple[int, str]
    slope: tuple[int, str]
    inter: tuple[int, str]
    units: int
    magic: int


FIELDS = {
    1: Fields(348, (40, "8h"), 70, 72, (76, "8f"), (108, "f"), (112, "f"), (116, "f"), 123, 344),
    2: Fields(540, (16, "8q"), 12, 14, (104, "8d"), (168, "q"), (176, "d"), (184, "d"), 500, 4),
}


@dataclass(frozen=True)
class Nifti:
    """The bytes of a NIfTI file that is not packed: its version, its byte order, and all of it."""

    content: bytes
    version: int = 1
    byte_order: str = "<"

    @property
    def fields(self) -> Fields:
        """Where its header has what."""
        return FIELDS[self.version]

    def put(self, at: int, kind: str, *values: Any) -> Nifti:
        """Other values at an offset."""
        packed = struct.pack(self.byte_order + kind, *values)
        return replace(self, content=self.content[:at] + packed + self.content[at + len(packed) :])

    def scaled(self, slope: float, inter: float) -> Nifti:
        """Another slope and intercept in the header."""
        return self.put(*self.fields.slope, slope).put(*self.fields.inter, inter)

    def zooms(self, *mm: float) -> Nifti:
        """Another size of the voxels in the header, along the first axes."""
        at, kind = self.fields.pixdim
        width = struct.calcsize(kind[1:])
        return self.put(at + width, f"{len(mm)}{kind[1:]}", *mm)

    def voxels_at(self, offset: float, gap: bytes | None = None) -> Nifti:
        """The voxels at another offset, which the header says; between header and voxels stands `gap`, or zeros."""
        size = self.fields.size
        between = gap if gap is not None else bytes(int(offset) - size)
        moved = replace(self, content=self.content[:size] + between + self.content[size + 4 :])
        return moved.put(*self.fields.vox_offset, offset if self.version == 1 else int(offset))


def written(
    values: NDArray[Any],
    dtype: str = "i2",
    byte_order: str = "<",
    version: int = 1,
    extension: bytes | None = None,
    zooms: tuple[float, ...] = ZOOMS,
) -> Nifti:
    """A file as nibabel writes it, whose voxels are these numbers as they are."""
    image_class, header_class = (
        (nib.Nifti1Image, nib.Nifti1Header) if version == 1 else (nib.Nifti2Image, nib.Nifti2Header)
    )
    header = header_class(endianness=byte_order)
    header.set_data_dtype(np.dtype(byte_order + dtype))
    affine = np.diag([*zooms[:3], 1.0])
    image = image_class(values.astype(dtype), affine, header)
    image.header.set_zooms((*zooms[:3], *[1.0] * (values.ndim - 3))[: values.ndim])
    image.header.set_slope_inter(1, 0)
    if extension is not None:
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", extension))
    return Nifti(image.to_bytes(), version, byte_order)


def write(path: Path, file: Nifti | bytes) -> None:
    """The file at a path whose suffix says whether it is packed; bytes are written as they are."""
    content = file if isinstance(file, bytes) else file.content
    if not isinstance(file, bytes) and path.name.lower().endswith(".gz"):
        content = gzip.compress(content, 1, mtime=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def bare(path: Path | str) -> str:
    """The study of a file."""
    name = Path(path).name
    return next((name[: -len(suffix)] for suffix in (".nii.gz", ".nii", ".npz") if name.lower().endswith(suffix)), name)


def load(path: Path) -> NDArray[Any]:
    """The volume that an NPZ made by nibabel would have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of extensions
        image = nib.load(path)
    if math.prod(image.shape) > LARGEST:
        raise ValueError(f"{path}: {image.shape} is no volume of these tests")  # before memory is taken for it
    with np.errstate(over="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of complex numbers
        return image.get_fdata().astype(np.float32)


def header_scales(path: Path) -> bool:
    """Whether nibabel applies a slope and an intercept of the header."""
    proxy = nib.load(path).dataobj
    return (float(proxy.slope), float(proxy.inter)) != (1.0, 0.0)


def spacing(path: Path) -> tuple[str, float]:
    """`XYSpacing` and `ZSpacing` of the header, as a table made with nibabel has them."""
    x, y, z = (float(zoom) for zoom in nib.load(path).header.get_zooms()[:3])
    return str([x, y]), z


def write_niftis(out: Path, files: Mapping[str, Nifti | bytes], folder: str = "volumes") -> Dataset:
    """Files at relative paths, and plain tables that know all of them."""
    dataset = dataset_at(out)
    dataset = replace(dataset, folder=out / folder)
    for path, file in files.items():
        write(dataset.folder / path, file)
    write_plain_tables(dataset, sorted({bare(path) for path in files}))
    return dataset


def as_npz(dataset: Dataset, out: Path, paths: Iterable[str]) -> Dataset:
    """The data set of the NPZ files that NumPy and nibabel make of NIfTI files, at the same places, with a metadata
    table in which a slope and an intercept that were applied are 1 and 0."""
    made = replace(dataset_at(out), reports=dataset.reports, labels=dataset.labels)
    meta: dict[str, tuple[object, object, object, object]] = {}
    for path in paths:
        source, place = dataset.folder / path, made.folder / Path(path).parent / f"{bare(path)}.npz"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.savez(place, data=load(source))
        pair = ("1.0", "0.0") if header_scales(source) else ("1", "-1024")
        meta[bare(path)] = (*pair, "[0.75, 0.75]", "1.5")
    set_meta(made, meta)
    return made


def gzip_member(
    content: bytes, name: bytes = b"", comment: bytes = b"", extra: bytes = b"", crc: bool = False
) -> bytes:
    """A gzip member with the fields that a header may have."""
    packed = gzip.compress(content, 6, mtime=0)
    flags = (8 if name else 0) | (16 if comment else 0) | (4 if extra else 0) | (2 if crc else 0)
    header = packed[:3] + bytes([flags]) + packed[4:10]
    if extra:
        header += struct.pack("<H", len(extra)) + extra
    header += name + b"\0" if name else b""
    header += comment + b"\0" if comment else b""
    if crc:
        header += struct.pack("<H", zlib.crc32(header) & 0xFFFF)
    return header + packed[10:]


def stored_gzip(content: bytes) -> bytes:
    """A gzip file whose content is not packed."""
    out = io.BytesIO()
    with gzip.GzipFile("", "wb", 0, out, mtime=0) as file:
        file.write(content)
    return out.getvalue()

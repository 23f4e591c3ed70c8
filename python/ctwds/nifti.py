"""Volumes of NIfTI files, as nibabel reads them."""

from __future__ import annotations

import gzip
import math
import struct
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .axes import ArrayChoice
from .basics import CHUNK


@dataclass(frozen=True)
class NiftiHeader:
    """What the header of a NIfTI file says of its voxels, as nibabel takes it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int  # of the first voxel
    scale: tuple[float, float] | None  # slope and intercept, where they change anything
    zooms: tuple[float, ...]  # size of a voxel along the first three axes, in mm


NIFTI_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
# Of NIfTI-1 and NIfTI-2: bytes of the header, and where it has which numbers.
NIFTI_FIELDS: tuple[tuple[int, dict[str, tuple[int, str]]], ...] = (
    (348, {"dim": (40, "8h"), "type": (70, "h"), "pixdim": (76, "8f"), "offset": (108, "f"), "scale": (112, "2f")}),
    (540, {"dim": (16, "8q"), "type": (12, "h"), "pixdim": (104, "8d"), "offset": (168, "q"), "scale": (176, "2d")}),
)


def open_nifti(path: str) -> Any:
    """The bytes of a NIfTI file, unpacked."""
    return (gzip.open if path.endswith(".gz") else open)(path, "rb")


def nifti_header(file: IO[bytes]) -> NiftiHeader:
    """The header at the beginning of a file."""
    head = file.read(540)
    sizes = struct.unpack("<i", head[:4].ljust(4, b"\0"))[0], struct.unpack(">i", head[:4].ljust(4, b"\0"))[0]
    second = head[344:348] not in (b"n+1\0", b"ni1\0")
    size, fields = NIFTI_FIELDS[second]
    is_known = size in sizes and head[4:8] in (b"n+2\0", b"ni2\0") and head[8:12] in (b"\r\n\x1a\n", bytes(4))
    if len(head) < size or (second and not is_known):
        raise ValueError("its header is none of NIfTI")

    def get(name: str, order: str) -> tuple[Any, ...]:
        at, kind = fields[name]
        return struct.unpack_from(order + kind, head, at)

    count = get("dim", "<")[0]
    order = "<" if 1 <= count <= 7 or (count == 0 and sizes[0] == size) else ">"
    count, *lengths = get("dim", order)
    (code,), (offset,), (slope, inter) = get("type", order), get("offset", order), get("scale", order)
    if code not in NIFTI_TYPES:
        raise ValueError(f"its datatype {code} is not supported: integers and floats of up to 8 bytes are")
    if not 1 <= count <= 7 or min(lengths[:count]) < 0:
        raise ValueError(f"its dimensions are {count}: {lengths}")
    if head[344:348] == b"ni1\0" and not second and offset == 0:
        offset = size + 4
    if not math.isfinite(offset) or offset < size + 4:
        raise ValueError(f"its voxels begin at byte {offset} (vox_offset), inside the header")
    scale = None
    if slope != 0 and math.isfinite(slope):
        if not math.isfinite(inter):
            raise ValueError(f"its scl_slope is {slope} and its scl_inter {inter}")
        scale = (slope, inter) if (slope, inter) != (1, 0) else None
    dtype, zooms = np.dtype(order + NIFTI_TYPES[code]), tuple(abs(zoom) or 1.0 for zoom in get("pixdim", order)[1:4])
    return NiftiHeader(tuple(lengths[:count]), dtype, int(offset), scale, zooms)


def nifti_values(stored: NDArray[Any], header: NiftiHeader) -> NDArray[Any]:
    """What the header's slope and intercept make of stored numbers, as `get_fdata().astype(float32)` of nibabel."""
    slope, inter = header.scale or (1, 0)
    found = np.empty(stored.size, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(0, stored.size, CHUNK):
            values = stored[at : at + CHUNK].astype(np.float64)
            # A step that changes nothing is left out, as -0.0 + 0.0 would change the sign.
            if slope != 1:
                values *= slope
            if inter != 0:
                values += inter
            found[at : at + CHUNK] = values
    return found


def read_nifti(path: str, choice: ArrayChoice, look: int | None) -> NDArray[Any]:
    """The volume of a NIfTI file; with `look` the values in its first bytes. The checksum of a packed one is compared
    at its end."""
    with open_nifti(path) as file:
        header = nifti_header(file)
        file.seek(header.offset)
        width, count = header.dtype.itemsize, math.prod(header.shape)
        if not count:
            raise ValueError(f"its shape is {header.shape}: there is no voxel")
        # As the program looks at them: small integers as they are, all else as float32.
        seen = width if header.scale is None and header.dtype.kind in "iu" and width < 8 else 4
        if look is not None and choice.part(header.shape)[1] is None:
            return nifti_values(np.frombuffer(file.read(min(look // seen, count) * width), header.dtype), header)
        content = bytearray()  # grows as it is read: what a header claims need not be there
        while piece := file.read(min(CHUNK, count * width - len(content))):
            content += piece
        if len(content) < count * width:
            raise ValueError(f"it ends before its {count} voxels do")
        try:
            while path.endswith(".gz") and file.read(CHUNK):
                pass
        except gzip.BadGzipFile as error:
            if "Not a gzipped file" not in str(error):  # what else stands behind the last member is none of it
                raise
    values = nifti_values(np.frombuffer(content, header.dtype), header)
    volume = choice.volume(values.reshape(header.shape, order="F"))
    return volume if look is None else volume.ravel("F")[: look // seen]

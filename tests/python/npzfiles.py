"""NPZ files of every age and origin, with npy headers and zip directories made by hand.

`numpy.savez` of today writes only one kind: header version 1, padded to 64, zip64 extra fields in the local headers.
Older NumPy, other libraries and zip tools wrote the others."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Order = Literal["C", "F"]
Endian = Literal["<", ">"]
ORDERS: tuple[Order, ...] = ("C", "F")
ENDIANS: tuple[Endian, ...] = ("<", ">")
WRITERS = ("numpy", "zip64", "plain", "streamed", "commented")


def npy(array: NDArray[Any], version: int = 1, align: int = 64, fortran: bool | None = None) -> bytes:
    """The array in the npy format, with the header version and the padding asked for."""
    if fortran is None:
        fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    header = f"{{'descr': {array.dtype.str!r}, 'fortran_order': {fortran}, 'shape': {array.shape}, }}"
    length_format = "<H" if version == 1 else "<I"
    prefix = 8 + struct.calcsize(length_format)
    padding = -(prefix + len(header) + 1) % align
    text = header.encode("utf-8" if version == 3 else "latin1") + b" " * padding + b"\n"
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack(length_format, len(text))
        + text
        + array.tobytes("F" if fortran else "C")
    )


class Unseekable(io.RawIOBase):
    """A pipe-like file: `zipfile` then writes sizes and CRC behind the data, not in the local header."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.file = file

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any, /) -> int:
        """Pass on."""
        return self.file.write(data)


def write_zip(path: Path, members: dict[str, bytes], deflated: bool, writer: str) -> None:
    """Write a zip file as the named kind of writer does."""
    method = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        target = Unseekable(file) if writer == "streamed" else file
        with zipfile.ZipFile(target, "w", method) as archive:
            if writer == "commented":
                archive.comment = b"a comment, so that the directory does not end the file " * 20
            for name, data in members.items():
                with archive.open(name, "w", force_zip64=writer == "zip64") as member:
                    member.write(data)


def write_npz(
    path: Path,
    arrays: dict[str, NDArray[Any]],
    *,
    writer: str = "zip64",
    deflated: bool = False,
    version: int = 1,
    align: int = 64,
) -> None:
    """Write an NPZ file with the named arrays."""
    if writer == "numpy":
        path.parent.mkdir(parents=True, exist_ok=True)
        (np.savez_compressed if deflated else np.savez)(path, **arrays)
        return
    write_zip(path, {f"{name}.npy": npy(array, version, align) for name, array in arrays.items()}, deflated, writer)

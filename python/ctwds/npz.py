"""Volumes of NPZ and NPY files."""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .axes import ArrayChoice
from .errors import LoaderError, npy_errors
from .files import NIFTI
from .nifti import read_nifti

KNOWN_ARRAYS = ("data", "volume", "arr_0")
ZIP_METHODS = {9: "deflate64", 12: "bzip2", 14: "lzma", 20: "zstd", 93: "zstd", 95: "xz"}


class NpyFile:
    """An NPY file, in place of an NPZ file with one array that has no name."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.info = zipfile.ZipInfo(".npy")
        self.info.file_size = os.stat(path).st_size

    def infolist(self) -> list[zipfile.ZipInfo]:
        """The one array."""
        return [self.info]

    def open(self, _: zipfile.ZipInfo) -> IO[bytes]:
        """The file."""
        return open(self.path, "rb")


Archive = zipfile.ZipFile | NpyFile


def open_archive(path: str) -> contextlib.AbstractContextManager[Archive]:
    """The arrays of an NPZ file, or the one of an NPY file."""
    return contextlib.nullcontext(NpyFile(path)) if path.endswith(".npy") else zipfile.ZipFile(path)


def read_spacing(path: str, name: str) -> tuple[float, ...]:
    """The three numbers of an array of an NPZ file that gives the spacing, in their order."""
    try:
        if path.endswith(".npy"):
            raise ValueError(f"there is no array {name!r} beside the volume")
        with np.load(path, allow_pickle=False) as arrays:
            if name not in arrays.files:
                raise ValueError(f"there is no array {name!r}, but {', '.join(arrays.files)}")
            with npy_errors():
                array = arrays[name]
        numbers = tuple(float(number) for number in array.reshape(-1)) if array.dtype.kind in "biuf" else ()
        if len(numbers) != 3 or not all(math.isfinite(number) and number > 0 for number in numbers):
            raise ValueError(f"array {name!r} is {array.tolist()!r}, and a spacing has three numbers above 0")
        return numbers
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise LoaderError(f"{path}: no spacing in it ({error}): spacing_array names its array") from error


class Unreadable(ValueError):
    """An array that is refused as ctwds-fs refuses it."""


def unreadable(info: zipfile.ZipInfo, name: str) -> str:
    """Why a member of a zip file is not read; empty if it is."""
    if info.flag_bits & 1:
        return f"array '{name}' is encrypted; write the file again without a password"
    if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return ""
    method = ZIP_METHODS.get(info.compress_type, "an unknown method")
    return (
        f"array '{name}' is packed with {method} (zip compression method {info.compress_type}); stored and deflated "
        "arrays are read: write the file again with np.savez or np.savez_compressed"
    )


def open_array(archive: Archive, info: zipfile.ZipInfo, name: str) -> IO[bytes]:
    """The bytes of an array's member."""
    if reason := unreadable(info, name):
        raise Unreadable(reason)
    return archive.open(info)


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array that begins here."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"NPY format version {version[0]}.{version[1]} is not supported (1.0, 2.0 and 3.0 are)")
    with npy_errors():
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)  # version 3 is alike, but for names' encoding
    return shape, dtype


def fits(shape: Sequence[int], dtype: np.dtype[Any], choice: ArrayChoice) -> bool:
    """Whether it is an array of numbers that has three dimensions."""
    try:
        return dtype.kind in "biufc" and bool(choice.part(shape))
    except ValueError:
        return False


def only_volume(archive: Archive, listed: Mapping[str, list[zipfile.ZipInfo]], choice: ArrayChoice) -> str:
    """The name of the only array of numbers of three dimensions; where there is none, of the only larger one."""
    found: list[tuple[str, tuple[int, ...], bool]] = []
    for name, info in ((name, info) for name, infos in listed.items() for info in infos):
        is_npy = info.filename.endswith(".npy")
        try:
            if is_npy or not unreadable(info, name):
                with open_array(archive, info, name) as file:
                    shape, dtype = npy_header(file)
                    found += [(name, shape, fits(shape, dtype, choice))] if len(shape) >= 3 else []
        except Unreadable:
            raise
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error):
            continue  # a note, say
    if not found:
        raise ValueError(f"none of its arrays ({', '.join(listed)}) is data, volume, arr_0 or of three dimensions")
    found = [one for one in found if one[2]] or found
    if len({name for name, *_ in found}) > 1:
        shown = ", ".join(f"{name} {shape}" for name, shape, _ in found)
        raise ValueError(f"several arrays could be the volume ({shown}); choose one with array")
    return found[0][0]


def read_array(
    archive: Archive, info: zipfile.ZipInfo, name: str, choice: ArrayChoice, look: int | None
) -> NDArray[Any]:
    """The volume in an array of booleans, integers or floats of up to 8 bytes, whose checksum is right; with `look` the
    values in its first bytes, in a row and in the file's order."""
    with open_array(archive, info, name) as file:
        shape, dtype = npy_header(file)
        if dtype.hasobject:
            raise ValueError(
                f"array '{name}' is an object array (pickled data, never executed here); save it as float32"
            )
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            what = f"'{dtype}' (longdouble)" if dtype.kind == "f" else f"'{dtype}'"
            raise ValueError(
                f"array '{name}': dtype {what} is not supported: booleans, integers and floats of up to 8 bytes are; "
                "save it as one"
            )
        if info.file_size != file.tell() + math.prod(shape) * dtype.itemsize:
            raise ValueError(
                f"array '{name}' of shape {shape} and dtype {dtype} does not fit its {info.file_size} bytes"
            )
        if look is not None and choice.part(shape)[1] is None:
            return np.frombuffer(file.read(look // dtype.itemsize * dtype.itemsize), dtype)
    with open_array(archive, info, name) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    volume = choice.volume(array)
    if look is not None:
        return volume.ravel("C" if array.flags.c_contiguous else "F")[: look // dtype.itemsize]
    return volume


def read_volume(path: str, choice: ArrayChoice, look: int | None) -> tuple[str, NDArray[Any]]:
    """The volume that ctwds-fs takes of an NPZ, NPY or NIfTI file (with `any_shape` the first array, if none has a
    known name), and its array's name; with `look` only the values in its first bytes."""
    if path.endswith(NIFTI):
        try:
            return "data", read_nifti(path, choice, look)
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise LoaderError(f"{path}: it cannot be read ({error}): remove it or its row in a table") from error
    wanted = None if path.endswith(".npy") else choice.name
    try:
        with open_archive(path) as archive:
            # By the names of the arrays; NumPy reads those without .npy as well.
            listed: dict[str, list[zipfile.ZipInfo]] = {}
            for info in archive.infolist():
                listed.setdefault(info.filename.removesuffix(".npy"), []).append(info)
            if wanted is not None and wanted not in listed:
                raise ValueError(f"there is no array '{wanted}', but {', '.join(listed)}")
            names = (wanted,) if wanted is not None else KNOWN_ARRAYS
            name = next((name for name in names if name in listed), None)
            if name is None and (choice.any_shape or path.endswith(".npy")):
                name = next(iter(listed), None)
            if name is None:
                name = only_volume(archive, listed, choice)
            if len(listed[name]) > 1:
                raise ValueError(f"the file has array '{name}' more than once; write it again with one of them")
            return name, read_array(archive, listed[name][0], name, choice, look)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise LoaderError(f"{path}: it cannot be read ({error}): remove it or its row in a table") from error

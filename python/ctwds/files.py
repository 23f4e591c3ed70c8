"""Which files of a folder are volumes."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

from .basics import AnyPath
from .errors import LoaderError

NIFTI = (".nii.gz", ".nii")
FORMAT_NAMES = {".npz": "NPZ", ".npy": "NPY", ".nii.gz": "NIfTI", ".nii": "NIfTI"}
SOURCES = {"auto": (".npz", ".npy", *NIFTI), "npz": (".npz",), "npy": (".npy",), "nifti": NIFTI}
DEPTHS = ("*/*/*", "*/*", "*")  # of equals the deepest
DEEPER = tuple("/".join("*" * depth) for depth in range(8, 3, -1))  # where those have no volume


def find_volumes(folder: AnyPath, source: str, patterns: Sequence[str]) -> list[str]:
    """The volumes of the folder depth that has the most, or those that match a pattern, by the bytes of their relative
    paths."""

    def found(pattern: str) -> list[str]:
        paths = glob.glob(pattern, root_dir=folder, recursive=True)
        return [
            path
            for path in (os.path.normpath(path) for path in paths)
            if path.endswith(SOURCES[source]) and not any(part.startswith(".") for part in path.split("/"))
        ]

    for pattern in patterns:
        if not found(pattern):
            raise LoaderError(f"{os.fspath(folder)}: no volume matches pattern {pattern!r} (relative to that folder)")
    if patterns:
        most = sorted({path for pattern in patterns for path in found(pattern)}, key=os.fsencode)
    else:
        most = max((found(depth) for depth in DEPTHS), key=len) or max((found(depth) for depth in DEEPER), key=len)
    if not most:
        formats = " or ".join(dict.fromkeys(FORMAT_NAMES[suffix] for suffix in SOURCES[source]))
        raise LoaderError(
            f"{os.fspath(folder)}: no {formats} file in it, nor down to {len(DEPTHS + DEEPER)} "
            "levels below: is it the folder that holds the volumes?"
        )
    studies: dict[str, str] = {}
    for path in most:
        if (earlier := studies.setdefault(study_of(path), path)) != path:
            raise LoaderError(
                f"{os.fspath(folder)}: two volumes have the study id {study_of(path)!r}: {earlier} and {path}; remove "
                "or rename one, or leave one out by source or pattern"
            )
    return sorted(most, key=os.fsencode)


def study_of(path: str) -> str:
    """The study id of a volume's file: its name without the suffix."""
    name = os.path.basename(path)
    return name.removesuffix(next((suffix for suffix in FORMAT_NAMES if name.endswith(suffix)), ""))

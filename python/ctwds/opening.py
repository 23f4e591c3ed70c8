"""Opening a data set by keyword arguments, which are the flags of the program."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .basics import AnyPath, dtype_name
from .errors import UsageError
from .volumes import Volumes

MANIFEST = "manifest.json"
ADDRESSES = ("s3://", "https://", "http://")  # of shards in object storage


def _flags(options: Mapping[str, Any]) -> list[str]:
    """Keyword arguments as flags of the program."""
    flags = []
    for name, value in ((name, dtype_name(value)) for name, value in options.items()):
        flag = "--" + name.replace("_", "-")
        if value is True:
            flags.append(flag)
        elif value is not None and value is not False:
            values = value if isinstance(value, (list, tuple)) else [value]
            if len(values) > 1 and all(isinstance(one, numbers.Real) for one in values):
                values = [",".join(map(str, values))]  # shape=(480, 480, 240): no flag of one number may be repeated
            flags += [f"{flag}={os.fspath(one) if isinstance(one, os.PathLike) else one}" for one in values]
    return flags


def open(
    source: AnyPath | None = None, /, *, threads: int | None = None, cache: int | None = None, **options: Any
) -> Volumes:
    """Open a data set, or a folder of shards, to read its samples in this process.

    Args:
        source: a `ctwds.toml`; a folder of shards with its manifest, plain or compressed, or its address in object
            storage (`s3://bucket/prefix`); or a folder of volumes (NPZ, NPY, NIfTI), whose address is the option
            `data_folder`. By default what the options name, or `ctwds.toml` in the current folder.
        threads: the number of decoding threads of each process; by default the cores that it may use.
        cache: bytes of memory for volumes of each process; by default one volume more than threads.
        **options: the program's flags for data sets, with underscores: `reports_file="r.csv"`,
            `volume="preprocessed"`, `shape=(480, 480, 240)`, `where="Emphysema == 1"`, `strict=True`; lists for flags
            that may be repeated.

    Returns:
        The samples, in the order of the data set.

    Raises:
        UsageError: an option is wrong or missing.
        RefusedError, DamagedError, ReadError: the data cannot be planned.
    """
    flags = _flags(options)
    if source is not None:
        if not os.fspath(source):
            raise UsageError("the source is an empty text, not a path; '.' is the current folder")
        path = Path(source)
        if str(source).startswith(ADDRESSES):
            flags.insert(0, f"--shards={source}")  # no Path: it would make one slash of two
        elif path.is_dir():
            flags.insert(0, f"{'--shards' if (path / MANIFEST).exists() else '--data-folder'}={path}")
        else:
            flags.insert(0, f"--dataset={path}")
    return Volumes(flags, threads=threads, cache=cache)

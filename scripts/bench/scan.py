"""What `ctwds-fs plan` finds out, in plain Python with several processes: the shape and type of every volume that all
three tables know. Prints how many there are.

    python -m bench.scan DATA-FOLDER REPORTS META LABELS WORKERS"""

from __future__ import annotations

import csv
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from numpy.lib import format as npy


def header(path: Path) -> tuple[tuple[int, ...], bool, str]:
    """Shape, order and type of the array in an NPZ file."""
    with zipfile.ZipFile(path) as archive, archive.open("data.npy") as member:
        npy.read_magic(member)
        shape, is_fortran, dtype = npy.read_array_header_1_0(member)
    return shape, is_fortran, dtype.str


def studies(table: Path) -> dict[str, list[str]]:
    """The rows of a table by study id."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        key = next(rows).index("VolumeName")
        return {row[key].removesuffix(".nii.gz"): row for row in rows}


def main() -> None:
    """Scan, join, count."""
    folder, *rows = map(Path, sys.argv[1:5])
    paths = sorted(folder.glob("*/*/*.npz"))
    with ProcessPoolExecutor(int(sys.argv[5])) as pool:
        headers = list(pool.map(header, paths, chunksize=256))
    known = [studies(table) for table in rows]
    found = {
        path.name.removesuffix(".npz"): what
        for path, what in zip(paths, headers, strict=True)
        if all(path.name.removesuffix(".npz") in table for table in known)
    }
    print(len(found))


if __name__ == "__main__":
    main()

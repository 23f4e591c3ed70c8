"""Makes the NPZ files of this folder: one volume of 4 × 5 × 6 each, as NumPy and Python's `zipfile` write them.

The voxel at index i (C order) is (7 i) mod 113, as in `tests/common`; the arrays beside it differ from it in every
voxel. Run it only to add a file: `.venv/bin/python tests/npz/make.py`."""

from __future__ import annotations

import struct
import sys
import zipfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

from npzfiles import npy, write_npz, write_zip

HERE = Path(__file__).resolve().parent
VOLUME = (np.arange(120) * 7 % 113).reshape(4, 5, 6)
F4, I2 = VOLUME.astype("<f4"), VOLUME.astype("<i2")
DECOY = F4 + 1


def main() -> None:
    """Write them."""
    np.savez(HERE / "stored.npz", data=F4)
    np.savez_compressed(HERE / "deflated_fortran.npz", data=np.asfortranarray(F4))
    np.savez(HERE / "beside_others.npz", arr_0=DECOY, volume=DECOY, data=F4)
    write_npz(HERE / "streamed.npz", {"data": I2}, writer="streamed", deflated=True)
    write_npz(HERE / "commented.npz", {"data": I2}, writer="commented")
    # As writers do that align the data to the pages of memory.
    aligned = zipfile.ZipInfo("data.npy")
    aligned.extra = struct.pack("<HH", 0xD935, 4000) + bytes(4000)
    with zipfile.ZipFile(HERE / "aligned.npz", "w") as archive:
        archive.writestr(aligned, npy(F4))
    # Python's writer turns to zip64 records for what is larger than this, also in the directory and the end record.
    zipfile.ZIP64_LIMIT = 16  # type: ignore[misc]  # a constant, which no argument of zipfile stands for
    write_zip(HERE / "zip64.npz", {"data.npy": npy(F4, version=2)}, False, "zip64")


if __name__ == "__main__":
    main()

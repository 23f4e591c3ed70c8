#!/usr/bin/env bash
# Blosc2 packs no array in Fortran order, the order of NIfTI volumes in memory.
#
# Versions: blosc2 4.14.1, nibabel 5.4.2, numpy 2.1.3, Python 3.11; run on 2026-11-29.
#
# Behaviour: blosc2.pack_array2 and blosc2.pack_tensor raise ValueError, "ndarray is not C-contiguous", for the array that
#   nibabel's get_fdata() gives of an unscaled file. blosc2.asarray takes it, and so does pack_array2 of a copy in C order.
#
# Guess: it is packed with its order, or copied, as np.savez and zarr do.
#
# Who meets it: whoever compresses volumes that nibabel has just read. This project reads both orders, and its compressed
#   shards hold C order.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet blosc2==4.14.1 nibabel==5.4.2 numpy==2.1.3
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import blosc2
import nibabel
import numpy as np

stored = np.arange(24, dtype="i2").reshape(2, 3, 4)
nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), "volume.nii.gz")
volume = nibabel.load("volume.nii.gz").get_fdata()


def error_of(work):
    try:
        work()
    except ValueError as error:
        return str(error)
    return None


errors = [error_of(lambda: pack(volume)) for pack in (blosc2.pack_array2, blosc2.pack_tensor)]
print(f"get_fdata(): {volume.dtype}, Fortran order: {volume.flags.f_contiguous}; pack_array2, pack_tensor: {errors}")
copied = blosc2.unpack_array2(blosc2.pack_array2(np.ascontiguousarray(volume)))
taken = blosc2.asarray(volume)[:]
print(f"a copy in C order: equal {np.array_equal(copied, stored)}; asarray: equal {np.array_equal(taken, stored)}")
if not (volume.flags.f_contiguous and all(error and "C-contiguous" in error for error in errors)):
    sys.exit("the behaviour has changed")
if not (np.array_equal(copied, stored) and np.array_equal(taken, stored)):
    sys.exit("the copy is not equal any more")
PYTHON

#!/usr/bin/env bash
# MDS shards give back big-endian arrays with their bytes swapped.
#
# Versions: mosaicml-streaming 0.13.0, litdata 0.2.76, numpy 2.1.3, torch 2.15.0, Python 3.11; run on 2026-11-29.
#
# Behaviour: with the column encoding "ndarray", MDSWriter takes an array of dtype '>i2' without a word, and
#   StreamingDataset gives '<i2' with the same bytes back: 1 has become 256. With "ndarray:int16" the writer refuses it,
#   and says that it expected int16 and got int16. litdata's writer ends with KeyError: dtype('>i2').
#
# Guess: equal values, or an error that names the byte order, as torch.from_numpy raises one.
#
# Who meets it: np.asarray(nibabel.load(file).dataobj) of a big-endian NIfTI file, and old NPY files, are big-endian. A
#   conversion to MDS runs through, and the training sees noise. This project reads both byte orders, and writes
#   little-endian voxels only.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mosaicml-streaming==0.13.0 litdata==0.2.76 numpy==2.1.3 torch==2.15.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from litdata.streaming.writer import BinaryWriter
from streaming import MDSWriter, StreamingDataset

volume = np.arange(24, dtype=">i2").reshape(2, 3, 4)


def through_mds(encoding):
    with MDSWriter(out=encoding.replace(":", "-"), columns={"volume": encoding}) as writer:
        writer.write({"volume": volume})
    return StreamingDataset(local=encoding.replace(":", "-"), batch_size=1)[0]["volume"]


def error_of(work):
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def through_litdata():
    writer = BinaryWriter("litdata", chunk_size=10)
    writer[0] = {"volume": volume}


back = through_mds("ndarray")
print(f"written: {volume.dtype.str} {volume.ravel()[:4]}; read from MDS: {back.dtype.str} {back.ravel()[:4]}")
typed = error_of(lambda: through_mds("ndarray:int16"))
print(f"MDS with ndarray:int16: {typed}")
litdata = error_of(through_litdata)
print(f"litdata: {litdata}")
swapped = back.dtype.str == "<i2" and np.array_equal(back, volume.astype("<i2").byteswap())
if not (swapped and typed and "expected int16, got int16" in typed and litdata == "KeyError: dtype('>i2')"):
    sys.exit("the behaviour has changed")
PYTHON

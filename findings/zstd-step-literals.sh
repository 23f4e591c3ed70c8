#!/usr/bin/env bash
# zstd with a step in its search stores what it finds no match for, and a noisy CT volume gets larger than with level 1.
#
# Versions: pyzstd 0.16.2 (zstd 1.5.6), numpy 2.1.3, Python 3.11; run on 2026-11-30.
#
# Behaviour: the strategy "fast" with a targetLength, which is its step, turns Huffman coding of literals off. The bytes
#   between matches stand in the frame as they are. The experimental parameter literalCompressionMode (1002) turns it on.
#
# Guess: the step makes the search coarser, and so a frame a little larger; literals are coded as with every level.
#
# Who meets it: the differences of neighbouring voxels have few values and hardly a match, so that the search is wasted
#   and a step in it seems right. Whoever tunes zstd for such blocks sees it lose all that it had saved. This project
#   searches with a step, and asks for coded literals beside it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyzstd==0.16.2 numpy==2.1.3
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import pyzstd

noise = np.random.default_rng(0).normal(40, 12, (64, 64, 32)).round().astype(np.int16)
differences = np.diff(noise.ravel()).astype(np.int8).tobytes()
name = pyzstd.CParameter


def size(**options: int) -> float:
    given = {getattr(name, key, 1002): value for key, value in options.items()}
    frame = pyzstd.compress(differences, given)
    assert pyzstd.decompress(frame) == differences
    return len(frame) / len(differences)


level = size(compressionLevel=1)
step = size(compressionLevel=1, strategy=1, targetLength=16)
coded = size(compressionLevel=1, strategy=1, targetLength=16, literals=1)
print(f"zstd {pyzstd.zstd_version}: level 1 {level:.3f} of the bytes, with a step {step:.3f}, literals coded {coded:.3f}")
if not (level < 0.9 and step > 0.99 and coded < 0.9):
    sys.exit("the behaviour has changed")
PYTHON

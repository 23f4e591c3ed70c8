#!/usr/bin/env bash
# torchio takes a float16 image, and cannot resample it.
#
# Versions: torchio 1.2.1, SimpleITK 2.5.7, numpy 2.1.3, torch 2.15.0, Python 3.11; run on 2026-11-29.
#
# Behaviour: ScalarImage keeps float16, and transforms such as CropOrPad work on it. Resample hands it to SimpleITK, which
#   has no pixel type for it: TypeError, dtype: float16 is not supported.
#
# Guess: it is resampled as float32, like PyTorch's interpolate on a CPU, which takes float16.
#
# Who meets it: CT volumes are kept as float16 in WebDataset shards, this project's among them; whoever augments them by
#   torchio calls .float() first. The loader of this project hands over float32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torchio==1.2.1 SimpleITK==2.5.7 numpy==2.1.3 torch==2.15.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
import torchio

volume = torch.linspace(-1, 1, 4 * 5 * 6, dtype=torch.float16).reshape(1, 4, 5, 6)
image = torchio.ScalarImage(tensor=volume)
cropped = torchio.CropOrPad((4, 4, 4))(image).data
try:
    torchio.Resample(2)(image)
    error = None
except TypeError as raised:
    error = str(raised)
as_float32 = torchio.Resample(2)(torchio.ScalarImage(tensor=volume.float())).data
resized = torch.nn.functional.interpolate(volume[None], size=(2, 2, 3), mode="trilinear")
print(f"image {image.data.dtype}, CropOrPad {cropped.dtype}, Resample: {error}")
print(f"of float32: {as_float32.dtype} {tuple(as_float32.shape)}; PyTorch of float16: {resized.dtype}")
kept = image.data.dtype == cropped.dtype == resized.dtype == torch.float16
if not (kept and error and "float16" in error and as_float32.dtype == torch.float32):
    sys.exit("the behaviour has changed")
PYTHON

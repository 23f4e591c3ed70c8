"""The samples of `ctwds.open` in MONAI's data sets, transforms and loaders."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from harness import REPOSITORY
from test_loader_frameworks import FRAMEWORKS

READER = Path(__file__).with_name("monai_reader.py")
DEADLINE = 150  # seconds
nib: Any = nibabel


def has_monai() -> bool:
    """Whether the environment of the frameworks has MONAI."""
    return any(FRAMEWORKS.parents[1].glob("lib/*/site-packages/monai"))


@pytest.mark.skipif(
    not has_monai(), reason="MONAI is in an environment of 1.5 GB: scripts/setup.sh --frameworks installs it"
)
def test_monai(tmp_path: Path) -> None:
    """Threads, processes and caches give what nibabel reads, turned to RAS by the affine and scaled; crops come too."""
    draw = np.random.default_rng(1)
    affine = np.diag([-0.5, 0.75, -2.0, 1.0])
    right = {}
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for study in ("a", "b", "c"):
        values = draw.integers(-1000, 1000, (9, 8, 7)).astype(np.int16)
        mask = (draw.random((9, 8, 7)) > 0.5).astype(np.uint8)
        nib.Nifti1Image(values, affine).to_filename(tmp_path / "images" / f"{study}.nii.gz")
        nib.Nifti1Image(mask, affine).to_filename(tmp_path / "masks" / f"{study}_mask.nii.gz")
        scaled = (values[::-1, :, ::-1].astype(np.float64) + 1000) / 2000
        right[study] = [[1, 9, 8, 7], scaled.sum(), scaled[0, 0, 0], float(mask.sum())]
    done = subprocess.run(
        [FRAMEWORKS, READER, tmp_path],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "python"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("crops") == [4, 1, 4, 4, 4]
    assert list(found) == ["threads", "buffer", "processes", "cached", "persistent"]
    for name, samples in found.items():
        assert samples.keys() == right.keys(), name
        for study, (shape, *numbers) in samples.items():
            assert shape == right[study][0], (name, study)
            assert np.allclose(numbers, right[study][1:], rtol=1e-6), (name, study)

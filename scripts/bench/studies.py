"""Many tiny studies: for scans, where only the number of files counts."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import dataset_tables as tables
import numpy as np
from make_dataset import Dataset, dataset_at, relative_path, study_ids

SHAPE = (8, 8, 4)


def content_of(suffix: str) -> bytes:
    """A tiny volume, NPZ or `.nii.gz`."""
    if suffix == ".npz":
        buffer = io.BytesIO()
        np.savez(buffer, data=np.zeros(SHAPE, np.float32))
        return buffer.getvalue()
    import nibabel

    nib: Any = nibabel  # of which not everything has types
    return gzip.compress(nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.eye(4)).to_bytes(), 1)


def make_studies(out: Path, count: int, suffix: str = ".npz") -> Dataset:
    """Write `count` real files, all with the same voxels, in folders like CT-RATE's, and the three tables."""
    content = content_of(suffix)
    paths, ids = dataset_at(out), study_ids(count)
    folder = None
    for study_id in ids:
        path = paths.folder / relative_path(study_id, 3).with_suffix(suffix)
        if path.parent != folder:
            folder = path.parent
            folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    rows = [tables.Study(index, study_id, SHAPE) for index, study_id in enumerate(ids)]
    tables.write_tables(
        rows, paths.reports, paths.meta, paths.labels, seed=0, bom=False, missing_zspacing=0, real=count
    )
    return paths

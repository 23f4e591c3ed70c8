"""NIfTI files as sources: made of a data set's NPZ files, and read by nibabel and through mounts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from make_dataset import Dataset

from bench import Failure
from bench.lab import Lab, Sample, Samples, digests, say, split, warm


def nifti_of(lab: Lab, data: Dataset, name: str) -> Dataset:
    """The volumes of a data set as `.nii.gz` files of int16, as nibabel writes them, in the page cache; checked once to
    give the shards of the NPZ files."""

    def make() -> Dataset:
        import nibabel

        nib: Any = nibabel  # of which not everything has types
        say(f"making {name}")
        made = replace(data, folder=lab.folder / name)
        for path in data.volumes():
            place = made.folder / path.relative_to(data.folder).with_suffix(".nii.gz")
            place.parent.mkdir(parents=True, exist_ok=True)
            with np.load(path) as arrays:
                nib.Nifti1Image(arrays["data"].astype(np.int16), np.eye(4)).to_filename(place)
        found = []
        for source in (data, made):
            with lab.mounted(source) as mount:
                found.append(digests(mount.shards()))
        if found[0] != found[1]:
            raise Failure(f"the shards of {name} differ from those of the NPZ files")
        return made

    made: Dataset = lab.once(name, make)
    warm(made.volumes())
    return made


def nifti(lab: Lab, readers: int) -> Samples:
    """nibabel against fresh mounts: of `.nii.gz` files, and of the NPZ files, float32, that hold the same."""
    npz = lab.dataset("C", "deflated")
    data = nifti_of(lab, npz, "nifti")

    def mount(source: Dataset) -> Sample:
        with lab.mounted(source) as mount:
            return lab.read("raw", split(mount.shards(), readers), mount)

    return lab.interleave(
        {
            "nibabel": lambda: lab.read("nibabel", split(data.volumes(), readers)),
            "mount": lambda: mount(data),
            "mount of NPZ": lambda: mount(npz),
        }
    )

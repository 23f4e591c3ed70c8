"""NIfTI files as sources: as scanners' files are, with noise, and read by nibabel and through mounts."""

from __future__ import annotations

import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import codec_table
import numpy as np
from make_dataset import Dataset, dataset_at

from bench import Failure
from bench.lab import Lab, Sample, Samples, digests, say, split, warm

SIGMA = 15.0  # HU


def write(source: Path, nifti: Path, npz: Path | None, noise: int | None) -> None:
    """The volume of an NPZ file as a `.nii.gz` of int16, with noise if it has a seed; and, if that is wanted, the NPZ
    file that people make of such a file: deflated float32 in Fortran order, as nibabel gives it."""
    import nibabel

    nib: Any = nibabel  # of which not everything has types
    volume = np.load(source)["data"]
    if noise is not None:
        volume = np.rint(volume + codec_table.correlated(np.random.default_rng(noise), volume.shape, SIGMA))
    nifti.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(volume.astype(np.int16), np.eye(4)).to_filename(nifti)
    if npz is not None:
        npz.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(npz, data=nib.load(nifti).get_fdata().astype(np.float32))


def nifti_of(lab: Lab, data: Dataset, name: str) -> Dataset:
    """The volumes of a data set as `.nii.gz` files, in the page cache."""

    def make() -> Dataset:
        say(f"making {name}")
        made = replace(data, folder=lab.folder / name)
        for path in data.volumes():
            write(path, made.folder / path.relative_to(data.folder).with_suffix(".nii.gz"), None, None)
        check_equal(lab, data, made)
        return made

    made: Dataset = lab.once(name, make)
    warm(made.volumes())
    return made


def noisy_pair(lab: Lab) -> tuple[Dataset, Dataset]:
    """The phantom with noise as `.nii.gz` files, and as the NPZ files of them; both in the page cache."""

    def make() -> tuple[Dataset, Dataset]:
        plain = lab.dataset("C", "stored")
        say(f"making NIfTI and NPZ files with noise of {SIGMA:g} HU")
        nifti, npz = (dataset_at(lab.folder / f"noise-{name}") for name in ("nifti", "npz"))
        for made in (nifti, npz):
            made.folder.mkdir(parents=True)
            for old, new in zip(
                (plain.reports, plain.meta, plain.labels), (made.reports, made.meta, made.labels), strict=True
            ):
                shutil.copy(old, new)
        sources = plain.volumes()
        names = [path.relative_to(plain.folder) for path in sources]
        with ProcessPoolExecutor(lab.settings.cores) as pool:
            targets = [nifti.folder / name.with_suffix(".nii.gz") for name in names]
            list(pool.map(write, sources, targets, [npz.folder / name for name in names], range(len(names))))
        check_equal(lab, nifti, npz)
        return nifti, npz

    pair: tuple[Dataset, Dataset] = lab.once("noisy NIfTI", make)
    for data in pair:
        warm(data.volumes())
    return pair


def check_equal(lab: Lab, one: Dataset, other: Dataset) -> None:
    """Fail unless both data sets give the same shards."""
    found = []
    for source in (one, other):
        with lab.mounted(source) as mount:
            found.append(digests(mount.shards()))
    if found[0] != found[1]:
        raise Failure(f"the shards of {one.folder} differ from those of {other.folder}")


def nifti(lab: Lab, readers: int) -> Samples:
    """nibabel against mounts: of `.nii.gz` files with noise, and of the NPZ files that hold the same. A fresh mount,
    and one that has read them once: its cache holds half of them, so that all are decoded again, into memory that it
    has."""
    data, npz = noisy_pair(lab)

    def mount(source: Dataset, again: bool = False) -> Sample:
        with lab.mounted(source) as mount:
            shares = split(mount.shards(), readers)
            if again:
                lab.read("raw", shares, mount)
            before = mount.decoded()
            sample = lab.read("raw", shares, mount)
            if mount.decoded() - before != lab.settings.volumes:
                raise Failure(f"{mount.decoded() - before} of {lab.settings.volumes} volumes were decoded")
            return sample

    return lab.interleave(
        {
            "nibabel": lambda: lab.read("nibabel", split(data.volumes(), readers)),
            "mount": lambda: mount(data),
            "mount, going on": lambda: mount(data, again=True),
            "mount of NPZ": lambda: mount(npz),
            "mount of NPZ, going on": lambda: mount(npz, again=True),
        }
    )

"""Reads `ctwds.open(...).dictionaries()` by MONAI, and prints by loader and study id what it got, as JSON.

    python monai_reader.py FOLDER

FOLDER has `images/` and `masks/` of NIfTI files. In a process of its own, as MONAI is in an environment of its own
(scripts/setup.sh --frameworks)."""

from __future__ import annotations

import json
import sys
from typing import Any

import ctwds
import numpy as np
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, PersistentDataset, ThreadDataLoader
from monai.transforms import (
    Compose,
    EnsureTyped,
    Lambda,
    Orientationd,
    RandCropByPosNegLabeld,
    ScaleIntensityRanged,
    SelectItemsd,
)


def placed(sample: dict[str, Any]) -> dict[str, Any]:
    """The image and the mask where the affine says, as MONAI's own LoadImaged gives them."""
    affine = sample["affine"]
    return sample | {name: MetaTensor(sample[name], affine=affine) for name in ("image", "mask")}


def main(folder: str) -> dict[str, Any]:
    """What each loader gives."""
    masks = f"mask={folder}/masks/*_mask.nii.gz"
    data = ctwds.open(f"{folder}/images", orientation="keep", also=masks, threads=1).dictionaries()
    transform = Compose(
        [
            Lambda(placed),
            Orientationd(keys=["image", "mask"], axcodes="RAS"),
            ScaleIntensityRanged(keys="image", a_min=-1000, a_max=1000, b_min=0, b_max=1, clip=True),
            SelectItemsd(keys=["image", "mask", "id"]),
        ]
    )
    crop = Compose(
        [
            EnsureTyped(keys=["image", "mask"]),
            RandCropByPosNegLabeld(keys=["image", "mask"], label_key="mask", spatial_size=(4, 4, 4), num_samples=2),
            SelectItemsd(keys=["image", "mask", "id"]),
        ]
    )
    whole: Any = Dataset(data, transform)
    loaders = {
        "threads": ThreadDataLoader(whole, batch_size=2, num_workers=2, use_thread_workers=True),
        "buffer": ThreadDataLoader(whole, batch_size=2, num_workers=0),
        "processes": DataLoader(whole, batch_size=2, num_workers=2),
        "cached": ThreadDataLoader(CacheDataset(data, transform, num_workers=2, progress=False), batch_size=1),
        "persistent": DataLoader(PersistentDataset(data, transform, cache_dir=None), batch_size=1),
    }
    found: dict[str, Any] = {}
    for name, loader in loaders.items():
        samples = {}
        for batch in loader:
            for image, mask, study in zip(batch["image"], batch["mask"], batch["id"], strict=True):
                values = np.asarray(image, np.float64)
                samples[study] = [list(image.shape), float(values.sum()), values[0, 0, 0, 0], float(mask.sum())]
        found[name] = samples
    crops = next(iter(DataLoader(Dataset(data, crop), batch_size=2)))
    found["crops"] = list(crops["image"].shape)
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))

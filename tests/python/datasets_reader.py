"""Reads folders with Hugging Face `datasets` and prints what it got, as JSON: by folder, then by the pass.

    python datasets_reader.py FOLDER...           the shards, named one by one, streaming
    python datasets_reader.py --folder FOLDER...  the folder alone: only keys and studies, streaming and not

In a process of its own, as the package is in an environment of its own (scripts/setup.sh --datasets)."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import sys
import tempfile
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": tempfile.mkdtemp()}

import numpy as np
from datasets import load_dataset
from torch.utils.data import DataLoader


def seen(sample: dict[str, Any]) -> dict[str, Any]:
    """What can be compared. `datasets` decodes .json and .txt, and leaves .bin and .labels as bytes."""
    voxels = np.frombuffer(sample["bin"], "<f2").reshape(sample["json"]["volume_shape"])
    return {
        "study": sample["json"]["study_id"],
        "voxels": hashlib.sha256(voxels.tobytes()).hexdigest(),
        "text": sample["txt"] if isinstance(sample["txt"], str) else sample["txt"].decode(),
        "labels": np.frombuffer(sample["labels"], "<f4").tolist(),
    }


def read(folder: str) -> dict[str, list[dict[str, Any]]]:
    """In order; shuffled in a buffer; and by a DataLoader of two workers."""
    files = sorted(glob.glob(f"{glob.escape(folder)}/*.tar"))
    data = load_dataset("webdataset", data_files={"train": files}, split="train", streaming=True)
    return {
        "in order": [seen(sample) for sample in data],
        "shuffled": [seen(sample) for sample in data.shuffle(seed=1, buffer_size=4)],
        "2 workers": [seen(sample) for sample in DataLoader(data, batch_size=None, num_workers=2, timeout=60)],
    }


def read_folder(folder: str) -> dict[str, dict[str, list[list[str]]]]:
    """Key and study of each sample of each split, as the folder's data card has it."""
    found = {}
    for streaming in (True, False):
        splits = load_dataset(folder, streaming=streaming)
        found["streaming" if streaming else "on disk"] = {
            split: [[sample["__key__"], sample["json"]["study_id"]] for sample in data]
            for split, data in splits.items()
        }
    return found


if __name__ == "__main__":
    if sys.argv[1] == "--folder":
        print(json.dumps({folder: read_folder(folder) for folder in sys.argv[2:]}))
    else:
        print(json.dumps({folder: read(folder) for folder in sys.argv[1:]}))

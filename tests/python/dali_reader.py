"""Reads folders with NVIDIA DALI's CPU reader and prints what it got, as JSON: the samples in their order, and for each
shard the index that DALI's own program makes of it.

    python dali_reader.py FOLDER...
"""

from __future__ import annotations

import glob
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import nvidia.dali.fn as fn
import nvidia.dali.types as types
from nvidia.dali import pipeline_def
from wds2idx import IndexCreator


@pipeline_def(batch_size=1, num_threads=2, device_id=None)
def samples(folder: str) -> Any:
    """Volume, labels and report of each sample."""
    shards = sorted(glob.glob(f"{folder}/*.tar"))
    volume, labels, text = fn.readers.webdataset(
        paths=shards,
        index_paths=[path[:-3] + "idx" for path in shards],
        ext=["bin", "labels", "txt"],
        dtypes=[types.FLOAT16, types.FLOAT, types.UINT8],
        name="reader",
    )
    return volume, labels, text


def read(folder: str) -> list[dict[str, Any]]:
    """Each sample once."""
    pipeline = samples(folder)
    pipeline.build()
    found = []
    for _ in range(pipeline.epoch_size("reader")):
        volume, labels, text = (np.array(output[0]) for output in pipeline.run())
        assert volume.dtype == np.float16
        voxels = hashlib.sha256(volume.tobytes()).hexdigest()
        found.append({"voxels": voxels, "labels": labels.tolist(), "text": text.tobytes().decode()})
    return found


def own_indexes(folder: str) -> dict[str, str]:
    """What wds2idx writes for the shards."""
    made = {}
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted(glob.glob(f"{folder}/*.tar")):
            index = Path(scratch) / "index"
            with IndexCreator(path, str(index), verbose=False) as creator:
                creator.create_index()
            made[Path(path).name] = index.read_text()
    return made


if __name__ == "__main__":
    print(json.dumps({folder: {"samples": read(folder), "indexes": own_indexes(folder)} for folder in sys.argv[1:]}))

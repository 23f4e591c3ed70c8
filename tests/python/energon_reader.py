"""Reads folders with Megatron-Energon and prints what it got, as JSON: by folder, then by the pass over it.

    python energon_reader.py FOLDER...

In a process of its own, as Energon changes how a process forks."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import itertools
import json
import sys
from typing import Any, ClassVar

import numpy as np


def import_energon() -> None:
    """Debian 12's PyTorch 1.13 has dataclasses with defaults that Python 3.11 refuses, as they have no hash; Energon
    imports those. They get one."""
    plain = dataclasses.dataclass

    def with_hash(cls: Any = None, **options: Any) -> Any:
        if cls is None:
            return lambda cls: with_hash(cls, **options)
        made = plain(cls, **options)
        made.__hash__ = made.__hash__ or object.__hash__
        return made

    dataclasses.dataclass = with_hash
    try:
        importlib.import_module("torch.distributed._shard.sharded_tensor")
    finally:
        dataclasses.dataclass = plain


import_energon()
from megatron.energon import (  # noqa: E402 - it imports only after what is done above
    Cooker,
    DefaultTaskEncoder,
    WorkerConfig,
    get_loader,
    get_train_dataset,
    get_val_dataset,
    stateless,
)


class CT(DefaultTaskEncoder):
    """Leaves samples as they are: {"bin": bytes, "json": dict, "txt": str, "labels": bytes}."""

    cookers: ClassVar = [Cooker(stateless(lambda sample: sample))]


def seen(sample: Any) -> dict[str, Any]:
    """What can be compared."""
    voxels = np.frombuffer(sample["bin"], "<f2").reshape(sample["json"]["volume_shape"])
    return {
        "key": sample["__key__"],
        "shard": sample["__shard__"],
        "voxels": hashlib.sha256(voxels.tobytes()).hexdigest(),
        "meta": sample["json"],
        "text": sample["txt"],
        "labels": np.frombuffer(sample.get("labels", b""), "<f4").tolist(),
    }


def read(folder: str) -> dict[str, list[dict[str, Any]]]:
    """In order, by 0 and by 2 workers; and one epoch of training, by 2 workers."""
    found = {}
    for workers in (0, 2):
        config = WorkerConfig.default_worker_config(num_workers=workers)
        data = get_val_dataset(folder, split_part="train", batch_size=None, task_encoder=CT(), worker_config=config)
        found[f"{workers} workers"] = [seen(sample) for sample in get_loader(data)]
    data = get_train_dataset(
        folder,
        batch_size=None,
        shuffle_buffer_size=None,
        max_samples_per_sequence=None,
        task_encoder=CT(),
        worker_config=config,
    )
    count = len(found["0 workers"])
    found["training"] = [seen(sample) for sample in itertools.islice(get_loader(data), count)]
    return found


if __name__ == "__main__":
    print(json.dumps({folder: read(folder) for folder in sys.argv[1:]}))

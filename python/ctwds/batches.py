"""Samples as batches, in memory that is shared with the training process."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from .basics import shown_bytes
from .errors import LoaderError

SHARED = "/dev/shm"
ROOM_REMEDY = (
    "make it larger (docker run --shm-size=16g), take fewer num_workers, a smaller prefetch_factor or num_workers=0; "
    "ctwds.Loader needs none of it"
)


def allocate(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A tensor; that of a worker lies in shared memory, where PyTorch would have to copy it otherwise."""
    if get_worker_info() is None:
        return torch.empty(*shape, dtype=dtype)
    size = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
    with contextlib.suppress(OSError):  # a system without it
        state = os.statvfs(SHARED)
        free = state.f_bavail * state.f_frsize  # what is written there all the same ends the process
        if state.f_blocks and size > free:  # a tmpfs without a limit says 0 of 0
            raise LoaderError(
                f"{SHARED}: a batch of {shown_bytes(size)} does not fit into the {shown_bytes(free)} that are free: "
                f"{ROOM_REMEDY}"
            )
    try:
        storage = torch.UntypedStorage._new_shared(size)
    except RuntimeError as error:
        raise LoaderError(f"{SHARED}: no room for a batch of {shown_bytes(size)} ({error}): {ROOM_REMEDY}") from error
    return torch.empty(0, dtype=dtype).set_(storage, 0, tuple(shape))


def share(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in memory that workers see as well."""
    try:
        return tensor.share_memory_()
    except RuntimeError as error:
        raise LoaderError(
            f"{SHARED}: this process cannot make a file there ({error}): let it be a tmpfs that every user may write "
            f"(mode 1777), or take ctwds.Loader, which needs none of it"
        ) from error


def stack(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors as a batch, without a copy where they were made in one; an empty tensor of empty ones."""
    first = tensors[0]
    if first.numel() == 0:
        return torch.empty(0)
    slab, size = first._base, first.numel()
    if (
        slab is not None
        and len(tensors) <= len(slab)
        and all(each._base is slab and each.storage_offset() == at * size for at, each in enumerate(tensors))
    ):
        return slab[: len(tensors)]
    if len(tensors) == 1:
        return first[None]
    return torch.stack(list(tensors), out=allocate((len(tensors), *first.shape), first.dtype))


def collate(samples: Sequence[Any]) -> Any:
    """Samples as a batch: volumes (B, 1, D, H, W), list of texts, labels (B, classes), list of study ids, embeddings;
    with a list of the metadata and the arrays (B, 1, D, H, W) beside the volumes by name, if samples have them. Volumes
    of other shapes than the first raise RuntimeError."""
    volumes, texts, labels, ids, embeddings, *more = zip(*samples, strict=True)
    batch = stack(volumes), list(texts), np.stack(labels), list(ids), stack(embeddings)
    return (*batch, *(beside(each) for each in more)) if more else batch


def beside(each: Sequence[Any]) -> Any:
    """Of each sample the metadata, or the arrays by their names, as a batch."""
    if not all(isinstance(array, torch.Tensor) for array in each[0].values()):
        return list(each)
    return {name: torch.stack([arrays[name] for arrays in each]) for name in each[0]}

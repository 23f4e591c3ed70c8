"""Which shards there are, and what their manifest says of them."""

from __future__ import annotations

import glob
import io
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .basics import BLOCK, AnyPath
from .errors import LoaderError, npy_errors
from .hounsfield import LOOK
from .members import OTHERS, REMEDIES, VOXELS, parse_header, values_of
from .samples import Recorded


@dataclass(frozen=True)
class Identity:
    """Of which data set the shards of a manifest are, by which seed they are shuffled, and of which epoch's view they
    are; None where it does not say."""

    digest: str | None = None
    seed: int | None = None
    epoch: int | None = None


@dataclass(frozen=True)
class Shard:
    """A shard, how many samples it has, what their values are, whether they have labels, and of which data set they
    are, if a manifest says so."""

    path: str
    samples: int | None
    recorded: Recorded | None = None
    has_labels: bool | None = None  # None: no manifest says it
    identity: Identity = Identity()


def expand_braces(pattern: str) -> list[str]:
    """`shard-{000000..000471}.tar` and `{train,val}/x` as the shell expands them; numbers as wide as written."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if numbers:
        width = len(numbers[1]) if numbers[1].startswith("0") or len(numbers[1]) == len(numbers[2]) else 1
        values = [f"{value:0{width}d}" for value in range(int(numbers[1]), int(numbers[2]) + 1)]
    else:
        values = found[1].split(",")
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [path for value in values for path in expand_braces(before + value + after)]


def shard_paths(pattern: AnyPath | Iterable[AnyPath]) -> list[str]:
    """The shards that a folder, a file, a glob, a brace pattern, or a list of those name."""
    if not isinstance(pattern, (str, os.PathLike)):
        return [path for each in pattern for path in shard_paths(each)]
    paths: list[str] = []
    for name in expand_braces(os.fspath(pattern)):
        if os.path.isdir(name):
            paths += sorted(glob.glob(os.path.join(glob.escape(name), "*.tar")))
        elif glob.has_magic(name):
            paths += sorted(glob.glob(name))
        else:
            paths.append(name)
    absent = [path for path in paths if not os.path.exists(path)]
    if absent:
        raise LoaderError(
            f"{absent[0]} is not there ({len(absent)} of {len(paths)} shards are missing): is it mounted?"
        )
    if not paths:
        raise LoaderError(f"{os.fspath(pattern)}: no shard (*.tar) is there: is it mounted?")
    return paths


def read_manifest(folder: str) -> tuple[dict[str, int], Recorded | None, bool | None, Identity]:
    """How many samples the shards of a folder have, by name, what their values are, whether they have labels, and of
    which data set they are, as `manifest.json` says; nothing where there is no such file."""
    path = os.path.join(folder, "manifest.json")
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        if "shards" in manifest:
            has_labels = any(member.startswith("labels") for member in manifest.get("members") or ["labels"])
            counts_of = {shard["name"]: shard["sample_count"] for shard in manifest["shards"]}
            shuffle = manifest.get("shuffle") or {}
            identity = Identity(manifest.get("plan_digest"), shuffle.get("seed"), shuffle.get("epoch"))
            return counts_of, Recorded.of(manifest), has_labels, identity
        number_of, each = manifest["num_shards"], manifest["samples_per_shard"]  # the original converter's: no gaps
        counts = [each] * (number_of - 1) + [manifest["total_samples"] - each * (number_of - 1)]
        return {f"shard-{at:06d}.tar": count for at, count in enumerate(counts)}, None, True, Identity()
    except FileNotFoundError:
        return {}, None, None, Identity()
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "the loader must be able to read it")
        raise LoaderError(f"{path}: {error.strerror}: {remedy}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoaderError(f"{path}: not a manifest of shards ({error!r}): write it again") from error


def with_manifests(paths: Iterable[str]) -> list[Shard]:
    """The shards of some paths."""
    parts = [os.path.split(path) for path in paths]
    manifests = {folder: read_manifest(folder) for folder in {folder for folder, _ in parts}}
    shards = []
    for folder, name in parts:
        counts, *known = manifests[folder]
        shards.append(Shard(os.path.join(folder, name), counts.get(name), *(known if name in counts else ())))
    return shards


def peek(path: str) -> tuple[dict[str, Any], NDArray[Any]]:
    """JSON and first values of the first sample of a shard; no values where they cannot be seen without reading more
    of them."""
    found: dict[str, bytes] = {}
    key, offset = None, 0
    with open(path, "rb", buffering=0) as file:
        while (header := parse_header(file.read(BLOCK))) is not None:
            name, size = header
            if key not in (None, name.partition(".")[0]):
                break
            key, _, suffix = name.partition(".")
            if suffix in VOXELS or suffix in OTHERS:
                found[suffix] = file.read(min(size, LOOK + BLOCK))
            offset += BLOCK + -(-size // BLOCK) * BLOCK
            file.seek(offset)
    meta = json.loads(next(found[suffix] for suffix in ("json", "meta.json") if suffix in found))
    begin = io.BytesIO(found.get("bin") or found.get("volume.npy") or b"")
    if "volume.npy" in found:
        np.lib.format.read_magic(begin)
        with npy_errors():
            np.lib.format.read_array_header_1_0(begin)
    dtype = np.dtype(meta["volume_dtype"]).newbyteorder("<")
    return meta, values_of(np.frombuffer(begin.read(LOOK // 4 * dtype.itemsize), dtype), meta)

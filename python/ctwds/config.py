"""Data sets and loaders from the section `data` of a YAML configuration."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from .errors import LoaderError, choice
from .npz_dataset import CTReportDataset
from .shard_dataset import CTReportWebDataset
from .tables import Tables
from .torch_loader import CTReportLoader

NPZ_KEYS = {
    "train": ("train_dir", "reports_train", "train_meta", "labels_train"),
    "val": ("valid_dir", "reports_valid", "valid_meta", "labels_valid"),
}
LOADER_KEYS = {"batch_size": 1, "num_workers": 4, "prefetch_factor": 2, "persistent_workers": True}
COMMON_KEYS = (
    "use_embedding",
    "with_meta",
    "dtype",
    "shape",
    "spacing",
    "rescale",
    "dialect",
    "axes",
    "seed",
    "uneven",
)  # as the arguments
SHARD_KEYS = ("resampled", "epoch_length", "on_error")
ARRAY_KEYS = ("array", "channel", "source", "pattern", "spacing_array", "spacing_from")  # of NPZ, NPY and NIfTI files
KNOWN_KEYS = (
    "dataset_format",
    "webdataset_shards_train",
    "webdataset_shards_val",
    "shuffle_buffer_size",
    *NPZ_KEYS["train"],
    *NPZ_KEYS["val"],
    *LOADER_KEYS,
    *COMMON_KEYS,
    *SHARD_KEYS,
    *ARRAY_KEYS,
)
FORMATS = ("webdataset", "npz", "mixed")  # mixed: trains from shards, validates from NPZ
Config = str | os.PathLike[str] | Mapping[str, Any]


def data_section(cfg: Config) -> Mapping[str, Any]:
    """The section `data` of a configuration, given as a mapping or as the path of a YAML file."""
    if isinstance(cfg, (str, os.PathLike)):
        import yaml

        cfg = yaml.safe_load(Path(cfg).read_text(encoding="utf-8"))
    if not isinstance(cfg, Mapping) or not isinstance(cfg.get("data"), Mapping):
        raise LoaderError("the configuration has no section 'data'")
    return check_keys(cfg["data"])


def check_keys(data_cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse a misspelt key, which would be a default that nobody chose. Other keys are the training's own."""
    for key in data_cfg:
        meant = difflib.get_close_matches(str(key), KNOWN_KEYS, n=1, cutoff=0.88)  # `num_workers_val` is its own: 0.85
        if meant and key not in KNOWN_KEYS:
            raise LoaderError(f"data.{key} is not known: is {meant[0]} meant? All keys: {', '.join(KNOWN_KEYS)}")
    return data_cfg


def required(data_cfg: Mapping[str, Any], key: str) -> Any:
    """The value of a key that must be there."""
    if data_cfg.get(key) is None:
        raise LoaderError(
            f"data.{key} is missing; dataset_format: {data_cfg.get('dataset_format', 'webdataset')} needs it"
        )
    return data_cfg[key]


def configured_table(data_cfg: Mapping[str, Any], key: str) -> Tables:
    """The files of a table: a path, a list of paths, or none."""
    value = data_cfg.get(key)
    files = [value] if isinstance(value, (str, os.PathLike)) else value
    if value is None or (isinstance(files, list) and all(isinstance(p, (str, os.PathLike)) and p != "" for p in files)):
        return value
    raise LoaderError(f"data.{key} is {value!r}; it must be a path, or a list of paths")


def arguments(data_cfg: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Keyword arguments from the keys that are there."""
    found = {key: data_cfg[key] for key in keys if data_cfg.get(key) is not None}
    if "dtype" in found:
        found["dtype"] = getattr(torch, choice("data.dtype", found["dtype"], ("float32", "float16")))
    return found


def create_webdataset_from_config(data_cfg: Mapping[str, Any], mode: str = "train") -> CTReportWebDataset:
    """The shards that `webdataset_shards_train` or `webdataset_shards_val` names; from the section `data` itself.
    LoaderError names a key that is missing or not known."""
    shards = required(check_keys(data_cfg), f"webdataset_shards_{choice('mode', mode, ('train', 'val'))}")
    more = arguments(data_cfg, (*COMMON_KEYS, *SHARD_KEYS))
    if mode == "val":
        more = {key: value for key, value in more.items() if key not in ("resampled", "epoch_length")}  # of training
    return CTReportWebDataset(shards, mode == "train", data_cfg.get("shuffle_buffer_size"), mode=mode, **more)


def create_dataset_from_config(cfg: Config, mode: str = "train") -> CTReportWebDataset | CTReportDataset:
    """The data set of `data.dataset_format`: webdataset (the default), npz, or mixed (trains from shards, validates
    from NPZ). `cfg` is a mapping or the path of a YAML file, with a section `data`; `mode` is "train" or "val".
    LoaderError names a key that is missing or not known."""
    data_cfg = data_section(cfg)
    kind = choice("data.dataset_format", data_cfg.get("dataset_format", "webdataset"), FORMATS)
    if kind == "webdataset" or (kind == "mixed" and mode == "train"):
        return create_webdataset_from_config(data_cfg, mode)
    folder, *tables = NPZ_KEYS[choice("mode", mode, ("train", "val"))]
    reports, meta, labels = (configured_table(data_cfg, key) for key in tables)
    more = arguments(data_cfg, (*COMMON_KEYS, *ARRAY_KEYS))
    return CTReportDataset(required(data_cfg, folder), reports, meta, labels, mode, **more)


def create_loader_from_config(cfg: Config, mode: str = "train") -> CTReportLoader:
    """The loader of the data set that `create_dataset_from_config` makes, with `batch_size`, `num_workers`,
    `prefetch_factor` and `persistent_workers` of the section `data`. LoaderError as there."""
    data_cfg = data_section(cfg)
    values = LOADER_KEYS | {key: data_cfg[key] for key in LOADER_KEYS if data_cfg.get(key) is not None}
    return create_dataset_from_config(cfg, mode).make_loader(**values)

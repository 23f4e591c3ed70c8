"""CT volumes and reports for PyTorch: the program ctwds-fs in a Python process, and data sets of shards and of files.

NumPy is all that the package needs. What makes tensors needs PyTorch, and is imported when it is first used.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ._native import __version__
from .dictionaries import Dictionaries
from .errors import (
    ChangedError,
    DamagedError,
    Error,
    LengthUnknown,
    LoaderError,
    PackageMissing,
    ReadError,
    RefusedError,
    UnknownStudyError,
    UsageError,
)
from .file import load
from .opening import open
from .volumes import Info, Sample, Volumes

if TYPE_CHECKING:
    from .batches import collate
    from .config import create_dataset_from_config, create_loader_from_config, create_webdataset_from_config
    from .data_module import DataModule
    from .epoch_sampler import EpochSampler
    from .loader import Batch, Loader
    from .npz_dataset import CTReportDataset
    from .shard_dataset import CTReportWebDataset
    from .torch_loader import CTReportLoader

__all__ = [
    "ChangedError",
    "DamagedError",
    "Dictionaries",
    "Error",
    "Info",
    "LengthUnknown",
    "LoaderError",
    "PackageMissing",
    "ReadError",
    "RefusedError",
    "Sample",
    "UnknownStudyError",
    "UsageError",
    "Volumes",
    "__version__",
    "load",
    "open",
]

# `from ctwds import *` takes what is there; any other name says what to install.
if find_spec("torch"):
    __all__ += [
        "Batch",
        "CTReportDataset",
        "CTReportLoader",
        "CTReportWebDataset",
        "EpochSampler",
        "Loader",
        "collate",
        "create_dataset_from_config",
        "create_loader_from_config",
        "create_webdataset_from_config",
    ]

if find_spec("lightning") or find_spec("pytorch_lightning"):
    __all__ += ["DataModule"]

# Modules that need other packages, and the names that are taken of them when they are first used.
_WITH_MORE = {
    "batches": ("collate",),
    "config": ("create_dataset_from_config", "create_loader_from_config", "create_webdataset_from_config"),
    "data_module": ("DataModule",),
    "epoch_sampler": ("EpochSampler",),
    "loader": ("Batch", "Loader"),
    "npz_dataset": ("CTReportDataset",),
    "shard_dataset": ("CTReportWebDataset",),
    "torch_loader": ("CTReportLoader",),
}

_MISSING = {
    "torch": "makes tensors, and PyTorch is not installed: pip install torch",
    "lightning": "is for Lightning, which is not installed: pip install lightning",
    "pytorch_lightning": "is for Lightning, which is not installed: pip install lightning",
}

if not TYPE_CHECKING:  # a type checker knows the names from above, and would take any other for one of these

    def __getattr__(name: str) -> Any:
        module = next((module for module, names in _WITH_MORE.items() if name in names), None)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            found = getattr(importlib.import_module(f".{module}", __name__), name)
        except ModuleNotFoundError as error:
            missing = _MISSING.get((error.name or "").partition(".")[0])
            if missing is None:
                raise
            raise PackageMissing(f"ctwds.{name} {missing}") from error
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

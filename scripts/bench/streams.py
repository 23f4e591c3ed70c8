"""`ctwds.Loader` on compressed shards, against MosaicML's StreamingDataset and litdata in their own formats, which are
not compressed and in the page cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench import Absent, crew
from bench.lab import Lab, Sample, Samples, warm

PYTHON = Path(__file__).resolve().parents[2] / ".venv-streams" / "bin" / "python"
IN_ENVIRONMENT: dict[str, Any] = {"python": str(PYTHON), "module": "bench.stream_worker"}
FORMATS = ("mosaic", "litdata")


def streams(lab: Lab) -> Samples:
    """Two threads, and two workers; all of them with the same PyTorch."""
    if not PYTHON.exists():
        raise Absent("StreamingDataset and litdata are 1.7 GB: scripts/setup.sh --streams installs them")
    packed = lab.packed()

    def made(name: str) -> Path:
        out = lab.folder / f"stream-{name}"
        crew.work(f"write_{name}", [[str(packed.folder), str(out)]], **IN_ENVIRONMENT)
        return out

    folders = {name: lab.once(f"stream-{name}", partial(made, name)) for name in FORMATS}
    for folder in folders.values():
        warm([path for path in folder.rglob("*") if path.is_file()])
    readers: dict[str, Callable[[], Sample]] = {
        name: partial(lab.read, f"read_{name}", [[str(folder)]], workers=2, **IN_ENVIRONMENT)
        for name, folder in folders.items()
    }
    flags = [[str(flag) for flag in packed.flags()]]
    return lab.interleave(readers | {"Loader": partial(lab.read, "in_process", flags, threads=2, **IN_ENVIRONMENT)})

"""What a result belongs to: machine, versions, commit, date."""

from __future__ import annotations

import datetime
import importlib
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from bench.mounting import run

REPOSITORY = Path(__file__).resolve().parents[2]


def field_of(path: str, name: str) -> str:
    """The value of a line `name : value` of a file below /proc."""
    found = re.search(rf"^{name}\s*:\s*(.+)$", Path(path).read_text(), re.MULTILINE)
    return found[1].strip() if found else "unknown"


def commit() -> str:
    """The commit that was built, and whether something was changed since."""
    git = ["git", "-C", str(REPOSITORY)]
    try:
        name = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=20)
        state = subprocess.run(
            [*git, "status", "--porcelain", "src", "Cargo.toml", "Cargo.lock"],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return name.stdout.strip()[:12] + (" and changes" if state.stdout.strip() else "")


def file_system(folder: Path) -> str:
    """The type of the file system that the data set lies on."""
    best = ("", "unknown")
    with open("/proc/self/mounts", encoding="utf-8") as table:
        for line in table:
            point, kind = line.split()[1:3]
            if folder.is_relative_to(point) and len(point) >= len(best[0]):
                best = (point, kind)
    return best[1]


def describe(program: Path, folder: Path) -> dict[str, Any]:
    """Everything that one needs to compare two results."""
    versions = {name: importlib.import_module(name).__version__ for name in ("numpy", "torch", "webdataset")}
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "program": run(program, "--version").strip(),
        "cpu": field_of("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int(field_of("/proc/meminfo", "MemTotal").split()[0]) * 1024,
        "kernel": platform.release(),
        "file_system": file_system(folder),
        "load_before": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), **versions},
    }

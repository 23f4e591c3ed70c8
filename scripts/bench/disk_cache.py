"""Volumes that a mount keeps on a local disk: what the first epoch costs, and what the second gains."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import Failure
from bench.lab import Lab, Sample, Samples, remove, split
from bench.mounting import Mount, run
from bench.row import Row

KEPT_WITHIN = 60  # seconds that the disk may take for what is still to be written
FIRST = {1: 0.9, 2: 0.75}  # by readers: what the first epoch may lose
SECOND = 3.0
PACKED = 1.8  # the second epoch, from compressed volumes, for two readers
COMPRESS = "--disk-cache-compress"


def wait_until_kept(mount: Mount, volumes: int) -> None:
    """Fail unless every volume is kept: a first epoch that skipped some would be compared with nothing."""
    deadline = time.monotonic() + KEPT_WITHIN
    while True:
        found = json.loads((mount.point / ".ctwds" / "stats.json").read_text())["disk_cache"]
        if found["kept"] == volumes:
            return
        if found["skipped"] or found["errors"] or time.monotonic() > deadline:
            raise Failure(f"{found['kept']} of {volumes} volumes were kept: {found}")
        time.sleep(0.01)


def disk_cache(lab: Lab, readers: int) -> Samples:
    """Fresh mounts of deflated NPZ files: without a disk cache; with an empty one, in which everything is kept; with
    that one, filled. Its files are in the page cache then, as the sources are: what is compared is software."""
    data, folder = lab.dataset("C", "deflated"), lab.folder / "disk-cache"

    def read(*flags: object, decoded: int, kept: Path | None = None) -> Sample:
        with lab.mounted(data, flags=flags) as mount:
            sample = lab.read("raw", split(mount.shards(), readers), mount)
            if mount.decoded() != decoded:
                raise Failure(f"{mount.decoded()} volumes were decoded, not {decoded}")
            if kept:
                wait_until_kept(mount, decoded)
            return sample

    def first() -> Sample:
        remove(folder)
        return read("--disk-cache", folder, decoded=lab.settings.volumes, kept=folder)

    try:
        return lab.interleave(
            {
                "without": lambda: read(decoded=lab.settings.volumes),
                "first": first,
                "second": lambda: read("--disk-cache", folder, decoded=0),
            }
        )
    finally:
        run(lab.program, "cache", "clear", folder)


def packed(lab: Lab) -> Samples:
    """Two readers: without a disk cache, and from one that has all volumes compressed. The thread that packs them may
    be slower than readers who wait for nothing else, and then leaves volumes to the next epoch."""
    data, folder = lab.dataset("C", "deflated"), lab.folder / "disk-cache"

    def read(*flags: object) -> Sample:
        with lab.mounted(data, flags=flags) as mount:
            return lab.read("raw", split(mount.shards(), 2), mount) | {"decoded": mount.decoded()}

    kept = ("--disk-cache", folder, COMPRESS)
    try:
        for _ in range(lab.settings.volumes):
            if not read(*kept)["decoded"]:
                break
        else:
            raise Failure("an epoch after the other, and some volumes are not kept")
        return lab.interleave({"without": read, "second": lambda: read(*kept)})
    finally:
        run(lab.program, "cache", "clear", folder)


EXPERIMENTS: dict[str, Callable[[Lab], Samples]] = {
    **{f"disk cache {readers}": partial(disk_cache, readers=readers) for readers in FIRST},
    "disk cache, packed": packed,
}


def disk_cache_rows() -> list[Row]:
    """Both epochs against one without the cache."""
    rows, against = [], "the first epoch without the cache"
    for readers, target in FIRST.items():
        who = f"{readers} reader{'s' * (readers > 1)}"
        name = f"disk cache {readers}"
        path = f"first epoch, everything kept on the disk, deflated, {who}"
        rows.append(Row(f"disk-cache/first-{readers}", path, against, name, "first", "without", target))
        path, target_again = f"second epoch, from the disk cache, {who}", SECOND if readers > 1 else None
        rows.append(Row(f"disk-cache/second-{readers}", path, against, name, "second", "without", target_again))
    path = "second epoch, from the compressed disk cache, 2 readers"
    rows.append(Row("disk-cache/packed", path, against, "disk cache, packed", "second", "without", PACKED))
    return rows

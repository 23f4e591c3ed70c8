#!/usr/bin/env python3
"""The demonstration itself; scripts/demo.sh prepares the machine, calls it with an empty folder and cleans up.

Writes a small data set, mounts it, reads every sample with webdataset, materialises it, compares the two trees,
unmounts, and shows that the sources are as they were. Exits with 1 if any check fails."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import webdataset
from make_dataset import Dataset, Options, make_dataset, shown_bytes


class Report:
    """The lines of the summary, printed at the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.failed = False

    def check(self, passed: bool, what: str, detail: str) -> None:
        """Add the outcome of one check."""
        self.failed |= not passed
        self.lines.append(f"  {'PASS' if passed else 'FAIL'}  {what:<34} {detail}")

    def show(self, title: str) -> None:
        """Print everything."""
        print("\n" + "\n".join([title, "", *self.lines, ""]))
        print("demo: FAILED" if self.failed else "demo: everything passed")


def run(program: Path, *arguments: object) -> float:
    """Run one command of the program, shown as a user would type it; return the seconds it took."""
    words = list(map(str, arguments))
    print(f"$ {program.name} {shlex.join(words)}", flush=True)
    begin = time.perf_counter()
    subprocess.run([str(program), *words], check=True, timeout=300, stdin=subprocess.DEVNULL)
    return time.perf_counter() - begin


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state(dataset: Dataset) -> dict[Path, tuple[str, int, int]]:
    """What would tell that a source file was touched: content, modification time, mode."""
    return {path: (digest(path), path.stat().st_mtime_ns, path.stat().st_mode) for path in dataset.volumes()}


def shards(folder: Path) -> list[Path]:
    """The shards of a folder."""
    return sorted(folder.glob("*.tar"))


def size_of(paths: list[Path]) -> int:
    """Their bytes."""
    return sum(path.stat().st_size for path in paths)


def read_samples(report: Report, dataset: Dataset, mount: Path) -> list[Path]:
    """Read everything through the mount with webdataset, then compare each volume with NumPy's own conversion.
    Returns the sources of the samples that came."""
    pipeline = webdataset.WebDataset([str(path) for path in shards(mount)], shardshuffle=False)
    begin = time.perf_counter()
    samples = list(pipeline)
    seconds = time.perf_counter() - begin
    volumes = {path.stem: path for path in dataset.volumes()}
    read, wrong = [], []
    for sample in samples:
        meta = json.loads(sample["json"])
        read.append(volumes[meta["study_id"]])
        source = np.load(read[-1])["data"]
        same = np.array_equal(np.frombuffer(sample["bin"], "<f2").reshape(meta["volume_shape"]), source.astype("f2"))
        if not same or len(sample["labels"]) != 18 * 4 or b"\n" not in sample["txt"]:
            wrong.append(meta["study_id"])
    payload = sum(len(value) for sample in samples for value in sample.values() if isinstance(value, bytes))
    told = json.loads((mount / "manifest.json").read_text())["total_samples"]
    detail = f"{len(samples)} samples, {shown_bytes(payload)} in {seconds:.2f} s ({shown_bytes(payload / seconds)}/s)"
    report.check(len(samples) == told > 0, "webdataset reads every sample", detail)
    report.check(not wrong, "volumes equal NumPy's float16", "bit for bit" if not wrong else f"not: {wrong}")
    return read


def compare_trees(report: Report, mount: Path, files: Path) -> None:
    """Every shard of the mount against the file that `materialize` wrote."""
    names = [path.name for path in shards(files)]
    equal = names == [path.name for path in shards(mount)] and all(
        digest(mount / name) == digest(files / name) for name in names
    )
    report.check(equal, "mount and files are identical", f"{len(names)} shards, by SHA-256")


def demonstrate(program: Path, options: Options) -> Report:
    """The whole line, in the current folder, so that the commands it shows are short."""
    report = Report()
    dataset = make_dataset(options)
    sources = dataset.volumes()
    print(
        f"wrote {len(sources)} volumes, {shown_bytes(size_of(sources))} of NPZ: both array orders, stored and deflated"
    )
    before = state(dataset)
    mount, files = Path("mount"), Path("files")
    mount.mkdir()
    flags = [*dataset.flags(), "--samples-per-shard", "4"]

    run(program, "plan", *flags)
    seconds = run(program, "mount", *flags, "--log-file", "log", mount)
    ready = len(shards(mount)) > 1
    total = size_of(shards(mount))
    report.check(ready, "mount is ready", f"{seconds:.2f} s: {len(shards(mount))} shards, {shown_bytes(total)}")
    read = read_samples(report, dataset, mount)

    seconds = run(program, "materialize", *flags, "--output_dir", files)
    written = size_of(shards(files))
    report.check(
        written == total, "materialize", f"{seconds:.2f} s: {shown_bytes(written)} ({shown_bytes(written / seconds)}/s)"
    )
    compare_trees(report, mount, files)

    seconds = run(program, "unmount", mount)
    report.check(not os.path.ismount(mount) and not any(mount.iterdir()), "unmounted", f"{seconds:.2f} s")
    report.check(state(dataset) == before, "the NPZ files are unchanged", f"{len(sources)} files: content, time, mode")
    raw, packed = sum(np.load(path)["data"].nbytes for path in read), size_of(read)
    report.lines.append(
        f"\n  {len(read)} samples: {shown_bytes(raw)} as float32, {shown_bytes(packed)} as NPZ,"
        f" {shown_bytes(total)} as shards"
        f"\n  ({total / raw:.2f} of the float32, {total / packed:.2f} of the NPZ);"
        f" {len(sources) - len(read)} left out: one is in no table, one lacks ZSpacing"
    )
    return report


def main() -> None:
    """Read the command line, demonstrate, show the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, help="the ctwds-fs binary")
    parser.add_argument("work", type=Path, help="an empty folder, which the caller removes")
    parser.add_argument("--volumes", type=int, default=14)
    parser.add_argument("--size", type=int, nargs=3, default=(192, 192, 72), metavar=("H", "W", "D"))
    given = parser.parse_args()
    program = given.program.absolute()
    os.chdir(given.work)
    options = Options(Path("dataset"), volumes=given.volumes, size=tuple(given.size), missing_zspacing=1)
    try:
        report = demonstrate(program, options)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        sys.exit(f"demo: FAILED: {error}")
    report.show("ctwds-fs: NPZ volumes as WebDataset shards, mounted and on disk")
    sys.exit(report.failed)


if __name__ == "__main__":
    main()

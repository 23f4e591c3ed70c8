"""What the experiments share: the data sets, made when they are first asked for, and the ways to read them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from make_dataset import Dataset, Options, make_dataset

from bench import Failure, crew
from bench.mounting import Mount, mounted, run

BATCH = 7  # samples of an accelerator's step
SHARDS = 4  # as many as the most readers of a row
REFERENCE = Path(__file__).resolve().parents[2] / "tests" / "python" / "reference.py"

Sample = dict[str, Any]
Samples = dict[str, list[Sample]]  # by variant, in the order of the runs


@dataclass(frozen=True)
class Settings:
    """How much is measured; all of it is written beside the samples."""

    runs: int = 5
    patience: float = 10.0  # seconds; what is over sooner is run up to three times as often
    volumes: int = 16
    size: tuple[int, int, int] = (512, 512, 64)
    whole: int = 2  # volumes of a scan's whole length, for what is resampled
    whole_size: tuple[int, int, int] = (512, 512, 260)
    sample_size: tuple[int, int, int] = (512, 512, 139)  # of an accelerator's samples: 145.8 MB of float32
    studies: int = 40_000
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    def voxel_bytes(self) -> int:
        """The float16 voxels of one volume."""
        height, width, depth = self.size
        return height * width * depth * 2

    def cache_bytes(self) -> int:
        """The cache of cold runs holds half of the data set: a real one never fits."""
        return self.voxel_bytes() * (self.volumes // 2)

    def disk_bytes(self) -> int:
        """What the data sets take at most: float32 twice, deflated twice to at most half, float16 six times,
        compressed three times, int16 in gzip once; the whole ones in float32, deflated and in gzip; the samples of a
        step in float32 and float16."""
        height, width, depth = self.whole_size
        whole = height * width * depth * self.whole * 8
        step = math.prod(self.sample_size) * BATCH * 6
        return int(self.voxel_bytes() * self.volumes * (4 + 2 + 6 + 3 + 1)) + whole + step + self.studies * 24_000


def say(text: str) -> None:
    """Tell how far the run is."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def split(paths: list[Path], count: int) -> list[list[str]]:
    """The paths dealt to `count` readers."""
    return [[str(path) for path in paths[start::count]] for start in range(count)]


def warm(paths: list[Path]) -> None:
    """Read files once, so that they are in the page cache."""
    buffer = bytearray(1 << 22)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def digests(paths: list[Path]) -> list[str]:
    """SHA-256 of files."""
    found = []
    for path in paths:
        with path.open("rb") as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return found


def remove(folder: Path) -> None:
    """Remove an output, and let the disk come to rest."""
    shutil.rmtree(folder, ignore_errors=True)
    os.sync()


@dataclass(frozen=True)
class Stored:
    """A folder of finished shards, where the program takes a data set."""

    folder: Path

    def flags(self) -> list[object]:
        """The arguments that name it."""
        return ["--shards", self.folder]

    def shards(self) -> list[Path]:
        """The shard files."""
        return sorted(self.folder.glob("*.tar"))


@dataclass
class Lab:
    """The program, a folder to work in, and the data sets made so far."""

    program: Path
    folder: Path
    settings: Settings
    made: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Make something on first use."""
        if name not in self.made:
            self.made[name] = make()
            os.sync()  # its dirty pages are not to be written while something is measured
        return self.made[name]

    def shard_flags(self, shards: int = SHARDS) -> list[object]:
        """The option that makes this many shards."""
        return ["--samples-per-shard", max(1, self.settings.volumes // shards)]

    def dataset(self, order: str, compression: str) -> Dataset:
        """A data set of the phantom, in the page cache; checked once to give the shards that every other one gives."""

        def make() -> Dataset:
            settings = self.settings
            say(f"making {settings.volumes} volumes of {settings.size}, order {order}, {compression}")
            options = Options(
                self.folder / f"{order}-{compression}",
                volumes=settings.volumes,
                size=settings.size,
                fixed_size=True,
                order=order,
                compression=compression,
                strays=False,
                workers=settings.cores,
            )
            data = make_dataset(options)
            with self.mounted(data) as mount:
                found = digests(mount.shards())
            if found != self.once("digests", lambda: found):
                raise Failure(f"the shards of {options.out.name} differ from those of the other data sets")
            return data

        data = self.once(f"{order}-{compression}", make)
        warm(data.volumes())
        return data

    def whole(self, compression: str) -> Dataset:
        """Scans of their whole length, in the page cache."""

        def make() -> Dataset:
            settings = self.settings
            say(f"making {settings.whole} volumes of {settings.whole_size}, {compression}")
            options = Options(
                self.folder / f"whole-{compression}",
                volumes=settings.whole,
                size=settings.whole_size,
                fixed_size=True,
                order="C",
                compression=compression,
                strays=False,
                workers=settings.cores,
            )
            return make_dataset(options)

        data = self.once(f"whole-{compression}", make)
        warm(data.volumes())
        return data

    def files(self) -> list[Path]:
        """The shards as files that the program wrote, in the page cache."""

        def make() -> list[Path]:
            data, out = self.dataset("C", "deflated"), self.folder / "files"
            run(self.program, "materialize", *data.flags(), *self.shard_flags(), "--output-dir", out)
            shards = sorted(out.glob("*.tar"))
            if digests(shards) != self.made["digests"]:
                raise Failure("the materialised shards differ from the mounted ones")
            return shards

        shards = self.once("files", make)
        warm(shards)
        return shards

    def packed(self, shards: int = SHARDS) -> Stored:
        """So many shards with compressed volumes, in the page cache."""
        data, out = self.dataset("C", "deflated"), self.folder / f"packed-{shards}"
        stored = self.once(out.name, lambda: self.pack(data, out, shards))
        warm(stored.shards())
        return stored

    def pack(self, data: Dataset, out: Path, shards: int) -> Stored:
        """Write a data set as so many compressed shards, and see that they are mounted as its plain ones."""
        run(
            self.program,
            "materialize",
            *data.flags(),
            *self.shard_flags(shards),
            "--output-dir",
            out,
            "--compress",
            "zstd",
        )
        found = []
        for source in (data, Stored(out)):
            with self.mounted(source, shards=shards) as mount:
                found.append(digests(mount.shards()))
        if found[0] != found[1]:
            raise Failure("the compressed shards are mounted as other ones than those of the data set")
        return Stored(out)

    def studies(self, suffix: str = ".npz") -> Dataset:
        """Many tiny volumes with tables of the same length."""

        def make() -> Dataset:
            from bench.studies import make_studies

            say(f"making {self.settings.studies} tiny volumes, {suffix}")
            return make_studies(self.folder / f"studies{suffix}", self.settings.studies, suffix)

        return self.once(f"studies{suffix}", make)

    @contextlib.contextmanager
    def mounted(
        self,
        data: Dataset | Stored,
        *,
        page_cache: bool = False,
        cache: int | None = None,
        shards: int = SHARDS,
        threads: int | None = None,
        flags: Sequence[object] = (),
    ) -> Iterator[Mount]:
        """A fresh mount."""
        layout = self.shard_flags(shards) if isinstance(data, Dataset) else []
        options = [
            *data.flags(),
            *layout,
            "--cache-size",
            cache or self.settings.cache_bytes(),
            "--threads",
            threads or self.settings.cores,
            "--page-cache",
            "on" if page_cache else "off",
            *flags,
        ]
        with mounted(self.program, self.folder, *options) as mount:
            yield mount

    def read(
        self,
        kind: str,
        shares: list[list[str]],
        mount: Mount | None = None,
        *,
        expected: int | None = None,
        **options: Any,
    ) -> Sample:
        """One measurement: readers begin together; wall time to the last one's end, CPU time of them and the daemon.
        What they read must be all there is: the bytes that are expected, by default the volumes'."""
        daemon = mount.cpu_seconds() if mount else 0.0
        answers = crew.work(kind, shares, **options)
        daemon = mount.cpu_seconds() - daemon if mount else 0.0
        readers = sum(answer["cpu"] for answer in answers)
        read = sum(answer["bytes"] for answer in answers)
        if kind in ("raw", "python"):
            expected = sum(os.stat(path).st_size for share in shares for path in share)
        elif expected is None:
            expected = self.settings.voxel_bytes() * self.settings.volumes
        if read != expected * options.get("passes", 1):
            raise Failure(f"a {kind} reader read {read} bytes, not {expected}")
        return {
            "wall": max(answer["end"] for answer in answers) - min(answer["begin"] for answer in answers),
            "cpu": readers + daemon,
            "readers_cpu": readers,
            "daemon_cpu": daemon,
            "bytes_read": read,
            "more": next((answer["more"] for answer in answers if "more" in answer), None),
        }

    def interleave(self, variants: dict[str, Callable[[], Sample]], patience: float = 1.0) -> Samples:
        """A B A B …: what changes on the machine meanwhile changes for all variants. `patience` is a factor of that of
        the settings."""
        samples: Samples = {name: [] for name in variants}
        runs, enough = self.settings.runs, time.monotonic() + patience * self.settings.patience
        number = 0
        while number < runs or (number < 3 * runs and time.monotonic() < enough):
            number += 1
            for name, measure in variants.items():
                samples[name].append(measure())
            last = ", ".join(f"{name} {summary(found[-1])}" for name, found in samples.items())
            say(f"  run {number}: {last}")
        return samples

    def reference(self, data: Dataset, out: Path) -> list[object]:
        """The command of the NumPy and tarfile converter."""
        command = [sys.executable, REFERENCE, *data.flags(), *self.shard_flags(), "--output-dir", out]
        return [*command, "--num-workers", 2]

    def study_count(self, data: Dataset) -> int:
        """How many samples the program plans."""
        return json.loads(run(self.program, "plan", *data.flags(), "--json"))["total_samples"]


def summary(sample: Sample) -> str:
    """A sample in a word."""
    return f"{sample['wall']:.3f} s" if "wall" in sample else f"{sample['bytes'] / 2**20:.0f} MiB"

"""What is measured. Each experiment interleaves its variants and returns their raw samples; it knows no target.

A cold run is a fresh mount: nothing is decoded, nothing of the shards is in the page cache. The source files are, for
every variant alike: what is compared is what software does with them, not the disk. Where readers do more than read,
each has one shard: real ones hold a hundred samples, so that what happens at their ends counts little."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from make_dataset import Dataset

from bench import Failure, accelerator, crew, disk_cache, in_process, object_storage, streams
from bench.lab import Lab, Sample, Samples, Stored, digests, remove, say, split, summary, warm
from bench.mounting import command, run
from bench.nifti import nifti, nifti_of
from bench.noise import noise, noisy

PASSES = 4  # over what is read again, so that a run takes long enough to be measured
SETTLED = 2.5  # seconds after which the program trusts the time of a file that was written
SMALL = 8192  # bytes that a Python program reads at a time
MIB = 1 << 20
RESULT = 480 * 480 * 240 * 2  # bytes of a preprocessed volume


def cold(lab: Lab, compression: str, readers: int) -> Samples:
    """`np.load` against a fresh mount, with and without the kernel's page cache, and against files."""
    data, files = lab.dataset("C", compression), lab.files()

    def mount(page_cache: bool) -> Sample:
        with lab.mounted(data, page_cache=page_cache) as mount:
            return lab.read("raw", split(mount.shards(), readers), mount)

    return lab.interleave(
        {
            "np.load": lambda: lab.read("numpy", split(data.volumes(), readers)),
            "mount": lambda: mount(False),
            "mount, page cache": lambda: mount(True),
            "files": lambda: lab.read("raw", split(files, readers)),
        }
    )


def webdataset(lab: Lab, workers: int) -> Samples:
    """The same through PyTorch's DataLoader, which hands on the same tensors; and from files, which is as fast as it
    gets."""
    data, files = lab.dataset("C", "deflated"), lab.files()

    def mount(page_cache: bool) -> Sample:
        with lab.mounted(data, page_cache=page_cache, shards=workers) as mount:
            return lab.read("webdataset_loader", split(mount.shards(), 1), mount, workers=workers)

    return lab.interleave(
        {
            "np.load": lambda: lab.read("numpy_loader", split(data.volumes(), 1), workers=workers),
            "mount": lambda: mount(False),
            "mount, page cache": lambda: mount(True),
            "files": lambda: lab.read("webdataset_loader", split(files, 1), workers=workers),
        }
    )


def loader(lab: Lab, workers: int) -> Samples:
    """The tar stage of the project's loader: the tensors that `np.load` gives."""
    data = lab.dataset("C", "deflated")

    def mount(page_cache: bool) -> Sample:
        with lab.mounted(data, page_cache=page_cache, shards=workers) as mount:
            return lab.read("voxels_loader", split(mount.shards(), 1), mount, workers=workers)

    return lab.interleave(
        {
            "np.load": lambda: lab.read("numpy_loader", split(data.volumes(), 1), workers=workers),
            "mount": lambda: mount(False),
            "mount, page cache": lambda: mount(True),
        }
    )


def loader_samples(lab: Lab, workers: int) -> Samples:
    """The samples that a training gets: of volumes that the mount preprocessed, and from the NPZ files. They are
    cropped to a shape of which there are as many voxels."""
    data, size = lab.dataset("C", "deflated"), lab.settings.size
    steps = ["--volume", "preprocessed", "--shape", ",".join(map(str, size))]
    sources = list(map(str, (data.folder, data.reports, data.meta, data.labels)))

    def mount() -> Sample:
        with lab.mounted(data, flags=steps, shards=workers) as mount:
            return lab.read("samples_loader", split(mount.shards(), 1), mount, workers=workers, shape=size)

    return lab.interleave(
        {
            "NPZ data set": lambda: lab.read("npz_samples_loader", [sources], workers=workers, shape=size),
            "mount": mount,
        }
    )


def fortran(lab: Lab, compression: str) -> Samples:
    """A cold read by one reader from both orders of the source arrays."""
    sources = {order: lab.dataset(order, compression) for order in "CF"}

    def read(order: str, page_cache: bool) -> Sample:
        with lab.mounted(sources[order], page_cache=page_cache, shards=1) as mount:
            return lab.read("raw", split(mount.shards(), 1), mount)

    return lab.interleave(
        {
            f"{order}{', page cache' if page_cache else ''}": partial(read, order, page_cache)
            for page_cache in (False, True)
            for order in ("C", "F")
        }
    )


def reread(lab: Lab, kind: str, block: int = MIB, passes: int = PASSES, patience: float = 1.0) -> Samples:
    """A mount that was read once, so that its bytes are in the page cache, against files that are."""
    data, files = lab.dataset("C", "deflated"), lab.files()
    with lab.mounted(data, page_cache=True) as mount:
        shards = mount.shards()
        warm(shards)
        return lab.interleave(
            {
                "files": lambda: lab.read(kind, split(files, 1), passes=passes, block=block),
                "mount": lambda: lab.read(kind, split(shards, 1), mount, passes=passes, block=block),
            },
            patience,
        )


def materialized(lab: Lab) -> Samples:
    """Shards that a mount takes from files, against the files."""
    data, files = lab.dataset("C", "deflated"), lab.files()
    with lab.mounted(data, flags=("--materialized", files[0].parent)) as mount:
        shards = mount.shards()
        return lab.interleave(
            {
                "files": lambda: lab.read("raw", split(files, 1), passes=PASSES),
                "mount": lambda: lab.read("raw", split(shards, 1), mount, passes=PASSES),
            }
        )


def preprocessed(lab: Lab, compression: str, threads: int) -> Samples:
    """The steps of the original loader by NumPy and PyTorch, in one process, against a mount that does them, one reader
    before it; with so many threads each. Of "gzip", by nibabel as well."""
    data, settings = lab.whole("deflated" if compression == "gzip" else compression), lab.settings
    if compression == "gzip":
        data = nifti_of(lab, data, "whole-nifti")

    def mount() -> Sample:
        with lab.mounted(data, threads=threads, cache=6 * RESULT, flags=("--volume", "preprocessed")) as mount:
            return lab.read("raw", split(mount.shards(), 1), mount)

    steps: dict[str, Any] = {"metadata": str(data.meta), "threads": threads, "expected": RESULT * settings.whole}
    return lab.interleave(
        {
            "NumPy + PyTorch": lambda: lab.read("preprocess", split(data.volumes(), 1), **steps),
            "mount": mount,
        }
    )


def rescaled(lab: Lab, compression: str) -> Samples:
    """A cold read by one reader of two kinds of volume."""
    data = lab.dataset("C", compression)

    def mount(kind: str) -> Sample:
        with lab.mounted(data, flags=("--volume", kind)) as mount:
            return lab.read("raw", split(mount.shards(), 1), mount)

    return lab.interleave({kind: partial(mount, kind) for kind in ("stored", "rescaled")})


def materialize(lab: Lab, compression: str) -> Samples:
    """Writing all shards, against the converter of the tests; both must write the same bytes."""
    data, out = lab.dataset("C", compression), lab.folder / "out"
    wanted = digests(lab.files())

    def convert(*words: object) -> Sample:
        remove(out)
        try:
            sample = command(*words)
            if digests(sorted(out.glob("*.tar"))) != wanted:
                raise Failure(f"wrong shards: {' '.join(map(str, words))}")
            return sample
        finally:
            remove(out)

    ours = [lab.program, "materialize", *data.flags(), *lab.shard_flags(), "--output-dir", out, "--num-workers", 2]
    return lab.interleave(
        {
            "converter": lambda: convert(*lab.reference(data, out)),
            "materialize": lambda: convert(*ours),
        }
    )


def compressed(lab: Lab) -> Samples:
    """A cold read by one reader from a mount of compressed shards, against the same volumes in their NPZ files."""
    data, stored = lab.dataset("C", "deflated"), lab.packed(1)
    return lab.interleave(
        {
            "np.load": lambda: lab.read("numpy", split(data.volumes(), 1)),
            "compressed": lambda: again(lab, stored, lab.settings.volumes, passes=1),
            "NPZ files, on and on": lambda: again(lab, data, lab.settings.volumes),
            "compressed, on and on": lambda: again(lab, stored, lab.settings.volumes),
        }
    )


def compressed_noise(lab: Lab) -> Samples:
    """The same of noisy volumes."""
    data, stored = noisy(lab)
    count = len(data.volumes())
    return lab.interleave(
        {
            "NPZ files, on and on": lambda: again(lab, data, count),
            "compressed, on and on": lambda: again(lab, stored, count),
        }
    )


def again(lab: Lab, source: Dataset | Stored, volumes: int, passes: int = PASSES) -> Sample:
    """Several passes over a mount, each of which finds all volumes displaced; after a first one, because a fresh mount
    takes about as long to touch its memory for the first time as it then takes to unpack compressed volumes."""
    with lab.mounted(source, shards=1, cache=lab.settings.voxel_bytes() * (volumes // 2)) as mount:
        shards = mount.shards()
        if passes > 1:
            warm(shards)
        before = mount.decoded()
        expected = lab.settings.voxel_bytes() * volumes
        sample = lab.read("raw", split(shards, 1), mount, expected=expected, passes=passes)
        if (decoded := mount.decoded() - before) != passes * volumes:
            raise Failure(f"{decoded} volumes were decoded in {passes} passes over {volumes}")
        return sample


def compress(lab: Lab) -> Samples:
    """Writing compressed shards, against writing plain ones; both must be those of before."""
    data, out = lab.dataset("C", "deflated"), lab.folder / "out"
    wanted = {"plain": digests(lab.files()), "compressed": digests(lab.packed().shards())}

    def write(what: str, *flags: object) -> Sample:
        remove(out)
        try:
            words = [lab.program, "materialize", *data.flags(), *lab.shard_flags(), "--output-dir", out]
            sample = command(*words, "--num-workers", 2, *flags)
            if digests(sorted(out.glob("*.tar"))) != wanted[what]:
                raise Failure(f"other {what} shards than before")
            return sample
        finally:
            remove(out)

    return lab.interleave(
        {
            "plain": lambda: write("plain"),
            "compressed": lambda: write("compressed", "--compress", "zstd"),
        }
    )


def sizes(lab: Lab) -> Samples:
    """What the same volumes take: no time is measured, so once is enough."""
    files, stored, npz = lab.files(), lab.packed().shards(), lab.dataset("C", "deflated").volumes()

    def size(paths: list[Path]) -> Sample:
        return {"bytes": sum(path.stat().st_size for path in paths)}

    def deflated(path: Path) -> int:
        packer = zlib.compressobj()  # level 6, as NumPy's savez_compressed
        with path.open("rb") as file:
            pieces = iter(partial(file.read, MIB), b"")
            return sum(len(packer.compress(piece)) for piece in pieces) + len(packer.flush())

    with ThreadPool(lab.settings.cores) as pool:  # zlib lets other threads run
        float16 = sum(pool.map(deflated, files))
    return {
        "compressed": [size(stored)],
        "plain": [size(files)],
        "NPZ files": [size(npz)],
        "deflate": [{"bytes": float16}],
    }


def start(lab: Lab) -> Samples:
    """Scanning many files, all of them warm: the first time, and again with what the program has saved."""
    data = lab.studies()
    time.sleep(SETTLED)
    scan = [sys.executable, "-m", "bench.scan", data.folder, data.reports, data.meta, data.labels, 2]
    found = {int(run(*scan)), lab.study_count(data)}  # warms both
    if found != {lab.settings.studies}:
        raise Failure(f"of {lab.settings.studies} studies were found: {found}")
    return lab.interleave(
        {
            "scan": lambda: command(*scan),
            "plan": lambda: command(lab.program, "plan", *data.flags(), "--rescan"),
            "saved plan": lambda: command(lab.program, "plan", *data.flags()),
        }
    )


def start_nifti(lab: Lab) -> Samples:
    """The first plan of as many `.nii.gz` files as of NPZ files, all of them warm."""
    sources = {suffix: lab.studies(suffix) for suffix in (".npz", ".nii.gz")}
    time.sleep(SETTLED)
    if found := {lab.study_count(data) for data in sources.values()} - {lab.settings.studies}:
        raise Failure(f"of {lab.settings.studies} studies were found: {found}")
    return lab.interleave(
        {suffix: partial(command, lab.program, "plan", *data.flags(), "--rescan") for suffix, data in sources.items()}
    )


def memory(lab: Lab, source: str) -> Samples:
    """The daemon's peak with eight readers of eight shards and a cache of four volumes, of NPZ in an order or of NIfTI:
    the bound is the same."""
    data, settings = lab.dataset("F" if source == "F" else "C", "deflated"), lab.settings
    if source == "nifti":
        data = nifti_of(lab, data, "nifti")
    budget = 4 * settings.voxel_bytes()
    limit = budget + settings.cores * 32 * MIB + 64 * MIB

    def peak() -> Sample:
        with lab.mounted(data, cache=budget, shards=8) as mount:
            sample = lab.read("raw", split(mount.shards(), 8), mount)
            return {"bytes": mount.peak_rss(), "read": sample}

    return lab.interleave({"daemon": peak, "limit": lambda: {"bytes": limit}})


def first_byte(lab: Lab) -> Samples:
    """A volume's first bytes against all of them, from opening the shard on."""
    samples: Samples = {"first": [], "all": []}
    data = lab.dataset("C", "deflated")
    for _ in range(3 * lab.settings.runs):
        with lab.mounted(data) as mount:
            (answer,) = crew.work("first", split(mount.shards()[-1:], 1))
        if answer["bytes"] != lab.settings.voxel_bytes():
            raise Failure(f"{answer['bytes']} bytes are not a volume")
        for name, found in samples.items():
            found.append({"wall": answer[name]})
    last = ", ".join(f"{name} {summary(found[-1])}" for name, found in samples.items())
    say(f"  run {len(samples['all'])}: {last}")
    return samples


COMPRESSIONS = ("deflated", "stored")
READERS = (1, 2, 4)

EXPERIMENTS: dict[str, Callable[[Lab], Samples]] = {
    **{f"cold {how} {n}": partial(cold, compression=how, readers=n) for how in COMPRESSIONS for n in READERS},
    **{f"nifti {n}": partial(nifti, readers=n) for n in (1, 2)},
    "nifti preprocessed": partial(preprocessed, compression="gzip", threads=1),
    "nifti start": start_nifti,
    **{f"webdataset {n}": partial(webdataset, workers=n) for n in (1, 2)},
    **{f"loader {n}": partial(loader, workers=n) for n in (1, 2)},
    **in_process.EXPERIMENTS | {"loader samples": partial(loader_samples, workers=2), "streams": streams.streams},
    **accelerator.EXPERIMENTS | disk_cache.EXPERIMENTS | object_storage.EXPERIMENTS,
    **{f"fortran {how}": partial(fortran, compression=how) for how in COMPRESSIONS},
    "reread raw": partial(reread, kind="raw"),
    "reread python": partial(reread, kind="python", block=SMALL),
    # A process is slow or fast as a whole (it takes 295,000 page faults or 181,000): more of them, not longer ones.
    "reread webdataset": partial(reread, kind="webdataset", passes=1, patience=3.0),
    "materialized": materialized,
    **{f"materialize {how}": partial(materialize, compression=how) for how in COMPRESSIONS},
    **{
        f"preprocessed {how} {threads}": partial(preprocessed, compression=how, threads=threads)
        for how in COMPRESSIONS
        for threads in (1, 2)
    },
    **{f"rescaled {how}": partial(rescaled, compression=how) for how in COMPRESSIONS},
    "compressed": compressed,
    "compressed noise": compressed_noise,
    "compress": compress,
    "sizes": sizes,
    **{f"noise {sigma}": partial(noise, sigma=sigma) for sigma in (10, 20)},
    "start": start,
    **{f"memory {source}": partial(memory, source=source) for source in ("C", "F", "nifti")},
    "first byte": first_byte,
}

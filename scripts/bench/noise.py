"""Noisy volumes, as scanners make them: how fast they are read from compressed shards, and what they take there beside
what else could have packed them."""

from __future__ import annotations

import shutil
import tarfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import codec_table
import dataset_tables as tables
import numpy as np
from make_dataset import Dataset, dataset_at, relative_path, study_ids
from numpy.typing import NDArray

from bench import Failure
from bench.lab import Lab, Sample, Samples, Stored, say, warm
from bench.mounting import run

SIDE = 256  # voxels of height and width; half of it is the depth
BLOCK = 256 << 10  # bytes of float16, as the shards have them
FAST = 1e9  # bytes a second and core: a codec that unpacks more slowly would be what a reader waits for
OTHERS = ("raw", "deflate", "Blosc2")
SIGMA = 15.0  # HU
READ = 8  # volumes: noise takes long to deflate


def add_noise(source: Path, target: Path, seed: int) -> None:
    """Scanners store integers."""
    volume = np.load(source)["data"]
    noise = codec_table.correlated(np.random.default_rng(seed), volume.shape, SIGMA)
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(target, data=np.rint(volume + noise).astype(np.float32))


def noisy(lab: Lab) -> tuple[Dataset, Stored]:
    """Some volumes of the phantom with noise, deflated, and the same in one compressed shard; both in the page
    cache."""

    def make() -> tuple[Dataset, Stored]:
        plain, data = lab.dataset("C", "stored"), dataset_at(lab.folder / "noisy")
        sources = plain.volumes()[:READ]
        say(f"making {len(sources)} volumes with noise of {SIGMA:g} HU")
        data.folder.mkdir(parents=True)
        for old, new in zip(
            (plain.reports, plain.meta, plain.labels), (data.reports, data.meta, data.labels), strict=True
        ):
            shutil.copy(old, new)
        targets = [data.folder / path.relative_to(plain.folder) for path in sources]
        with ProcessPoolExecutor(lab.settings.cores) as pool:
            list(pool.map(add_noise, sources, targets, range(len(sources))))
        return data, lab.pack(data, lab.folder / "noisy-packed", 1)

    data, stored = lab.once("noisy", make)
    warm([*data.volumes(), *stored.shards()])
    return data, stored


def packed_bytes(lab: Lab, voxels: NDArray[Any], name: str) -> int:
    """The member of the volume in a shard that the program compressed."""
    paths = dataset_at(lab.folder / name)
    (study_id,) = study_ids(1)
    path = paths.folder / relative_path(study_id, 3)
    path.parent.mkdir(parents=True)
    np.savez(path, data=voxels.astype(np.float32))
    height, width, depth = voxels.shape
    rows = [tables.Study(0, study_id, (height, width, depth))]
    tables.write_tables(rows, paths.reports, paths.meta, paths.labels, seed=0, bom=False, missing_zspacing=0, real=1)
    out = lab.folder / f"{name}-packed"
    run(lab.program, "materialize", *paths.flags(), "--output-dir", out, "--compress", "zstd")
    with tarfile.open(out / "shard-000000.tar") as shard:
        return next(member.size for member in shard if member.name.endswith(".bin.split.zst"))


def noise(lab: Lab, sigma: int) -> Samples:
    """Sizes, and of the others the smallest that is fast to unpack. No time of ours is measured, so once is enough."""
    voxels = codec_table.phantom(SIDE, sigma)
    blocks = codec_table.in_blocks(voxels, BLOCK)
    found: dict[str, Sample] = {}
    for codec in codec_table.codecs(voxels.shape[-1]):
        if codec.name.startswith(OTHERS):
            results = [codec_table.measured(codec, blocks) for _ in range(3)]
            found[codec.name] = {"bytes": results[0][0], "decode": min(result[2] for result in results)}
    fast = {name: sample for name, sample in found.items() if voxels.nbytes / sample["decode"] >= FAST}
    if not fast:
        raise Failure("nothing unpacks at 1 GB/s here")
    smallest = min(fast, key=lambda name: fast[name]["bytes"])
    blosc2 = min((name for name in found if name.startswith("Blosc2")), key=lambda name: found[name]["bytes"])
    return {
        "compressed": [{"bytes": packed_bytes(lab, voxels, f"noise-{sigma}")}],
        "smallest": [fast[smallest] | {"name": smallest}],
        "f16": [found["raw float16"]],
        "deflate": [found["deflate 6"]],
        "Blosc2": [found[blosc2] | {"name": blosc2}],
    }

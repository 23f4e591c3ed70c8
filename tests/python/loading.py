"""What the tests of the loader share: small volumes, its data sets of them, and what a loader gave."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ctreport_webdataset import Batch, CTReportDataset, CTReportWebDataset, Sample
from harness import payload, shards
from kinds import Steps
from make_dataset import Dataset
from numpy.typing import NDArray

STEPS = Steps(shape=(40, 36, 30), spacing=(1.0, 1.0, 1.5))
SMALL: dict[str, Any] = {"shape": STEPS.shape, "spacing": STEPS.spacing}
HALF_HU = 0.0005  # of a volume's unit, 1000 HU
DEADLINE = 60  # seconds that a loader may take, which takes a few

Samples = dict[str, tuple[NDArray[Any], str, tuple[float, ...]]]


def from_shards(pattern: Any, **options: Any) -> CTReportWebDataset:
    """The loader's data set of shards, in their order."""
    return CTReportWebDataset(pattern, **{"shuffle": False, **SMALL, **options})


def from_npz(dataset: Dataset, **options: Any) -> CTReportDataset:
    """The loader's data set of NPZ files, in their order."""
    paths = dataset.folder, dataset.reports, dataset.meta, dataset.labels
    return CTReportDataset(*paths, **{"shuffle": False, **SMALL, **options})


def unbatched(batches: Iterable[Batch]) -> Iterable[Sample]:
    """The samples of batches, with the types of both checked."""
    for volumes, texts, labels, ids, embeddings in batches:
        depth, height, width = STEPS.shape[2], *STEPS.shape[:2]
        assert tuple(volumes.shape) == (len(ids), 1, depth, height, width) and volumes.is_contiguous()
        assert isinstance(texts, list) and isinstance(ids, list) and embeddings.numel() == 0
        assert isinstance(labels, np.ndarray) and labels.dtype == np.float32 and len(labels) == len(texts) == len(ids)
        yield from ((*sample, embeddings) for sample in zip(volumes, texts, labels, ids, strict=True))


def collected(samples: Iterable[Sample]) -> Samples:
    """Samples by study; each may come once."""
    found: Samples = {}
    for volume, text, labels, study, _ in samples:
        assert study not in found, f"{study} came twice"
        found[study] = (volume.numpy().copy(), text, tuple(labels.tolist()))
    return found


def ids(batches: Iterable[Batch]) -> list[str]:
    """The studies, in the order in which they came."""
    return [study for batch in batches for study in batch[3]]


def assert_same(found: Samples, right: Samples, within: float = 0.0) -> None:
    """The same studies, texts and labels, and voxels that differ by no more than told."""
    assert found.keys() == right.keys()
    for study, (volume, text, labels) in right.items():
        assert found[study][1:] == (text, labels), study
        assert np.abs(found[study][0].astype(np.float32) - volume).max() <= within, study


def write_views(folder: Path, out: Path, count: int, per_shard: int = 3) -> list[list[str]]:
    """Copy shards to `out`, and put permuted ones into `epochs/000000`, …, as a mount with --shuffle-seed shows them;
    the studies of each view in its order."""
    samples: list[list[tuple[tarfile.TarInfo, bytes]]] = []
    out.mkdir()
    for path in [*shards(folder), folder / "manifest.json"]:
        shutil.copy(path, out)
    for path in shards(folder):
        with tarfile.open(path) as tar:
            members = [(info, payload(tar, info)) for info in tar]
        samples += [members[at : at + 4] for at in range(0, len(members), 4)]
    orders = []
    for view in range(count):
        order = np.random.default_rng(view + 1).permutation(len(samples))
        place = out / "epochs" / f"{view:06d}"
        place.mkdir(parents=True)
        listing = []
        for shard, start in enumerate(range(0, len(order), per_shard)):
            name, chosen = f"shard-{shard:06d}.tar", order[start : start + per_shard]
            write_shard(place / name, shard, [samples[at] for at in chosen])
            listing.append({"name": name, "sample_count": len(chosen)})
        (place / "manifest.json").write_text(json.dumps({"total_samples": len(order), "shards": listing}))
        orders.append([json.loads(samples[at][1][1])["study_id"] for at in order])
    return orders


def write_shard(path: Path, shard: int, samples: list[list[tuple[tarfile.TarInfo, bytes]]]) -> None:
    """A tar of samples with new keys."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index, members in enumerate(samples):
            for info, payload in members:
                new = tarfile.TarInfo(f"{shard:06d}_{index:06d}.{info.name.partition('.')[2]}")
                new.size = len(payload)
                tar.addfile(new, io.BytesIO(payload))

"""The rows of the table: which samples of which experiment are compared, and what is to be reached."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from bench.accelerator import accelerator_rows
from bench.disk_cache import disk_cache_rows
from bench.in_process_rows import in_process_rows
from bench.object_storage import object_storage_rows
from bench.row import COST, SPEED, Row


@dataclass(frozen=True)
class Measured:
    """A row's figures."""

    ratio: float
    least: float
    most: float
    ours: float
    theirs: float


def measured(row: Row, variants: dict[str, list[dict[str, Any]]]) -> Measured:
    """The ratio of each run, and their median."""
    ours, theirs = ([sample[row.field] for sample in variants[name]] for name in (row.ours, row.theirs))
    over, under = (theirs, ours) if row.kind == SPEED else (ours, theirs)
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return Measured(
        statistics.median(ratios), min(ratios), max(ratios), statistics.median(ours), statistics.median(theirs)
    )


def reached(row: Row, ratio: float) -> bool | None:
    """Whether the row's target is met."""
    if row.target is None:
        return None
    return ratio >= row.target if row.kind == SPEED else ratio <= row.target


def with_page_cache(row: Row) -> list[Row]:
    """A cold row, and beside it the same with the kernel's page cache."""
    theirs = row.theirs + ", page cache" if row.theirs == "C" else row.theirs
    beside = Row(
        row.name + "/page-cache",
        row.path + ", page cache on",
        row.against,
        row.experiment,
        row.ours + ", page cache",
        theirs,
        row.target,
        row.kind,
        row.field,
        beside=True,
    )
    return [row, beside]


def cold_rows() -> list[Row]:
    """Plain readers of a fresh mount."""
    targets = {
        ("deflated", 1): 4.0,
        ("stored", 1): 4.0,
        ("deflated", 2): 2.4,
        ("stored", 2): 3.0,
        ("deflated", 4): None,
        ("stored", 4): None,
    }
    rows = []
    for (how, readers), target in targets.items():
        many = "1 reader" if readers == 1 else f"{readers} readers"
        against = "np.load in one process" if readers == 1 else f"np.load in {readers} processes"
        row = Row(
            f"cold/{how}/{readers}",
            f"cold read, {how}, {many}",
            against,
            f"cold {how} {readers}",
            "mount",
            "np.load",
            target,
        )
        rows += with_page_cache(row)
    return rows


def nifti_rows() -> list[Row]:
    """NIfTI files as sources: the first seconds of a mount, and all that follow, when volumes are decoded into memory
    that it has already."""
    by_nibabel = {1: "nibabel + NumPy in one process", 2: "nibabel + NumPy in 2 processes"}
    rows = []
    for suffix, then in ("", ""), (", going on", ", a mount that goes on"):
        ours, name = f"mount{suffix}", "nifti/again-" if suffix else "nifti/"
        for readers, target in (1, 5.0), (2, 3.2):
            path = f"cold read, .nii.gz with noise, {readers} reader{'s' * (readers > 1)}{then}"
            against = by_nibabel[readers]
            rows.append(Row(f"{name}{readers}", path, against, f"nifti {readers}", ours, "nibabel", target))
        path = f"CPU seconds, reader + daemon, cold, .nii.gz{then}"
        rows.append(Row(f"{name}cpu", path, by_nibabel[1], "nifti 1", ours, "nibabel", 0.35, COST, "cpu"))
        path, against = f"cold read, .nii.gz with noise, 1 reader{then}", "mount of the deflated NPZ files"
        rows.append(Row(f"{name}npz", path, against, "nifti 1", ours, f"mount of NPZ{suffix}", 1.15))
    return [
        *rows,
        Row(
            "nifti/preprocessed",
            "cold read, preprocessed, .nii.gz, 1 thread",
            "nibabel + NumPy + PyTorch, 1 thread",
            "nifti preprocessed",
            "mount",
            "NumPy + PyTorch",
            5.0,
        ),
        Row(
            "nifti/start",
            "plan of many tiny .nii.gz files, warm",
            "plan of as many NPZ files",
            "nifti start",
            ".nii.gz",
            ".npz",
            1.5,
            COST,
        ),
    ]


def webdataset_rows() -> list[Row]:
    """webdataset behind a DataLoader."""
    rows = []
    for workers, target in ((1, 3.0), (2, 1.6)):
        many = "1 worker" if workers == 1 else f"{workers} workers"
        rows += with_page_cache(
            Row(
                f"webdataset/{workers}",
                f"cold webdataset, deflated, {many}",
                f"np.load data set, {many}",
                f"webdataset {workers}",
                "mount",
                "np.load",
                target,
            )
        )
        rows.append(
            Row(
                f"webdataset/{workers}/files",
                f"the limit: webdataset on files in memory, {many}",
                f"np.load data set, {many}",
                f"webdataset {workers}",
                "files",
                "np.load",
                None,
            )
        )
    return rows


def loader_rows() -> list[Row]:
    """The project's loader."""
    rows = []
    for workers, target in ((1, None), (2, 2.4)):
        many = "1 worker" if workers == 1 else f"{workers} workers"
        rows += with_page_cache(
            Row(
                f"loader/tensors/{workers}",
                f"cold project loader, voxels, deflated, {many}",
                f"np.load data set, {many}",
                f"loader {workers}",
                "mount",
                "np.load",
                target,
            )
        )
    return [
        *rows,
        Row(
            "loader/samples/2",
            "cold project loader, preprocessed samples, deflated, 2 workers",
            "the loader's NPZ data set, 2 workers",
            "loader samples",
            "mount",
            "NPZ data set",
            2.4,
        ),
    ]


def fortran_rows() -> list[Row]:
    """Fortran order against C order."""
    rows = []
    for how in ("deflated", "stored"):
        rows += with_page_cache(
            Row(f"fortran/{how}", f"cold read, {how}, Fortran order", "C order", f"fortran {how}", "F", "C", 0.75)
        )
    return rows


def kind_rows() -> list[Row]:
    """The kinds of volume."""
    rows = []
    for how, target in (("deflated", 4.0), ("stored", 8.0)):
        for threads, aim in ((1, target), (2, None)):
            many = "1 thread" if threads == 1 else f"{threads} threads"
            rows.append(
                Row(
                    f"preprocessed/{how}/{threads}",
                    f"cold read, preprocessed, {how}, {many}",
                    f"NumPy + PyTorch, {many}",
                    f"preprocessed {how} {threads}",
                    "mount",
                    "NumPy + PyTorch",
                    aim,
                )
            )
    return rows + [
        Row(
            f"rescaled/{how}",
            f"cold read, rescaled, {how}",
            "stored as it is",
            f"rescaled {how}",
            "rescaled",
            "stored",
            1.05,
            COST,
        )
        for how in ("deflated", "stored")
    ]


def compressed_rows() -> list[Row]:
    """Shards with compressed volumes."""
    read, size = "cold read, compressed shards, 1 reader", "size of compressed shards"
    return [
        Row(
            "compressed/npz",
            f"{read}, on and on",
            "mount of the deflated NPZ files",
            "compressed",
            "compressed, on and on",
            "NPZ files, on and on",
            3.0,
        ),
        Row(
            "compressed/noise/npz",
            f"{read}, noise of 15 HU, on and on",
            "mount of the deflated NPZ files",
            "compressed noise",
            "compressed, on and on",
            "NPZ files, on and on",
            3.0,
        ),
        Row("compressed/np.load", read, "np.load in one process", "compressed", "compressed", "np.load", 6.0),
        Row(
            "compressed/write",
            "materialize --compress zstd, deflated, 2 workers",
            "materialize",
            "compress",
            "compressed",
            "plain",
            1.5,
            COST,
        ),
        *(
            Row(f"compressed/size/{name}", size, against, "sizes", "compressed", theirs, None, COST, "bytes")
            for name, against, theirs in (
                ("f16", "plain shards", "plain"),
                ("deflate", "plain shards, deflated", "deflate"),
                ("npz", "deflated NPZ files", "NPZ files"),
            )
        ),
        *(
            Row(
                f"compressed/noise/{sigma}/{name}",
                f"size of a compressed volume, noise of {sigma} HU",
                against,
                f"noise {sigma}",
                "compressed",
                theirs,
                target,
                COST,
                "bytes",
            )
            for sigma in (10, 20)
            for name, against, theirs, target in (
                ("fast", "the smallest of raw float16, deflate, Blosc2 that unpacks at 1 GB/s", "smallest", 1.05),
                ("f16", "raw float16", "f16", None),
                ("deflate", "deflate 6", "deflate", None),
                ("blosc2", "Blosc2 at its smallest", "Blosc2", None),
            )
        ),
    ]


def other_rows() -> list[Row]:
    """Everything else."""
    converter, tiny = "NumPy + tarfile converter, 2 processes", "the same scan by Python, 2 processes"
    budget = "cache + decoders × 32 MiB + 64 MiB"
    return [
        Row("reread/plain", "re-read, 1 MiB reads", "file", "reread raw", "mount", "files", 0.80),
        Row("reread/python", "re-read, Python read(8192)", "file", "reread python", "mount", "files", 1.2),
        Row("reread/webdataset", "re-read, webdataset", "file", "reread webdataset", "mount", "files", 0.95),
        Row(
            "materialized",
            "materialised shards through the mount, 1 MiB reads",
            "file",
            "materialized",
            "mount",
            "files",
            0.92,
        ),
        *(
            Row(
                f"materialize/{how}",
                f"materialize, {how}, 2 workers, with SHA-256",
                converter,
                f"materialize {how}",
                "materialize",
                "converter",
                target,
            )
            for how, target in (("deflated", 3.6), ("stored", 5.0))
        ),
        Row("start/first", "plan of many tiny volumes, warm", tiny, "start", "plan", "scan", 10.0),
        Row("start/saved", "plan again, nothing changed", tiny, "start", "saved plan", "scan", 20.0),
        *(
            Row(
                f"memory/{source}",
                f"daemon's peak memory, {what}",
                budget,
                f"memory {source}",
                "daemon",
                "limit",
                1.0,
                COST,
                "bytes",
            )
            for source, what in (("C", "C order"), ("F", "Fortran order"), ("nifti", ".nii.gz"))
        ),
        Row("first-byte", "first voxel byte, cold", "all of the volume", "first byte", "first", "all", 0.1, COST),
    ]


CPU = Row(
    "cpu/deflated",
    "CPU seconds, reader + daemon, cold, deflated",
    "np.load in one process",
    "cold deflated 1",
    "mount",
    "np.load",
    0.45,
    COST,
    "cpu",
)

ROWS = [
    *cold_rows(),
    *nifti_rows(),
    *webdataset_rows(),
    *loader_rows(),
    *in_process_rows(),
    *with_page_cache(CPU),
    *fortran_rows(),
    *kind_rows(),
    *compressed_rows(),
    *accelerator_rows(),
    *disk_cache_rows(),
    *object_storage_rows(),
    *other_rows(),
]

"""The rows of the package in the training's own process."""

from __future__ import annotations

from bench.row import COST, Row


def in_process_rows() -> list[Row]:
    """The package without a mount."""
    voxels, samples = "ctwds.Loader, voxels, deflated, 2 threads", "ctwds.Loader, preprocessed samples, 2 threads"
    one, workers = "ctwds.load, deflated, 1 thread", "2 workers"
    box, peak = "region of 96³, compressed shards", "peak memory, ctwds.Loader, batch 2, 4 threads"
    packed, formats = "ctwds.Loader, compressed shards, 2 threads", f"its own format, not compressed, hot, {workers}"
    loader, mount = "Loader", f"the loader on a mount, {workers}"
    return [
        Row("process/voxels/mount", voxels, mount, "process voxels", loader, "mount", 1.5),
        Row("process/voxels/npz", voxels, f"np.load data set, {workers}", "process voxels", loader, "np.load", 4.0),
        Row("process/samples/mount", samples, mount, "process samples", loader, "mount", 1.7),
        Row("process/samples/npz", samples, f"NPZ data set, {workers}", "process samples", loader, "NPZ data set", 6.0),
        Row("process/load", one, "np.load and astype(np.float16)", "process load", "load", "np.load", 3.0),
        Row("process/region", box, "the whole volume", "process region", "region", "whole", 0.35, COST),
        Row("process/streams/mosaic", packed, f"StreamingDataset, {formats}", "streams", loader, "mosaic", 1.0),
        Row("process/streams/litdata", packed, f"litdata, {formats}", "streams", loader, "litdata", 1.0),
        Row("process/memory", peak, "its bound", "process memory", "process", "limit", 1.0, COST, "bytes"),
    ]

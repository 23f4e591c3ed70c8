"""The package in the training's own process: `ctwds.Loader`, `ctwds.load` and regions, against what people have."""

from __future__ import annotations

from bench.lab import Lab, Sample, Samples, split

BOX = 96  # voxels of each axis of a region
MIB = 1 << 20


def loader(lab: Lab) -> Samples:
    """Voxels as float16 tensors by two threads, against the loader on a fresh mount and `np.load`, both with two
    workers."""
    data = lab.dataset("C", "deflated")

    def mount() -> Sample:
        with lab.mounted(data, shards=2) as mount:
            return lab.read("voxels_loader", split(mount.shards(), 1), mount, workers=2)

    return lab.interleave(
        {
            "np.load": lambda: lab.read("numpy_loader", split(data.volumes(), 1), workers=2),
            "mount": mount,
            "Loader": lambda: lab.read("in_process", [data.flags()], threads=2),
        }
    )


def samples(lab: Lab) -> Samples:
    """Preprocessed samples by two threads, against the loader on a fresh mount and on NPZ files with two workers."""
    data, size = lab.dataset("C", "deflated"), lab.settings.size
    steps = ["--volume", "preprocessed", "--shape", ",".join(map(str, size))]
    sources = list(map(str, (data.folder, data.reports, data.meta, data.labels)))

    def mount() -> Sample:
        with lab.mounted(data, flags=steps, shards=2) as mount:
            return lab.read("samples_loader", split(mount.shards(), 1), mount, workers=2, shape=size)

    return lab.interleave(
        {
            "NPZ data set": lambda: lab.read("npz_samples_loader", [sources], workers=2, shape=size),
            "mount": mount,
            "Loader": lambda: lab.read("in_process", [[*data.flags(), *steps]], threads=2),
        }
    )


def load(lab: Lab) -> Samples:
    """Deflated volumes one after the other, in one thread."""
    data = lab.dataset("C", "deflated")
    return lab.interleave(
        {
            "np.load": lambda: lab.read("numpy", split(data.volumes(), 1)),
            "load": lambda: lab.read("load", split(data.volumes(), 1)),
        }
    )


def region(lab: Lab) -> Samples:
    """A box of each volume of compressed shards, against the whole volumes."""
    data = lab.whole("stored")
    folder = str(lab.once("whole-packed", lambda: lab.pack(data, lab.folder / "whole-packed", 1)).shards()[0].parent)
    count = lab.settings.whole
    return lab.interleave(
        {
            "whole": lambda: lab.read("whole", [[folder]], box=BOX, expected=count),
            "region": lambda: lab.read("region", [[folder]], box=BOX, expected=count),
        }
    )


def memory(lab: Lab) -> Samples:
    """The most memory of a process with a loader of batches of two by four threads, above that after its imports."""
    data = lab.dataset("C", "deflated")

    bounds = []  # of each run, which both variants are of

    def peak() -> Sample:
        found, budget = lab.read("in_process", [data.flags()], threads=4, batch=2)["more"]
        bounds.append(budget + 64 * MIB)
        return {"bytes": found}

    return lab.interleave({"process": peak, "limit": lambda: {"bytes": bounds[-1]}})


EXPERIMENTS = {
    "process voxels": loader,
    "process samples": samples,
    "process load": load,
    "process region": region,
    "process memory": memory,
}

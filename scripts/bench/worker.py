"""One reading process. Gets its job as a line of JSON, prepares (imports, buffers), answers `ready`, waits for a line,
reads, and answers with what it read and what that took: so neither Python's start nor imports are measured.

Nothing is imported here that a kind of reader does not use."""

from __future__ import annotations

import json
import mmap
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Job = dict[str, Any]
Run = Callable[[], dict[str, Any]]


def raw(job: Job) -> Run:
    """Unbuffered `readinto` of whole files. The buffer is page-aligned and touched before: copies into anything else
    measure the memory of the machine."""
    buffer = mmap.mmap(-1, job["block"])
    buffer.write(bytes(job["block"]))

    def run() -> dict[str, Any]:
        total = 0
        for path in job["paths"] * job["passes"]:
            with open(path, "rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    total += count
        return {"bytes": total}

    return run


def python(job: Job) -> Run:
    """Python's buffered file in small reads."""

    def run() -> dict[str, Any]:
        total = 0
        for path in job["paths"] * job["passes"]:
            with open(path, "rb") as file:
                while piece := file.read(job["block"]):
                    total += len(piece)
        return {"bytes": total}

    return run


def numpy(job: Job) -> Run:
    """What one does without the program: `np.load`, float16."""
    import numpy as np

    def run() -> dict[str, Any]:
        return {"bytes": sum(np.load(path)["data"].astype(np.float16).nbytes for path in job["paths"])}

    return run


def nibabel(job: Job) -> Run:
    """What one does without the program: nibabel, float16."""
    import nibabel as package
    import numpy as np

    nib: Any = package  # of which not everything has types

    def run() -> dict[str, Any]:
        return {"bytes": sum(np.asarray(nib.load(path).dataobj).astype(np.float16).nbytes for path in job["paths"])}

    return run


def tensors(paths: list[str]) -> Any:
    """The shards as a WebDataset of float16 tensors."""
    import numpy as np
    import torch
    import webdataset

    def decode(sample: dict[str, bytes]) -> torch.Tensor:
        shape = json.loads(sample["json"])["volume_shape"]
        return torch.from_numpy(np.frombuffer(sample["bin"], np.float16).reshape(shape))

    return webdataset.WebDataset(paths, shardshuffle=False).map(decode)


def total_bytes(stream: Any) -> int:
    """The bytes of all tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in stream)


def webdataset(job: Job) -> Run:
    """webdataset in this process."""
    data = tensors(job["paths"] * job["passes"])
    return lambda: {"bytes": total_bytes(data)}


def webdataset_loader(job: Job) -> Run:
    """webdataset behind PyTorch's DataLoader."""
    from torch.utils.data import DataLoader

    loader = DataLoader(tensors(job["paths"]), batch_size=None, num_workers=job["workers"])
    return lambda: {"bytes": total_bytes(loader)}


def numpy_loader(job: Job) -> Run:
    """`np.load` in a map-style data set behind PyTorch's DataLoader."""
    import numpy as np
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Volumes(Dataset[torch.Tensor]):
        """The same tensors from the NPZ files."""

        def __len__(self) -> int:
            return len(job["paths"])

        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.from_numpy(np.load(job["paths"][index])["data"].astype(np.float16))

    loader = DataLoader(Volumes(), batch_size=None, num_workers=job["workers"])
    return lambda: {"bytes": total_bytes(loader)}


def preprocess(job: Job) -> Run:
    """All steps of the original loader, as the tests have them, by NumPy and PyTorch."""
    import ast
    import csv
    from pathlib import Path

    import numpy as np
    import torch

    sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "python"))
    from kinds import preprocessed

    torch.set_num_threads(job["threads"])
    with open(job["metadata"], newline="", encoding="utf-8-sig") as file:
        rows = {row["VolumeName"]: row for row in csv.DictReader(file)}

    def load(path: str) -> np.ndarray[Any, Any]:
        if path.endswith(".npz"):
            return np.load(path)["data"]
        import nibabel

        image: Any = nibabel.load(path)
        return np.asarray(image.dataobj)

    def voxels(path: str) -> np.ndarray[Any, Any]:
        row = rows[Path(path).name.split(".")[0] + ".nii.gz"]
        spacing = (*ast.literal_eval(row["XYSpacing"]), float(row["ZSpacing"]))
        slope, intercept = float(row["RescaleSlope"]), float(row["RescaleIntercept"])
        volume, _ = preprocessed(load(path), slope, intercept, spacing)
        return volume.astype(np.float16)

    return lambda: {"bytes": sum(voxels(path).nbytes for path in job["paths"])}


def voxels_loader(job: Job) -> Run:
    """The tar stage of the project's loader behind PyTorch's DataLoader: the same tensors, read to where they stay."""
    import torch
    from ctreport_webdataset import Buffer, ShardReader, allocate
    from torch.utils.data import DataLoader, IterableDataset, get_worker_info

    class Shared(Buffer):
        """The memory of one tensor, in which the main process sees it."""

        tensor: torch.Tensor

        def view(self, size: int) -> memoryview:
            self.tensor = allocate((size // 2,), torch.float16)
            return memoryview(self.tensor.numpy()).cast("B")

    class Voxels(IterableDataset[torch.Tensor]):
        """The voxels of a worker's shards."""

        def __iter__(self) -> Iterator[torch.Tensor]:
            pool: list[Buffer] = [Shared()]
            for path in job["paths"][get_worker_info().id :: job["workers"]]:
                for sample in ShardReader(path, pool):
                    pool.append(Shared())
                    assert isinstance(sample.buffer, Shared)
                    yield sample.buffer.tensor[: sample.voxels.size].view(sample.voxels.shape)

    loader = DataLoader(Voxels(), batch_size=None, num_workers=job["workers"])
    return lambda: {"bytes": total_bytes(loader)}


def samples_loader(job: Job) -> Run:
    """The project's loader, as a training uses it; its volumes stay float16."""
    import torch
    from ctreport_webdataset import CTReportWebDataset

    data = CTReportWebDataset(job["paths"], shuffle=False, shape=job["shape"], dtype=torch.float16)
    return samples(data, job)


def npz_samples_loader(job: Job) -> Run:
    """The same samples from the NPZ files: a folder and three tables."""
    import torch
    from ctreport_webdataset import CTReportDataset

    return samples(CTReportDataset(*job["paths"], shuffle=False, shape=job["shape"], dtype=torch.float16), job)


def samples(data: Any, job: Job) -> Run:
    """All of them, one a batch."""
    loader = data.make_loader(1, job["workers"])
    return lambda: {"bytes": total_bytes(batch[0] for batch in loader)}


def package() -> Any:
    """The package of this clone, whose extension was built."""
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))
    import ctwds

    return ctwds


def peak() -> int:
    """The most bytes of memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def in_process(job: Job) -> Run:
    """`ctwds.Loader` on a data set that is planned already; its flags come in place of paths."""
    ctwds = package()
    import torch  # noqa: F401  # as its import is not measured

    def run() -> dict[str, Any]:
        before = peak()
        loader = ctwds.Loader(ctwds.Volumes(job["paths"]), batch_size=job.get("batch", 1), threads=job["threads"])
        total = total_bytes(batch.volume for batch in loader)
        return {"bytes": total, "more": (peak() - before, loader.memory)}

    return run


def load(job: Job) -> Run:
    """`ctwds.load` of one file after the other."""
    ctwds = package()
    return lambda: {"bytes": sum(ctwds.load(path).nbytes for path in job["paths"])}


def whole(job: Job) -> Run:
    """All volumes of a folder of shards, each as a whole, by one decoder; counted."""
    return boxes(job, None)


def region(job: Job) -> Run:
    """A box from the middle of each volume, by one decoder; counted."""
    return boxes(job, job["box"])


def boxes(job: Job, side: int | None) -> Run:
    """Boxes of this side, or whole volumes."""
    ctwds = package()
    data = ctwds.open(job["paths"][0], threads=1)

    def run() -> dict[str, Any]:
        for index in range(len(data)):
            shape = data.info(index).shape
            box = tuple(min(side or n, n) for n in shape)
            middle = [slice((n - wanted) // 2, (n + wanted) // 2) for n, wanted in zip(shape, box, strict=True)]
            found = data.region(index, middle) if side else data[index].volume
            assert found.shape == box
        return {"bytes": len(data)}

    return run


def first(job: Job) -> Run:
    """The first volume of a shard: how long until its first bytes come, and until all have come."""
    from tarfile import BLOCKSIZE, TarInfo

    buffer = mmap.mmap(-1, job["block"])
    buffer.write(bytes(job["block"]))
    view = memoryview(buffer)

    def run() -> dict[str, Any]:
        begin = time.monotonic()
        with open(job["paths"][0], "rb", buffering=0) as file:
            file.readinto(view[:BLOCKSIZE])
            header = TarInfo.frombuf(bytes(view[:BLOCKSIZE]), "utf-8", "strict")
            assert header.name.endswith(".bin"), header.name
            total = file.readinto(view[: min(4096, header.size)])
            came = time.monotonic() - begin
            while total < header.size:
                total += file.readinto(view[: min(job["block"], header.size - total)])
        return {"bytes": total, "first": came, "all": time.monotonic() - begin}

    return run


MAKERS = (
    raw,
    python,
    numpy,
    nibabel,
    webdataset,
    webdataset_loader,
    numpy_loader,
    voxels_loader,
    samples_loader,
    npz_samples_loader,
    preprocess,
    in_process,
    load,
    whole,
    region,
    first,
)
KINDS = {maker.__name__: maker for maker in MAKERS}


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def answers() -> Iterator[str]:
    """What this process says: that it is ready, then what it measured."""
    job = json.loads(sys.stdin.readline())
    run = KINDS[job["kind"]](job)
    yield "ready"
    sys.stdin.readline()
    cpu, begin = cpu_seconds(), time.monotonic()
    result = run()
    end = time.monotonic()
    yield json.dumps(result | {"begin": begin, "end": end, "cpu": cpu_seconds() - cpu})


def main() -> None:
    """Serve one job. Whatever a library prints must not be taken for an answer."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as output:
        os.dup2(2, 1)
        for answer in answers():
            print(answer, file=output, flush=True)


if __name__ == "__main__":
    main()

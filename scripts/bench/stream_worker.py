"""`bench.worker` with readers and writers of MosaicML's StreamingDataset and of litdata, each in its own format without
compression. Run by the Python of .venv-streams."""

from __future__ import annotations

from functools import partial
from typing import Any

from bench import worker
from bench.worker import Job, Run, package, total_bytes


def taken(folder: str, index: int) -> dict[str, Any]:
    """A sample of a folder of shards, as all formats hold it."""
    sample = package().open(folder, threads=1)[index]
    return {"volume": sample.volume, "text": sample.text, "labels": sample.labels, "id": sample.id}


def write_mosaic(job: Job) -> Run:
    """A folder of shards as MDS files."""
    from streaming import MDSWriter

    source, out = job["paths"]
    data = package().open(source, threads=1)
    shape = ",".join(map(str, data.info(0).shape))
    columns = {
        "volume": f"ndarray:float16:{shape}",
        "text": "str",
        "labels": f"ndarray:float32:{len(data.label_names)}",
        "id": "str",
    }

    def run() -> dict[str, Any]:
        with MDSWriter(out=out, columns=columns, compression=None, size_limit="1gb") as writer:
            for index in range(len(data)):
                writer.write(taken(source, index))
        return {"bytes": 0}

    return run


def write_litdata(job: Job) -> Run:
    """A folder of shards as chunks of litdata."""
    import litdata

    source, out = job["paths"]
    count = len(package().open(source, threads=1))

    def run() -> dict[str, Any]:
        litdata.optimize(partial(taken, source), list(range(count)), out, chunk_bytes="1GB", num_workers=1)
        return {"bytes": 0}

    return run


def read_mosaic(job: Job) -> Run:
    """All volumes of MDS files, one a batch."""
    import torch
    from streaming import StreamingDataset

    def run() -> dict[str, Any]:
        data = StreamingDataset(local=job["paths"][0], shuffle=False, batch_size=1)
        loader = torch.utils.data.DataLoader(data, batch_size=1, num_workers=job["workers"])
        return {"bytes": total_bytes(batch["volume"] for batch in loader)}

    return run


def read_litdata(job: Job) -> Run:
    """All volumes of litdata's chunks, one a batch."""
    import litdata

    def run() -> dict[str, Any]:
        data = litdata.StreamingDataset(job["paths"][0], shuffle=False)
        loader = litdata.StreamingDataLoader(data, batch_size=1, num_workers=job["workers"])
        return {"bytes": total_bytes(batch["volume"] for batch in loader)}

    return run


worker.KINDS |= {maker.__name__: maker for maker in (write_mosaic, write_litdata, read_mosaic, read_litdata)}

if __name__ == "__main__":
    worker.main()

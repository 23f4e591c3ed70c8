"""The processes of one node: each reads its share of two epochs, through the node's mount and in its own process, and
all they have in common with other nodes is the number of ranks. Prints the studies as JSON, by rank and epoch.

    python node_reader.py FOLDER WORLD_SIZE RANK..."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

EPOCHS = 2
SEED = 11


def of_rank(folder: str, world_size: int, rank: int) -> dict[str, list[list[str]]]:
    """The studies of each epoch: those of the loader on the mount's views, and those of `ctwds.Loader`."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size)}
    import ctwds
    from loading import from_shards, ids

    loader = from_shards(folder, shuffle=True, uneven="keep").make_loader(1, 0)
    views = []
    for epoch in range(EPOCHS):
        loader.set_epoch(epoch)
        views.append(ids(loader))
    own = ctwds.Loader(ctwds.open("ctwds.toml"), batch_size=2, seed=SEED, rank=rank, world_size=world_size)
    return {"views": views, "own": [[study for batch in own for study in batch.id] for _ in range(EPOCHS)]}


def main() -> None:
    """All ranks of this node at once."""
    folder, world_size, *ranks = sys.argv[1:]
    with ProcessPoolExecutor(len(ranks), mp_context=get_context("spawn")) as pool:
        tasks = {rank: pool.submit(of_rank, folder, int(world_size), int(rank)) for rank in ranks}
        print(json.dumps({rank: task.result(timeout=120) for rank, task in tasks.items()}))


if __name__ == "__main__":
    main()

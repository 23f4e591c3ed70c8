"""Reads `ctwds.open` under Lightning or Accelerate, one process a rank, and prints the studies of each epoch as JSON.

    python frameworks_in_process.py CASES FOLDER NPZ

CASES is one of the functions below. In processes of their own, as the packages are in an environment of their own
(scripts/setup.sh --frameworks). Rank and world size come from the environment, as torchrun sets it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ctwds
import torch
import torch.distributed as dist
from make_dataset import dataset_at
from torch.utils.data import DataLoader

Epochs = list[list[str]]
EPOCHS = 2


def opened(npz: str) -> ctwds.Volumes:
    """The data set, by its flags."""
    paths = dataset_at(Path(npz))
    names: dict[str, Any] = {"data_folder": paths.folder, "reports_file": paths.reports, "meta_file": paths.meta}
    return ctwds.open(**names, labels_file=paths.labels, threads=1)


def plain(data: Any) -> Any:
    """A loader as one writes it for any map-style data set."""
    return DataLoader(data, batch_size=None, num_workers=1, shuffle=True)


def lightning(npz: str) -> dict[str, Epochs]:
    """`Trainer.fit` with DDP, which puts a sampler of its own in the loader."""
    import lightning.pytorch as pl

    class Model(pl.LightningModule):
        """Notes what it is given."""

        def __init__(self, loader: Any) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.loader, self.seen = loader, list[list[str]]()

        def train_dataloader(self) -> Any:
            return self.loader

        def on_train_epoch_start(self) -> None:
            self.seen.append([])

        def training_step(self, given: Any, _: int) -> Any:
            batch = given if isinstance(given, ctwds.Batch) else None
            self.seen[-1] += batch.id if batch else [given.id]
            volumes = batch.volume if batch and isinstance(batch.volume, list) else [given.volume]
            return self.weight * sum(volume.float().mean() for volume in volumes)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    found = {}
    for name in ("plain", "Loader"):
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=2,
            strategy="ddp",
            max_epochs=EPOCHS,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        model = Model(plain(opened(npz)) if name == "plain" else own(npz, trainer.global_rank))
        trainer.fit(model)
        found[name] = model.seen
    return found


def own(npz: str, rank: int) -> ctwds.Loader:
    """The package's loader, with a rank's share."""
    return ctwds.Loader(opened(npz), batch_size=2, seed=1, rank=rank, world_size=2, drop_last=True)


def accelerate(npz: str) -> dict[str, Epochs]:
    """A loader that `prepare` was given, and the package's own, which needs none."""
    from accelerate import Accelerator, DataLoaderConfiguration

    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=False))
    data: Any = opened(npz)
    prepared = accelerator.prepare(DataLoader(data, batch_size=1, collate_fn=list, num_workers=1, shuffle=True))
    seen = [[sample.id for batch in prepared for sample in batch] for _ in range(EPOCHS)]
    mine = own(npz, accelerator.process_index)
    return {"plain": seen, "Loader": [[name for batch in mine for name in batch.id] for _ in range(EPOCHS)]}


if __name__ == "__main__":
    result = globals()[sys.argv[1]](sys.argv[3])
    print(json.dumps(result), flush=True)
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()

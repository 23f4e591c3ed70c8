"""Reads a data set of shards and one of NPZ files under Lightning or Accelerate, one process a rank, or with a
StatefulDataLoader, and prints the studies of every epoch, as JSON.

    python frameworks_reader.py CASES FOLDER NPZ

CASES is one of the functions below. In processes of their own, as the packages are in an environment of their own
(scripts/setup.sh --frameworks). Rank and world size come from the environment, as torchrun sets it."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ctreport_webdataset import CTReportDataset, CTReportWebDataset, EpochSampler, LoaderError, collate
from make_dataset import dataset_at
from torch.utils.data import DataLoader

TINY: dict[str, Any] = {"shape": (4, 4, 4), "spacing": (0.75, 0.75, 1.5), "seed": 3}
PLACES: list[str] = []
KINDS = ("shards", "npz")
Epochs = list[list[str]]


def make(kind: str, **options: Any) -> Any:
    """A shuffled data set of a kind."""
    if kind == "shards":
        return CTReportWebDataset(PLACES[0], buffer_size=1, **TINY, **options)
    paths = dataset_at(Path(PLACES[1]))
    return CTReportDataset(paths.folder, paths.reports, paths.meta, paths.labels, **TINY, **options)


def plain(data: Any, batch: int = 2, workers: int = 0, **options: Any) -> Any:
    """The arguments of a DataLoader as one would write it."""
    sampler = EpochSampler(data) if isinstance(data, CTReportDataset) else None
    return {
        "dataset": data,
        "batch_size": batch,
        "num_workers": workers,
        "sampler": sampler,
        "collate_fn": collate,
    } | options


def refusal(read: Any) -> str:
    """The message with which something is refused."""
    try:
        return f"nothing is refused: {read()}"
    except LoaderError as error:
        return f"refused: {error}"
    except TypeError as error:
        return f"TypeError: {error}"


# ----------------------------------------------------------------------------------------------------------- Lightning


def lightning() -> dict[str, Any]:
    """`Trainer.fit` with DDP: three epochs; then a fit that resumes after two of them."""
    import lightning.pytorch as pl

    class Model(pl.LightningModule):
        """Notes what it is given, and reduces gradients, which hangs where another rank has no such step."""

        def __init__(self, loader: Any) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.loader, self.seen = loader, list[list[str]]()

        def train_dataloader(self) -> Any:
            return self.loader()

        def on_train_epoch_start(self) -> None:
            self.seen.append([])

        def training_step(self, batch: Any, _: int) -> Any:
            self.seen[-1] += batch[3]
            return self.weight * batch[0].float().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def fit(loader: Any, epochs: int, path: str | None = None, **options: Any) -> tuple[Any, Epochs]:
        quiet = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        trainer = pl.Trainer(
            accelerator="cpu", devices=2, strategy="ddp", max_epochs=epochs, num_sanity_val_steps=0, **quiet, **options
        )
        model = Model(loader)
        trainer.fit(model, ckpt_path=path)
        return trainer, model.seen

    def resumed(loader: Any, folder: str) -> Epochs:
        first, seen = fit(loader, 2)
        first.save_checkpoint(path := f"{folder}/last.ckpt")
        dist.barrier()
        return seen + fit(loader, 4, path)[1]

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as own:
        folder = [own]
        fit(lambda: make("npz").make_loader(2, 0), 1)  # torch.distributed is there from now on
        dist.broadcast_object_list(folder)
        for kind, workers in itertools.product(KINDS, (0, 2)):

            def loader(kind: str = kind, workers: int = workers) -> Any:
                return make(kind).make_loader(2, workers)

            found[f"{kind} {workers}"] = fit(loader, 3)[1]
            found[f"{kind} {workers} resumed"] = resumed(loader, folder[0])
        found["npz plain resumed"] = resumed(lambda: DataLoader(**plain(make("npz"))), folder[0])
        found["npz plain 2"] = fit(lambda: DataLoader(**plain(make("npz"), workers=2)), 3)[1]
        found["refused"] = refusal(lambda: resumed(lambda: DataLoader(**plain(make("npz"), workers=2)), folder[0]))
        found["npz without use_distributed_sampler"] = fit(
            lambda: make("npz").make_loader(2, 0), 2, use_distributed_sampler=False
        )[1]
        dist.barrier()
    return found


# ---------------------------------------------------------------------------------------------------------- Accelerate


def accelerate() -> dict[str, Any]:
    """Loaders that `prepare` was given, in three epochs and after `set_epoch`; and what is refused."""
    from accelerate import Accelerator, DataLoaderConfiguration

    def epochs(accelerator: Any, loader: Any, last: int = 3) -> Epochs:
        model = torch.nn.Linear(1, 1)
        model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
        seen: Epochs = []
        for _ in range(last):
            seen.append([])
            for volumes, _, _, studies, _ in loader:
                seen[-1] += studies
                accelerator.backward(model(volumes.mean().reshape(1, 1)).sum())
                optimizer.step()
                optimizer.zero_grad()
        return seen

    def config(**options: Any) -> Any:
        return Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**options))

    found: dict[str, Any] = {}
    accelerator = Accelerator(cpu=True)
    configs = {
        "": {},
        " split": {"split_batches": True},
        " uneven": {"even_batches": False},
        " here": {"dispatch_batches": False},
    }
    for (name, options), kind, workers in itertools.product(configs.items(), KINDS, (0, 2)):
        if name and workers:
            continue  # once is enough
        accelerator = config(**options)
        loader = make(kind).make_loader(2, workers)
        prepared = accelerator.prepare(loader)
        assert prepared is loader
        found[f"{kind} {workers}{name}"] = epochs(accelerator, prepared)
        again = accelerator.prepare(make(kind).make_loader(2, workers))
        again.set_epoch(2)
        found[f"{kind} {workers}{name} resumed"] = epochs(accelerator, again, 2)
    for kind in KINDS:
        whole = make(kind, rank=0, world_size=1)
        loader = config(dispatch_batches=False).prepare(DataLoader(**plain(whole)))
        found[f"{kind} given whole"] = epochs(accelerator, loader)
        for name, options in configs.items():
            own = config(**options)
            loader = own.prepare(DataLoader(**plain(make(kind))))
            found[f"{kind} plain{name}"] = refusal(lambda own=own, loader=loader: epochs(own, loader, 1))
    dist.barrier()
    return found


# -------------------------------------------------------------------------------------------------- StatefulDataLoader


def stateful() -> dict[str, Any]:
    """Three epochs, in the second of which the state is saved, restored in a new loader, and read on."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    def studies(batches: Iterable[Any]) -> list[str]:
        return [study for batch in batches for study in batch[3]]

    def restored(kind: str, workers: int, kept: bool, at: int) -> tuple[Epochs, Epochs]:
        options = plain(make(kind), 2, workers, persistent_workers=kept)
        loader = StatefulDataLoader(**options)
        before = []
        for epoch in range(2):
            options["dataset"].set_epoch(epoch)
            running: Iterator[Any] = iter(loader)
            before.append(studies(itertools.islice(running, at if epoch else None)))
        state = loader.state_dict()
        options = plain(make(kind), 2, workers, persistent_workers=kept)
        loader = StatefulDataLoader(**options)
        loader.load_state_dict(state)
        after = [studies(loader)]
        options["dataset"].set_epoch(2)
        return before, [*after, studies(loader)]

    found: dict[str, Any] = {}
    for kind, (workers, kept), at in itertools.product(KINDS, ((0, False), (2, False), (2, True)), (0, 3)):
        found[f"{kind} {workers} {kept} {at}"] = restored(kind, workers, kept, at)
    return found


if __name__ == "__main__":
    PLACES[:] = sys.argv[2:]
    cases = {"lightning": lightning, "accelerate": accelerate, "stateful": stateful}[sys.argv[1]]
    with contextlib.redirect_stdout(sys.stderr):
        result = cases()
    print(json.dumps(result))
    if dist.is_initialized():
        dist.destroy_process_group()

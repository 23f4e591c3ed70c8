"""Stops in the middle of an epoch and goes on from a checkpoint of Lightning or Accelerate, or from a state of
torchdata's StatefulDataLoader, one process a rank, and prints the studies of each epoch as JSON.

    CHECKPOINTS=DIR python frameworks_resume.py CASES FOLDER NPZ

CASES is one of the functions below. Those with `again` at the end go on from the checkpoints that the others have left,
also with another number of ranks. In processes of their own, see frameworks_in_process.py."""

from __future__ import annotations

import itertools
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import ctwds
import torch
import torch.distributed as dist
from frameworks_in_process import opened
from frameworks_reader import TINY

CASES, FOLDER, NPZ = sys.argv[1:]
KINDS = ("Loader", "shards")
STOP = 2  # steps of an epoch
RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
Epochs = list[list[str]]


def place(name: str) -> str:
    """Where a checkpoint is."""
    return str(Path(os.environ["CHECKPOINTS"]) / name)


def make(kind: str) -> Any:
    """A loader of batches of two samples, of this rank's share."""
    if kind == "Loader":
        return ctwds.Loader(opened(NPZ), batch_size=2, seed=1, rank=RANK, world_size=WORLD, drop_last=True)
    return ctwds.CTReportWebDataset(FOLDER, kind == "buffer", **TINY).make_loader(2, 2)


def ids(batch: Any) -> list[str]:
    """The studies of a batch."""
    found: list[str] = batch.id if isinstance(batch, ctwds.Batch) else batch[3]
    return found


# ----------------------------------------------------------------------------------------------------------- Lightning


def fit(kind: str, path: str | None, **options: Any) -> tuple[Any, Epochs]:
    """A training, and what it was given in each epoch."""
    import lightning.pytorch as pl

    class Model(pl.LightningModule):
        """Notes what it is given; gradients are reduced, which hangs where another rank has no such step."""

        def __init__(self) -> None:
            super().__init__()
            self.first = 0
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.seen, self.validated = list[list[str]](), list[str]()

        def on_train_batch_start(self, *_: Any) -> None:
            epoch = len(self.seen) + self.first - 1 if self.seen else None
            if epoch != self.current_epoch:
                self.first = self.first if self.seen else self.current_epoch
                self.seen.append([])

        def on_train_batch_end(self, *_: Any) -> None:
            if self.trainer.global_step == options.get("max_steps"):
                self.trainer.save_checkpoint(place(kind))

        def training_step(self, batch: Any, _: int) -> Any:
            self.seen[-1] += ids(batch)
            return self.weight * (2.0 + len(ids(batch)))

        def validation_step(self, batch: Any, _: int) -> None:
            self.validated += ids(batch)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Alone(Model):
        """A loader without a DataModule."""

        def train_dataloader(self) -> Any:
            return make(kind)

    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=WORLD,
        strategy="ddp",
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=int(kind == "module"),
        **dict.fromkeys(quiet, False),
        **options,
    )
    if kind == "module":
        data = opened(NPZ)
        model: Any = Model()
        trainer.fit(model, ctwds.DataModule(data, data[:5], batch_size=2, seed=1), ckpt_path=path)
        whole: list[Any] = [None] * WORLD
        dist.all_gather_object(whole, model.validated)
        wanted = data.keys()[:5] * (len(model.seen) - ("max_steps" in options) - (CASES == "lightning_again"))
        assert sorted(itertools.chain.from_iterable(whole)) == sorted(wanted), (whole, wanted)
    else:
        trainer.fit(model := Alone(), ckpt_path=path)
    return trainer, model.seen


def lightning() -> dict[str, list[Epochs]]:
    """Stops in the second epoch, and goes on; and stops behind a whole epoch."""
    found = {}
    for kind in (*KINDS, "module"):
        _, before = fit(kind, None, max_steps=4 + STOP)
        dist.barrier()
        found[kind] = [before, fit(kind, place(kind), max_epochs=3)[1]]
        trainer, before = fit(kind, None, max_epochs=1)
        trainer.save_checkpoint(place(f"{kind} whole"))
        dist.barrier()
        found[f"{kind} whole"] = [before, fit(kind, place(f"{kind} whole"), max_epochs=3)[1]]
    return found


def lightning_first() -> dict[str, list[Epochs]]:
    """Stops in the first epoch, behind more steps than it has with twice as many ranks. What a DataModule cannot do it
    says when it is made, or asked for it."""
    assert "DataModule" in ctwds.__all__
    refused: list[tuple[Any, str]] = [
        (lambda: ctwds.DataModule(opened(NPZ), rank=1), "rank is chosen by Lightning"),
        (lambda: ctwds.DataModule(opened(NPZ), batch_size=0), "batch_size is 0"),
        (lambda: ctwds.DataModule().predict_dataloader(), "DataModule was made without predict="),
    ]
    for call, why in refused:
        try:
            raise AssertionError(f"nothing is refused: {call()}")
        except ctwds.UsageError as error:
            assert why in str(error), error
    found = {}
    for kind in (*KINDS, "module"):
        found[kind] = [fit(kind, None, max_steps=6)[1]]
    return found


def lightning_again() -> dict[str, list[Epochs]]:
    """Goes on from the checkpoints."""
    return {kind: [fit(kind, place(kind), max_epochs=3)[1]] for kind in (*KINDS, "module")}


def lightning_unsaved() -> dict[str, Any]:
    """What is warned of where a loader has no order: behind a stop in the middle of an epoch, and behind a whole."""
    found: dict[str, Any] = {}
    for name, end in {"middle": {"max_steps": STOP}, "whole": {"max_steps": 8}}.items():
        fit("buffer", None, **end)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            epochs = fit("buffer", place("buffer"), max_epochs=2)[1]
        found[name] = [epochs, [str(each.message) for each in caught if "middle of an epoch" in str(each.message)]]
    return found


# ---------------------------------------------------------------------------------------------------------- Accelerate


def accelerate() -> dict[str, list[Epochs]]:
    """Stops in the first epoch."""
    from accelerate import Accelerator

    found = {}
    for kind in KINDS:
        accelerator = Accelerator(cpu=True)
        loader = make(kind)
        accelerator.register_for_checkpointing(loader)
        before = [name for batch in itertools.islice(loader, STOP) for name in ids(batch)]
        accelerator.save_state(place(kind))
        accelerator.wait_for_everyone()
        found[kind] = [[before], accelerate_again()[kind][0]]
    return found


def accelerate_again() -> dict[str, list[Epochs]]:
    """Goes on from the checkpoints that are there, for two epochs."""
    from accelerate import Accelerator

    found = {}
    for kind in KINDS:
        if not Path(place(kind)).exists():
            continue
        accelerator = Accelerator(cpu=True)
        loader = make(kind)
        accelerator.register_for_checkpointing(loader)
        accelerator.load_state(place(kind))
        found[kind] = [[[name for batch in loader for name in ids(batch)] for _ in range(2)]]
    return found


# -------------------------------------------------------------------------------------------------- StatefulDataLoader


def stateful() -> dict[str, list[Epochs]]:
    """A data set of `ctwds.open` in worker processes, and `ctwds.Loader` as what is iterated."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    unknown = ctwds.CTReportWebDataset(FOLDER, False, **TINY).make_loader(2, 2, in_order=False)  # of today's PyTorch
    try:
        raise AssertionError(unknown.state_dict())
    except ctwds.LoaderError as error:
        assert "with in_order=False nobody knows which batches were given" in str(error)

    def loader(kind: str) -> Any:
        if kind == "data":
            data: Any = opened(NPZ)
            return StatefulDataLoader(data, batch_size=2, collate_fn=list, num_workers=2, shuffle=True)
        return StatefulDataLoader(make("Loader"), batch_size=None, num_workers=0)

    def names(batch: Any) -> list[str]:
        return ids(batch) if isinstance(batch, ctwds.Batch) else [sample.id for sample in batch]

    found = {}
    for kind in ("data", "Loader"):
        first = loader(kind)
        before = [name for batch in itertools.islice(first, STOP) for name in names(batch)]
        state = first.state_dict()
        second = loader(kind)
        second.load_state_dict(state)
        found[kind] = [[before], [[name for batch in second for name in names(batch)] for _ in range(2)]]
        whole = [[name for batch in second for name in names(batch)]]  # the third epoch
        third = loader(kind)
        third.load_state_dict(second.state_dict())
        after = [[name for batch in each for name in names(batch)] for each in (third, second)]
        found[f"{kind} whole"] = [whole, after]
    return found


if __name__ == "__main__":
    result = globals()[CASES]()
    print(json.dumps(result), flush=True)
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()

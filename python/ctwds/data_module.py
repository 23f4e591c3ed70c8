"""The data of a training under Lightning."""

from __future__ import annotations

from typing import Any

from .errors import UsageError
from .loader import Loader
from .volumes import Volumes

try:
    from lightning.pytorch import LightningDataModule
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "lightning":
        raise  # of a package that Lightning needs
    from pytorch_lightning import LightningDataModule


class DataModule(LightningDataModule):  # type: ignore[misc] # Lightning is not there where types are checked
    """Data sets of `ctwds.open` for `Trainer.fit(model, datamodule=...)`, each read by a `ctwds.Loader` with the rank's
    share: `batch` is a `ctwds.Batch`. Only where Lightning is installed (`lightning` or `pytorch_lightning`).

    Lightning's checkpoints hold the place in the epoch, and a training goes on there, also on another number of ranks:
    then with `Trainer(reload_dataloaders_every_n_epochs=1)`, as Lightning would count all later epochs by the batches
    of that one, and without the validation at its end.

    Args:
        train: the samples to train with, shuffled by `seed` in each epoch; the last ones that do not fill a batch of
            each rank are left out.
        val, test, predict: other samples, in their order, each once over all ranks.
        batch_size: the samples of a batch of each rank.
        seed: shuffles `train` as `Loader` does; None keeps the order.
        options: what else `Loader` takes: threads, dtype, layout, ahead, on_error.

    Raises:
        PackageMissing: Lightning is not installed.
        UsageError: a number is wrong, or a loader is wanted of samples that were not given.
        LoaderError: another option is none of those there are.
    """

    def __init__(
        self,
        train: Volumes | None = None,
        val: Volumes | None = None,
        test: Volumes | None = None,
        predict: Volumes | None = None,
        *,
        batch_size: int = 1,
        seed: int | None = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        taken = sorted({"rank", "world_size", "drop_last"} & options.keys())
        if taken:
            raise UsageError(f"{taken[0]} is chosen by Lightning's trainer; leave it away")
        self._data = {"train": train, "val": val, "test": test, "predict": predict}
        self._seed, self._options = seed, {"batch_size": batch_size, **options}
        for data in self._data.values():
            if data is not None:
                Loader(data, **self._options)  # refuses wrong options now, and not when the training begins

    def _loader(self, name: str, *, is_training: bool = False) -> Loader:
        if (data := self._data[name]) is None:
            raise UsageError(f"the trainer asks for samples of {name!r}, and DataModule was made without {name}=")
        world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        share: dict[str, Any] = {"rank": world[0], "world_size": world[1], "drop_last": is_training}
        loader = Loader(data, seed=self._seed if is_training else None, **share, **self._options)
        if is_training and self.trainer:
            loader.set_epoch(self.trainer.current_epoch)  # for a trainer that asks for a new loader in each epoch
        return loader

    def train_dataloader(self) -> Loader:
        """Batches of `train`, in the next order with each epoch."""
        return self._loader("train", is_training=True)

    def val_dataloader(self) -> Loader | list[Loader]:
        """Batches of `val`; nothing if there is none, so that a training needs no validation."""
        return [] if self._data["val"] is None else self._loader("val")

    def test_dataloader(self) -> Loader:
        """Batches of `test`."""
        return self._loader("test")

    def predict_dataloader(self) -> Loader:
        """Batches of `predict`."""
        return self._loader("predict")

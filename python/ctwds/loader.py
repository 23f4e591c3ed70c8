"""Batches of a data set by threads of this process: no worker processes, no copies between processes."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from .basics import dtype_name
from .batch_reader import BatchReader, Pending
from .errors import DamagedError, UsageError, choice, whole_number
from .torch_loader import is_distributed
from .volumes import Volumes


class Batch(NamedTuple):
    """Some samples.

    Attributes:
        id: the study ids.
        volume: a tensor (B, ...) of the volumes in the shards' layout, (B, H, W, D), or with `layout="training"`
            (B, 1, D, H, W); a list of such tensors of one sample each where the shapes differ.
        text: the reports.
        labels: a float32 tensor (B, classes).
        meta: the JSON of each sample.
        also: the arrays beside the volumes, by name: a list of tensors each.
    """

    id: list[str]
    volume: Any
    text: list[str]
    labels: torch.Tensor
    meta: list[dict[str, Any]]
    also: dict[str, list[torch.Tensor]]


class Loader(IterableDataset[Batch]):
    """Batches of the samples of `ctwds.open`, decoded by threads of this process into tensors that are used again.

    A batch's tensors stay as they are for as long as anything refers to them. Each `iter` is one epoch; the next one
    has the next order, unless nothing was read of the one before. Breaking off, or an exception, ends all threads.
    Lightning takes a loader as it is, and keeps its state in checkpoints; Accelerate does so after
    `accelerator.register_for_checkpointing(loader)`, and torchdata's
    `StatefulDataLoader(loader, batch_size=None, num_workers=0)`.

    Args:
        data: the samples.
        batch_size: the samples of a batch of this rank.
        threads: the number of decoding threads.
        seed: shuffles: the order of epoch e is that of `ctwds-fs mount --shuffle-seed SEED` in `epochs/e`, without the
            samples that are not in `data`. None keeps the order of the data set.
        rank, world_size: this process's share: of each `batch_size * world_size` consecutive samples of the epoch's
            order rank r gets the r-th part. By default all samples are this process's, with a warning where there are
            other ranks of torch.distributed; `rank=0, world_size=1` says so without one.
        drop_last: leaves out the last samples of an epoch where they do not fill the batches of all ranks. Without it
            they are spread evenly, and with several ranks one may get a batch less: distributed training needs
            `drop_last=True`.
        dtype: "float16", or "float32" for the values of float16 widened, or PyTorch's dtype of that name; None for that
            of the data set.
        layout: "shards" for (B, H, W, D), "training" for (B, 1, D, H, W), a view of the same memory.
        ahead: batches that are read ahead of the one that is handed out.
        on_error: "raise", or "skip" to leave out samples that are damaged: they are warned of and listed in `skipped`.
            A batch of which nothing is left is not given: with several ranks, of which then one has a batch less,
            distributed training waits for it for ever. There leave damaged samples out with `subset`, or `exclude`.

    Raises:
        UsageError: an option is wrong, or does not fit the data set.
        LoaderError: an option is none of those there are.
    """

    def __init__(
        self,
        data: Volumes,
        *,
        batch_size: int = 1,
        threads: int = 2,
        seed: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
        dtype: str | torch.dtype | None = None,
        layout: str = "shards",
        ahead: int = 2,
        on_error: str = "raise",
    ) -> None:
        if not isinstance(data, Volumes):
            raise UsageError(f"data is of {type(data).__name__}; it must be what ctwds.open returns, or a part of that")
        self.data = data
        self.batch_size, self.threads = whole_number("batch_size", batch_size, 1), whole_number("threads", threads, 1)
        self.seed = None if seed is None else whole_number("seed", seed, 0)
        if (rank is None) != (world_size is None):
            raise UsageError("rank and world_size are given together, or neither")
        self._has_rank = rank is not None
        world_size, rank = (1, 0) if world_size is None else (world_size, rank)
        self.world_size = whole_number("world_size", world_size, 1)
        self.rank = whole_number("rank (of world_size, counted from 0)", rank, 0, self.world_size - 1)
        self.ahead, self.drop_last = whole_number("ahead", ahead, 1), drop_last
        self._dtype = choice("dtype", dtype_name(dtype), (None, "float16", "float32"))
        voxels = data._shards.dtype
        if self._dtype not in (None, voxels) and (self._dtype, voxels) != ("float32", "float16"):
            raise UsageError(
                f"dtype is {self._dtype!r}, and the voxels of the data set are {voxels}: leave dtype away, or open the "
                f"data set with output_dtype={self._dtype!r}"
            )
        self._layout = choice("layout", layout, ("shards", "training"))
        self._on_error = choice("on_error", on_error, ("raise", "skip"))
        self.skipped: dict[str, str] = {}
        self._next = (0, 0)  # epoch, and samples of all ranks that were consumed of it
        self._now = (0, 0)
        self._taken = 0  # batches of the epoch by this rank
        self._loaded: tuple[int, int, int] | None = None  # epoch, samples and batches of the state that was loaded
        self._begun: int | None = None  # the epoch of an iteration of which nothing was read yet
        self._late: int | None = None  # what Lightning has chosen for that one
        self.batch_sampler = None  # for Lightning, as `sampler` is
        self._cache = (self.threads + 1) * max(1, data._shards.largest())

    @property
    def memory(self) -> int:
        """The bytes of memory that volumes take at most: of the decoders, and of the batches in flight where all
        volumes are as large as the largest."""
        wide = 2 if self._dtype == "float32" and self.data._shards.dtype == "float16" else 1
        batches = (self.ahead + 2) * self.batch_size * wide * self.data._shards.largest()
        return self._cache + batches

    @property
    def sampler(self) -> _Sampler:
        """For Lightning, which tells it the epoch."""
        return _Sampler(self)

    def __len__(self) -> int:
        """The batches of an epoch of this rank; where one goes on that was begun with other ranks or batches, the
        larger of that and what it has in all."""
        epoch, consumed, taken = self._loaded or (0, 0, 0)
        # Lightning counts from the batches on that were taken before the stop, and ends by this number.
        return max(len(self._batches(0, 0)), taken + len(self._batches(epoch, consumed)))

    def set_epoch(self, epoch: int) -> None:
        """Make this the epoch of the next `iter`, from its beginning on; but where a state of this epoch was loaded
        last, from that on."""
        epoch = whole_number("epoch", epoch, 0)
        if self._loaded is None or self._next != self._loaded[:2] or epoch != self._next[0]:
            self._loaded, self._next, self._now, self._taken = None, (epoch, 0), (epoch, 0), 0

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is: what the next batch is of. The same for all ranks that have taken as many batches."""
        epoch, consumed = self._now
        return {
            "version": 1,
            "digest": self.data.digest,
            "samples": self._samples_digest(),
            "seed": self.seed,
            "epoch": epoch,
            "consumed": consumed,
            "batches": self._taken,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken, with any number of ranks and threads: the rest of the epoch has each remaining
        sample once, in the same order.

        Raises:
            UsageError: the state is of other data, of another selection, or of another seed.
        """
        if not isinstance(state, Mapping):
            raise UsageError(f"not a state of ctwds.Loader, but of {type(state).__name__}: {state!r}")
        mine = self.state_dict()
        named = {"digest": "data set (files, tables or options)", "samples": "selection of samples", "seed": "seed"}
        for key, what in {"version": "version of this package", **named}.items():
            if state.get(key) != mine[key]:
                raise UsageError(
                    f"the state is of another {what}: {key} was {state.get(key)!r}, and is {mine[key]!r}; begin anew, "
                    "or open what was opened then"
                )
        try:
            epoch, consumed, taken = (
                whole_number(name, state.get(name), 0) for name in ("epoch", "consumed", "batches")
            )
            whole_number("consumed", consumed, 0, len(self.data))
        except UsageError as error:
            raise UsageError(f"not a state of ctwds.Loader, as {error}: {dict(state)!r}") from error
        self._taken = taken
        self._next = self._now = (epoch, consumed)
        self._loaded = (epoch, consumed, self._taken)

    def __iter__(self) -> Iterator[Batch]:
        if get_worker_info() is not None:
            raise UsageError("ctwds.Loader has threads of its own, and a DataLoader around it num_workers=0")
        self.data._refuse_closed()
        if not self._has_rank and is_distributed() and (ranks := torch.distributed.get_world_size()) > 1:
            warnings.warn(
                f"each of the {ranks} ranks reads all samples: give ctwds.Loader rank= and world_size=, so that each "
                "reads its share; rank=0, world_size=1 if this is meant",
                stacklevel=2,
            )
        if self._begun is not None and self._next == (self._begun + 1, 0):
            self._next = self._now  # StatefulDataLoader asks twice, and reads the second
        if self._loaded and self._loaded[:2] != self._next:
            self._loaded = None
        self._go_to_next()
        epoch, consumed = self._now
        self._next = (epoch + 1, 0)
        self._begun, self._late = epoch, None
        return self._epoch(epoch, consumed, self._taken)

    def _go_to_next(self) -> None:
        """Let a state be of where the next iteration begins."""
        taken = self._loaded[2] if self._loaded and self._loaded[:2] == self._next else 0
        self._now, self._taken = self._next, taken

    def _set_late(self, epoch: int) -> None:
        """Make this the epoch of the next iteration, and of one that has begun if nothing was read of it."""
        if epoch == self._begun == self._now[0]:
            self._next = self._now
        else:
            self.set_epoch(epoch)
        self._late = epoch

    def _samples_digest(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.data._chosen, "<u4").tobytes()).hexdigest()

    def _order(self, epoch: int) -> NDArray[Any]:
        """The numbers of the samples in the order of an epoch."""
        chosen = self.data._chosen
        if self.seed is None:
            return chosen
        order = self.data._shards.order(self.seed, epoch)
        return order if len(chosen) == len(order) else order[np.isin(order, chosen)]

    def _batches(self, epoch: int, consumed: int) -> list[list[int]]:
        """The batches of this rank that are left of an epoch."""
        rest, together = self._order(epoch)[consumed:], self.batch_size * self.world_size
        batches = []
        for start in range(0, len(rest), together):
            part = rest[start : start + together]
            if len(part) < together:
                if self.drop_last:
                    break
                part = np.array_split(part, self.world_size)[self.rank]
            else:
                part = part[self.rank * self.batch_size :][: self.batch_size]
            if len(part):
                batches.append([int(number) for number in part])
        return batches

    def _epoch(self, epoch: int, consumed: int, taken: int) -> Iterator[Batch]:
        if self._late is not None:
            epoch, consumed, taken = (epoch, consumed, taken) if self._late == epoch else (self._late, 0, 0)
            self._next = (epoch + 1, 0)
        self._begun = self._late = None
        self._now, self._taken = (epoch, consumed), taken
        total, together = len(self.data), self.batch_size * self.world_size
        options: dict[str, Any] = {"threads": self.threads, "cache": self._cache, "ahead": self.ahead}
        with BatchReader(self.data, self._batches(epoch, consumed), dtype=self._dtype, **options) as reader:
            for ready in reader:
                batch = self._finished(ready)
                del ready  # or its array would count as used
                consumed, taken = min(consumed + together, total), taken + 1
                # Behind an epoch's last batch, a state goes on with the next epoch.
                left = total - consumed
                self._now, self._taken = (epoch, consumed), taken
                if left == 0 or (self.drop_last and left < together):
                    self._go_to_next()
                if batch is not None:
                    yield batch
                del batch
            self._go_to_next()  # here too, as a rank may have no part of the last batches

    def _finished(self, pending: Pending) -> Batch | None:
        """The batch whose volumes were read; None if no sample of it could be."""
        for place, error in sorted(pending.errors.items()):
            name = pending.infos[place].id
            if self._on_error == "raise" or not isinstance(error, DamagedError):
                raise error
            self.skipped[name] = str(error)
            warnings.warn(f"left out: {name}: {error}", stacklevel=3)
        good = [place for place in range(len(pending.infos)) if place not in pending.errors]
        if not good:
            return None
        infos = [pending.infos[place] for place in good]
        if pending.whole is not None:
            volume: Any = self._laid_out(torch.from_numpy(pending.whole))
            volume = volume if len(good) == len(pending.infos) else volume[good]
        else:
            volume = [self._laid_out(torch.from_numpy(pending.outs[place][None])) for place in good]
        also = {name: [torch.from_numpy(pending.also[place][name]) for place in good] for name in self.data.also_names}
        labels = torch.from_numpy(np.stack([info.labels for info in infos]).astype(np.float32, copy=False))
        return Batch(
            [info.id for info in infos], volume, [info.text for info in infos], labels, [i.meta for i in infos], also
        )

    def _laid_out(self, volume: torch.Tensor) -> torch.Tensor:
        return volume if self._layout == "shards" else volume.permute(0, 3, 1, 2).unsqueeze(1)


class _Sampler:
    """Where Lightning looks for a loader's `set_epoch`: before each iteration, and after the first one has begun."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        """Decide the epoch."""
        self._loader._set_late(epoch)

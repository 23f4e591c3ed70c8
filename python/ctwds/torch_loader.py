"""The DataLoader of both data sets, and their ranks."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from .batches import ROOM_REMEDY, SHARED, collate
from .epoch_sampler import EpochSampler
from .epochs import Clock, caller_of, refuse_second_split
from .errors import LengthUnknown, LoaderError, choice
from .preprocess import Sample

if TYPE_CHECKING:
    from .resume import Start

LIGHTNING = ("lightning", "pytorch_lightning")


class Epochs(Dataset[Sample]):
    """What both data sets have: the epoch, the rank, and the loader."""

    def __init__(
        self, shuffle: bool, mode: str, seed: int, rank: int | None, world_size: int | None, uneven: str
    ) -> None:
        self.mode = choice("mode", mode, ("train", "val"))
        self.shuffle, self.seed = shuffle and mode == "train", seed
        self.uneven = choice("uneven", uneven, ("pad", "drop", "keep"))
        if (rank is None) != (world_size is None):
            raise LoaderError("rank and world_size are given together, or neither")
        self._given = None if rank is None or world_size is None else (rank, world_size)
        self.rank, self.world_size = self._find_world()
        self._clock = Clock()

    def _find_world(self) -> tuple[int, int]:
        if self._given:
            world = self._given
        elif is_distributed():
            world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        else:
            world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if not 0 <= world[0] < world[1]:
            raise LoaderError(f"rank {world[0]} of {world[1]} processes: check RANK and WORLD_SIZE, or the arguments")
        return world

    def _check_world(self) -> None:
        """Refuse a rank that was found before there were ranks. A spawned worker cannot know them."""
        if get_worker_info() is not None and not is_distributed():
            return
        if (self.rank, self.world_size) != self._find_world():
            raise LoaderError(
                "torch.distributed was initialised after the data set was made: make it after that (with Lightning in "
                "train_dataloader(), with Accelerate after Accelerator())"
            )

    @property
    def epoch(self) -> int:
        """The epoch that began last, or the one that `set_epoch` has chosen since; at first 0."""
        self._clock.listen()
        return self._clock.next if self._clock.begun is None else self._clock.begun

    def set_epoch(self, epoch: int) -> None:
        """Decide the epoch of the next iteration, of every loader; called on every rank, before `iter(loader)`."""
        refuse_second_split(self.world_size)
        self._clock.set(epoch)
        self._tell()

    def make_loader(
        self, batch_size: int | None, num_workers: int = 4, prefetch_factor: int = 2, **options: Any
    ) -> CTReportLoader:
        """A DataLoader of batches (volumes (B, 1, D, H, W), list of texts, labels (B, classes), list of study ids,
        embeddings); of samples, if `batch_size` is None. `options` are DataLoader's; by default workers are persistent,
        and memory is pinned where there is a GPU. LoaderError if there are fewer shards than workers of all ranks."""
        together = one_sample if batch_size is None else collate
        options = {
            "pin_memory": torch.cuda.is_available(),
            "collate_fn": together,
            "sampler": self._sampler(),
        } | options
        if num_workers > 0:
            options = {"persistent_workers": True, "prefetch_factor": prefetch_factor} | options
        else:
            options.pop("persistent_workers", None)
        loader = CTReportLoader(self, batch_size, num_workers=num_workers, **options)
        loader.dataset._check(num_workers, prefetch_factor)
        return loader

    create_pytorch_dataloader = make_loader

    def _of_loader(self, batch_size: int | None, drop_last: bool) -> Epochs:
        """The data set as one loader reads it."""
        return self

    def _tell(self, begun: int | None = None, start: Start | None = None) -> None:
        """To workers that are there already: `set_epoch` was called, or a loader of make_loader begins an epoch, maybe
        in its middle."""

    def _unsaved(self) -> str | None:
        """Why a loader has no state that another one could go on from, and what has; None if it has one."""
        return (
            "the state of a loader of files cannot be saved: take ctwds.Loader, or shards: the views of a mount with "
            "--shuffle-seed, or unshuffled ones with a manifest"
        )

    def _state(self, epoch: int, start: Start | None, given: int, workers: int) -> dict[str, Any]:
        """The state of a loader that has given so many batches of an epoch behind a start; empty behind its last."""
        raise LoaderError(str(self._unsaved()))

    def _start_of(self, state: Mapping[str, Any]) -> tuple[int, Start | None]:
        """The epoch of a state, and where in it."""
        raise LoaderError(str(self._unsaved()))

    def _sampler(self) -> Sampler[int] | None:
        return None

    def _check(self, workers: int, prefetch: int) -> None:
        """Refuse what could not work."""

    def _batches(self, workers: int) -> int | None:
        """How many batches a loader gives, if its sampler does not tell."""
        return None

    def _batches_behind(self, epoch: int, start: Start, workers: int) -> int:
        """How many batches a loader gives behind a start."""
        raise LoaderError(str(self._unsaved()))


def is_distributed() -> bool:
    """Whether this process knows its rank of torch.distributed."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def one_sample(sample: Sample) -> Sample:
    """A sample as it is, where PyTorch's own function would make tensors of the labels."""
    return sample


class _AtOnce:
    """The indices of all batches, drawn when an iteration begins. PyTorch's BatchSampler draws the first ones when the
    first batch is wanted, of whatever epoch it is then."""

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._sampler))


class _Batches(Iterator[Any]):
    """What a CTReportLoader gives in one iteration."""

    def __init__(self, loader: CTReportLoader) -> None:
        self._loader = loader
        self._batches: Any = loader._start()
        self._epoch, self._untouched, self._place = loader._clock.begun, True, loader._place
        self._failed = False

    def __next__(self) -> Any:
        if self._untouched:
            self._untouched = False
            clock = self._loader._clock
            if clock.late is not None and clock.late != self._epoch:
                self._batches = None  # ends its workers, if they are not kept
                self._batches = self._loader._start()
                self._place = self._loader._place
            elif clock.late is not None:
                clock.go_on(clock.late)
        try:
            found = next(self._batches)
        except StopIteration:
            self._place.ended = not self._failed
            raise
        except BaseException as error:
            self._failed = True
            if "killed by signal: Bus error" not in f"{error} {error.__cause__}":
                raise
            raise LoaderError(f"{SHARED} is full, a worker could not write its batch: {ROOM_REMEDY}") from error
        if not self._failed:  # else the place stays before the error: what was there and behind it comes once more
            clock = self._loader._clock
            clock.listen()
            self._place.given, self._place.calls = self._place.given + 1, clock.calls
            self._loader._place = self._place
        return found

    def __len__(self) -> int:
        return len(self._loader)


@dataclass
class _Place:
    """How far an iteration is: so many batches behind a start in its epoch."""

    epoch: int
    start: Start | None
    given: int = 0
    ended: bool = False  # also where other ranks have more batches
    calls: int = -1  # of set_epoch, before its last batch was given


class CTReportLoader(DataLoader[Any]):
    """A DataLoader whose epochs go on by themselves, and that knows how many batches it gives: what `make_loader` of a
    data set returns. `len(loader)` is the number of batches of this rank in an epoch (where one goes on that
    was begun on other ranks, the larger of that and what it has in all); it raises LengthUnknown where no manifest says
    it. An error in a worker is raised by the iteration, as LoaderError."""

    dataset: Epochs
    # For Accelerate's prepare(): leave this loader as it is, in which every rank reads its own share.
    _is_accelerate_prepared = True

    def __init__(self, dataset: Epochs, batch_size: int | None = 1, **options: Any) -> None:
        data = dataset._of_loader(batch_size, bool(options.get("drop_last", False)))
        super().__init__(data, batch_size, **options)
        self._loaded: tuple[int, Start | None] | None = None
        self._place = _Place(-1, None)
        if isinstance(data, IterableDataset):
            vars(self.sampler)["set_epoch"] = data._clock.set_late  # PyTorch's own sampler has no such function

    @property
    def _clock(self) -> Clock:
        return self.sampler.clock if isinstance(self.sampler, EpochSampler) else self.dataset._clock

    def set_epoch(self, epoch: int) -> None:
        """Decide the epoch of the next iteration of this loader. Where it is the epoch of a state that was loaded, the
        iteration still begins in its middle."""
        refuse_second_split(self.dataset.world_size)
        self._clock.set(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is, to go on behind the last batch that it has given: the digest of the data set, the
        seed, the epoch, how many samples all ranks have consumed of it, and how they were dealt. The same for all ranks
        that have taken as many batches. A batch counts as consumed when it was handed out.

        LoaderError where the order is not known: other loaders than those of views of `mount --shuffle-seed` and of
        unshuffled shards with a manifest. Lightning, which saves the state of every loader, gets one there
        that warns when it is loaded, or an empty one between two epochs."""
        data, clock = self.dataset, self._clock
        if reason := self._unsaved():
            if caller_of(1) in LIGHTNING:
                return self._only_warns(reason)
            raise LoaderError(reason)
        clock.listen()
        place = self._place
        is_in_it = place.calls == clock.calls or (clock.late if clock.begun is None else clock.begun) == place.epoch
        if is_in_it and not place.ended:
            state = data._state(place.epoch, place.start, place.given, self.num_workers)
            if state:
                return state
        start = self._loaded[1] if self._loaded and self._loaded[0] == clock.next else None
        return data._state(clock.next, start, 0, self.num_workers)

    def _only_warns(self, reason: str) -> dict[str, Any]:
        """A state for Lightning, which does not warn of loaders that have some, and counts the epoch's batches on."""
        given = 0 if self._place.ended else self._place.given
        with contextlib.suppress(LengthUnknown):
            given = 0 if given == len(self) else given
        return {"unsaved": reason} if given else {}

    def _unsaved(self) -> str | None:
        if getattr(self, "in_order", True):
            return self.dataset._unsaved()
        return "with in_order=False nobody knows which batches were given: leave it away to save the loader's state"

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on where a state was taken: with any number of ranks, workers and samples a batch,
        the rest of its epoch has each remaining sample once, in the same order over all ranks.

        LoaderError where the state is of other data, shards, seed or views; the message names what differs."""
        if not state:
            return  # what Lightning has of a loader without an order between two epochs: it tells the epoch
        if unsaved := state.get("unsaved"):
            warnings.warn(
                "the checkpoint was taken in the middle of an epoch. Lightning counts on from there, but the loader "
                "begins the epoch anew: some samples come twice, and others not at all. Take checkpoints at the end of "
                f"an epoch. {unsaved}",
                stacklevel=2,
            )
            return
        if reason := self._unsaved():
            raise LoaderError(reason)
        self._loaded = self.dataset._start_of(state)
        self._clock.set(self._loaded[0])

    @property
    def _index_sampler(self) -> Any:
        """DataLoader's, for its iterators."""
        sampler = super()._index_sampler
        return sampler if isinstance(self.dataset, IterableDataset) else _AtOnce(sampler)

    def __iter__(self) -> Any:
        self.dataset._check_world()
        return _Batches(self)

    def _start(self) -> Any:
        """Begin an epoch."""
        with self._clock.hold() as epoch:
            start = self._loaded[1] if self._loaded and self._loaded[0] == epoch else None
            self._loaded, self._place = None, _Place(epoch, start)
            self.dataset._tell(begun=epoch, start=start)
            return super().__iter__()

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        batches = self.dataset._batches(self.num_workers)
        if batches is None:
            return super().__len__()
        epoch, start = self._loaded or (self._place.epoch, self._place.start)
        # Lightning counts from the batches on that were taken before a stop, maybe on fewer ranks, and ends by this.
        return (
            max(batches, start.batches + self.dataset._batches_behind(epoch, start, self.num_workers))
            if start
            else batches
        )

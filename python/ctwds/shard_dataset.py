"""The data set of shards, mounted or on disk.

A sample is (volume (1, D, H, W), text, labels, study id, embedding), a batch (volumes (B, 1, D, H, W), list of texts,
labels (B, classes), list of ids, embeddings); labels are float32 NumPy arrays. Volumes are float32 in [-1, 1], by
default 240 x 480 x 480 voxels of 1.5 x 0.75 x 0.75 mm. Embeddings are empty; with `use_embedding` they are what the
shards or NPZ files hold instead of volumes, as float32, and the volumes are empty.

With `with_meta=True` a sample has a sixth element, and a batch a list of such: what the JSON of its shard holds, or of
NPZ the fields of the metadata table, and in both the columns of `--extra-columns`. `also` adds the last element.

Kinds. A sample's JSON tells (`volume_kind`) what its volume is. `stored` and `rescaled` ones go through the remaining
steps here: slope and intercept, clip, resample, / 1000, crop, pad. `preprocessed` ones went through them in the mount.
The JSON tells the dtype as well (`volume_dtype`), and of `uint8` the values that 0 and 255 stand for (`volume_window`).

HU. Some data sets hold HU already, which slope and intercept of their table would shift. By default (`rescale="auto"`)
the verdict of `manifest.json` decides, which ctwds-fs finds by looking at some volumes; where there is none, and for
NPZ, the same look is taken here. Volumes of one slope and intercept that hold both are an error. `manifest.json` also
tells which arrays were resampled before (`volume`, `arr_0`). Shards of version 0.1 or of the original converter do not:
say it with `dialect`, or they are resampled again (what can be seen to be such is refused).

Memory. Each worker holds `buffer_size` volumes as its shard has them (float16: 110 MB each if preprocessed, 137 MB if
stored with 512 x 512 x 261 voxels), and `prefetch_factor` batches and one more in /dev/shm: 221 MB a volume as float32,
half of it with `dtype=torch.float16` (then `.float()` on the GPU). A buffer of 1000 would be 110 GB a worker. The
default is 4, as the order of the shards is shuffled as well, and as a mount shuffles better: `mount --shuffle-seed S`
shows `epochs/000000/`, `epochs/000001/`, … beside the shards, each a permutation of the whole data set. Where they
are, a shuffled training reads epoch n from view n and needs no buffer. After the last view it begins again with the
first, with the shards in another order.

Order. It depends on the seed, the epoch and the numbers of ranks and workers alone. A loader of `make_loader` goes on
to the next epoch by itself and counts for itself; `iter(loader)` fixes the epoch for all workers, persistent ones as
well. `loader.set_epoch(n)` decides which epoch the loader gives next, `data.set_epoch(n)` which one all loaders of the
data set do. With PyTorch's DataLoader or torchdata's StatefulDataLoader, whose workers are told nothing when an
iteration begins, call `data.set_epoch(n)` before each `iter(loader)`, and read NPZ with `sampler=EpochSampler(data)`.

Several processes (DDP). Rank and world size are the arguments, else torch.distributed's, else RANK and WORLD_SIZE.
Shards are dealt to ranks, then to workers; too few of them are an error. Every rank gives the same number of batches,
as otherwise all-reduce would hang: `uneven="pad"` repeats samples where a rank has fewer (as DistributedSampler does),
"drop" ends all with the shortest, and "keep" leaves the numbers uneven, each sample exactly once (for metrics).
`epoch_length` (samples a rank, rounded up to whole batches) sets the length instead. `resampled` draws shards with
replacement. All of this is exact for `make_loader`, which knows the batch size; elsewhere a batch is taken to be one
sample.

Lightning and Accelerate. They take loaders of `make_loader` as they are: those that `train_dataloader()` makes together
with the data set, and those that `accelerator.prepare()` is given, which does not move their batches to the GPU. What
they would split over the ranks once more is refused.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from .axes import axes_option, oriented
from .basics import DIALECTS, SHAPE, SPACING, Rescale, shown_bytes
from .batches import allocate
from .epochs import Iteration
from .errors import LengthUnknown, LoaderError, choice
from .hounsfield import Unit
from .members import Buffer, complain
from .preprocess import Extras, Sample, Steps
from .reader import ShardReader
from .resume import Start
from .samples import RawSample
from .shard_units import ShardUnits, seen_units
from .shards import Shard, shard_paths, with_manifests
from .states import rest_of_rank, start_of, state_of, unknown_order
from .tasks import Dealing, Task
from .torch_loader import Epochs
from .views import Orders, views_beside
from .worker_epochs import WorkerEpochs

BUFFER_SIZE = 4


class CTReportWebDataset(Epochs, IterableDataset[Sample]):
    """The samples of shards, named by a folder, a glob, a brace pattern, or a list of those. See CTReportDataset for
    the dialects of the arrays that the shards were made of, and for the axes of stored ones. `also` names the arrays
    beside the volumes (`--also` of ctwds-fs) that each sample has as a sixth part, by name: on the voxels of the
    volume, (1, D, H, W), in batches (B, 1, D, H, W).

    Each sample is the tuple (volume, text, labels, study id, embedding): a tensor (1, D, H, W) of `dtype` in [-1, 1],
    with the `shape` (height, width, depth) and the `spacing` (mm, in the same order); a string; a float32 array
    (classes,); a string; an empty tensor. LoaderError names the shard, the reason and the remedy; with
    `on_error="skip"` what is damaged is left out, with a warning. `len(data)` needs a manifest, else it raises
    LengthUnknown."""

    def __init__(
        self,
        shard_pattern: Any,
        shuffle: bool = True,
        buffer_size: int | None = None,
        use_embedding: bool = False,
        mode: str = "train",
        *,
        dtype: torch.dtype = torch.float32,
        shape: Sequence[int] = SHAPE,
        spacing: Sequence[float] = SPACING,
        rescale: Rescale = "auto",
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: str = "pad",
        resampled: bool = False,
        epoch_length: int | None = None,
        on_error: str = "raise",
        dialect: str | None = None,
        axes: str | None = None,
        with_meta: bool = False,
        also: Sequence[str] = (),
    ) -> None:
        super().__init__(shuffle, mode, seed, rank, world_size, uneven)
        self.steps = Steps(shape, spacing, dtype, rescale, use_embedding, with_meta)
        self.axes = axes_option(axes)
        self.also = [also] if isinstance(also, str) else list(also)
        self.resampled, self.epoch_length = resampled, epoch_length
        if epoch_length is not None and epoch_length < 1:
            raise LoaderError(
                f"epoch_length is {epoch_length}; it is the samples of a rank in an epoch, 1 or more, or None"
            )
        self.on_error = choice("on_error", on_error, ("raise", "skip"))
        self.shards = with_manifests(shard_paths(shard_pattern))
        self.dialect = choice("dialect", dialect, (None, *DIALECTS))
        self._units = ShardUnits(self.steps, self.dialect, seen_units(self.shards, self.steps, self.dialect))
        self.views = views_beside(self.shards) if self.shuffle and not resampled else []
        if buffer_size is None:
            buffer_size = 1 if self.views else BUFFER_SIZE
        self.buffer_size = max(1, buffer_size) if self.shuffle else 1
        self._batch_size, self._drop_last = 1, False
        self._orders = Orders(self.shards, self.views, self.seed if self.shuffle else None)
        self._workers = WorkerEpochs(self._clock)

    def _tell(self, begun: int | None = None, start: Start | None = None) -> None:
        self._workers.tell(begun, start)

    def _of_loader(self, batch_size: int | None, drop_last: bool) -> CTReportWebDataset:
        """The data set with a clock and shared memory of its own."""
        data = copy.copy(self)
        data._batch_size, data._drop_last = batch_size or 1, drop_last
        data._clock = self._clock.of_loader()
        data._workers = WorkerEpochs(data._clock)
        return data

    def _epoch_here(self) -> int:
        """The epoch of the iteration that begins now, in this process or worker."""
        self._check_world()
        return self._workers.begin()

    def __len__(self) -> int:
        """Samples of the whole data set, of all ranks."""
        return sum(self._counts(self.shards))

    def _counts(self, shards: Sequence[Shard]) -> list[int]:
        unknown = [shard.path for shard in shards if shard.samples is None]
        if unknown:
            raise LengthUnknown(
                f"{unknown[0]}: its number of samples is not known, as no manifest.json beside it names it; ctwds-fs "
                "writes that file, in a mount and with materialize"
            )
        return [shard.samples or 0 for shard in shards]

    def _order(self, epoch: int) -> list[Shard]:
        return self._orders.shards(epoch)

    def _dealing(self, workers: int) -> Dealing:
        return Dealing(self.world_size, max(1, workers), self._batch_size, self._drop_last, self.uneven)

    def _tasks(self, epoch: int, workers: int) -> list[Task]:
        """What the workers of this rank read. Every rank computes those of all, and so the same number of batches."""
        shards, dealing = self._order(epoch), self._dealing(workers)
        self._refuse_too_few(len(shards), workers)
        parts = dealing.shares(shards, self.rank)
        length = self.epoch_length
        if length is None and not self.resampled and dealing.is_natural:
            known = all(shard.samples is not None for shard in shards)
            counts = [sum(self._counts(part)) if known else None for part in parts]
            return [Task(part, None, n and dealing.batches(n)) for part, n in zip(parts, counts, strict=True)]
        if self.resampled:
            natural, parts = [[0] * workers] * self.world_size, [shards] * workers
            length = length or math.ceil(sum(self._counts(shards)) / self.world_size)
        else:
            every = [dealing.shares(shards, rank) for rank in range(self.world_size)]
            natural = [[sum(self._counts(part)) for part in parts] for parts in every]
        lengths = dealing.lengths(natural, length)[self.rank]
        return [Task(part, *numbers) for part, numbers in zip(parts, lengths, strict=True)]

    def _unsaved(self) -> str | None:
        return unknown_order(self)

    def _state(self, epoch: int, start: Start | None, given: int, workers: int) -> dict[str, Any]:
        return state_of(self, self._dealing(workers), epoch, start, given)

    def _start_of(self, state: Mapping[str, Any]) -> tuple[int, Start | None]:
        return start_of(self, state)

    def _refuse_too_few(self, shards: int, workers: int) -> None:
        if shards >= self.world_size * workers or self.resampled:
            return
        wanted = self.world_size * workers
        total = sum(shard.samples or 0 for shard in self.shards)
        size = f" (here at most {max(1, total // wanted)})" if total else ""
        raise LoaderError(
            f"{shards} shards are fewer than {self.world_size} ranks x {workers} workers, so some would read nothing: "
            f"mount again with a smaller --samples-per-shard{size}, which converts nothing; or take fewer workers "
            f"(num_workers), or resampled=True"
        )

    def _batches(self, workers: int) -> int:
        batches = [task.batches for task in self._tasks(self.epoch, max(1, workers))]
        if None in batches:
            self._counts(self.shards)  # says what is missing
        return sum(count or 0 for count in batches)

    def _batches_behind(self, epoch: int, start: Start, workers: int) -> int:
        return sum(task.batches or 0 for task in rest_of_rank(self, self._dealing(workers), epoch, start))

    def _check(self, workers: int, prefetch: int) -> None:
        self._refuse_too_few(self._orders.count(self.epoch), max(1, workers))
        held, samples = 0.0, sum(shard.samples or 0 for shard in self.shards)
        with contextlib.suppress(OSError, ZeroDivisionError):  # reading says what is wrong
            held = self.buffer_size * sum(os.stat(shard.path).st_size for shard in self.shards) / samples
        volume = math.prod(self.steps.shape) * torch.empty(0, dtype=self.steps.dtype).element_size()
        if self.steps.use_embedding:
            volume = 0
        need = max(1, workers) * (held + (prefetch + 1) * self._batch_size * volume)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if need > memory / 2:
            warnings.warn(
                f"{workers} workers x ({self.buffer_size} volumes of the shuffle buffer + {prefetch + 1} batches of "
                f"{self._batch_size}) take up to {shown_bytes(need)}; this machine has {shown_bytes(memory)}. Take a "
                "smaller buffer_size (mount --shuffle-seed needs none), prefetch_factor or num_workers, or "
                "dtype=torch.float16",
                stacklevel=3,
            )

    def __iter__(self) -> Iterator[Sample]:
        iteration = Iteration(self._read, self._epoch_here, self._workers.go_on)
        try:
            return iteration.start(self._epoch_here())  # now, not when the first sample is asked for
        except LoaderError:
            if get_worker_info() is None:
                raise
            return iteration  # PyTorch hands on the error of a worker that is asked for a sample, and of no other

    def _read(self, epoch: int) -> Iterator[Sample]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        start = self._workers.start
        tasks = rest_of_rank(self, self._dealing(workers), epoch, start) if start else None
        task = (tasks or self._tasks(epoch, workers))[worker]
        return self._samples(task, np.random.default_rng([self.seed, epoch, self.rank, worker]))

    def _samples(self, task: Task, rng: np.random.Generator) -> Iterator[Sample]:
        """The samples; their volumes are written into the batches that they will be collated to."""
        pool = [Buffer() for _ in range(self.buffer_size)]
        height, width, depth = self.steps.shape
        batch, place = torch.empty(0), 0
        for raw in self._shuffled(task, rng, pool):
            if place % self._batch_size == 0 and not self.steps.use_embedding:
                batch, place = allocate((self._batch_size, 1, depth, height, width), self.steps.dtype), 0
            out = None if self.steps.use_embedding else batch[place]
            unit = Unit() if self.steps.use_embedding else self._units.of(raw)
            try:
                axes = self.axes if raw.kind == "stored" else None
                voxels = oriented(raw.voxels, axes, unit.dialect)
                sample: Any = self.steps.sample(voxels, raw.meta, unit, raw.text, raw.labels, out)
                if self.also:
                    sample = (*sample, self._extras(raw, axes, unit))
            except LoaderError as error:
                complain(LoaderError(f"{raw.key} ({raw.study_id}): {error}"), self.on_error)
                continue
            finally:
                pool.append(raw.buffer)
            place += 1
            yield sample

    def _extras(self, raw: RawSample, axes: str | None, unit: Unit) -> Extras:
        """The arrays beside the volume of a sample."""
        for name, array in raw.extras.items():
            if array.shape != raw.voxels.shape:
                raise LoaderError(f"'{name}' has the shape {array.shape}, and its volume {raw.voxels.shape}")
        oriented_ = {name: oriented(array, axes, unit.dialect) for name, array in raw.extras.items()}
        return {name: self.steps.extra(array, raw.meta, unit) for name, array in oriented_.items()}

    def _shuffled(self, task: Task, rng: np.random.Generator, pool: list[Buffer]) -> Iterator[RawSample]:
        """Samples out of a buffer at random; each is done with when the next one is asked for."""
        held: list[RawSample] = []
        for raw in itertools.islice(self._raw(task, rng, pool), task.samples):
            held.append(raw)
            if len(held) == self.buffer_size:
                yield held.pop(int(rng.integers(len(held))))
        while held:
            yield held.pop(int(rng.integers(len(held))))

    def _raw(self, task: Task, rng: np.random.Generator, pool: list[Buffer]) -> Iterator[RawSample]:
        """The samples of the worker's shards: once, or as often as it takes."""
        while True:
            found = False
            for at in range(len(task.shards)):
                shard = task.shards[int(rng.integers(len(task.shards))) if self.resampled else at]
                places = task.places[at] if task.places else None
                for raw in ShardReader(shard.path, pool, self.on_error, shard.has_labels, self.also, places):
                    found, raw.recorded = True, shard.recorded
                    yield raw
            if task.samples is None:
                return
            if not found:
                raise LoaderError(
                    f"{task.shards[0].path} and {len(task.shards) - 1} more shards have no sample to read"
                )

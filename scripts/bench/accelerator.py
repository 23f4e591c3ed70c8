"""The accelerators that this machine feeds, in the manner of MLPerf Storage's UNet3D: a step takes seven samples of
about 146 MB, computes for a fixed time, which is slept here, and an accelerator counts as fed if it computes for 90 %
of the time. A sample is loaded by one of two processes, about two steps ahead.

An H100 computes 0.323 s on such a step (the benchmark's own configuration of version 1.0). Two cores feed one or two,
which is too coarse to compare by. So the time is turned round: how short may a step be, so that an accelerator is still
fed?"""

from __future__ import annotations

import contextlib
import math
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from make_dataset import Dataset, Options, make_dataset

from bench import Failure, crew
from bench.lab import BATCH, Lab, Sample, Samples, Stored, say, split, warm
from bench.mounting import mounted, run
from bench.row import Row

STEPS = 4
LOADERS = 2
FED = 0.9  # of the time
HALVINGS = 4  # of the range in which the shortest step is looked for
RANGE = (0.6, 1.4)  # of the time in which a step's samples are loaded alone
DEADLINE = 120  # seconds without a sample


def big_samples(lab: Lab) -> Dataset:
    """A step's samples, stored in NPZ files without compression, as the benchmark has them; in the page cache."""

    def make() -> Dataset:
        say(f"making {BATCH} volumes for a step")
        options = Options(
            lab.folder / "accelerator",
            BATCH,
            lab.settings.sample_size,
            True,
            "C",
            "stored",
            strays=False,
            workers=lab.settings.cores,
        )
        return make_dataset(options)

    data: Dataset = lab.once("accelerator", make)
    warm(data.volumes())
    return data


class Loading:
    """Samples that are loaded ahead by processes."""

    def __init__(self, started: list[subprocess.Popen[bytes]]) -> None:
        self.pipes = {answers.fileno(): asks.fileno() for asks, answers in map(crew.pipes, started)}
        self.loaded = 0

    def begin(self) -> None:
        """Asks for two steps."""
        for asks in self.pipes.values():
            os.write(asks, bytes(2 * BATCH // LOADERS))

    def step(self) -> None:
        """Waits for the samples of a step, and asks for as many as came."""
        while self.loaded < BATCH:
            ready, _, _ = select.select(list(self.pipes), [], [], DEADLINE)
            if not ready:
                raise Failure(f"no sample was loaded within {DEADLINE} s")
            for answers in ready:
                count = len(os.read(answers, BATCH))
                if count == 0:
                    raise Failure("a loading process failed; its message is above")
                self.loaded += count
                os.write(self.pipes[answers], bytes(count))
        self.loaded -= BATCH


@contextlib.contextmanager
def loaders(kind: str, paths: list[Path]) -> Iterator[Loading]:
    """Loading processes, until the block ends."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.extend(
            crew.start({"module": "bench.feeder", "kind": kind, "paths": share}) for share in split(paths, LOADERS)
        )
        for one in started:
            crew.hear(one, time.monotonic() + DEADLINE)
        yield Loading(started)
    finally:
        for one in started:
            crew.end(one)


def trained(loading: Loading, compute: float) -> tuple[float, float]:
    """Some steps that each compute for a time: the seconds that a step took, and the part of them that was computing.
    The first step's samples are waited for before."""
    loading.begin()
    loading.step()
    begin = time.monotonic()
    for _ in range(STEPS):
        time.sleep(compute)
        loading.step()
    took = time.monotonic() - begin
    return took / STEPS, STEPS * compute / took


def materialized(lab: Lab) -> Stored:
    """The same samples as finished shards, in the page cache."""

    def make() -> Stored:
        data, out = big_samples(lab), lab.folder / "accelerator-shards"
        run(lab.program, "materialize", *data.flags(), "--samples-per-shard", 1, "--output-dir", out)
        return Stored(out)

    stored: Stored = lab.once("accelerator-shards", make)
    warm(stored.shards())
    return stored


def by_np_load(lab: Lab, compute: float) -> tuple[float, float]:
    """The benchmark's own way."""
    with loaders("npz", big_samples(lab).volumes()) as loading:
        return trained(loading, compute)


def by_mount(lab: Lab, source: Callable[[Lab], Dataset | Stored], compute: float) -> tuple[float, float]:
    """A fresh mount. It keeps four of the seven volumes, so that each is made for each step."""
    data = source(lab)
    memory = ["--cache-size", 4 * math.prod(lab.settings.sample_size) * 2, "--page-cache", "off"]
    layout = ["--samples-per-shard", 1] if isinstance(data, Dataset) else []
    with (
        mounted(lab.program, lab.folder, *data.flags(), *layout, *memory) as mount,
        loaders("shard", mount.shards()) as loading,
    ):
        return trained(loading, compute)


def shortest_step(steps: Callable[[float], tuple[float, float]]) -> Sample:
    """The shortest computing for which an accelerator is fed."""
    alone, _ = steps(0)
    low, high = (part * alone for part in RANGE)
    if steps(high)[1] < FED:
        raise Failure(f"a step of {high:.3f} s is not fed, though its samples are loaded in {alone:.3f} s")
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        _, used = steps(middle)
        low, high = (low, middle) if used >= FED else (middle, high)
    return {"wall": high}


def accelerator(lab: Lab) -> Samples:
    """All in turn."""
    ways = {
        "np.load": partial(by_np_load, lab),
        "mount": partial(by_mount, lab, big_samples),
        "materialized": partial(by_mount, lab, materialized),
    }
    return lab.interleave({name: partial(shortest_step, steps) for name, steps in ways.items()})


EXPERIMENTS: dict[str, Callable[[Lab], Samples]] = {"accelerator": accelerator}


def accelerator_rows() -> list[Row]:
    """The mount of the same NPZ files, and one of the shards that were made of them."""
    path, against = "shortest step that computes for 90 % of the time, 7 samples of 146 MB", "np.load of stored NPZ"
    return [
        Row("accelerator/mount", f"{path}, mount", against, "accelerator", "mount", "np.load", 4.0),
        Row("accelerator/shards", f"{path}, finished shards", against, "accelerator", "materialized", "np.load", 4.0),
    ]

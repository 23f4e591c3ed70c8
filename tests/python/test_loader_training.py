"""Training with the loader: from a configuration, from a mount as from NPZ, and in two processes."""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml
from ctreport_webdataset import KNOWN_KEYS, CTReportDataset, CTReportWebDataset, create_loader_from_config
from harness import REPOSITORY, SMALL_FLAGS, Program
from loading import DEADLINE, collected, from_npz, from_shards, ids, unbatched
from make_dataset import Dataset
from torch.nn.parallel import DistributedDataParallel

CONFIGS = REPOSITORY / "scripts" / "configs"
# As the steps of `loading` make them, of volumes of 64 x 64 x 96 at 0.75 x 0.75 x 1.5 mm.
STEPS: dict[str, list[Any]] = {"shape": [40, 36, 30], "spacing": [1.0, 1.0, 4.0]}


def filled_in(name: str, dataset: Dataset, shards: Path) -> dict[str, Any]:
    """An example configuration with the paths of the test's data set, to train and to validate with."""
    cfg = yaml.safe_load((CONFIGS / name).read_text())
    paths = {
        "dir": dataset.folder,
        "reports": dataset.reports,
        "meta": dataset.meta,
        "labels": dataset.labels,
        "shards": shards / "shard-{000000..000001}.tar",
    }
    for key, value in cfg["data"].items():
        if isinstance(value, str) and value.startswith("/data/"):
            (kind,) = [kind for kind in paths if kind in key]
            cfg["data"][key] = str(paths[kind])
    cfg["data"] |= {"num_workers": 0, **STEPS}
    return cfg


def test_switching_the_format(small: Dataset, right: Path, tmp_path: Path) -> None:
    """npz, webdataset, npz: the same batches, of the examples; and mixed is one to train and one to validate."""
    batches = []
    for turn, name in enumerate(["npz.yaml", "webdataset.yaml", "npz.yaml", "mixed.yaml"]):
        path = tmp_path / f"{turn}.yaml"
        path.write_text(yaml.safe_dump(filled_in(name, small, right)))
        batches.append(list(create_loader_from_config(path, "val")))
        train = create_loader_from_config(yaml.safe_load(path.read_text()), "train")
        assert type(train.dataset) is (CTReportDataset if name == "npz.yaml" else CTReportWebDataset)
        assert sorted(ids(train)) == [f"v{n:02d}" for n in range(6)]
    for other in batches[1:]:
        for (volumes, texts, labels, names, _), (others, *rest, _) in zip(batches[0], other, strict=True):
            assert torch.equal(volumes, others), "the test's values are exact as float16"
            assert rest[0] == texts and (rest[1] == labels).all() and rest[2] == names


def test_every_key_of_the_examples_is_known() -> None:
    """Those that are commented out as well."""
    for path in CONFIGS.glob("*.yaml"):
        keys = re.findall(r"^  (?:# )?(\w+): ", path.read_text(), re.MULTILINE)
        assert set(keys) <= set(KNOWN_KEYS) and len(keys) >= 10, path


def losses(loader: Any, classes: int = 3) -> list[float]:
    """A few steps of a small 3-D CNN on the labels."""
    torch.manual_seed(7)
    model = torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 5, stride=4),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool3d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(32, classes),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    found = []
    for _ in range(2):
        for volumes, _, labels, _, _ in loader:
            target = torch.from_numpy(labels).clamp(0, 1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(volumes.float()), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return found


def test_training_has_the_same_losses(program: Program, small: Dataset) -> None:
    """From a mount and from NPZ, under the same seed."""
    steps: dict[str, Any] = {name: tuple(values) for name, values in STEPS.items()}
    with program.mounted(small, *SMALL_FLAGS) as point:
        mount = losses(from_shards(point, **steps).make_loader(2, 1, persistent_workers=False, timeout=DEADLINE))
    npz = losses(from_npz(small, **steps).make_loader(2, 1, persistent_workers=False, timeout=DEADLINE))
    assert mount == npz and len(set(mount)) == 6


def rank_reads(rank: int, port: int, folder: str, cases: list[dict[str, Any]], answers: Any) -> None:
    """One of two processes: every step of the model reduces its gradients, which hangs where another rank has no such
    step."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = DistributedDataParallel(torch.nn.Conv3d(1, 1, 8, stride=8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for case in cases:
        options = dict(case)
        batch, workers, collective = options.pop("batch"), options.pop("workers"), options.pop("collective", True)
        loader = from_shards(folder, **options).make_loader(batch, workers, timeout=DEADLINE if workers else 0)
        epochs = []
        for epoch in range(2):
            loader.set_epoch(epoch)
            length, seen = len(loader), []
            for volumes, _, _, names, _ in loader:
                seen.append(names)
                if collective:
                    optimizer.zero_grad()
                    model(volumes).mean().backward()
                    optimizer.step()
            assert len(seen) == length, (case, rank, len(seen), length)
            epochs.append(seen)
        answers.put((rank, epochs, model.module.weight.sum().item()))
        dist.barrier()
    dist.destroy_process_group()


DDP_CASES: list[dict[str, Any]] = [
    {"batch": 1, "workers": 0, "samples_per_shard": 3},
    {"batch": 2, "workers": 2, "samples_per_shard": 1, "shuffle": True},
    {"batch": 2, "workers": 0, "samples_per_shard": 2, "uneven": "pad"},
    {"batch": 2, "workers": 0, "samples_per_shard": 2, "uneven": "drop"},
    {"batch": 2, "workers": 0, "samples_per_shard": 2, "uneven": "keep", "collective": False},
    {"batch": 1, "workers": 0, "samples_per_shard": 2, "resampled": True, "epoch_length": 5},
]


@pytest.fixture(scope="module")
def two_ranks(program: Program, small: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[list[list[Any]]]:
    """For each case, what the two ranks saw in each of two epochs: batches of studies."""
    results = []
    for per_shard in (3, 1, 2):
        flags = "--samples-per-shard", per_shard
        cases = [dict(case) for case in DDP_CASES if case["samples_per_shard"] == per_shard]
        for case in cases:
            del case["samples_per_shard"]
        if per_shard == 1:
            results += run_two(str(program.materialize(small, tmp_path_factory.mktemp("ddp"), *flags)), cases)
        else:
            with program.mounted(small, *flags) as point:
                results += run_two(str(point), cases)
    return results


def run_two(folder: str, cases: list[dict[str, Any]]) -> list[list[list[Any]]]:
    """Start two processes that know nothing of this one, and end them whatever happens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    ranks = [context.Process(target=rank_reads, args=(rank, port, folder, cases, answers)) for rank in range(2)]
    try:
        for process in ranks:
            process.start()
        found: dict[int, list[Any]] = {0: [], 1: []}
        weights: dict[int, list[float]] = {0: [], 1: []}
        for _ in range(2 * len(cases)):
            rank, epochs, weight = answers.get(timeout=DEADLINE)
            found[rank].append(epochs)
            weights[rank].append(weight)
        for process in ranks:
            process.join(DEADLINE)
            assert process.exitcode == 0
        assert weights[0] == weights[1] and len({*weights[0]}) >= len(cases) // 2, "trained, and alike"
        return [list(pair) for pair in zip(found[0], found[1], strict=True)]
    finally:
        for process in ranks:
            process.kill()


def everything(ranks: list[list[Any]], epoch: int) -> list[str]:
    """The studies that both ranks saw in an epoch."""
    return sorted(study for rank in ranks for batch in rank[epoch] for study in batch)


def test_two_processes_see_every_sample_once(two_ranks: list[Any]) -> None:
    """In each epoch; with and without workers; in another order in the next one."""
    studies = [f"v{n:02d}" for n in range(6)]
    for ranks in two_ranks[:2]:
        for epoch in range(2):
            assert everything(ranks, epoch) == studies
    assert two_ranks[1][0][0] != two_ranks[1][0][1], "another epoch, another order"


def test_uneven_shards_give_every_rank_as_many_batches(two_ranks: list[Any]) -> None:
    """Three shards of two: padded, dropped, or left uneven; and drawn with replacement."""
    pad, drop, keep, drawn = two_ranks[2:]
    assert [[len(epoch) for epoch in rank] for rank in pad] == [[2, 2], [2, 2]]
    assert everything(pad, 0) == ["v00", "v01", "v02", "v02", "v03", "v03", "v04", "v05"], "every sample, two twice"
    assert [[len(epoch) for epoch in rank] for rank in drop] == [[1, 1], [1, 1]]
    assert len(set(everything(drop, 0))) == 4
    assert [[len(epoch) for epoch in rank] for rank in keep] == [[2, 2], [1, 1]]
    assert everything(keep, 1) == [f"v{n:02d}" for n in range(6)]
    assert [[len(epoch) for epoch in rank] for rank in drawn] == [[5, 5], [5, 5]]
    assert drawn[0][0] != drawn[1][0] and drawn[0][0] != drawn[0][1]


def test_ranks_of_npz(small: Dataset) -> None:
    """As DistributedSampler deals them, from arguments or from torchrun's environment."""
    for world in (2, 4):
        parts = [from_npz(small, shuffle=True, rank=rank, world_size=world).make_loader(1, 0) for rank in range(world)]
        found = [ids(part) for part in parts]
        assert {len(part) for part in found} == {math.ceil(6 / world)} == {len(part) for part in parts}
        assert len({study for part in found for study in part}) == 6
        kept = [ids(from_npz(small, rank=r, world_size=world, uneven="keep").make_loader(1, 0)) for r in range(world)]
        assert sorted(study for part in kept for study in part) == [f"v{n:02d}" for n in range(6)]


def test_ranks_from_the_environment(right: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RANK and WORLD_SIZE, as torchrun sets them."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, studies in ((0, ["v00", "v01", "v02"]), (1, ["v03", "v04", "v05"])):
        monkeypatch.setenv("RANK", str(rank))
        assert [sample[3] for sample in from_shards(right)] == studies


def test_uneven_lengths_add_up(right: Path) -> None:
    """Whatever the batch size, ranks and workers: all ranks give the number that they say, which is the same."""
    from ctreport_webdataset import Orders, Shard

    rng = np.random.default_rng(0)
    for _ in range(200):
        world, workers, batch = (int(n) for n in rng.integers(1, 5, 3))
        uneven = str(rng.choice(["pad", "drop"]))
        shards = [Shard(f"s{n}", int(rng.integers(1, 9))) for n in range(world * workers + int(rng.integers(0, 9)))]
        lengths, read = set(), []
        for rank in range(world):
            data = from_shards(right, rank=rank, world_size=world, uneven=uneven)
            data.shards, data._batch_size, data._orders = shards, batch, Orders(shards, [], None)
            tasks = data._tasks(0, workers)
            counts = [
                task.samples if task.samples is not None else sum(s.samples or 0 for s in task.shards) for task in tasks
            ]
            assert sum(-(-count // batch) for count in counts) == data._batches(workers)
            lengths.add(data._batches(workers))
            read += [
                min(count, sum(s.samples or 0 for s in task.shards)) for count, task in zip(counts, tasks, strict=True)
            ]
        assert len(lengths) == 1
        if uneven == "pad":
            assert sum(read) == sum(shard.samples or 0 for shard in shards), "nothing is left out"


def test_the_module_needs_nothing_else(right: Path, tmp_path: Path) -> None:
    """Copied to another folder, in a Python that has neither webdataset nor PyYAML at hand, it reads shards."""
    (tmp_path / "ctreport_webdataset.py").write_bytes((REPOSITORY / "scripts" / "ctreport_webdataset.py").read_bytes())
    code = (
        "import sys; sys.modules.update(webdataset=None, yaml=None)\n"
        "from ctreport_webdataset import CTReportWebDataset\n"
        f"data = CTReportWebDataset({str(right)!r}, shuffle=False, shape=(8, 8, 8))\n"
        "print([sample[3] for sample in data])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.stdout.strip() == str([f"v{n:02d}" for n in range(6)]), done.stderr


def test_samples_of_ranks_are_whole(right: Path) -> None:
    """The samples of two ranks together are those of one."""
    whole = collected(from_shards(right))
    parts = [from_shards(right, rank=rank, world_size=2).make_loader(2, 1) for rank in range(2)]
    assert collected(sample for part in parts for sample in unbatched(part)).keys() == whole.keys()

"""The drop-in loader over a mount, over materialised files and over NPZ: the same samples from all of them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from ctreport_webdataset import SHAPE, SPACING, Buffer, CTReportWebDataset, ShardReader, clean_text
from harness import READER_OPTIONS, Program, shards
from kinds import preprocessed
from loading import (
    DEADLINE,
    HALF_HU,
    SMALL,
    STEPS,
    Samples,
    assert_same,
    collected,
    from_npz,
    from_shards,
    ids,
    unbatched,
    write_views,
)
from make_dataset import Dataset
from small_datasets import write_dataset

COARSE = 0.0041  # float16 keeps the raw values of a volume with intercept -8192 to 4 HU


@pytest.fixture(scope="module")
def right(dataset: Dataset) -> Samples:
    """The samples from NPZ."""
    data = from_npz(dataset)
    return collected(data[at] for at in range(len(data)))


@pytest.fixture(scope="module")
def plain(files: Path) -> Samples:
    """The samples from the files in this process."""
    return collected(from_shards(files))


@pytest.fixture(scope="module")
def views(files: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[str]]]:
    """Shards with three epoch views, and the views' studies."""
    folder = tmp_path_factory.mktemp("views") / "shards"
    return folder, write_views(files, folder, 3)


def test_npz_samples_are_the_original_loaders(dataset: Dataset, right: Samples) -> None:
    """Against the steps, texts and labels that are written down elsewhere."""
    slots = reference.plan(dataset.folder, dataset.reports, dataset.meta, dataset.labels, reference.Options())
    known = [sample for sample in slots if sample]
    assert list(right) == [sample.study_id for sample in known] and len(known) == 13
    for sample in known:
        xy, z = float(sample.meta["XYSpacing"].strip("[]").split(",")[0]), float(sample.meta["ZSpacing"])
        slope, intercept = float(sample.meta["RescaleSlope"]), float(sample.meta["RescaleIntercept"])
        volume, _ = preprocessed(np.load(sample.path)["data"], slope, intercept, (xy, xy, z), STEPS)
        found, text, labels = right[sample.study_id]
        assert np.abs(found[0] - volume.transpose(2, 0, 1)).max() < 2e-6
        fields = [sample.report["Findings_EN"], sample.report["Impressions_EN"]]
        assert text == clean_text("\n".join("" if field in reference.MISSING else field for field in fields))
        assert labels == tuple(np.array(sample.labels, np.float32).tolist())


def test_text_rule() -> None:
    """The rule is one for both data sets."""
    assert clean_text("Not given.") == ""
    assert clean_text("Not given.\nNot given.") == "Not given.\nNot given."
    assert clean_text("a \"b\" 'c' (d)\n") == "a b c d\n"


def test_shards_equal_npz(folder: Path, right: Samples, plain: Samples) -> None:
    """To float16: exactly where that is exact, and else to 4 HU; and the same from a mount and from files."""
    found = collected(from_shards(folder))
    assert list(found) == list(right)
    assert_same(found, right, within=COARSE)
    assert sum((found[study][0] == right[study][0]).all() for study in right) >= 8, "intercept -1024"
    assert_same(found, plain)


@pytest.mark.parametrize(("workers", "start"), [(0, ""), (2, "fork"), (4, "fork"), (2, "spawn")])
def test_dataloader(folder: Path, dataset: Dataset, plain: Samples, right: Samples, workers: int, start: str) -> None:
    """Two epochs of persistent workers; batches of two, so that the last ones are smaller. Of spawned workers there are
    two, as each of them imports PyTorch for seconds."""
    context: dict[str, Any] = {"multiprocessing_context": start, "timeout": DEADLINE} if workers else {}
    loader = from_shards(folder).make_loader(2, workers, **context)
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader)
        assert_same(collected(unbatched(batches)), plain)
    if folder.name != "mount":  # once is enough for NPZ
        loader = from_npz(dataset).create_pytorch_dataloader(
            batch_size=2, num_workers=workers, prefetch_factor=1, **context
        )
        batches = list(loader)
        assert len(batches) == len(loader) == 7
        assert_same(collected(unbatched(batches)), right)


@pytest.mark.parametrize("kind", ["rescaled", "preprocessed"])
def test_other_kinds(program: Program, dataset: Dataset, right: Samples, kind: str) -> None:
    """What the mount did already is not done again; half a HU from what NPZ gives, also from raw values around
    -8192."""
    flags = [*READER_OPTIONS.flags(), "--volume", kind, *STEPS.flags()]
    with program.mounted(dataset, *flags) as point:
        found = collected(from_shards(point))
        assert_same(found, right, within=HALF_HU)
        assert_same(collected(from_shards(point, rescale=(1, -1024))), found)
        if kind == "preprocessed":
            other = from_shards(point, shape=(30, 50, 20))
            volume = next(iter(other))[0]
            assert tuple(volume.shape) == (1, 20, 30, 50), "cropped and padded to another shape"
            assert (volume[..., :7] == -1).all() and (volume[..., -7:] == -1).all()
            half = from_shards(point, dtype=torch.float16)
            batches = list(half.make_loader(2, 0))
            assert all(batch[0].dtype == torch.float16 for batch in batches)
            assert_same(collected(unbatched(batches)), collected(from_shards(point)))


def test_profile_npy(program: Program, dataset: Dataset, plain: Samples) -> None:
    """The members that generic readers decode by extension are read as well."""
    with program.mounted(dataset, *READER_OPTIONS.flags(), "--format", "npy") as point:
        assert_same(collected(from_shards(point)), plain)


@pytest.mark.parametrize("kind", ["stored", "rescaled", "preprocessed"])
@pytest.mark.parametrize(("name", "dialect"), [("data", "native"), ("volume", "hu"), ("arr_0", "normalized")])
def test_every_dialect_and_kind(program: Program, tmp_path: Path, name: str, dialect: str, kind: str) -> None:
    """The same volume whatever the mount did of the steps: its manifest tells the dialect."""
    hu = np.random.default_rng(5).integers(-1024, 1500, (44, 30, 33)).astype(np.float32)
    array = {"data": hu + 1024, "volume": hu.astype(np.int16), "arr_0": (hu / 1000).clip(-1, 1).transpose(2, 0, 1)}[
        name
    ]
    dataset = write_dataset(tmp_path / "data", {"v.npz": {name: np.ascontiguousarray(array)}})
    with program.mounted(dataset, "--volume", kind, *STEPS.flags()) as point:
        (found,) = collected(from_shards(point)).values()
        assert_same({"v": found}, collected(from_shards(point, dialect=dialect)))
    np.testing.assert_allclose(found[0], from_npz(dataset)[0][0].numpy(), atol=HALF_HU)


def test_the_whole_size(program: Program, small: Dataset) -> None:
    """Without options: (B, 1, 240, 480, 480) float32, from shards that the mount preprocessed and from NPZ."""
    with program.mounted(small, "--volume", "preprocessed", "--rescale", "table") as point:
        volumes, *_ = next(iter(CTReportWebDataset(point, shuffle=False).make_loader(2, 0)))
        assert volumes.shape == (2, 1, 240, 480, 480) and volumes.dtype == torch.float32
    npz = from_npz(small, shape=SHAPE, spacing=SPACING, rescale="table")
    for at in range(2):
        assert (volumes[at] - npz[at][0]).abs().max() <= HALF_HU


def test_rescale_of_volumes_that_are_hu(tmp_path: Path, program: Program) -> None:
    """The table's slope and intercept are not applied again; from NPZ and from stored volumes alike."""
    hu = np.random.default_rng(6).integers(-1024, 1500, (40, 36, 30)).astype(np.float32)
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"data": hu}})
    options: dict[str, Any] = {"rescale": "none", "spacing": (0.75, 0.75, 1.5)}
    files = program.materialize(dataset, tmp_path / "out")
    for rescale, shift in (("none", 0), ((1, 24), 24)):
        options["rescale"] = rescale
        wanted = torch.from_numpy((hu + shift).clip(-1000, 1000) / np.float32(1000)).permute(2, 0, 1)
        for sample in (from_npz(dataset, **options)[0], next(iter(from_shards(files, **options)))):
            assert (sample[0][0] == wanted).all()


def test_embeddings(tmp_path: Path, program: Program) -> None:
    """Arrays of any shape in the place of volumes; the volumes are empty then."""
    embeddings = {f"v{n}.npz": {"data": np.full((4, 3, 2), n, np.float32)} for n in range(3)}
    dataset = write_dataset(tmp_path / "data", embeddings)
    files = program.materialize(dataset, tmp_path / "out")
    with warnings.catch_warnings(action="error"):  # of the memory that 10,000 volumes would take
        CTReportWebDataset(files, use_embedding=True).make_loader(10_000, 1)
    for data in (from_shards(files, use_embedding=True), from_npz(dataset, use_embedding=True)):
        ((volumes, _, _, names, found),) = data.make_loader(3, 0)
        assert volumes.numel() == 0 and names == ["v0", "v1", "v2"] and found.dtype == torch.float32
        assert (found == torch.arange(3.0)[:, None, None, None].expand(3, 4, 3, 2)).all()


def test_patterns(files: Path, plain: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, braces, globs, files and lists of them."""
    names = [str(path) for path in shards(files)]
    braces = f"{files}/shard-{{000000..{len(names) - 1:06d}}}.tar"
    for pattern in (
        files,
        str(files),
        braces,
        f"{files}/shard-0*.tar",
        names,
        [files / "shard-00000{0,1}.tar", *names[2:]],
    ):
        data = from_shards(pattern)
        assert len(data) == 13 and [sample[3] for sample in data] == list(plain)
    some = from_shards(f"{files}/shard-{{000001..000002}}.tar")
    assert len(some) == len(list(some)) == 7, "a part of the shards has a part of the samples: one slot is empty"
    monkeypatch.chdir(files)
    assert len(from_shards("shard-000000.tar")) == len(list(from_shards("shard-000000.tar")))


def test_a_manifest_of_the_original_converter(files: Path, tmp_path: Path) -> None:
    """It names no shards."""
    for path in shards(files)[:2]:
        (tmp_path / path.name).symlink_to(path)
    fields = {"num_shards": 2, "samples_per_shard": 4, "total_samples": 7}
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    data = from_shards(tmp_path)
    assert len(data) == 7 and [shard.samples for shard in data.shards] == [4, 3]


def test_order(files: Path, plain: Samples) -> None:
    """Of a seed and an epoch: the same every time; of others: another; always all samples."""

    def order(epoch: int, **options: Any) -> list[str]:
        data = from_shards(files, **{"shuffle": True, "buffer_size": 3, **options})
        data.set_epoch(epoch)
        return [sample[3] for sample in data]

    orders = [order(0), order(1), order(0, seed=1), order(0, buffer_size=1), order(0, buffer_size=100)]
    assert all(sorted(each) == sorted(plain) for each in orders)
    assert len({tuple(each) for each in [*orders, list(plain)]}) == 6
    assert order(1) == orders[1] and order(0, seed=1) == orders[2]
    assert order(3, mode="val") == order(0, shuffle=False) == list(plain)


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_of_persistent_workers(files: Path, dataset: Dataset, plain: Samples, workers: int) -> None:
    """They go on by themselves, and set_epoch, of the loader or of the data set, goes anywhere."""
    for data in (from_shards(files, shuffle=True), from_npz(dataset, shuffle=True)):
        loader = data.make_loader(2, workers)
        seen = [ids(loader) for _ in range(3)]
        assert len({tuple(order) for order in seen}) == 3 and all(sorted(order) == sorted(plain) for order in seen)
        loader.set_epoch(1)
        assert [ids(loader) for _ in range(2)] == seen[1:]
        data.set_epoch(0)
        assert ids(loader) == seen[0]
        assert ids(data.make_loader(2, workers)) == seen[0], "another loader of the same data set counts for itself"


@pytest.mark.parametrize("workers", [0, 2])
def test_set_epoch_moves_to_the_next_view(views: tuple[Path, list[list[str]]], plain: Samples, workers: int) -> None:
    """In the view's own order, without a buffer; after the last view the first one comes again, in another order."""
    folder, orders = views
    data = from_shards(folder / "shard-{000000..000003}.tar", shuffle=True)
    assert data.buffer_size == 1
    loader = data.make_loader(1, workers)
    for epoch in (0, 1, 2, 1):
        loader.set_epoch(epoch)
        found = ids(loader)
        if workers == 0:
            assert found == orders[epoch]
        else:
            assert sorted(found) == sorted(plain)
            dealt = [orders[epoch][at : at + 3] for at in range(0, 13, 3)]
            mine = [[study for shard in dealt[worker::2] for study in shard] for worker in range(2)]
            assert found[0:12:2] == mine[0][:6] and found[1:12:2] == mine[1][:6]
    loader.set_epoch(3)
    again = ids(loader)
    assert sorted(again) == sorted(orders[0]) and again != orders[0]
    assert_same(collected(unbatched(loader)), plain)


def test_when_views_are_not_used(views: tuple[Path, list[list[str]]], plain: Samples) -> None:
    """Not to validate, not where shuffling is off, and not for a part of the shards, which is said."""
    folder, orders = views
    assert [sample[3] for sample in from_shards(folder, mode="val", shuffle=True)] == list(plain)
    assert [sample[3] for sample in from_shards(folder)] == list(plain)
    with pytest.warns(UserWarning, match="epochs is not used"):
        some = from_shards(folder / "shard-{000000..000001}.tar", shuffle=True)
    assert sorted(sample[3] for sample in some) == sorted(list(plain)[: len(some)])
    fixed = from_shards(folder / "epochs" / "000002")
    assert [sample[3] for sample in fixed] == orders[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_epoch_length_and_resampled(files: Path, plain: Samples, workers: int) -> None:
    """As many whole batches as asked for; every sample twice if that takes twice as many; reproducible."""
    long = from_shards(files, shuffle=True, epoch_length=26).make_loader(1, workers)
    found = ids(long)
    assert len(long) == len(found) == 26
    if workers == 0:
        assert sorted(found) == sorted([*plain] * 2)
    short = from_shards(files, shuffle=True, epoch_length=5).make_loader(2, workers)
    assert [len(batch[3]) for batch in short] == [2, 2, 2] and len(short) == 3
    drawn = from_shards(files, shuffle=True, resampled=True, epoch_length=40).make_loader(4, workers)
    first, second = ids(drawn), ids(drawn)
    assert len(first) == len(second) == 40 and first != second and len(set(first)) < 14
    drawn.set_epoch(0)
    assert ids(drawn) == first
    few = from_shards(files / "shard-000000.tar", shuffle=True, resampled=True).make_loader(1, 3)
    assert len(list(few)) == len(few) == 4, "resampled, one shard does for any number of workers"


def test_drop_last(files: Path, dataset: Dataset) -> None:
    """The lengths know it."""
    for data in (from_shards(files), from_npz(dataset)):
        loader = data.make_loader(5, 0, drop_last=True)
        assert len(loader) == len(list(loader)) == 2


def test_voxels_go_straight_into_one_aligned_buffer(files: Path) -> None:
    """The memory that is read into is on a page, and the same for every sample."""
    pool = [Buffer()]
    addresses = set()
    for path in shards(files):
        for sample in ShardReader(str(path), pool):
            addresses.add(sample.voxels.__array_interface__["data"][0])
            pool.append(sample.buffer)
    assert len(addresses) == 1 and addresses.pop() % 4096 == 0


def test_a_volume_is_decoded_once(program: Program, dataset: Dataset, plain: Samples) -> None:
    """The loader reads forward only, and everything once: so says the mount."""
    with program.mounted(dataset, *READER_OPTIONS.flags()) as point:
        assert_same(collected(from_shards(point)), plain)
        stats = json.loads((point / ".ctwds" / "stats.json").read_text())
    # Though the kernel reads ahead in requests that overtake each other.
    assert stats["volumes_decoded"] == len(plain), json.dumps(stats)


def test_memory_is_warned_of(files: Path) -> None:
    """With its size, and what to change."""
    data = CTReportWebDataset(files, buffer_size=10**7, **SMALL)
    with pytest.warns(UserWarning, match="buffer_size .*take|take up to .*buffer_size"):
        data.make_loader(1, 2)

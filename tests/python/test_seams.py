"""Where features meet: bad samples, parts, compression, indexes, files beside a mount, and what a damaged manifest
says."""

from __future__ import annotations

import csv
import json
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Program, Stored, daemon_of, mount_folder, require_fuse, shards
from make_dataset import Dataset
from small_datasets import flip_voxel, noise_dataset

FLAGS = ("--samples-per-shard", 3)
BAD = ("v01", "v02", "v07")
MIB = 1 << 20
SKIP = ("--on-error", "skip")


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Nine volumes in three shards; two of the first shard and one of the last are damaged."""
    dataset = noise_dataset(tmp_path / "data", 9, (16, 16, 16))
    for study in BAD:
        flip_voxel(dataset.folder / f"{study}.npz")
    return dataset


@pytest.fixture
def skipped(program: Program, data: Dataset, tmp_path: Path) -> Path:
    """Its shards, the bad samples left out."""
    return program.materialize(data, tmp_path / "skipped", *FLAGS, *SKIP)


def everything(folder: Path) -> dict[str, bytes]:
    """Every file but the records, those of folders below too."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".ctwds" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def tars(folder: Path) -> dict[str, bytes]:
    """The shards."""
    return {path.name: path.read_bytes() for path in shards(folder)}


def verify(program: Program, folder: Path, *more: object) -> tuple[int, str]:
    """Exit code and text."""
    done = program.run("verify", "--webdataset_dir", folder, *more, check=False)
    assert "panicked" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("codec", [(), ("--compress", "zstd")], ids=["plain", "zstd"])
def test_parts_with_bad_samples(
    program: Program, data: Dataset, skipped: Path, tmp_path: Path, codec: tuple[str, ...]
) -> None:
    """Two parts, merged, are what one run makes, its indexes and lists included; and made plain again, the plain
    shards."""
    whole = program.materialize(data, tmp_path / "whole", *FLAGS, *SKIP, *codec)
    parts = tmp_path / "parts"
    for index in range(2):
        program.materialize(data, parts, *FLAGS, *SKIP, *codec, "--partition", f"{index}/2")
    program.run("manifest", "merge", parts)
    found = everything(parts)
    assert {name: found[name] for name in found if "-of-2." not in name} == everything(whole)
    assert ("shardindex.json" in found) == (codec == ())
    for stored in (whole, parts):
        out = tmp_path / f"from-{stored.name}"
        program.run("materialize", "--shards", stored, "--output-dir", out)
        assert tars(out) == tars(skipped)
        left_out = json.loads((out / "manifest.json").read_text())["left_out"]
        assert [(entry["study_id"], "CRC" in entry["reason"]) for entry in left_out] == [(bad, True) for bad in BAD]


def test_parts_of_different_compression_are_not_joined(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Two that begin at once cannot see each other's record; the merge does."""
    out, other = tmp_path / "out", tmp_path / "other"
    program.materialize(data, out, *FLAGS, *SKIP, "--partition", "0/2")
    program.materialize(data, other, *FLAGS, *SKIP, "--partition", "1/2", "--compress", "zstd")
    shutil.copy(other / "manifest-1-of-2.json", out)
    assert "different compressions" in program.refuses("manifest", "merge", out)


def test_only_what_is_ones_own_is_cleared_away(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Another part may be writing its indexes now; what is common to all is nobody's but a merge's."""
    out = tmp_path / "out"
    (out / ".nv-meta").mkdir(parents=True)
    theirs = [out / "shard-000001.idx.partial", out / "shard-000001.tar.idx.partial"]
    ours = [out / "shard-000000.idx.partial", out / "shard-000002.tar.idx.partial", out / "shardindex.json.partial"]
    common = [out / ".nv-meta" / "split.yaml.partial", out / ".nv-meta" / ".info.json.partial"]
    for path in theirs + ours + common:
        path.write_bytes(b"half")
    program.materialize(data, out, *FLAGS, *SKIP, "--partition", "0/2")
    assert sorted(out.rglob("*.partial")) == sorted(theirs)
    program.materialize(data, out, *FLAGS, *SKIP, "--partition", "1/2")
    assert list(out.rglob("*.partial")) == []


def test_a_shard_that_is_made_again_loses_its_indexes(program: Program, data: Dataset, skipped: Path) -> None:
    """Until the run has ended well: an index of other bytes leads DALI and Energon to wrong ones."""
    before = everything(skipped)
    for study in BAD[:2]:
        flip_voxel(data.folder / f"{study}.npz")
    program.refuses("materialize", *data.flags(), *FLAGS, "--output-dir", skipped)
    after = everything(skipped)
    assert after["shard-000000.tar"] != before["shard-000000.tar"]
    indexes = {name for name in after if name.endswith(".idx") or name == "shardindex.json" or ".nv-meta" in name}
    assert indexes == {"shard-000001.idx", "shard-000001.tar.idx"}
    flip_voxel(data.folder / f"{BAD[2]}.npz")
    program.materialize(data, skipped, *FLAGS)
    fresh = program.materialize(data, skipped.parent / "fresh", *FLAGS)
    assert everything(skipped) == everything(fresh)


def test_rebuild_makes_the_indexes_too(program: Program, data: Dataset, skipped: Path) -> None:
    """Of the shards as they are, without their bad samples."""
    before = everything(skipped)
    shutil.rmtree(skipped / ".nv-meta")
    for name in ("manifest.json", "shardindex.json", "shard-000000.idx", "shard-000002.tar.idx"):
        (skipped / name).unlink()
    program.run("manifest", "rebuild", skipped, *data.flags(), *FLAGS)
    assert everything(skipped) == before


def test_the_list_of_a_merge(program: Program, data: Dataset, tmp_path: Path) -> None:
    """It keeps what excludes samples, and drops those that are made now."""
    out = tmp_path / "out"
    listed = out / "quarantine.csv"

    def studies() -> list[str]:
        with listed.open(newline="") as file:
            return [row["study_id"] for row in csv.DictReader(file)]

    out.mkdir()
    listed.write_text("study_id,path,reason\nv04,v04.npz,as somebody remembers\n")
    exclude = tmp_path / "exclude.csv"
    shutil.copy(listed, exclude)

    def convert(*more: object) -> None:
        for index in range(2):
            program.materialize(data, out, *FLAGS, *SKIP, "--partition", f"{index}/2", *more)
        program.run("manifest", "merge", out)

    convert("--exclude", exclude)
    assert studies() == ["v01", "v02", "v04", "v07"]
    for study in BAD:
        flip_voxel(data.folder / f"{study}.npz")
    convert("--exclude", exclude)
    assert studies() == ["v04"]
    convert()
    assert not listed.exists()


def test_one_part_alone(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Incomplete for verify, and whoever wants to use it learns what to do."""
    out = tmp_path / "out"
    program.materialize(data, out, *FLAGS, *SKIP, "--partition", "0/2")
    for more in ([], data.flags() + list(FLAGS)):
        code, text = verify(program, out, *more)
        assert code == 4 and "shard-000001.tar: it is missing" in text and "INCOMPLETE" in text
    for command in (["plan"], ["materialize", "--output-dir", tmp_path / "no"]):
        assert f"manifest merge {out}" in program.refuses(*command, "--shards", out)
    shard = bytearray((out / "shard-000002.tar").read_bytes())
    shard[5000] ^= 1  # a voxel: only the source tells
    (out / "shard-000002.tar").write_bytes(shard)
    code, text = verify(program, out, *data.flags(), *FLAGS)
    assert code == 3 and "000002_000000 v06: 1 of 4096 voxels are wrong" in text


def test_verify_tells_a_left_out_sample_once(program: Program, data: Dataset, skipped: Path) -> None:
    """With the reason."""
    code, text = verify(program, skipped, *data.flags(), *FLAGS)
    assert code == 4 and "Missing: 3" in text
    assert all(f"{study}: it was left out: CRC" in text for study in BAD)


def test_a_manifest_that_was_cut(program: Program, data: Dataset, tmp_path: Path) -> None:
    """At any length: never taken for whole, and every command says what writes it again."""
    whole = program.materialize(data, tmp_path / "whole", *FLAGS, *SKIP)
    parts = tmp_path / "parts"
    for index in range(2):
        program.materialize(data, parts, *FLAGS, *SKIP, "--partition", f"{index}/2")

    def cut(path: Path, check: Callable[[], None]) -> None:
        content = path.read_bytes()
        last = len(content) - 2  # without the closing brace; the line break is not missed
        for length in sorted({0, 1, 2, last, *range(0, last, 53)}):
            path.write_bytes(content[:length])
            check()
        path.write_bytes(content)

    def of_whole() -> None:
        code, text = verify(program, whole)
        assert code == 3 and "manifest.json: it is no manifest, or a damaged one" in text, text
        assert "DAMAGED: the manifest alone" in text and "manifest rebuild" in text and "remove" not in text
        assert "manifest rebuild" in program.refuses("plan", "--shards", whole)

    def of_part() -> None:
        message = program.refuses("manifest", "merge", parts)
        assert "manifest-1-of-2.json" in message and "run its part again" in message
        assert not (parts / "manifest.json").exists()

    cut(whole / "manifest.json", of_whole)
    cut(parts / "manifest-1-of-2.json", of_part)
    program.run("manifest", "merge", parts)
    assert tars(parts) == tars(whole)


def test_a_mount_of_a_folder_without_its_bad_samples(program: Program, skipped: Path) -> None:
    """`--shards`: the shards, and indexes of them, are those of the folder; nothing is damaged."""
    with program.mounted(Stored(skipped)) as point:
        found, right = everything(point), everything(skipped)
        names = [name for name in right if name.endswith((".tar", ".idx")) or "shardindex" in name]
        assert len(names) == 10 and {name: found[name] for name in names} == {name: right[name] for name in names}
        code, text = verify(program, point)
        assert code == 4 and "Damaged" not in text and "Missing: 3" in text


def test_a_mount_beside_a_folder_without_bad_samples(program: Program, data: Dataset, skipped: Path) -> None:
    """`--materialized`: a planned index never stands beside a shard of other bytes; with the list given to `--exclude`,
    manifest, indexes and shuffled views know of the gaps."""
    right = everything(skipped)
    with program.mounted(data, *FLAGS, "--materialized", skipped) as point:
        assert tars(point) == tars(skipped)
        for number, whole in ((0, False), (1, True), (2, False)):
            for index in (f"shard-{number:06d}.idx", f"shard-{number:06d}.tar.idx"):
                assert (point / index).exists() == whole, index
                assert not whole or (point / index).read_bytes() == right[index]
    require_fuse()
    with mount_folder() as base:
        done = program.run(
            "mount", *data.flags(), *FLAGS, "--materialized", skipped, "--log-file", base / "log", base / "mount"
        )
        assert f"--exclude {skipped}/quarantine.csv" in done.stderr and "2 shards" in done.stderr
        program.run("unmount", base / "mount")
    listed = ("--exclude", skipped / "quarantine.csv")
    epochs = ("--shuffle-seed", 1, "--epochs", 2)
    with program.mounted(data, *FLAGS, "--materialized", skipped, *listed, *epochs) as point:
        found = {name: (point / name).read_bytes() for name in right if name.endswith((".tar", ".idx", "dex.json"))}
        assert found == {name: right[name] for name in found} and len(found) == 10
        for epoch in ("000000", "000001"):
            views = tars(point / "epochs" / epoch)
            assert sum(map(len, views.values())) > 0
            studies = re.findall(rb'"study_id": *"(v\d+)"', b"".join(views.values()))
            assert sorted(studies) == [b"v00", b"v03", b"v04", b"v05", b"v06", b"v08"]
        code, text = verify(program, point, *data.flags(), *FLAGS, *listed)
        assert code == 4 and "Damaged" not in text
        assert json.loads((point / ".ctwds" / "stats.json").read_text())["volumes_decoded"] == 0


@pytest.mark.parametrize("page_cache", ["on", "off"])
def test_memory_of_64_readers(program: Program, tmp_path: Path, page_cache: str) -> None:
    """Each in a shard of its own, all at once: the peak of the process stays below cache + decoders × 32 MiB + 64 MiB,
    although what is read is four times that of the cache."""
    readers, cache, decoders = 64, 16 * MIB, 2
    dataset = noise_dataset(tmp_path / "data", readers, (64, 96, 96))
    flags = ("--samples-per-shard", 1, "--cache-size", cache, "--threads", decoders, "--page-cache", page_cache)
    with program.mounted(dataset, *flags) as point:
        start = threading.Barrier(readers)
        lengths: list[int] = []

        def read(path: Path) -> None:
            start.wait(60)
            with path.open("rb", buffering=0) as file:
                lengths.append(sum(len(piece) for piece in iter(lambda: file.read(100_000), b"")))

        threads = [threading.Thread(target=read, args=(path,)) for path in shards(point)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        status = Path(f"/proc/{daemon_of(point)}/status").read_text()
        peak = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        assert len(lengths) == readers and min(lengths) > 64 * 96 * 96 * 2
        assert sum(lengths) > 4 * cache
        assert peak is not None
        assert int(peak[1]) * 1024 <= cache + decoders * 32 * MIB + 64 * MIB, peak[0]

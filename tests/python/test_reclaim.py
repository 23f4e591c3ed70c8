"""`reclaim`: an NPZ is removed only when its volume was found in a sound shard, whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import random
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty import faulty_folder
from harness import Program, digest, files_in, require_fuse, shards, wait_until
from make_dataset import Dataset
from small_datasets import flip_voxel, noise_dataset, write_dataset

COUNT, PER_SHARD = 6, 2
FLAGS = ("--samples-per-shard", PER_SHARD)
DELETE = ("--delete", "--yes")


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Six volumes that a test may lose, in three shards."""
    return noise_dataset(tmp_path / "data", COUNT, (24, 24, 16), deflated=True)


@pytest.fixture(params=["plain", "packed"])
def made(request: pytest.FixtureRequest, program: Program, data: Dataset, tmp_path: Path) -> Path:
    """Their shards, plain or compressed."""
    compress = ["--compress", "zstd"] if request.param == "packed" else []
    return program.materialize(data, tmp_path / "made", *FLAGS, *compress)


@pytest.fixture
def plain(program: Program, data: Dataset, tmp_path: Path) -> Path:
    """Their plain shards."""
    return program.materialize(data, tmp_path / "plain", *FLAGS)


def names(dataset: Dataset) -> list[str]:
    """The volumes that are there."""
    return [path.name for path in dataset.volumes()]


def reclaim(
    program: Program, dataset: Dataset, folder: Path, *flags: object, code: int = 0, given: tuple[object, ...] = FLAGS
) -> dict[str, Any]:
    """Its report; the exit code must be `code`."""
    command = ["reclaim", *dataset.flags(), *given, "--shards", folder, "--json", *flags]
    done = program.run(*command, check=False)
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout)


def journal(folder: Path) -> Path:
    """What it removed."""
    return folder / ".ctwds" / "reclaim.jsonl"


def rewrite_digests(folder: Path) -> None:
    """As if the shards had been written as they are now: only a comparison tells that they are wrong."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for shard in manifest["shards"]:
        shard["sha256"] = digest(folder / shard["name"])
    path.write_text(json.dumps(manifest))


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_a_dry_run_removes_nothing(program: Program, data: Dataset, made: Path) -> None:
    """It compares all the same, and writes nothing."""
    before, sizes = files_in(made), sum(path.stat().st_size for path in data.volumes())
    report = reclaim(program, data, made)
    assert (report["deleted"], report["files"], report["bytes"]) == (False, COUNT, sizes)
    assert len(names(data)) == COUNT and files_in(made) == before and not journal(made).exists()
    text = program.run("reclaim", *data.flags(), *FLAGS, "--shards", made)
    assert "cannot be undone" in text.stderr and "float32" in text.stderr and "dry run" in text.stderr
    assert "6 NPZ files can be removed" in text.stdout and "--delete" in text.stdout


def test_everything_is_served_afterwards(program: Program, data: Dataset, made: Path, tmp_path: Path) -> None:
    """All NPZ files are gone, the shards are as before, a mount of them is as the plain ones, and a second run says so."""
    require_fuse()
    right = files_in(program.materialize(data, tmp_path / "right", *FLAGS))
    sizes, before = sum(path.stat().st_size for path in data.volumes()), files_in(made)
    report = reclaim(program, data, made, *DELETE)
    assert (report["deleted"], report["files"], report["bytes"]) == (True, COUNT, sizes)
    assert names(data) == [] and files_in(made) == before
    lines = [json.loads(line) for line in journal(made).read_text().splitlines()]
    assert [line["removing"]["study_id"] for line in lines[::2]] == [
        line["removed"]["study_id"] for line in lines[1::2]
    ]
    assert {line["removing"]["path"] for line in lines[::2]} == {f"v{n:02d}.npz" for n in range(COUNT)}
    again = reclaim(program, data, made, *DELETE)
    assert (again["files"], again["removed_earlier"], again["refused"]) == (0, COUNT, [])
    with program.mounted(Stored(made)) as point:  # type: ignore[arg-type]
        assert {path.name: digest(path) for path in shards(point)} == {
            path.name: right[path.name] for path in shards(made)
        }


class Stored:
    """A folder of shards, where the program takes a data set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def flags(self) -> list[str]:
        """The arguments that name it."""
        return ["--shards", str(self.folder)]


@pytest.mark.parametrize("kind", ["rescaled", "preprocessed"])
def test_every_kind(program: Program, data: Dataset, tmp_path: Path, kind: str) -> None:
    """And the other kind is refused at once."""
    flags = (*FLAGS, "--volume", kind, "--format", "npy", "--dialect", "hu", "--shape", "16,16,8")
    made = program.materialize(data, tmp_path / "made", *flags, "--compress", "zstd")
    command = ["reclaim", *data.flags(), *DELETE, "--shards", made]
    assert f"--volume {kind}" in program.refuses(*command, *FLAGS, "--format", "npy")
    assert "--format npy" in program.refuses(*command, *FLAGS, "--volume", kind)
    assert f"--samples-per-shard {PER_SHARD}" in program.refuses(*command, "--volume", kind, "--format", "npy")
    if kind == "preprocessed":
        other = reclaim(program, data, made, *DELETE, code=1, given=(*flags[:-1], "16,16,9"))
        assert other["files"] == 0 and all("options" in refused["reason"] for refused in other["refused"])
    assert len(names(data)) == COUNT
    assert reclaim(program, data, made, *DELETE, given=flags)["files"] == COUNT and names(data) == []


def damage_byte(_data: Dataset, made: Path) -> None:
    """A block of a compressed volume, or a voxel of a plain one."""
    shard = shards(made)[1]
    flip(shard, shard.stat().st_size // 3)


def damage_byte_unknown(data: Dataset, made: Path) -> None:
    """The same, when the manifest knows the wrong digest."""
    damage_byte(data, made)
    rewrite_digests(made)


def damage_padding(_data: Dataset, made: Path) -> None:
    """The last of the zeros that end a tar file: no member shows it, the digest does."""
    shard = shards(made)[1]
    flip(shard, shard.stat().st_size - 1)


def damage_text(_data: Dataset, made: Path) -> None:
    """A letter of a report, which no block's checksum covers; the manifest knows the wrong digest."""
    shard = shards(made)[1]
    flip(shard, shard.read_bytes().index(b"findings of v03"))
    rewrite_digests(made)


def damage_source(data: Dataset, _made: Path) -> None:
    """Other bytes in an NPZ: its CRC is wrong, and its directory is right."""
    flip_voxel(data.volumes()[3])


def change_source(data: Dataset, _made: Path) -> None:
    """Another voxel in an NPZ that is sound."""
    path = data.volumes()[3]
    volume = np.load(path)["data"]
    volume[3, 4, 5] += 1
    np.savez_compressed(path, data=volume)


def change_table(data: Dataset, _made: Path) -> None:
    """Another report of the same length."""
    data.reports.write_text(data.reports.read_text().replace("findings of v03", "findings OF v03"))


def lose_row(data: Dataset, _made: Path) -> None:
    """A study that a table no longer knows."""
    lines = data.meta.read_text().splitlines(keepends=True)
    data.meta.write_text("".join(line for line in lines if "v03" not in line))


def lose_source(data: Dataset, _made: Path) -> None:
    """An NPZ that somebody else removed: whether the shard was made of it cannot be asked any more."""
    data.volumes()[3].unlink()


@pytest.mark.parametrize(
    "harm",
    [
        damage_byte,
        damage_byte_unknown,
        damage_padding,
        damage_text,
        damage_source,
        change_source,
        change_table,
        lose_row,
        lose_source,
    ],
    ids=lambda harm: harm.__name__,
)
def test_a_shard_in_doubt_keeps_all_its_files(
    program: Program, data: Dataset, made: Path, harm: Callable[[Dataset, Path], None]
) -> None:
    """v02 and v03 stay, with a reason; the others go, and what is in doubt still is when it is asked again."""
    harm(data, made)
    there = names(data)
    before = {path.name: path.stat() for path in data.volumes()}
    for expected in (COUNT - 2, 0):
        report = reclaim(program, data, made, *DELETE, code=1)
        assert report["files"] == expected
        (refused,) = report["refused"]
        assert refused["shard"] == "shard-000001.tar" and refused["reason"]
        if harm not in (damage_byte, damage_byte_unknown, damage_padding):
            assert "v03" in refused["reason"] or "options" in refused["reason"]
        assert names(data) == [name for name in there if name in ("v02.npz", "v03.npz")]
    assert all(before[path.name].st_ino == path.stat().st_ino for path in data.volumes())


def test_other_options_that_make_the_same_bytes(program: Program, data: Dataset, plain: Path) -> None:
    """The digest tells them apart, also when a run with the right ones was half done."""
    wrong = (*FLAGS, "--overflow", "saturate")
    report = reclaim(program, data, plain, *DELETE, code=1, given=wrong)
    assert report["files"] == 0 and len(report["refused"]) == COUNT // PER_SHARD and len(names(data)) == COUNT
    half = plain.parent / "half"
    half.mkdir()
    shutil.move(data.volumes()[3], half)
    reclaim(program, data, plain, *DELETE, code=1)
    shutil.move(half / "v03.npz", data.folder)
    assert names(data) == ["v02.npz", "v03.npz"]
    assert reclaim(program, data, plain, *DELETE, code=1, given=wrong)["files"] == 0
    assert reclaim(program, data, plain, *DELETE)["files"] == 2 and names(data) == []


def test_a_shard_that_is_missing(program: Program, data: Dataset, made: Path) -> None:
    """Or cut, or of which the manifest knows nothing: nothing at all is removed."""
    shard = shards(made)[1]
    os.truncate(shard, shard.stat().st_size - 10_240)
    command = ["reclaim", *data.flags(), *FLAGS, *DELETE, "--shards", made]
    assert shard.name in program.refuses(*command)
    shard.unlink()
    assert shard.name in program.refuses(*command)
    (made / "manifest.json").unlink()
    assert "manifest.json" in program.refuses(*command)
    assert len(names(data)) == COUNT


def test_files_that_stay(program: Program, data: Dataset, tmp_path: Path) -> None:
    """A symbolic link, a folder behind one, an NPZ with another array, one that the shards are without; and one with a
    hard link goes without freeing anything."""
    volumes = data.volumes()
    arrays = dict(np.load(volumes[0]))
    np.savez_compressed(volumes[0], **arrays, mask=np.zeros(3, "u1"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(volumes[1], elsewhere)
    volumes[1].symlink_to(elsewhere / "v01.npz")
    os.link(volumes[2], elsewhere / "v02.npz")
    (tmp_path / "exclude.csv").write_text("study_id,path,reason\nv04,v04.npz,noise\n")
    flags = (*FLAGS, "--exclude", tmp_path / "exclude.csv")
    made = program.materialize(data, tmp_path / "made", *flags)
    size = sum(volumes[n].stat().st_size for n in (3, 5))
    report = reclaim(program, data, made, *DELETE, code=1, given=flags)
    assert (report["files"], report["bytes"], report["not_in_shards"]) == (3, size, 1)
    assert {kept["study_id"]: kept["reason"] for kept in report["kept"]}.keys() == {"v00", "v01"}
    assert "mask" in report["kept"][0]["reason"] and "symbolic link" in report["kept"][1]["reason"]
    assert names(data) == ["v00.npz", "v01.npz", "v04.npz"] and len(list(elsewhere.iterdir())) == 2
    np.savez_compressed(volumes[0], **arrays)  # now without the mask, which is another file than the planned one
    assert "options" in reclaim(program, data, made, *DELETE, code=1, given=flags)["refused"][0]["reason"]


def test_a_folder_behind_a_link(program: Program, tmp_path: Path) -> None:
    """Somebody else's folder is not emptied; the link may be the data folder itself."""
    arrays = {"data": np.arange(64, dtype="f4").reshape(4, 4, 4)}
    data = write_dataset(tmp_path / "data", {"real/a.npz": arrays, "real/b.npz": arrays})
    shutil.move(data.folder / "real", tmp_path / "real")
    (data.folder / "real").symlink_to(tmp_path / "real")
    made = program.materialize(data, tmp_path / "made")
    report = reclaim(program, data, made, *DELETE, code=1, given=())
    assert report["files"] == 0 and all("folder" in kept["reason"] for kept in report["kept"])
    (data.folder / "real").unlink()
    shutil.move(tmp_path / "real", data.folder / "real")
    link = tmp_path / "link"
    link.symlink_to(data.folder)
    moved = Dataset(link, data.reports, data.meta, data.labels)
    assert reclaim(program, moved, made, *DELETE, given=())["files"] == 2 and names(data) == []


def test_more_volumes_and_strays_do_not_matter(program: Program, data: Dataset, plain: Path) -> None:
    """Slots are those of the shards: a new volume in front changes them for `plan`, and a folder with more files at
    another depth takes the place of what is left."""
    add_volumes(data, ["a00"])
    deep = data.folder / "x"
    deep.mkdir()
    for n in range(9):
        shutil.copy(data.folder / "a00.npz", deep / f"stray{n}.npz")
    assert reclaim(program, data, plain, *DELETE)["files"] == COUNT
    assert [path.name for path in data.folder.glob("*.npz")] == ["a00.npz"] and len(list(deep.iterdir())) == 9


def test_a_mount_is_no_folder_of_shards(program: Program, data: Dataset) -> None:
    """It reads the NPZ files that would be removed."""
    with program.mounted(data, *FLAGS) as point:
        error = program.refuses("reclaim", *data.flags(), *FLAGS, *DELETE, "--shards", point)
    assert "mount" in error and len(names(data)) == COUNT


def test_a_volume_that_cannot_be_written_to(program: Program, data: Dataset, plain: Path) -> None:
    """A read-only file system: the files stay, with its reason, and are there for the next run."""
    require_fuse()
    with faulty_folder({path.name: path.read_bytes() for path in data.volumes()}) as sources:
        read_only = replace(data, folder=sources.point)
        report = reclaim(program, read_only, plain, *DELETE, code=1)
        assert report["files"] == 0 and len(report["kept"]) == COUNT
        assert all("cannot be removed: " in kept["reason"] for kept in report["kept"])
    assert reclaim(program, data, plain, *DELETE)["files"] == COUNT


def add_volumes(data: Dataset, studies: list[str]) -> None:
    """More volumes, with the rows of v00."""
    for table in (data.reports, data.meta, data.labels):
        lines = table.read_text().splitlines(keepends=True)
        table.write_text("".join([*lines, *(lines[1].replace("v00", study) for study in studies)]))
    for study in studies:
        np.savez(data.folder / f"{study}.npz", data=np.zeros((4, 4, 4), "f4"))


def test_materialize_does_not_replace_the_only_copy(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Once files are gone, the same command plans other shards of the same names. Here the last shard is as before, so
    that the folder is known as this plan's."""
    volumes = data.volumes()
    voxels = np.load(volumes[1])["data"]
    np.savez_compressed(volumes[1], data=voxels, mask=voxels)
    made = program.materialize(data, tmp_path / "made", *FLAGS)
    shutil.move(volumes[4], tmp_path)
    reclaim(program, data, made, *DELETE, code=1)
    shutil.move(tmp_path / "v04.npz", data.folder)
    assert names(data) == ["v01.npz", "v04.npz", "v05.npz"]
    add_volumes(data, ["a00", "a01", "a02"])
    right = files_in(made)
    error = program.refuses("materialize", *data.flags(), *FLAGS, "--output-dir", made)
    assert "all that is left" in error and "another output folder" in error and files_in(made) == right
    assert len(shards(program.materialize(data, tmp_path / "other", *FLAGS))) == 3


def test_paths_that_lead_out(program: Program, data: Dataset, plain: Path) -> None:
    """A manifest is a file that anybody may have written."""
    manifest = json.loads((plain / "manifest.json").read_text())
    manifest["shards"][0]["samples"][0]["source"] = "../data/v00.npz"
    (plain / "manifest.json").write_text(json.dumps(manifest))
    assert "not below" in program.refuses("reclaim", *data.flags(), *FLAGS, *DELETE, "--shards", plain)


def ask(program: Program, command: list[object], answer: str) -> tuple[int, str]:
    """Run a command on a terminal and answer its question; exit code and what it printed to stderr."""
    ours, theirs = pty.openpty()
    try:
        with program.running(*command, stdin=theirs) as process:
            os.write(ours, answer.encode())
            _, err = process.communicate(timeout=60)
            return process.returncode, err
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_word_is_wanted(program: Program, data: Dataset, plain: Path) -> None:
    """Typed on a terminal; without one, and without --yes, nothing happens."""
    command = ["reclaim", *data.flags(), *FLAGS, "--delete", "--shards", plain]
    assert "--yes" in program.refuses(*command)
    for answer in ("\n", "yes\n", "\x04"):
        code, err = ask(program, command, answer)
        assert code == 1 and "nothing was removed" in err and len(names(data)) == COUNT
    code, err = ask(program, command, "delete\n")
    assert code == 0 and "Type delete" in err and "cannot be undone" in err and names(data) == []
    assert program.run("reclaim", *data.flags(), "--yes", "--shards", plain, check=False).returncode == 2


def test_another_run_at_work(program: Program, data: Dataset, plain: Path, tmp_path: Path) -> None:
    """Neither a materialize nor a second reclaim may change the folder meanwhile; a dry run may look."""
    ours, theirs = pty.openpty()
    command = ["reclaim", *data.flags(), *FLAGS, "--shards", plain]
    try:
        with program.running(*command, "--delete", stdin=theirs, stderr=(tmp_path / "err").open("w")) as process:
            wait_until(lambda: "Type delete" in (tmp_path / "err").read_text(), "the question")
            assert "reclaim" in program.refuses("materialize", *data.flags(), *FLAGS, "--output-dir", plain)
            assert "reclaim" in program.refuses(*command, *DELETE)
            assert reclaim(program, data, plain)["files"] == COUNT
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
    finally:
        os.close(ours)
        os.close(theirs)
    assert len(names(data)) == COUNT


# --- at any moment ---------------------------------------------------------------------------------------------------

MANY = 24


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Small volumes that stay."""
    return noise_dataset(tmp_path_factory.mktemp("saved"), MANY, (16, 16, 16), deflated=True)


def held(folder: Path) -> set[tuple[str, str]]:
    """The studies of plain shards with the digests of their voxels, by `tarfile`."""
    found = set()
    for shard in shards(folder):
        with tarfile.open(shard) as tar:
            payloads = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
        for name, payload in payloads.items():
            if name.endswith(".json"):
                voxels = payloads[name.removesuffix(".json") + ".bin"]
                found.add((json.loads(payload)["study_id"], hashlib.sha256(voxels).hexdigest()))
    return found


def restore(saved: Dataset, data: Dataset) -> None:
    """Brings back what was removed."""
    for path in saved.volumes():
        if not (data.folder / path.name).exists():
            shutil.copy2(path, data.folder)


def lost(saved: Dataset, data: Dataset) -> set[tuple[str, str]]:
    """The studies whose NPZ is gone, with the digest of their voxels as NumPy converts them."""
    gone = [path for path in saved.volumes() if not (data.folder / path.name).exists()]
    voxels = {path.stem: np.ascontiguousarray(np.load(path)["data"]).astype("<f2").tobytes() for path in gone}
    return {(study, hashlib.sha256(value).hexdigest()) for study, value in voxels.items()}


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["kill", "interrupt"])
def test_stopped_at_any_moment(program: Program, saved: Dataset, tmp_path: Path, end: signal.Signals) -> None:
    """Whatever is gone is in a shard, and in the journal; the next run goes on. An interrupted run says so."""
    data = Dataset(tmp_path / "npz", saved.reports, saved.meta, saved.labels)
    data.folder.mkdir()
    restore(saved, data)
    made = program.materialize(data, tmp_path / "made", *FLAGS)
    right = files_in(made)
    command = ["reclaim", *data.flags(), *FLAGS, *DELETE, "--shards", made, "--num-workers", 2]
    rng = random.Random(int(end))
    begin = time.monotonic()
    program.run(*command)
    whole = time.monotonic() - begin
    in_shards = held(made)
    wanted, stopped, halves = (20 if end == signal.SIGKILL else 4), 0, 0
    deadline = time.monotonic() + 60
    while stopped < wanted:
        assert time.monotonic() < deadline, f"only {stopped} runs were stopped before their end"
        if not names(data):
            restore(saved, data)
            if rng.random() < 0.5:
                journal(made).unlink()
        before = len(names(data))
        with program.running(*command) as process:
            time.sleep(rng.random() * whole)
            process.send_signal(end)
            _, err = process.communicate(timeout=30)
        missing = lost(saved, data)
        assert missing <= in_shards
        removing = journal(made).read_text() if journal(made).exists() else ""
        assert all(f'"study_id":"{study}"' in removing for study, _ in missing)
        is_stopped = process.returncode != 0
        assert process.returncode in (0, -end) or (end == signal.SIGINT and process.returncode == 1), err
        stopped += is_stopped
        halves += is_stopped and 0 < len(names(data)) < before
        if end == signal.SIGINT and process.returncode == 1:
            assert "interrupted" in err and "same command" in err
    assert halves > 0, "no run was stopped between two removals"
    assert files_in(made) == right
    done = program.run(*command)
    assert names(data) == [] and f"{MANY - before_last(done)} were removed earlier" in done.stdout


def before_last(done: subprocess.CompletedProcess[str]) -> int:
    """How many files a finished run removed."""
    return int(done.stdout.split(" NPZ files")[0].rpartition(" ")[2])


def test_a_journal_that_was_cut(program: Program, data: Dataset, plain: Path) -> None:
    """A line that a crash cut short is no line: what it spoke of is there, or its shard is in doubt."""
    keep = data.folder.parent / "keep"
    keep.mkdir()
    shutil.move(data.volumes()[5], keep)
    reclaim(program, data, plain, *DELETE, code=1)
    shutil.move(keep / "v05.npz", data.folder)
    with journal(plain).open("a") as file:
        file.write('{"removing":{"study_id":"v05","pa')
    assert reclaim(program, data, plain, *DELETE)["files"] == 2
    text = journal(plain).read_text().splitlines()
    assert sum("removing" in line and json.loads(line) is not None for line in text if line.endswith("}")) == COUNT

"""`ctwds-fs verify` with sources in buckets: it finds what it finds in the same files on a disk, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damages import DAMAGED, UNCHECKED, VOLUME, with_payload
from harness import Program, report_of
from make_dataset import Dataset, dataset_at
from niftis import write, written
from npzfiles import write_npz
from objects import BUCKET, SECRET_KEY, Faults, Proxy, Storage, variables
from small_datasets import noise_dataset, write_plain_tables
from test_bucket_sources import Sources, put

FLAGS = ("--samples-per-shard", "3")
KINDS = {
    "stored": (),
    "rescaled": ("--volume", "rescaled", "--rescale", "table", "--dialect", "native"),
    "preprocessed": (
        *("--volume", "preprocessed", "--rescale", "none", "--dialect", "native"),
        *("--shape", "20,20,20", "--spacing", "1.0,1.0,1.5"),
    ),
}
MIB = 1 << 20


def values(number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The voxels of a study."""
    return np.random.default_rng(number).integers(-1000, 1000, (24, 20, 16 + number)).astype("f4")


def every_source(out: Path) -> Dataset:
    """A volume of each format, packing and order, each with a mask in a file of its own, and three with one beside the
    volume, in the same file."""
    dataset = dataset_at(out)
    folder = dataset.folder / "train" / "a b"
    write_npz(folder / "v0.npz", {"data": values(0)}, writer="numpy")
    write_npz(folder / "v1.npz", {"data": values(1)}, writer="numpy", deflated=True)
    write_npz(folder / "v2.npz", {"data": np.asfortranarray(values(2))}, writer="numpy")
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "v3.npy", values(3))
    write(folder / "v4.nii", written(values(4)))
    write(folder / "v5.nii.gz", written(values(5)))
    write_npz(folder / "v6.npz", {"mask": values(6).astype("i2"), "data": values(6)}, writer="numpy", deflated=True)
    write_plain_tables(dataset, [f"v{n}" for n in range(7)])
    for number in range(7):
        mask = (values(number) > 0).astype("u1")
        write_npz(out / "masks" / f"v{number}.npz", {"seg": mask}, writer="numpy", deflated=number % 2 == 1)
    return dataset


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The files on a disk."""
    return every_source(tmp_path_factory.mktemp("sources") / "data")


@pytest.fixture(scope="module")
def sources(bucket: Storage, on_disk: Dataset) -> Sources:
    """The same files in the bucket."""
    return put(bucket, on_disk, "every")


def also(place: object) -> tuple[str, ...]:
    """The masks in files of their own."""
    return ("--also", f"mask={place}/masks/*.npz:seg")


def verify(program: Program, shards: object, port: int, *flags: object) -> subprocess.CompletedProcess[str]:
    """The end of the command, with its report as JSON."""
    done = program.run("verify", "--shards", shards, *flags, *FLAGS, "--json", env=variables(port), check=False)
    assert "panicked" not in done.stderr and SECRET_KEY not in done.stdout + done.stderr
    return done


def found(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What was found, a line each."""
    return [f"{finding['place']}: {finding['what']}" for finding in report_of(done)["findings"]]


def same(there: subprocess.CompletedProcess[str], here: subprocess.CompletedProcess[str], code: int = 0) -> None:
    """Two ends are the same, but for the folder of the shards."""
    reports = [report_of(done) for done in (there, here)]
    for report in reports:
        report.pop("folder")
    assert reports[0] == reports[1]
    assert there.returncode == here.returncode == code, there.stdout + there.stderr


@pytest.mark.parametrize("with_masks", [False, True], ids=["volumes", "masks"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_report_is_that_of_the_files(
    program: Program, on_disk: Dataset, sources: Sources, between: Proxy, tmp_path: Path, kind: str, with_masks: bool
) -> None:
    """Every kind of volume, of every format, packing and order; masks in files of their own."""
    here, there = (also(place) if with_masks else () for place in (on_disk.folder.parent, sources.address))
    out = program.materialize(on_disk, tmp_path / "out", *FLAGS, *KINDS[kind], *here)
    right = verify(program, out, between.port, *on_disk.flags(), *KINDS[kind], *here)
    assert not between.faults.requests
    same(verify(program, out, between.port, *sources.flags(), *KINDS[kind], *there), right)
    assert report_of(right)["source"]["samples"] == 7, report_of(right)["source"]
    read = {path.rpartition("/")[2] for _, path, _ in between.faults.requests}
    assert {f"v{n}.npz" for n in (0, 1, 2, 6)} | {"v3.npy", "v4.nii", "v5.nii.gz"} <= read


@pytest.mark.parametrize(
    "flags",
    [
        ("--also", "mask=mask", "--pattern", "**/v6.npz"),
        ("--source", "nifti", "--orientation", "RAS"),
        ("--source", "nifti", "--orientation", "LPS", *KINDS["preprocessed"]),
        ("--limit", "2", "--check_precision", "--seed", "3", "--num-samples", "2"),
    ],
    ids=["mask", "orientation", "turned", "precision"],
)
def test_choices(
    program: Program, on_disk: Dataset, sources: Sources, bucket: Storage, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """Masks beside the volume in the same file, affines of headers, and a part of the samples."""
    made = flags[: flags.index("--check_precision")] if "--check_precision" in flags else flags
    out = program.materialize(on_disk, tmp_path / "out", *FLAGS, *made)
    right = verify(program, out, bucket.port, *on_disk.flags(), *flags)
    same(verify(program, out, bucket.port, *sources.flags(), *flags), right)


def test_sources_and_shards_lie_where_they_like(
    program: Program, on_disk: Dataset, sources: Sources, bucket: Storage, tmp_path: Path
) -> None:
    """Volumes, tables, masks, lists and shards, each on a disk or in a bucket; and shards of a mount."""
    parent = on_disk.folder.parent
    out = program.materialize(on_disk, tmp_path / "out", *FLAGS, *also(parent))
    packed = program.materialize(on_disk, tmp_path / "packed", *FLAGS, *also(parent), "--compress", "zstd")
    right = verify(program, out, bucket.port, *on_disk.flags(), *also(parent))
    here, there = on_disk.flags(), sources.flags()
    lists = bucket.folder / BUCKET / "lists"
    lists.mkdir()
    (lists / "studies.txt").write_text("".join(f"v{n}\n" for n in range(7)))
    for flags in ([*there[:2], *here[2:], *also(parent)], [*here[:2], *there[2:], *also(sources.address)]):
        same(verify(program, out, bucket.port, *flags, "--studies", f"s3://{BUCKET}/lists/studies.txt"), right)
    both = [*there, *also(sources.address)]
    same(verify(program, bucket.put(out, "shards"), bucket.port, *both), right)
    with program.mounted(sources, *FLAGS, *also(sources.address), env=variables(bucket.port)) as point:
        same(verify(program, point, bucket.port, *both), verify(program, point, bucket.port, *here, *also(parent)))
    of_packed = verify(program, packed, bucket.port, *here, *also(parent))
    same(verify(program, bucket.put(packed, "packed"), bucket.port, *both), of_packed)


def test_excluded_studies_and_addresses_in_a_file(
    program: Program, on_disk: Dataset, sources: Sources, bucket: Storage, tmp_path: Path
) -> None:
    """`--exclude` by an address, and a `ctwds.toml` with addresses."""
    listed = bucket.folder / BUCKET / "excluded.csv"
    listed.write_text("study_id,path,reason\nv2,,wrong patient\n")
    exclude = f"s3://{BUCKET}/excluded.csv"
    out = program.materialize(on_disk, tmp_path / "out", *FLAGS, "--exclude", listed)
    right = verify(program, out, bucket.port, *on_disk.flags(), "--exclude", listed)
    assert right.returncode == 4, "a sample is left out"
    same(verify(program, out, bucket.port, *sources.flags(), "--exclude", exclude), right, 4)
    names = ("data_folder", "reports_file", "meta_file", "labels_file")
    lines = [f'{name} = "{value}"\n' for name, value in zip(names, sources.flags()[1::2], strict=True)]
    (tmp_path / "ctwds.toml").write_text("".join([*lines, f'exclude = "{exclude}"\n']))
    command = ["verify", "--shards", out, *FLAGS, "--json"]
    same(program.run(*command, env=variables(bucket.port), cwd=tmp_path, check=False), right, 4)


def changed_voxel(folder: Path) -> None:
    """One voxel of each volume is another one, with right checksums."""
    for number in range(7):
        new = values(number)
        new[1, 2, 3] += 1 if new[1, 2, 3] < 0 else -1
        (path,) = (folder / "volumes").rglob(f"v{number}.*")
        if path.suffix == ".npz":
            arrays = {"mask": values(number).astype("i2")} if number == 6 else {}
            order = np.asfortranarray(new) if number == 2 else new
            write_npz(path, arrays | {"data": order}, writer="numpy", deflated=number in (1, 6))
        elif path.suffix == ".npy":
            np.save(path, new)
        else:
            write(path, written(new))


def changed_mask(folder: Path) -> None:
    """One element of a mask is another one."""
    mask = (values(3) > 0).astype("u1")
    mask[0, 0, 0] ^= 1
    write_npz(folder / "masks" / "v3.npz", {"seg": mask}, writer="numpy", deflated=True)


def changed_cell(folder: Path) -> None:
    """The report of one study, and the spacing of all."""
    for name, old, new in (("reports", "findings of v1.", "findings of v2."), ("metadata", "1.5", "1.25")):
        text = (folder / f"{name}.csv").read_text()
        assert old in text
        (folder / f"{name}.csv").write_text(text.replace(old, new))


def swapped(folder: Path) -> None:
    """Each of two volumes, and of their masks, has the other's name."""
    for place in (folder / "volumes" / "train" / "a b", folder / "masks"):
        first, second, aside = place / "v0.npz", place / "v1.npz", folder / "aside"
        first.rename(aside)
        second.rename(first)
        aside.rename(second)


def damaged(folder: Path) -> None:
    """The checksum is wrong of a stored, a deflated and a gzip source, another one is cut, and a directory is not
    there; but what a plan reads of them is right where that is possible."""
    files = folder / "volumes" / "train" / "a b"
    for name in ("v0.npz", "v1.npz", "v2.npz", "v5.nii.gz"):
        content = bytearray((files / name).read_bytes())
        content[len(content) // 2] ^= 0x40
        (files / name).write_bytes(content)
    (files / "v6.npz").write_bytes((files / "v6.npz").read_bytes()[:-300])


def gone(folder: Path) -> None:
    """A volume and its mask are removed."""
    (folder / "volumes" / "train" / "a b" / "v3.npy").unlink()
    (folder / "masks" / "v3.npz").unlink()


PLANTED: dict[str, tuple[Callable[[Path], None], int, list[str]]] = {
    "a voxel": (changed_voxel, DAMAGED, [f"v{n}: 1 of " for n in range(7)]),
    "a mask": (changed_mask, DAMAGED, ["v3 'mask': 1 of its elements are wrong"]),
    "a cell": (changed_cell, DAMAGED, ["its text is not that of the reports table", "ZSpacing is 1.5, and 1.25"]),
    "swapped": (swapped, DAMAGED, ["v0: its shape is", "v1: its shape is"]),
    "damaged": (damaged, UNCHECKED, ["v0: it cannot be compared with its source", "v5", "v6"]),
    "gone": (gone, UNCHECKED, ["v3"]),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_wrong_is_found(program: Program, on_disk: Dataset, bucket: Storage, tmp_path: Path, name: str) -> None:
    """The same findings, and the same exit code, as with the same files on a disk."""
    plant, code, said = PLANTED[name]
    out = program.materialize(on_disk, tmp_path / "out", *FLAGS, *also(on_disk.folder.parent))
    other = dataset_at(tmp_path / "other")
    shutil.copytree(on_disk.folder.parent, tmp_path / "other")
    plant(tmp_path / "other")
    there = put(bucket, other, f"planted {name}")
    here = verify(program, out, bucket.port, *other.flags(), *also(tmp_path / "other"))
    done = verify(program, out, bucket.port, *there.flags(), *also(there.address))
    lines = found(done)
    assert lines == [line.replace(str(tmp_path / "other"), there.address) for line in found(here)]
    assert done.returncode == here.returncode == code, (lines, done.stderr)
    for text in said:
        assert any(text in line for line in lines), (text, lines)


def test_a_shard_that_is_wrong(
    program: Program, on_disk: Dataset, sources: Sources, bucket: Storage, tmp_path: Path
) -> None:
    """A voxel of the shard, of which a manifest without digests says nothing: in a bucket, compared with a bucket."""
    out = program.materialize(on_disk, tmp_path / "out", *FLAGS)
    with_payload(VOLUME, lambda voxels: voxels[:100] + bytes([voxels[100] ^ 1]) + voxels[101:])(out)
    right = verify(program, out, bucket.port, *on_disk.flags())
    done = verify(program, bucket.put(out, "wrong"), bucket.port, *sources.flags())
    same(done, right, DAMAGED)
    assert any("voxels are wrong; voxel [0, 3, 2] is" in line for line in found(done)), found(done)


def test_large_volumes_are_asked_for_in_large_ranges(
    program: Program, bucket: Storage, between: Proxy, tmp_path: Path
) -> None:
    """A range of 4 MiB a request, each but once, and a few small ones: of volumes, and of a mask beside one."""
    shape = (128, 256, 200)
    rng = np.random.default_rng(1)
    arrays = {"seg": rng.integers(0, 99, shape, "i2"), "data": rng.integers(-999, 999, shape).astype("f4")}
    dataset = dataset_at(tmp_path / "data")
    write_npz(dataset.folder / "v0.npz", arrays, writer="numpy")
    write_plain_tables(dataset, ["v0"])
    sources = put(bucket, dataset, "large")
    flags = ("--also", "mask=seg", "--rescale", "none")
    out = program.materialize(dataset, tmp_path / "out", *flags)
    done = verify(program, out, between.port, *sources.flags(), *flags)
    assert done.returncode == 0, done.stdout
    ranges = [wanted for _, path, wanted in between.faults.requests if path.endswith(".npz")]
    ends = [tuple(map(int, wanted.removeprefix("bytes=").split("-"))) for wanted in ranges]
    lengths = [end - start + 1 for start, end in ends]
    size = (dataset.folder / "v0.npz").stat().st_size
    assert max(lengths) == 4 * MIB and len(lengths) < size // (4 * MIB) + 16, lengths
    assert sum(lengths) < size + 2 * MIB, "nothing is asked for that is not wanted"


def test_lines_of_a_terminal_name_the_address(program: Program, bucket: Storage, tmp_path: Path) -> None:
    """Without JSON: the report for people."""
    dataset = noise_dataset(tmp_path / "data", 3, (16, 16, 16))
    out = program.materialize(dataset, tmp_path / "out", *FLAGS)
    sources = put(bucket, dataset, "people")
    command = ["verify", "--shards", out, *sources.flags(), *FLAGS]
    done = program.run(*command, env=variables(bucket.port))
    assert "all 3" in done.stdout or "3 samples" in done.stdout, done.stdout
    whole = bucket.folder / BUCKET / "people" / "volumes" / "v01.npz"
    content = bytearray(whole.read_bytes())
    content[len(content) // 2] ^= 0x40
    whole.write_bytes(content)
    done = program.run(*command, env=variables(bucket.port), check=False)
    assert done.returncode == UNCHECKED and f"{sources.address}/volumes/v01.npz" in done.stdout, done.stdout


def test_the_list_of_sources_is_on_a_disk(program: Program, sources: Sources) -> None:
    """An address is refused for what `--sources` writes."""
    listed = f"s3://{BUCKET}/quarantine.csv"
    done = program.run("verify", "--sources", *sources.flags(), "--quarantine", listed, check=False)
    assert done.returncode == 2 and "it must be on a disk" in done.stderr, done.stderr


def test_a_saved_plan_is_not_used(program: Program, bucket: Storage, between: Proxy, tmp_path: Path) -> None:
    """A table that was edited in place is read again, whatever a list says."""
    dataset = noise_dataset(tmp_path / "data", 3, (16, 16, 16))
    sources = put(bucket, dataset, "edited")
    out = program.materialize(dataset, tmp_path / "out", *FLAGS)
    assert verify(program, out, between.port, *sources.flags()).returncode == 0
    between.faults = Faults()
    assert verify(program, out, between.port, *sources.flags()).returncode == 0
    tables = [path for _, path, _ in between.faults.requests if path.endswith(".csv")]
    assert len(tables) >= 3, "read again"
    reports = bucket.folder / BUCKET / "edited" / "reports.csv"
    reports.write_text(reports.read_text().replace("findings of v01", "findings of v02"))
    done = verify(program, out, between.port, *sources.flags())
    assert done.returncode == DAMAGED and any("v01: its text" in line for line in found(done)), done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["verdict"] == "damaged"

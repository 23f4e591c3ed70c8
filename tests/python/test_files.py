"""Which files are volumes: NPY beside NPZ, deeper folders, and patterns. NumPy and Python's `glob` are the judges;
mount, files, `verify`, `reclaim` and both loaders agree with them."""

from __future__ import annotations

import glob
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctreport_webdataset import LoaderError
from harness import Program, is_mounted, shards
from loading import from_npz
from make_dataset import Dataset, dataset_at
from numpy.typing import NDArray
from small_datasets import write_plain_tables
from spellings import HEADERS
from spellings import npy as npy_of
from test_one_answer import differences, of_tars, through_npz, through_shards
from verifying import verify

Arrays = Mapping[str, NDArray[Any]]
NATIVE = ("--dialect", "native")


def volume(seed: int, dtype: str = "f4", order: Any = "C") -> NDArray[Any]:
    """Integers that every dtype holds."""
    return np.random.default_rng(seed).integers(0, 120, (6, 5, 7)).astype(dtype).copy(order)


def write(out: Path, files: Arrays) -> Dataset:
    """Volumes at paths below the data folder, in the format that their suffix says, and tables of all of them."""
    dataset = dataset_at(out)
    for path, array in files.items():
        place = dataset.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".npy"):
            np.save(place, array)
        elif path.endswith(".npz"):
            np.savez_compressed(place, data=array)
    write_plain_tables(dataset, sorted({Path(path).stem for path in files}))
    return dataset


def studies(program: Program, dataset: Dataset, *flags: object) -> list[str]:
    """The paths of the plan, from the shards' manifest."""
    out = dataset.folder.parent / "planned"
    program.run("materialize", *dataset.flags(), *flags, "--output_dir", out)
    manifest = json.loads((out / "manifest.json").read_text())
    shutil.rmtree(out)
    return [sample["source"] for shard in manifest["shards"] for sample in shard["samples"]]


MIXED = {
    f"{kind}_{order}_{name.strip('<>|')}{'be' if name[0] == '>' else ''}.{kind}": volume(number, name, order)
    for number, (kind, order, name) in enumerate(
        (kind, order, name)
        for kind in ("npy", "npz")
        for order in "CF"
        for name in ("<f4", ">f4", "<i2", ">i2", "|u1", "<f8", "<f2", "|b1")
    )
}


def test_npy_and_npz_give_the_same(program: Program, via: str, tmp_path: Path) -> None:
    """Of every dtype and order: the voxels are NumPy's, `verify` agrees by its own reader, and so do both loaders."""
    dataset = write(tmp_path / "data", MIXED)
    with program.produced(via, dataset, tmp_path / "made", *NATIVE) as made:
        found = of_tars(made)
        assert sorted(found) == sorted(Path(path).stem for path in MIXED)
        for path, array in MIXED.items():
            assert np.array_equal(found[Path(path).stem][0], array.astype(np.float16)), path
        assert verify(program, made, *dataset.flags(), *NATIVE)[0] == 0
        loaded = through_shards(made)
        manifest = json.loads((made / "manifest.json").read_text())
    assert differences(through_npz(dataset), loaded, 0) == []
    entries = [sample for shard in manifest["shards"] for sample in shard["samples"]]
    for entry in entries:
        assert bool(entry["source_crc32"]) == entry["source"].endswith(".npz"), entry
    listed = tmp_path / "list.csv"
    assert program.run("verify", "--sources", *dataset.flags(), "--quarantine", listed).returncode == 0


@pytest.mark.parametrize("kind", ["rescaled", "preprocessed"])
def test_kinds_of_npy_are_those_of_npz(program: Program, tmp_path: Path, kind: str) -> None:
    """The same bytes, from both formats."""
    flags = ("--volume", kind, "--shape", "8,8,6", "--spacing", "1,1,1.5", *NATIVE)
    made = []
    for suffix in ("npz", "npy"):
        dataset = write(tmp_path / suffix, {f"s{n}.{suffix}": volume(n, "i2", "CF"[n % 2]) for n in range(6)})
        folder = program.materialize(dataset, tmp_path / f"{suffix}-made", *flags)
        assert verify(program, folder, *dataset.flags(), *flags)[0] == 0
        made.append([path.read_bytes() for path in shards(folder)])
    assert made[0] == made[1]


def test_the_source_chooses(program: Program, tmp_path: Path) -> None:
    """`--source npz` and `npy`; two files of one study are named, by the program and by the loader."""
    dataset = write(tmp_path / "data", {"a.npz": volume(1), "b.npy": volume(2), "a.npy": volume(3)})
    said = program.refuses("plan", *dataset.flags())
    assert "a.npy and a.npz" in said and "--source" in said
    with pytest.raises(LoaderError, match=r"a\.npy and a\.npz"):
        from_npz(dataset, dialect="native")
    assert studies(program, dataset, "--source", "npz") == ["a.npz"]
    assert studies(program, dataset, "--source", "npy") == ["a.npy", "b.npy"]
    assert sorted(through_npz(dataset, source="npy")) == ["a", "b"]


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut": (lambda content: content[:-1], "does not fit"),
    "cut_in_the_header": (lambda content: content[:90], "cut short"),
    "longer": (lambda content: content + b"x", "does not fit"),
    "no_npy": (lambda content: b"P" + content[1:], "magic"),
    "empty": (lambda content: b"", "cut short"),
    "pickled": (lambda content: npy_of(HEADERS["numpy"]("|O", False, (1, 1, 1)), 1, b"x" * 99), "object array"),
}


def test_a_damaged_npy_is_left_out(program: Program, tmp_path: Path) -> None:
    """Before anything of it is handed on, with the reason; the loader names the file."""
    dataset = write(tmp_path / "data", {f"{name}.npy": volume(1) for name in [*DAMAGED, "sound"]})
    for name, (damage, _) in DAMAGED.items():
        path = dataset.folder / f"{name}.npy"
        path.write_bytes(damage(path.read_bytes()))
    plan = json.loads(program.run("plan", *dataset.flags(), "--json").stdout)
    reasons = {sample["study_id"]: sample["reason"] for sample in plan["left_out"]}
    assert sorted(reasons) == sorted(DAMAGED)
    for name, (_, says) in DAMAGED.items():
        assert says in reasons[name] and "array ''" not in reasons[name], reasons[name]
    data = from_npz(dataset, dialect="native", shape=(8, 8, 6), spacing=(1.0, 1.0, 1.5))
    for at, name in enumerate(sorted(DAMAGED)):
        with pytest.raises(LoaderError, match=rf"{name}\.npy"):
            data[at]


def replaced(path: Path) -> None:
    """Other values of the same size, and the old time."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[-8:] = np.full(2, 99, "<f4").tobytes()
    time.sleep(0.02)
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "replaced": replaced,
    "touched": lambda path: path.chmod(0o640),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_npy_is_an_error(program: Program, tmp_path: Path, change: str) -> None:
    """Never a mixture. It has no checksum: a ctime that differs is enough."""
    dataset = write(tmp_path / "data", {"a.npy": volume(1), "b.npy": volume(2)})
    with program.mounted(dataset) as point:
        CHANGES[change](dataset.folder / "a.npy")
        with pytest.raises(OSError), shards(point)[0].open("rb") as shard:
            shard.read()
        assert is_mounted(point)
        status = json.loads(program.run("status", point, "--json").stdout)
        assert "a.npy" in json.dumps(status["errors"])


def test_reclaim_removes_npy(program: Program, tmp_path: Path) -> None:
    """When the shards hold what is made of it, to the byte; what differs stays."""
    dataset = write(tmp_path / "data", {f"{name}.npy": volume(at) for at, name in enumerate("abcd")})
    flags = ("--samples-per-shard", 2)
    out = program.materialize(dataset, tmp_path / "out", *flags)
    np.save(dataset.folder / "d.npy", volume(9))
    done = program.run("reclaim", *dataset.flags(), *flags, "--shards", out, "--delete", "--yes", check=False)
    assert done.returncode != 0 and "doubt" in done.stderr, done.stderr
    assert sorted(path.name for path in dataset.folder.iterdir()) == ["c.npy", "d.npy"]
    lines = [json.loads(line) for line in (out / ".ctwds" / "reclaim.jsonl").read_text().splitlines()]
    assert [line["removing"]["crc32"] for line in lines if "removing" in line] == ["", ""]
    # The finished shards serve on without their sources.
    program.run("verify", "--shards", out)


def test_a_finished_shard_of_npy_goes_on(program: Program, tmp_path: Path) -> None:
    """A mount of the finished shards, and a run that was done."""
    dataset = write(tmp_path / "data", {"a.npy": volume(1), "b.npz": volume(2)})
    out = program.materialize(dataset, tmp_path / "out")
    before = {path.name: path.stat().st_ino for path in shards(out)}
    program.materialize(dataset, out)
    assert {path.name: path.stat().st_ino for path in shards(out)} == before
    done = program.run("plan", "--shards", out, "--json")
    assert json.loads(done.stdout)


# --- folders and patterns ---------------------------------------------------------------------------------------------

TREE = (
    "images/a1.npz",
    "images/a2.npy",
    "images/deep/a3.npz",
    "masks/b1.npz",
    "masks/.hidden/b2.npz",
    "x/y/z/c1.npz",
    "x/y/z/w/c2.npy",
    ".c3.npz",
    "images/readme.txt",
)
PATTERNS = (
    ("images/*.npz",),
    ("images/*",),
    ("**/*.npy",),
    ("**/a?.np[yz]",),
    ("images/**/*.npz",),
    ("*/*/*/*.npz", "masks/*.npz"),
    ("./images/a1.npz",),
    ("**/[!ab]*.npz",),
    ("x/**",),
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Volumes in many folders, and a folder that a link leads to."""
    out = tmp_path_factory.mktemp("tree")
    dataset = write(out, {path: volume(at) for at, path in enumerate(TREE)})
    (dataset.folder / "images" / "readme.txt").touch()
    (out / "elsewhere").mkdir()
    np.save(out / "elsewhere" / "l1.npy", volume(50))
    (dataset.folder / "linked").symlink_to("../elsewhere")
    write_plain_tables(dataset, [Path(path).stem for path in (*TREE, "l1.npy")])
    return dataset


@pytest.mark.parametrize("patterns", PATTERNS, ids=" ".join)
def test_patterns_match_as_python_does(program: Program, tree: Dataset, patterns: tuple[str, ...]) -> None:
    """The files of `glob.glob` that are volumes; the loader has the same."""
    found = {path for pattern in patterns for path in glob.glob(pattern, root_dir=tree.folder, recursive=True)}
    right = sorted({os.path.normpath(path) for path in found if path.endswith((".npz", ".npy"))})
    flags = [part for pattern in patterns for part in ("--pattern", pattern)]
    assert right and studies(program, tree, *flags) == right
    data = from_npz(tree, pattern=patterns if len(patterns) > 1 else patterns[0])
    assert [os.path.relpath(study.path, tree.folder) for study in data.studies] == right


def test_a_pattern_without_a_file(program: Program, tree: Dataset) -> None:
    """Is an error that names it, also where another matches; so is one that leads out of the folder."""
    said = program.refuses("plan", *tree.flags(), "--pattern", "images/*.npz", "--pattern", "imges/*.npz")
    assert "--pattern 'imges/*.npz'" in said and "relative" in said
    with pytest.raises(LoaderError, match="imges"):
        from_npz(tree, pattern=["images/*.npz", "imges/*.npz"])
    for pattern in ("../*.npz", "/images/*.npz", "a**/b.npz", "[a.npz"):
        done = program.run("plan", *tree.flags(), "--pattern", pattern, check=False)
        assert done.returncode == 2, done.stderr


@pytest.mark.parametrize(
    ("files", "right"),
    [
        (["a/b/c/1.npz", "a/b/c/2.npy"], ["a/b/c/1.npz", "a/b/c/2.npy"]),
        (["a/b/c/1.npz", "a/b/c/d/2.npz"], ["a/b/c/d/2.npz"]),
        (["a/b/c/d/e/f/g/1.npz"], ["a/b/c/d/e/f/g/1.npz"]),
        (["a/b/c/d/1.npz", "a/b/c/d/2.npz", "0.npz"], ["0.npz"]),
        (["a/0.npy", "a/b/c/d/1.npz", "a/b/c/d/2.npz"], ["a/0.npy"]),
    ],
)
def test_deeper_folders(program: Program, tmp_path: Path, files: list[str], right: list[str]) -> None:
    """Count only where the first three depths hold no volume; the loader has the same."""
    dataset = write(tmp_path, {path: volume(at) for at, path in enumerate(files)})
    assert studies(program, dataset) == right
    data = from_npz(dataset, dialect="native")
    assert [os.path.relpath(study.path, dataset.folder) for study in data.studies] == right


def test_a_ninth_level_is_too_deep(program: Program, tmp_path: Path) -> None:
    """And the message says how deep it looked; a pattern goes deeper. A second start notices what is new there."""
    dataset = write(tmp_path, {"1/2/3/4/5/6/7/8/a.npz": volume(1)})
    said = program.refuses("plan", *dataset.flags())
    assert "8 levels" in said
    with pytest.raises(LoaderError, match="8 levels"):
        from_npz(dataset)
    assert studies(program, dataset, "--pattern", "**/*.npz") == ["1/2/3/4/5/6/7/8/a.npz"]
    file = io.BytesIO()
    np.save(file, volume(2))
    (dataset.folder / "1" / "2" / "b.npy").write_bytes(file.getvalue())
    write_plain_tables(dataset, ["a", "b"])
    assert studies(program, dataset, "--pattern", "**/*.np?") == ["1/2/3/4/5/6/7/8/a.npz", "1/2/b.npy"]

"""Shards of a later version, with a filter that this one does not know: whoever meets them names the file, the filter
and the remedy, and takes them neither for damaged ones nor for plain ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import packing
import pytest
from ctwds import PackageMissing
from ctwds.shard_dataset import CTReportWebDataset
from damages import FIRST, UNCHECKED, in_manifest, recompute
from harness import Program, digest, mount_folder, shards
from make_dataset import Dataset
from small_datasets import noise_dataset

FLAGS = ("--samples-per-shard", 2)
LATER = "split3"
SAYS = ("later version", "install that version")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four small volumes, each with a mask."""
    made = noise_dataset(tmp_path_factory.mktemp("data"), 4, (8, 9, 10))
    masks = noise_dataset(tmp_path_factory.mktemp("masks"), 4, (8, 9, 10), dtype="u1")
    shutil.copytree(masks.folder, made.folder.parent / "masks")
    return made


def flags(data: Dataset) -> list[object]:
    """What the shards are made of."""
    return [*data.flags(), *FLAGS, "--also", f"mask={data.folder.parent / 'masks'}/*.npz", "--compress", "zstd"]


@pytest.fixture(scope="module")
def packed(program: Program, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their compressed shards."""
    out = tmp_path_factory.mktemp("packed")
    program.run("materialize", *flags(data), "--output-dir", out)
    return out


def of_later_version(packed: Path, out: Path, *, suffix: str, manifest: bool) -> Path:
    """The shards as a version would make them that has another filter for members with this suffix."""
    shutil.copytree(packed, out)
    old = "predict1" if suffix.startswith("mask") else "split"

    def change(name: str, content: bytes) -> tuple[str, bytes]:
        if name.endswith(f".{suffix}.{old}.zst"):
            return name.replace(f".{old}.zst", f".{LATER}.zst"), content
        if name.endswith(".json") and old == "split":
            return name, content.replace(b'"volume_filter": "split"', f'"volume_filter": "{LATER}"'.encode())
        return name, content

    packing.rewrite(out, change)
    recompute(out)
    if manifest:
        in_manifest(lambda content: content["compression"].update(filter=LATER))(out)
    return out


@pytest.mark.parametrize(("suffix", "manifest"), [("bin", True), ("bin", False), ("mask.npy", False)])
def test_a_filter_that_is_not_known(
    program: Program, packed: Path, tmp_path: Path, suffix: str, manifest: bool
) -> None:
    """By the mount, by `materialize --shards`, by `verify`: with the file's name, and an exit code that does not say
    damage. No shard is touched."""
    later = of_later_version(packed, tmp_path / "later", suffix=suffix, manifest=manifest)
    before = {path: digest(path) for path in shards(later)}
    with mount_folder() as base:
        said = program.refuses("mount", "--shards", later, base / "mount")
    assert all(text in said for text in (*SAYS, LATER, "manifest.json" if manifest else FIRST)), said
    assert said.splitlines()[0] in program.refuses("materialize", "--shards", later, "--output-dir", tmp_path / "out")
    done = program.run("verify", "--webdataset_dir", later, check=False)
    found = done.stdout + done.stderr
    assert done.returncode == UNCHECKED and f".{suffix}.{LATER}.zst" in found, found
    assert all(text in found for text in SAYS) and "its SHA-256" not in found, found
    assert {path: digest(path) for path in shards(later)} == before


def test_a_manifest_or_codec_that_is_not_known(program: Program, packed: Path, tmp_path: Path) -> None:
    """A container that is not zstd's, or a manifest whose fields may mean something else."""
    changes: tuple[Callable[[dict[str, Any]], None], ...] = (
        lambda manifest: manifest["compression"].update(codec="other"),
        lambda manifest: manifest.update(schema_version=3),
    )
    for number, change in enumerate(changes):
        later = Path(shutil.copytree(packed, tmp_path / str(number)))
        in_manifest(change)(later)
        said = program.refuses("plan", "--shards", later)
        assert "manifest.json" in said and all(text in said for text in SAYS), said


@pytest.mark.parametrize("compress", [["--compress", "zstd"], []])
def test_a_run_of_a_later_version_is_not_continued(
    program: Program, data: Dataset, packed: Path, tmp_path: Path, compress: list[str]
) -> None:
    """Nor is it taken for one of plain shards, by a run or by a mount."""
    later = of_later_version(packed, tmp_path / "later", suffix="bin", manifest=True)
    journal = later / ".ctwds" / "journal.jsonl"
    assert "split+zstd:1" in journal.read_text()
    journal.write_text(journal.read_text().replace("split+zstd:1", f"{LATER}+zstd:1"))
    shards(later)[0].unlink()
    before = {path: digest(path) for path in sorted(later.rglob("*")) if path.is_file()}
    said = program.refuses("materialize", *flags(data)[:-2], *compress, "--output-dir", later)
    assert str(later) in said and f"{LATER}+zstd:1" in said and all(text in said for text in SAYS), said
    with mount_folder() as base:
        said = program.refuses("mount", *flags(data)[:-2], "--materialized", later, base / "mount")
        assert "compressed shards" in said
    assert {path: digest(path) for path in sorted(later.rglob("*")) if path.is_file()} == before


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_the_loader_says_it(packed: Path, tmp_path: Path, on_error: str) -> None:
    """With the shard's name; `on_error` does not hide that no volume can be read. A mask that nobody wants is passed
    over."""
    later = of_later_version(packed, tmp_path / "later", suffix="bin", manifest=True)
    with pytest.raises(PackageMissing, match=rf"{FIRST}: 000000_000000: the filter {LATER} .*install that version"):
        list(CTReportWebDataset(later, shuffle=False, shape=(8, 9, 10), on_error=on_error))
    masks = of_later_version(packed, tmp_path / "masks", suffix="mask.npy", manifest=False)
    assert len(list(CTReportWebDataset(masks, shuffle=False, shape=(8, 9, 10), on_error=on_error))) == 4

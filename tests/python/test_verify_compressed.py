"""`ctwds-fs verify` knows compressed shards: sound ones are fine, and each damage of a table to blocks and seek tables
is caught even if digests were made to agree with it, and is EIO or a refusal on a mount."""

from __future__ import annotations

import errno
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import packed_volume
import pytest
from damages import DAMAGED, FIRST, JSON, members_of, recompute, with_json, with_payload
from harness import Program, mount_folder, report_of
from make_dataset import Dataset
from npzfiles import write_npz
from packed_damages import DAMAGES, apply, frames, shorter
from small_datasets import noise_dataset, on_slopes

FLAGS = ("--samples-per-shard", 2)
STEPS = ("--shape", "40,30,20", "--spacing", "1.2,1.2,2")
PROFILES = ("ctclip", "npy")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Volumes of three blocks, of the values of a raw scan, which are split."""
    dataset = noise_dataset(tmp_path_factory.mktemp("data"), 3)
    for path in dataset.volumes():
        with np.load(path) as arrays:
            write_npz(path, {"data": (on_slopes(arrays["data"]) + 1024).astype(np.float32)}, writer="numpy")
    return dataset


@pytest.fixture(scope="module")
def packed(program: Program, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their compressed shards."""
    return program.materialize(data, tmp_path_factory.mktemp("packed"), *FLAGS, "--compress", "zstd")


@pytest.fixture
def copy(packed: Path, tmp_path: Path) -> Path:
    """The shards, to be damaged."""
    return Path(shutil.copytree(packed, tmp_path / "copy"))


def verify(program: Program, folder: Path, *more: object) -> tuple[int, str]:
    """The exit code and what was said."""
    done = program.run("verify", "--webdataset_dir", folder, *more, check=False)
    assert "panicked" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", ["stored", "rescaled", "preprocessed"])
def test_what_is_sound_is_fine(program: Program, data: Dataset, tmp_path: Path, kind: str, profile: str) -> None:
    """In itself, against its sources, and for programs."""
    flags = [*FLAGS, "--volume", kind, "--format", profile, *(STEPS if kind == "preprocessed" else ())]
    folder = program.materialize(data, tmp_path / "packed", *flags, "--compress", "zstd")
    code, text = verify(program, folder)
    assert code == 0 and "compressed with zstd" in text, text
    code, text = verify(program, folder, *data.flags(), *flags, "--check_precision")
    assert code == 0 and "every sample is what its source holds" in text, text
    report = report_of(program.run("verify", "--webdataset_dir", folder, "--json"))
    assert report["information"]["codec"] == "zstd" and report["information"]["samples"] == 3
    manifest = json.loads((folder / "manifest.json").read_text())
    assert report["information"]["payload_bytes"] == sum(shard["payload_size"] for shard in manifest["shards"])


def test_nothing_is_measured(program: Program, packed: Path) -> None:
    """Reading packed bytes says nothing of a training; that is said."""
    code, text = verify(program, packed, "--benchmark")
    assert code == 0 and "mount --shards" in text, text


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_caught(program: Program, copy: Path, name: str) -> None:
    """By the digest; by the blocks, where the manifest agrees with the damage; by a mount, which gives no other
    byte."""
    right = packed_volume.unpack(members_of(copy / FIRST)[0][1]).tobytes()
    apply(copy, DAMAGES[name].do)
    code, text = verify(program, copy)
    assert code == DAMAGED and "SHA-256" in text and DAMAGES[name].says in text, text
    recompute(copy)
    code, text = verify(program, copy)
    assert code == DAMAGED and DAMAGES[name].says in text and "its SHA-256" not in text, text
    assert "only if the source files" in text
    with mount_folder() as base:
        mounted = program.run("mount", "--shards", copy, base / "mount", check=False)
        if mounted.returncode != 0:  # the length of a volume is not known
            assert FIRST in mounted.stderr or "manifest.json" in mounted.stderr, mounted.stderr
            return
        try:
            with (base / "mount" / FIRST).open("rb", buffering=0) as file, pytest.raises(OSError) as caught:
                assert len(file.read(512)) == 512
                while right:
                    chunk = file.read(min(4096, len(right)))
                    assert chunk and chunk == right[: len(chunk)], "other bytes than the right ones"
                    right = right[len(chunk) :]
            assert caught.value.errno == errno.EIO
        finally:
            program.run("unmount", base / "mount")


def test_a_last_block_without_its_last_value(program: Program, copy: Path) -> None:
    """Nothing but the shape tells, if digests agree: `verify` says so, and a mount shows a member that is too short for
    its shape, which no reader takes for the volume."""
    right = packed_volume.unpack(members_of(copy / FIRST)[0][1])
    apply(copy, shorter)
    assert verify(program, copy)[0] == DAMAGED
    recompute(copy)
    code, text = verify(program, copy)
    assert code == DAMAGED and "voxels of float16" in text and "its SHA-256" not in text, text
    with mount_folder() as base:
        program.run("mount", "--shards", copy, base / "mount")
        try:
            with tarfile.open(base / "mount" / FIRST) as tar:
                assert tar.getmembers()[0].size == right.nbytes - 2
        finally:
            program.run("unmount", base / "mount")


@pytest.mark.parametrize("name", ["codec", "filter", "another filter", "neither", "not at the end"])
def test_the_json_names_codec_and_filter(program: Program, copy: Path, name: str) -> None:
    """Otherwise a reader does not know what it has."""
    if name == "neither":
        end = b', "volume_codec": "zstd", "volume_filter": "split"'
        with_payload(JSON, lambda payload: payload.replace(end, b""))(copy)
    elif name == "not at the end":
        with_json("comment", "")(copy)
    elif name == "another filter":  # which values of two bytes can have
        with_json("volume_filter", "shuffle")(copy)
    else:
        with_json(f"volume_{name}", "none")(copy)
    recompute(copy)
    code, text = verify(program, copy)
    assert code == DAMAGED and ("volume_codec" in text or "does not say how its volume is compressed" in text), text


def test_the_plain_size_of_the_manifest(program: Program, copy: Path) -> None:
    """Mounts and plans rely on it."""
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["shards"][1]["plain_size"] += 10_240
    (copy / "manifest.json").write_text(json.dumps(manifest))
    code, text = verify(program, copy)
    assert code == DAMAGED and "its plain size is" in text, text


def test_only_the_source_tells(program: Program, data: Dataset, copy: Path, tmp_path: Path) -> None:
    """Blocks that are sound, of another volume; the digest agrees."""
    apply(copy, frames(lambda all_: [all_[1], all_[0], *all_[2:]]))
    recompute(copy)
    assert verify(program, copy)[0] == 0
    code, text = verify(program, copy, *data.flags(), *FLAGS)
    assert code == DAMAGED and "000000_000000 v00" in text and "voxels are wrong" in text
    other = tmp_path / "other"
    shutil.copytree(data.folder, other)
    with np.load(other / "v02.npz") as arrays:
        volume = arrays["data"].copy()
    volume[3, 4, 5] += 100
    write_npz(other / "v02.npz", {"data": volume}, writer="numpy")
    tables = ["--reports-file", data.reports, "--meta-file", data.meta, "--labels-file", data.labels]
    code, text = verify(program, copy, "--data-folder", other, *tables, *FLAGS)
    assert code == DAMAGED and "v02: 1 of" in text, text

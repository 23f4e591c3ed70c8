"""`ctwds-fs verify` is itself tested: every kind of damage is caught, with the exit code that stands for it, and what
is sound is called so, for every kind of volume and both profiles, on files and on a mount."""

from __future__ import annotations

import errno
import json
import random
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from damages import (
    DAMAGED,
    DAMAGES,
    FIRST,
    INCOMPLETE,
    JSON,
    UNCHECKED,
    in_manifest,
    members_of,
    recompute,
    with_payload,
    write_shard,
)
from faulty import faulty_folder
from harness import SMALL_FLAGS, Program, needs_root, report_of, require_fuse, shards
from make_dataset import Dataset
from npzfiles import write_npz
from small_datasets import noise_dataset
from verifying import KINDS, STEPS, verify

PROFILES = ("ctclip", "npy")
CONTENT = ("voxel", "last voxel", "text", "label")  # damages that only a digest or the source can tell


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six small volumes of the values of a raw scan; the text and the labels differ."""
    dataset = noise_dataset(tmp_path_factory.mktemp("data"), 6, (8, 8, 8))
    for path in dataset.volumes():
        with np.load(path) as arrays:
            write_npz(path, {"data": arrays["data"] + 1024}, writer="numpy")
    return dataset


@pytest.fixture(scope="module")
def sound(program: Program, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folders without fault, by profile and kind, each made once."""
    made: dict[tuple[str, str], Path] = {}

    def make(profile: str, kind: str = "stored") -> Path:
        if (profile, kind) not in made:
            out = tmp_path_factory.mktemp("sound") / "out"
            made[profile, kind] = program.materialize(data, out, *flags(profile, kind))
        return made[profile, kind]

    return make


def flags(profile: str, kind: str) -> list[object]:
    """The options of a folder."""
    return [*SMALL_FLAGS, "--format", profile, "--volume", kind, *STEPS]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sound_is_fine(
    program: Program, data: Dataset, sound: Callable[..., Path], profile: str, kind: str
) -> None:
    """In itself and against its sources, with figures that are right."""
    folder = sound(profile, kind)
    assert verify(program, folder)[0] == 0
    options = [*data.flags(), *flags(profile, kind), "--check_precision", "--num-workers", 2]
    code, text = verify(program, folder, *options)
    assert code == 0 and "every sample is what its source holds" in text and "Precision" in text
    report = report_of(program.run("verify", "--webdataset_dir", folder, *options, "--json"))
    assert report["verdict"] == "fine" and report["findings"] == []
    information, shards = report["information"], sorted(folder.glob("*.tar"))
    size = 10 * 7 * 6 if kind == "preprocessed" else 8 * 8 * 8
    assert (information["samples"], information["shards"], information["labels"]) == (6, 2, 3)
    assert information["shard_bytes"] == sum(path.stat().st_size for path in shards)
    assert information["npz_bytes"] == sum(path.stat().st_size for path in data.volumes())
    assert information["ratio_to_f32"] == information["shard_bytes"] / (6 * size * 4)
    assert report["integrity"] == {"read": 2, "sound": 2, "digests": 2}
    source = report["source"]
    assert (source["compared"], source["voxels"], source["different"]) == (6, 6 * size, 0)
    assert source["exact"] == source["voxels"] if kind != "preprocessed" else source["exact"] >= 0.99 * source["voxels"]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_caught(
    program: Program, sound: Callable[..., Path], tmp_path: Path, name: str, profile: str
) -> None:
    """By the manifest; and where the shards themselves tell, also if the manifest was made to agree with them."""
    damage = DAMAGES[name]
    folder = tmp_path / "out"
    shutil.copytree(sound(profile), folder)
    damage.do(folder)
    code, text = verify(program, folder)
    # A digest that is wrong outweighs what is missing.
    assert code == damage.code or (damage.code == INCOMPLETE and code == DAMAGED and "SHA-256" in text), text
    assert damage.says in text
    if damage.of_manifest:
        return
    recompute(folder)
    code, text = verify(program, folder)
    assert code == (damage.code if damage.shows else 0), text
    assert "its SHA-256" not in text and (damage.says in text or not damage.shows)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONTENT)
def test_only_the_source_tells(
    program: Program, data: Dataset, sound: Callable[..., Path], tmp_path: Path, name: str, kind: str, profile: str
) -> None:
    """The manifest agrees with what was changed; the NPZ file and the tables do not."""
    folder = tmp_path / "out"
    shutil.copytree(sound(profile, kind), folder)
    DAMAGES[name].do(folder)
    recompute(folder)
    assert verify(program, folder)[0] == 0
    code, text = verify(program, folder, *data.flags(), *flags(profile, kind))
    assert code == DAMAGED and "000000_000000 v00" in text and name.split()[-1] in text, text


def test_the_json_is_compared_with_the_table(
    program: Program, data: Dataset, sound: Callable[..., Path], tmp_path: Path
) -> None:
    """A number that no other check can know."""
    folder = tmp_path / "out"
    shutil.copytree(sound("ctclip"), folder)
    DAMAGES["number in the JSON"].do(folder)
    recompute(folder)
    assert verify(program, folder)[0] == 0
    code, text = verify(program, folder, *data.flags(), *flags("ctclip", "stored"))
    assert code == DAMAGED and "RescaleSlope is 2.0, and 1 by the metadata table" in text


@pytest.mark.parametrize("profile", PROFILES)
def test_another_shape_of_as_many_voxels(
    program: Program, data: Dataset, sound: Callable[..., Path], tmp_path: Path, profile: str
) -> None:
    """The header of an NPY volume tells, otherwise only the source."""
    folder = tmp_path / "out"
    shutil.copytree(sound(profile), folder)
    with_payload(JSON, lambda payload: payload.replace(b"[8, 8, 8]", b"[4, 8, 16]"))(folder)
    recompute(folder)
    code, text = verify(program, folder)
    assert code == (DAMAGED if profile == "npy" else 0), text
    code, text = verify(program, folder, *data.flags(), *flags(profile, "stored"))
    assert code == DAMAGED and "[4, 8, 16]" in text


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_mount(program: Program, data: Dataset, tmp_path: Path, kind: str, profile: str) -> None:
    """Without sources its voxels are compared with nothing, and that is said; with them it is fine, and differs from
    other sources."""
    options = flags(profile, kind)
    other = tmp_path / "other"
    shutil.copytree(data.folder, other)
    with np.load(other / "v04.npz") as arrays:
        volume = arrays["data"].copy()
    volume[3, 4, 5] += 100
    write_npz(other / "v04.npz", {"data": volume}, writer="numpy")
    tables = ["--reports-file", data.reports, "--meta-file", data.meta, "--labels-file", data.labels]
    with program.mounted(data, *options) as point:
        code, text = verify(program, point)
        assert code == UNCHECKED and "compared with nothing" in text
        assert verify(program, point, *data.flags(), *options)[0] == 0
        code, text = verify(program, point, "--data-folder", other, *tables, *options)
        assert code == DAMAGED and "000001_000001 v04" in text and "voxels are wrong" in text
        assert text.count("voxels are wrong") == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_the_original_converters_folder(program: Program, data: Dataset, tmp_path: Path, profile: str) -> None:
    """Six numbers in the manifest, no digest, and perhaps another order of the samples."""
    options = reference.Options(samples_per_shard=4, format=profile)
    slots = reference.plan(data.folder, data.reports, data.meta, data.labels, options)
    folder = tmp_path / "out"
    reference.convert([*slots[3:], *slots[:3]], folder, options)
    code, text = verify(program, folder)
    assert code == UNCHECKED and "the manifest has no digest" in text
    # Samples of a shard and extension names are the folder's, not the flags'.
    assert verify(program, folder, *data.flags())[0] == 0
    DAMAGES["voxel"].do(folder)
    assert verify(program, folder, *data.flags())[0] == DAMAGED
    DAMAGES["member missing"].do(folder)
    assert verify(program, folder)[0] == DAMAGED
    reference.convert([slots[0], None, *slots[2:]], folder, options)
    code, text = verify(program, folder, *data.flags())
    assert code == INCOMPLETE and "000000_000001: the slot is empty" in text and "v01: it is in the data set" in text


def test_some_at_random(program: Program, data: Dataset, sound: Callable[..., Path], tmp_path: Path) -> None:
    """The same seed chooses the same samples; every sample is chosen by some."""
    folder = tmp_path / "out"
    shutil.copytree(sound("ctclip"), folder)
    DAMAGES["voxel"].do(folder)
    recompute(folder)
    codes: list[int] = []
    for seed in range(12):
        found = {
            verify(program, folder, *data.flags(), *SMALL_FLAGS, "--num_samples", 2, "--seed", seed)[0]
            for _ in range(2)
        }
        assert len(found) == 1
        codes += found
    assert {0, DAMAGED} == set(codes)
    report = report_of(
        program.run(
            "verify", "--webdataset_dir", sound("ctclip"), *data.flags(), *SMALL_FLAGS, "--num_samples", 2, "--json"
        )
    )
    assert (report["source"]["compared"], report["source"]["samples"]) == (2, 6)


def test_what_could_not_be_checked(program: Program, sound: Callable[..., Path], data: Dataset, tmp_path: Path) -> None:
    """A source that is damaged or gone from the data set, and precision without sources: the shards are sound."""
    copy = tmp_path / "data"
    shutil.copytree(data.folder, copy)
    volume = copy / "v02.npz"
    content = bytearray(volume.read_bytes())
    content[-300] ^= 1
    volume.write_bytes(content)
    tables = ["--reports-file", data.reports, "--meta-file", data.meta, "--labels-file", data.labels]
    code, text = verify(program, sound("ctclip"), "--data-folder", copy, *tables, *SMALL_FLAGS)
    assert code == UNCHECKED and "v02: it cannot be compared with its source" in text and "SOUND as far as" in text
    volume.unlink()
    code, text = verify(program, sound("ctclip"), "--data-folder", copy, *tables, *SMALL_FLAGS)
    assert code == UNCHECKED and "'v02' is not in the data set" in text
    code, text = verify(program, sound("ctclip"), "--check_precision", "--num_samples", 2)
    assert code == UNCHECKED and "--check-precision" in text and "all shards were looked at" in text


def test_left_out_and_missing(program: Program, data: Dataset, tmp_path: Path) -> None:
    """What is there is sound, but it is not all."""
    listed = tmp_path / "list.csv"
    listed.write_text("study_id,reason\nv01,bad label\n")
    out = program.materialize(data, tmp_path / "out", *SMALL_FLAGS, "--exclude", listed)
    code, text = verify(program, out)
    assert code == INCOMPLETE and "v01: it was left out: excluded by" in text and "bad label" in text
    code, text = verify(program, out, *data.flags(), *SMALL_FLAGS)
    assert code == INCOMPLETE and text.count("v01: ") == 1 and "v01: it was left out: " in text


def test_wrong_use(program: Program, data: Dataset, sound: Callable[..., Path], tmp_path: Path) -> None:
    """Each with a message and the code of its kind."""
    for arguments in (
        [],
        ["--webdataset_dir", "x", "--sources"],
        ["--webdataset_dir", "x", "--quarantine", "y"],
        ["--webdataset_dir", sound("ctclip"), "--format", "npy"],
        ["--webdataset_dir", "x", "--num_samples", 0],
    ):
        done = program.run("verify", *arguments, check=False)
        assert done.returncode == 2 and "panicked" not in done.stderr, arguments
    assert "nowhere" in program.refuses("verify", "--webdataset_dir", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "manifest.json").write_bytes((sound("ctclip") / "manifest.json").read_bytes())
    assert "there is no shard" in program.refuses("verify", "--webdataset_dir", tmp_path / "empty")
    for left_away, words in {"--reports-file": "2 columns", "--labels-file": "has 3 classes"}.items():
        at = data.flags().index(left_away)
        few = [*data.flags()[:at], *data.flags()[at + 2 :]]
        message = program.refuses("verify", "--webdataset_dir", sound("ctclip"), *few)
        assert words in message and left_away in message, message
    wanted = [*data.flags(), *flags("ctclip", "stored")]
    assert "--volume rescaled" in program.refuses("verify", "--webdataset_dir", sound("ctclip", "rescaled"), *wanted)
    help_text = program.run("verify", "--help").stdout
    assert "Exit codes:" in help_text and "3    damaged" in help_text


def test_nothing_is_written(program: Program, sound: Callable[..., Path], data: Dataset) -> None:
    """Neither in the folder nor anywhere near."""
    folder = sound("ctclip")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    verify(program, folder, *data.flags(), *SMALL_FLAGS)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@needs_root
def test_a_shard_that_cannot_be_read(program: Program, sound: Callable[..., Path]) -> None:
    """What the disk does not give is no damage that was seen; what it gives is still looked at."""
    require_fuse()
    files = {path.name: path.read_bytes() for path in sound("ctclip").iterdir() if path.is_file()}
    with faulty_folder(files) as folder:
        assert verify(program, folder.point)[0] == 0
        for operation in ("open", "read"):
            folder.faults = {(operation, "shard-000001.tar"): errno.EIO}
            code, text = verify(program, folder.point)
            assert code == UNCHECKED and "shard-000001.tar: it cannot be" in text and "Input/output error" in text
            assert "1 of 2 shards sound" in text
        first = bytearray(files[FIRST])
        first[600] ^= 1
        folder.files[FIRST] = bytes(first)
        assert verify(program, folder.point)[0] == DAMAGED


def test_benchmark(program: Program, sound: Callable[..., Path], data: Dataset) -> None:
    """The same samples by NumPy, through mounts, and from these shards; or from these shards alone."""
    require_fuse()
    wanted = ["--benchmark", "--num_samples", 4, "--python", sys.executable]
    named = [*data.flags(), *flags("npy", "stored")]
    report = report_of(program.run("verify", "--webdataset_dir", sound("npy"), *named, *wanted, "--json"))
    rows = report["benchmark"]["rows"]
    assert {json.dumps(row["source"]).split('"')[1] for row in rows} == {"npz", "mount", "given"}
    assert {row["readers"] for row in rows} == {1, 2, 4} and all(len(row["seconds"]) == 3 for row in rows)
    assert report["verdict"] == "fine" and report["benchmark"]["data"]["samples"] == 4
    done = program.run("verify", "--webdataset_dir", sound("npy"), *wanted)
    assert "Best of the shards that are there: the given shards" in done.stdout
    assert (
        "NPZ by np.load was not measured (no NPZ files on a disk were named)" in done.stdout and "FINE" in done.stdout
    )
    text = program.run("verify", "--webdataset_dir", sound("npy"), *named, *wanted).stdout
    assert "times as fast as the best of NPZ" in text and "mount --read-ahead 0" in text


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_mutation_is_caught(program: Program, tmp_path: Path, seed: int) -> None:
    """40 shards, each with bytes flipped, cut out, put in or zeroed somewhere: all are named, and nothing panics."""
    rng = random.Random(seed)
    dataset = noise_dataset(tmp_path / "data", 40, (4, 4, 4))
    folder = program.materialize(dataset, tmp_path / "out", "--samples-per-shard", 1)
    for shard in shards(folder):
        before = shard.read_bytes()
        content = bytearray(before)
        while content == before:
            # Most of a small shard is padding: aim at what is in front of it.
            at, length = rng.randrange(5000), rng.choice([1, 4, 100, 512])
            how = rng.choice(["flip", "cut", "put", "zero", "end", "size"])
            if how == "flip":
                content[at] ^= 1 << rng.randrange(8)
            elif how == "cut":
                del content[at : at + length]
            elif how == "put":
                content[at:at] = rng.randbytes(length)
            elif how == "zero":
                content[at : at + length] = bytes(length)
            elif how == "end":
                del content[at:]
            else:  # a size that a header may name, with a right checksum
                with tarfile.open(shard) as tar:
                    infos = tar.getmembers()
                start = rng.choice([info.offset for info in infos])
                header = content[start : start + 512]
                header[124:136] = rng.choice(
                    [b"77777777777\0", b"\x80" + b"\xff" * 11, b"\x80" + bytes(3) + b"\xff" * 8]
                )
                header[148:156] = b" " * 8
                header[148:156] = b"%06o\0 " % sum(header)
                content[start : start + 512] = header
        shard.write_bytes(content)
    report = report_of(program.run("verify", "--webdataset_dir", folder, "--json", check=False))
    named = {finding["place"][:16] for finding in report["findings"] if finding["verdict"] == "damaged"}
    assert named == {path.name for path in shards(folder)}
    (folder / "manifest.json").unlink()
    code, _ = verify(program, folder, *dataset.flags(), "--samples-per-shard", 1)
    assert code == DAMAGED


def test_a_shuffled_view(program: Program, sound: Callable[..., Path], data: Dataset, tmp_path: Path) -> None:
    """Its samples keep their keys wherever they are; their order is that of its manifest."""
    folder = tmp_path / "out"
    shutil.copytree(sound("ctclip"), folder)
    paths = shards(folder)
    samples = [members_of(path)[n : n + 4] for path in paths for n in range(0, 12, 4)]
    order = [4, 0, 2, 5, 3, 1]
    for number, path in enumerate(paths):
        write_shard(path, [member for n in order[3 * number : 3 * number + 3] for member in samples[n]])

    def tell(manifest: dict[str, Any]) -> None:
        listed = [sample for shard in manifest["shards"] for sample in shard["samples"]]
        for number, shard in enumerate(manifest["shards"]):
            shard["samples"] = [listed[n] for n in order[3 * number : 3 * number + 3]]
        manifest["shuffle"] = {"seed": 1, "epoch": 0}

    in_manifest(tell)(folder)
    recompute(folder)
    assert verify(program, folder)[0] == 0
    assert verify(program, folder, *data.flags(), *SMALL_FLAGS)[0] == 0
    in_manifest(lambda manifest: manifest["shards"][0]["samples"].reverse())(folder)
    code, text = verify(program, folder)
    assert code == DAMAGED and "not in the order of the manifest" in text
    write_shard(paths[1], members_of(paths[0]))
    code, text = verify(program, folder)
    assert code == DAMAGED and "the key is there twice" in text

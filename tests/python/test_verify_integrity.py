"""`verify --integrity`: the quick check, also where a `ctwds.toml` names the sources."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from damages import DAMAGED, INCOMPLETE, UNCHECKED
from harness import SMALL_FLAGS, Program, report_of, require_fuse, shards
from make_dataset import Dataset
from small_datasets import noise_dataset


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Four volumes, with a `ctwds.toml` beside them."""
    data = noise_dataset(tmp_path / "data", 4, (8, 8, 8))
    lines = [f'{key} = "{path}"' for key, path in zip(data.flags()[::2], data.flags()[1::2], strict=True)]
    text = "\n".join(line.removeprefix("--") for line in lines)
    (tmp_path / "ctwds.toml").write_text(f'{text}\nsamples_per_shard = 2\noutput_dir = "out"\n')
    return data


def test_beside_a_ctwds_toml(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Every voxel is compared there unless it is asked for the shards alone, which need no source; who is compared
    says how it is quicker."""
    program.run("materialize", cwd=tmp_path)
    slow = program.run("verify", "--shards", "out", cwd=tmp_path)
    assert "4 of 4 samples made again" in slow.stdout and "--integrity" in slow.stderr
    for path in data.volumes():
        path.unlink()
    assert program.run("verify", "--shards", "out", cwd=tmp_path, check=False).returncode != 0
    for folder in (["--shards", "out"], []):  # the file says where it is
        quick = program.run("verify", "--integrity", *folder, cwd=tmp_path)
        assert "2 of 2 shards sound" in quick.stdout and "FINE: every shard is what the manifest says" in quick.stdout
        assert "made again" not in quick.stdout and quick.stderr == ""
    report = report_of(program.run("verify", "--integrity", "--json", cwd=tmp_path))
    assert report["source"] is None and report["integrity"] == {"read": 2, "sound": 2, "digests": 2}
    program.run("verify", "--integrity", cwd=tmp_path, env=os.environ | {"CTWDS_NUM_SAMPLES": "1"})


def test_what_it_finds(program: Program, data: Dataset, tmp_path: Path) -> None:
    """A bit of a voxel, and a shard that is missing."""
    program.run("materialize", cwd=tmp_path)
    first, second = shards(tmp_path / "out")
    content = bytearray(first.read_bytes())
    content[1000] ^= 1  # of a voxel: the first header is before it, and the volume takes 1024 bytes
    first.write_bytes(content)
    done = program.run("verify", "--integrity", cwd=tmp_path, check=False)
    assert done.returncode == DAMAGED and first.name in done.stdout
    content[1000] ^= 1
    first.write_bytes(content)
    second.unlink()
    assert program.run("verify", "--integrity", cwd=tmp_path, check=False).returncode == INCOMPLETE


@pytest.mark.parametrize("columns", [[], ["--text-columns", "Findings_EN"], None])
def test_a_part_without_a_manifest(program: Program, data: Dataset, tmp_path: Path, columns: list[str] | None) -> None:
    """Nobody says there how many columns a text is made of. Sound shards are not called damaged; their voxels, which
    have no digest, are not called sound."""
    (tmp_path / "ctwds.toml").unlink()
    tables = data.flags() if columns is not None else ["--data-folder", data.folder, "--dialect", "native"]
    flags = [
        *tables,
        *(columns or []),
        "--samples-per-shard",
        2,
        "--output-dir",
        tmp_path / "out",
        "--partition",
        "0/2",
    ]
    program.run("materialize", *flags)
    done = program.run("verify", "--integrity", "--shards", tmp_path / "out", check=False)
    assert done.returncode == INCOMPLETE and "1 of 1 shard sound" in done.stdout, done.stdout
    assert "INCOMPLETE: what is there is sound as far as it could be checked" in done.stdout


def test_a_mount_has_no_digests(program: Program, data: Dataset, tmp_path: Path) -> None:
    """So nothing is known of its voxels, and it says what would compare them."""
    require_fuse()
    with program.mounted(data, *SMALL_FLAGS) as point:
        done = program.run("verify", "--integrity", "--shards", point, cwd=tmp_path, check=False)
        assert done.returncode == UNCHECKED and "without --integrity" in done.stdout


@pytest.mark.parametrize(
    "other", ["--num-samples=2", "--check-precision", "--sources", "--data-folder=npz", "--limit=1"]
)
def test_what_contradicts_it(program: Program, other: str) -> None:
    """Whoever names what it would not look at is told so."""
    done = program.run("verify", "--integrity", "--shards", "out", other, check=False)
    assert done.returncode == 2 and "cannot be used with" in done.stderr

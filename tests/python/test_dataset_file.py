"""`ctwds.toml`, variables and flags: one set of keys for every command, and which of them wins."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from docpages import manual
from harness import SMALL_FLAGS, Program, digest, report_of, require_fuse
from make_dataset import Dataset
from small_datasets import noise_dataset


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Four small volumes, in folders whose names hold what shells split at."""
    return noise_dataset(tmp_path / "a data set, of four", 4, (8, 9, 7))


def write(path: Path, data: Dataset, *lines: str) -> Path:
    """A file of the data set, with paths that start at its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def name(other: Path) -> str:
        return json.dumps(os.path.relpath(other, path.parent))

    text = [
        f"data_folder = {name(data.folder)}",
        f"reports-file = {name(data.reports)}  # dashes and underscores are the same",
        f"meta_file = {name(data.meta)}",
        f"labels_file = {name(data.labels)}",
        *lines,
    ]
    path.write_text("\n".join(text) + "\n")
    return path


def planned(program: Program, *arguments: object, **options: Any) -> dict[str, Any]:
    """The plan, as JSON."""
    found: dict[str, Any] = json.loads(program.run("plan", *arguments, "--json", **options).stdout)
    return found


def environment(**variables: str) -> dict[str, str]:
    """That of this process, and more."""
    return os.environ | variables


def test_the_file_is_the_flags(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Named from anywhere, or found where the command runs, or in the data folder; the plan is that of the flags."""
    right = planned(program, *data.flags(), "--samples-per-shard", "3", "--spacing", "1,1,2", "--strict")
    lines = ("samples_per_shard = 3", "spacing = [1, 1.0, 2]", "strict = true")
    named = write(tmp_path / "else/where.toml", data, *lines)
    assert planned(program, "--dataset", named) == right
    assert planned(program, env=environment(CTWDS_DATASET=str(named))) == right
    here = write(tmp_path / "here/ctwds.toml", data, *lines)
    assert planned(program, cwd=here.parent) == right
    write(data.folder / "ctwds.toml", data, *lines)
    assert planned(program, "--data-folder", data.folder, cwd=tmp_path) == right
    assert planned(program, env=environment(CTWDS_DATA_FOLDER=str(data.folder)), cwd=tmp_path) == right


def test_flags_win_over_variables_and_these_over_the_file(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Also where they contradict each other; `false` and 0 take a switch back."""
    file = write(tmp_path / "x.toml", data, "samples_per_shard = 3", "limit = 2", "strict = true", "format = 'npy'")

    def shown(*arguments: object, **variables: str) -> tuple[int, int, str]:
        plan = planned(program, "--dataset", file, *arguments, env=environment(**variables))
        return plan["samples_per_shard"], plan["total_samples"], plan["format"]

    assert shown() == (3, 2, "npy")
    assert shown(CTWDS_SAMPLES_PER_SHARD="1", CTWDS_LIMIT="3") == (1, 3, "npy")
    assert shown("--samples_per_shard", "2", CTWDS_SAMPLES_PER_SHARD="1") == (2, 2, "npy")
    assert shown("--test-mode") == (3, 4, "npy"), "which contradicts limit"
    assert shown("--format=ctclip", CTWDS_FORMAT="npy", CTWDS_STRICT="0") == (3, 2, "ctclip")
    (data.folder / "v00.npz").write_bytes(b"no zip")
    assert "--strict" in program.refuses("plan", "--dataset", file)
    program.run("plan", "--dataset", file, env=environment(CTWDS_STRICT="false"))
    done = program.run("plan", "--dataset", file, env=environment(CTWDS_STRICT="maybe"), check=False)
    assert done.returncode == 2 and "CTWDS_STRICT" in done.stderr and "1 or 0" in done.stderr


def test_it_is_found_only_where_no_flag_names_a_data_set(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Half a data set of the command line and half of a file that nobody named would be a third one. `reclaim` never
    finds one."""
    here = write(tmp_path / "here/ctwds.toml", data).parent
    done = program.run("plan", "--reports-file", data.reports, cwd=here, check=False)
    assert done.returncode == 2 and "--data-folder" in done.stderr and "--dataset" in done.stderr
    other = noise_dataset(tmp_path / "other", 2, (8, 9, 7))
    assert planned(program, *other.flags(), cwd=here)["total_samples"] == 2
    assert planned(program, cwd=here)["total_samples"] == 4
    # Other flags of the data set are no other data set.
    assert planned(program, "--limit", 3, "--volume", "rescaled", cwd=here)["total_samples"] == 3
    (other.folder / "ctwds.toml").write_text("limit = 1\n")
    assert planned(program, "--data-folder", other.folder, "--samples-per-shard", 7, cwd=here)["total_samples"] == 1
    assert planned(program, *other.flags(), cwd=here)["total_samples"] == 2
    out = program.materialize(data, tmp_path / "out")
    assert planned(program, "--shards", out, cwd=here)["total_samples"] == 4
    done = program.run("reclaim", "--shards", out, cwd=here, check=False)
    assert done.returncode == 2 and "--data-folder" in done.stderr
    named = ["reclaim", "--shards", out, "--dataset", here / "ctwds.toml", "--json"]
    assert report_of(program.run(*named))
    removal = environment(CTWDS_DELETE="1", CTWDS_YES="1")
    program.run(*named, env=removal)
    assert len(list(data.folder.rglob("*.npz"))) == 4, "no variable asks for it"
    unfinished = out / "shard-000000.tar.elsewhere-77-1-0.partial"
    unfinished.touch()
    again = ["materialize", *data.flags(), "--output-dir", out]
    program.run(*again, env=environment(CTWDS_CLEAN="1"))
    assert unfinished.exists(), "nor for this"
    program.run(*again, "--clean")
    assert not unfinished.exists()
    file = write(tmp_path / "delete.toml", data, "delete = true")
    assert "no key 'delete'" in program.refuses("reclaim", "--shards", out, "--dataset", file)


def test_a_mount_serves_what_the_plan_shows(program: Program, data: Dataset, tmp_path: Path, base: Path) -> None:
    """A file in the data folder that another file names counts for no process: the daemon has its arguments."""
    (data.folder / "ctwds.toml").write_text("limit = 1\n")
    here = write(tmp_path / "here/ctwds.toml", data).parent
    try:
        program.run("mount", "--log-file", base / "log", base / "mount", cwd=here)
        about = json.loads((base / "mount/.ctwds/mount.json").read_text())
        assert about["samples"] == planned(program, cwd=here)["total_samples"] == 4
        listed = program.run("run", "--at", base / "other", "--", "cat", base / "other/.ctwds/mount.json", cwd=here)
        assert json.loads(listed.stdout)["samples"] == 4
    finally:
        (data.folder / "ctwds.toml").unlink()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sampels_per_shard = 3", ("line 5", "'sampels-per-shard'", "'samples-per-shard'")),
        ("limit = true", ("line 5", "limit", "a text or a number")),
        ("strict = 'yes'", ("line 5", "strict", "true or false")),
        ("limit = {a = 1}", ("line 5", "limit")),
        ("limit = 1\nlimit = 2", ("line 6",)),
        ("sample-size = 1\n", ("line 5",)),
        ("labels = 'x'", ("no key 'labels'", "is 'labels-file' meant")),
        ("report = 'x'", ("is 'reports-file' meant",)),
        ("orientaton = 'x'", ("is 'orientation' meant",)),
        ("daemon = true", ("no key 'daemon'",)),
        ("data-folder = 'x'", ("line 5", "'data-folder' is there twice")),
        ("limit = ", ("line 5",)),
    ],
)
def test_what_is_wrong_in_it_is_named(program: Program, data: Dataset, tmp_path: Path, line: str, words: Any) -> None:
    """With file and line, and the key that was meant."""
    file = write(tmp_path / "x.toml", data, line)
    message = program.refuses("plan", "--dataset", file)
    assert str(file) in message and all(word in message for word in words), message


def test_a_wrong_value_is_named_with_where_it_comes_from(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Nobody wrote it on the command line."""
    file = write(tmp_path / "x.toml", data, "samples_per_shard = 0")
    done = program.run("plan", "--dataset", file, check=False)
    assert done.returncode == 2 and "--samples-per-shard=0" in done.stderr and "ctwds.toml" in done.stderr
    assert str(tmp_path / "gone.toml") in program.refuses("plan", "--dataset", tmp_path / "gone.toml")


def test_every_command_without_a_flag(program: Program, data: Dataset, tmp_path: Path) -> None:
    """`plan`, `mount`, `run`, `materialize` and `verify` beside such a file; `verify` reads what `materialize`
    wrote."""
    require_fuse()
    here = tmp_path / "here"
    lines = ("samples_per_shard = 3", "output_dir = 'shards'", "mountpoint = 'mount'", "cache_size = '64MiB'")
    write(here / "ctwds.toml", data, *lines, f"log_file = {json.dumps(str(tmp_path / 'log'))}")
    (here / "mount").mkdir()
    program.run("plan", cwd=here)
    program.run("materialize", cwd=here)
    right = digest(here / "shards/shard-000000.tar")
    assert program.run("verify", cwd=here).returncode == 0
    program.run("mount", cwd=here)
    try:
        assert digest(here / "mount/shard-000000.tar") == right
        assert json.loads((here / "mount/manifest.json").read_text())["samples_per_shard"] == 3
    finally:
        program.run("unmount", here / "mount")
    done = program.run("run", "--", "sha256sum", here / "mount/shard-000000.tar", cwd=here)
    assert done.stdout.split()[0] == right
    assert report_of(program.run("reclaim", "--dataset", "ctwds.toml", "--shards", "shards", "--json", cwd=here))


def test_shards_is_the_name_everywhere(program: Program, data: Dataset, tmp_path: Path) -> None:
    """`verify` took it as --webdataset-dir, which is its other name."""
    out = program.materialize(data, tmp_path / "out", *SMALL_FLAGS)
    for flag in ("--shards", "--webdataset-dir", "--webdataset_dir"):
        assert program.run("verify", flag, out).returncode == 0
    assert "--shards" in program.run("verify", "--help").stdout


def test_the_files_in_the_docs(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Each is one that `plan` takes, with the data that it names beside it."""
    blocks = [block for page in manual() for block in page.blocks if block.language == "toml"]
    assert blocks
    for number, block in enumerate(blocks):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "ctwds.toml").write_text("\n".join(block.lines) + "\n")
        keys = tomllib.loads("\n".join(block.lines))
        inputs = ("data_folder", "reports_file", "meta_file", "labels_file")
        for key, path in zip(inputs, (data.folder, data.reports, data.meta, data.labels), strict=True):
            (folder / keys[key]).symlink_to(path)
        assert planned(program, cwd=folder)["samples_per_shard"] == keys["samples_per_shard"]

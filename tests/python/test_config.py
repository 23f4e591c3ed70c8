"""Where the command line says that the data set is: by flags, or by the configuration that the training reads."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from ctreport_webdataset import KNOWN_KEYS, NPZ_KEYS, CTReportDataset, LoaderError, create_dataset_from_config
from docpages import manual
from harness import Program, is_mounted, report_of, shards
from make_dataset import Dataset


@pytest.mark.parametrize("command", ["plan", "mount", "materialize", "bench"])
def test_a_missing_folder_is_named(program: Program, small: Dataset, base: Path, command: str) -> None:
    """As a usage error, whatever tables are given; in the background daemon's stead as well."""
    places: dict[str, list[object]] = {"mount": [base / "mount"], "materialize": ["--output-dir", base / "out"]}
    more = places.get(command, [])
    for flags in ([], small.flags()[2:]):
        done = program.run(command, *flags, *more, check=False)
        assert done.returncode == 2 and "panicked" not in done.stderr, done.stderr
        assert "missing: --data-folder" in done.stderr and "`ctwds-fs init FOLDER` writes" in done.stderr, done.stderr
    (base / "half.toml").write_text("samples_per_shard = 2\n")
    assert (
        "half.toml has no key data_folder"
        in program.run(command, "--dataset", base / "half.toml", *more, check=False).stderr
    )
    assert not is_mounted(base / "mount") and not (base / "out").exists()


def test_the_configurations_in_the_docs() -> None:
    """Each key is one that the loader knows, and the keys are those that its format needs."""
    blocks = [block for page in manual() for block in page.blocks if block.language == "yaml"]
    assert blocks
    for block in blocks:
        data = yaml.safe_load("\n".join(block.lines))["data"]
        assert set(data) <= set(KNOWN_KEYS), block
        if data["dataset_format"] != "npz":
            assert "webdataset_shards_train" in data, block
        if data["dataset_format"] == "mixed":
            assert set(NPZ_KEYS["val"]) <= set(data), block


# --- the training's configuration ------------------------------------------------------------------------------------

YAML = """\
# the training's
model: {{name: ctclip, layers: [1, 2]}}
shared: &shared
  labels_train: {labels}
data:
  <<: *shared
  dataset_format: webdataset
  train_dir: {folder}
  reports_train: "{reports}"
  train_meta: {meta}
  webdataset_shards_train: shards/train/shard-{{000000..000471}}.tar
  valid_dir: {folder}/nothing   # not there
  reports_valid: {reports}
  valid_meta: {{file: {meta}}}
  webdataset_shards_val:
  batch_size: 8
"""


@pytest.fixture
def configured(small: Dataset, tmp_path: Path) -> Path:
    """A folder to start in, with a configuration whose paths are relative to it, not to its own folder."""
    (tmp_path / "configs").mkdir()
    paths = {name: os.path.relpath(getattr(small, name), tmp_path) for name in ("folder", "reports", "meta", "labels")}
    (tmp_path / "configs" / "base_config.yaml").write_text(YAML.format(**paths), encoding="utf-8")
    return tmp_path


CONFIG = ("--config", "configs/base_config.yaml", "--split")


def planned(program: Program, *flags: object, **options: Any) -> dict[str, Any]:
    """What `plan` says."""
    return json.loads(program.run("plan", "--json", *flags, **options).stdout)


def test_a_configuration_instead_of_flags(program: Program, small: Dataset, configured: Path) -> None:
    """The same plan, whichever way the data set is named."""
    assert planned(program, *CONFIG, "train", cwd=configured) == planned(program, *small.flags())


def test_flags_win(program: Program, small: Dataset, configured: Path) -> None:
    """Each for itself; what they give need not be in the configuration, or right there."""
    flags = ["--data-folder", small.folder, "--meta-file", small.meta, "--labels-file", small.labels]
    assert planned(program, *CONFIG, "valid", *flags, cwd=configured) == planned(program, *small.flags())


def test_what_the_configuration_lacks(program: Program, configured: Path) -> None:
    """File, line, key and reason."""
    message = program.refuses("plan", *CONFIG, "valid", cwd=configured)
    assert "configs/base_config.yaml: line 14, data.valid_meta: it should be a path, or a list of paths" in message
    message = program.refuses("plan", *CONFIG, "valid", "--meta-file", "m.csv", cwd=configured)
    assert "data." not in message, "a table whose key is not set is none"
    file = configured / "configs" / "base_config.yaml"
    for text, reason in {
        "data: 5\n": "line 1",
        "data:\n  - a\n": "line 2",
        "data: {train_meta: m.csv}\n": "data.train_dir not set",
        "model: 5\n": "'data:'",
        "": "'data:'",
    }.items():
        file.write_text(text, encoding="utf-8")
        message = program.refuses("plan", *CONFIG, "train", cwd=configured)
        assert "configs/base_config.yaml: " in message and reason in message
    file.unlink()
    assert "configs/base_config.yaml: cannot read" in program.refuses("plan", *CONFIG, "train", cwd=configured)


@pytest.mark.parametrize(
    "value", ["one", ["one"], ["one", "two"], [], None, "", [""], [1], ["one", None], {"a": "b"}, 5]
)
def test_a_table_in_the_configuration(program: Program, small: Dataset, tmp_path: Path, value: Any) -> None:
    """A path, a list of paths, or none: the program and the loader read the same rows, or both refuse the value."""
    rows = pd.read_csv(small.reports, dtype=str, keep_default_na=False)
    half = len(rows) // 2 if value == ["one", "two"] else len(rows)
    files = {"one": tmp_path / "one.csv", "two": tmp_path / "two.csv"}
    rows[:half].to_csv(files["one"], index=False)
    rows[half:].to_csv(files["two"], index=False)

    def path(name: Any) -> Any:
        return str(files[name]) if name in ("one", "two") else name

    given = [path(name) for name in value] if isinstance(value, list) else path(value) if value != {"a": "b"} else value
    section = {"dataset_format": "npz", "train_dir": str(small.folder), "reports_train": given}
    section |= {"train_meta": str(small.meta), "labels_train": str(small.labels)}
    file = tmp_path / "training.yaml"
    file.write_text(json.dumps({"data": section}))
    if value in ("one", ["one"], ["one", "two"], [], None):
        plan = planned(program, "--config", file, "--split=train")
        flags = [f"--data-folder={small.folder}", f"--meta-file={small.meta}", f"--labels-file={small.labels}"]
        right = planned(program, *flags, *([f"--reports-file={small.reports}"] if value else []))
        assert plan == right
        found = create_dataset_from_config({"data": section}, "train")
        assert isinstance(found, CTReportDataset) and len(found) == right["total_samples"]
        assert any(study.text for study in found.studies) == bool(value)
    else:
        assert "data.reports_train: " in program.refuses("plan", "--config", file, "--split=train")
        with pytest.raises(LoaderError, match=r"data\.reports_train"):
            create_dataset_from_config({"data": section}, "train")


def test_which_split_must_be_said(program: Program, configured: Path) -> None:
    """Nobody guesses which data set is meant."""
    for flags in (CONFIG[:2], ["--split", "train"], [*CONFIG, "test"]):
        assert program.run("plan", *flags, check=False, cwd=configured).returncode == 2


def test_mount_at_the_place_of_the_shards(program: Program, base: Path, configured: Path) -> None:
    """The folder of the pattern, from which the training reads; the daemon finds it as the command did."""
    config = configured / "configs" / "base_config.yaml"
    config.write_text(config.read_text().replace("shards/train/", f"{os.path.relpath(base, configured)}/mount/"))
    program.run("mount", *CONFIG, "train", "--log-file", base / "log", cwd=configured)
    assert is_mounted(base / "mount") and len(shards(base / "mount")) == 1
    program.run("unmount", base / "mount")
    message = program.refuses("mount", *CONFIG, "valid", cwd=configured)
    assert "data.webdataset_shards_val not set" in message
    program.run("mount", *CONFIG, "train", "--log-file", base / "log", base / "mount", cwd=configured)
    program.run("unmount", base / "mount")


def test_a_mountpoint_is_needed(program: Program, small: Dataset) -> None:
    """Without a configuration as well."""
    done = program.run("mount", *small.flags(), check=False)
    assert done.returncode == 2 and "mountpoint" in done.stderr


def test_bench_hands_the_configuration_on(program: Program, base: Path, configured: Path) -> None:
    """To the mount that it measures."""
    flags = ["--samples", 2, "--readers", 1, "--read-ahead", 0, "--runs", 1, "--python", sys.executable, "--json"]
    done = program.run("bench", *CONFIG, "train", *flags, cwd=configured)
    assert report_of(done)["event"] == "end"

"""Files beside the shards that a user has changed: the next run leaves them, says what of them is out of date, and goes
on replacing those that it has made itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Program, files_in
from make_dataset import Dataset
from small_datasets import noise_dataset

FLAGS = ("--samples-per-shard", 2)
SHARDS = 4
SPLIT, FIELDS, CARD = ".nv-meta/split.yaml", ".nv-meta/dataset.yaml", "README.md"
MINE = {
    SPLIT: "split_parts:\n  train: ['shard-{000000..000002}.tar']\n  val: [shard-000003.tar]\nexclude: []\n",
    FIELDS: "__module__: megatron.energon\n__class__: CaptioningWebdataset\nfield_map:\n  image: bin\n",
    CARD: '---\nconfigs:\n- config_name: mine\n  data_files: "shard-*.tar"\n---\nMy data.\n',
}
# A split of which only one line was taken out: a held-out shard must not come back.
HELD_OUT = "split_parts:\n  train:\n  - shard-000000.tar\n  - shard-000001.tar\n  val: []\n  test: []\nexclude: []\n"


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Eight volumes in four shards, which a test may change."""
    return noise_dataset(tmp_path / "data", 2 * SHARDS, (8, 8, 8))


@pytest.fixture
def out(program: Program, data: Dataset, tmp_path: Path) -> Path:
    """Its shards."""
    return program.materialize(data, tmp_path / "out", *FLAGS)


def nothing_to_make(program: Program, data: Dataset, out: Path) -> str:
    """Run it again."""
    done = program.run("materialize", *data.flags(), *FLAGS, "--output-dir", out)
    assert " 0 shards written" in done.stdout
    return done.stderr


def one_shard_again(program: Program, data: Dataset, out: Path) -> str:
    """Run it with a shard missing."""
    (out / "shard-000001.tar").unlink()
    done = program.run("materialize", *data.flags(), *FLAGS, "--output-dir", out)
    assert " 1 shard written" in done.stdout
    return done.stderr


def killed_before(program: Program, data: Dataset, out: Path) -> str:
    """A run that cannot end, then one that does."""
    volume = data.volumes()[2]
    right = volume.read_bytes()
    wrong = bytearray(right)
    wrong[len(wrong) // 2] ^= 1
    (out / "shard-000001.tar").unlink()
    volume.write_bytes(wrong)
    program.refuses("materialize", *data.flags(), *FLAGS, "--output-dir", out)
    volume.write_bytes(right)
    return program.run("materialize", *data.flags(), *FLAGS, "--output-dir", out).stderr


def rebuilt(program: Program, data: Dataset, out: Path) -> str:
    """The manifest is made again."""
    (out / "manifest.json").unlink()
    return program.run("manifest", "rebuild", out, *data.flags(), *FLAGS).stderr


def parts(program: Program, data: Dataset, out: Path) -> str:
    """Two parts make one shard again, and are merged."""
    (out / "shard-000001.tar").unlink()
    for index in range(2):
        program.run("materialize", *data.flags(), *FLAGS, "--output-dir", out, "--partition", f"{index}/2")
    return program.run("manifest", "merge", out).stderr


Way = Callable[[Program, Dataset, Path], str]
WAYS = pytest.mark.parametrize("way", [nothing_to_make, one_shard_again, killed_before, rebuilt, parts])


@WAYS
@pytest.mark.parametrize("name", list(MINE))
def test_a_changed_file_stays(program: Program, data: Dataset, out: Path, name: str, way: Way) -> None:
    """To the byte; the others are as they were, and nothing is said of a file that fits the shards."""
    right = {one: (out / one).read_bytes() for one in MINE}
    (out / name).write_text(MINE[name])
    assert "note" not in way(program, data, out)
    assert {one: (out / one).read_bytes() for one in MINE} == {**right, name: MINE[name].encode()}


@WAYS
def test_a_split_without_some_shards_stays_and_is_told(program: Program, data: Dataset, out: Path, way: Way) -> None:
    """Also where it has the form that this program writes."""
    (out / SPLIT).write_text(HELD_OUT)
    said = way(program, data, out)
    assert (out / SPLIT).read_text() == HELD_OUT
    assert "split.yaml" in said and "shard-000002.tar, shard-000003.tar" in said


def test_a_new_shard(program: Program, tmp_path: Path) -> None:
    """What the program itself has written follows the list of shards; what was changed stays, and the run says which
    shard it lacks."""
    more = noise_dataset(tmp_path / "more", 2 * SHARDS + 1, (8, 8, 8))
    out, mine, last = tmp_path / "out", tmp_path / "mine", more.volumes()[-1]
    last.rename(tmp_path / "later")
    program.materialize(more, out, *FLAGS)
    (tmp_path / "later").rename(last)
    shutil.copytree(out, mine)
    (mine / SPLIT).write_text(MINE[SPLIT])
    for folder in (out, mine):
        done = program.run("materialize", *more.flags(), *FLAGS, "--output-dir", folder)
        assert f"1 shard written, {SHARDS} kept" in done.stdout
        assert ("shard-000004.tar" in done.stderr.partition("note")[2]) == (folder == mine)
    train = yaml.safe_load((out / SPLIT).read_text())["split_parts"]["train"]
    assert train == [f"shard-{number:06d}.tar" for number in range(SHARDS + 1)]
    assert (mine / SPLIT).read_text() == MINE[SPLIT]


def change_wids(index: dict[str, Any]) -> None:
    """As `widsindex update` does, and with URLs elsewhere."""
    index["name"] = "mine"
    for shard in index["shardlist"]:
        shard["url"] = "https://example.org/" + shard["url"]


def change_info(info: dict[str, Any]) -> None:
    """As another version of Energon writes it."""
    info["energon_version"] = "99.0"


@WAYS
@pytest.mark.parametrize(("name", "change"), [("shardindex.json", change_wids), (".nv-meta/.info.json", change_info)])
def test_an_index_stays_as_long_as_it_is_right(
    program: Program, data: Dataset, out: Path, name: str, change: Callable[[dict[str, Any]], None], way: Way
) -> None:
    """What it says of the shards must be true; what was added to it is the user's."""
    right = (out / name).read_bytes()
    index = json.loads(right)
    change(index)
    (out / name).write_text(json.dumps(index))
    way(program, data, out)
    assert json.loads((out / name).read_text()) == index
    for make in (nothing_to_make, one_shard_again):
        (out / name).write_text(json.dumps(index).replace("shard-000001", "shard-000009"))
        assert make(program, data, out).count(f"{Path(name).name}: it was changed, and is written anew") == 1
        assert (out / name).read_bytes() == right


@pytest.mark.parametrize("more", [(), ("--compress", "zstd")], ids=["plain", "compressed"])
def test_a_readme_that_was_there_first(program: Program, data: Dataset, tmp_path: Path, more: tuple[str, ...]) -> None:
    """It is never replaced; the run says what `load_dataset` needs in it. One that is missing is written again."""
    other = program.materialize(data, tmp_path / "other", *FLAGS, *more)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / CARD).write_text("My data.\n")
    command = ["materialize", *data.flags(), *FLAGS, *more, "--output-dir"]
    said = program.run(*command, tmp_path / "out").stderr
    assert "README.md" in said and 'data_files: "shard-*.tar"' in said
    assert (tmp_path / "out" / CARD).read_text() == "My data.\n"
    card = (other / CARD).read_bytes()
    (other / CARD).unlink()
    assert "note" not in program.run(*command, other).stderr
    assert (other / CARD).read_bytes() == card
    found, right = files_in(tmp_path / "out"), files_in(other)
    assert {name for name in found if found[name] != right.get(name)} == {CARD} and set(found) == set(right)

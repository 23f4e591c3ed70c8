"""Folders that earlier versions wrote: this build takes every shard in them for what it is, and makes none again.

The folders are in `tests/fixtures/folders-*`, as those versions left them (see README.md there). A plan's digest
that came out otherwise, or a journal that was read otherwise, would make people's shards worthless."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import REPOSITORY, Program, digest, identities, report_of, shards
from small_datasets import flip_voxel

FIXTURES = REPOSITORY / "tests" / "fixtures"
ROOTS = sorted(FIXTURES.glob("folders-*"))
SETS = {root.name: json.loads((root / "folders.json").read_text("utf-8")) for root in ROOTS}
# The SHA-256 of what `sha256sum` prints of all files of a set, by path.
WRITTEN = {"folders-0.1": "8081f9b43869fe94424063feac9abe89a722c133a57b39068d65809a98870c8a"}
About = dict[str, Any]


def every(is_meant: Callable[[str, About], bool] = lambda name, about: True) -> pytest.MarkDecorator:
    """A test of all folders for which the condition holds, by name and by what is known of them; of one at least."""
    found = [(root, name) for root, about in SETS.items() for name in about["folders"]]
    chosen = [(root, name) for root, name in found if is_meant(name, SETS[root]["folders"][name])]
    assert chosen, "no folder is meant"
    ids = [f"{root.removeprefix('folders-')}-{name}" for root, name in chosen]
    return pytest.mark.parametrize("old", chosen, ids=ids, indirect=True)


def is_whole(name: str, about: About) -> bool:
    """Whether there is the manifest of all shards."""
    return about["plain_sha256"] is not None


def is_plain(name: str, about: About) -> bool:
    """Whether the volumes are not compressed."""
    return "--compress" not in about["output"]


@dataclass(frozen=True)
class Old:
    """A copy of a folder and of its data set; the current folder is where the paths of `about` begin."""

    program: Program
    name: str
    about: About
    left: Path
    """The folder as the earlier version left it."""

    @property
    def folder(self) -> Path:
        """The shards."""
        return Path("folders", self.name)

    @property
    def volumes(self) -> Path:
        """The NPZ files."""
        return Path("data", self.about["data"], "volumes")

    def flags(self) -> list[str]:
        """Those that name the data set and its options."""
        return self.about["dataset"]

    def materialize(
        self, out: Path, *more: object, code: int = 0, output: list[str] | None = None
    ) -> tuple[int, int] | None:
        """The command that the folder was made with, into any folder: shards written, and kept."""
        output = self.about["output"] if output is None else output
        command = ["materialize", *self.about["source"], *output, *more, "--output-dir", out]
        done = self.program.run(*command, check=False)
        assert done.returncode == code and "panicked" not in done.stderr, done.stdout + done.stderr
        found = re.search(r"(\d+) shards? written, (\d+) kept", done.stdout)
        return (int(found[1]), int(found[2])) if found else None

    def planned(self, *more: object) -> dict[str, Any]:
        """What this build plans from the data set."""
        return json.loads(self.program.run("plan", *self.flags(), *more, "--json").stdout)

    def journal(self) -> list[dict[str, Any]]:
        """Lines of all journals of shards."""
        paths = sorted((self.folder / ".ctwds").glob("journal*.jsonl"))
        return [json.loads(line) for path in paths for line in path.read_text("utf-8").splitlines()]

    def recorded(self) -> dict[str, dict[str, Any]]:
        """The last line about each finished shard."""
        return {line["finished"]["name"]: line["finished"] for line in self.journal() if "finished" in line}

    def part(self) -> tuple[int, int]:
        """Which part of how many the command makes."""
        output = self.about["output"]
        index, of = output[output.index("--partition") + 1].split("/") if "--partition" in output else (0, 1)
        return int(index), int(of)

    def lose_sources(self) -> None:
        """Remove the NPZ files that reclaim had removed."""
        for name in self.about["gone"]:
            (self.volumes / name).unlink()


class Stored(Old):
    """The same, with its shards in the place of the data set."""

    def flags(self) -> list[str]:
        """The flag that names them."""
        return ["--shards", str(self.folder)]


@pytest.fixture
def old(request: pytest.FixtureRequest, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Old:
    """A folder that a test may change. The times of the NPZ files are those that the records have."""
    root, name = request.param
    about = SETS[root]["folders"][name]
    for part in [f"data/{about['data']}", *(f"folders/{one}" for one in (name, about["shards_of"]) if one)]:
        shutil.copytree(FIXTURES / root / part, tmp_path / part)
    monkeypatch.chdir(tmp_path)
    found = Old(program, name, about, FIXTURES / root / "folders" / name)
    for path in found.volumes.rglob("*.npz"):
        os.utime(path, ns=(SETS[root]["mtime_ns"],) * 2)
    return found


def fresh(old: Old, *, code: int = 0, output: list[str] | None = None) -> Path:
    """The folder that an undisturbed run of this build leaves. A compressed one was begun by the earlier version, which
    shuffled values alone, with one shard and the record of it: this build goes on so."""
    out = Path("fresh")
    if not is_plain(old.name, old.about):
        journal = min((old.left / ".ctwds").glob("journal*.jsonl"))
        run, finished = journal.read_text("utf-8").splitlines()[:2]
        (out / ".ctwds").mkdir(parents=True)
        (out / ".ctwds" / journal.name).write_text(f"{run}\n{finished}\n", "utf-8")
        name = json.loads(finished)["finished"]["name"]
        shutil.copyfile(old.left / name, out / name)
    old.materialize(out, code=code, output=output)
    return out


def card(old: Old, *, wanted: bool) -> dict[str, str]:
    """The data card, which version 0.1 did not write: it is added where an index of all shards would be."""
    path = old.folder / "README.md"
    assert path.exists() == wanted
    return {"README.md": digest(path)} if wanted else {}


def without_later(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without the version that wrote it, and without what version 0.1 did not write: of the values."""
    for sample in itertools.chain.from_iterable(shard["samples"] for shard in manifest["shards"]):
        sample.pop("dialect", None)
    return {key: value for key, value in manifest.items() if key not in ("tool", "value_groups")}


def content(folder: Path) -> dict[str, Any]:
    """Every file below a folder but the journals: its digest, and of manifests what version 0.1 wrote as well, but not
    the version."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.startswith("manifest") and name.endswith(".json"):
            found[name] = without_later(json.loads(path.read_text("utf-8")))
        elif path.is_file() and ".ctwds" not in path.parts:
            found[name] = digest(path)
    return found


def without_parts(found: dict[str, Any]) -> dict[str, Any]:
    """What is no file of a part."""
    return {name: value for name, value in found.items() if "-of-" not in name}


def test_nobody_has_touched_them() -> None:
    """Neither a person nor git: they are what the earlier versions wrote, all of it."""
    for root, about in SETS.items():
        assert {path.name for path in (FIXTURES / root / "folders").iterdir()} == set(about["folders"])
        files = sorted(path for path in (FIXTURES / root).rglob("*") if path.is_file())
        listed = "".join(f"{digest(path)}  {path.relative_to(FIXTURES)}\n" for path in files)
        assert hashlib.sha256(listed.encode()).hexdigest() == WRITTEN[root]
    assert set(SETS) == set(WRITTEN)


@pytest.mark.parametrize("root", SETS)
def test_digests_of_plans(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    """Those of which there are no folders: default sizes and other choices."""
    shutil.copytree(FIXTURES / root / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    plans = SETS[root]["plans"]
    assert plans
    for plan in plans:
        found = json.loads(program.run("plan", *plan["flags"], "--json").stdout)
        assert found["plan_digest"] == plan["plan_digest"], plan["flags"]


@every()
def test_digests(old: Old) -> None:
    """What this build plans has the digests of the manifests and of the journals, of the whole and of each shard."""
    plan = without_later(old.planned())
    by_shard = {shard["name"]: shard["plan_digest"] for shard in plan["shards"]}
    runs = [line["run"] for line in old.journal() if "run" in line]
    assert plan["plan_digest"] == max(runs, key=lambda run: run["run"])["plan_digest"]
    made_of: dict[str, str] = {}
    assert old.recorded()
    for name, finished in old.recorded().items():
        assert finished["planned"] == by_shard[name], name
        made_of[name] = by_shard[name]
        if finished.get("left_out"):
            Path("less.csv").write_text("\n".join(["study_id", *(one["study_id"] for one in finished["left_out"]), ""]))
            less = old.planned("--exclude", "less.csv")["shards"]
            made_of[name] = next(shard["plan_digest"] for shard in less if shard["name"] == name)
        assert finished["made_of"] == made_of[name], name
    for path in old.folder.glob("manifest*.json"):
        manifest = json.loads(path.read_text("utf-8"))
        same = ("plan_digest", "format", "volume_kind", "label_names", "samples_per_shard", "unmatched")
        assert {key: manifest[key] for key in same} == {key: plan[key] for key in same}
        assert manifest["shards"]
        for shard in manifest["shards"]:
            samples = next(one["samples"] for one in plan["shards"] if one["name"] == shard["name"])
            assert shard["plan_digest"] == made_of[shard["name"]]
            assert [sample for sample in samples if sample in shard["samples"]] == shard["samples"]


@pytest.mark.parametrize("more", [(), ("--recheck",)], ids=["trusted", "rechecked"])
@every()
def test_resume(old: Old, more: tuple[str, ...]) -> None:
    """The same command makes what is missing and nothing else; then everything is as an undisturbed run of this build
    leaves it. Where reclaim has removed the NPZ files, it refuses and changes nothing."""
    old.lose_sources()
    before, there, recorded, told = content(old.folder), identities(old.folder), old.recorded(), old.about["resume"]
    strangers = {"shard-000002.tar"} if old.name == "stranger" else set()
    assert set(there) == set(recorded) | strangers
    summary = old.materialize(old.folder, *more, code=told["code"])
    after = identities(old.folder)
    assert {name: after[name] for name in there} == there, "a finished shard was made again"
    assert all(digest(old.folder / name) == finished["sha256"] for name, finished in recorded.items())
    if old.about["gone"]:
        assert told["code"] == 1 and summary is None and content(old.folder) == before
        return
    kept = sum(int(Path(name).stem.removeprefix("shard-")) % old.part()[1] == old.part()[0] for name in recorded)
    assert summary == tuple(told["written_kept"]) == (len(after) - len(there), kept)
    if not old.name.startswith("half"):
        whole = "--partition" not in old.about["output"] and told["code"] == 0
        assert summary[0] == 0 and content(old.folder) == {**before, **card(old, wanted=whole)}
        return
    assert (summary[0] > 0) == (old.name != "half-indexed") and not list(old.folder.glob("*.partial"))
    undisturbed, found = content(fresh(old)), content(old.folder)
    assert undisturbed.items() <= found.items()
    assert set(found) == set(undisturbed) or old.name == "half-part"


@every(lambda name, about: "--partition" not in about["output"])
def test_a_run_from_the_start(old: Old) -> None:
    """It makes the bytes that the earlier version made: one folder may hold shards of both."""
    made, recorded = fresh(old, code=1 if old.name == "failed" else 0), old.recorded()
    assert recorded and {name: digest(made / name) for name in recorded} == {
        name: finished["sha256"] for name, finished in recorded.items()
    }


@every(lambda name, about: about["data"] == "damaged" and name in ("failed", "skipped", "skipped-packed"))
def test_a_volume_that_is_mended(old: Old) -> None:
    """Its shard is made, and no other."""
    there = identities(old.folder)
    flip_voxel(old.volumes / "train_3_a_1.npz")
    assert old.materialize(old.folder) == (1, 2)
    after = identities(old.folder)
    assert {name for name in after if after[name] != there.get(name)} == {"shard-000001.tar"}
    assert content(old.folder) == content(fresh(old))


@every()
def test_verify(old: Old) -> None:
    """In itself and against the sources, as the version that wrote it found."""
    old.lose_sources()
    for flags, code in (([], old.about["verify"]["alone"]), (old.flags(), old.about["verify"]["with_data"])):
        done = old.program.run("verify", "--webdataset-dir", old.folder, *flags, check=False)
        assert done.returncode == code and "panicked" not in done.stderr, done.stdout + done.stderr


@every(is_whole)
def test_shards_as_a_source(old: Old) -> None:
    """Mounted, or written as plain shards, without the data set."""
    right = old.about["plain_sha256"]
    shutil.rmtree("data")
    with old.program.mounted(Stored(old.program, old.name, old.about, old.left)) as point:
        assert {path.name: digest(path) for path in shards(point)} == right
    old.program.run("materialize", "--shards", old.folder, "--output-dir", "plain")
    assert {path.name: digest(path) for path in shards(Path("plain"))} == right


@every(is_plain)
def test_a_mount_beside_it(old: Old) -> None:
    """It takes every finished shard from its file, and the volumes of shuffled views from there: it decodes none."""
    recorded, flags = old.recorded(), ["--shuffle-seed", 7, "--epochs", 1]
    with old.program.mounted(old, "--materialized", old.folder, *flags) as point:
        assert all(digest(point / name) == finished["sha256"] for name, finished in recorded.items())
        if is_whole(old.name, old.about) and not (old.folder / "quarantine.csv").exists():
            view = shards(point / "epochs" / "000000")
            assert view and all(digest(path) for path in view)
        assert json.loads((point / ".ctwds" / "stats.json").read_text())["volumes_decoded"] == 0


@every(lambda name, about: is_plain(name, about) and is_whole(name, about) and not about["gone"])
def test_a_manifest_that_is_lost(old: Old) -> None:
    """It and the indexes are made again from shards, record and data set, as they were."""
    right, there = content(old.folder), identities(old.folder)
    for path in [*old.folder.glob("*.json"), *old.folder.glob("*.idx")]:
        path.unlink()
    shutil.rmtree(old.folder / ".nv-meta")
    old.program.run("manifest", "rebuild", old.folder, *old.flags())
    assert (
        without_parts(content(old.folder)) == without_parts({**right, **card(old, wanted=True)})
        and identities(old.folder) == there
    )


@every(lambda name, about: "part" in name or name == "merged")
def test_parts_are_merged(old: Old) -> None:
    """The parts that are missing are made; together they are what one run makes."""
    output = old.about["output"]
    whole = [] if "--partition" not in output else output[: output.index("--partition")]
    there = identities(old.folder)
    if old.name in ("part", "half-part"):
        assert old.program.run("manifest", "merge", old.folder, check=False).returncode == 1
        for index in range(old.part()[1]):
            old.materialize(old.folder, output=[*whole, "--partition", f"{index}/{old.part()[1]}"])
    old.program.run("manifest", "merge", old.folder)
    after = identities(old.folder)
    assert {name: after[name] for name in there} == there, "a finished shard was made again"
    assert without_parts(content(old.folder)) == content(fresh(old, output=whole))
    assert old.materialize(old.folder, output=whole) == (0, len(after))


@every(is_whole)
def test_reclaim(old: Old) -> None:
    """It goes on to the last NPZ file, and what is left are the shards as they were."""
    old.lose_sources()
    before, there = content(old.folder), identities(old.folder)
    samples = [sample for shard in before["manifest.json"]["shards"] for sample in shard["samples"]]
    for removed in (len(old.about["gone"]), len(samples)):
        flags = [*old.flags(), "--shards", old.folder, "--delete", "--yes", "--json"]
        report = report_of(old.program.run("reclaim", *flags))
        assert (report["files"], report["removed_earlier"]) == (len(samples) - removed, removed)
        assert report["refused"] == report["kept"] == []
    assert not any((old.volumes / sample["source"]).exists() for sample in samples)
    assert content(old.folder) == before and identities(old.folder) == there
    old.program.run("materialize", "--shards", old.folder, "--output-dir", "plain")
    assert {path.name: digest(path) for path in shards(Path("plain"))} == old.about["plain_sha256"]

"""Every table may be left away, and may stand in several files: what shards then hold, and what the loader gives."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ctreport_webdataset import CTReportDataset, CTReportWebDataset, LoaderError, create_dataset_from_config
from harness import Program, Stored, digest, payload, shards
from loading import SMALL, Samples, assert_same, collected
from make_dataset import Dataset
from small_datasets import write_dataset

ROLES = ("reports", "meta", "labels")
GIVEN = [names for count in range(4) for names in itertools.combinations(ROLES, count)]
KINDS = {"stored": [], "rescaled": ["--volume=rescaled"], "preprocessed": ["--volume=preprocessed", "--shape=8,8,8"]}
# What says without a table how HU are made, and that nothing is resampled.
WITHOUT_META = {"stored": [], "rescaled": ["--rescale=none"], "preprocessed": ["--rescale=none", "--resample=never"]}
STUDIES = ("v0", "v1", "v2")


@dataclass(frozen=True)
class Given:
    """Some tables of a data set, each in some files, where the harness takes a data set."""

    folder: Path
    tables: dict[str, Sequence[Path]]

    def flags(self) -> list[str]:
        """The arguments that name them on the command line."""
        named = [(role, path) for role, paths in self.tables.items() for path in paths]
        return [f"--data-folder={self.folder}", *(f"--{role}-file={path}" for role, path in named)]


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Three tiny volumes with the tables of CT-RATE."""
    voxels = np.arange(60, dtype="f4").reshape(3, 4, 5)
    return write_dataset(tmp_path / "data", {f"{study}.npz": {"data": voxels + n} for n, study in enumerate(STUDIES)})


def given(data: Dataset, roles: Sequence[str]) -> Given:
    """The data set with only these tables."""
    return Given(data.folder, {role: [getattr(data, role)] for role in roles})


def members(folder: Path) -> list[tuple[str, bytes]]:
    """Names and bytes of all members of all shards, by Python's own reader."""
    found = []
    for shard in shards(folder):
        with tarfile.open(shard) as archive:
            found += [(member.name, payload(archive, member)) for member in archive]
    return found


def expected_members(
    data: Dataset, roles: Sequence[str], kind: str, form: str, packed: bool
) -> dict[str, bytes | None]:
    """What each sample should have, by pandas; None for voxels, which other tests compare."""
    tables = {role: pd.read_csv(getattr(data, role)).set_index("VolumeName") for role in roles}
    names = {
        "ctclip": ("bin", "json", "txt", "labels"),
        "npy": ("volume.npy", "meta.json", "report.txt", "labels.npy"),
    }[form]
    expected: dict[str, bytes | None] = {}
    for n, study in enumerate(STUDIES):
        row = f"{study}.nii.gz"
        key = f"000000_{n:06d}."
        expected[key + names[0] + (".split.zst" if packed else "")] = None
        slope, intercept = (float("nan"), float("nan")) if kind == "stored" else (1.0, 0.0)
        xy, z = "nan", float("nan")
        if "meta" in roles:
            meta = tables["meta"].loc[row]
            xy, z = meta["XYSpacing"], float(meta["ZSpacing"])
            if kind == "stored":
                slope, intercept = float(meta["RescaleSlope"]), float(meta["RescaleIntercept"])
        shape = [8, 8, 8] if kind == "preprocessed" else [3, 4, 5]
        fields: dict[str, Any] = {"study_id": study}
        if kind != "preprocessed":
            fields |= {"RescaleSlope": slope, "RescaleIntercept": intercept, "XYSpacing": xy, "ZSpacing": z}
            fields |= {"original_shape": shape}
        fields |= {"volume_shape": shape, "volume_dtype": "float16"}
        fields |= {} if kind == "stored" else {"volume_kind": kind}
        fields |= {"volume_codec": "zstd", "volume_filter": "split"} if packed else {}
        expected[key + names[1]] = json.dumps(fields).encode()
        text = ""
        if "reports" in roles:
            report = tables["reports"].loc[row]
            text = f"{report['Findings_EN']}\n{report['Impressions_EN']}"
        expected[key + names[2]] = text.encode()
        if "labels" in roles:
            values = tables["labels"].loc[row].to_numpy(np.float32)
            file = io.BytesIO()
            np.save(file, values)
            expected[key + names[3]] = values.tobytes() if form == "ctclip" else file.getvalue()
    return expected


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("form", ["ctclip", "npy"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("roles", GIVEN, ids=lambda roles: "+".join(roles) or "none")
def test_any_tables(
    program: Program, data: Dataset, tmp_path: Path, roles: Sequence[str], kind: str, form: str, packed: bool
) -> None:
    """Each member of each sample, in files; and `verify` finds nothing, with sources and without."""
    flags = [*KINDS[kind], *([] if "meta" in roles else WITHOUT_META[kind]), f"--format={form}"]
    some = given(data, roles)
    out = tmp_path / "out"
    program.run("materialize", *some.flags(), *flags, *(["--compress=zstd"] if packed else []), "--output-dir", out)
    slope_of_user = kind == "stored" and "meta" not in roles
    expected = expected_members(data, roles, kind, form, packed)
    found = members(out)
    assert [name for name, _ in found] == list(expected)
    for name, content in found:
        right = expected[name]
        assert right is None or content == right, (name, content, right)
    assert not slope_of_user or b'"RescaleSlope": NaN' in found[1][1]
    program.run("verify", "--shards", out, *some.flags(), *flags)
    program.run("verify", "--shards", out)


HU: dict[str, Any] = {"dialect": "hu", "shape": (8, 8, 8)}


@pytest.mark.parametrize("roles", GIVEN, ids=lambda roles: "+".join(roles) or "none")
def test_the_loader_gives_the_same_on_both_paths(
    program: Program, data: Dataset, tmp_path: Path, roles: Sequence[str]
) -> None:
    """Of shards on disk, of a mount, of an epoch of it, and of NPZ files; also by a configuration without the keys."""
    some = given(data, roles)
    right = all_of(CTReportDataset(data.folder, **loader_tables(some), shuffle=False, **HU))
    assert [len(labels) for _, _, labels in right.values()] == [3 if "labels" in roles else 0] * 3
    assert {text for _, text, _ in right.values()} == texts(roles)
    flags = [*some.flags(), "--dialect=hu"]
    out = tmp_path / "out"
    program.run("materialize", *flags, "--output-dir", out)
    assert_same(collected(CTReportWebDataset(out, shuffle=False, **HU)), right, 0.0005)
    with program.mounted(some, "--dialect=hu", "--shuffle-seed=1", "--epochs=1") as mounted:
        assert digest(mounted / "shard-000000.tar") == digest(out / "shard-000000.tar")
        assert_same(collected(CTReportWebDataset(mounted, shuffle=False, **HU)), right, 0.0005)
        assert_same(collected(CTReportWebDataset(mounted / "epochs/000000", shuffle=False, **HU)), right, 0.0005)
        program.run("verify", "--shards", mounted / "epochs" / "000000", *flags)
    keys = {"reports": "reports_train", "meta": "train_meta", "labels": "labels_train"}
    section = {"dataset_format": "npz", "train_dir": str(data.folder), "dialect": "hu", "shape": [8, 8, 8]}
    section |= {keys[role]: str(paths[0]) for role, paths in some.tables.items()}
    assert_same(all_of(create_dataset_from_config({"data": section})), right)
    file = tmp_path / "training.yaml"
    file.write_text(json.dumps({"data": section}))
    by_file = program.run("plan", "--config", file, "--split=train", "--dialect=hu", "--json").stdout
    assert json.loads(by_file) == json.loads(program.run("plan", *flags, "--json").stdout)


def all_of(found: CTReportDataset | CTReportWebDataset) -> Samples:
    """The samples of NPZ files."""
    assert isinstance(found, CTReportDataset)
    return collected(found[at] for at in range(len(found)))


def loader_tables(some: Given) -> dict[str, Any]:
    """The tables as arguments of the loader."""
    names = {"reports": "reports_file", "meta": "meta_file", "labels": "labels"}
    return {names[role]: list(paths) for role, paths in some.tables.items()}


def texts(roles: Sequence[str]) -> set[str]:
    """The texts of all samples."""
    return {f"findings of {study}.nii.gz\nnone" for study in STUDIES} if "reports" in roles else {""}


@pytest.mark.parametrize("form", ["ctclip", "npy"])
def test_an_empty_member_of_labels(program: Program, data: Dataset, tmp_path: Path, form: str) -> None:
    """On request, for readers that need one; every path knows it, and it is refused beside labels."""
    some = given(data, ["reports", "meta"])
    out, again = tmp_path / "out", tmp_path / "again"
    flags = ["--labels-empty", f"--format={form}"]
    program.run("materialize", *some.flags(), *flags, "--output-dir", out)
    found = dict(members(out))
    if form == "npy":
        assert np.load(io.BytesIO(found["000000_000000.labels.npy"])).shape == (0,)
    else:
        assert found["000000_000000.labels"] == b""
    loaded = collected(CTReportWebDataset(out, shuffle=False, **HU))
    assert [labels for _, _, labels in loaded.values()] == [()] * 3
    program.run("verify", "--shards", out, *some.flags(), *flags)
    with program.mounted(Stored(out)) as mounted:
        assert members(mounted) == members(out)
    program.run("materialize", "--shards", out, "--compress=zstd", "--output-dir", again)
    with program.mounted(Stored(again)) as mounted:
        assert digest(mounted / "shard-000000.tar") == digest(out / "shard-000000.tar")
    message = program.run("plan", *data.flags(), "--labels-empty", check=False)
    assert message.returncode == 2 and "--labels-empty is for samples without labels" in message.stderr


def test_shards_without_labels_everywhere(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Mounted beside their files, taken for a data set, packed, unpacked, indexed and reclaimed."""
    some = given(data, ["reports", "meta"])
    out, packed = tmp_path / "out", tmp_path / "packed"
    program.run("materialize", *some.flags(), "--samples-per-shard=2", "--output-dir", out)
    right = [digest(path) for path in shards(out)]
    program.run("materialize", "--shards", out, "--compress=zstd", "--output-dir", packed)
    program.run("verify", "--shards", packed, *some.flags(), "--samples-per-shard=2")
    with program.mounted(Stored(packed)) as mounted:
        assert [digest(path) for path in shards(mounted)] == right
        lines = (mounted / "shard-000000.idx").read_text().splitlines()
        for line in lines[1:]:
            fields = line.split()
            assert fields[::4] == ["bin", "json", "txt"]
            for offset, size, name in zip(fields[1::4], fields[2::4], fields[3::4], strict=True):
                content = (mounted / "shard-000000.tar").read_bytes()[int(offset) : int(offset) + int(size)]
                assert dict(members(mounted))[name] == content
    with program.mounted(some, "--samples-per-shard=2", "--materialized", out) as mounted:
        assert [digest(path) for path in shards(mounted)] == right
    program.run("reclaim", "--shards", out, *some.flags(), "--samples-per-shard=2", "--delete", "--yes")
    assert not list(data.folder.glob("*.npz"))
    with program.mounted(Stored(out)) as mounted:
        assert [digest(path) for path in shards(mounted)] == right


def test_a_sample_that_lost_its_labels_is_damaged(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Where the others have them, or the manifest says it; the loader sees it by the manifest."""
    out = program.materialize(data, tmp_path / "out")
    kept = [(name, content) for name, content in members(out) if name != "000000_000001.labels"]
    with tarfile.open(out / "shard-000000.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in kept:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(LoaderError, match="no labels among its members"):
        collected(CTReportWebDataset(out, shuffle=False, **HU))
    assert "its members are bin json txt, and should be bin json txt labels" in verified(program, out)
    (out / "manifest.json").unlink()
    assert "it has 0 labels, and 3 are right" in verified(program, out)


def verified(program: Program, out: Path) -> str:
    """What `verify` says of a folder that is not right."""
    done = program.run("verify", "--shards", out, check=False)
    assert done.returncode == 3, done.stdout
    return done.stdout + done.stderr


def test_labels_that_are_missing_are_no_damage(program: Program, data: Dataset, tmp_path: Path) -> None:
    """NaN where the user asked for it, and texts of one column or of three."""
    data.labels.write_text(data.labels.read_text().replace("v1.nii.gz,1,", "v1.nii.gz,,"))
    for columns in ("Findings_EN", "Findings_EN,Impressions_EN,Findings_EN"):
        flags = ["--missing-label=nan", f"--text-columns={columns}"]
        out = program.materialize(data, tmp_path / columns, *flags)
        program.run("verify", "--shards", out, *data.flags(), *flags)
        program.run("verify", "--shards", out)


@pytest.mark.parametrize(
    ("roles", "flags", "words"),
    [
        (["reports"], ["--where=a == 1"], ("--where", "--labels-file")),
        (["labels"], ["--volume=rescaled"], ("v0.npz", "--volume rescaled", "--meta-file", "--rescale")),
        ([], ["--volume=preprocessed"], ("v0.npz", "--volume preprocessed", "--meta-file", "--rescale")),
        ([], ["--volume=preprocessed", "--rescale=none"], ("--meta-file", "--resample never")),
        (["labels"], ["--text-columns=a"], ("--text-columns", "--reports-file")),
        (["labels"], ["--meta-columns=z=a"], ("--meta-columns", "--meta-file")),
        (["meta"], ["--label-columns=a"], ("--label-columns", "--labels-file")),
    ],
)
def test_what_is_lacking_is_said(
    program: Program, data: Dataset, roles: list[str], flags: list[str], words: tuple[str, ...]
) -> None:
    """With the table or the option that helps."""
    done = program.run("plan", *given(data, roles).flags(), *flags, check=False)
    assert done.returncode in (1, 2) and all(word in done.stderr for word in words), done.stderr


def test_no_slope_is_made_up(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Without a table, slope and intercept are NaN, unless the dialect or the user says them."""
    cases = {
        (): ("nan", "nan"),
        ("--dialect=hu",): ("1.0", "0.0"),
        ("--dialect=normalized",): ("1000.0", "0.0"),
        ("--rescale=none",): ("1.0", "0.0"),
        ("--rescale=2,-5",): ("2.0", "-5.0"),
    }
    for n, (flags, right) in enumerate(cases.items()):
        out = tmp_path / str(n)
        program.run("materialize", *given(data, []).flags(), *flags, "--output-dir", out)
        fields = json.loads(members(out)[1][1])
        assert (str(fields["RescaleSlope"]), str(fields["RescaleIntercept"])) == right, flags
        assert str([fields["XYSpacing"], fields["ZSpacing"]]) == "['nan', nan]"
    with pytest.raises(LoaderError, match="no meta_file"):
        CTReportDataset(data.folder, **SMALL)
    said = program.run("plan", *given(data, ["meta"]).flags()).stderr
    assert "no --reports-file, no --labels-file: of all samples, their texts are empty, and they have no labels" in said


def halves(data: Dataset, tmp_path: Path) -> Given:
    """The data set with each table in two files, the second with other columns before and behind those of the first."""
    tables: dict[str, Sequence[Path]] = {}
    for role in ROLES:
        rows = pd.read_csv(getattr(data, role), dtype=str, keep_default_na=False)
        first, second = tmp_path / f"{role}1.csv", tmp_path / f"{role}2.csv"
        rows[:1].to_csv(first, index=False)
        rows = rows[rows.columns[::-1]]
        rows.insert(0, "site", "x")
        rows[1:].to_csv(second, index=False, sep=";")
        tables[role] = [first, second]
    return Given(data.folder, tables)


def test_a_table_in_several_files(program: Program, data: Dataset, tmp_path: Path) -> None:
    """The plan is that of one file; so is what the loader gives, and what a file of the data set names."""
    several = halves(data, tmp_path)
    right = json.loads(program.run("plan", *data.flags(), "--json").stdout)
    assert json.loads(program.run("plan", *several.flags(), "--json").stdout) == right
    lines = [f"{role}_file = {[str(path) for path in several.tables[role]]}" for role in ROLES]
    file = tmp_path / "ctwds.toml"
    file.write_text("\n".join([f"data_folder = '{data.folder}'", *lines]))
    assert json.loads(program.run("plan", "--dataset", file, "--json").stdout) == right
    one = CTReportDataset(data.folder, **loader_tables(given(data, ROLES)), shuffle=False, **HU)
    both = CTReportDataset(data.folder, **loader_tables(several), shuffle=False, **HU)
    assert_same(all_of(both), all_of(one))


@pytest.mark.parametrize("role", ROLES)
def test_an_id_in_two_files(program: Program, data: Dataset, tmp_path: Path, role: str) -> None:
    """An error that names both files and lines, also where the rows are equal."""
    several = halves(data, tmp_path)
    first, second = several.tables[role]
    before = second.read_text()
    rows = pd.read_csv(getattr(data, role), dtype=str, keep_default_na=False)[:1]
    rows.insert(0, "site", "x")
    header = before.splitlines()[0].split(";")
    rows[header].to_csv(second, index=False, sep=";", header=False, mode="a")
    message = program.refuses("plan", *several.flags())
    words = (str(first), f"{second}: line 4", "line 2 of", "'v0.nii.gz'")
    assert all(word in message for word in words), message
    with pytest.raises(LoaderError) as error:
        CTReportDataset(data.folder, **loader_tables(several), **HU)
    assert all(word in str(error.value) for word in words), error.value
    second.write_text(before.replace("v1.nii.gz", "a/v0.nii"))
    first.write_text(first.read_text().replace("v0.nii.gz", "b/v0.npz"))
    message = program.refuses("plan", *several.flags())
    assert str(first) in message and f"lines 2 and 2 of {second}" in message, message
    with pytest.raises(LoaderError, match="lines 2 and 2 of"):
        CTReportDataset(data.folder, **loader_tables(several), **HU)


def test_a_class_that_a_later_file_lacks(program: Program, data: Dataset, tmp_path: Path) -> None:
    """It is named, with the file that has it."""
    several = halves(data, tmp_path)
    first, second = several.tables["labels"]
    pd.read_csv(second, sep=";").drop(columns="b").to_csv(second, index=False)
    message = program.refuses("plan", *several.flags())
    assert f"{second}: column 'b' is missing" in message and str(first) in message
    with pytest.raises(LoaderError, match="column 'b' is missing"):
        CTReportDataset(data.folder, **loader_tables(several), **HU)

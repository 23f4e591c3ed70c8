"""`init`: what it finds of a folder, what it leaves to the user, and that it overwrites and betrays nothing."""

from __future__ import annotations

import gzip
import json
import os
import pty
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import COMMAND_DEADLINE, NOBODY, Program
from make_dataset import Dataset
from npzfiles import write_npz
from numpy.typing import NDArray
from small_datasets import set_meta, write_csv, write_dataset

NAME = "ctwds.toml"
COUNT = 6
FINDINGS = "No nodule was seen in patient Jane Roe on 2019-04-12"


def ids(count: int = COUNT) -> list[str]:
    """Names of volumes that are not those of CT-RATE."""
    return [f"scan{n:03d}" for n in range(count)]


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Six tiny volumes of a scanner's values, with tables that have CT-RATE's columns, and classes of 0 and 1."""
    rng = np.random.default_rng(0)
    # Half air, half tissue, as a scan with the table's intercept of -1024 has it.
    voxels = rng.choice([40.0, 1064.0], (8, 9, 7)) + rng.integers(-20, 20, (8, 9, 7))
    out = write_dataset(tmp_path / "data", {f"{name}.npz": {"data": voxels.astype("f4")} for name in ids()})
    write_csv(
        out.reports,
        [["VolumeName", "Findings_EN", "Impressions_EN"]] + [[f"{n}.nii.gz", FINDINGS, "Normal."] for n in ids()],
    )
    write_csv(out.labels, [["VolumeName", "a", "b"]] + [[f"{n}.nii.gz", at % 2, 0] for at, n in enumerate(ids())])
    return out


def init(program: Program, folder: Path, here: Path, *flags: object) -> tuple[dict[str, Any], str]:
    """The keys that it writes, and the whole file."""
    program.run("init", folder, "--yes", *flags, cwd=here)
    text = (here / NAME).read_text(encoding="utf-8")
    return tomllib.loads(text), text


def planned(program: Program, *flags: object, **options: Any) -> str:
    """The digest of a plan."""
    digest: str = json.loads(program.run("plan", *flags, "--json", **options).stdout)["plan_digest"]
    return digest


def undecided(text: str) -> list[str]:
    """The keys that are left to the user."""
    return [line.split()[1] for line in text.splitlines() if line.startswith("# ") and line[2:].partition(" = ")[1]]


def test_the_plan_is_that_of_the_flags(program: Program, data: Dataset, tmp_path: Path) -> None:
    """For CT-RATE's tables, from any folder, with relative paths below the file, and a reason for each key."""
    right = planned(program, *data.flags())
    for here, folder in ((data.folder.parent, data.folder.name), (tmp_path, "data"), (data.folder, ".")):
        keys, text = init(program, Path(folder), here)
        assert planned(program, cwd=here) == right
        assert all(not os.path.isabs(keys[key]) or here == data.folder for key in keys if key.endswith("_file"))
        assert undecided(text) == []
        assert f"{COUNT} of {COUNT} volumes are in column 'VolumeName' of labels.csv" in text.replace("\n# ", " ")
        (here / NAME).unlink()
    lines = text.splitlines()
    assert all(lines[at - 1].startswith("# ") for at, line in enumerate(lines) if line and not line.startswith("#"))
    program.run("init", data.folder, "--yes", "--output", tmp_path / "other.toml", cwd=tmp_path)
    assert planned(program, "--dataset", tmp_path / "other.toml") == right


def test_it_says_what_comes_next(program: Program, data: Dataset, tmp_path: Path) -> None:
    """The command runs as it is printed."""
    done = program.run("init", data.folder, "--yes", cwd=tmp_path)
    assert done.stderr.splitlines()[-1] == "Next: ctwds-fs plan"
    assert done.stdout == (tmp_path / NAME).read_text(), "what is shown is what is written"
    done = program.run("init", data.folder, "--yes", "--output", "x.toml", cwd=tmp_path)
    command = done.stderr.splitlines()[-1].removeprefix("Next: ctwds-fs ").split()
    program.run(*command, cwd=tmp_path)


def test_nothing_is_overwritten(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Neither a file, nor what a link leads to; and nothing is written without an answer."""
    there = tmp_path / NAME
    there.write_text("mine")
    message = program.refuses("init", data.folder, "--yes", cwd=tmp_path)
    assert "--output" in message and NAME in message and there.read_text() == "mine"
    there.unlink()
    there.symlink_to("elsewhere.toml")
    assert NAME in program.refuses("init", data.folder, "--yes", cwd=tmp_path)
    assert not (tmp_path / "elsewhere.toml").exists()
    there.unlink()
    assert "--yes" in program.refuses("init", data.folder, cwd=tmp_path)
    assert not there.exists()


@pytest.mark.parametrize("answer", ["y", "no", ""])
def test_it_asks_once(program: Program, data: Dataset, tmp_path: Path, answer: str) -> None:
    """On a terminal; whatever is not yes is no."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        done = subprocess.run(
            [program.path, "init", data.folder],
            cwd=tmp_path,
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=COMMAND_DEADLINE,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.stderr.count("[y/n]") == 1 and "data_folder" in done.stdout
    assert (done.returncode == 0) == (tmp_path / NAME).exists() == (answer == "y")


def test_no_value_of_a_table_gets_into_the_file(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Ids, texts and dates of patients stay in the tables."""
    _, text = init(program, data.folder, tmp_path)
    assert "scan0" not in text and "Jane" not in text and "2019" not in text and "Normal" not in text


def one_table(path: Path, names: list[str]) -> None:
    """All roles in one table, under names of its own."""
    header = ["site", "acc no", "age", "Nodule, left", "Edema", "x*y", "report text", "Pixel Spacing", "SliceThickness"]
    rows = [["A", f"scans/{n}.dcm", 40 + at, at % 2, "", -1, FINDINGS, "0.7\\0.7", 1.5] for at, n in enumerate(names)]
    header += ["rescale_slope", "rescale_intercept"]
    write_csv(path, [header, *([*row, 1, -1024] for row in rows)])


def test_one_table_for_all(program: Program, data: Dataset, tmp_path: Path) -> None:
    """By its columns, whatever it is called; blanks among the labels are for the user to decide."""
    for table in (data.reports, data.meta, data.labels):
        table.unlink()
    one_table(data.folder.parent / "table 1.txt", ids())
    keys, _ = init(program, data.folder, tmp_path)
    assert keys["reports_file"] == keys["meta_file"] == keys["labels_file"] == "data/table 1.txt"
    assert keys["id_column"] == "acc no" and keys["text_columns"] == ["report text"]
    assert keys["label_columns"] == ['"Nodule, left"', "x*y..x*y"]
    assert keys["meta_columns"] == [
        "slope=rescale_slope",
        "intercept=rescale_intercept",
        "xy=Pixel Spacing",
        "z=SliceThickness",
    ]
    shown = json.loads(program.run("plan", "--json", cwd=tmp_path).stdout)
    assert shown["label_names"] == ["Nodule, left", "x*y"] and shown["total_samples"] == COUNT


def test_labels_that_are_missing_are_the_users_to_decide(program: Program, data: Dataset, tmp_path: Path) -> None:
    """The key stands there; taking the mark away is enough."""
    write_csv(
        data.labels, [["VolumeName", "a", "b"]] + [[n, "yes", ["", "no", -1][at % 3]] for at, n in enumerate(ids())]
    )
    keys, text = init(program, data.folder, tmp_path)
    assert "missing_label" not in keys and undecided(text) == ["missing_label"] and "2 missing labels" in text
    program.refuses("plan", cwd=tmp_path)
    (tmp_path / NAME).write_text(text.replace("# missing_label", "missing_label"))
    program.run("plan", cwd=tmp_path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gzip"])
def test_tables_of_any_spelling(program: Program, data: Dataset, tmp_path: Path, delimiter: str, encoding: str) -> None:
    """In a folder beside the volumes, under names that say nothing; the plan is the same."""
    right = planned(program, *data.flags())
    beside = data.folder.parent / "t"
    beside.mkdir()
    for at, table in enumerate((data.labels, data.reports, data.meta)):
        text = table.read_text()
        for cell in ("[0.75, 0.75]",):
            text = text.replace(f'"{cell}"', "0.75")
        text = text.replace(",", delimiter)
        content = gzip.compress(text.encode()) if encoding == "gzip" else text.encode(encoding)
        (beside / f"{at}.dat").write_bytes(content)
        table.unlink()
    keys, _ = init(program, data.folder, tmp_path)
    assert keys["labels_file"] == "data/t/0.dat" and keys["reports_file"] == "data/t/1.dat"
    found = json.loads(program.run("plan", "--json", cwd=tmp_path).stdout)
    assert found["total_samples"] == COUNT and found["label_names"] == ["a", "b"] and right


def test_other_files_are_named_or_ignored(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Spreadsheets with the command that converts them; lists of this program and tables of other data are none."""
    base = data.folder.parent
    (base / "a.xlsx").write_bytes(b"PK\x03\x04rest")
    write_csv(base / "quarantine.csv", [["study_id", "path", "reason"]] + [[n, n, FINDINGS] for n in ids()])
    write_csv(base / "0.csv", [["VolumeName", "Findings_EN"]] + [[f"other{n}", FINDINGS] for n in range(9)])
    write_csv(base / "1.csv", [["id", "age"]] + [[n, 40] for n in ids()])
    keys, text = init(program, data.folder, tmp_path)
    plain = text.replace("\n# ", " ")
    assert keys["reports_file"] == "data/reports.csv"
    assert "read_excel" in plain and "0.csv: no column has ids" in plain and "1.csv: it knows 6 of 6 volumes" in plain
    assert "quarantine" not in text


def test_images_beside_masks(program: Program, data: Dataset, tmp_path: Path) -> None:
    """By the names of the folders; where these say nothing, the user decides."""
    voxels = np.zeros((8, 9, 7), "u1")
    images = data.folder / "images"
    images.mkdir()
    for path in data.folder.glob("*.npz"):
        write_npz(data.folder / "Masks" / path.name, {"data": voxels})
        path.rename(images / path.name)
    keys, text = init(program, data.folder, tmp_path)
    assert keys[
        "data_folder"
    ] == "data/volumes/images" and "6 NPZ files in folders that by their name (Masks)" in text.replace("\n# ", " ")
    (tmp_path / NAME).unlink()
    (data.folder / "Masks").rename(data.folder / "second")
    keys, text = init(program, data.folder, tmp_path)
    assert "data_folder" not in keys and "data_folder" in undecided(text)


@pytest.mark.parametrize(
    ("image", "mask", "folder", "pattern"),
    [
        ("images/{}", "masks/{}", "data/volumes/images", None),
        ("images/{}", "labels/{}_seg", "data/volumes/images", None),
        ("images/a/{}", "masks/{}", "data/volumes/images/a", None),
        ("p{1}/images/{0}", "p{1}/masks/{0}", "data/volumes", "*/images/*.npz"),
        ("p{1}/CT/{0}", "p{1}/seg/{0}_seg", "data/volumes", "*/CT/*.npz"),
        ("p{1}/im[1]/s/{0}", "p{1}/GT/{0}", "data/volumes", "*/im[[]1[]]/*/*.npz"),
        ("a/p{1}/images/{0}", "b/p{1}/gts/{0}", "data/volumes", "*/*/images/*.npz"),
        ("p{1}/images/{1}/{0}", "p{1}/masks/x/{0}", "data/volumes", "*/images/*/*.npz"),
    ],
)
def test_a_folder_of_images_in_each(
    program: Program, data: Dataset, tmp_path: Path, image: str, mask: str, folder: str, pattern: str | None
) -> None:
    """A pattern takes the images of several folders, and its reason names the masks; the plan has the images."""
    voxels = np.zeros((8, 9, 7), "u1")
    for at, path in enumerate(sorted(data.folder.glob("*.npz"))):
        for name, target in ((image, ""), (mask, "mask")):
            file = data.folder / (name.format(path.stem, at) + ".npz")
            file.parent.mkdir(parents=True, exist_ok=True)
            if target:
                write_npz(file, {"data": voxels})
            else:
                file.write_bytes(path.read_bytes())
        path.unlink()
    keys, text = init(program, data.folder, tmp_path)
    assert (keys["data_folder"], keys.get("pattern")) == (folder, pattern)
    assert pattern is None or "hold masks, by their names" in text.replace("\n# ", " ")
    plan = json.loads(program.run("plan", "--json", cwd=tmp_path).stdout)
    assert sorted(sample["study_id"] for shard in plan["shards"] for sample in shard["samples"]) == ids()
    assert not any("mask" in sample["source"] for shard in plan["shards"] for sample in shard["samples"])


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({"data": "f4", "mask": "u1"}, None),
        ({"ct": "i2"}, None),
        ({"imgs": "i2", "gts": "u1"}, "imgs"),
        ({"a": "i2", "seg": "u1"}, "a"),
        ({"a": "f4", "b": "f4"}, "?"),
    ],
)
def test_which_array(
    program: Program, data: Dataset, tmp_path: Path, arrays: dict[str, str], found: str | None
) -> None:
    """By default, by its name, as the only one that is no mask; else it is for the user to decide."""
    rng = np.random.default_rng(1)
    for path in data.folder.glob("*.npz"):
        write_npz(path, {name: rng.integers(0, 3, (8, 9, 7)).astype(dtype) for name, dtype in arrays.items()})
    keys, text = init(program, data.folder, tmp_path)
    assert keys.get("array") == (None if found == "?" else found)
    assert ("array" in undecided(text)) == (found == "?")
    assert all(f"'{name}' " in text for name in arrays), "each with dtype and shape"
    if found != "?":
        program.run("plan", cwd=tmp_path)


def rewrite(data: Dataset, write: Callable[[Path, NDArray[Any]], object]) -> None:
    """Write each volume anew; its values are random."""
    for at, path in enumerate(sorted(data.folder.glob("*.npz"))):
        path.unlink()
        write(path, np.random.default_rng(at).integers(0, 2000, (9, 8, 8)).astype("i2"))


@pytest.mark.parametrize(
    ("spacing", "key"),
    [((0.7, 0.7, 2.5), "spacing:WHD"), ((2.5, 0.7, 0.7), "spacing"), ((1, 1, 1), "spacing"), ((1, 2, 3), None)],
)
def test_axes_and_spacing(
    program: Program, data: Dataset, tmp_path: Path, spacing: tuple[float, ...], key: str | None
) -> None:
    """Two equal axes are those of the slices; so are two equal spacings."""
    data.meta.unlink()
    rewrite(data, lambda path, voxels: np.savez(path, voxels=voxels[None], Spacing=np.array(spacing)))
    keys, text = init(program, data.folder, tmp_path)
    assert keys["axes"] == "DHW" and keys["dialect"] == "native" and "array" not in keys
    assert keys.get("spacing_array", "").lower() == (key or "").lower()
    assert ("spacing_array" in undecided(text)) == (key is None)
    program.run("plan", cwd=tmp_path)


def test_npy_files_and_deep_folders(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Whatever depth they are at; NPY files of other things beside NPZ volumes are none."""
    deep = data.folder / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    for path in list(data.folder.glob("*.npz")):
        np.save(deep / f"{path.stem}.feature.npy", np.zeros(5))
        path.rename(deep / path.name)
    (data.folder / "other").mkdir()
    np.save(data.folder / "other" / "x.npy", np.zeros(5))
    keys, _ = init(program, data.folder, tmp_path)
    assert keys["source"] == "npz" and keys["data_folder"] == "data/volumes/a/b/c/d"
    assert json.loads(program.run("plan", "--json", cwd=tmp_path).stdout)["total_samples"] == COUNT
    (tmp_path / NAME).unlink()
    for path in [*deep.glob("*"), data.folder / "other" / "x.npy"]:
        path.unlink()
    for name in ids():
        np.save(deep / f"{name}.npy", np.zeros((8, 8, 9), "f4"))
    keys, text = init(program, data.folder, tmp_path)
    assert "source" not in keys
    assert json.loads(program.run("plan", "--json", cwd=tmp_path).stdout)["total_samples"] == COUNT
    (tmp_path / NAME).unlink()
    np.savez(deep / "scan000.npz", data=np.zeros((8, 8, 9), "f4"))
    _, text = init(program, data.folder, tmp_path)
    assert "source" in undecided(text)


def test_channels_are_the_users_to_choose(program: Program, data: Dataset, tmp_path: Path) -> None:
    """An axis of one is no channel."""
    rewrite(data, lambda path, voxels: np.savez(path, data=np.stack([voxels, voxels])))
    _, text = init(program, data.folder, tmp_path)
    assert undecided(text) == ["channel"]
    (tmp_path / NAME).write_text(text.replace("# channel", "channel"))
    program.run("plan", cwd=tmp_path)


def test_a_table_in_several_files(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Files with the same columns for different volumes are one table; for the same volumes, one is taken."""
    lines = data.labels.read_text().splitlines(keepends=True)
    data.labels.write_text("".join(lines[:3]))
    (data.folder.parent / "more.csv").write_text("".join([lines[0], *lines[3:]]))
    (data.folder.parent / "again.csv").write_text("".join(lines[:2]))
    keys, text = init(program, data.folder, tmp_path)
    assert sorted(keys["labels_file"]) == ["data/labels.csv", "data/more.csv"]
    assert "again.csv: it has such columns as" in text.replace("\n# ", " ")
    assert json.loads(program.run("plan", "--json", cwd=tmp_path).stdout)["total_samples"] == COUNT


def test_values_that_are_hu_already(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Slope and intercept of the table would shift them."""
    _, text = init(program, data.folder, tmp_path)
    assert "make HU of the values of 6 of 6 volumes" in text.replace("\n# ", " ")
    (tmp_path / NAME).unlink()
    hu = np.random.default_rng(0).choice([-1000.0, 40.0], (8, 9, 7)).astype("f4")
    for path in data.folder.glob("*.npz"):
        write_npz(path, {"data": hu})
    keys, _ = init(program, data.folder, tmp_path)
    assert keys["rescale"] == "none"
    (tmp_path / NAME).unlink()
    set_meta(data, {name: (1, 0 if at else -1024, "[0.7, 0.7]", 1.5) for at, name in enumerate(ids())})
    init(program, data.folder, tmp_path)


def test_ids_in_columns_of_other_names(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Each table its own; one that has another's column as well is the user's to mend."""
    names = ids()
    write_csv(data.labels, [["case", "a", "b"]] + [[n, 1, 0] for n in names])
    write_csv(
        data.reports, [["case", "acc", "Findings"]] + [[f"{at:02d}-x", n, FINDINGS] for at, n in enumerate(names)]
    )
    keys, _ = init(program, data.folder, tmp_path)
    assert sorted(keys["id_column"]) == ["VolumeName", "acc", "case"]
    assert keys["id_column"].index("acc") < keys["id_column"].index("case")
    assert json.loads(program.run("plan", "--json", cwd=tmp_path).stdout)["total_samples"] == COUNT
    (tmp_path / NAME).unlink()
    write_csv(data.labels, [["case", "acc", "a", "b"]] + [[n, at % 2, 1, 0] for at, n in enumerate(names)])
    keys, text = init(program, data.folder, tmp_path)
    assert "id_column" not in keys and "id_column" in undecided(text)


def test_hostile_names(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Names with quotes, line ends and what a terminal obeys make no second key and no second line."""
    base = data.folder.parent
    evil = 'a"\nstrict = true\n\x1b[2J\\'
    data.labels.rename(base / f"{evil}.csv")
    write_csv(base / f"{evil}.csv", [["VolumeName", evil, "b"]] + [[n, at % 2, 0] for at, n in enumerate(ids())])
    done = program.run("init", data.folder, "--yes", cwd=tmp_path)
    keys = tomllib.loads((tmp_path / NAME).read_text())
    assert keys["labels_file"] == f"data/{evil}.csv" and "strict" not in keys
    assert "\x1b" not in done.stdout + done.stderr
    assert json.loads(program.run("plan", "--json", cwd=tmp_path).stdout)["label_names"][1] == "b"


def test_what_cannot_be_read_is_named(program: Program, data: Dataset, open_folder: Path) -> None:
    """A folder of somebody else, such as `lost+found`, and a table: the rest is found all the same."""
    base = open_folder / "data"
    data.folder.parent.rename(base)
    (base / "lost").mkdir(mode=0o000)
    (base / "secret.csv").write_text("a,b\n1,2\n")
    (base / "secret.csv").chmod(0o000)
    options: dict[str, Any] = {} if os.geteuid() else {"user": NOBODY, "group": NOBODY}
    open_folder.chmod(0o777)
    text = program.run("init", base, "--yes", cwd=open_folder, **options).stdout.replace("\n# ", " ")
    (base / "lost").chmod(0o700)
    assert "lost: cannot list the folder" in text and "secret.csv: cannot read the table" in text
    assert 'data_folder = "data/volumes"' in text


def test_no_volume_and_no_table(program: Program, tmp_path: Path) -> None:
    """The message of one, and the keys to fill in of the other."""
    (tmp_path / "x").mkdir()
    assert "no NPZ, NPY or NIfTI file" in program.refuses("init", tmp_path / "x", "--yes", cwd=tmp_path)
    assert "list the folder" in program.refuses("init", tmp_path / "y", "--yes", cwd=tmp_path)
    write_npz(tmp_path / "x" / "deep" / "er" / "v.npz", {"data": np.zeros((2, 3, 4), "f4")})
    (tmp_path / "x" / "loop").symlink_to(tmp_path / "x")
    keys, text = init(program, tmp_path / "x", tmp_path)
    assert keys == {"data_folder": "x/deep/er"} and "labels_file: no table" in text
    program.run("plan", cwd=tmp_path)

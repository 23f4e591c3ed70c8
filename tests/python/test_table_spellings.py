"""One data set, its tables written in many ways: order of rows and columns, delimiter, encoding, spelling of ids. The
plan is always the same."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from harness import Program
from make_dataset import Dataset
from small_datasets import write_dataset

VARIANTS = 72
COUNT = 7
CLASSES = ["Nodule", "Edema, mild", "x*y"]
TEXTS = ["Findings_EN", "Impressions_EN"]
META = ["RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing"]
Row = dict[str, str]

DELIMITERS = [",", ";", "\t", "|"]
LINE_ENDS = ["\n", "\r\n", "\r"]
SPELLINGS: list[Callable[[str], str]] = [
    str,
    *(lambda name, suffix=suffix: name + suffix for suffix in (".nii.gz", ".nii", ".npz", ".npy", ".dcm")),
    lambda name: f"train/{name}/{name}.nii.gz",
    lambda name: f"C:\\scans\\{name}.dcm",
]
ENCODINGS: list[Callable[[str], bytes]] = [
    lambda text: text.encode(),
    lambda text: text.encode("utf-8-sig"),
    lambda text: text.encode("utf-16"),
    lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    lambda text: text.encode("utf-16-le"),
    lambda text: gzip.compress(text.encode()),
    lambda text: gzip.compress(text.encode("utf-16")),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Seven tiny volumes."""
    voxels = np.arange(60, dtype="f4").reshape(3, 4, 5)
    volumes = {f"v{n}.npz": {"data": voxels + n} for n in range(COUNT)}
    return write_dataset(tmp_path_factory.mktemp("spellings"), volumes)


def rows() -> list[Row]:
    """The values of all columns, and of some that have no role, by study."""
    found = []
    for n in range(COUNT):
        texts = [f'Café "{n}"; a, b | c\tof\nfour', "" if n == 2 else "ﬀ 漢 🫁"]
        meta = ["1", "-1024", "[0.7, 0.7]", str(1 + n / 3)]
        labels = [str(n % 2), "True" if n else "no", "-1"]
        values = zip([*TEXTS, *META, *CLASSES], [*texts, *meta, *labels], strict=True)
        found.append({"VolumeName": f"v{n}", **dict(values), "Age": f"{n:03d}Y", "note": f"N{n}"})
    return found


class Writer:
    """Writes tables in a way that is drawn anew for each."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.drawn: list[int] = []

    def draw(self, choices: Sequence[object]) -> int:
        """The place of one of these."""
        self.drawn.append(int(self.rng.integers(len(choices))))
        return self.drawn[-1]

    def write(self, path: Path, fixed: list[str], free: list[str]) -> None:
        """A table with these columns; `fixed` ones keep their order."""
        places = sorted(self.rng.choice(len(fixed) + len(free), len(fixed), replace=False).tolist())
        others = iter(self.rng.permutation(np.array(free, dtype=object)).tolist())
        kept = iter(fixed)
        columns = [next(kept if at in places else others) for at in range(len(fixed) + len(free))]
        spelling, delimiter = SPELLINGS[self.draw(SPELLINGS)], DELIMITERS[self.draw(DELIMITERS)]
        quoting: Literal[0, 1] = csv.QUOTE_ALL if self.rng.random() < 0.3 else csv.QUOTE_MINIMAL
        line_end = LINE_ENDS[self.draw(LINE_ENDS)]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(
            text, columns, delimiter=delimiter, quoting=quoting, lineterminator=line_end, extrasaction="ignore"
        )
        writer.writeheader()
        content = rows()
        for at in self.rng.permutation(len(content)).tolist():
            writer.writerow(content[at] | {"VolumeName": spelling(content[at]["VolumeName"])})
        path.write_bytes(ENCODINGS[self.draw(ENCODINGS)](text.getvalue()))


def digest(program: Program, data: Dataset, classes: bool) -> str:
    """That of the plan."""
    flags = ["--label-columns", 'Nodule,"Edema, mild",x*y..x*y'] if classes else []
    found: str = json.loads(program.run("plan", *data.flags(), *flags, "--json").stdout)["plan_digest"]
    return found


def test_every_way_to_write_the_tables(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Three tables, or one for all roles with the classes among other columns."""
    found = set()
    drawn = set()
    for seed in range(VARIANTS):
        writer = Writer(seed)
        reports, meta, labels = (tmp_path / f"{seed}-{name}" for name in ("r", "m", "l"))
        if one := seed % 3 == 0:
            reports = meta = labels
            writer.write(labels, CLASSES, ["VolumeName", *TEXTS, *META, "Age", "note"])
        else:
            writer.write(labels, CLASSES, ["VolumeName"])
            writer.write(meta, [], ["VolumeName", *META, "Age"])
            writer.write(reports, [], ["VolumeName", *TEXTS, "note"])
        found.add(digest(program, Dataset(data.folder, reports, meta, labels), one))
        drawn.add(tuple(writer.drawn))
    assert len(found) == 1, "the plan depends on how a table is written"
    assert len(drawn) > VARIANTS // 2, "the variants differ"


def test_another_value_is_another_plan(program: Program, data: Dataset, tmp_path: Path) -> None:
    """Else the test above would hold for a digest of nothing."""
    table, other = tmp_path / "all", tmp_path / "other"
    Writer(0).write(table, CLASSES, ["VolumeName", *TEXTS, *META])
    Writer(0).write(other, CLASSES[::-1], ["VolumeName", *TEXTS, *META])
    right = digest(program, Dataset(data.folder, table, table, table), True)
    flags = ["--label-columns", 'x*y..x*y,"Edema, mild",Nodule']
    swapped = json.loads(
        program.run("plan", *Dataset(data.folder, other, other, other).flags(), *flags, "--json").stdout
    )
    assert swapped["plan_digest"] != right, "the order of the classes counts"

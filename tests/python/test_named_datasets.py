"""Data sets as they are published or exported, made small: each from `init` to a step of training with the loader.

The names of files, arrays and columns are the published ones; the values are made up."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ctreport_webdataset import CTReportWebDataset
from harness import Program, digest, shards
from make_dataset import Options, make_dataset
from numpy.typing import NDArray

COUNT = 6
SIZE = (12, 10, 8)
STEPS: dict[str, Any] = {"shape": (8, 8, 8), "spacing": (1.0, 1.0, 1.5)}
TEXT = "No nodules are seen in both lungs."


@dataclass(frozen=True)
class Found:
    """A data set as `init` left it: the keys that it wrote, and the file."""

    keys: dict[str, Any]
    file: Path

    def flags(self) -> list[str]:
        """The arguments that name it."""
        return ["--dataset", str(self.file)]


def init(program: Program, base: Path, folder: str) -> Found:
    """What `init` makes of a folder, without a question."""
    program.run("init", folder, "--yes", cwd=base)
    file = base / "ctwds.toml"
    return Found(tomllib.loads(file.read_text(encoding="utf-8")), file)


def scan(seed: int) -> NDArray[Any]:
    """HU of a small thorax: air, and tissue."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(SIZE) < 0.5, -1000, 40) + rng.integers(-20, 20, SIZE)


def write_volumes(folder: Path, volumes: dict[str, dict[str, Any]]) -> None:
    """NPZ files, by name."""
    folder.mkdir(parents=True)
    for name, arrays in volumes.items():
        np.savez_compressed(folder / f"{name}.npz", **arrays)


def train_a_step(shards: Path, classes: int, **options: Any) -> list[str]:
    """One step of a small 3-D CNN on the labels, or on the voxels where there are none; the texts that came along."""
    torch.manual_seed(7)
    data = CTReportWebDataset(str(shards), shuffle=False, **STEPS, **options)
    volumes, texts, labels, names, _ = next(iter(data.make_loader(batch_size=COUNT, num_workers=0)))
    assert len(names) == COUNT and volumes.isfinite().all() and volumes.std() > 0.1
    wanted = (
        torch.from_numpy(np.clip(np.nan_to_num(labels), 0, 1)) if classes else volumes.mean(dim=(1, 2, 3, 4))[:, None]
    )
    assert wanted.shape == (COUNT, classes or 1)
    model = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(2 * 6**3, classes or 1))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    before = [parameter.clone() for parameter in model.parameters()]
    loss = torch.nn.functional.mse_loss(model(volumes), wanted)
    loss.backward()
    optimiser.step()
    assert math.isfinite(loss.item())
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    return texts


def test_ct_rate(program: Program, tmp_path: Path) -> None:
    """The shards are, to the byte, those of the four flags."""
    data = make_dataset(Options(tmp_path / "CT-RATE", volumes=COUNT, size=(24, 20, 12), strays=False))
    found = init(program, data.folder.parent, data.folder.name)
    assert set(found.keys) >= {"data_folder", "reports_file", "meta_file", "labels_file"} and "array" not in found.keys
    made = [
        program.run("materialize", *flags, "--output-dir", tmp_path / str(at))
        for at, flags in enumerate([found.flags(), data.flags()])
    ]
    assert len(made) == 2
    files = [[(path.name, digest(path)) for path in shards(tmp_path / name)] for name in ("0", "1")]
    assert files[0] == files[1] and files[0]
    with program.mounted(found) as point:
        train_a_step(point, 18)


def test_one_combined_table(program: Program, tmp_path: Path) -> None:
    """An export with everything in one table, beside what no training needs."""
    names = [f"A{1000 + n}" for n in range(COUNT)]
    write_volumes(tmp_path / "images", {name: {"data": (scan(n) + 1024).astype("f4")} for n, name in enumerate(names)})
    pd.DataFrame(
        {
            "PatientAge": [f"0{40 + n}Y" for n in range(COUNT)],
            "AccessionNumber": names,
            "StudyDate": [20190401 + n for n in range(COUNT)],
            "Report": [TEXT] * COUNT,
            "Nodule": [n % 2 == 0 for n in range(COUNT)],
            "Pleural effusion": [n % 3 == 0 for n in range(COUNT)],
            "PixelSpacing": ["['0.7', '0.7']"] * COUNT,
            "SliceThickness": [1.5] * COUNT,
            "RescaleSlope": [1] * COUNT,
            "RescaleIntercept": [-1024] * COUNT,
        }
    ).to_csv(tmp_path / "export.csv")
    found = init(program, tmp_path, "images")
    assert {found.keys[f"{role}_file"] for role in ("reports", "meta", "labels")} == {"export.csv"}
    assert found.keys["id_column"] == "AccessionNumber" and found.keys["text_columns"] == ["Report"]
    assert found.keys["label_columns"] == ["Nodule", "Pleural effusion"]
    with program.mounted(found) as point:
        assert train_a_step(point, 2) == [TEXT] * COUNT


def test_semicolons_and_utf_16(program: Program, tmp_path: Path) -> None:
    """As a spreadsheet in Europe exports tables; ids have another suffix."""
    names = [f"Fall {n:02d}" for n in range(COUNT)]
    write_volumes(
        tmp_path / "CT" / "npz", {name: {"data": (scan(n) + 1024).astype("i2")} for n, name in enumerate(names)}
    )
    ids = [f"{name}.dcm" for name in names]
    tables = {
        "Befunde": {
            "Untersuchung": ids,
            "Findings": ["Kein Rundherd; beide Lungen frei, größter Lymphknoten 7 mm"] * COUNT,
        },
        "Technik": {
            "Untersuchung": ids,
            "Rescale Slope": [1.0] * COUNT,
            "Rescale Intercept": [-1024.0] * COUNT,
            "Pixel Spacing": [0.7] * COUNT,
            "Spacing Between Slices": [1.5] * COUNT,
        },
        "Befund ja nein": {"Untersuchung": ids, "Rundherd": ["yes", "no"] * 3, "Erguss": ["no"] * COUNT},
    }
    for name, columns in tables.items():
        pd.DataFrame(columns).sample(frac=1, random_state=1).to_csv(
            tmp_path / "CT" / f"{name}.txt", sep=";", encoding="utf-16", index=False
        )
    found = init(program, tmp_path, "CT")
    assert found.keys["data_folder"] == "CT/npz" and found.keys["id_column"] == "Untersuchung"
    assert found.keys["labels_file"] == "CT/Befund ja nein.txt"
    with program.mounted(found) as point:
        assert "größter" in train_a_step(point, 2)[0]

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
    return rng.choice([-1000, 40, 300], SIZE) + rng.integers(-20, 20, SIZE)


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
    assert len(names) == COUNT and volumes.isfinite().all() and volumes.std() > 0.01
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


def test_rad_chestct(program: Program, tmp_path: Path) -> None:
    """Arrays `ct` of HU with slices first, ids without a suffix, names of classes with a star, no reports."""
    names = [f"trn{n:05d}" for n in range(COUNT)]
    hu = {name: np.moveaxis(np.clip(scan(n)[:, :10], -1000, 1000), 2, 0).astype("i2") for n, name in enumerate(names)}
    write_volumes(tmp_path / "RAD-ChestCT" / "npz", {name: {"ct": np.resize(hu[name], (8, 10, 10))} for name in names})
    tables = tmp_path / "RAD-ChestCT"
    classes = [f"{finding}*{place}" for finding in ("nodule", "opacity") for place in ("left_lung", "right_lung")]
    labels = {"NoteAcc_DEID": names} | {name: [(n + at) % 2 for n in range(COUNT)] for at, name in enumerate(classes)}
    pd.DataFrame(labels).to_csv(tables / "imgtrain_Abnormality_and_Location_Labels.csv", index=False)
    pd.DataFrame(
        {
            "VolumeAcc_DEID": [f"{name}.npz" for name in names],
            "NoteAcc_DEID": names,
            "MRN_DEID": [f"pt{n:05d}" for n in range(COUNT)],
            "Set_Assigned": ["train"] * COUNT,
            "orig_slope": [1.0] * COUNT,
            "orig_inter": [-1024.0] * COUNT,
            "orig_yxspacing": [0.7] * COUNT,
            "orig_zdiff": [0.625] * COUNT,
            "final_spacing": [0.8] * COUNT,
            "PatientSex": ["F", "M"] * 3,
        }
    ).to_csv(tables / "CT_Scan_Metadata_Complete_35747.csv", index=False)
    found = init(program, tmp_path, "RAD-ChestCT")
    assert "reports_file" not in found.keys and "labels_file" in found.keys
    assert found.keys["meta_columns"] == [
        "slope=orig_slope",
        "intercept=orig_inter",
        "xy=final_spacing",
        "z=final_spacing",
    ]
    assert (found.keys["rescale"], found.keys["dialect"], found.keys["axes"]) == ("none", "native", "DHW")
    with program.mounted(found) as point:
        assert train_a_step(point, 4, axes="DHW") == [""] * COUNT


def test_merlin(program: Program, tmp_path: Path) -> None:
    """One table of reports, labels of 0, 1 and -1, ids of NIfTI files, no metadata."""
    names = [f"AC{n:06x}" for n in range(4000, 4000 + COUNT)]
    base = tmp_path / "merlinabdominalctdataset"
    write_volumes(base / "merlin_data", {f"{name}.nii": {"data": scan(n).astype("i2")} for n, name in enumerate(names)})
    reports = {"study id": names, "Findings": [TEXT] * COUNT, "Split": ["train"] * COUNT, "Few Shot": [0, 1] * 3}
    pd.DataFrame(reports).to_csv(base / "reports_final.csv", index=False)
    labels = {"study id": names, "hepatomegaly": [0, 1, -1] * 2, "renal_cyst": [-1] * COUNT}
    pd.DataFrame(labels).to_csv(base / "zero_shot_findings_disease_cls.csv", index=False)
    found = init(program, tmp_path, base.name)
    assert found.keys["id_column"] == "study id" and "meta_file" not in found.keys
    assert found.keys["text_columns"] == ["Findings"] and "label_columns" not in found.keys
    # Without a table of slopes and spacings, the user says that the values are HU, and that nothing is resampled.
    flags = ("--volume", "preprocessed", "--rescale", "none", "--resample", "never", "--shape", "8,8,8")
    with program.mounted(found, *flags) as point:
        assert train_a_step(point, 2) == [TEXT] * COUNT


def test_medsam(program: Program, tmp_path: Path) -> None:
    """Image, mask and spacing in one NPZ, and no table; 8 bits hold the window of -160 to 240 HU."""
    volumes = {}
    for n in range(COUNT):
        window = ((np.clip(scan(n), -160, 240) + 160) / 400 * 255).astype("u1")
        image = np.resize(np.moveaxis(window, 2, 0), (8, 10, 10))
        volumes[f"CT_Abd_case{n}"] = {"imgs": image, "gts": image // 100, "spacing": np.array([0.8, 0.8, 2.5])}
    write_volumes(tmp_path / "npz", volumes)
    found = init(program, tmp_path, "npz")
    assert (found.keys["array"], found.keys["axes"], found.keys["spacing_array"]) == ("imgs", "DHW", "spacing:WHD")
    text = found.file.read_text()
    assert "# rescale = " in text, "what 8 bits stand for is the user's to say"
    assert '# also = ["gts=gts"]' in text, "and so is which arrays are wanted beside the volume"
    found.file.write_text(text.replace("# rescale = ", "rescale = ").replace("# also = ", "also = "))
    with program.mounted(found, "--volume", "rescaled") as point:
        assert train_a_step(point, 0) == [""] * COUNT
        options: dict[str, Any] = {"axes": "HWD", "also": "gts", "shape": (8, 8, 6), "spacing": (0.8, 0.8, 2.5)}
        samples: Any = CTReportWebDataset(point, shuffle=False, **options)
        for _, _, _, study, _, extras in samples:
            right = np.moveaxis(volumes[study]["gts"], 0, 2)[1:-1, 1:-1, 1:-1]
            assert (extras["gts"][0].numpy().transpose(1, 2, 0) == right).all(), study


def test_an_export_without_labels(program: Program, tmp_path: Path) -> None:
    """Reports and metadata alone."""
    names = [f"case_{n}" for n in range(COUNT)]
    write_volumes(
        tmp_path / "export" / "a" / "b", {n: {"data": (scan(at) + 1024).astype("i2")} for at, n in enumerate(names)}
    )
    pd.DataFrame({"case": names, "impression": [TEXT] * COUNT, "findings": [TEXT[::-1]] * COUNT}).to_csv(
        tmp_path / "export" / "report.csv.gz", index=False
    )
    meta = {"case": names, "slope": [1] * COUNT, "intercept": [-1024] * COUNT, "xy_spacing": ["(0.7, 0.7)"] * COUNT}
    pd.DataFrame(meta | {"z_spacing": [1.5] * COUNT}).to_csv(tmp_path / "export" / "m.tsv", sep="\t", index=False)
    found = init(program, tmp_path, "export")
    assert found.keys["text_columns"] == ["findings", "impression"] and "labels_file" not in found.keys
    with program.mounted(found) as point:
        assert train_a_step(point, 0) == [f"{TEXT[::-1]}\n{TEXT}"] * COUNT

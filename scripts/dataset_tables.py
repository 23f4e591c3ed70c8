"""The three tables of a CT-RATE-like data set: reports, metadata and labels, with everything that makes them hard to
read: quoted commas, quotes and newlines, text outside ASCII, missing values in several spellings, numbers with and
without a decimal point, and rows of volumes that do not exist."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REPORT_COLUMNS = ["VolumeName", "ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN"]

META_COLUMNS = (
    "VolumeName Manufacturer SeriesDescription ManufacturerModelName PatientSex PatientAge ReconstructionDiameter "
    "DistanceSourceToDetector DistanceSourceToPatient GantryDetectorTilt TableHeight RotationDirection ExposureTime "
    "XRayTubeCurrent Exposure FilterType GeneratorPower FocalSpots ConvolutionKernel PatientPosition RevolutionTime "
    "SingleCollimationWidth TotalCollimationWidth TableSpeed TableFeedPerRotation SpiralPitchFactor "
    "DataCollectionCenterPatient ReconstructionTargetCenterPatient ExposureModulationType CTDIvol "
    "ImagePositionPatient ImageOrientationPatient SliceLocation SamplesPerPixel PhotometricInterpretation Rows Columns "
    "XYSpacing RescaleIntercept RescaleSlope RescaleType NumberofSlices ZSpacing StudyDate"
).split()

LABEL_COLUMNS = [
    "Medical material",
    "Arterial wall calcification",
    "Cardiomegaly",
    "Pericardial effusion",
    "Coronary artery wall calcification",
    "Hiatal hernia",
    "Lymphadenopathy",
    "Emphysema",
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Pleural effusion",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Consolidation",
    "Bronchiectasis",
    "Interlobular septal thickening",
]

FINDINGS = [
    "Trachea and both main bronchi are open. Heart size is normal; no pericardial effusion.",
    'A nodule, 4 × 6 mm, is seen in the right lower lobe ("ground-glass").',
    "Mediastinal lymph nodes:\n- paratracheal, 7 mm\n- subcarinal, 9 mm",
    "Sağ akciğer üst lobda fibrotik değişiklikler, ≥ 3 cm; “tree-in-bud” 🫁.",
    "Not given.",
    "Bilateral pleural effusion (left > right), with atelectasis of the adjacent parenchyma.\r\nSpine: degenerative.",
]
IMPRESSIONS = [
    "No pathology was detected.",
    "Nodule in the right lower lobe, follow-up is recommended.",
    'Emphysema, "mild"; bronchiectasis.',
    "Not given.",
    "Ateroskleroz, kalp boyutu sınırda — kontrol önerilir.",
]
MISSING = ["", "nan", "NA", "N/A", "null"]  # spellings that pandas reads as a missing value
XY_SPACINGS = ["0.683594", "0.341796875", "0.9765625", "0.7871090000000001"]
Z_SPACINGS = ["1.5", "1", "0.75", "1.25", "0.7999999999999545", "3.0"]


@dataclass(frozen=True)
class Study:
    """A row of the tables."""

    index: int
    study_id: str
    shape: tuple[int, int, int]

    @property
    def volume_name(self) -> str:
        """The key of the tables: the NIfTI file that the NPZ was made from."""
        return self.study_id + ".nii.gz"


def intercept_of(index: int) -> float:
    """RescaleIntercept of volume `index`: CT-RATE has -8192 for three volumes in ten, and -1024 otherwise."""
    return -8192.0 if index % 10 in (2, 5, 9) else -1024.0


def report_row(study: Study, impression_missing: bool) -> list[str]:
    """Reports; the reconstructions of one scan share their text, as in CT-RATE."""
    turn = sum(map(ord, study.study_id.rsplit("_", 1)[0]))
    impression = IMPRESSIONS[turn % len(IMPRESSIONS)]
    if impression_missing:
        impression = MISSING[study.index % len(MISSING)]
    technique = "Non-contrast images were taken in the axial plane, section thickness 1.5 mm."
    return [study.volume_name, "Not given.", technique, FINDINGS[turn % len(FINDINGS)], impression]


def meta_row(study: Study, zspacing_missing: bool) -> list[str]:
    """Metadata; the columns that nobody reads are partly filled, some with commas and quotes."""
    spacing = XY_SPACINGS[study.index % len(XY_SPACINGS)]
    values = {
        "VolumeName": study.volume_name,
        "Manufacturer": ["Siemens Healthineers", "PNMS", "Philips, Best"][study.index % 3],
        "SeriesDescription": 'Thorax 1.50 "Br40" S3',
        "PatientSex": "FM"[study.index % 2],
        "PatientAge": f"{30 + study.index % 50:03d}Y",
        "PatientPosition": "HFS",
        "SamplesPerPixel": "1",
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": str(study.shape[0]),
        "Columns": str(study.shape[1]),
        "XYSpacing": f"[{spacing}, {spacing}]",
        "RescaleIntercept": f"{intercept_of(study.index):.{study.index % 2}f}",
        "RescaleSlope": ["1.0", "1"][study.index % 2],
        "RescaleType": "HU",
        "NumberofSlices": str(study.shape[2]),
        "ZSpacing": "" if zspacing_missing else Z_SPACINGS[study.index % len(Z_SPACINGS)],
        "StudyDate": "20190412",
    }
    return [values.get(column, "") for column in META_COLUMNS]


def write_table(path: Path, header: list[str], rows: list[list[str]], bom: bool) -> None:
    """Write one CSV file with quotes only where they are needed."""
    with path.open("w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def spread(count: int, among: int) -> set[int]:
    """`count` indices, evenly spread over `among`."""
    return {(2 * i + 1) * among // (2 * count) for i in range(count)}


def write_tables(
    studies: list[Study],
    reports: Path,
    meta: Path,
    labels: Path,
    *,
    seed: int,
    bom: bool,
    missing_zspacing: int,
    real: int,
) -> None:
    """Write the three tables, each in an order of its own; the first `real` studies have a volume."""
    rng = np.random.default_rng([seed, 1_000_000])
    no_impression = spread(max(1, round(real * 0.03)), real)
    no_zspacing = {(index + 1) % real for index in spread(missing_zspacing, real)}  # other studies than those above
    report_rows = [report_row(study, study.index in no_impression) for study in studies]
    meta_rows = [meta_row(study, study.index in no_zspacing) for study in studies]
    flags = rng.integers(0, 2, (len(studies), len(LABEL_COLUMNS)))
    # A classifier's probabilities are labels as well: not only 0 and 1 must survive.
    label_rows = [
        [study.volume_name] + [str(flag) if flag else ("0", "0.0", "0.1")[study.index % 3] for flag in row]
        for study, row in zip(studies, flags, strict=True)
    ]
    write_table(reports, REPORT_COLUMNS, report_rows, bom)
    write_table(meta, META_COLUMNS, meta_rows[::-1], bom)
    order = rng.permutation(len(label_rows))
    write_table(labels, ["VolumeName", *LABEL_COLUMNS], [label_rows[i] for i in order], bom)

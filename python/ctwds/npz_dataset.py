"""The data set of NPZ, NPY or NIfTI files."""

from __future__ import annotations

import contextlib
import os
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from .axes import AXES, ArrayChoice, axes_option, oriented
from .basics import DIALECTS, SHAPE, SPACING, AnyPath, Pair, Rescale, spread
from .dataset_file import DatasetFile
from .epoch_sampler import EpochSampler
from .errors import LoaderError, choice
from .files import NIFTI, SOURCES, find_volumes, study_of
from .hounsfield import LOOK, LOOKS_IN_ALL, LOOKS_OF_EACH, Unit, decide, look_at, table_pair
from .nifti import nifti_header, open_nifti
from .npz import read_spacing, read_volume
from .preprocess import Sample, Steps
from .spacing import Spacings, slope_and_intercept, voxel_spacing
from .studies import Rows, Study, StudyTables
from .tables import Tables, files_of
from .torch_loader import Epochs


def spacing_option(text: str | None) -> tuple[str | None, str | None]:
    """The name of the array with the spacing, and the order of its axes if it is given: "spacing:WHD"."""
    name, _, order = (text or "").rpartition(":")
    return (name, order.upper()) if order.upper() in AXES else (text, None)


class CTReportDataset(Epochs):
    """The samples of NPZ, NPY or NIfTI files and of tables of reports, metadata and labels, in the order of the files'
    paths. A table is a file, a list of files whose rows are appended, or None: texts are empty without reports, labels
    have no class without theirs, and without metadata arrays must hold HU at their spacing already.
    A volume is the array `array`, or by default `data`, `volume`, `arr_0`, or the only one of three dimensions; axes of
    length 1 are taken away down to three, and of one axis more `channel` takes number N: "N", "first:N" or "last:N".
    `source` ("npz", "npy", "nifti") and `pattern` (one or several, relative to the folder) choose the files. `axes` is
    the order of the arrays' axes ("DHW"), and `spacing_array` the array of each NPZ file with the spacing of these axes
    in mm, or of others ("spacing:WHD"), in place of the table's columns.
    NIfTI files (`.nii`, `.nii.gz`) hold what nibabel's `get_fdata` gives, as float32: where their header scales, slope
    and intercept of the table count as applied. `spacing_from` says whose spacing is taken: the "table"'s (the default
    if there is one) or the "header"'s.
    `dialect` says what the arrays hold, if their names do not: "native" (stored values or HU at the scanner's spacing:
    `data`), "hu" (HU, resampled: `volume`), "normalized" (HU / 1000, resampled, axes D, H, W: `arr_0`).
    `dataset` is a `ctwds.toml`, as ctwds-fs reads it: folder, tables, their columns and all of the above. Arguments win
    over it. Needs Python 3.11.

    `data[n]` is the tuple (volume, text, labels, study id, embedding): a tensor (1, D, H, W) of `dtype` in [-1, 1],
    with the `shape` (height, width, depth) and the `spacing` (mm, in the same order); a string; a float32 array
    (classes,); a string; an empty tensor. LoaderError names a file or a table that cannot be used, the reason and the
    remedy, when the data set is made or when the sample is read."""

    def __init__(
        self,
        data_folder: AnyPath | None = None,
        reports_file: Tables = None,
        meta_file: Tables = None,
        labels: Tables = None,
        mode: str = "train",
        use_embedding: bool = False,
        *,
        shuffle: bool = True,
        dtype: torch.dtype = torch.float32,
        shape: Sequence[int] = SHAPE,
        spacing: Sequence[float] = SPACING,
        rescale: Rescale = "auto",
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: str = "pad",
        dialect: str | None = None,
        array: str | None = None,
        channel: int | str | None = None,
        source: str = "auto",
        pattern: str | Sequence[str] = (),
        axes: str | None = None,
        spacing_array: str | None = None,
        spacing_from: str | None = None,
        dataset: AnyPath | None = None,
        with_meta: bool = False,
    ) -> None:
        super().__init__(shuffle, mode, seed, rank, world_size, uneven)
        file = DatasetFile(dataset)
        data_folder, reports_file, meta_file, labels = file.paths(data_folder, reports_file, meta_file, labels)
        array, dialect, axes, spacing_array, spacing_from = file.texts_or(
            array=array, dialect=dialect, axes=axes, spacing_array=spacing_array, spacing_from=spacing_from
        )
        channel = file.keys.get("channel") if channel is None else channel
        source = str(file.keys.get("source", source)) if source == "auto" else source
        patterns = [pattern] if isinstance(pattern, str) and pattern else pattern or file.texts("pattern")
        rescale = file.rescale() if rescale == "auto" else rescale
        self.steps = Steps(shape, file.spacing(spacing, shape), dtype, rescale, use_embedding, with_meta)
        self.dialect = choice("dialect", dialect, (None, *DIALECTS))
        self.choice = ArrayChoice(array, None if channel is None else str(channel), use_embedding)
        self.axes = axes_option(axes)
        self._spacing = spacing_option(spacing_array)
        self.spacing_from = choice("spacing_from", spacing_from, (None, "table", "header"))
        in_table = spacing_array is None and self.spacing_from != "header"  # the spacing
        tables = StudyTables(file, reports_file, meta_file, labels, in_table)
        selection = file.selection()
        self.studies: list[Study] = []
        self._spacings = Spacings()
        unusable: list[str] = []
        for name in find_volumes(data_folder, choice("source", source, tuple(SOURCES)), patterns):
            study, path = study_of(name), os.path.join(data_folder, name)
            rows = tables.rows_of(study, name)
            if rows is None or not selection.has(study):
                continue
            found = self._study(study, path, file, tables, rows)
            if isinstance(found, LoaderError):
                unusable.append(f"{study}: {found}")
            elif found:
                self.studies.append(found)
        if different := self._spacings.warning():
            warnings.warn(different, stacklevel=2)
        if unusable:
            files = ", ".join(os.fspath(path) for path in files_of(meta_file)) or os.fspath(data_folder)
            warnings.warn(f"{files}: {len(unusable)} volumes are left out (for example {unusable[0]})", stacklevel=2)
        if not self.studies:
            what = f"no volume is in all tables{selection.words()}; compare their {' or '.join(tables.named.ids)}"
            raise LoaderError(f"{os.fspath(data_folder)}: {what} with the files")
        self._decided = self._look_at_volumes()

    def _study(
        self, study: str, path: str, file: DatasetFile, tables: StudyTables, rows: Rows
    ) -> Study | LoaderError | None:
        """A study with its metadata, text and labels; None where ctwds-fs leaves it out, or why it is unusable."""
        meta = tables.meta_of(study, rows)
        is_incomplete = tables.is_incomplete(meta)
        try:
            if self._spacing[0] is not None:
                meta |= self._spacing_of(path)
            meta |= self._of_header(path, meta, tables.metas is not None)
        except LoaderError as error:
            return error
        values = tables.labels_of(rows)
        if values is None or (is_incomplete and file.leaves_out(self._needs_meta, path)):
            return None
        try:
            slope_and_intercept(meta, self.steps.rescale), voxel_spacing(meta)
        except LoaderError as error:
            if self._needs_meta(path):
                if tables.metas is None:
                    raise LoaderError(f"{path}: its array is to be resampled, and there is no meta_file") from error
                return error
        return Study(path, meta, tables.text_of(rows), values)

    def _look_at_volumes(self) -> dict[Pair, Rescale]:
        """What makes HU of the values, by a look at the volumes that ctwds-fs looks at."""
        if self.steps.rescale != "auto" or self.steps.use_embedding or self.dialect not in (None, "native"):
            return {}
        groups: dict[Pair, list[Study]] = {}
        for study in self.studies:
            groups.setdefault(table_pair(study.meta), []).append(study)
        chosen = [(pair, study) for pair, studies in groups.items() for study in spread(studies, LOOKS_OF_EACH)]
        shown: dict[Pair, list[tuple[str, str]]] = {}
        for pair, study in chosen[:LOOKS_IN_ALL]:
            with contextlib.suppress(LoaderError):  # loading it says why
                values, dialect = self._load(study.path, LOOK)
                what = look_at(values, pair) if dialect == "native" else ""
                shown.setdefault(pair, []).append((study.meta["study_id"], what))
        return decide(shown)

    def _spacing_of(self, path: str) -> dict[str, Any]:
        """The spacing that an array of the file gives, as the table spells it."""
        name, order = self._spacing
        numbers = read_spacing(path, name or "")
        if order is None:
            order = self.axes or ("DHW" if self._load(path, 8)[1] == "normalized" else "HWD")
        height, width, depth = (numbers[order.index(axis)] for axis in "HWD")
        return {"XYSpacing": str([height, width]), "ZSpacing": depth}

    def _of_header(self, path: str, meta: Mapping[str, Any], has_table: bool) -> dict[str, Any]:
        """What the header of a NIfTI file says in place of the table: a slope and an intercept that were applied are 1
        and 0; and the spacing, if there is no table or `spacing_from` asks for it."""
        if not path.endswith(NIFTI):
            if self.spacing_from == "header":
                raise LoaderError(
                    f"{path}: it has no NIfTI header with a spacing; spacing_from 'table' takes the table's"
                )
            return {}
        try:
            with open_nifti(path) as file:
                header = nifti_header(file)
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise LoaderError(f"{path}: it cannot be read ({error}): remove it or its row in a table") from error
        found: dict[str, Any] = {}
        if not has_table or (header.scale and self.steps.rescale != "table"):
            found = {"RescaleSlope": 1.0, "RescaleIntercept": 0.0}
        height, width, depth = (header.zooms[(self.axes or "HWD").index(axis)] for axis in "HWD")
        if not has_table or self.spacing_from == "header":
            found |= {"XYSpacing": str([height, width]), "ZSpacing": depth}
        elif self._spacing[0] is None:
            self._spacings.compare(meta, (height, width, depth))
        return found

    def _needs_meta(self, path: str) -> bool:
        return not self.steps.use_embedding and self._load(path)[1] == "native"

    def _load(self, path: str, look: int | None = None) -> tuple[NDArray[Any], str]:
        """The array of voxels, or its first values in a row if `look` says how many bytes of it to read, and its
        dialect."""
        name, array = read_volume(path, self.choice, look)
        kind, size = array.dtype.kind, array.dtype.itemsize
        known = {"data": "native"}
        if (kind, size) == ("i", 2):
            known["volume"] = "hu"
        if kind == "f":
            known["arr_0"] = "normalized"
        dialect = self.dialect or known.get(name)
        if dialect is None and not self.steps.use_embedding:
            raise LoaderError(
                f"{path}: what does the array '{name}' of {array.dtype} hold? Give dialect ({', '.join(DIALECTS)})"
            )
        return array, dialect or ""

    def __len__(self) -> int:
        """Samples of the whole data set, of all ranks."""
        return len(self.studies)

    def __getitem__(self, index: int) -> Sample:
        study = self.studies[index]
        array, dialect = self._load(study.path)
        try:
            rescale = self._decided.get(table_pair(study.meta), self.steps.rescale)
            unit, array = Unit(dialect, rescale), oriented(np.asarray(array, np.float32), self.axes, dialect)
            return self.steps.sample(array, study.meta, unit, study.text, study.labels)
        except (LoaderError, ValueError) as error:
            raise LoaderError(f"{study.path}: {error}") from error

    def _sampler(self) -> Sampler[int]:
        return EpochSampler(self)

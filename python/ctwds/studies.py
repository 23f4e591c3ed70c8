"""The tables of a data set, joined: of each study its metadata, text and labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .basics import AnyPath
from .csv_text import decimal_comma
from .dataset_file import DatasetFile
from .errors import LoaderError
from .spacing import decimal
from .tables import META_COLUMNS, MISSING, Row, Tables, extra_value, further_columns, label_row, read_tables

Rows = tuple[Row | None, Row | None, Row | None]  # of reports, metadata and labels; none of a table that is not given


@dataclass(frozen=True)
class Study:
    """A volume that all tables know."""

    path: str
    meta: dict[str, Any]
    text: str
    labels: NDArray[Any]


class StudyTables:
    """Reports, metadata and labels, by studies. The spacing is read of the metadata if the table `has_spacing`."""

    def __init__(self, file: DatasetFile, reports: Tables, meta: Tables, labels: Tables, has_spacing: bool) -> None:
        self._file = file
        self.named = file.columns()
        self.columns = META_COLUMNS if has_spacing else META_COLUMNS[:2]
        self.reports, self.metas, self.labels = read_tables(reports, meta, labels, self.named, has_spacing)
        self._further = further_columns(self.named, (self.reports, self.metas, self.labels))
        self._of_row: dict[tuple[AnyPath, int], str] = {}  # of the first table

    def rows_of(self, study: str, name: str) -> Rows | None:
        """The rows of a study, whose volume is the file `name`; None if one of the tables has none."""
        tables = (self.labels, self.metas, self.reports)
        rows = [table.find(study) if table else None for table in tables]
        if any(table and row is None for table, row in zip(tables, rows, strict=True)):
            return None
        first = next((row for row in rows if row), None)
        if first and (earlier := self._of_row.setdefault((first.path, first.line), name)) != name:
            raise LoaderError(
                f"{os.fspath(first.path)}: line {first.line} is the row of two volumes, {earlier} and "
                f"{name}; remove or rename one"
            )
        return rows[2], rows[1], rows[0]

    def meta_of(self, study: str, rows: Rows) -> dict[str, Any]:
        """The metadata of a study: its id, the fields of the table, and the further columns."""
        meta = {"study_id": study} | self._fields(self.columns, rows[1], self.named.meta)
        for column, at, place in self._further:
            row = rows[at]
            meta[column] = extra_value(row.extra[place]) if row else None
        return meta

    def is_incomplete(self, meta: dict[str, Any]) -> bool:
        """Whether a field of the table is missing."""
        return self.metas is not None and any(meta[column] in MISSING for column in self.columns)

    def labels_of(self, rows: Rows) -> NDArray[Any] | None:
        """The labels (classes,) as float32; None if one is missing and such samples are left out."""
        if self.labels is None or rows[2] is None:
            return np.zeros(0, np.float32)
        return label_row(self.labels, rows[2], self._file.missing_label())

    def text_of(self, rows: Rows) -> str:
        """The report: the text columns, a line each."""
        fields = rows[0].fields if rows[0] else []
        return "\n".join(self._file.missing_text() if field in MISSING else field for field in fields)

    @staticmethod
    def _fields(columns: Sequence[str], row: Row | None, names: Sequence[str]) -> dict[str, Any]:
        """The fields of a row of the metadata table; all are missing without one."""
        fields = row.fields if row else ["nan"] * len(columns)
        for column, name, field in zip(columns, names, fields, strict=False):  # no names of a spacing in the files
            if row is None or field in MISSING:
                continue
            what = ""
            if column != "XYSpacing" and decimal(field) is None:
                what = "is not a number"
            elif column == "XYSpacing" and row.delimiter != "," and decimal_comma(field):
                what = "may be one number or two"
            if what:
                raise LoaderError(
                    f"{os.fspath(row.path)}: line {row.line}, column '{name}': {field!r} {what}{decimal_comma(field)}"
                )
        return dict(zip(columns, fields, strict=True))

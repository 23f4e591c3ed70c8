"""Which studies of a data set are taken."""

from __future__ import annotations

import csv
import io
import os
import re
from dataclasses import dataclass

from .basics import AnyPath
from .csv_text import delimiter_of, table_rows, table_text
from .errors import LoaderError

STUDY_COLUMNS = ("study_id", "VolumeName")  # of lists of studies


@dataclass
class Selection:
    """The studies to take: those of a list, the first ones, without some."""

    listed: set[str] | None
    excluded: set[str]
    limit: int | None
    count: int = 0

    def words(self) -> str:
        """What is beside being in all tables, for a message."""
        return " and selected" if self.listed is not None or self.limit is not None or self.excluded else ""

    def has(self, study: str) -> bool:
        """Whether the next study in all tables is taken."""
        if (self.listed is not None and study not in self.listed) or self.count == self.limit:
            return False
        self.count += 1  # those that are left out have their slots
        return study not in self.excluded


def studies_in(path: AnyPath) -> set[str]:
    """The studies of a list: one a line, or a column of a table. Lines that begin with # are comments."""
    text = table_text(path)
    lines = [line for line in io.StringIO(text, newline=None) if not line.startswith("#")]
    rows = list(csv.reader(lines, delimiter=delimiter_of("".join(lines), STUDY_COLUMNS)))
    rows = [[field.strip() for field in row] for row in rows if any(field.strip() for field in row)]
    column = next((rows[0].index(name) for name in STUDY_COLUMNS if rows and name in rows[0]), None)
    if column is None and any(len(row) > 1 for row in rows):
        raise LoaderError(f"{os.fspath(path)}: more than a study id in a line, and no column study_id or VolumeName")
    fields = [row[column or 0] for row in rows[column is not None :] if len(row) > (column or 0)]
    found = {re.sub(r"\.nii\.gz$|\.nii$|\.npz$", "", field) for field in fields if not field.startswith("#")} - {""}
    if not found:
        raise LoaderError(f"{os.fspath(path)}: there is no study in it; write one study id a line")
    return found


def excluded_in(path: AnyPath) -> set[str]:
    """The studies of a `quarantine.csv`, where an apostrophe stands before what would be a formula."""
    _, found = table_rows(path, STUDY_COLUMNS[:1])
    (_, header), *rows = found or [(1, [""])]
    if "study_id" not in header:
        raise LoaderError(f"{os.fspath(path)}: the list needs the column study_id")
    at = header.index("study_id")
    return {re.sub(r"^'(?='*[=+\-@\t\r])", "", row[at]) for _, row in rows}

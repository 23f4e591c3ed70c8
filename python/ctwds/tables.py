"""The tables of a data set: reports, metadata, labels."""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .basics import AnyPath
from .csv_text import decimal_comma, table_rows
from .errors import LoaderError
from .spacing import decimal, in_float32

MISSING = set(
    "|#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null".split("|")
)
META_COLUMNS = ("RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing")
REPORT_COLUMNS = ("Findings_EN", "Impressions_EN")
OWN_FIELDS = frozenset(
    (
        *("study_id", *META_COLUMNS, "original_shape", "volume_shape", "volume_dtype", "volume_window", "volume_kind"),
        *("volume_codec", "volume_filter", "affine"),
    )
)  # of the JSON of a sample
NAMELESS = re.compile(r"$|Unnamed:\s*[0-9]")  # pandas writes row numbers so
SUFFIXES = (".nii.gz", ".nii", ".npz", ".npy", ".dcm")  # of ids in tables
SWITCHES = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}


@dataclass(frozen=True)
class Columns:
    """The columns that are read of the tables: those of CT-RATE, or those that `ctwds.toml` names. `classes` and
    `extra` are names, ranges (FIRST..LAST) and patterns (Nodule*); without `classes`, all columns but the ids are such.
    """

    ids: Sequence[str] = ("VolumeName",)
    texts: Sequence[str] = REPORT_COLUMNS
    classes: Sequence[str] = ()
    meta: Sequence[str] = META_COLUMNS
    extra: Sequence[str] = ()


def places_of(name: str, header: Sequence[str]) -> list[int]:
    """The places of the columns that a name, a range or a pattern means; none raises LookupError with the reason."""
    first, dots, last = name.partition("..")

    def place(one: str) -> int:
        if one in header:
            return header.index(one)
        meant = difflib.get_close_matches(one, header, n=1, cutoff=0)
        raise LookupError(f"column '{one}' is missing" + "".join(f"; is '{near}' meant?" for near in meant))

    if dots and first and last:
        found = list(range(place(first.strip()), place(last.strip()) + 1))
    elif "*" in name or "?" in name:
        pattern = re.escape(name).replace(r"\*", ".*").replace(r"\?", ".")
        found = [at for at, column in enumerate(header) if re.fullmatch(pattern, column, re.DOTALL)]
    else:
        found = [place(name)]
    if not found:
        raise LookupError(f"no column is '{name}'")
    return found


@dataclass(frozen=True)
class Row:
    """A row of a table: its file, its line in it, the fields of the table's columns, those of further ones, and what
    stands between them."""

    path: AnyPath
    line: int
    fields: list[str]
    extra: list[str]
    delimiter: str


@dataclass(frozen=True)
class Table:
    """Columns of one CSV file or several; the rows by the ids of volumes."""

    columns: list[str]
    rows: dict[str, Row]
    bare: dict[str, list[Row]]  # by ids without folders and suffixes
    header: list[str]  # of the first file
    extra: list[int]  # places of further columns in it
    keys: list[str]  # the column with the ids of each file

    def find(self, study: str) -> Row | None:
        """The row of a study: of its name with .nii.gz, else of its name, else of the same but for folders and
        suffix."""
        if row := self.rows.get(f"{study}.nii.gz") or self.rows.get(study):
            return row
        if not self.bare:
            for name, row in self.rows.items():
                self.bare.setdefault(bare_id(name), []).append(row)
        rows = self.bare.get(bare_id(study), [])
        if len(rows) > 1:
            first = rows[0].path
            lines = " and ".join(
                str(row.line) + ("" if row.path == first else f" of {os.fspath(row.path)}") for row in rows
            )
            raise LoaderError(
                f"{os.fspath(first)}: lines {lines}: {self.keys[0]} is '{bare_id(study)}' on each, but for folder and "
                "suffix; remove one"
            )
        return rows[0] if rows else None


def bare_id(name: str) -> str:
    """An id without the folders before it and the suffix behind it."""
    name = re.split(r"[/\\]", name)[-1]
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


Tables = AnyPath | Sequence[AnyPath] | None


def read_table(paths: Sequence[AnyPath], columns: Columns, wanted: Sequence[str], are_classes: bool) -> Table:
    """Some columns of a table, which are classes or have these names. The rows of several files are appended; the
    columns are those of the first one."""
    table = Table([], {}, {}, [], [], [])
    for path in paths:
        append_file(table, path, columns, wanted, are_classes)
    return table


def append_file(table: Table, path: AnyPath, columns: Columns, wanted: Sequence[str], are_classes: bool) -> None:
    """Read a file of a table, and add its rows."""
    delimiter, rows = table_rows(path, columns.ids)
    (_, header), *rows = rows or [(1, [""])]
    key_name = next((name for name in columns.ids if name in header), columns.ids[0])
    if key_name not in header:
        raise LoaderError(f"{os.fspath(path)}: {absent(key_name, header)}")
    key = header.index(key_name)
    if table.columns:
        names = [*table.columns, *(table.header[at] for at in table.extra)]
        kept = [column_of(path, header, name) for name in names]
    else:
        kept = classes_in(path, header, key, wanted) if are_classes else [column_of(path, header, n) for n in wanted]
        if not kept:
            raise LoaderError(f"{os.fspath(path)}: there is no column with a name besides {key_name}")
        table.columns.extend(header[at] for at in kept)
        table.header.extend(header)
        for name in columns.extra:
            with contextlib.suppress(LookupError):
                places = places_of(name, header)
                is_one = len(places) == 1 and header[places[0]] == name
                table.extra.extend(at for at in places if at not in table.extra and (at != key or is_one))
        kept += table.extra
    table.keys.append(key_name)
    before, count = set(table.rows), len(table.columns)
    for line, row in rows:
        if len(row) != len(header):
            raise LoaderError(
                f"{os.fspath(path)}: line {line}: {len(row)} fields, the header has {len(header)}; is a quote missing?"
            )
        fields = [row[at] for at in kept]
        found = Row(path, line, fields[:count], fields[count:], delimiter)
        first = table.rows.setdefault(row[key], found)
        if row[key] in before:
            raise LoaderError(
                f"{os.fspath(path)}: line {line}: {key_name} '{row[key]}' stands on line {first.line} of "
                f"{os.fspath(first.path)} already; remove one of the two"
            )
        if (first.fields, first.extra) != (found.fields, found.extra):
            raise LoaderError(
                f"{os.fspath(path)}: line {line}: {key_name} '{row[key]}' stands on line {first.line} with other "
                "values; remove one"
            )


def column_of(path: AnyPath, header: Sequence[str], name: str) -> int:
    """The place of a column."""
    if name not in header:
        raise LoaderError(f"{os.fspath(path)}: {absent(name, header)}")
    return header.index(name)


def classes_in(path: AnyPath, header: Sequence[str], key: int, wanted: Sequence[str]) -> list[int]:
    """The places of the classes; if none is named, of all columns that have a name but the ids."""
    found: list[int] = []
    for name in wanted:
        try:
            found += [at for at in places_of(name, header) if at != key and at not in found]
        except LookupError as error:
            raise LoaderError(f"{os.fspath(path)}: label_columns: {error.args[0]}") from error
    if wanted:
        return found
    for at, name in enumerate(header):
        if at != key and NAMELESS.match(name.strip()):
            warnings.warn(
                f"{os.fspath(path)}: column {at + 1} has no name ({name!r}), as the row numbers that pandas "
                "writes: it is left out, and is no class",
                stacklevel=4,
            )
    return [at for at, name in enumerate(header) if at != key and not NAMELESS.match(name.strip())]


def absent(name: str, header: Sequence[str]) -> str:
    """What is wrong with a header that lacks a column."""
    blanks = next((f"; {found!r} has blanks around it: remove them" for found in header if found.strip() == name), "")
    return f"column '{name}' is missing; the columns are: {', '.join(header)}{blanks}"


def files_of(table: Tables) -> list[AnyPath]:
    """The files of a table: one, several, or none."""
    if table is None:
        return []
    return [table] if isinstance(table, (str, os.PathLike)) else list(table)


def read_tables(
    reports: Tables, meta: Tables, labels: Tables, columns: Columns, has_spacing: bool
) -> tuple[Table | None, Table | None, Table | None]:
    """The tables that there are; if one does not fit, the message says which of the files does. The spacing is read of
    the table if it `has_spacing`."""
    of_meta = columns.meta if has_spacing else columns.meta[:2]
    given = {
        "reports_file": (files_of(reports), columns.texts),
        "meta_file": (files_of(meta), of_meta),
        "labels": (files_of(labels), ()),
    }

    def fits(role: str, path: AnyPath) -> bool:
        header = next(iter(table_rows(path, columns.ids)[1]), (1, []))[1]
        others = any(set(names) <= set(header) for _, names in given.values() if names) and not columns.classes
        has_ids = any(name in header for name in columns.ids)
        return has_ids and (set(given[role][1]) <= set(header) if given[role][1] else not others)

    def read(role: str) -> Table | None:
        paths, names = given[role]
        if not paths:
            return None
        # Of one table for several roles, further columns are those of the first.
        is_first = next(other for other, (files, _) in given.items() if files == paths) == role
        own = columns if is_first else replace(columns, extra=())
        try:
            table = read_table(paths, own, names or columns.classes, role == "labels")
            if role == "labels" and not fits(role, paths[0]):
                raise LoaderError(f"{os.fspath(paths[0])}: it has the columns of another table, which are no classes")
            return table
        except LoaderError as error:
            for other, (files, _) in given.items():
                for file in files:
                    if other != role and not all(fits(role, path) for path in paths) and fits(role, file):
                        raise LoaderError(
                            f"{error}; the file was given as {role}: {os.fspath(file)}, given as {other}, fits; "
                            "are they swapped?"
                        ) from error
            raise

    return read("reports_file"), read("meta_file"), read("labels")


Place = tuple[str, int, int]  # of a further column: its name, its table, and its place among the further columns there


def further_columns(columns: Columns, tables: Sequence[Table | None]) -> list[Place]:
    """The columns whose values become fields of the metadata; one with ids is taken of the first table that has it."""
    chosen: dict[str, tuple[int, int]] = {}
    for name in columns.extra:
        errors, before = [], len(chosen)
        for at, table in enumerate(tables):
            try:
                found = places_of(name, table.header) if table else []
            except LookupError as error:
                errors.append(error)
                continue
            for place in found:
                if not table or place not in table.extra:
                    continue
                column = table.header[place]
                if chosen.setdefault(column, (at, place)) != (at, place) and column not in columns.ids:
                    raise LoaderError(f"extra_columns: two columns are called '{column}'; rename one")
        if len(errors) == sum(table is not None for table in tables):
            raise LoaderError(f"extra_columns: of all tables, {errors[0].args[0] if errors else 'none is given'}")
        for column in list(chosen)[before:]:
            if column in OWN_FIELDS or column.startswith("also_"):
                raise LoaderError(f"extra_columns: the metadata has a field '{column}' of its own; rename the column")
    return [(name, at, table.extra.index(place)) for name, (at, place) in chosen.items() if (table := tables[at])]


def extra_value(field: str) -> int | float | str | None:
    """The value of a further column, as ctwds-fs puts it into the JSON of a sample."""
    bare = field.strip()
    if bare in MISSING:
        return None
    if re.fullmatch("[+-]?(0|[1-9][0-9]*)", bare):
        return int(bare) if -(2**63) <= int(bare) < 2**63 else field
    value = None if re.match("[+-]?0[0-9]", bare) else decimal(bare)
    return field if value is None else value


def label_row(table: Table, row: Row, missing: str = "error") -> NDArray[Any] | None:
    """The labels of a row; None if one is missing and such samples are left out."""
    values: list[float] = []
    instead = {"0": 0.0, "nan": math.nan, "exclude": math.inf}.get(missing)
    for column, field in zip(table.columns, row.fields, strict=True):
        if instead is not None and field.strip() in MISSING:
            values.append(instead)
            continue
        value = SWITCHES.get(field.strip().lower(), decimal(field))
        if value is None or not math.isfinite(in_float32(value)):
            what = "beyond float32, as which labels are stored"
            what = "not a number" + decimal_comma(field) if value is None else what
            raise LoaderError(
                f"{os.fspath(row.path)}: line {row.line}, column '{column}': the label {field!r} is {what}"
            )
        values.append(value)
    return None if math.inf in values else np.array(values, np.float32)

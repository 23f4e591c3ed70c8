"""Tables as text: encodings, delimiters, rows with the line on which each begins."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from .basics import AnyPath
from .errors import LoaderError

CONVERT = "python3 -c \"import pandas; pandas.read_{}('FILE').to_csv('FILE.csv', index=False)\""
NOT_CSV = (
    (b"\x28\xb5\x2f\xfd", "a zstd file; unpack it (unzstd)"),
    (b"\xfd7zXZ", "an xz file; unpack it (unxz)"),
    (b"BZh91AY&SY", "a bzip2 file; unpack it (bunzip2)"),
    (b"PK\x03\x04", f"a zip archive or an Excel workbook; unpack it, or: {CONVERT.format('excel')}"),
    (b"\xd0\xcf\x11\xe0", f"an Excel workbook; {CONVERT.format('excel')} makes a table of it"),
    (b"PAR1", f"a Parquet file; {CONVERT.format('parquet')} makes a table of it"),
    (b"ARROW1", f"an Arrow file; {CONVERT.format('feather')} makes a table of it"),
    (b"\xff\xfe\0\0", "text in UTF-32; save it as UTF-8"),
    (b"\0\0\xfe\xff", "text in UTF-32; save it as UTF-8"),
)
DELIMITERS = ",;\t|"


def table_text(path: AnyPath) -> str:
    """The text of a table, in UTF-8 or UTF-16, packed with gzip or not; its line ends as they are."""
    content = Path(path).read_bytes()
    try:
        content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except (OSError, EOFError, zlib.error) as error:
        raise LoaderError(f"{os.fspath(path)}: a damaged gzip file ({error}); fetch or write it again") from error
    if what := next((what for first, what in NOT_CSV if content.startswith(first)), None):
        raise LoaderError(f"{os.fspath(path)}: not a CSV file but {what.replace('FILE', os.fspath(path))}")
    encoding = "utf-8"
    if content.startswith((b"\xfe\xff", b"\xff\xfe")):
        encoding = "utf-16-be" if content[0] == 0xFE else "utf-16-le"
    elif len(content) > 1 and (content[0] == 0) != (content[1] == 0):  # a Latin letter without a byte-order mark
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise LoaderError(f"{os.fspath(path)}: damaged text in UTF-16; save it as UTF-8") from error
        line = 1 + len(re.findall(rb"\r\n|\r|\n", content[: error.start]))
        raise LoaderError(
            f"{os.fspath(path)}: line {line}: not UTF-8 (byte {content[error.start]:#04x}); save the table as UTF-8"
        ) from error


def delimiter_of(text: str, ids: Sequence[str]) -> str:
    """The one of which the first record has a column with ids; else a comma."""
    first = text.lstrip("\r\n")
    for delimiter in DELIMITERS:
        header = next(csv.reader(io.StringIO(first, newline=""), delimiter=delimiter), [])
        if any(name in header for name in ids):
            return delimiter
    return ","


def table_rows(path: AnyPath, ids: Sequence[str]) -> tuple[str, list[tuple[int, list[str]]]]:
    """The delimiter of a table and its rows, each with the line on which it begins; blank lines are none."""
    text = table_text(path)
    lines = list(io.StringIO(text, newline=""))
    delimiter = delimiter_of(text, ids)
    reader = csv.reader([*lines, ""], delimiter=delimiter)  # the last one is in no row, unless a quoted field is open
    rows, begin, limit = [], 1, csv.field_size_limit(len(text) + 1)
    try:
        for row in reader:
            if begin <= len(lines) < reader.line_num:
                record = "".join(lines[begin - 1 :])
                field = r'(?:"(?:[^"]|"")*"(?!")[^,\r\n]*|[^",\r\n][^,\r\n]*|[,\r\n])*'
                quote = re.match(field.replace(",", re.escape(delimiter)), record)
                line = begin + len(re.findall(r"\r\n|\r|\n", record[: quote.end() if quote else 0]))
                raise LoaderError(
                    f"{os.fspath(path)}: line {line}: the file ends inside the quoted field that begins here: it was "
                    "cut off, or a closing quote is missing; write the file again"
                )
            if begin <= len(lines) and "".join(lines[begin - 1 : reader.line_num]).strip(" \t\r\n\f"):
                rows.append((begin, row))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise LoaderError(f"{os.fspath(path)}: line {begin}: {error}") from error
    finally:
        csv.field_size_limit(limit)
    return delimiter, rows


def decimal_comma(field: str) -> str:
    """The end of a message about a number whose comma may be a decimal one."""
    is_decimal = re.fullmatch("[+-]?[0-9]+,[0-9]+", field.strip())
    return "; if its comma is a decimal one, write the table with points: ctwds-fs plan says how" if is_decimal else ""

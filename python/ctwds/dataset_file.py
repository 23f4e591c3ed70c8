"""The file of a data set, `ctwds.toml`."""

from __future__ import annotations

import csv
import difflib
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .basics import SHAPE, SPACING, AnyPath, Rescale
from .errors import LoaderError, choice
from .selection import Selection, excluded_in, studies_in
from .spacing import decimal
from .tables import META_COLUMNS, REPORT_COLUMNS, Columns, Tables

META_ROLES = ("slope", "intercept", "xy", "z")


class DatasetFile:
    """What a `ctwds.toml` says of a data set, for NPZ files; nothing if there is none. Keys of the commands alone, such
    as `mountpoint`, are passed over; what makes other samples, and the loader does not do, is refused."""

    # Keys, with the values that change nothing.
    REFUSED: Mapping[str, tuple[Any, ...]] = {
        **dict.fromkeys(("where", "config", "split", "window", "also"), ()),
        "orientation": ("keep",),
        "output_dtype": ("float16", "float32", "int16"),
    }
    # Those of preprocessed volumes, which the loader makes in one way.
    OF_PREPROCESSED: Mapping[str, tuple[Any, ...]] = {
        "hu_range": ([-1000, 1000], "-1000,1000"),
        "pad_value": (-1,),
        "resample": ("auto",),
    }
    TAKEN = (
        *("data_folder", "reports_file", "meta_file", "labels_file", "id_column", "text_columns", "label_columns"),
        *("meta_columns", "extra_columns", "missing_label", "missing_text", "missing_meta", "array", "channel"),
        *("source", "pattern", "axes", "spacing_array", "spacing_from", "dialect", "rescale", "volume"),
        *("spacing", "shape", "also_pad", "studies", "exclude", "limit", "test_mode"),
    )

    def __init__(self, path: AnyPath | None) -> None:
        self.path = path
        self.keys: dict[str, Any] = {}
        if path is None:
            return
        try:
            tomllib = importlib.import_module("tomllib")
        except ImportError as error:
            raise LoaderError(
                f"{os.fspath(path)}: only Python 3.11 and later read TOML: give folder and tables as arguments"
            ) from error
        try:
            read = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise LoaderError(f"{os.fspath(path)}: not TOML ({error})") from error
        for name, value in read.items():
            key = name.replace("-", "_")
            if key in self.keys:
                raise LoaderError(f"{os.fspath(path)}: '{key}' is there twice")
            self.keys[key] = value
        self._check()

    def _check(self) -> None:
        """Refuse what would be other samples than the shards have."""
        known = (*self.TAKEN, *self.REFUSED, *self.OF_PREPROCESSED)
        refused = {**self.REFUSED, **(self.OF_PREPROCESSED if self.keys.get("volume") == "preprocessed" else {})}
        for key, value in self.keys.items():
            if key in refused and value not in refused[key]:
                raise LoaderError(
                    f"{os.fspath(self.path or '')}: the loader does not do '{key}' on files of volumes: read the "
                    "shards of a mount (ctwds-fs mount), or leave the key out"
                )
            meant = difflib.get_close_matches(key, known, n=1, cutoff=0.88)
            if meant and key not in known:
                raise LoaderError(f"{os.fspath(self.path or '')}: there is no key '{key}'; is '{meant[0]}' meant?")

    def _in_folder(self, path: Any) -> AnyPath:
        return os.path.join(os.path.dirname(self.path or ""), str(path))

    def texts(self, key: str) -> list[str]:
        """The values of a key: one, several or none."""
        value = self.keys.get(key, [])
        return [str(one) for one in value] if isinstance(value, list) else [str(value)]

    def names(self, key: str) -> list[str]:
        """The names of columns of a key, with commas between them."""
        rows = [next(csv.reader([text]), []) for text in self.texts(key)]
        return [name.strip() for row in rows for name in row]

    def texts_or(self, **given: str | None) -> list[str | None]:
        """The values of some keys, where the arguments give none."""
        return [str(self.keys[key]) if value is None and key in self.keys else value for key, value in given.items()]

    def paths(self, folder: AnyPath | None, *tables: Tables) -> tuple[AnyPath, Tables, Tables, Tables]:
        """The data folder and the tables, where the arguments give none."""
        if folder is None and "data_folder" in self.keys:
            folder = self._in_folder(self.keys["data_folder"])
        if folder is None:
            raise LoaderError(f"{os.fspath(self.path or 'CTReportDataset')}: data_folder is missing")
        keys = ("reports_file", "meta_file", "labels_file")
        reports, meta, labels = (
            table if table is not None else [self._in_folder(path) for path in self.texts(key)]
            for key, table in zip(keys, tables, strict=True)
        )
        return folder, reports, meta, labels

    def columns(self) -> Columns:
        """The columns of the tables."""
        meta = list(META_COLUMNS)
        for name in self.names("meta_columns"):
            role, equals, column = name.partition("=")
            if not equals or role.strip() not in META_ROLES:
                raise LoaderError(
                    f"{os.fspath(self.path or '')}: meta_columns: {name!r} is not slope=COLUMN or the like"
                )
            meta[META_ROLES.index(role.strip())] = column.strip()
        texts = [name.split("=", 1)[-1].strip() for name in self.names("text_columns")]
        return Columns(
            self.texts("id_column") or Columns.ids,
            texts or REPORT_COLUMNS,
            self.names("label_columns"),
            meta,
            self.names("extra_columns"),
        )

    def selection(self) -> Selection:
        """Which of the studies in all tables are taken."""
        limit = 100 if self.keys.get("test_mode") is True else self.keys.get("limit")
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise LoaderError(f"{os.fspath(self.path or '')}: limit is {limit!r}; it must be a number of studies")
        listed = studies_in(self._in_folder(self.keys["studies"])) if "studies" in self.keys else None
        excluded = excluded_in(self._in_folder(self.keys["exclude"])) if "exclude" in self.keys else set()
        return Selection(listed, excluded, limit)

    def missing_label(self) -> str:
        """What becomes of a label that is missing."""
        value = str(self.keys.get("missing_label", "error"))
        return str(choice("missing_label", value, ("error", "0", "nan", "exclude")))

    def missing_text(self) -> str:
        """What stands for a text that is missing."""
        return str(self.keys.get("missing_text", ""))

    def leaves_out(self, needs_meta: Callable[[str], bool], path: str) -> bool:
        """Whether a volume is left out whose metadata is incomplete."""
        if self.keys.get("missing_meta", "exclude") == "nan":
            return False
        is_of_stored = self.path is not None and self.keys.get("volume", "stored") != "preprocessed"
        return is_of_stored or needs_meta(path)

    def rescale(self) -> Rescale:
        """What makes HU of the values."""
        value = self.keys.get("rescale", "auto")
        if value in ("auto", "table", "none"):
            return str(value)
        return self._floats("rescale", value, 2)

    def spacing(self, given: Sequence[float], shape: Sequence[int]) -> Sequence[float]:
        """The spacing of preprocessed volumes, which must have the shape that the loader gives."""
        if self.keys.get("volume") != "preprocessed":
            return given
        if tuple(made := self._floats("shape", self.keys.get("shape", list(SHAPE)), 3)) != tuple(shape):
            raise LoaderError(f"{os.fspath(self.path or '')}: shape is {made}, and that of the loader {tuple(shape)}")
        own = self._floats("spacing", self.keys.get("spacing", list(SPACING)), 3)
        return own if given is SPACING else given

    def _floats(self, key: str, value: Any, count: int) -> list[float]:
        texts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
        found = [number for text in texts if (number := decimal(str(text))) is not None]
        if len(found) != count or len(found) != len(texts):
            raise LoaderError(f"{os.fspath(self.path or '')}: {key} is {value!r}; it must be {count} numbers")
        return found

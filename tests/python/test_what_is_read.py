"""The table of what is read of an NPZ file, in docs/volume-files.md: every code span of it is tried on every path, and
its rows have no other. `np.load` is the judge of what is read."""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyzstd
from ctreport_webdataset import LoaderError
from docpages import CODE
from harness import REPOSITORY, Program, report_of
from loading import from_npz
from make_dataset import Dataset
from numpy.typing import NDArray
from small_datasets import write_dataset
from spellings import (
    DTYPES,
    HEADERS,
    ZIPS,
    deflated,
    load,
    npy,
    plain_zip,
    raw_zip,
    with_zip64_end,
)
from test_one_answer import of_tars, through_shards
from verifying import verify

SHAPE = (2, 3, 4)
VALUES = np.arange(24).reshape(SHAPE) % 20
Files = dict[str, bytes]


@dataclass(frozen=True)
class Read:
    """A file that is read: its content, and the array that NumPy finds in it."""

    content: bytes
    array: str = "data"


@dataclass(frozen=True)
class Refused:
    """A file that is refused: its content, and what the messages say; the mount's, and the loader's if it differs."""

    content: bytes
    says: str
    loader_says: str = ""


def member(descr: str = "<f4", header: str = "numpy", version: int = 1, fortran: bool = False) -> bytes:
    """The volume in NPY."""
    array = VALUES.astype(np.dtype(descr))
    text = HEADERS[header](descr, fortran, SHAPE)
    return npy(text, version, array.tobytes("F" if fortran else "C"))


def of_text(text: str, descr: str = "<f4", version: int = 1) -> bytes:
    """An NPZ with this header."""
    return plain_zip({"data.npy": npy(text, version, VALUES.astype(np.dtype(descr)).tobytes())})


def of_dtype(descr: str) -> bytes:
    """An NPZ whose header spells the dtype so."""
    return plain_zip({"data.npy": member(descr)})


def of_array(array: NDArray[Any], pickled: bool = False) -> bytes:
    """As NumPy writes it."""
    text = f"{{'descr': {np.lib.format.dtype_to_descr(array.dtype)!r}, 'fortran_order': False, 'shape': {array.shape}}}"
    return plain_zip({"data.npy": npy(text, 1, b"x" * 99 if pickled else array.tobytes())})


def of_bytes(descr: str, payload: bytes) -> bytes:
    """An NPZ with these elements."""
    return plain_zip({"data.npy": npy(HEADERS["numpy"](descr, False, SHAPE), 1, payload)})


def unknown_dtype(descr: str) -> bytes:
    """A dtype that NumPy does not know either."""
    return of_text(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': (2, 3, 4)}}")


def of_version(major: int, minor: int) -> bytes:
    """An NPZ of a version of NPY."""
    data = bytearray(member(version=1 if major == 1 else 2))
    data[6:8] = bytes([major, minor])
    return plain_zip({"data.npy": bytes(data)})


def of_length(count: int) -> bytes:
    """An NPZ whose header has so many bytes."""
    return of_text(HEADERS["numpy"]("<f4", False, SHAPE).rstrip("\n").ljust(count - 1) + "\n")


def of_shape(shape: str) -> bytes:
    """An NPZ whose header has this shape, and the elements for it."""
    return of_text(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n")


def encrypted() -> bytes:
    """A flag says so."""
    return raw_zip([("data.npy", member())], zipfile.ZIP_STORED, bytes, flags=1)


def with_bzip2(archive: bytes) -> bytes:
    """The zip file with one more array, packed by bzip2."""
    file = io.BytesIO(archive)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_BZIP2) as more:
        more.writestr("mask.npy", member())
    return file.getvalue()


HEAD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4), }"
READ: dict[str, dict[str, Read]] = {
    "dtype": {name: Read(of_dtype(np.dtype(name).str)) for name in (np.dtype(code).name for code in DTYPES)},
    "dtype in the header": {
        descr: Read(of_dtype(descr))
        for descr in (*"<f4 >f4 =f4 |f4 f4 <u1 <d >e ? Q float32 single float int bool 1<f4 >1u2".split(), "f +04")
    },
    "the header": {
        "{'descr': '<f4', …}": Read(of_text(HEAD)),
        '{"shape": …}': Read(plain_zip({"data.npy": member(header="double quotes")})),
        "u'<f4'": Read(plain_zip({"data.npy": member(header="unicode keys")})),
        "(2L, 3L, 4L)": Read(of_shape("(2L, 3L, 4L)")),
        "(0x2, 3, 4,)": Read(of_shape("(0x2, 3, 4,)")),
    },
    "length of the header": {"118 bytes": Read(of_length(118)), "10,000 bytes": Read(of_length(10_000))},
    "version of the header": {f"{n}.0": Read(of_version(n, 0)) for n in (1, 2, 3)},
    "axes": {
        "C": Read(plain_zip({"data.npy": member()})),
        "Fortran": Read(plain_zip({"data.npy": member(fortran=True)})),
        "(1, 2, 3, 4)": Read(of_shape("(1, 2, 3, 4)")),
        "(2, 3, 1, 4, 1)": Read(of_shape("(2, 3, 1, 4, 1)")),
    },
    "packing in the zip file": {
        "stored": Read(ZIPS["stored"]({"data.npy": member()})),
        "deflated": Read(ZIPS["deflated"]({"data.npy": member()})),
        "zip64 sizes": Read(ZIPS["stored, zip64 sizes"]({"data.npy": member()})),
        "zip64 end records": Read(with_zip64_end(plain_zip({"data.npy": member()}))),
        "streamed": Read(ZIPS["deflated, streamed"]({"data.npy": member()})),
        "a comment": Read(ZIPS["deflated, with a comment"]({"data.npy": member()})),
        "empty blocks": Read(ZIPS["deflated, in empty blocks"]({"data.npy": member()})),
    },
    "name of the array": {
        "data": Read(plain_zip({"arr_0.npy": member("<f8"), "volume.npy": member("<f8"), "data": member()})),
        "volume": Read(plain_zip({"arr_0.npy": member("<f8"), "volume.npy": member(">i2")}), "volume"),
        "arr_0": Read(plain_zip({"zero.npy": member("<f8"), "arr_0.npy": member()}), "arr_0"),
        "ct": Read(plain_zip({"a.npy": npy(HEADERS["numpy"]("|u1", False, (1,)), 1, b"x"), "ct.npy": member()}), "ct"),
        ".npy": Read(plain_zip({"readme": b"no array", "ct": member()}), "ct"),
        "data.npy": Read(plain_zip({"data.npy": member(), "note.npy": b"no array"})),
    },
}
WITHOUT = "booleans, integers and floats of up to 8 bytes"
REFUSED: dict[str, dict[str, Refused]] = {
    "dtype": {
        "longdouble": Refused(of_array(VALUES.astype("g")), "(longdouble) is not supported"),
        "complex64": Refused(of_array(VALUES.astype("c8")), WITHOUT),
        "datetime64[s]": Refused(of_array(VALUES.astype("M8[s]")), WITHOUT),
        "str": Refused(of_array(VALUES.astype("U2")), WITHOUT),
        "object": Refused(of_array(VALUES.astype(object), pickled=True), "object array"),
        "f4,i2": Refused(of_array(np.zeros(SHAPE, "f4,i2")), "structured", WITHOUT),
    },
    "dtype in the header": {
        "<f16": Refused(of_dtype("<f16"), "(longdouble) is not supported"),
        "f3": Refused(unknown_dtype("f3"), WITHOUT, "descr is not a valid dtype"),
        "!f4": Refused(unknown_dtype("!f4"), WITHOUT, "descr is not a valid dtype"),
        "2<f4": Refused(unknown_dtype("2<f4"), WITHOUT),
        "<float32": Refused(unknown_dtype("<float32"), WITHOUT, "descr is not a valid dtype"),
    },
    "the header": {"(2, 3, n)": Refused(of_shape("(2, 3, n)"), "header cannot be read", "cannot be read")},
    "length of the header": {
        "10,001 bytes": Refused(of_length(10_001), "(at most 10000 are accepted)", "10001) is large")
    },
    "version of the header": {
        "1.1": Refused(of_version(1, 1), "version 1.1 is not supported"),
        "4.0": Refused(of_version(4, 0), "version 4.0 is not supported"),
    },
    "axes": {
        "(2, 12)": Refused(of_shape("(2, 12)"), "has shape [2, 12]", "(2, 12)"),
        "(2, 3, 2, 2)": Refused(of_shape("(2, 3, 2, 2)"), "has shape [2, 3, 2, 2]", "(2, 3, 2, 2)"),
        "(2, 0, 4)": Refused(of_array(np.zeros((2, 0, 4), "f4")), "is empty", "(2, 0, 4)"),
    },
    "packing in the zip file": {
        "bzip2": Refused(plain_zip({"data.npy": member()}, zipfile.ZIP_BZIP2), "packed with bzip2"),
        "lzma": Refused(plain_zip({"data.npy": member()}, zipfile.ZIP_LZMA), "packed with lzma"),
        "zstd": Refused(raw_zip([("data.npy", member())], 93, pyzstd.compress), "packed with zstd"),
        "encrypted": Refused(encrypted(), "is encrypted"),
    },
    "name of the array": {
        "data.npy": Refused(raw_zip([("data.npy", member())] * 2, 8, deflated), "'data' more than once"),
        "data": Refused(plain_zip({"data": member(), "data.npy": member()}), "'data' more than once"),
    },
}
# What stands in the table as words, and nothing more of spans.
OTHERS = {
    "no newline at its end": Read(plain_zip({"data.npy": member(header="no newline")})),
    "comments": Read(plain_zip({"data.npy": member(header="lines")})),
    "several of three dimensions": Refused(
        plain_zip({"a.npy": member(), "b.npy": member()}), "several arrays could be"
    ),
    "several, one of which cannot be read": Refused(
        plain_zip({"a.npy": member(), "b.npy": member("<f16")}), "several arrays could be"
    ),
    "the only one cannot be read": Refused(plain_zip({"ct.npy": member("<f16")}), "(longdouble) is not supported"),
    "the only one is packed otherwise": Refused(
        plain_zip({"ct.npy": member()}, zipfile.ZIP_BZIP2), "packed with bzip2"
    ),
    "a name twice beside data": Read(raw_zip([("data.npy", member()), *[("x.npy", b"no array")] * 2], 8, deflated)),
    "another is packed otherwise": Read(with_bzip2(plain_zip({"data.npy": member(), "x.npy": b"no array"}))),
    "a byte of 2 is true": Read(of_bytes("|b1", bytes(range(24)))),
    "a sign": Read(of_shape("(2, +3, + 4L)")),
    "lines that go on": Read(of_text("{'descr': '<\\\nf4', \\\n'fortran_order': False, 'shape': (2, 3, 4)}")),
    "a text without an end": Refused(
        of_text(HEAD.replace("'<f4'", "'''<f4'")), "header cannot be read", "header cannot"
    ),
    "a key of another type": Refused(of_text(HEAD.replace("{", "{1: 2, ")), "header cannot be read", "header cannot"),
    "a bracket too many": Refused(of_text("(" + HEAD), "header cannot be read", "header cannot"),
    "brackets in brackets": Refused(of_text("[" * 300 + HEAD), "header cannot be read", "header cannot"),
    "a zero byte": Refused(of_text(HEAD + "# \0"), "header cannot be read", "null bytes"),
    "pieces": Read(plain_zip({"data.npy": member(header="pieces")})),
    "escapes": Read(plain_zip({"data.npy": member(header="escapes")})),
}


def table() -> dict[str, tuple[list[str], list[str]]]:
    """The rows of the page's table: the code spans of its columns."""
    page = (REPOSITORY / "docs" / "volume-files.md").read_text(encoding="utf-8")
    section = page.split("## What is read of an NPZ file\n")[1].split("\n#")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]

    def spans(cell: str) -> list[str]:
        return [span.replace("\\|", "|") for span in CODE.findall(cell)]

    return {what: (spans(read), spans(refused)) for what, read, refused in cells}


def test_the_table_is_what_is_tried() -> None:
    """Every code span of it, in both columns, and no other."""
    rows = table()
    assert list(rows) == list(READ) == list(REFUSED)
    for what, (read, refused) in rows.items():
        assert sorted(set(read)) == sorted(READ[what]), what
        assert sorted(set(refused)) == sorted(REFUSED[what]), what


def cases(kind: type) -> dict[str, Any]:
    """All of a kind, by study."""
    rows: list[Any] = [*READ.values(), *REFUSED.values(), OTHERS]
    chosen = [case for row in rows for case in row.values() if isinstance(case, kind)]
    return {f"s{at:03d}": case for at, case in enumerate(chosen)}


def write_files(out: Path, contents: dict[str, bytes]) -> Dataset:
    """A data set of these files."""
    dataset = write_dataset(out, {f"{study}.npz": {"data": VALUES.astype("f4")} for study in contents}, writer="numpy")
    for study, content in contents.items():
        (dataset.folder / f"{study}.npz").write_bytes(content)
    return dataset


def test_what_is_read(program: Program, via: str, tmp_path: Path) -> None:
    """By the mount or in files, by `verify` as a source of shards and as a source alone, and by the loader; all of it
    has the voxels that NumPy reads."""
    read = cases(Read)
    dataset = write_files(tmp_path / "data", {study: case.content for study, case in read.items()})
    right = {s: load(dataset.folder / f"{s}.npz", case.array).reshape(SHAPE) for s, case in read.items()}
    assert all((array.astype(int) == VALUES).all() or array.dtype == bool for array in right.values())
    with program.produced(via, dataset, tmp_path / "out") as made:
        found = of_tars(made)
        assert sorted(found) == sorted(read)
        for study, array in right.items():
            assert np.array_equal(found[study][0], array.astype(np.float16)), read[study]
        assert verify(program, made, *dataset.flags())[0] == 0
        loaded = through_shards(made)
    listed = tmp_path / "list.csv"
    done = program.run("verify", "--sources", *dataset.flags(), "--quarantine", listed, check=False)
    assert done.returncode == 0, done.stdout
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a header is of Python 2
        data = from_npz(dataset, shape=(8, 9, 6), dialect="native")
        for at, (study, case) in enumerate(read.items()):
            volume, *_ = data[at]
            assert np.array_equal(volume.numpy(), loaded[study][0]), case


@pytest.mark.parametrize("array", ["mask", "x"])
def test_a_chosen_array(program: Program, tmp_path: Path, array: str) -> None:
    """`--array`, and the loader's `array`."""
    file = plain_zip({"data.npy": member("<f8"), f"{array}.npy": member("<i8")})
    dataset = write_files(tmp_path / "data", {"s0": file})
    made = program.materialize(dataset, tmp_path / "out", "--array", array)
    assert (of_tars(made)["s0"][0] == VALUES).all()
    assert verify(program, made, *dataset.flags(), "--array", array)[0] == 0
    (volume, *_), *_ = [from_npz(dataset, shape=(8, 9, 6), dialect="native", array=array)[0]]
    assert np.array_equal(volume.numpy(), through_shards(made)["s0"][0])
    with pytest.raises(LoaderError, match="no array 'other'"):
        from_npz(dataset, dialect="native", array="other")[0]


def test_what_is_refused(program: Program, tmp_path: Path) -> None:
    """By name on every path; and `verify` says so of shards that were made before."""
    refused = cases(Refused)
    sound = plain_zip({"data.npy": member()})
    dataset = write_files(tmp_path / "data", dict.fromkeys([*refused, "sound"], sound))
    made = program.materialize(dataset, tmp_path / "out")
    for study, case in refused.items():
        (dataset.folder / f"{study}.npz").write_bytes(case.content)
    plan = json.loads(program.run("plan", *dataset.flags(), "--json").stdout)
    reasons = {sample["study_id"]: sample["reason"] for sample in plan["left_out"]}
    assert sorted(reasons) == sorted(refused)
    for study, case in refused.items():
        assert case.says in reasons[study], (case.says, reasons[study])
    done = program.run("verify", "--sources", *dataset.flags(), "--quarantine", tmp_path / "list.csv", check=False)
    assert done.returncode == 3
    listed = (tmp_path / "list.csv").read_text()
    report = program.run("verify", "--webdataset_dir", made, *dataset.flags(), "--json", check=False)
    findings = json.dumps(report_of(report)["findings"])
    assert report.returncode != 0
    data = from_npz(dataset, shape=(8, 9, 6), dialect="native")
    for at, (study, case) in enumerate(refused.items()):
        assert f"'{study}'" in findings and study in listed
        with pytest.raises(LoaderError) as caught:
            data[at]
        assert (case.loader_says or case.says) in str(caught.value), caught.value
        assert f"{study}.npz" in str(caught.value)


# --- spellings of dtypes ---------------------------------------------------------------------------------------------

CODES = sorted(
    {name for name in np.sctypeDict if isinstance(name, str)}
    | {
        "int",
        "float",
        "bool",
        "object",
        "str",
        "long",
        "intp",
        "uintp",
        "ulong",
        "half",
        "F4",
        "f4 ",
        " f4",
        "f",
        "f+",
        "f-4",
    }
    | set("?bBhHiIlLqQpPefdgFDGSUOMmVac")
    | {f"{kind}{gap}{count}" for kind in "biufcdeB?" for gap in ("", "0", " +") for count in (1, 2, 3, 4, 8, 16)}
)


def test_every_spelling_of_a_dtype(program: Program, tmp_path: Path) -> None:
    """Names, letters and codes with every byte order, 700 in all: the program reads exactly those that NumPy does."""
    right: dict[str, NDArray[Any]] = {}
    contents: dict[str, bytes] = {}
    spelled: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for descr in (order + code for order in ("", "<", ">", "=", "|", "!") for code in CODES):
            study = f"s{len(contents):04d}"
            try:
                dtype = np.dtype(descr)
                is_read = dtype.kind in "biuf" and dtype.itemsize <= 8 and dtype.names is None
            except TypeError:
                is_read = False
            array = VALUES.astype(dtype if is_read else "f4")
            text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': (2, 3, 4), }}\n"
            contents[study], spelled[study] = plain_zip({"data.npy": npy(text, 1, array.tobytes())}), descr
            if is_read:
                right[study] = array
    made = program.materialize(write_files(tmp_path / "data", contents), tmp_path / "out")
    found = of_tars(made)
    assert {spelled[study] for study in found} == {spelled[study] for study in right} and len(right) > 200
    for study, array in right.items():
        assert np.array_equal(found[study][0], array.astype(np.float16)), spelled[study]

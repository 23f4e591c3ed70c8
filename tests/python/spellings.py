"""Every way to write the same volume: dtypes as headers spell them, headers, members, zip files made by hand, and NPY
files; and the forms of a table."""

from __future__ import annotations

import gzip
import io
import itertools
import pickle
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from npzfiles import Unseekable
from numpy.typing import NDArray

# How numpy.dtype spells a type, by its kind and bytes: the letter of C's type, and names.
LETTERS = {
    "f2": "e",
    "f4": "f",
    "f8": "d",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
    "b1": "?",
}
NAMES = {
    "f2": "float16",
    "f4": "single",
    "f8": "float",
    "i1": "byte",
    "i2": "short",
    "i4": "int32",
    "i8": "int",
    "u1": "uint8",
    "u2": "ushort",
    "u4": "uintc",
    "u8": "uint64",
    "b1": "bool",
}
DTYPES = tuple(LETTERS)
BYTE_ORDERS = ("<", ">", "=", "|", "")
DESCRS: dict[str, Callable[[str, str], str]] = {
    "coded": lambda order, code: order + code,
    "letter": lambda order, code: order + LETTERS[code],
    "name": lambda _, code: NAMES[code],
    "spaced": lambda order, code: f"{order}{code[0]} +0{code[1]}",
}
# The header's text, of the dtype as spelled, the order, and the shape.
HEADERS: dict[str, Callable[[str, bool, tuple[int, ...]], str]] = {
    "numpy": lambda d, f, s: f"{{'descr': {d!r}, 'fortran_order': {f}, 'shape': {s}, }}\n",
    "no newline": lambda d, f, s: f"{{'descr': {d!r}, 'fortran_order': {f}, 'shape': {s}, }}",
    "double quotes": lambda d, f, s: f'{{"shape":{s},"descr":"{d}","fortran_order":{f}}}\n',
    "python 2": lambda d, f, s: (
        f"{{'descr': u'{d}', 'fortran_order': {f}, 'shape': ({', '.join(f'{n}L' for n in s)}), }}\n"
    ),
    "unicode keys": lambda d, f, s: f"{{u'descr': u'{d}', u'fortran_order': {f}, u'shape': {s}}}\n",
    "numbers": lambda d, f, s: f"{{'descr': {d!r}, 'fortran_order': {f}, 'shape': ({', '.join(map(hex, s))},)}}\n",
    "lines": lambda d, f, s: f"{{'descr':\n {d!r}, # a dtype\n'fortran_order': ({f}),\t'shape': {s}\n}}\n",
    "pieces": lambda d, f, s: f"{{'descr': ('''{d[:1]}''' r\"{d[1:]}\"), 'fortran_order': {f}, 'shape': {s}}}\n",
    "escapes": lambda d, f, s: f"{{'descr': '\\x{ord(d[0]):02x}{d[1:]}', 'fortran_order': {f}, 'shape': {s}}}\n",
    "long": lambda d, f, s: f"{{'descr': {d!r}, 'fortran_order': {f}, 'shape': {s}, }}".ljust(4000) + "\n",
}
VERSIONS = (1, 2, 3)


def npy(header: str, version: int, payload: bytes) -> bytes:
    """An array in NPY."""
    text = header.encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + payload


def deflated(data: bytes) -> bytes:
    """A raw deflate stream, as zip files have it."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def late(data: bytes) -> bytes:
    """The stream behind a thousand empty blocks: its first byte comes out of packed byte 5000."""
    return b"\0\0\0\xff\xff" * 1000 + deflated(data)


def plain_zip(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED, **options: Any) -> bytes:
    """As `zipfile` writes it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.comment = options.get("comment", b"")
        for name, data in members.items():
            with archive.open(name, "w", force_zip64=options.get("zip64", False)) as member:
                member.write(data)
    return file.getvalue()


def streamed_zip(members: Mapping[str, bytes], method: int) -> bytes:
    """With sizes and checksum behind the data."""
    file = io.BytesIO()
    target: Any = Unseekable(file)
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def raw_zip(members: Sequence[tuple[str, bytes]], method: int, pack: Callable[[bytes], bytes], flags: int = 0) -> bytes:
    """Member by member, packed by any method; names may be there twice."""
    body, directory = b"", b""
    for name, data in members:
        packed, text = pack(data), name.encode()
        facts = struct.pack(
            "<HHHHIIIHH", flags, method, 0, 0x21, zlib.crc32(data), len(packed), len(data), len(text), 0
        )
        directory += (
            b"PK\1\2" + struct.pack("<HH", 45, 45) + facts + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + text
        )
        body += b"PK\3\4" + struct.pack("<H", 45) + facts + text + packed
    count = len(members)
    return body + directory + b"PK\5\6" + struct.pack("<4HIIH", 0, 0, count, count, len(directory), len(body), 0)


def with_zip64_end(archive: bytes) -> bytes:
    """The zip file with the end records of one that is too large for the plain one."""
    end = archive.rindex(b"PK\5\6")
    _, _, _, count, size, offset, _ = struct.unpack("<4HIIH", archive[end + 4 : end + 22])
    record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
    last = b"PK\5\6" + struct.pack("<4HIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return archive[:end] + record + locator + last


STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
ZIPS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "stored": plain_zip,
    "deflated": lambda members: plain_zip(members, DEFLATED),
    "stored, zip64 sizes": lambda members: plain_zip(members, zip64=True),
    "deflated, zip64 sizes": lambda members: plain_zip(members, DEFLATED, zip64=True),
    "stored, zip64 end records": lambda members: with_zip64_end(plain_zip(members)),
    "deflated, zip64 end records": lambda members: with_zip64_end(plain_zip(members, DEFLATED)),
    "stored, streamed": lambda members: streamed_zip(members, STORED),
    "deflated, streamed": lambda members: streamed_zip(members, DEFLATED),
    "deflated, with a comment": lambda members: plain_zip(members, DEFLATED, comment=b"a comment " * 900),
    "deflated, in empty blocks": lambda members: raw_zip(list(members.items()), DEFLATED, late),
}


def beside(name: str) -> Callable[[bytes], dict[str, bytes]]:
    """The volume among other members, of which no array has three dimensions."""
    flat = npy(HEADERS["numpy"]("<f8", False, (2,)), 1, bytes(16))
    note = npy(HEADERS["numpy"]("|O", False, ()), 1, pickle.dumps({"note": 1}))
    return lambda volume: {"spacing.npy": flat, "note.npy": note, name: volume, "readme.txt": b"no array\n"}


NO_ZIP = "no zip file: NPY"
CONTAINERS = (*ZIPS, NO_ZIP)
MEMBERS: dict[str, Callable[[bytes], dict[str, bytes]]] = {
    "data.npy": lambda volume: {"data.npy": volume},
    "data": lambda volume: {"data": volume},
    "volume.npy": lambda volume: {"volume.npy": volume},
    "arr_0.npy": lambda volume: {"arr_0.npy": volume},
    "data.npy and others": beside("data.npy"),
    "data and volume.npy": lambda volume: {"volume.npy": volume[:-1] + b"\x7f", "data": volume},
    "ct.npy": lambda volume: {"ct.npy": volume},
    "ct.npy and others": beside("ct.npy"),
    "ct": beside("ct"),
}


@dataclass(frozen=True)
class Written:
    """How a volume is written."""

    dtype: str
    byte_order: str
    descr: str
    axes: str
    header: str
    version: int
    member: str
    zip: str

    def path(self, folder: Path, study: str) -> Path:
        """The file of a study."""
        return folder / f"{study}.{'npy' if self.zip == NO_ZIP else 'npz'}"

    def write(self, path: Path, values: NDArray[Any]) -> None:
        """Write whole numbers, of which the type holds the first 100."""
        spelled = DESCRS[self.descr](self.byte_order, self.dtype)
        array = values.astype(np.dtype(spelled))
        # NumPy takes the integers of Python 2 up to version 2 only.
        version = 2 if self.header == "python 2" else self.version
        text = HEADERS[self.header](spelled, self.axes == "F", array.shape)
        data = npy(text, version, array.tobytes("F" if self.axes == "F" else "C"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if self.zip == NO_ZIP else ZIPS[self.zip](MEMBERS[self.member](data)))

    def array(self) -> str:
        """The name of the volume's array."""
        return self.member.split()[0].removesuffix(".npy")


def load(path: Path, name: str) -> NDArray[Any]:
    """As `np.load` reads it; an NPY file has no names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a header is of Python 2
        found = np.load(path, allow_pickle=False)
        return found if path.suffix == ".npy" else found[name]


@dataclass(frozen=True)
class Form:
    """How the text of a table is written to its file."""

    delimiter: str = ","
    encoding: str = "utf-8"
    packed: bool = False

    def write(self, path: Path, text: str) -> None:
        """Write it; the text has the form's delimiter already."""
        content = text.encode(self.encoding)
        path.write_bytes(gzip.compress(content) if self.packed else content)

    def read(self, path: Path) -> Any:
        """The table as pandas reads it."""
        packing: Any = "gzip" if self.packed else None
        return pd.read_csv(
            path, sep=self.delimiter, encoding=self.encoding, compression=packing, float_precision="round_trip"
        )


TABLES = {
    "commas": Form(),
    "commas, a mark": Form(encoding="utf-8-sig"),
    "commas, UTF-16 with a mark, gzip": Form(encoding="utf-16", packed=True),
    "semicolons": Form(";"),
    "semicolons, UTF-16-BE": Form(";", "utf-16-be"),
    "tabs, a mark, gzip": Form("\t", "utf-8-sig", packed=True),
    "tabs, UTF-16 with a mark": Form("\t", "utf-16"),
    "bars, gzip": Form("|", packed=True),
    "bars, UTF-16-LE": Form("|", "utf-16-le"),
}


def covering(factors: Mapping[str, Sequence[Any]], seed: int, at_least: int = 0) -> list[dict[str, Any]]:
    """Rows of one value a factor, in which every pair of values of two factors stands together; the same for the same
    seed."""
    rng = random.Random(seed)
    names = list(factors)
    open_ = {
        ((one, a), (other, b))
        for one, other in itertools.combinations(names, 2)
        for a, b in itertools.product(range(len(factors[one])), range(len(factors[other])))
    }

    def pair(one: tuple[str, int], other: tuple[str, int]) -> tuple[tuple[str, int], tuple[str, int]]:
        return (one, other) if names.index(one[0]) < names.index(other[0]) else (other, one)

    rows: list[dict[str, Any]] = []
    while open_ or len(rows) < at_least:
        row = dict(rng.choice(sorted(open_))) if open_ else {}
        for name in rng.sample(names, len(names)):
            if name in row:
                continue
            values = rng.sample(range(len(factors[name])), len(factors[name]))
            row[name] = max(values, key=lambda at: sum(pair((name, at), done) in open_ for done in row.items()))
        open_ -= {pair(one, other) for one, other in itertools.combinations(row.items(), 2)}
        rows.append({name: factors[name][row[name]] for name in names})
    return rows

"""Compressed members of volumes, made by NumPy and pyzstd from the description of the format: today's, and those of
folders that were begun when values were shuffled alone, or predicted and shuffled."""

from __future__ import annotations

import io
import json
import re
import struct
import tarfile
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import packed_volume
import pyzstd
from harness import payload, shards
from numpy.typing import NDArray

BLOCK = 256 << 10
NO_CONTENT = 0x51D8E999  # the lower half of the XXH64 of no bytes


def width_of(name: str) -> int:
    """The bytes of a value, by the name of a filter."""
    return int(name[-1]) if name[-1].isdigit() else 2


def filtered(plain: bytes, name: str, row: int, like: bytes = b"") -> bytes:
    """A block as it is before zstd packs it, value by value as the format's description has it. What that leaves open
    of a split one is as in the content `like`, if that is given."""
    if name.startswith("shuffle"):
        return shuffled(plain, width_of(name))
    if not name.startswith("split"):
        folded = differences(np.frombuffer(plain, f"<u{width_of(name)}"), row, is_half=name == "predict")
        return shuffled(folded.tobytes(), width_of(name))
    values, integers = np.frombuffer(plain, "<u2"), whole_numbers(plain) if name == "split" else None
    way = like[-1] if like else 1 if integers is None else 2
    if way > 0:
        folded = differences(
            values if way == 1 or integers is None else integers, row, is_half=name == "split" and way == 1
        )
        numbers = [like[len(values) : -(-len(values) // 32 * 33)]] if like else numbers_of(folded)
        for each in numbers:
            if (content := split(folded, each)) is not None:
                return content + bytes([way])
    return shuffled(plain, 2) + b"\0"


def shuffled(plain: bytes, width: int) -> bytes:
    """The lowest bytes of all values, then the next higher ones."""
    return np.frombuffer(plain, np.uint8).reshape(-1, width).T.tobytes()


def differences(values: NDArray[Any], row: int, *, is_half: bool) -> NDArray[Any]:
    """What is left of values after each is predicted by its neighbours, folded."""
    width = values.itemsize
    number: Any = np.int64 if width < 8 else object  # large enough for sums of four values
    values, count, modulus = values.astype(number), len(values), 256**width
    row = min(row, count)  # nothing is that far before a value
    if is_half:
        values = np.where(values >= 0x8000, 0xFFFF - values, values + 0x8000)
    before = np.concatenate([np.zeros(row + 1, number), values])  # values before the block's first one are 0
    left = (values - before[row : row + count] - before[1 : count + 1] + before[:count]) % modulus
    return np.where(left >= modulus // 2, 2 * (modulus - left) - 1, 2 * left).astype(f"<u{width}")


def whole_numbers(plain: bytes) -> NDArray[Any] | None:
    """Float16 as integers, if all are whole and of less than 16 bits: magnitudes, of which all bits are inverted where
    the number has a minus."""
    numbers = np.frombuffer(plain, "<f2").astype(np.float64)
    magnitudes = np.abs(numbers)
    if not (magnitudes < 1 << 15).all() or (np.floor(magnitudes) != magnitudes).any():  # NaN is not below it
        return None
    return np.where(np.signbit(numbers), 0xFFFF - magnitudes, magnitudes).astype("<u2")


def numbers_of(folded: NDArray[Any]) -> list[bytes]:
    """How many lower bits groups of 32 may have: of every kind, and as few as there can be."""
    groups = [int(folded[at : at + 32].max()) for at in range(0, len(folded), 32)]
    fewest = [0 if largest < 256 else 4 if largest < 4096 else 8 for largest in groups]
    return [bytes(max(needed, (0, 4, 8)[n % 3]) for n, needed in enumerate(fewest)), bytes(fewest)]


def split(folded: NDArray[Any], numbers: bytes) -> bytes | None:
    """Differences whose groups have so many lower bits; None if that takes more room than the values."""
    upper, lower = bytearray(), bytearray()
    for at, bits in zip(range(0, len(folded), 32), numbers, strict=True):
        group = folded[at : at + 32].tolist()
        upper += bytes(value >> bits for value in group)
        group += [0] * (32 - len(group))
        if bits == 4:
            lower += bytes(group[n] % 16 + 16 * (group[16 + n] % 16) for n in range(16))
        elif bits == 8:
            lower += bytes(value % 256 for value in group)
    content = bytes(upper) + numbers + bytes(lower)
    return content.ljust(2 * len(folded), b"\0") if len(content) <= 2 * len(folded) else None


def member_of(blocks: list[tuple[bytes, int]]) -> bytes:
    """A member whose seek table is that of its frames, each with how many bytes it holds."""
    sums = [frame[-4:] if size else struct.pack("<I", NO_CONTENT) for frame, size in blocks]
    rows = b"".join(struct.pack("<II", len(frame), size) + end for (frame, size), end in zip(blocks, sums, strict=True))
    head = struct.pack("<II", 0x184D2A5E, len(rows) + 9)
    footer = struct.pack("<IBI", len(blocks), 0x80, packed_volume.SEEKABLE_MAGIC)
    return b"".join(frame for frame, _ in blocks) + head + rows + footer


def packed(plain: bytes, name: str, row: int, block: int = BLOCK) -> bytes:
    """A whole member."""
    options: dict[Any, int] = {pyzstd.CParameter.compressionLevel: 3, pyzstd.CParameter.checksumFlag: 1}
    filled = [filtered(plain[at : at + block], name, row) for at in range(0, len(plain), block)]
    blocks = [(pyzstd.compress(content, options), len(content)) for content in filled]
    if not name.startswith("shuffle"):
        length = struct.pack("<I", row)
        blocks.insert(0, (struct.pack("<II", 0x184D2A50, 8) + length + struct.pack("<I", zlib.crc32(length)), 0))
    return member_of(blocks)


def contents(shard: Path) -> dict[str, bytes]:
    """All payloads by name, in order."""
    with tarfile.open(shard) as tar:
        return {info.name: payload(tar, info) for info in tar}


Change = Callable[[str, bytes], tuple[str, bytes]]


def rewrite(folder: Path, change: Change) -> None:
    """Other names and payloads in the shards of a folder, by `tarfile`; manifest and journal have their sizes and
    digests."""
    manifest = json.loads((folder / "manifest.json").read_text())
    digests: dict[str, str] = {}
    for shard, entry in zip(shards(folder), manifest["shards"], strict=True):
        found = [change(name, content) for name, content in contents(shard).items()]
        with tarfile.open(shard, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in found:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        digests[shard.name] = entry["sha256"] = sha256(shard.read_bytes()).hexdigest()
        entry["size"] = shard.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    journal = folder / ".ctwds" / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        if finished := line.get("finished"):
            name = finished["name"]
            finished |= {"sha256": digests[name], "size": (folder / name).stat().st_size}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))


def old_name(name: str, method: str) -> str:
    """The filter that versions had which shuffled all values ("shuffle"), or which split none ("predict")."""
    if method == "predict":
        return name.replace("split", "predict")
    return "shuffle" if width_of(name) == 2 else f"shuffle{width_of(name)}"


def make_old(folder: Path, method: str, block: int = BLOCK) -> None:
    """Turn a folder of compressed shards into one of the versions that shuffled all values, or split none."""

    def change(name: str, content: bytes) -> tuple[str, bytes]:
        if name.endswith(".zst"):
            stem, filter_, _ = name.rsplit(".", 2)
            old, row = old_name(filter_, method), int.from_bytes(content[8:12], "little")
            return f"{stem}.{old}.zst", packed(packed_volume.unpack(content, filter_).tobytes(), old, row, block)
        if name.endswith("json"):
            return name, re.sub(
                rb'(?<="volume_filter": ")\w+', lambda found: old_name(found[0].decode(), method).encode(), content
            )
        return name, content

    rewrite(folder, change)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["compression"]["filter"] = old_name(manifest["compression"]["filter"], method)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    journal = folder / ".ctwds" / "journal.jsonl"
    assert "split+zstd" in journal.read_text()
    journal.write_text(journal.read_text().replace("split+zstd", "predict+zstd" if method == "predict" else "zstd"))


def example(rng: np.random.Generator, count: int, width: int) -> NDArray[Any]:
    """Smooth values with noise, in which every byte changes."""
    steps = rng.integers(-300, 300, count).cumsum() * 7919
    return np.asarray(steps % 256**width if width < 8 else steps).astype(f"<u{width}")

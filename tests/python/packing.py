"""Compressed members of volumes, made by NumPy and pyzstd from the description of the format: today's, and those of
folders that were begun when values were shuffled alone."""

from __future__ import annotations

import io
import json
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


def filtered(plain: bytes, name: str, row: int) -> bytes:
    """A block as it is before zstd packs it, value by value as the format's description has it."""
    width = width_of(name)
    if name.startswith("shuffle"):
        return np.frombuffer(plain, np.uint8).reshape(-1, width).T.tobytes()
    number: Any = np.int64 if width < 8 else object  # large enough for sums of four values
    values = np.frombuffer(plain, f"<u{width}").astype(number)
    count, modulus = len(values), 256**width
    row = min(row, count)  # nothing is that far before a value
    if name == "predict":
        values = np.where(values >= 0x8000, 0xFFFF - values, values + 0x8000)
    before = np.concatenate([np.zeros(row + 1, number), values])  # values before the block's first one are 0
    left = (values - before[row : row + count] - before[1 : count + 1] + before[:count]) % modulus
    folded = np.where(left >= modulus // 2, 2 * (modulus - left) - 1, 2 * left)
    return folded.astype(f"<u{width}").view(np.uint8).reshape(-1, width).T.tobytes()


def member_of(blocks: list[tuple[bytes, int]]) -> bytes:
    """A member whose seek table is that of its frames, each with the bytes that it holds."""
    sums = [frame[-4:] if plain else struct.pack("<I", NO_CONTENT) for frame, plain in blocks]
    rows = b"".join(
        struct.pack("<II", len(frame), plain) + end for (frame, plain), end in zip(blocks, sums, strict=True)
    )
    head = struct.pack("<II", 0x184D2A5E, len(rows) + 9)
    footer = struct.pack("<IBI", len(blocks), 0x80, packed_volume.SEEKABLE_MAGIC)
    return b"".join(frame for frame, _ in blocks) + head + rows + footer


def packed(plain: bytes, name: str, row: int, block: int = BLOCK) -> bytes:
    """A whole member."""
    options: dict[Any, int] = {pyzstd.CParameter.compressionLevel: 3, pyzstd.CParameter.checksumFlag: 1}
    pieces = [plain[at : at + block] for at in range(0, len(plain), block)]
    blocks = [(pyzstd.compress(filtered(piece, name, row), options), len(piece)) for piece in pieces]
    if name.startswith("predict"):
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


def make_old(folder: Path, block: int = BLOCK) -> None:
    """Turn a folder of compressed shards into one of the versions that shuffled all values."""

    def change(name: str, content: bytes) -> tuple[str, bytes]:
        if name.endswith(".zst"):
            stem, filter_, _ = name.rsplit(".", 2)
            width = width_of(filter_)
            old = "shuffle" if width == 2 else f"shuffle{width}"
            return f"{stem}.{old}.zst", packed(packed_volume.unpack(content, filter_).tobytes(), old, 0, block)
        return name, content.replace(b'"volume_filter": "predict', b'"volume_filter": "shuffle') if name.endswith(
            "json"
        ) else content

    rewrite(folder, change)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["compression"]["filter"] = manifest["compression"]["filter"].replace("predict", "shuffle")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    journal = folder / ".ctwds" / "journal.jsonl"
    journal.write_text(journal.read_text().replace("predict+zstd", "zstd"))


def example(rng: np.random.Generator, count: int, width: int) -> NDArray[Any]:
    """Smooth values with noise, in which every byte changes."""
    steps = rng.integers(-300, 300, count).cumsum() * 7919
    return np.asarray(steps % 256**width if width < 8 else steps).astype(f"<u{width}")

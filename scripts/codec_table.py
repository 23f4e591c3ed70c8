"""Measures what can make noisy volumes of float16 smaller, and prints a Markdown table: size, encoding, decoding and
the random access of one block, all on one core.

    python scripts/codec_table.py [--side 256] [--runs 5] [--block-kib 256]

The volumes: a phantom (air, a body, bones) with spatially correlated noise of 10 and 20 HU, as a reconstruction has it,
resampled and divided by 1000 as `--volume preprocessed` does. zstd and the filters are called through Python (pyzstd,
NumPy), one call a block: their speeds are not the program's own, their sizes are. The default is level 1, of predicted
values with a search at every 33rd byte, of shuffled ones with the search of level 3 and matches of six bytes at least
(`src/formats/codec/mod.rs`); predicted values are split (`src/formats/codec/split.rs`).
Times are the processor's, of this thread: what else runs changes them less than it changes the clock's.
"""

from __future__ import annotations

import argparse
import statistics
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import blosc2
import numpy as np
import packed_volume
import pyzstd
from numpy.typing import NDArray


def correlated(rng: np.random.Generator, shape: tuple[int, int, int], sigma: float) -> NDArray[Any]:
    """Noise that falls off within about two voxels, of the standard deviation that is asked for."""
    noise = rng.standard_normal(shape, np.float32)
    for axis in range(3):
        noise = 0.25 * np.roll(noise, 1, axis) + 0.5 * noise + 0.25 * np.roll(noise, -1, axis)
    return noise * np.float32(sigma / noise.std())


def resampled(volume: NDArray[Any], factor: float) -> NDArray[Any]:
    """Linear, axis by axis, around half-pixel centres."""
    for axis, size in enumerate(volume.shape):
        count = int(size * factor)
        at = np.clip((np.arange(count) + 0.5) / factor - 0.5, 0, size - 1)
        low = np.minimum(at.astype(int), size - 2)
        shape = [1, 1, 1]
        shape[axis] = count
        weight = (at - low).astype(np.float32).reshape(shape)
        volume = np.take(volume, low, axis) * (1 - weight) + np.take(volume, low + 1, axis) * weight
    return volume


def phantom(side: int, sigma: float) -> NDArray[Any]:
    """About `side` x `side` x `side / 2` voxels of float16."""
    source = (side * 4 // 5, side * 4 // 5, side * 2 // 5)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in source), indexing="ij", sparse=True)
    radius = x**2 / 0.7 + y**2 / 0.45
    volume = np.where(radius + 0 * z < 1, np.float32(40), np.float32(-1000))
    volume[(np.hypot(x - 0.35, y) < 0.25) & (abs(z) < 0.9)] = -850
    volume[(np.hypot(x + 0.35, y) < 0.25) & (abs(z) < 0.9)] = -850
    volume[(np.hypot(x, y - 0.45) < 0.1) & (abs(z) < 2)] = 700
    volume = np.rint(volume + correlated(np.random.default_rng(0), source, sigma))  # scanners store integers
    return (np.clip(resampled(volume, 1.25), -1000, 1000) / 1000).astype("<f2")


def in_blocks(volume: NDArray[Any], size: int) -> list[bytes]:
    """Its bytes, so many a block."""
    plain = volume.tobytes()
    return [plain[at : at + size] for at in range(0, len(plain), size)]


@dataclass(frozen=True)
class Codec:
    """How a block is packed and unpacked."""

    name: str
    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes], Any]


def shuffle(block: bytes) -> bytes:
    """All low bytes, then all high ones."""
    values = np.frombuffer(block, "<u2")
    return values.astype(np.uint8).tobytes() + (values >> 8).astype(np.uint8).tobytes()


def unshuffle(block: bytes) -> NDArray[Any]:
    """Back."""
    half = len(block) // 2
    low_high = np.frombuffer(block, np.uint8)
    values = low_high[half:].astype("<u2")
    values <<= 8
    values |= low_high[:half]
    return values.view(np.uint8)


def differences(block: bytes, row: int) -> NDArray[Any]:
    """What is left when each value, as a number in the order of float16, was predicted by the values before it and a
    row above it (or, with a row of 0, by the value before it alone); folded."""
    bits = np.frombuffer(block, "<u2")
    values = bits ^ (np.where(bits >> 15, 0xFFFF, 0x8000).astype("<u2"))
    left = values.copy()
    if row:
        left[row:] -= values[:-row]
    left[1:] = left[1:] - left[:-1]
    return ((left << 1) ^ (0 - (left >> 15))).astype("<u2")


def predict(block: bytes, row: int) -> bytes:
    """The differences, shuffled."""
    return shuffle(differences(block, row).tobytes())


GROUP = 32  # values that are split alike


def split(block: bytes, row: int) -> list[bytes]:
    """The differences, split: the upper bits of each, how many lower ones each group has, and these."""
    values = differences(block, row)
    groups = np.zeros(-(-len(values) // GROUP) * GROUP, "<u2")
    groups[: len(values)] = values
    groups = groups.reshape(-1, GROUP)
    needed = np.ceil(np.log2(np.bitwise_or.reduce(groups, 1) + 1.0)) - 8
    noise = np.floor(np.log2(np.maximum(groups.sum(1, dtype=np.uint32) // GROUP, 0.5))) + 1 - 2
    bits = np.where((needed > 4) | (noise >= 8), 8, np.where((needed > 0) | (noise >= 4), 4, 0)).astype(np.uint8)
    lower = []
    for group, count in zip(groups.astype(np.uint8), bits, strict=True):
        low, high = group[: GROUP // 2], group[GROUP // 2 :]
        lower.append([b"", (low & 15 | high << 4).tobytes(), group.tobytes()][count // 4])
    upper = (groups >> bits[:, None]).astype(np.uint8).ravel()[: len(values)]
    rest = b"".join(lower)
    return [upper.tobytes(), bits.tobytes(), rest.ljust(len(values) - len(bits), b"\0") + b"\1"]


def unsplit(content: bytes, row: int) -> NDArray[Any]:
    """Back."""
    values = np.empty(len(content) // 2, "<u2")
    packed_volume.undo(np.frombuffer(content, np.uint8), "split", row, values)
    return values.view(np.uint8)


def unpredict(block: bytes, row: int) -> NDArray[Any]:
    """Back, by two running sums."""
    values = unshuffle(block).view("<u2")
    sign = values & 1
    values >>= 1
    values ^= -sign
    np.cumsum(values, out=values, dtype=values.dtype)
    if row:
        whole = len(values) // row * row
        rows, rest = values[:whole].reshape(-1, row), values[whole:]
        np.cumsum(rows, axis=0, out=rows, dtype=values.dtype)
        rest += values[whole - row :][: len(rest)] if whole else 0
    values ^= ((values >> 15) - 1) | 0x8000
    return values.view(np.uint8)


def codecs(row: int) -> list[Codec]:
    """The candidates, for volumes whose rows have so many values."""
    found = [
        Codec("raw float16", lambda block: bytes(bytearray(block)), lambda block: memoryview(bytearray(block))),
        Codec("deflate 6", lambda block: zlib.compress(block, 6), zlib.decompress),
    ]

    def zstd(level: int, more: dict[Any, int] | None = None) -> Callable[[bytes], bytes]:
        options = {pyzstd.CParameter.compressionLevel: level, pyzstd.CParameter.checksumFlag: 1, **(more or {})}
        return lambda block: pyzstd.compress(block, options)

    def after_shuffle(pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        return lambda block: pack(shuffle(block))

    def after_prediction(pack: Callable[[bytes], bytes], row: int) -> Callable[[bytes], bytes]:
        return lambda block: pack(predict(block, row))

    def unpredicted(row: int, frame: bytes) -> NDArray[Any]:
        return unpredict(pyzstd.decompress(frame), row)

    def in_parts(block: bytes) -> bytes:
        compressor, frame = pyzstd.ZstdCompressor({**sparse, pyzstd.CParameter.checksumFlag: 1}), b""
        parts = split(block, row)
        compressor._set_pledged_input_size(sum(map(len, parts)))
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            frame += compressor.compress(part, compressor.FLUSH_FRAME if last else compressor.FLUSH_BLOCK)
        return frame

    found += [Codec(f"zstd {level}", zstd(level), pyzstd.decompress) for level in (1, 3)]
    longer, longest = (
        {pyzstd.CParameter.strategy: pyzstd.Strategy.dfast, pyzstd.CParameter.minMatch: length} for length in (6, 7)
    )
    sparse: dict[Any, int] = {
        pyzstd.CParameter.strategy: pyzstd.Strategy.fast,
        pyzstd.CParameter.minMatch: 7,
        pyzstd.CParameter.hashLog: 6,
        pyzstd.CParameter.targetLength: 32,
        1002: 1,  # ZSTD_c_literalCompressionMode, which pyzstd has no name for: what is between the matches is packed
    }
    for name, pack in (
        ("1, longer matches", zstd(1, longer)),  # what earlier versions made of level 1
        *((str(level), zstd(level)) for level in (1, 3, 9)),
    ):
        found.append(
            Codec(
                f"shuffle + zstd {name}",
                after_shuffle(pack),
                lambda frame: unshuffle(pyzstd.decompress(frame)),
            )
        )
    for name, length, pack in (
        ("left value alone + shuffle + zstd 1, sparse search", 0, zstd(1, sparse)),
        ("prediction + shuffle + zstd 1, longer matches", row, zstd(1, longest)),
        ("prediction + shuffle + zstd 1, sparse search", row, zstd(1, sparse)),
        ("prediction + shuffle + zstd 9", row, zstd(9)),
    ):
        found.append(
            Codec(
                name,
                after_prediction(pack, length),
                partial(unpredicted, length),
            )
        )
    found.append(
        Codec(
            "prediction + split + zstd 1, sparse search",  # what the program makes of level 1
            in_parts,
            lambda frame: unsplit(pyzstd.decompress(frame), row),
        )
    )
    blosc2.set_nthreads(1)
    for codec, level in ((blosc2.Codec.LZ4, 5), (blosc2.Codec.ZSTD, 1), (blosc2.Codec.ZSTD, 5)):
        for filter_ in (blosc2.Filter.SHUFFLE, blosc2.Filter.BITSHUFFLE):
            found.append(
                Codec(
                    f"Blosc2 {filter_.name.lower()} + {codec.name.lower()} {level}",
                    partial(
                        blosc2.compress2,
                        codec=codec,
                        clevel=level,
                        filters=[filter_],
                        typesize=2,
                        nthreads=1,
                        blocksize=0,
                    ),
                    lambda frame: blosc2.decompress2(frame, nthreads=1),
                )
            )
    return found


def measured(codec: Codec, blocks: list[bytes]) -> tuple[int, float, float, float]:
    """Packed bytes; seconds to pack, to unpack, and to unpack one block of the middle. Checks what comes back."""
    begin = time.thread_time()
    packed = [codec.pack(block) for block in blocks]
    encode = time.thread_time() - begin
    begin = time.thread_time()
    for frame in packed:
        codec.unpack(frame)
    decode = time.thread_time() - begin
    begin = time.thread_time()
    codec.unpack(packed[len(packed) // 2])
    one = time.thread_time() - begin
    for block, frame in zip(blocks, packed, strict=True):
        if bytes(codec.unpack(frame)) != block:
            raise SystemExit(f"{codec.name}: it does not give back what it was given")
    return sum(map(len, packed)), encode, decode, one


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256, help="voxels of height and width; half of it is the depth")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, in turns; the median counts")
    parser.add_argument("--block-kib", type=int, default=256, help="size of a block; that of the shards is 256")
    arguments = parser.parse_args()
    for sigma in (10, 20):
        volume = phantom(arguments.side, sigma)
        blocks = in_blocks(volume, arguments.block_kib << 10)
        candidates = codecs(volume.shape[-1])
        runs: dict[str, list[tuple[int, float, float, float]]] = {codec.name: [] for codec in candidates}
        for _ in range(arguments.runs):
            for codec in candidates:
                runs[codec.name].append(measured(codec, blocks))
        print(f"\nNoise of {sigma} HU, {volume.nbytes / 2**20:.0f} MiB, median of {arguments.runs} runs\n")
        print(f"| codec | bytes of raw float16 | encode GB/s | decode GB/s | one block of {arguments.block_kib} KiB |")
        print("|---|---|---|---|---|")
        for name, results in runs.items():
            size, encode, decode, one = (statistics.median(column) for column in zip(*results, strict=True))
            speeds = f"{volume.nbytes / encode / 1e9:.2f} | {volume.nbytes / decode / 1e9:.2f}"
            print(f"| {name} | {100 * size / volume.nbytes:.1f} % | {speeds} | {one * 1e6:.0f} µs |")


if __name__ == "__main__":
    main()

"""The filters of compressed blocks, undone by NumPy: in the package and in `scripts/packed_volume.py`, against a
definition that is written value by value."""

from __future__ import annotations

import numpy as np
import packed_volume
import packing
import pytest
from ctwds import packed

NAMES = [end[1:].removesuffix(".zst") for end in packed.FILTERS]


def undone(member: bytes, name: str, size: int) -> list[bytes]:
    """What each reader makes of a member."""
    out, view = bytearray(size), memoryview(member)
    packed.unpack(view, packed.seek_table(view), packed.FILTERS[f".{name}.zst"], memoryview(out))
    return [bytes(out), packed_volume.unpack(member, name).tobytes()]


@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_every_length_and_rows_of_every_kind(name: str) -> None:
    """Rows that are longer than a block, of one value, of a prime number; blocks that end within a row."""
    width = packing.width_of(name)
    for count in (*range(1, 40), 997):
        plain = packing.example(np.random.default_rng(count), count, width).tobytes()
        for row in (1, 2, 7, 31, 64, 5000) if name.startswith("predict") else (0,):
            for values in (count, 17):
                member = packing.packed(plain, name, row, values * width)
                assert undone(member, name, len(plain)) == [plain, plain], (count, row, values)


def test_every_float16_comes_back() -> None:
    """Also NaN, infinities, both zeros and what is not normal."""
    every = np.arange(1 << 16, dtype="<u2")
    for values in (every, every[::-1], np.random.default_rng(0).permutation(every)):
        for row in (1, 251, 4096):
            member = packing.packed(values.tobytes(), "predict", row, 50_000)
            assert undone(member, "predict", 2 << 16) == [values.tobytes()] * 2


@pytest.mark.parametrize("at", range(16))
def test_a_damaged_length_of_rows_is_an_error(at: int) -> None:
    """Other values would come of it."""
    member = bytearray(packing.packed(bytes(range(200)), "predict", 10))
    member[at] ^= 1
    with pytest.raises(ValueError, match="rows"):
        packed.unpack(
            memoryview(member),
            packed.seek_table(memoryview(member)),
            packed.FILTERS[".predict.zst"],
            memoryview(bytearray(200)),
        )
    with pytest.raises(ValueError, match="rows"):
        packed_volume.unpack(bytes(member), "predict")


def test_suffixes() -> None:
    """What is no filter stays a suffix."""
    assert packed.plain_suffix("bin.predict.zst") == ("bin", packed.Filter(2, "halves"))
    assert packed.plain_suffix("mask.npy.shuffle1.zst") == ("mask.npy", packed.Filter(1))
    assert packed.plain_suffix("bin") == ("bin", None)
    assert packed.plain_suffix("bin.predict3.zst") == ("bin.predict3.zst", None)

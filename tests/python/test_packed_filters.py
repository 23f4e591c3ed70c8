"""The filters of compressed blocks, undone in Python: by the package's extension, by its NumPy, and by
`scripts/packed_volume.py`, against a definition that is written value by value. What is damaged, all refuse alike."""

from __future__ import annotations

import numpy as np
import packed_volume
import packing
import pytest
from ctwds import PackageMissing, _native, packed
from packed_damages import DAMAGES, heads

NAMES = list(packed.FILTERS)


def by_numpy(member: bytes, name: str) -> bytes:
    """What the package makes of a member without its extension."""
    view = memoryview(member)
    table = packed.seek_table(view)
    out = bytearray(int(table[:, 1].sum()))
    packed.unpack_by_numpy(view, table, packed.FILTERS[name], memoryview(out))
    return bytes(out)


def by_extension(member: bytes, name: str) -> bytes:
    """What it makes of the member with it."""
    assert packed.native_unpack() is _native.unpack_member
    view = memoryview(member)
    table = packed.seek_table(view)
    out = bytearray(int(table[:, 1].sum()))
    packed.unpack(view, table, name, memoryview(out))
    return bytes(out)


def undone(member: bytes, name: str) -> list[bytes]:
    """What each reader makes of a member."""
    return [by_numpy(member, name), by_extension(member, name), packed_volume.unpack(member, name).tobytes()]


@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_every_length_and_rows_of_every_kind(name: str) -> None:
    """Rows that are longer than a block, of one value, of a prime number; blocks that end within a row."""
    width = packing.width_of(name)
    for count in (*range(1, 40), 997):
        plain = packing.example(np.random.default_rng(count), count, width).tobytes()
        for row in (1, 2, 7, 31, 64, 5000) if name.startswith("predict") else (0,):
            for values in (count, 17):
                member = packing.packed(plain, name, row, values * width)
                assert undone(member, name) == [plain] * 3, (count, row, values)


def test_every_float16_comes_back() -> None:
    """Also NaN, infinities, both zeros and what is not normal."""
    every = np.arange(1 << 16, dtype="<u2")
    for values in (every, every[::-1], np.random.default_rng(0).permutation(every)):
        for row in (1, 251, 4096):
            member = packing.packed(values.tobytes(), "predict", row, 50_000)
            assert undone(member, "predict") == [values.tobytes()] * 3


@pytest.mark.parametrize("at", range(16))
def test_a_damaged_length_of_rows_is_an_error(at: int) -> None:
    """Other values would come of it."""
    member = bytearray(packing.packed(bytes(range(200)), "predict", 10))
    member[at] ^= 1
    for reader in (by_numpy, by_extension):
        with pytest.raises(ValueError, match="rows"):
            reader(bytes(member), "predict")
    with pytest.raises(ValueError, match="rows"):
        packed_volume.unpack(bytes(member), "predict")


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_damaged_both_refuse_or_read_alike(name: str) -> None:
    """Every kind of damage that is known, and a changed bit in many bytes; what is no damage for a filter, such as half
    a value where a value is a byte, gives both the same bytes."""
    width = packing.width_of(name)
    plain = packing.example(np.random.default_rng(3), 1500, width).tobytes()
    right = packing.packed(plain, name, 37, 600 * width)
    wrong = {kind: damage.do(right) for kind, damage in DAMAGES.items() if heads(right) or "rows'" not in kind}
    wrong |= {f"byte {at}": right[:at] + bytes([right[at] ^ 4]) + right[at + 1 :] for at in range(0, len(right), 7)}
    refused = 0
    for kind, member in wrong.items():
        found: list[bytes | None] = []
        for reader in (by_numpy, by_extension):
            try:
                found.append(reader(member, name))
            except ValueError:
                found.append(None)
        assert found[0] == found[1], kind
        refused += found[0] is None
    assert refused > len(wrong) * 0.9


def test_suffixes() -> None:
    """A later version's filter is one as well, and is refused when it is to be undone."""
    assert packed.plain_suffix("bin.predict.zst") == ("bin", "predict")
    assert packed.plain_suffix("mask.npy.shuffle1.zst") == ("mask.npy", "shuffle1")
    assert packed.plain_suffix("bin") == ("bin", "")
    assert packed.plain_suffix("bin.predict3.zst") == ("bin", "predict3")
    with pytest.raises(PackageMissing, match="install that version"):
        packed.filter_of("predict3")

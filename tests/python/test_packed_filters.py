"""The filters of compressed blocks, undone in Python: by the package's extension, by its NumPy, and by
`scripts/packed_volume.py`, against a definition that is written value by value. What is damaged, all refuse alike."""

from __future__ import annotations

import numpy as np
import packed_volume
import packing
import pytest
import pyzstd
from ctwds import PackageMissing, _native, packed
from packed_damages import DAMAGES, frame_of, frames_of, heads

NAMES = list(packed.FILTERS)


def by_numpy(member: bytes, name: str) -> bytes:
    """What the package makes of a member without its extension."""
    view = memoryview(member)
    table = packed.seek_table(view)
    out = bytearray(packed.plain_length(table, name))
    packed.unpack_by_numpy(view, table, packed.FILTERS[name], memoryview(out))
    return bytes(out)


def by_extension(member: bytes, name: str) -> bytes:
    """What it makes of the member with it."""
    assert packed.native_unpack() is _native.unpack_member
    view = memoryview(member)
    table = packed.seek_table(view)
    out = bytearray(packed.plain_length(table, name))
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
        for row in (0,) if name.startswith("shuffle") else (1, 2, 7, 31, 64, 5000):
            for values in (count, 17):
                member = packing.packed(plain, name, row, values * width)
                assert undone(member, name) == [plain] * 3, (count, row, values)


@pytest.mark.parametrize("name", ["split", "split2"])
def test_split_blocks_of_every_way(name: str) -> None:
    """Smooth values, whole numbers and random ones, in blocks of every length and rows of every kind; groups that have
    0, 4 or 8 lower bits, in any order."""
    rng, ways = np.random.default_rng(7), set()
    for count in (*range(1, 70), 95, 96, 97, 997, 5000):
        noise = rng.normal(0, rng.choice([1, 40, 300], -(-count // 32)).repeat(32)[:count])
        smooth = noise + 500 * np.sin(np.arange(count) / 50)
        for values in (smooth / 1000, np.rint(smooth), rng.integers(-(1 << 15), 1 << 15, count)):
            plain = values.astype("<f2" if name == "split" else "<i2").tobytes()
            for row in (1, 2, 7, 31, 32, 64, 6000):
                for block in (2 * count, 2 * 61):
                    member = packing.packed(plain, name, row, block)
                    ways |= {pyzstd.decompress(frame)[-1] for frame, size in frames_of(member) if size}
                    assert undone(member, name) == [plain] * 3, (count, row, block)
    assert ways == ({0, 1, 2} if name == "split" else {0, 1})


@pytest.mark.parametrize("name", ["predict", "split"])
def test_every_float16_comes_back(name: str) -> None:
    """Also NaN, infinities, both zeros and what is not normal."""
    every = np.arange(1 << 16, dtype="<u2")
    small = every[np.abs(every.view("<f2")) < 1 << 15]  # NaN is not
    whole = small[np.rint(small.view("<f2")) == small.view("<f2")]
    for values in (every, every[::-1], np.random.default_rng(0).permutation(every), whole):
        for row in (1, 251, 4096):
            member = packing.packed(values.tobytes(), name, row, 50_000)
            assert undone(member, name) == [values.tobytes()] * 3
    if name == "split":
        assert {pyzstd.decompress(frame)[-1] for frame, size in frames_of(member) if size} == {2}
    assert 0x8000 in whole and 0xF800 not in whole  # -0.0, and -32768


@pytest.mark.parametrize("name", ["predict", "split"])
@pytest.mark.parametrize("at", range(16))
def test_a_damaged_length_of_rows_is_an_error(at: int, name: str) -> None:
    """Other values would come of it."""
    member = bytearray(packing.packed(bytes(range(200)), name, 10))
    member[at] ^= 1
    for reader in (by_numpy, by_extension, packed_volume.unpack):
        with pytest.raises(ValueError, match="rows"):
            reader(bytes(member), name)


@pytest.mark.parametrize("name", ["split", "split2"])
def test_a_split_block_that_says_what_cannot_be_is_an_error(name: str) -> None:
    """In a sound frame: by all readers, with the reason."""
    plain = np.arange(200, dtype="<f2" if name == "split" else "<i2").tobytes()
    (head, none), _ = frames_of(packing.packed(plain, name, 10))
    rest = bytes(200 - 7)
    wrong = {
        "does not know": [bytes(400) + bytes([way]) for way in (3, 4, 255)],
        "lower bits": [bytes(200) + bytes([0, bits]) + bytes(5) + rest + b"\1" for bits in (1, 2, 3, 5, 12, 16, 255)]
        + [bytes(200) + b"\x08" * 7 + rest + b"\1"],
        "whole values|part of a value": [b"", b"\1", bytes(402)],
    }
    if name == "split2":  # whole numbers of float16
        wrong["does not know"].append(bytes(400) + b"\2")
    for reason, contents in wrong.items():
        for content in contents:
            member = packing.member_of([(head, none), frame_of(content), frame_of(bytes(401))])
            for reader in (by_numpy, packed_volume.unpack):
                with pytest.raises(ValueError, match=reason):
                    reader(member, name)
            if content:
                with pytest.raises(ValueError, match="block"):
                    by_extension(member, name)


@pytest.mark.parametrize("name", ["split", "split2"])
def test_split_blocks_that_no_writer_makes_are_read_alike(name: str) -> None:
    """Any bytes in a sound frame, with numbers of lower bits that are right and wrong: the same bytes, or an error."""
    rng, read = np.random.default_rng(11), 0
    for _ in range(3000):
        count, row = int(rng.integers(1, 300)), int(rng.choice([1, 5, 32, 100, 1000]))
        content = rng.integers(0, 256, 2 * count + 1).astype(np.uint8)
        groups = content[count : count + -(-count // 32)]
        groups[:] = rng.choice([0, 4, 8, 7], len(groups), p=[0.4, 0.4, 0.198, 0.002])
        content[-1] = rng.choice([0, 1, 2, 3], p=[0.1, 0.44, 0.44, 0.02])
        (head, none), _ = frames_of(packing.packed(b"1234", name, row))
        member = packing.member_of([(head, none), frame_of(content.tobytes())])
        found: list[bytes | None] = []
        for reader in (by_numpy, by_extension, lambda *given: packed_volume.unpack(*given).tobytes()):
            try:
                found.append(reader(member, name))
            except ValueError:
                found.append(None)
        assert found[0] == found[1] == found[2], (count, row, content.tolist())
        read += found[0] is not None
    assert 500 < read < 2990


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_damaged_both_refuse_or_read_alike(name: str) -> None:
    """Every kind of damage that is known, and a changed bit in many bytes; what is no damage for a filter, such as half
    a value where a value is a byte, gives both the same bytes."""
    width = packing.width_of(name)
    plain = packing.example(np.random.default_rng(3), 1500, width).tobytes()
    right = packing.packed(plain, name, 37, 600 * width)
    splits = name.startswith("split")
    known = {kind: damage for kind, damage in DAMAGES.items() if splits or not damage.of_split}
    wrong = {kind: damage.do(right) for kind, damage in known.items() if heads(right) or "rows'" not in kind}
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
    assert packed.plain_suffix("bin.split.zst") == ("bin", "split")
    assert packed.plain_suffix("bin.predict.zst") == ("bin", "predict")
    assert packed.plain_suffix("mask.npy.shuffle1.zst") == ("mask.npy", "shuffle1")
    assert packed.plain_suffix("bin") == ("bin", "")
    assert packed.plain_suffix("bin.split3.zst") == ("bin", "split3")
    with pytest.raises(PackageMissing, match="install that version"):
        packed.filter_of("split3")

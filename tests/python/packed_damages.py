"""Everything that can be wrong with the volume of a compressed shard, each as a function that does it to one member."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import packed_volume
from damages import FIRST, Member, members_of, write_shard
from packing import member_of, shuffled
from pyzstd import CParameter, compress, decompress

FOOTER = 9
Frame = tuple[bytes, int]  # packed, and how many bytes it holds


def frames_of(member: bytes) -> list[Frame]:
    """The blocks of a member."""
    frames, at = [], 0
    for packed, plain in packed_volume.seek_table(member).tolist():
        frames.append((member[at : at + packed], plain))
        at += packed
    return frames


def frames(change: Callable[[list[Frame]], list[Frame]]) -> Callable[[bytes], bytes]:
    """Other blocks, and a seek table that is right for them."""

    def do(member: bytes) -> bytes:
        found = frames_of(member)
        heads = [frame for frame in found if not frame[1]]
        return member_of(heads + change(found[len(heads) :]))

    return do


def heads(member: bytes) -> int:
    """How many frames stand before the first block: one if values are predicted, with the length of their rows."""
    return sum(not plain for _, plain in frames_of(member))


def bit(at: Callable[[bytes], int]) -> Callable[[bytes], bytes]:
    """One bit is another one."""

    def do(member: bytes) -> bytes:
        place = at(member) % len(member)
        return member[:place] + bytes([member[place] ^ 0x10]) + member[place + 1 :]

    return do


def row(block: int, field: int) -> Callable[[bytes], int]:
    """Where a field of the seek table is: 0 the packed size, 1 that of the content, 2 the checksum."""

    def at(member: bytes) -> int:
        rows = len(packed_volume.seek_table(member))
        return len(member) - FOOTER - 12 * rows + 12 * (block + heads(member)) + 4 * field

    return at


def start(block: int) -> Callable[[bytes], int]:
    """Where a block begins."""
    return lambda member: int(packed_volume.seek_table(member)[: block + heads(member), 0].sum())


def table(member: bytes) -> int:
    """Where the seek table's rows begin."""
    return len(member) - FOOTER - 12 * len(packed_volume.seek_table(member))


def swapped_bytes(member: bytes) -> bytes:
    """The first two blocks in each other's place; the seek table as it was."""
    first, second, end = start(0)(member), start(1)(member), start(2)(member)
    return member[:first] + member[second:end] + member[first:second] + member[end:]


def lost(member: bytes) -> bytes:
    """The second block is zeros."""
    begin, end = start(1)(member), start(2)(member)
    return member[:begin] + bytes(end - begin) + member[end:]


def without_checksum(all_frames: list[Frame]) -> list[Frame]:
    """The first block anew, and nothing at its end that could be compared."""
    plain = decompress(all_frames[0][0])
    return [(compress(plain, {CParameter.checksumFlag: 0}), len(plain)), *all_frames[1:]]


def frame_of(content: bytes) -> Frame:
    """A sound frame, whatever it holds."""
    return compress(content, {CParameter.checksumFlag: 1}), len(content)


def shorter(member: bytes) -> bytes:
    """The last block of a member of split float16 is sound, but has not its last value."""
    head, *others, last = frames_of(member)
    plain = packed_volume.unpack(member_of([head, last])).tobytes()
    return member_of([head, *others, frame_of(shuffled(plain[:-2], 2) + b"\0")])


def way(number: int) -> Callable[[bytes], bytes]:
    """The first block says that it was made in this way."""
    return frames(lambda all_: [frame_of(decompress(all_[0][0])[:-1] + bytes([number])), *all_[1:]])


def lower_bits(*numbers: int) -> Callable[[bytes], bytes]:
    """The first block's groups say in turn that they have so many lower bits."""

    def change(all_frames: list[Frame]) -> list[Frame]:
        values = all_frames[0][1] // 2
        groups = -(-values // 32)
        content = bytes(values) + bytes(numbers[n % len(numbers)] for n in range(groups))
        return [frame_of(content.ljust(2 * values, b"\0") + b"\1"), *all_frames[1:]]

    return frames(change)


@dataclass(frozen=True)
class Damage:
    """What is done to the member, what verify must say, and whether only split values can have it."""

    do: Callable[[bytes], bytes]
    says: str
    of_split: bool = False


DAMAGES = {
    "first block": Damage(bit(lambda member: (start(0)(member) + start(1)(member)) // 2), "block 0"),
    "last block": Damage(bit(lambda member: start(2)(member) + 1000), "block 2"),
    "block's magic number": Damage(bit(start(1)), "block 1: it is no zstd frame"),
    "block's checksum": Damage(bit(lambda member: start(2)(member) - 1), "block 1: its checksum"),
    "block lost": Damage(lost, "block 1: it is no zstd frame"),
    "block cut": Damage(frames(lambda all_: [(all_[0][0][:-9], all_[0][1]), *all_[1:]]), "block 0"),
    "block with more behind it": Damage(
        frames(lambda all_: [(all_[0][0] + b"more" + all_[0][0][-4:], all_[0][1]), *all_[1:]]), "block 0"
    ),
    "block missing": Damage(frames(lambda all_: all_[:-1]), "voxels of float16"),
    "block twice": Damage(frames(lambda all_: [all_[0], *all_]), "voxels of float16"),
    "blocks swapped": Damage(swapped_bytes, "block 0"),
    "block without a checksum": Damage(frames(without_checksum), "block 0: it has no checksum"),
    "block of another size": Damage(frames(lambda all_: [(all_[0][0], all_[0][1] - 2), *all_[1:]]), "does not hold"),
    "half a value": Damage(frames(lambda all_: [(all_[0][0], all_[0][1] - 1), *all_[1:]]), "no reader takes"),
    "packed size in the seek table": Damage(bit(row(0, 0)), "seek table is of"),
    "plain size in the seek table": Damage(bit(row(1, 1)), "block 1"),
    "checksum in the seek table": Damage(bit(row(2, 2)), "block 2: its checksum is not that of the seek table"),
    "seek table's head": Damage(bit(lambda member: table(member) - 8), "skippable frame"),
    "seek table's length": Damage(bit(lambda member: table(member) - 4), "skippable frame"),
    "number of blocks": Damage(bit(lambda member: -FOOTER), "seek table"),
    "reserved bits": Damage(bit(lambda member: -5), "reserved"),
    "seek table's magic number": Damage(bit(lambda member: -1), "not at its end"),
    "member cut": Damage(lambda member: member[:-1], "not at its end"),
    "seek table missing": Damage(lambda member: member[: start(3)(member)], "not at its end"),
    "rows' length": Damage(bit(lambda member: 8), "rows"),
    "frame of the rows' length": Damage(bit(lambda member: 0), "rows"),
    "checksum of the rows' length": Damage(bit(lambda member: 15), "rows"),
    "rows' length missing": Damage(lambda member: member_of(frames_of(member)[1:]), "rows"),
    "entry of the rows' length": Damage(bit(row(-1, 2)), "rows"),
    "way of a later version": Damage(way(3), "block 0: it was made in a way", of_split=True),
    "number of lower bits": Damage(lower_bits(0, 4, 5), "block 0: it says that values of group 2", of_split=True),
    "too many lower bits": Damage(lower_bits(8), "block 0: it ends before the lower bits", of_split=True),
    "empty": Damage(lambda member: b"", "not at its end"),
}


def apply(folder: Path, do: Callable[[bytes], bytes]) -> None:
    """Damages the first volume of the first shard; the tar headers are right for what comes of it."""
    (name, payload), *others = members_of(folder / FIRST)
    assert name.endswith(packed_volume.SUFFIX) and do(payload) != payload
    first: Member = (name, do(payload))
    write_shard(folder / FIRST, [first, *others])

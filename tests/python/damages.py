"""Everything that can be wrong with a folder of shards, each as a function that does it to one."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import payload

FIRST, SECOND = "shard-000000.tar", "shard-000001.tar"
DAMAGED, INCOMPLETE, UNCHECKED = 3, 4, 5  # exit codes
VOLUME, JSON, TEXT, LABELS = range(4)  # members of a sample
Member = tuple[str, bytes]


@dataclass(frozen=True)
class Damage:
    """What is done to the folder, and what verify must say."""

    do: Callable[[Path], object]
    says: str
    code: int = DAMAGED
    # Whether the shards themselves tell, without their digests: else only a comparison with the sources does.
    shows: bool = True
    # Whether the manifest is what was damaged.
    of_manifest: bool = False


def members_of(shard: Path) -> list[Member]:
    """Names and payloads."""
    with tarfile.open(shard) as tar:
        return [(info.name, payload(tar, info)) for info in tar]


def write_shard(shard: Path, members: list[Member]) -> None:
    """As the converter writes it."""
    with tarfile.open(shard, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, payload in members:
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            tar.addfile(info, io.BytesIO(payload))


def rewritten(edit: Callable[[list[Member]], list[Member]]) -> Callable[[Path], object]:
    """The first shard with other members."""
    return lambda folder: write_shard(folder / FIRST, edit(members_of(folder / FIRST)))


def with_payload(at: int, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Another payload for a member of the first sample."""

    def edit(members: list[Member]) -> list[Member]:
        name, payload = members[at]
        assert change(payload) != payload
        return [*members[:at], (name, change(payload)), *members[at + 1 :]]

    return rewritten(edit)


def with_json(field: str, value: object) -> Callable[[Path], object]:
    """Another value in the first sample's JSON."""
    return with_payload(JSON, lambda payload: json.dumps(json.loads(payload) | {field: value}).encode())


def flipped(place: Callable[[list[tarfile.TarInfo]], int]) -> Callable[[Path], object]:
    """One byte of the first shard is another one."""

    def do(folder: Path) -> None:
        content = bytearray((folder / FIRST).read_bytes())
        with tarfile.open(folder / FIRST) as tar:
            content[place(tar.getmembers())] ^= 0x04
        (folder / FIRST).write_bytes(content)

    return do


def cut(length: Callable[[int, list[tarfile.TarInfo]], int]) -> Callable[[Path], object]:
    """The first shard ends too early."""

    def do(folder: Path) -> None:
        content = (folder / FIRST).read_bytes()
        with tarfile.open(folder / FIRST) as tar:
            (folder / FIRST).write_bytes(content[: length(len(content), tar.getmembers())])

    return do


def appended(more: bytes) -> Callable[[Path], object]:
    """The first shard goes on behind its end."""
    return lambda folder: (folder / FIRST).write_bytes((folder / FIRST).read_bytes() + more)


def swapped(folder: Path) -> None:
    """Two shards have each other's name."""
    (folder / FIRST).rename(folder / "x")
    (folder / SECOND).rename(folder / FIRST)
    (folder / "x").rename(folder / SECOND)


def in_manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Something else in the manifest."""

    def do(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return do


def recompute(folder: Path) -> None:
    """Sizes and digests of the shards as they are now, as whoever damages them on purpose would do it."""

    def change(manifest: dict[str, Any]) -> None:
        for shard in manifest["shards"]:
            path = folder / shard["name"]
            if path.exists():
                content = path.read_bytes()
                shard["size"], shard["sha256"] = len(content), hashlib.sha256(content).hexdigest()

    in_manifest(change)(folder)


DAMAGES = {
    # Only a digest or the source tells.
    "voxel": Damage(flipped(lambda members: members[0].offset_data + 300), "SHA-256", shows=False),
    "last voxel": Damage(flipped(lambda members: members[0].offset_data + members[0].size - 1), "SHA-256", shows=False),
    "text": Damage(flipped(lambda members: members[2].offset_data), "SHA-256", shows=False),
    "label": Damage(flipped(lambda members: members[3].offset_data + members[3].size - 2), "SHA-256", shows=False),
    "number in the JSON": Damage(with_json("RescaleSlope", 2.0), "SHA-256", shows=False),
    # The shard tells.
    "tar header": Damage(flipped(lambda members: members[5].offset + 3), "checksum"),
    "tar header's size": Damage(flipped(lambda members: members[4].offset + 130), "checksum"),
    "padding": Damage(flipped(lambda members: members[1].offset_data + members[1].size), "padding"),
    "end": Damage(flipped(lambda members: members[-1].offset_data + 512), "sum"),
    "JSON": Damage(with_payload(JSON, lambda payload: payload[:-1]), "JSON"),
    "JSON without an id": Damage(with_json("study_id", ""), "study_id"),
    "another id": Damage(with_json("study_id", "v05"), "'v05'"),
    "shape": Damage(with_json("volume_shape", [8, 8, 9]), "volume_shape is [8,8,9]"),
    "both shapes": Damage(with_payload(JSON, lambda payload: payload.replace(b"[8, 8, 8]", b"[8, 8, 9]")), "[8, 8, 9]"),
    "dtype": Damage(with_json("volume_dtype", "float32"), "volume_dtype"),
    "kind": Damage(with_json("volume_kind", "cooked"), "volume_kind"),
    "text that is none": Damage(with_payload(TEXT, lambda payload: b"\xff" + payload), "UTF-8"),
    "half a text": Damage(with_payload(TEXT, lambda payload: payload.split(b"\n")[0]), "line break"),
    "cut in a member": Damage(cut(lambda _, members: members[0].offset_data + 100), "cut short"),
    "cut in a header": Damage(cut(lambda _, members: members[6].offset + 100), "entire block"),
    "cut behind a member": Damage(cut(lambda _, members: members[4].offset), "the file has"),
    "cut in the end": Damage(cut(lambda size, _: size - 512), "the file has"),
    "empty": Damage(cut(lambda *_: 0), "the file has"),
    "something appended": Damage(appended(b"x" * 100), "padding"),
    "zeros appended": Damage(appended(bytes(10_240)), "the file has"),
    "swapped shards": Damage(swapped, "of another shard"),
    "duplicate key": Damage(rewritten(lambda members: members[:4] + members), "its members are"),
    "duplicate key behind others": Damage(rewritten(lambda members: members + members[:4]), "twice"),
    "order of samples": Damage(rewritten(lambda members: members[4:] + members[:4]), "out of order"),
    "order of members": Damage(rewritten(lambda members: [members[1], members[0], *members[2:]]), "its members are"),
    "member missing": Damage(rewritten(lambda members: members[:2] + members[3:]), "its members are"),
    "volume missing": Damage(rewritten(lambda members: members[1:]), "its members are"),
    "member too many": Damage(rewritten(lambda members: [*members, (members[-1][0] + ".bak", b"")]), "its members are"),
    "strange key": Damage(rewritten(lambda members: [*members, ("readme.txt", b"\n")]), "six digits"),
    "labels missing": Damage(with_payload(LABELS, lambda payload: payload[:-4]), "labels"),
    "half a label": Damage(with_payload(LABELS, lambda payload: payload[:-1]), ""),
    "volume cut short": Damage(with_payload(VOLUME, lambda payload: payload[:-2]), "bytes"),
    "unknown sample": Damage(
        rewritten(
            lambda members: members + [(f"000000_000007.{name.split('.', 1)[1]}", data) for name, data in members[:4]]
        ),
        "does not name this sample",
    ),
    "sample missing": Damage(rewritten(lambda members: members[:4] + members[8:]), "is missing", INCOMPLETE),
    "shard missing": Damage(lambda folder: (folder / SECOND).unlink(), "shard-000001.tar: it is missing", INCOMPLETE),
    "shard too many": Damage(
        lambda folder: shutil.copy(folder / FIRST, folder / "shard-000009.tar"), "does not name it"
    ),
    "foreign tar": Damage(lambda folder: shutil.copy(folder / FIRST, folder / "copy.tar"), "copy.tar"),
    "unfinished shard": Damage(
        lambda folder: (folder / "shard-000002.tar.node07-12-345-0.partial").write_bytes(b""), "unfinished", INCOMPLETE
    ),
    "unfinished shard of version 0.1": Damage(
        lambda folder: (folder / "shard-000002.tar.partial").write_bytes(b""), "unfinished", INCOMPLETE
    ),
    # The manifest is wrong.
    "manifest missing": Damage(
        lambda folder: (folder / "manifest.json").unlink(), "has not finished", INCOMPLETE, of_manifest=True
    ),
    "manifest cut": Damage(lambda folder: (folder / "manifest.json").write_text("{"), "no manifest", of_manifest=True),
    "digest": Damage(
        in_manifest(lambda manifest: manifest["shards"][0].update(sha256="0" * 64)), "SHA-256", of_manifest=True
    ),
    "size": Damage(
        in_manifest(lambda manifest: manifest["shards"][1].update(size=5)),
        "bytes, and 5 in the manifest",
        of_manifest=True,
    ),
    "total": Damage(
        in_manifest(
            lambda manifest: manifest.update(total_samples=5, average_sample_size_mb=manifest["total_size_mb"] / 5)
        ),
        "counts 5",
        of_manifest=True,
    ),
    "total size": Damage(
        in_manifest(lambda manifest: manifest.update(total_size_mb=1.0, average_sample_size_mb=1 / 6)),
        "total_size_mb",
        of_manifest=True,
    ),
    "mean size": Damage(
        in_manifest(lambda manifest: manifest.update(average_sample_size_mb=1.0)),
        "average_sample_size_mb",
        of_manifest=True,
    ),
    "number of shards": Damage(
        in_manifest(lambda manifest: manifest.update(num_shards=3)), "num_shards", of_manifest=True
    ),
    "labels named": Damage(in_manifest(lambda manifest: manifest["label_names"].pop()), "labels", of_manifest=True),
    "studies swapped": Damage(
        in_manifest(lambda manifest: manifest["shards"][0]["samples"][0].update(study_id="v99")),
        "'v99' in the manifest",
        of_manifest=True,
    ),
    "order of samples in it": Damage(
        in_manifest(lambda manifest: manifest["shards"][0]["samples"].reverse()),
        "not in the order of the manifest",
        of_manifest=True,
    ),
    "a shard more": Damage(
        in_manifest(lambda manifest: manifest["shards"].append(manifest["shards"][0] | {"name": "shard-000002.tar"})),
        "shard-000002.tar: it is missing",
        of_manifest=True,
    ),
}

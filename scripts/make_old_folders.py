#!/usr/bin/env python3
r"""Write a set of output folders as one version of the program leaves them: finished, half done, in parts, reclaimed.

Run it once for each release, with that release's binary; `tests/python/test_old_folders.py` then shows that every later
build goes on in these folders. A set that is there is never written again: nobody's folders are.

    .venv/bin/python scripts/make_old_folders.py --program target/release/ctwds-fs --commit COMMIT \
        --out tests/fixtures/folders-VERSION
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from make_dataset import dataset_at
from old_folders_data import DATA

MTIME_NS = 1_767_225_600_123_456_789  # of every NPZ: the record of skipped samples has it
DEADLINE = 60  # seconds that a command may take
MOST_TRIES = 4000  # kills until one met the state that is wanted


# --- folders ---------------------------------------------------------------------------------------------------------


@dataclass
class Folder:
    """A folder and the command that made it; all paths are relative to the folder of the set."""

    data: str
    # What names the data set and determines the shards' bytes: those of materialize, verify, reclaim and plan.
    options: list[str]
    # What else materialize was told.
    output: list[str] = field(default_factory=list)
    # The folder of shards that materialize read, if it was no data set.
    shards: str | None = None
    # NPZ files that reclaim has removed.
    gone: list[str] = field(default_factory=list)

    def dataset(self) -> list[str]:
        """The flags of the data set."""
        if "--config" in self.options:
            return self.options
        return [*dataset_at(Path("data") / self.data).flags(), *self.options]

    def source(self) -> list[str]:
        """What materialize is given."""
        return ["--shards", f"folders/{self.shards}"] if self.shards else self.dataset()


TWO, THREE = ["--samples-per-shard", "2"], ["--samples-per-shard", "3"]
SHAPE = ["--shape", "10,8,6"]
STEPS = [
    "--volume",
    "preprocessed",
    "--dialect",
    "native",
    "--rescale",
    "0.1,-1000.5",
    "--resample",
    "always",
    "--spacing",
    "0.8,0.7,1.25",
    "--shape",
    "9,11,7",
    "--hu-range",
    "-900,1e3",
    "--pad-value",
    "-0.9",
]
CHOSEN = ["--where", "not b > 0.6", "--studies", "data/mixed/studies.txt", "--limit", "5"]

# Those that one run makes, or the runs of all parts.
FINISHED = {
    "stored": Folder("mixed", THREE),
    "stored-npy": Folder("mixed", [*THREE, "--format", "npy"]),
    "rescaled": Folder("mixed", [*THREE, "--volume", "rescaled"]),
    "rescaled-npy": Folder("mixed", [*THREE, "--volume", "rescaled", "--format", "npy"]),
    "preprocessed": Folder("mixed", [*THREE, "--volume", "preprocessed", *SHAPE]),
    "preprocessed-npy": Folder("mixed", [*THREE, "--volume", "preprocessed", "--format", "npy", *SHAPE]),
    "steps": Folder("mixed", [*THREE, *STEPS]),
    "rescale-none": Folder("mixed", [*THREE, "--volume", "rescaled", "--rescale", "none"]),
    "missing": Folder("mixed", [*THREE, "--missing-meta", "nan", "--missing-text", "nan", "--array", "data"]),
    "chosen": Folder("mixed", [*TWO, *CHOSEN]),
    "configured": Folder("mixed", [*THREE, "--config", "data/mixed/config.yaml", "--split", "train"]),
    "saturate": Folder("beyond", [*TWO, "--overflow", "saturate"]),
    "inf": Folder("beyond", [*TWO, "--overflow", "inf"]),
    "excluded": Folder("damaged", [*TWO, "--exclude", "data/damaged/bad.csv"]),
    "skipped": Folder("damaged", TWO, ["--on-error", "skip"]),
    "skipped-packed": Folder("damaged", TWO, ["--on-error", "skip", "--compress", "zstd"]),
    "packed": Folder("mixed", THREE, ["--compress", "zstd"]),
    "packed-npy": Folder("mixed", [*THREE, "--volume", "rescaled", "--format", "npy"], ["--compress", "zstd:9"]),
    "packed-preprocessed": Folder("mixed", [*THREE, "--volume", "preprocessed", *SHAPE], ["--compress", "zstd:3"]),
    "packed-blocks": Folder("large", TWO, ["--compress", "zstd"]),
    "unpacked": Folder("mixed", THREE, shards="packed"),
    "repacked": Folder("mixed", THREE, ["--compress", "zstd:2"], shards="stored"),
}


# Plans whose shards would take too much room here, or that no folder shows: of these, the digest alone is kept.
PLANS = [
    Folder("mixed", []),
    Folder("mixed", ["--volume", "preprocessed"]),
    Folder("mixed", ["--volume", "preprocessed", "--format", "npy", "--rescale", "table", "--resample", "never"]),
    Folder("mixed", ["--volume", "rescaled", "--dialect", "hu", "--overflow", "saturate"]),
    Folder("mixed", ["--volume", "rescaled", "--dialect", "normalized", "--overflow", "inf"]),
    Folder("mixed", ["--test-mode", "--missing-meta", "nan", "--samples-per-shard", "1"]),
]


class Maker:
    """The program at work in the folder of a set."""

    def __init__(self, program: Path, root: Path, cache: Path) -> None:
        self.program, self.root = program.resolve(), root.resolve()
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
        self.random = random.Random(1)
        self.made: dict[str, Folder] = {}

    def run(self, *arguments: object, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """A command; its exit code must be `code`, if that is given."""
        done = subprocess.run(
            [self.program, *map(str, arguments)],
            cwd=self.root,
            env=self.environment,
            timeout=DEADLINE,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if code is not None and done.returncode != code:
            raise RuntimeError(f"exit code {done.returncode}: {arguments}\n{done.stdout}{done.stderr}")
        return done

    def path(self, name: str) -> Path:
        """Where a folder is."""
        return self.root / "folders" / name

    def command(self, name: str, folder: Folder, *more: str) -> list[str]:
        """How materialize makes, or continues, a folder."""
        return ["materialize", *folder.source(), *folder.output, *more, "--output-dir", f"folders/{name}"]

    def make(self, name: str, folder: Folder, *, code: int = 0) -> Folder:
        """One run."""
        self.run(*self.command(name, folder), code=code)
        self.made[name] = folder
        return folder

    def digest(self, folder: Folder) -> str:
        """That of a plan."""
        return json.loads(self.run("plan", *folder.dataset(), "--json").stdout)["plan_digest"]

    def copied(self, old: str, name: str) -> Path:
        """A folder that begins as another one."""
        shutil.copytree(self.path(old), self.path(name))
        self.made[name] = self.made[old]
        return self.path(name)

    def stop_until(
        self, how: signal.Signals, command: list[str], begin: Callable[[], object], is_wanted: Callable[[], bool]
    ) -> None:
        """Begin anew and stop the command at some moment, until it left the state that is wanted."""
        for _ in range(MOST_TRIES):
            begin()
            process = subprocess.Popen(
                [self.program, *command],
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(self.random.uniform(0, 0.06))
            process.send_signal(how)
            if process.wait(timeout=DEADLINE) != 0 and is_wanted():
                return
        raise RuntimeError(f"{MOST_TRIES} times not the state that is wanted: {command}")

    def half(
        self,
        name: str,
        folder: Folder,
        how: signal.Signals,
        unfinished: str,
        begin: Callable[[], object] = lambda: None,
    ) -> None:
        """A run that is stopped when some of its shards are finished, and which left an unfinished file of such a name,
        or, where that is empty, none."""
        path = self.path(name)
        before: list[int] = []

        def is_wanted() -> bool:
            journals = [text.read_text() for text in (path / ".ctwds").glob("journal*")]
            tars, recorded = len(list(path.glob("*.tar"))), "".join(journals).count('"finished"')
            left = [part for part in path.glob("*.partial") if part.stat().st_size > 0]
            is_left = any(part.match(unfinished) for part in left) if unfinished else not left and tars < 4
            return is_left and before[-1] < tars == recorded and not (path / "manifest.json").exists()

        def begin_anew() -> None:
            shutil.rmtree(path, ignore_errors=True)
            begin()
            before.append(len(list(path.glob("*.tar"))))

        self.stop_until(how, self.command(name, folder, "--num-workers", "1"), begin_anew, is_wanted)
        self.made[name] = folder

    def all(self) -> None:
        """Every folder."""
        for name, folder in FINISHED.items():
            self.make(name, folder)
        self.make("failed", Folder("damaged", TWO), code=1)
        self.changed()
        self.parts()
        many = Folder("many", TWO)
        packed = Folder("many", TWO, ["--compress", "zstd"])
        self.half("half-killed", many, signal.SIGKILL, "shard-*.tar.*partial")
        self.half("half-killed-packed", packed, signal.SIGKILL, "shard-*.tar.*partial")
        self.half("half-indexed", many, signal.SIGKILL, "shard-*.idx.*partial")
        self.half("half-stopped", many, signal.SIGINT, "")
        self.reclaimed(many, packed)

    def changed(self) -> None:
        """Folders whose journals have more lines than one run's."""
        many, reports = Folder("many", TWO), self.root / "data" / "many" / "reports.csv"
        text = reports.read_bytes()
        reports.write_bytes(text.replace(b"Lungs of train_3_a_1", b"LUNGS of train_3_a_1"))
        self.make("changed", many)
        reports.write_bytes(text)
        self.make("changed", many)
        # A shard of which nothing is recorded, and which turns out to be right.
        self.path("adopted").mkdir()
        shutil.copy(self.path("changed") / "shard-000002.tar", self.path("adopted"))
        self.make("adopted", many)
        # Another one, which stays: what is made is not it.
        self.path("stranger").mkdir()
        shutil.copy(self.path("changed") / "shard-000001.tar", self.path("stranger") / "shard-000002.tar")
        self.make("stranger", many, code=1)
        rebuilt = self.copied("adopted", "rebuilt")
        shutil.rmtree(rebuilt / ".ctwds")
        (rebuilt / "manifest.json").unlink()
        self.run("manifest", "rebuild", "folders/rebuilt", *many.dataset())

    def parts(self) -> None:
        """One part of three; all, before and after they are merged; one part of two, and a half of the other."""
        part = [Folder("many", TWO, ["--partition", f"{index}/3"]) for index in range(3)]
        self.make("part", part[1])
        self.copied("part", "parts")
        for one in (part[0], part[2]):
            self.make("parts", one)
        self.copied("parts", "merged")
        self.run("manifest", "merge", "folders/merged")
        self.made["merged"] = Folder("many", TWO)
        for index in range(2):
            packed = ["--compress", "zstd", "--partition", f"{index}/2"]
            self.make("packed-parts", Folder("many", TWO, packed))
            self.make("skipped-parts", Folder("damaged", TWO, ["--on-error", "skip", "--partition", f"{index}/2"]))
        half = [Folder("many", ["--samples-per-shard", "1"], ["--partition", f"{index}/2"]) for index in range(2)]
        begin = self.command("half-part", half[0])
        self.half("half-part", half[1], signal.SIGKILL, "shard-*.tar.*partial", lambda: self.run(*begin))

    def reclaimed(self, many: Folder, packed: Folder) -> None:
        """Folders whose NPZ files were removed, all or, by a run that was killed, some."""
        for name, folder in {"reclaimed": many, "reclaimed-packed": packed, "reclaim-killed": many}.items():
            self.reclaim(name, folder)

    def reclaim(self, name: str, folder: Folder) -> None:
        """One folder whose NPZ files were removed; the data set is put back for the next."""
        self.make(name, folder)
        finished, data = self.path(name), self.root / "data" / "many" / "volumes"
        all_volumes = {path.name for path in data.iterdir()}
        with tempfile.TemporaryDirectory() as kept:
            saved = [shutil.copytree(data, Path(kept) / "data"), shutil.copytree(finished, Path(kept) / "shards")]

            def restore_data() -> None:
                shutil.copytree(saved[0], data, dirs_exist_ok=True)

            def begin() -> None:
                restore_data()
                shutil.rmtree(finished)
                shutil.copytree(saved[1], finished)

            def is_wanted() -> bool:
                journal = finished / ".ctwds" / "reclaim.jsonl"
                text = journal.read_text() if journal.exists() else ""
                left = len(list(data.iterdir()))
                return 0 < left < 7 and left % 2 == 1 and text.count('"removing"') > text.count('"removed"')

            command = ["reclaim", *folder.dataset(), "--shards", f"folders/{name}", "--delete", "--yes"]
            if name == "reclaim-killed":
                self.stop_until(signal.SIGKILL, [*command, "--num-workers", "1"], begin, is_wanted)
            else:
                self.run(*command)
            gone = sorted(all_volumes - {path.name for path in data.iterdir()})
            restore_data()
        self.made[name] = Folder(folder.data, folder.options, folder.output, gone=gone)


# --- what the program says of them -----------------------------------------------------------------------------------


def describe(maker: Maker, name: str, folder: Folder) -> dict[str, Any]:
    """What a test must know of a folder, and what the program that wrote it does with a copy of it."""
    with tempfile.TemporaryDirectory() as base:
        shutil.copytree(maker.root, base, dirs_exist_ok=True)
        copy = Maker(maker.program, Path(base), Path(base) / "cache")
        for path in folder.gone:
            (copy.root / "data" / folder.data / "volumes" / path).unlink()
        out = f"folders/{name}"
        plain = copy.run("materialize", "--shards", out, "--output-dir", "plain", code=None)
        verified = {
            "alone": copy.run("verify", "--webdataset-dir", out, code=None).returncode,
            "with_data": copy.run("verify", "--webdataset-dir", out, *folder.dataset(), code=None).returncode,
        }
        resumed = copy.run(*copy.command(name, folder), code=None)
        found = re.search(r"(\d+) shards? written, (\d+) kept", resumed.stdout)
        digests = {path.name: sha256(path) for path in sorted((copy.root / "plain").glob("*.tar"))}
        return {
            "data": folder.data,
            "dataset": folder.dataset(),
            "source": folder.source(),
            "output": folder.output,
            "shards_of": folder.shards,
            "gone": folder.gone,
            "resume": {"code": resumed.returncode, "written_kept": [int(n) for n in found.groups()] if found else None},
            "verify": verified,
            "plain_sha256": digests if plain.returncode == 0 else None,
        }


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Write the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True, help="the release's binary")
    parser.add_argument("--commit", required=True, help="the commit that it was built from")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the set, which must not be there")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    for name, write in DATA.items():
        dataset = dataset_at(arguments.out / "data" / name)
        dataset.folder.mkdir(parents=True)
        write(dataset)
        for path in dataset.volumes():
            os.utime(path, ns=(MTIME_NS, MTIME_NS))
    with tempfile.TemporaryDirectory() as cache:
        maker = Maker(arguments.program, arguments.out, Path(cache))
        (maker.root / "folders").mkdir()
        maker.all()
        index = {
            "commit": arguments.commit,
            "version": maker.run("--version").stdout.strip(),
            "mtime_ns": MTIME_NS,
            "plans": [{"flags": plan.dataset(), "plan_digest": maker.digest(plan)} for plan in PLANS],
            "folders": {name: describe(maker, name, folder) for name, folder in maker.made.items()},
        }
    text = json.dumps(index, indent=1, ensure_ascii=False) + "\n"
    (arguments.out / "folders.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

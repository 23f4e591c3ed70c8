"""Runs of `materialize` into a bucket, through a proxy that can make them wait, and kill them, at any request."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qs

from harness import Program, digest, shards
from make_dataset import Dataset
from objects import BUCKET, SECRET_KEY, Faults, Proxy, Storage, proxy, storage, variables

COUNT = 4  # shards of the fixture `slivers`
FLAGS = ("--samples-per-shard", 1)
PACKED = ("--compress", "zstd")
HELD = 60  # seconds for which a request waits at most
STATUS_DIR = ".ctwds"


def tree(folder: Path) -> dict[str, str]:
    """Digests of all files below a folder by their paths in it. Records of runs differ, and count by their names."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): "" if path.parent.name == STATUS_DIR else digest(path) for path in sorted(files)
    }


def upload_of(path: str) -> str:
    """The identity of the upload that a request is about."""
    return parse_qs(path.partition("?")[2])["uploadId"][0]


@dataclass
class Output:
    """An output folder in a bucket, and the proxy on the way there."""

    bucket: Storage
    between: Proxy
    prefix: str = "ct/out"

    @property
    def address(self) -> str:
        """What `--output-dir` is."""
        return f"s3://{BUCKET}/{self.prefix}"

    @property
    def folder(self) -> Path:
        """Where the server keeps the objects."""
        return self.bucket.folder / BUCKET / self.prefix

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a run."""
        return variables(self.between.port)

    def command(self, dataset: Dataset, *more: object) -> list[object]:
        """The arguments that write a data set there."""
        return ["materialize", *dataset.flags(), *FLAGS, "--output_dir", self.address, *more]

    def run(self, program: Program, dataset: Dataset, *more: object) -> subprocess.CompletedProcess[str]:
        """A run that must do its work."""
        return program.run(*self.command(dataset, *more), env=self.environment)

    def refuses(self, program: Program, dataset: Dataset, *more: object) -> str:
        """The message of a run that must fail, which tells no secret."""
        message = program.refuses(*self.command(dataset, *more), env=self.environment)
        assert SECRET_KEY not in message
        return message

    def journal(self, name: str = "journal.jsonl") -> list[dict[str, dict[str, object]]]:
        """The lines of the record; none if there is no record."""
        path = self.folder / STATUS_DIR / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def recorded(self, what: str, value: str) -> set[object]:
        """The values in the lines of one kind."""
        return {line[what][value] for line in self.journal() if what in line}

    def open_uploads(self) -> set[str]:
        """The identities of uploads that were begun, and neither completed nor aborted."""
        found = self.bucket.folder.glob(".upload-*.json")
        return {path.name.removeprefix(".upload-").removesuffix(".json") for path in found}

    def parts(self) -> set[str]:
        """The parts of uploads that the server keeps, and somebody pays for."""
        return {path.name for path in self.bucket.folder.glob(".upload_id-*.part-*")}

    def asked(self, kind: str) -> list[str]:
        """The paths of the requests of a kind since the faults were set."""
        faults = self.between.faults
        return [faults.requests[number][1] for number, found in enumerate(faults.kinds()) if found == kind]

    def assert_is(self, right: Path) -> None:
        """The objects are the files of a folder, no other ones, and nothing is left of uploads."""
        found, expected = tree(self.folder), tree(right)
        assert found == expected, sorted(path for path, _ in found.items() ^ expected.items())
        assert not self.parts()

    def assert_whole_shards(self, right: Path) -> None:
        """Every shard that is there is whole."""
        found = {path.name: digest(path) for path in shards(self.folder)}
        assert found.items() <= {path.name: digest(path) for path in shards(right)}.items()

    def assert_whole(self, right: Path) -> None:
        """Whatever has its final name is whole; and the manifest is there only with all that it speaks of."""
        found, expected = tree(self.folder), tree(right)
        assert found.items() <= expected.items()
        assert "manifest.json" not in found or found == expected


@contextlib.contextmanager
def output(folder: Path) -> Iterator[Output]:
    """A new output in a bucket of its own."""
    with storage(folder) as bucket, proxy(bucket.port) as between:
        yield Output(bucket, between)


@dataclass
class Gate:
    """Holds a run at the first request of a kind, and all its later requests, until it is opened."""

    kind: str
    faults: Faults = field(default_factory=Faults)
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)
    # How many requests of the kind pass before.
    passing: int = 0

    def __post_init__(self) -> None:
        self.faults.status = self.status

    def status(self, path: str, number: int) -> int:
        """Let the request wait if it is time."""
        if self.faults.kinds()[: number + 1].count(self.kind) > self.passing and self.faults.kind(number) == self.kind:
            self.reached.set()
        if self.reached.is_set():
            self.opened.wait(HELD)
        return 0


@contextlib.contextmanager
def held(
    program: Program, port: int, command: list[object], kind: str, passing: int = 0
) -> Iterator[tuple[subprocess.Popen[str], Gate]]:
    """A run that waits at a request to the server at this port. It goes on when the gate is opened."""
    gate = Gate(kind, passing=passing)
    with proxy(port) as between:
        between.faults = gate.faults
        try:
            with program.running(*command, env=variables(between.port)) as process:
                if not gate.reached.wait(HELD):
                    process.kill()
                    raise AssertionError(f"the run makes no request to {kind}: {process.communicate()}")
                yield process, gate
        finally:
            gate.opened.set()
            between.settle()


def killed_at(
    program: Program, output: Output, command: list[object], moment: int | str, *, is_done: bool
) -> subprocess.CompletedProcess[str] | None:
    """Run a command and kill it with its request of that number, or its first one of that kind: before the storage has
    it, or when the storage has done what it asks. The end of the run if it makes no such request."""
    started, process = threading.Event(), list[subprocess.Popen[str]]()
    faults = output.between.faults = Faults()

    def strike(path: str, number: int) -> bool:
        if moment not in (number, faults.kind(number)):
            return False
        started.wait(HELD)
        process[0].kill()
        return True

    if is_done:
        faults.lost = strike
    else:
        faults.status = lambda path, number: -1 if strike(path, number) else 0
    with program.running(*command, env=output.environment) as run:
        process.append(run)
        started.set()
        said = run.communicate(timeout=HELD)
    output.between.settle()
    if run.returncode == -9:
        return None
    return subprocess.CompletedProcess(run.args, run.returncode, *said)


def every_other(faults: Faults, *kinds: str) -> Callable[[str, int], bool]:
    """Picks the first, third, fifth, … request with the same path and method, of these kinds."""
    seen: Counter[tuple[str, str]] = Counter()

    def pick(path: str, number: int) -> bool:
        if faults.kind(number) not in kinds:
            return False
        with faults.lock:
            seen[faults.requests[number][0], path] += 1
            return seen[faults.requests[number][0], path] % 2 == 1

    return pick


def changed(dataset: Dataset, study: str, tmp_path: Path) -> Dataset:
    """The data set with another text of the same length for one study: a plan that differs in one shard."""
    text, reports = dataset.reports.read_text(), tmp_path / "reports.csv"
    reports.write_text(text.replace(f"findings of {study}", f"FINDINGS of {study}"))
    assert reports.read_text() != text
    return replace(dataset, reports=reports)

"""Starts reading processes together, and ends them whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import IO, Any

from bench import Failure

DEADLINE = 240  # seconds for one run of all readers; the slowest takes some ten
PATIENCE = 20  # seconds that others' packages have to remove their semaphores and files
BLOCK = 1 << 20  # bytes that a plain reader asks for


def start(job: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A reader in a session of its own, so that its own workers can be ended with it."""
    python, module = job.pop("python", sys.executable), job.pop("module", "bench.worker")
    process = subprocess.Popen(
        [python, "-W", "ignore", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )
    tell(process, json.dumps(job))
    return process


def pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """A reader's stdin and stdout, which `start` opened."""
    assert process.stdin is not None and process.stdout is not None
    return process.stdin, process.stdout


def tell(process: subprocess.Popen[bytes], line: str) -> None:
    """Send a line; one who is dead already is noticed when his answer is missing."""
    with contextlib.suppress(BrokenPipeError):
        os.write(pipes(process)[0].fileno(), line.encode() + b"\n")


def hear(process: subprocess.Popen[bytes], deadline: float) -> str:
    """The next line of a reader."""
    received, stdout = b"", pipes(process)[1]
    while not received.endswith(b"\n"):
        ready, _, _ = select.select([stdout], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            raise Failure(f"a reader gave no answer within {DEADLINE} s")
        piece = os.read(stdout.fileno(), 65536)
        if not piece:
            raise Failure("a reader failed; its message is above")
        received += piece
    return received.decode()


def end(process: subprocess.Popen[bytes], patience: float = 0) -> None:
    """End a reader and its workers, after so many seconds in which it may end by itself. One that waits for a dead
    mount ends only when that mount is aborted, later."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=patience)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in pipes(process):
        pipe.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)


def work(kind: str, shares: list[list[str]], **options: Any) -> list[dict[str, Any]]:
    """One reader a share of the paths, all begun at once; what each of them answered."""
    deadline = time.monotonic() + DEADLINE
    options = {"block": BLOCK, "passes": 1} | options
    readers: list[subprocess.Popen[bytes]] = []
    patience = 0
    try:
        readers.extend(start({"kind": kind, "paths": paths, **options}) for paths in shares)
        for reader in readers:
            hear(reader, deadline)
        for reader in readers:
            tell(reader, "go")
        answers = [json.loads(hear(reader, deadline)) for reader in readers]
        patience = PATIENCE if "module" in options else 0
        return answers
    finally:
        for reader in readers:
            end(reader, patience)

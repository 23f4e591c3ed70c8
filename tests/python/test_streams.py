"""Standard output and standard error that are closed, full, read by nobody, or a terminal that is gone: messages and
progress change nothing, and a result that cannot be written is exit code 1 after the work is safe."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from every_command import COMMANDS, Place
from harness import SMALL_FLAGS, Program, require_fuse

DEADLINE = 60  # seconds; a command takes less than one


@contextmanager
def full() -> Iterator[int]:
    """A device without room."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@contextmanager
def read_only() -> Iterator[int]:
    """A descriptor that nothing can be written to."""
    descriptor = os.open("/dev/null", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@contextmanager
def closed_pipe() -> Iterator[int]:
    """A pipe whose reader has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextmanager
def lost_terminal() -> Iterator[int]:
    """A terminal whose window is closed."""
    window, terminal = pty.openpty()
    os.close(window)
    yield terminal
    os.close(terminal)


STREAMS = {"full": full, "read only": read_only, "closed pipe": closed_pipe, "lost terminal": lost_terminal}


def run(program: Program, place: Place, name: str, wrong: dict[str, int]) -> int:
    """The exit code of a command with these standard streams; the others are read."""
    command = COMMANDS[name]
    command.run_before(program, place)
    arguments = [str(program.path), *map(str, command.arguments(place))]
    environment = os.environ | {"RUST_LOG": "info"}
    # Files, not pipes: a daemon that kept one open is another test's matter.
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL) | wrong
    done = subprocess.run(arguments, check=False, timeout=DEADLINE, env=environment, **streams)  # type: ignore[call-overload] # names of streams
    return done.returncode


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("state", STREAMS)
def test_standard_error_changes_nothing(program: Program, place: Place, name: str, state: str) -> None:
    """The exit code is that of an undisturbed run, and the work is done."""
    require_fuse()
    with STREAMS[state]() as stream:
        code = run(program, place, name, {"stderr": stream})
    assert code == COMMANDS[name].code
    assert COMMANDS[name].made(place, code)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("state", STREAMS)
def test_a_result_that_cannot_be_written(program: Program, place: Place, name: str, state: str) -> None:
    """It is exit code 1 after the work is safe, and the reason is on standard error; a reader that has enough is no
    fault."""
    require_fuse()
    command = COMMANDS[name]
    fails = command.prints and state != "closed pipe"
    message = place.out.parent / "stderr"
    with STREAMS[state]() as stream, message.open("wb") as stderr:
        code = run(program, place, name, {"stdout": stream, "stderr": stderr.fileno()})
    assert code == (1 if fails else command.code), message.read_text()
    assert command.made(place, code)
    assert ("ctwds-fs: error: cannot print" in message.read_text()) == fails and "panicked" not in message.read_text()


@pytest.mark.parametrize("name", ["materialize", "unmount", "run", "verify --sources"])
def test_both_streams_are_lost(program: Program, place: Place, name: str) -> None:
    """As after the end of a session under nohup: the work is done, and the code is that of the result, or of the
    command that was run."""
    with lost_terminal() as terminal:
        code = run(program, place, name, {"stdout": terminal, "stderr": terminal})
    assert code == (1 if COMMANDS[name].prints else COMMANDS[name].code)
    assert COMMANDS[name].made(place, code)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_stream_that_is_closed_from_the_start(program: Program, place: Place, name: str, stream: str) -> None:
    """The work is done as if nobody listened; no file of the command takes the stream's number."""
    command = COMMANDS[name]
    command.run_before(program, place)
    number = {"stdout": 1, "stderr": 2}[stream]
    shell = ["sh", "-c", f'exec "$@" {number}>&-', "sh", str(program.path), *map(str, command.arguments(place))]
    nowhere = subprocess.DEVNULL
    done = subprocess.run(shell, check=False, timeout=DEADLINE, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    code = done.returncode
    assert code == command.code
    assert command.made(place, code)


def test_a_pipe_that_others_made_non_blocking(program: Program, place: Place) -> None:
    """A result that is larger than the pipe arrives whole, although writes are refused while it is full."""
    expected = program.run("plan", "--json", *place.data.flags(), "--samples-per-shard", 1).stdout
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"\0" * 4096)
    command = [str(program.path), "plan", "--json", *place.data.flags(), "--samples-per-shard", "1"]
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True) as process:
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            assert pipe.read().lstrip(b"\0").decode() == expected
        assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("ignored", [True, False], ids=["nohup", "plain"])
def test_the_terminal_is_lost_in_the_middle(program: Program, place: Place, ignored: bool) -> None:
    """Under nohup a conversion goes on; else it ends in order, with nothing unfinished, and the next run goes on."""
    flags = ("--samples-per-shard", 1, "--num-workers", 1)
    command = [str(program.path), *map(str, COMMANDS["materialize"].arguments(place)), *map(str, flags)]
    for flag in SMALL_FLAGS:
        command.remove(str(flag))
    pid, window = pty.fork()
    if pid == 0:  # the command, whose controlling terminal this is
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        os.execv(command[0], command)
    assert os.read(window, 1)  # it has said something
    os.close(window)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    names = {path.name for path in place.out.iterdir()}
    assert not [name for name in names if name.endswith(".partial")]
    if "manifest.json" not in names:
        assert not ignored and code in (128 + signal.SIGHUP, -signal.SIGHUP)
    else:
        assert code == 1  # the result cannot be written
    program.run("materialize", *place.data.flags(), "--samples-per-shard", 1, "--output-dir", place.out)
    assert (place.out / "manifest.json").exists()

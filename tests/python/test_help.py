"""What a user reads before anything runs: help in a terminal of 80 or 100 columns, completions, manual pages."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from harness import Program


def commands(program: Program) -> list[list[str]]:
    """The program, all its commands, and those of `manifest` and `cache`."""
    listed = program.run("--help").stdout.partition("Commands:")[2].partition("General:")[0]
    names = [[name] for name in re.findall(r"^ {2}([a-z]+) ", listed, re.MULTILINE) if name != "help"]
    assert len(names) >= 14
    return [[], *names, ["manifest", "merge"], ["manifest", "rebuild"], ["cache", "ls"], ["cache", "clear"]]


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_help_fits_the_terminal(program: Program, columns: int, flag: str) -> None:
    """No line is longer than the terminal is wide, and each help has an example."""
    environment = os.environ | {"COLUMNS": str(columns)}
    for command in commands(program):
        text = program.run(*command, flag, env=environment).stdout
        assert [line for line in text.splitlines() if len(line) > columns] == [], command
        assert "\nExample: ctwds-fs " in text and "\nUsage: ctwds-fs" in text and "\x1b" not in text


def test_help_is_never_wider_than_100_columns(program: Program) -> None:
    """Long lines are hard to read, however wide a terminal is."""
    for columns in ("200", ""):
        text = program.run("mount", "--help", env=os.environ | {"COLUMNS": columns}).stdout
        assert 90 < max(len(line) for line in text.splitlines()) <= 100


def test_the_short_help_is_short(program: Program) -> None:
    """The command's own arguments, those that most data sets need, and where the others are."""
    short, long = (program.run("materialize", flag).stdout for flag in ("-h", "--help"))
    assert len(short.splitlines()) < 60 < len(long.splitlines())
    for name in ("--output-dir", "--compress", "--data-folder", "--labels-file"):
        assert name in short and name in long, name
    assert "--pad-value" not in short and "--pad-value" in long and "see --help" in short
    assert long.index("--output-dir <DIR>\n") < long.index("--data-folder <DIR>\n")
    headings = re.findall(r"^([A-Z][a-z]+):$", long, re.MULTILINE)
    assert headings == ["Options", "Input", "Selection", "Volume", "Performance", "Output", "General"]


def in_a_terminal(program: Program, columns: int, *arguments: str) -> str:
    """What the program writes on a terminal that is so wide, and says so itself."""
    window, terminal = pty.openpty()
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"NO_COLOR": "1"}
        command = [str(program.path), *arguments]
        process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
        os.close(terminal)
        said = b""
        with contextlib.suppress(OSError):  # EIO is the end
            while piece := os.read(window, 1 << 16):
                said += piece
        assert process.wait(30) == 0
    finally:
        os.close(window)
    return said.decode().replace("\r\n", "\n")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("columns", [80, 100])
def test_every_help_in_a_terminal(program: Program, columns: int) -> None:
    """It fits, and no line of a list, such as that of the exit codes, is broken in two."""
    for command in commands(program):
        for flag in ("-h", "--help"):
            text = in_a_terminal(program, columns, *command, flag)
            assert [line for line in text.splitlines() if len(line) > columns] == [], command
            codes = text.partition("\nExit codes:\n")[2].splitlines()
            known = re.compile(r"  \d+ +\S|The first of 3|$")
            assert [line for line in codes if not known.match(line)] == [], (command, flag)


def test_the_examples_fit_the_place(program: Program) -> None:
    """Where a ctwds.toml is found, the first example needs no flag of the data set; `reclaim` names the file."""
    for command in commands(program):
        text = program.run(*command, "-h").stdout
        (first, *_) = text.partition("\nExample: ")[2].splitlines()
        if "--data-folder" in text and command != ["reclaim"]:
            assert first.endswith("# beside ctwds.toml") and "--data-folder" not in first, first
    assert "--dataset ctwds.toml" in program.run("reclaim", "-h").stdout.partition("\nExample: ")[2].splitlines()[0]
    assert "ctwds-fs init --yes" in program.run("init", "-h").stdout


def test_completions(program: Program, tmp_path: Path) -> None:
    """bash completes commands, options and their values; zsh and fish take their scripts where these are installed."""
    script = tmp_path / "ctwds-fs.bash"
    script.write_text(program.run("completions", "bash").stdout)
    for words, at, expected in (
        (["ctwds-fs", "mat"], 1, ["materialize"]),
        (["ctwds-fs", "umo"], 1, ["umount"]),
        (["ctwds-fs", "plan", "--label"], 2, ["--labels-file", "--label-columns", "--labels-empty"]),
        (["ctwds-fs", "mount", "--volume", "re"], 3, ["rescaled"]),
    ):
        quoted = " ".join(f"'{word}'" for word in words)
        function = "$(complete -p ctwds-fs | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
        call = f"{function} ctwds-fs {words[at]} {words[at - 1]}"
        line = f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={at}; {call}; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30, check=True)
        assert sorted(done.stdout.split()) == sorted(expected), (words, done.stderr)
    for shell in ("zsh", "fish"):
        text = program.run("completions", shell).stdout
        assert "ctwds-fs" in text and "labels-file" in text
        for hidden in ("--daemon", "--parent", "daemon:", "-l daemon"):
            assert hidden not in text, (shell, hidden)
        if shutil.which(shell):
            done = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True, timeout=30, check=False)
            assert done.returncode == 0, done.stderr
    assert program.run("completions", "tcsh", check=False).returncode == 2


def test_manual_pages(program: Program, tmp_path: Path) -> None:
    """One of each command, which groff takes without a word where it is installed."""
    folder = tmp_path / "share" / "man1"
    assert "manual pages" in program.run("man", folder).stdout
    pages = sorted(path.name for path in folder.iterdir())
    assert pages == sorted(f"{'-'.join(['ctwds-fs', *command])}.1" for command in commands(program))
    page = (folder / "ctwds-fs-materialize.1").read_text()
    for text in (".SH EXAMPLE", ".SH VOLUME", "\\-\\-output\\-dir", "\\-\\-pad\\-value"):
        assert text in page, text
    assert ".SH NOTES" in (folder / "ctwds-fs-verify.1").read_text()
    assert "daemon\\fR" not in (folder / "ctwds-fs-mount.1").read_text()
    if shutil.which("groff"):
        for path in folder.iterdir():
            done = subprocess.run(
                ["groff", "-man", "-Kutf8", "-Tutf8", "-ww", path], capture_output=True, timeout=30, check=True
            )
            assert done.stderr == b"", path
    program.run("man", folder)  # again: the pages are made anew


def test_umount_is_unmount(program: Program, tmp_path: Path) -> None:
    """The name that people know from mount(8)."""
    for command in ("unmount", "umount"):
        assert "nothing is mounted here" in program.refuses(command, tmp_path)

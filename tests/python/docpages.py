"""The project's Markdown pages as the tests of the documentation read them. Needs neither the program nor a build."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import REPOSITORY

FENCE = re.compile(r"^ *```(\w*)\s*$")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    language: str
    line: int
    lines: tuple[str, ...]

    def commands(self) -> Iterator[str]:
        """Its lines as a shell takes them: joined where one ends with a backslash, without comments of their own."""
        pending = ""
        for line in self.lines:
            pending += line
            if pending.endswith("\\"):
                pending = pending[:-1]
                continue
            if pending.strip() and not pending.lstrip().startswith("#"):
                yield pending.strip()
            pending = ""
        assert not pending, f"line {self.line}: the last command of the block ends with a backslash"


@dataclass(frozen=True)
class Page:
    """A Markdown file."""

    path: Path
    prose: tuple[str, ...]
    blocks: tuple[Block, ...]

    @property
    def name(self) -> str:
        """As one would write it on the command line."""
        return str(self.path.relative_to(REPOSITORY))

    def anchors(self) -> set[str]:
        """What a link may name behind `#`, as GitHub makes it of the headings."""
        found: set[str] = set()
        for line in self.prose:
            if heading := HEADING.match(line):
                words = re.sub(r"[^\w\- ]", "", LINK.sub("", heading[1].replace("`", "")).lower()).replace(" ", "-")
                found.add(words)
        return found

    def links(self) -> list[str]:
        """The targets of all links."""
        return [target for line in self.prose for target in LINK.findall(CODE.sub("code", line))]

    def code(self) -> list[str]:
        """All code spans of the text."""
        return [span for line in self.prose for span in CODE.findall(line)]


def read(path: Path) -> Page:
    """A page, taken apart."""
    prose: list[str] = []
    blocks: list[Block] = []
    inside: tuple[str, int, list[str]] | None = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if inside is None and fence:
            inside = (fence[1], number, [])
        elif inside is not None and fence:
            blocks.append(Block(inside[0], inside[1], tuple(inside[2])))
            inside = None
        elif inside is not None:
            inside[2].append(line)
        else:
            prose.append(line)
    assert inside is None, f"{path}: the fence of line {inside and inside[1]} is not closed"
    return Page(path, tuple(prose), tuple(blocks))


def pages() -> list[Page]:
    """Every Markdown file of the repository, without what tools put there."""
    found = []
    for folder, folders, files in os.walk(REPOSITORY):
        folders[:] = [name for name in folders if name != "target" and not name.startswith(".")]
        found += [Path(folder, name) for name in files if name.endswith(".md")]
    return [read(path) for path in sorted(found)]


def manual() -> list[Page]:
    """What users read: the READMEs, in both languages, the pages of `docs/`, and the recipes."""
    readmes = [REPOSITORY / "README.md", REPOSITORY / "README.zh-CN.md"]
    return [
        read(path) for path in [*readmes, *sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "contrib/README.md"]
    ]

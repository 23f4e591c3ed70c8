"""A comment that silences a tool of Python says on its line why: whoever reads it can judge whether it still holds."""

from __future__ import annotations

import io
import re
import tokenize

import pytest
from harness import REPOSITORY

PLACES = ("scripts", "src", "tests")
MARK = re.compile(
    r"#\s*(noqa|type:\s*ignore|(fmt|yapf|isort|ruff|flake8|mypy|pyright|pylint|pragma):|nosec|NOSONAR)", re.IGNORECASE
)
# What belongs to a mark: rules in brackets, codes of rules, names of rules, and the words that marks are made of.
OF_MARK = re.compile(r"\[[^\]]*\]|\b[A-Z]+\d+\b|[\w-]+=[\w,-]+|\b(noqa|ignore|skip|off|on|no cover|file)\b[:,]?")
WORDS = 3  # fewer are no reason


def without_reason(source: str) -> list[int]:
    """The numbers of the lines with a mark and without a reason."""
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        mark = MARK.search(token.string) if token.type == tokenize.COMMENT else None
        if mark and len(re.findall(r"[^\W\d_]{2,}", OF_MARK.sub(" ", token.string[mark.end() :]))) < WORDS:
            found.append(token.start[0])
    return found


def test_every_mark_has_a_reason() -> None:
    """In all Python files of the repository."""
    paths = [path for place in PLACES for path in (REPOSITORY / place).rglob("*.py")]
    assert len(paths) > 80, "the files are somewhere else"
    found = [f"{path}:{line}" for path in paths for line in without_reason(path.read_text(encoding="utf-8"))]
    assert not found, f"these marks need a reason of {WORDS} words or more: {found}"


@pytest.mark.parametrize(
    "mark",
    [
        "# noqa",
        "# noqa: E402",
        "#noqa:E402,F401",
        "# type: ignore",
        "# type: ignore[arg-type, misc]",
        "# type: ignore[misc]  # see above",
        "# fmt: skip",
        "# fmt: off",
        "# ruff: noqa: E501",
        "# pylint: disable=too-many-lines,fixme",
        "# pragma: no cover",
        "# pyright: ignore[reportAny]",
    ],
)
def test_a_mark_without_a_reason_is_found(mark: str) -> None:
    """Each kind of mark; the same words in a string are none, and with a reason it is in order."""
    source = f'before = "{mark}"\nafter = 1  {mark}\n'
    assert without_reason(source) == [2]
    assert without_reason(f"after = 1  {mark} - the library has no types\n") == []

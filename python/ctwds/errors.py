"""What cannot be loaded: one hierarchy of exceptions, each with file, reason and remedy."""

from __future__ import annotations

import contextlib
import operator
import tokenize
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex, cast


class Error(Exception):
    """What the package raises. The message names the file, the reason and the remedy."""


class UsageError(Error, ValueError):
    """An argument is wrong. The message names it, and what is possible."""


class RefusedError(Error):
    """The data cannot be used with these options. The message names the option that helps."""


class DamagedError(Error):
    """A file or a table is damaged, or holds what is not supported. The message names the file and the fault."""


class ChangedError(Error):
    """A file is no longer the one that was planned. The message names the file and what differs."""


class UnknownStudyError(Error, KeyError):
    """There is no such study. The message names it, and says why if it was left out."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # a KeyError would quote it


class ReadError(Error, OSError):
    """The operating system refused to read a file, or to give memory or threads. The message has its reason."""


class LoaderError(Error, RuntimeError):
    """Something cannot be loaded. The message names it, the reason and the remedy."""


class PackageMissing(Error, ImportError):
    """A package that is not installed is needed for this. The message says how to install it."""


class LengthUnknown(LoaderError, TypeError):
    """There is no manifest. `list(loader)`, which asks for the length as a hint, goes on at a TypeError."""


def choice(name: str, value: object, allowed: Sequence[object]) -> Any:
    """The value of an option, if it is one of those there are."""
    if value not in allowed:
        raise LoaderError(f"{name} is {value!r}; it must be one of: {', '.join(map(repr, allowed))}")
    return value


def whole_number(name: str, value: object, least: int, most: int = 2**64 - 1) -> int:
    """The value of an option that is a whole number, of Python, NumPy, or a tensor."""
    try:
        number = int(operator.index(cast("SupportsIndex", value)))
    except TypeError as error:
        raise UsageError(f"{name} is {value!r}; it must be a whole number") from error
    if not least <= number <= most:
        bound = f"at least {least}" if number < least else f"at most {most}"
        raise UsageError(f"{name} is {number}; it must be {bound}")
    return number


@contextlib.contextmanager
def npy_errors() -> Iterator[None]:
    """What NumPy raises of the header of an array, as ValueError: of a damaged one it lets errors of Python's parser
    through."""
    try:
        yield
    except (SyntaxError, TypeError, RecursionError, tokenize.TokenError) as error:
        raise ValueError(f"the array's header cannot be read ({error})") from error

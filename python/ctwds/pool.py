"""Memory of batches that is used again."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


class Pool:
    """Arrays that are used again when nobody else has them any more: the first touch of memory costs more than the
    decoding. A tensor, and every view of it, refers to the array that it was made of."""

    def __init__(self, most: int) -> None:
        self._arrays: list[NDArray[Any]] = []
        self._most = most
        self._alone = self._references([np.empty(0)], 0)

    @staticmethod
    def _references(arrays: list[NDArray[Any]], place: int) -> int:
        return sys.getrefcount(arrays[place])

    def array(self, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array of this shape and dtype, with any values."""
        for place in range(len(self._arrays)):
            if self._references(self._arrays, place) == self._alone:
                found = self._arrays[place]
                if found.shape == shape and found.dtype == dtype:
                    return found
        made = np.empty(shape, dtype)
        if len(self._arrays) >= self._most:
            free = [n for n in range(len(self._arrays)) if self._references(self._arrays, n) == self._alone]
            if not free:
                return made  # somebody keeps batches: theirs stay as they are
            del self._arrays[free[0]]
        self._arrays.append(made)
        return made

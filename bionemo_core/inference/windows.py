"""Sequences that are longer than a model: cut into windows that overlap, and put together again.

The rule: windows are as long as the model takes; each begins `length - overlap` after the one before, and the last
ends with the sequence. Whatever a model says of a residue is the mean over the windows that hold it, each with the
same weight; everything else, an embedding or a likelihood, is computed from these means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bionemo_core.errors import ConfigError, DataError

ON_LONG = ("error", "truncate", "window")


class Window(NamedTuple):
    """A stretch of a sequence, in residues."""

    start: int
    stop: int


def windows(num_residues: int, length: int, overlap: int) -> list[Window]:
    """Return the windows that cover a sequence; one window if the sequence fits.

    Raises:
        ConfigError: windows would not advance.
    """
    if not 0 <= overlap < length:
        raise ConfigError(f"window_overlap: {overlap} residues, expected 0 to {length - 1}: a window holds {length}.")
    if num_residues <= length:
        return [Window(0, num_residues)]
    starts = [*range(0, num_residues - length, length - overlap), num_residues - length]
    return [Window(start, start + length) for start in starts]


class LongRule(NamedTuple):
    """What to do with a sequence that is longer than the model."""

    on_long: str
    max_residues: int
    overlap: int

    def check(self) -> LongRule:
        """Check the rule, and return it.

        Raises:
            ConfigError: it cannot.
        """
        if self.on_long not in ON_LONG:
            raise ConfigError(f"on_long: got {self.on_long!r}, expected one of {', '.join(ON_LONG)}.")
        windows(0, self.max_residues, self.overlap)
        return self

    def of(self, num_residues: int, name: str) -> list[Window]:
        """Return the parts of a sequence that the model is given.

        Raises:
            DataError: it is too long and the rule says error.
        """
        if num_residues <= self.max_residues:
            return [Window(0, num_residues)]
        if self.on_long == "truncate":
            return [Window(0, self.max_residues)]
        if self.on_long == "window":
            return windows(num_residues, self.max_residues, self.overlap)
        raise DataError(
            f"sequence {name!r} has {num_residues:,} tokens, the model takes {self.max_residues:,}. Set "
            "on_long=window for windows that overlap, or on_long=truncate."
        )


def averaged(parts: Sequence[NDArray[np.float32]], places: Sequence[Window], num_residues: int) -> NDArray[np.float32]:
    """Average the windows' values of each residue, float32 [residues, width]."""
    total = np.zeros((num_residues, *parts[0].shape[1:]), dtype=np.float64)
    count = np.zeros((num_residues, *(1,) * (parts[0].ndim - 1)))
    for part, place in zip(parts, places, strict=True):
        total[place.start : place.stop] += part
        count[place.start : place.stop] += 1
    return (total / count).astype(np.float32)

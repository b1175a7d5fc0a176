"""Sequences that are longer than a model's limit: cut into overlapping windows whose results are joined.

Windows are as long as the model allows; each begins `length - overlap` after the one before, and the last ends with
the sequence. A residue's hidden state and logits are the means over all windows that contain it, with equal weights;
embeddings and likelihoods are computed from these means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bionemo_core.errors import ConfigError, DataError
from bionemo_core.protocols import Tokenizer

ON_LONG = ("error", "truncate", "window")


class Window(NamedTuple):
    """A part of a sequence: its first residue, and the end (exclusive)."""

    start: int
    stop: int


def split_windows(num_residues: int, length: int, overlap: int) -> list[Window]:
    """Return the windows that cover a sequence; a single one if the sequence is short enough.

    Raises:
        ConfigError: the overlap is negative, or not below the length of a window.
    """
    if not 0 <= overlap < length:
        raise ConfigError(
            f"window_overlap: got {overlap} tokens, expected 0 to {length - 1}, since a window has {length}."
        )
    if num_residues <= length:
        return [Window(0, num_residues)]
    starts = [*range(0, num_residues - length, length - overlap), num_residues - length]
    return [Window(start, start + length) for start in starts]


def centred_window(centre: int, num_residues: int, length: int) -> Window:
    """Return the window around a residue, moved to lie within the sequence; all of it if that is short enough.

    The rule is ProteinGym's: half of the window lies before the residue, unless an end of the sequence is closer.
    """
    if num_residues <= length:
        return Window(0, num_residues)
    start = min(max(centre - length // 2, 0), num_residues - length)
    return Window(start, start + length)


class LongRule(NamedTuple):
    """The rule for sequences that are longer than the model's limit."""

    on_long: str
    max_residues: int
    overlap: int
    actions: tuple[str, ...] = ("window", "truncate")
    """What can be done with a longer sequence by this model."""
    prefix: str = ""
    """What the keys begin with in messages: `task.` if they come from the command line."""

    def check(self) -> LongRule:
        """Check the rule, and return it.

        Raises:
            ConfigError: `on_long` is unknown or impossible for the model, or the overlap is out of its range.
        """
        key = f"{self.prefix}on_long"
        if self.on_long not in ON_LONG:
            raise ConfigError(f"{key}: got {self.on_long!r}, expected one of {', '.join(('error', *self.actions))}.")
        if self.on_long != "error" and self.on_long not in self.actions:
            raise ConfigError(
                f"{key}={self.on_long}: this model cannot join the results of windows. Use {key}=truncate or error."
            )
        split_windows(0, self.max_residues, self.overlap)
        return self

    def is_long(self, sequence: str | bytes, tokenizer: Tokenizer) -> bool:
        """Return whether a sequence has more tokens than the limit; it has at most one per letter."""
        return len(sequence) > self.max_residues and len(tokenizer.encode(sequence)) > self.max_residues

    @property
    def advice(self) -> str:
        """The values that accept longer sequences, and what each does."""
        cut = f"{self.prefix}on_long=truncate to cut it"
        windows = f"{self.prefix}on_long=window to use overlapping windows, or "
        return f"{windows}{cut}" if "window" in self.actions else cut

    def windows_for(self, num_residues: int, name: str) -> list[Window]:
        """Return the windows of a sequence that the model gets.

        Raises:
            DataError: the sequence is too long, with `on_long=error`.
        """
        if num_residues <= self.max_residues:
            return [Window(0, num_residues)]
        if self.on_long == "truncate":
            return [Window(0, self.max_residues)]
        if self.on_long == "window":
            return split_windows(num_residues, self.max_residues, self.overlap)
        raise DataError(
            f"sequence {name!r} has {num_residues:,} tokens, but the model takes {self.max_residues:,}. "
            f"Set {self.advice}."
        )


def average_windows(
    parts: Sequence[NDArray[np.float32]], split_windows: Sequence[Window], num_residues: int
) -> NDArray[np.float32]:
    """Return the mean of each residue's rows over all windows that contain it, float32 [residues, width]."""
    total = np.zeros((num_residues, *parts[0].shape[1:]), dtype=np.float64)
    count = np.zeros((num_residues, *(1,) * (parts[0].ndim - 1)))
    for part, window in zip(parts, split_windows, strict=True):
        total[window.start : window.stop] += part
        count[window.start : window.stop] += 1
    return (total / count).astype(np.float32)

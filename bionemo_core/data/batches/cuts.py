"""How many sequences of a dataset are longer than an objective reads, and how much of the data that leaves out."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bionemo_core.plurals import format_count


class Cuts(NamedTuple):
    """The cut sequences of a dataset."""

    room: int
    """Tokens of a sequence that are read, from its start."""
    records: int
    cut: int | None
    """Sequences with more tokens; None if the dataset does not offer `lengths`."""
    lost: float = 0.0
    """Share of all tokens that is never read."""
    bounds: bool = False
    """Whether the lengths are upper bounds, because the dataset draws its records."""
    target_room: int | None = None
    """Of pairs: tokens of a target that are learnt, from its start; `room` is then that of a source."""

    @property
    def least_room(self) -> int:
        """Return the most tokens that no cut shortens, of either side of a pair."""
        return self.room if self.target_room is None else min(self.room, self.target_room)

    @property
    def text(self) -> str:
        """Return one line, or nothing if no sequence is cut."""
        if self.cut is None:
            return f"sequences of more than {format_count(self.room, 'token')} are cut; their number is unknown"
        if not self.cut:
            return ""
        if self.target_room is not None:
            return (
                f"{self.cut:,} of {format_count(self.records, 'pair')} are cut to the first "
                f"{format_count(self.room, 'token')} of the source and {self.target_room:,} of the target: "
                f"{self.lost:.1%} of all tokens are never read"
            )
        most = "up to " if self.bounds else ""
        return (
            f"{most}{self.cut:,} of {format_count(self.records, 'sequence')} are cut to their first "
            f"{format_count(self.room, 'token')}: "
            f"{most}{self.lost:.1%} of all tokens are never read"
        )


def room_of(objective: Any, seq_length: int) -> int | None:
    """Return the tokens of a sequence that an objective reads, without BOS and EOS; None if it does not say.

    An objective of tokens gets BOS, the sequence and EOS, cut to `seq_length`. One of records may say it as
    `max_tokens`.
    """
    if hasattr(objective, "record_example"):
        return getattr(objective, "max_tokens", None)
    return seq_length - 1


def count_cuts(records: Any, objective: Any, seq_length: int) -> Cuts | None:
    """Count the sequences of a dataset that an objective cuts; None if it does not say what it reads."""
    room = room_of(objective, seq_length)
    if room is None:
        return None
    lengths = getattr(records, "lengths", None)
    if lengths is None:
        return Cuts(room, len(records), None)
    lengths = np.asarray(lengths)
    if lengths.ndim == 2:
        return _count_cut_pairs(lengths, room, objective.max_target_tokens)
    excess = int(np.maximum(lengths - room, 0).sum(dtype=np.int64))
    cut = int(np.count_nonzero(lengths > room))
    total = max(1, int(lengths.sum(dtype=np.int64)))
    return Cuts(room, len(records), cut, excess / total, hasattr(records, "draw_record"))


def _count_cut_pairs(lengths: NDArray[np.integer], room: int, target_room: int) -> Cuts:
    """Count the pairs with a cut side; `lengths` are those of sources and targets, shape [records, 2]."""
    excess = np.maximum(lengths - np.array([room, target_room]), 0)
    cut = int(np.count_nonzero(excess.any(axis=1)))
    share = int(excess.sum(dtype=np.int64)) / max(1, int(lengths.sum(dtype=np.int64)))
    return Cuts(room, len(lengths), cut, share, target_room=target_room)

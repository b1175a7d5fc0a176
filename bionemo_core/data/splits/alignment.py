"""Ungapped alignments of many pairs of proteins at once, in numpy."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LETTERS = b"ARNDCQEGHILKMFPSTWYV"
OTHER, SEPARATOR = 20, 21
_BLOSUM62 = """
 4 -1 -2 -2  0 -1 -1  0 -2 -1 -1 -1 -1 -2 -1  1  0 -3 -2  0
-1  5  0 -2 -3  1  0 -2  0 -3 -2  2 -1 -3 -2 -1 -1 -3 -2 -3
-2  0  6  1 -3  0  0  0  1 -3 -3  0 -2 -3 -2  1  0 -4 -2 -3
-2 -2  1  6 -3  0  2 -1 -1 -3 -4 -1 -3 -3 -1  0 -1 -4 -3 -3
 0 -3 -3 -3  9 -3 -4 -3 -3 -1 -1 -3 -1 -2 -3 -1 -1 -2 -2 -1
-1  1  0  0 -3  5  2 -2  0 -3 -2  1  0 -3 -1  0 -1 -2 -1 -2
-1  0  0  2 -4  2  5 -2  0 -3 -3  1 -2 -3 -1  0 -1 -3 -2 -2
 0 -2  0 -1 -3 -2 -2  6 -2 -4 -4 -2 -3 -3 -2  0 -2 -2 -3 -3
-2  0  1 -1 -3  0  0 -2  8 -3 -3 -1 -2 -1 -2 -1 -2 -2  2 -3
-1 -3 -3 -3 -1 -3 -3 -4 -3  4  2 -3  1  0 -3 -2 -1 -3 -1  3
-1 -2 -3 -4 -1 -2 -3 -4 -3  2  4 -2  2  0 -3 -2 -1 -2 -1  1
-1  2  0 -1 -3  1  1 -2 -1 -3 -2  5 -1 -3 -1  0 -1 -3 -2 -2
-1 -1 -2 -3 -1  0 -2 -3 -2  1  2 -1  5  0 -2 -1 -1 -1 -1  1
-2 -3 -3 -3 -2 -3 -3 -3 -1  0  0 -3  0  6 -4 -2 -2  1  3 -1
-1 -2 -2 -1 -3 -1 -1 -2 -2 -3 -3 -1 -2 -4  7 -1 -1 -4 -3 -2
 1 -1  1  0 -1  0  0  0 -1 -2 -2  0 -1 -2 -1  4  1 -3 -2 -2
 0 -1  0 -1 -1 -1 -1 -2 -2 -1 -1 -1 -1 -2 -1  1  5 -2 -2  0
-3 -3 -4 -4 -2 -2 -3 -2 -2 -3 -2 -3 -1  1 -4 -3 -2 11  2 -3
-2 -2 -2 -3 -2 -1 -2 -3  2 -1 -1 -2 -1  3 -3 -2 -2  2  7 -1
 0 -3 -3 -3 -1 -2 -2 -3 -3  3  1 -2  1 -1 -2 -2  0 -3 -1  4
"""


def _score_table() -> NDArray[np.int16]:
    """Return BLOSUM62 (Henikoff and Henikoff, 1992), with -1 for other letters and separators that end an alignment."""
    table = np.full((32, 32), -1, dtype=np.int16)
    table[:20, :20] = np.array(_BLOSUM62.split(), dtype=np.int16).reshape(20, 20)
    table[SEPARATOR], table[:, SEPARATOR] = -1000, -1000
    return table.ravel()


_SCORES = _score_table()
_CODES = np.full(256, OTHER, dtype=np.int8)
_CODES[np.frombuffer(LETTERS, dtype=np.uint8)] = np.arange(20)

_DROP = 20  # an extension stops this far below its best score; about BLAST's X for ungapped extension
_FIRST_REACH = 10  # residues on either side that the first pass looks at
_FIRST_SCORE = 32  # the score that a pair needs to pass it
_LOW_COMPLEXITY_WINDOW = 12
_LOW_COMPLEXITY_BITS = 2.2  # the threshold of SEG (Wootton and Federhen, 1993)


def encode_sequences(sequences: Sequence[bytes]) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Encode sequences with `_FIRST_REACH` separators around each; return the codes and the sequence of each code."""
    gap = bytes(_FIRST_REACH)
    text = np.frombuffer(gap + gap.join(sequences) + gap, dtype=np.uint8)
    residues = _CODES[text]
    residues[text == 0] = SEPARATOR
    sizes = np.array([len(sequence) + len(gap) for sequence in sequences], dtype=np.int64)
    owner = np.full(len(text), len(sequences) - 1, dtype=np.int64)
    owner[: sizes.sum()] = np.repeat(np.arange(len(sequences), dtype=np.int64), sizes)
    owner[len(gap) :] = owner[: -len(gap)].copy()
    return residues, owner


def mask_low_complexity(residues: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return a copy with `OTHER` in windows of few different residues, whose similarity does not mean homology."""
    window = _LOW_COMPLEXITY_WINDOW
    counts = np.arange(window + 1)
    bits = np.zeros(window + 1, dtype=np.float32)
    bits[1:] = -counts[1:] / window * np.log2(counts[1:] / window)
    entropy = np.zeros(max(0, len(residues) - window + 1), dtype=np.float32)
    for letter in range(20):
        seen = np.cumsum(np.r_[0, residues == letter], dtype=np.int32)
        entropy += bits[seen[window:] - seen[:-window]]
    others = np.cumsum(np.r_[0, residues >= OTHER], dtype=np.int32)
    low = (entropy < _LOW_COMPLEXITY_BITS) & (others[window:] == others[:-window])
    edges = np.zeros(len(residues) + 1, dtype=np.int32)
    edges[: len(low)] += low
    edges[window : window + len(low)] -= low
    masked = residues.copy()
    masked[(np.cumsum(edges[:-1]) > 0) & (residues < OTHER)] = OTHER
    return masked


class FirstPass:
    """A filter of shared k-mers by their best score within ten residues on either side."""

    def __init__(self, residues: NDArray[np.int8], k: int) -> None:
        self._residues = residues
        self._k = k
        # Two codes of five bits each make one index into the table of scores.
        self._left = residues.astype(np.int16) << 5

    def __call__(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the pairs that pass, ascending."""
        score = np.zeros(len(left), dtype=np.int16)
        for offset in range(self._k):
            score += self._score(left + offset, right + offset)
        for first, step in ((-1, -1), (self._k, 1)):
            running, best = np.zeros_like(score), np.zeros_like(score)
            for reach in range(_FIRST_REACH):
                offset = first + step * reach
                running += self._score(left + offset, right + offset)
                np.maximum(best, running, out=best)
            score += best
        return np.flatnonzero(score >= _FIRST_SCORE)

    def _score(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int16]:
        scores: NDArray[np.int16] = _SCORES[self._left[left] | self._residues[right]]
        return scores


def extend(
    residues: NDArray[np.int8], left: NDArray[np.int64], right: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Find the best ungapped alignments through pairs of positions.

    Returns:
        The score, the identical residues, and the begin and the end relative to `left`, each of shape [pairs].
    """
    forward = _extend_one_way(residues, left, right, 1)
    backward = _extend_one_way(residues, left - 1, right - 1, -1)
    return forward[0] + backward[0], forward[1] + backward[1], -backward[2], forward[2]


def _extend_one_way(
    residues: NDArray[np.int8], left: NDArray[np.int64], right: NDArray[np.int64], step: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Extend all pairs until each is `_DROP` below its best; return score, identical residues and length."""
    best = np.zeros((3, len(left)), dtype=np.int64)
    pairs = np.arange(len(left))
    running = np.zeros((2, len(left)), dtype=np.int64)
    length = 0
    while pairs.size:
        a, b = residues[left[pairs] + step * length], residues[right[pairs] + step * length]
        length += 1
        running[0] += _SCORES[(a.astype(np.int64) << 5) | b]
        running[1] += (a == b) & (a < OTHER)
        better = running[0] > best[0, pairs]
        best[:2, pairs[better]] = running[:, better]
        best[2, pairs[better]] = length
        active = running[0] > best[0, pairs] - _DROP
        pairs, running = pairs[active], running[:, active]
    return best[0], best[1], best[2]

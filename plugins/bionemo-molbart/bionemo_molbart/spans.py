"""Span masking of the molecules that the encoder of a denoising model reads."""

import math

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.batches.rng import RecordRng
from bionemo_core.errors import ConfigError


class SpanMasking:
    """Replaces spans of tokens by one mask each (BART's text infilling, as v1 does it).

    Every token starts a span with probability `mask_prob`; its length is Poisson distributed. A token that an earlier
    span has taken starts none. A span of length zero inserts a mask before its token, which stays.
    """

    def __init__(self, mask_id: int, mask_prob: float = 0.1, span_lambda: float = 3.0) -> None:
        """Check the settings.

        Args:
            mask_id: the mask token.
            mask_prob: the probability that a span starts at a token.
            span_lambda: the mean length of a span, in tokens.

        Raises:
            ConfigError: one is out of its range.
        """
        if not 0 <= mask_prob <= 1:
            raise ConfigError(f"model.mask_prob: {mask_prob} is not a share. Give a number from 0 to 1.")
        if not 0 < span_lambda <= 100:
            raise ConfigError(f"model.span_lambda: {span_lambda}, expected a mean length above 0 and at most 100.")
        self.mask_prob = mask_prob
        self._mask = np.array([mask_id], dtype=np.int32)
        self._at_most = poisson_distribution(span_lambda)

    def __call__(self, ids: NDArray[np.int32], draw: RecordRng) -> NDArray[np.int32]:
        """`ids` with spans masked, shape [tokens left]; every random choice comes from `draw`."""
        starts = np.flatnonzero(draw.uniform(len(ids)) < self.mask_prob)
        if not starts.size:
            return ids
        lengths = np.searchsorted(self._at_most, draw.uniform(len(starts)), side="right")
        taken = 0
        parts: list[NDArray[np.int32]] = []
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            if start >= taken:
                parts += (ids[taken:start], self._mask)
                taken = start + length
        parts.append(ids[taken:])
        return np.concatenate(parts)


def poisson_distribution(mean: float) -> NDArray[np.float64]:
    """Return P(N <= n) for n = 0, 1, ... while float64 tells it from 1; a uniform number looks up its N there."""
    terms, n = [math.exp(-mean)], 0
    while n < mean or terms[-1] > 1e-18:
        n += 1
        terms.append(terms[-1] * mean / n)
    table: NDArray[np.float64] = np.minimum(np.cumsum(terms), 1.0)
    return table

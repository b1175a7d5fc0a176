"""The choice of a token from the logits of a step: temperature, top-k, top-p, and the draw itself.

Shape letters: R rows, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bionemo_core.errors import ConfigError

PURPOSE = "token"

_MAY_OVERFLOW = 1e-250
"""A temperature by which a float32 cannot always be divided in float64."""


@dataclass(frozen=True)
class TokenSampling:
    """The options of v1's `topkp-sampling`, with its names and defaults."""

    top_k: int = 0
    """Draw from the k most probable tokens; 0: from all."""
    top_p: float = 0.9
    """Draw from the fewest most probable tokens whose probabilities add up to p; 0 or 1: from all."""
    temperature: float = 1.0
    """Divide the logits by this value first."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: a value is out of its range.
        """
        if self.top_k < 0:
            raise ConfigError(f"sampling: top_k: got {self.top_k}, expected 0 (all tokens) or more.")
        if not 0.0 <= self.top_p <= 1.0:
            raise ConfigError(f"sampling: top_p: got {self.top_p}, expected 0 to 1.")
        if not (math.isfinite(self.temperature) and self.temperature > 0.0):
            raise ConfigError(f"sampling: temperature: got {self.temperature}, expected a number above 0.")


def filter_probabilities(logits_RV: Tensor, sampling: TokenSampling) -> Tensor:
    """Return the probabilities of the tokens that may be drawn, float64 [R, V], not normalised; 0 for the others.

    Top-p is applied to the tokens that top-k keeps. Tokens that tie with the last one kept are kept as well, so that
    the result does not depend on how a device sorts.
    """
    scaled_RV = logits_RV.double()
    if sampling.temperature < _MAY_OVERFLOW:
        scaled_RV = scaled_RV - scaled_RV.amax(dim=-1, keepdim=True)  # leaves the largest logit only
    scaled_RV = scaled_RV / sampling.temperature
    p_RV = torch.softmax(scaled_RV, dim=-1)
    columns = p_RV.shape[-1]
    if 0 < sampling.top_k < columns:
        smallest_R1 = p_RV.topk(sampling.top_k, dim=-1).values[:, -1:]
        p_RV = p_RV.masked_fill(p_RV < smallest_R1, 0.0)
    if 0.0 < sampling.top_p < 1.0:
        sorted_RV = p_RV.sort(dim=-1, descending=True).values
        before_RV = sorted_RV.cumsum(dim=-1) - sorted_RV
        kept_RV = before_RV < sampling.top_p * p_RV.sum(dim=-1, keepdim=True)
        smallest_R1 = sorted_RV.gather(-1, (kept_RV.sum(dim=-1, keepdim=True) - 1).clamp(min=0))  # none is kept of NaN
        p_RV = p_RV.masked_fill(p_RV < smallest_R1, 0.0)
    return p_RV


def draw_tokens(logits_RV: Tensor, uniform_R: Tensor, sampling: TokenSampling) -> Tensor:
    """Draw one token per row, int64 [R]: the inverse of the cumulative probabilities, in id order, at `uniform_R`.

    The order is by id and not by probability, so that rounding, which may swap two tokens of nearly equal
    probability, does not change the draw.
    """
    cumulative_RV = filter_probabilities(logits_RV, sampling).cumsum(dim=-1)
    total_R1 = cumulative_RV[:, -1:]
    # Draw the first token whose cumulative probability exceeds the threshold; a token of probability 0 never does.
    # If rounding lifts the threshold to the total, draw the last token with a probability above 0.
    passed_RV = (cumulative_RV <= uniform_R[:, None] * total_R1) & (cumulative_RV < total_R1)
    return passed_RV.sum(dim=-1)

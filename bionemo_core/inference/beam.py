"""Beam search over a network's `start`, `step` and `select`.

Shape letters: R sequences, K beams, V vocabulary, L tokens.

A hypothesis Y is ranked by log P(Y) / penalty(|Y|), where penalty(n) = ((5 + n) / 6) ** alpha (Wu et al. 2016,
"Google's neural machine translation system", equation 14) and |Y| counts its tokens with the end token. `alpha` is
v1's `beam_alpha`: 0 ranks by probability alone, greater values favour longer hypotheses. A hypothesis that has ended
stays in the beam with its rank until better ones replace it; a sequence is done when all of its beams have ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.inference.decoding import FiniteLogits, RowDropping, check_max_length, order_unfinished_first

if TYPE_CHECKING:
    from bionemo_core.inference.decoding import SpecialTokens, StepDecoder


@dataclass(frozen=True)
class Beams:
    """The hypotheses of each sequence, best first."""

    tokens: Tensor
    """Tokens up to and including the first end token, then pad: int64[sequences, beams, max_length]."""
    scores: Tensor
    """log P / penalty in nats, float64[sequences, beams]; -inf for beams without a hypothesis."""


def length_penalty(num_tokens: Tensor, alpha: float) -> Tensor:
    """Return ((5 + n) / 6) ** alpha, float64 of the shape of `num_tokens`."""
    return ((5.0 + num_tokens.double()) / 6.0) ** alpha


# Long: one loop over positions, half of the lines are arguments.
@torch.no_grad()
def beam_search(
    network: StepDecoder,
    memory: Any,
    special: SpecialTokens,
    *,
    max_length: int,
    beam_size: int = 5,
    beam_alpha: float = 0.0,
    dropping: RowDropping | None = None,
) -> Beams:
    """Return the `beam_size` best hypotheses that a beam search finds for each sequence.

    Args:
        network: the network that decodes.
        memory: the memory that the decoder attends to; `memory.states` has shape [length, sequences, hidden].
        special: the begin, end and pad ids.
        max_length: the most tokens to decode, including the end token.
        beam_size: hypotheses kept at each step.
        beam_alpha: exponent of the length penalty.
        dropping: when sequences that are done leave the batch; default: `RowDropping.for_device`.

    Raises:
        ConfigError: `max_length` or `beam_size` is below 1.
        NonFiniteError: the network computes logits that are not finite.
    """
    check_max_length(max_length)
    if beam_size < 1:
        raise ConfigError(f"beam search: beam_size: got {beam_size}, expected 1 or more.")
    device, num_rows = memory.states.device, memory.states.shape[1]
    dropping = dropping or RowDropping.for_device(device)
    result = _Hypotheses.empty(num_rows, beam_size, max_length, special, device)
    if not num_rows:
        return Beams(result.tokens, result.log_probs)
    beams, rows = result, torch.arange(num_rows, device=device)
    state = network.start(memory, max_length).select(rows.repeat_interleave(beam_size))
    last = torch.full((num_rows * beam_size,), special.bos_id, dtype=torch.int64, device=device)
    finite = FiniteLogits(device)
    for position in range(max_length):
        logits = network.step(last, state)
        finite.see(logits)
        beams, parents = beams.extend(logits, position, beam_alpha, special)
        if position + 1 == max_length:
            break
        if (position + 1) % dropping.every == 0:
            done = (beams.ended | beams.log_probs.isneginf()).all(dim=1)
            left = int((~done).sum())  # waits for the device
            if left == 0:
                break
            size = dropping.size(len(rows), left)
            if size < len(rows):
                result.store(rows, beams)
                kept = order_unfinished_first(done, size)
                beams, rows, parents = beams.select(kept), rows[kept], parents[kept]
        state, last = state.select(parents.flatten()), beams.tokens[:, :, position].flatten()
    finite.check()
    result.store(rows, beams)
    scores = result.log_probs / length_penalty(result.lengths, beam_alpha)
    return Beams(result.tokens.masked_fill(result.log_probs.isneginf()[:, :, None], special.pad_id), scores)


@dataclass
class _Hypotheses:
    """The beams of a batch of sequences."""

    tokens: Tensor  # int64 [R, K, L]
    log_probs: Tensor  # float64 [R, K]
    lengths: Tensor  # int64 [R, K]
    ended: Tensor  # bool [R, K]

    @classmethod
    def empty(cls, rows: int, beams: int, length: int, special: SpecialTokens, device: torch.device) -> _Hypotheses:
        """Return one empty hypothesis per sequence; its other beams have probability 0 until there are enough."""
        log_probs = torch.full((rows, beams), -torch.inf, dtype=torch.float64, device=device)
        log_probs[:, 0] = 0.0
        return cls(
            torch.full((rows, beams, length), special.pad_id, dtype=torch.int64, device=device),
            log_probs,
            torch.zeros((rows, beams), dtype=torch.int64, device=device),
            torch.zeros((rows, beams), dtype=torch.bool, device=device),
        )

    def extend(self, logits: Tensor, position: int, alpha: float, special: SpecialTokens) -> tuple[_Hypotheses, Tensor]:
        """Return the best continuations, and the row of the decoder's batch that each extends, int64 [R, K]."""
        num_rows, num_beams = self.log_probs.shape
        step_RKV = torch.log_softmax(logits.double(), dim=-1).view(num_rows, num_beams, -1)
        vocab_size = step_RKV.shape[-1]
        # A hypothesis that has ended has one continuation: pad, with log-probability 0.
        step_RKV = step_RKV.masked_fill(self.ended[:, :, None], -torch.inf)
        step_RKV[:, :, special.pad_id] = step_RKV[:, :, special.pad_id].masked_fill(self.ended, 0.0)
        total_RKV = self.log_probs[:, :, None] + step_RKV
        lengths_RK = self.lengths + ~self.ended
        ranked = (total_RKV / length_penalty(lengths_RK, alpha)[:, :, None]).flatten(1)
        best_RK = ranked.topk(num_beams, dim=1).indices
        parent_RK, token_RK = best_RK // vocab_size, best_RK % vocab_size
        tokens = self.tokens.gather(1, parent_RK[:, :, None].expand(-1, -1, self.tokens.shape[-1]))
        tokens[:, :, position] = token_RK
        extended = _Hypotheses(
            tokens,
            total_RKV.flatten(1).gather(1, best_RK),
            lengths_RK.gather(1, parent_RK),
            self.ended.gather(1, parent_RK) | (token_RK == special.eos_id),
        )
        first_row_R1 = torch.arange(num_rows, device=parent_RK.device)[:, None] * num_beams
        return extended, first_row_R1 + parent_RK

    def select(self, rows: Tensor) -> _Hypotheses:
        return _Hypotheses(self.tokens[rows], self.log_probs[rows], self.lengths[rows], self.ended[rows])

    def store(self, rows: Tensor, others: _Hypotheses) -> None:
        """Overwrite these rows with other hypotheses."""
        self.tokens[rows], self.log_probs[rows] = others.tokens, others.log_probs
        self.lengths[rows], self.ended[rows] = others.lengths, others.ended

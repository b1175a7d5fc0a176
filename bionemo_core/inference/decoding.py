"""Autoregressive decoding over a network's `start`, `step` and `select`: greedy and by drawing tokens.

What a sequence decodes to does not depend on the batch that it is in: rows do not see each other, and what is drawn
for one is a function of its stream and the step. Rows that have ended are dropped from time to time, which changes
no result; on a GPU nothing waits for the device in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from bionemo_core.errors import ConfigError
from bionemo_core.inference.choosing import PURPOSE, TokenSampling, draw_tokens

if TYPE_CHECKING:
    from bionemo_core.inference.philox import RowRng


class DecoderState(Protocol):
    """What a network keeps between the steps of one batch."""

    def select(self, rows: Tensor) -> DecoderState:
        """Return the state of these rows, int64[n], in this order; a row may come several times."""
        ...


class StepDecoder(Protocol):
    """A network that decodes one token a step, as `bionemo_core.nn.seq2seq.Seq2SeqLM` does."""

    def start(self, memory: Any, max_length: int) -> Any:
        """Return the state before the first token, for every row of `memory`, with room for `max_length` tokens."""
        ...

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        """Return the logits [rows, vocabulary] after `tokens`, int64[rows]; `state` then holds these tokens too."""
        ...


class SpecialTokens(Protocol):
    """The ids that decoding needs; every `Tokenizer` has them."""

    pad_id: int
    bos_id: int
    eos_id: int


@dataclass(frozen=True)
class Dropping:
    """When rows that have ended leave the batch."""

    every: int = 8
    """Steps between two looks at what has ended; on a GPU each look waits for the device."""
    halving: bool = True
    """Only by halves of the batch, so that a compiled or recorded step sees few shapes."""

    @classmethod
    def on(cls, device: torch.device) -> Dropping:
        """Return the setting that suits a device: on a CPU checking is free, and every dropped row saves work."""
        return cls(every=8, halving=True) if device.type == "cuda" else cls(every=2, halving=False)

    def size(self, rows: int, left: int) -> int:
        """How many of `rows` to go on with when `left` have not ended."""
        if not self.halving:
            return left if left <= 0.875 * rows else rows
        while rows % 2 == 0 and left <= rows // 2:
            rows //= 2
        return rows


Choose = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From logits [rows, vocabulary], the rows of the batch that they are of, int64[rows], and the step, an int64 scalar,
to tokens, int64[rows]; a pure function of tensors."""


def greedy(
    network: StepDecoder, memory: Any, special: SpecialTokens, *, max_length: int, dropping: Dropping | None = None
) -> Tensor:
    """Decode greedily, int64[rows, max_length]: the likeliest tokens up to the first end token, then padding.

    The begin token is not part of it. Of tokens with equal logits the lowest id is taken.

    Args:
        network: what decodes.
        memory: what the decoder attends to; `memory.states` has shape [length, rows, hidden].
        special: the begin, end and pad ids.
        max_length: the most tokens to decode, the end token included.
        dropping: when rows that have ended leave the batch; default: what suits the device.

    Raises:
        ConfigError: `max_length` is below 1.
    """

    def choose(logits: Tensor, rows: Tensor, step: Tensor) -> Tensor:
        return logits.argmax(dim=-1)

    return _decode(network, memory, special, max_length, choose, dropping)


def sample(
    network: StepDecoder,
    memory: Any,
    special: SpecialTokens,
    streams: RowRng,
    *,
    max_length: int,
    sampling: TokenSampling | None = None,
    dropping: Dropping | None = None,
) -> Tensor:
    """Tokens drawn step by step, int64[rows, max_length]: up to the first end token, which is kept; then pad.

    Args:
        network: what decodes.
        memory: what the decoder attends to; `memory.states` has shape [length, rows, hidden].
        special: the begin, end and pad ids.
        streams: whose random numbers each row draws, on the device of the memory.
        max_length: the most tokens to decode, the end token included.
        sampling: top-k, top-p, temperature.
        dropping: when rows that have ended leave the batch; default: what suits the device.

    Raises:
        ConfigError: `max_length` is below 1.
    """
    settings = sampling or TokenSampling()
    uniform_RL = streams.uniform(PURPOSE, max(max_length, 0))  # of all steps at once: many small kernels otherwise

    def choose(logits: Tensor, rows: Tensor, step: Tensor) -> Tensor:
        return draw_tokens(logits, uniform_RL[rows, step], settings)

    return _decode(network, memory, special, max_length, choose, dropping)


@torch.no_grad()
def _decode(
    network: StepDecoder,
    memory: Any,
    special: SpecialTokens,
    max_length: int,
    choose: Choose,
    dropping: Dropping | None,
) -> Tensor:
    check_max_length(max_length)
    device, num_rows = memory.states.device, memory.states.shape[1]
    dropping = dropping or Dropping.on(device)
    decoded = torch.full((num_rows, max_length), special.pad_id, dtype=torch.int64, device=device)
    if not num_rows:
        return decoded
    rows = torch.arange(num_rows, device=device)
    steps = torch.arange(max_length, device=device)
    tokens = torch.full((num_rows,), special.bos_id, dtype=torch.int64, device=device)
    ended = torch.zeros(num_rows, dtype=torch.bool, device=device)
    state = network.start(memory, max_length)
    for position in range(max_length):
        logits = network.step(tokens, state)
        tokens, ended = _advance(choose(logits, rows, steps[position]), ended, special)
        decoded[rows, position] = tokens
        if (position + 1) % dropping.every or position + 1 == max_length:
            continue
        left = int((~ended).sum())  # waits for the device
        if left == 0:
            break
        size = dropping.size(len(rows), left)
        if size < len(rows):
            kept = first_false(ended, size)
            state, tokens, ended, rows = state.select(kept), tokens[kept], ended[kept], rows[kept]
    return decoded


def _advance(chosen: Tensor, ended: Tensor, special: SpecialTokens) -> tuple[Tensor, Tensor]:
    """Return the tokens to write at this step and the rows that have ended after it; ended rows get padding."""
    tokens = chosen.masked_fill(ended, special.pad_id)
    return tokens, ended | (tokens == special.eos_id)


def first_false(ended: Tensor, size: int) -> Tensor:
    """`size` rows, those that have not ended before the others, each kind in its order; int64[size]."""
    return torch.argsort(ended.to(torch.int8), stable=True)[:size]


def check_max_length(max_length: int) -> None:
    """Accept a number of tokens to decode.

    Raises:
        ConfigError: it is below 1.
    """
    if max_length < 1:
        raise ConfigError(f"decoding: max_length is {max_length}, expected 1 or more.")

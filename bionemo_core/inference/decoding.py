"""Autoregressive decoding over a network's `start`, `step` and `select`: greedy decoding and sampling.

The result of a sequence does not depend on the other sequences of its batch: rows do not attend to each other, and a
row's random numbers depend only on its `RowRng` entry and the step. Rows that have ended are dropped every few steps,
which changes no result; between these steps nothing waits for the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from bionemo_core.errors import ConfigError, NonFiniteError
from bionemo_core.inference.choosing import PURPOSE, TokenSampling, draw_tokens

if TYPE_CHECKING:
    from bionemo_core.inference.philox import RowRng


class DecoderState(Protocol):
    """The state of a network between the decoding steps of one batch."""

    def select(self, rows: Tensor) -> DecoderState:
        """Return the state of these rows, int64[n], in this order; a row may be repeated."""
        ...


class StepDecoder(Protocol):
    """A network that decodes one token per step, as `bionemo_core.nn.seq2seq.Seq2SeqLM` does."""

    def start(self, memory: Any, max_length: int) -> Any:
        """Return the state before the first token for every row of `memory`, for up to `max_length` tokens."""
        ...

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        """Append `tokens`, int64[rows], to `state`; return the logits of the next tokens, [rows, vocabulary]."""
        ...


class SpecialTokens(Protocol):
    """The ids that decoding needs; every `Tokenizer` has them."""

    pad_id: int
    bos_id: int
    eos_id: int


@dataclass(frozen=True)
class RowDropping:
    """The rule for dropping rows that have ended from the batch."""

    every: int = 8
    """Steps between two checks for ended rows; on a GPU each check waits for the device."""
    halving: bool = True
    """Shrink the batch only by halves, so that a compiled or captured step has few shapes."""

    @classmethod
    def for_device(cls, device: torch.device) -> RowDropping:
        """Return the rule for a device: on a CPU a check is free, and every dropped row saves time."""
        return cls(every=8, halving=True) if device.type == "cuda" else cls(every=2, halving=False)

    def size(self, rows: int, left: int) -> int:
        """Return how many of `rows` stay in the batch when `left` of them have not ended."""
        if not self.halving:
            return left if left <= 0.875 * rows else rows
        while rows % 2 == 0 and left <= rows // 2:
            rows //= 2
        return rows


Choose = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A pure function of the logits [rows, vocabulary], their row numbers in the full batch, int64[rows], and the step, an
int64 scalar; returns tokens, int64[rows]."""


def greedy(
    network: StepDecoder, memory: Any, special: SpecialTokens, *, max_length: int, dropping: RowDropping | None = None
) -> Tensor:
    """Decode the most probable token at each step; returns int64[rows, max_length].

    The result has no begin token; it includes the first end token, and pad after it. Of tokens with equal logits the
    lowest id is chosen.

    Args:
        network: the network that decodes.
        memory: the memory that the decoder attends to; `memory.states` has shape [length, rows, hidden].
        special: the begin, end and pad ids.
        max_length: the most tokens to decode, including the end token.
        dropping: when rows that have ended leave the batch; default: `RowDropping.for_device`.

    Raises:
        ConfigError: `max_length` is below 1.
        NonFiniteError: the network computes logits that are not finite.
    """

    def choose(logits: Tensor, rows: Tensor, step: Tensor) -> Tensor:
        return logits.argmax(dim=-1)

    return _decode(network, memory, special, max_length, choose, dropping)


def sample(
    network: StepDecoder,
    memory: Any,
    special: SpecialTokens,
    rng: RowRng,
    *,
    max_length: int,
    sampling: TokenSampling | None = None,
    dropping: RowDropping | None = None,
) -> Tensor:
    """Draw tokens step by step; returns int64[rows, max_length].

    The result has no begin token; it includes the first end token, and pad after it.

    Args:
        network: the network that decodes.
        memory: the memory that the decoder attends to; `memory.states` has shape [length, rows, hidden].
        special: the begin, end and pad ids.
        rng: the random numbers of each row, on the device of the memory.
        max_length: the most tokens to decode, including the end token.
        sampling: top-k, top-p, temperature.
        dropping: when rows that have ended leave the batch; default: `RowDropping.for_device`.

    Raises:
        ConfigError: `max_length` is below 1.
        NonFiniteError: the network computes logits that are not finite.
    """
    settings = sampling or TokenSampling()
    uniform_RL = rng.uniform(PURPOSE, max(max_length, 0))  # all steps at once, to avoid many small kernels

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
    dropping: RowDropping | None,
) -> Tensor:
    check_max_length(max_length)
    device, num_rows = memory.states.device, memory.states.shape[1]
    dropping = dropping or RowDropping.for_device(device)
    decoded = torch.full((num_rows, max_length), special.pad_id, dtype=torch.int64, device=device)
    if not num_rows:
        return decoded
    rows = torch.arange(num_rows, device=device)
    steps = torch.arange(max_length, device=device)
    tokens = torch.full((num_rows,), special.bos_id, dtype=torch.int64, device=device)
    ended = torch.zeros(num_rows, dtype=torch.bool, device=device)
    state = network.start(memory, max_length)
    finite = FiniteLogits(device)
    for position in range(max_length):
        logits = network.step(tokens, state)
        finite.see(logits)
        tokens, ended = _advance(choose(logits, rows, steps[position]), ended, special)
        decoded[rows, position] = tokens
        if (position + 1) % dropping.every or position + 1 == max_length:
            continue
        left = int((~ended).sum())  # waits for the device
        if left == 0:
            break
        size = dropping.size(len(rows), left)
        if size < len(rows):
            kept = order_unfinished_first(ended, size)
            state, tokens, ended, rows = state.select(kept), tokens[kept], ended[kept], rows[kept]
    finite.check()
    return decoded


class FiniteLogits:
    """A check of the logits of all steps; it does not wait for the device before the last of them."""

    def __init__(self, device: torch.device) -> None:
        self._sum = torch.zeros((), dtype=torch.float64, device=device)

    def see(self, logits: Tensor) -> None:
        """Take the logits of a step; single ones may be -inf, which excludes a token."""
        self._sum = self._sum + logits.amax(dim=-1).sum(dtype=torch.float64)

    def check(self) -> None:
        """Check what was seen.

        Raises:
            NonFiniteError: a logit was NaN or infinite, or a row had none above -inf.
        """
        if not torch.isfinite(self._sum):
            raise NonFiniteError.of_result("decoding: the logits of the next token")


def _advance(chosen: Tensor, ended: Tensor, special: SpecialTokens) -> tuple[Tensor, Tensor]:
    """Return the tokens of this step, pad for rows that had ended before, and which rows have ended now."""
    tokens = chosen.masked_fill(ended, special.pad_id)
    return tokens, ended | (tokens == special.eos_id)


def order_unfinished_first(ended: Tensor, size: int) -> Tensor:
    """Return `size` row numbers, int64[size]: first the rows that have not ended, then the others, both in order."""
    return torch.argsort(ended.to(torch.int8), stable=True)[:size]


def check_max_length(max_length: int) -> None:
    """Check the number of tokens to decode.

    Raises:
        ConfigError: it is below 1.
    """
    if max_length < 1:
        raise ConfigError(f"decoding: max_length: got {max_length}, expected 1 or more.")

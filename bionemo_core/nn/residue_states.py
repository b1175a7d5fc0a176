"""Hidden states at residues, from any network that encodes: what embedding, heads and scoring have in common.

Shape letters: L length, B rows, R residues of all sequences end to end, N sequences, H hidden width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from bionemo_core.errors import ConfigError

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import TokenBatch


class ResidueStates(NamedTuple):
    """Hidden states without those of special tokens and padding."""

    states: Tensor
    """Shape [R, H]: the sequences one after the other, in the order of the batch."""
    lengths: Tensor
    """How many states belong to each sequence, int64[N]."""

    def mean(self) -> Tensor:
        """Return the mean over the states of each sequence, float32 [N, H] (v1's embedding)."""
        # "unsafe": without the check of the lengths, for which it would wait for the device
        return torch.segment_reduce(self.states.float(), "mean", lengths=self.lengths, axis=0, unsafe=True)


class ResidueEncoder(Protocol):
    """A network seen as something that encodes sequences."""

    framed: bool
    """Whether a sequence stands between BOS and EOS; these have no residue states."""
    fixed_states: int | None
    """The number of states of every sequence where that is not its length: a perceiver's latents."""

    def __call__(self, batch: TokenBatch) -> ResidueStates: ...


class EncoderOfTokens:
    """A network that offers `hidden_states(batch)`, [L, B, H], over BOS, residues and EOS."""

    framed = True
    fixed_states: int | None = None

    def __init__(self, network: nn.Module) -> None:
        self.network: Any = network

    def __call__(self, batch: TokenBatch) -> ResidueStates:
        """Return the states at residues."""
        return at_residues(self.network.hidden_states(batch), batch, framed=True)


class EncoderOfMemory:
    """A network that offers `encode(batch)`, a memory for its decoder, over residues alone."""

    framed = False

    def __init__(self, network: nn.Module) -> None:
        self.network: Any = network
        self.fixed_states: int | None = getattr(network, "hidden_steps", None)

    def __call__(self, batch: TokenBatch) -> ResidueStates:
        """Return the states of the memory: one a residue, or the perceiver's latents."""
        states_LBH = self.network.encode(batch).states
        if self.fixed_states is None:
            return at_residues(states_LBH, batch, framed=False)
        steps, rows, hidden = states_LBH.shape
        rows = min(rows, len(batch.lengths))
        states = states_LBH[:, :rows].transpose(0, 1).reshape(-1, hidden)
        return ResidueStates(states, torch.full((rows,), steps, device=states.device))


def encoder_of(network: nn.Module) -> ResidueEncoder:
    """Return the encoder: the network itself, or the one inside a fine-tuned network.

    Raises:
        ConfigError: it offers neither `hidden_states` nor `encode`.
    """
    base = encoder_network(network)
    if hasattr(base, "hidden_states"):
        return EncoderOfTokens(base)
    if hasattr(base, "encode"):
        return EncoderOfMemory(base)
    raise ConfigError(
        f"{type(base).__name__} has neither hidden_states(batch) nor encode(batch), so it gives no embeddings. "
        "Choose a model that declares the capability 'embedding'."
    )


def encoder_network(network: nn.Module) -> nn.Module:
    """Return the pre-trained network: the one inside a fine-tuned network, else the network itself."""
    return getattr(network, "encoder_network", network)


def at_residues(hidden_LBH: Tensor, batch: TokenBatch, *, framed: bool) -> ResidueStates:
    """Return the states at residues of `hidden_LBH`, which has a state a token."""
    places, lengths = residue_places(batch, framed=framed)
    rows = hidden_LBH.transpose(0, 1).flatten(0, 1)
    return ResidueStates(rows.index_select(0, on_device(places, rows.device)), on_device(lengths, rows.device))


def residue_places(batch: TokenBatch, *, framed: bool) -> tuple[Tensor, Tensor]:
    """Where residues stand in the batch's rows laid end to end, int64[R], and how many each sequence has, int64[N].

    Residues are real tokens, and with `framed` neither the first nor the last of a sequence. Both are on the CPU,
    worked out from lengths alone, so that no device has to be asked.
    """
    tokens = torch.tensor(batch.lengths, dtype=torch.int64)
    starts = torch.arange(len(tokens)) * batch.tokens.shape[1]
    if batch.packed:
        starts = tokens.cumsum(0) - tokens
    ends = 1 if framed else 0
    lengths = (tokens - 2 * ends).clamp(min=0)
    before = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) + torch.repeat_interleave(starts + ends - before, lengths), lengths


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to `device` without waiting for the work queued there."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

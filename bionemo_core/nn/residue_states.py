"""Hidden states at residues, from any network with an encoder; used by embedding, heads and scoring.

Shape letters: L length, B rows, R residues of all sequences concatenated, N sequences, H hidden width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from bionemo_core.errors import ConfigError
from bionemo_core.protocols import InputForm

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import TokenBatch


NO_FORM = InputForm()
"""The form without terminal tokens and replaced letters."""


class ResidueStates(NamedTuple):
    """Hidden states of the residues, without special tokens and padding."""

    states: Tensor
    """Shape [R, H]: the sequences concatenated, in the order of the batch."""
    lengths: Tensor
    """Number of states of each sequence, int64[N]."""

    def mean(self) -> Tensor:
        """Return the mean over the states of each sequence, float32 [N, H] (v1's embedding)."""
        return self.pool("mean")

    def pool(self, reduction: str) -> Tensor:
        """Return the `mean` or the `max` over the states of each sequence, float32 [N, H]."""
        # unsafe=True skips the check of the lengths, which would wait for the device.
        return torch.segment_reduce(self.states.float(), reduction, lengths=self.lengths, axis=0, unsafe=True)

    def first(self) -> Tensor:
        """Return the first state of each sequence, float32 [N, H]."""
        return self.states.index_select(0, self.lengths.cumsum(0) - self.lengths).float()


class ResidueEncoder(Protocol):
    """The residue encoder of a network."""

    form: InputForm
    """The form of its input."""
    terminal_rows: bool
    """Whether the states of the terminal tokens are among the residue states; by default they are left out."""
    fixed_states: int | None
    """The number of states of every sequence if it is fixed (a perceiver's latents); None: one per residue."""
    unread: tuple[str, ...]
    """The parts of the network that serve pre-training only: no residue state depends on them."""

    def __call__(self, batch: TokenBatch) -> ResidueStates: ...


class TokenEncoder:
    """The encoder of a network with `hidden_states(batch)`, [L, B, H], over BOS, residues and EOS."""

    fixed_states: int | None = None
    unread: tuple[str, ...] = ("head",)
    terminal_rows = False

    def __init__(self, network: nn.Module, form: InputForm) -> None:
        self.network: Any = network
        self.form = replace(form, bos=True, eos=True)

    def __call__(self, batch: TokenBatch) -> ResidueStates:
        """Return the hidden states at residues."""
        terminals = (0, 0) if self.terminal_rows else self.form.terminals
        return select_residues(self.network.hidden_states(batch), batch, terminals)


class MemoryEncoder:
    """The encoder of a network with `encode(batch)`, a memory for its decoder, over what the form asks for."""

    unread: tuple[str, ...] = ("decoder", "decoder_embedding", "head")
    terminal_rows = False

    def __init__(self, network: nn.Module, form: InputForm) -> None:
        self.network: Any = network
        self.form = form
        self.fixed_states: int | None = getattr(network, "hidden_steps", None)

    def __call__(self, batch: TokenBatch) -> ResidueStates:
        """Return the states of the memory: one per residue, or the perceiver's latents."""
        states_LBH = self.network.encode(batch).states
        if self.fixed_states is None:
            return select_residues(states_LBH, batch, (0, 0) if self.terminal_rows else self.form.terminals)
        steps, rows, hidden = states_LBH.shape
        rows = min(rows, len(batch.lengths))
        states = states_LBH[:, :rows].transpose(0, 1).reshape(-1, hidden)
        return ResidueStates(states, torch.full((rows,), steps, device=states.device))


def may_pack(module: object) -> bool:
    """Return whether sequences may share a row of a module's batches; true if it does not say what it can do."""
    return "packing" in getattr(module, "capabilities", {"packing"})


def encoder_of(network: nn.Module, form: InputForm = NO_FORM) -> ResidueEncoder:
    """Return the residue encoder of a network for texts of a form; of a fine-tuned one, its pre-trained encoder.

    Raises:
        ConfigError: the network has neither `hidden_states` nor `encode`.
    """
    base = encoder_network(network)
    if hasattr(base, "hidden_states"):
        return TokenEncoder(base, form)
    if hasattr(base, "encode"):
        return MemoryEncoder(base, form)
    raise ConfigError(
        f"{type(base).__name__} has neither hidden_states(batch) nor encode(batch), so it cannot embed sequences. "
        "Choose a model that declares the capability 'embedding'; `bionemo-run help model=NAME` shows whether it does."
    )


def encoder_network(network: nn.Module) -> nn.Module:
    """Return the pre-trained network inside a fine-tuned one; for any other network, the network itself."""
    return getattr(network, "encoder_network", network)


def select_residues(hidden_LBH: Tensor, batch: TokenBatch, terminals: tuple[int, int]) -> ResidueStates:
    """Select the states at residues from `hidden_LBH`, which has a state per token."""
    indices, lengths = residue_indices(batch, terminals)
    rows = hidden_LBH.transpose(0, 1).flatten(0, 1)
    return ResidueStates(
        rows.index_select(0, copy_to_device(indices, rows.device)), copy_to_device(lengths, rows.device)
    )


def drop_terminals(encoded: ResidueStates, batch: TokenBatch, terminals: tuple[int, int]) -> ResidueStates:
    """Return the states at residues of `encoded`, which has the states of all tokens of the batch."""
    tokens = torch.tensor(batch.lengths, dtype=torch.int64)
    indices, lengths = _between(tokens.cumsum(0) - tokens, tokens, terminals)
    device = encoded.states.device
    return ResidueStates(
        encoded.states.index_select(0, copy_to_device(indices, device)), copy_to_device(lengths, device)
    )


def residue_indices(batch: TokenBatch, terminals: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the indices of residues in the concatenated rows, int64[R], and the residues per sequence, int64[N].

    Residues are the real tokens without the terminal tokens, `terminals` before and after each sequence. Both tensors
    are on the CPU, computed from lengths alone, so that nothing waits for the device.
    """
    return _between(*sequence_bounds(batch), terminals)


def sequence_bounds(batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """Return the first token of each sequence in the concatenated rows, and its tokens, int64[N] each on the CPU."""
    tokens = torch.tensor(batch.lengths, dtype=torch.int64)
    if batch.packed:
        return tokens.cumsum(0) - tokens, tokens
    return torch.arange(len(tokens)) * batch.tokens.shape[1], tokens


def _between(starts: Tensor, tokens: Tensor, terminals: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the indices between the terminal tokens of sequences that begin at `starts`, and their counts."""
    first, last = terminals
    lengths = (tokens - first - last).clamp(min=0)
    before = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) + torch.repeat_interleave(starts + first - before, lengths), lengths


def copy_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to `device`, without waiting for the device."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

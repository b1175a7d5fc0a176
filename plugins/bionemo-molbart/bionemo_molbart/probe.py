"""v1's metrics of a validation: the share of molecules that the model reproduces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bionemo_core.data.batches.batch import Seq2SeqBatch, TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.errors import ConfigError
from bionemo_core.inference.decoding import greedy
from bionemo_core.parallel.sharding import reshard
from bionemo_core.protocols import Example, Seq2SeqExample, Tokenizer
from bionemo_molbart.molecules import canonical_smiles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bionemo_core.parallel.groups import ProcessGroups

ROOM = 8
"""Tokens that decoding may take beyond the longest answer; a molecule that is longer is counted as wrong anyway."""


class MoleculeProbe:
    """Character accuracy, molecular accuracy and the share of invalid SMILES, of the first molecules of a validation.

    The molecules are kept until the end of the evaluation and decoded together, so that every rank runs the network
    as often as any other does, however many molecules it saw. They are the same molecules for any number of ranks: the
    ranks take micro batches in turn, and the first ones in that order count.

    Args:
        tokenizer: the model's.
        max_length: the most tokens to decode.
        num_molecules: how many to look at, over all ranks.

    Raises:
        ConfigError: `num_molecules` is not positive.
    """

    logged_names = ("character_accuracy", "molecular_accuracy", "percent_invalid")

    def __init__(self, tokenizer: Tokenizer, max_length: int, num_molecules: int = 256) -> None:
        if num_molecules < 1:
            raise ConfigError(f"model.val_molecules: {num_molecules}, expected 0 (no metrics of molecules) or more.")
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._num_molecules = num_molecules
        self.reset()

    def reset(self) -> None:
        """Discard the molecules so far, at the start of an evaluation."""
        self._kept: list[Seq2SeqExample] = []
        self._counts: list[int] = []
        """The molecules kept of each micro batch; ranks have as many micro batches as any other."""
        self._network: Any = None

    def update(self, network: torch.nn.Module, micro_batch: Any) -> None:
        """Add the molecules of one micro batch, until there are enough."""
        if not isinstance(micro_batch, Seq2SeqBatch):
            raise ConfigError("model: MoleculeProbe needs batches with source and target, got batches with one side.")
        self._network = network
        counted = sum(self._counts)
        wanted, found = self._num_molecules - counted, []
        if micro_batch.num_sequences == 0:  # a copy that keeps ranks in step: one of it will do, if there is no other
            self._kept = self._kept or _examples(micro_batch, 1)
        elif wanted > 0:
            found = _examples(micro_batch, wanted)
            self._kept = [*self._kept[:counted], *found]
        self._counts.append(len(found))

    @torch.no_grad()
    def compute(self, groups: ProcessGroups) -> dict[str, float]:
        """Compute the shares over all ranks, from 0 to 1; NaN if no rank saw a molecule."""
        sums = torch.zeros(5, dtype=torch.float64)
        device = torch.device("cpu") if self._network is None else next(self._network.parameters()).device
        counted = self._first_of_all(groups, device)
        kept = self._kept[: max(1, counted)]
        # The longest answer of all ranks, so that no decoded text ends earlier on one of them.
        longest = _row_of_each_rank([max((len(one.labels) for one in kept), default=0)], groups, device).max()
        if kept:
            sums = self._sums(kept, counted, min(self._max_length, int(longest) + ROOM))
        tokens, right_tokens, molecules, right, invalid = groups.sum_over_data(sums.to(device)).tolist()
        if self._network is not None:
            reshard(self._network)
        if not molecules:
            return {}
        shares = (right_tokens / max(tokens, 1.0), right / molecules, invalid / molecules)
        return dict(zip(self.logged_names, shares, strict=True))

    def _first_of_all(self, groups: ProcessGroups, device: torch.device) -> int:
        """Return how many of this rank's molecules are among the first ones of all ranks."""
        counts = _row_of_each_rank(self._counts, groups, device)  # [ranks, micro batches]
        in_turn = counts.T.reshape(-1)  # a micro batch of each rank, then the next of each
        before = in_turn.cumsum(0) - in_turn
        taken = torch.minimum(in_turn, (self._num_molecules - before).clamp(min=0))
        return int(taken.reshape(-1, groups.data_size)[:, groups.data_rank].sum())

    def _sums(self, kept: Sequence[Seq2SeqExample], counted: int, room: int) -> Tensor:
        """Tokens, right ones, molecules, right ones and invalid ones; float64 [5]."""
        network, tokenizer = self._network, self._tokenizer
        device = next(network.parameters()).device
        sources = [Example(one.source, one.source, one.source < 0) for one in kept]
        memory = network.encode(_in_rows(sources, tokenizer).to(device))
        answers = [Example(one.decoder_input, one.labels, one.loss_mask) for one in kept]
        target = _in_rows(answers, tokenizer).to(device)
        hit = _hits(network, memory, target)[:counted]
        decoded = greedy(network, memory, tokenizer, max_length=room)[:counted].tolist()
        right = invalid = 0
        for example, ids in zip(kept, decoded, strict=False):
            end = ids.index(tokenizer.eos_id) if tokenizer.eos_id in ids else len(ids)
            wanted = canonical_smiles(tokenizer.decode(example.labels.tolist()))
            got = canonical_smiles(tokenizer.decode(ids[:end]))
            invalid += got is None
            right += got is not None and got == wanted
        tokens = int(target.loss_mask[:counted].sum())
        return torch.tensor([tokens, int(hit.sum()), counted, right, invalid], dtype=torch.float64)


def _row_of_each_rank(values: Sequence[int], groups: ProcessGroups, device: torch.device) -> Tensor:
    """Return the values of every data-parallel rank, all of them as many; float64 [ranks, values]."""
    rows = torch.zeros(groups.data_size, len(values), dtype=torch.float64)
    rows[groups.data_rank] = torch.tensor(values, dtype=torch.float64)
    return groups.sum_over_data(rows.to(device)).cpu()


def _examples(batch: Seq2SeqBatch, limit: int) -> list[Seq2SeqExample]:
    """Return the first sequences of a micro batch, unpacked."""
    source = _sequences(batch.source, batch.source.tokens, limit)
    target = [_sequences(batch.target, part, limit) for part in _parts(batch.target)]
    return [Seq2SeqExample(*one) for one in zip(source, *target, strict=True)]


def _parts(batch: TokenBatch) -> tuple[Tensor, Tensor, Tensor]:
    return batch.tokens, batch.labels, batch.loss_mask


def _sequences(batch: TokenBatch, values: Tensor, limit: int) -> list[NDArray[np.generic]]:
    lengths = batch.lengths[:limit]
    if batch.packed:
        return [one.numpy() for one in values[0, : sum(lengths)].cpu().split(lengths)]
    return [row[:length].numpy() for row, length in zip(values[: len(lengths)].cpu(), lengths, strict=True)]


def _in_rows(examples: Sequence[Example], tokenizer: Tokenizer) -> TokenBatch:
    """Return one row for each sequence, padded to the longest."""
    longest = max(len(one.tokens) for one in examples)
    return TokenBatch.of(
        collate(examples, len(examples), RowShape(longest, len(examples), tokenizer.pad_id, packing=False))
    )


def _hits(network: Any, memory: Any, target: TokenBatch) -> Tensor:
    """Where the likeliest token, given all right ones before it, is the right one; bool [rows, length].

    Step by step, because a step gives the whole vocabulary, however many ranks it is split over.
    """
    length = target.tokens.shape[1]
    state = network.start(memory, length)
    steps = [network.step(target.tokens[:, place], state).argmax(dim=-1) for place in range(length)]
    return (torch.stack(steps, dim=1) == target.labels) & target.loss_mask

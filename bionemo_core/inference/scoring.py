"""Likelihoods of residues under masks: pseudo-perplexity, and zero-shot scores of mutations.

A score is `sum over mutated positions of log p(mutant residue) - log p(wild-type residue)` (Meier et al. 2021):

- masked marginals: both log-probabilities from the wild type with all mutated positions of the variant masked;
- wild-type marginals: both from the unmasked wild type, with one pass for all variants.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.data.model_input import input_form
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.embedding import check_known_tokens
from bionemo_core.nn.missing_weights import require_weights
from bionemo_core.nn.residue_states import encoder_network, encoder_of, may_pack
from bionemo_core.parallel.weights import network_of
from bionemo_core.protocols import Example, Tokenizer

if TYPE_CHECKING:
    import pytorch_lightning as pl

MASKED, WILD_TYPE = METHODS = ("masked_marginals", "wild_type_marginals")

_MUTATION = re.compile(r"([A-Za-z])(\d+)([A-Za-z])")
_MAX_COPIES_PER_ROW = 256


class Mutation(NamedTuple):
    """The substitution of one residue by another."""

    wild_type: str
    position: int
    """Position in the wild type, from 0."""
    mutant: str


def read_variant(text: str, wild_type: str, first_position: int = 1) -> list[Mutation]:
    """Parse a variant such as `A24G` or `A24G:K30R`; the wild type (`WT`) has no mutations.

    Raises:
        DataError: the text cannot be parsed, or does not fit the wild type.
    """
    if text.strip().upper() in ("WT", "_WT"):
        return []
    if not text.strip():
        raise DataError("variant '': is empty, expected mutations such as A24G, or WT for the wild type itself.")
    mutations: list[Mutation] = []
    for word in re.split(r"[:,;/\s]+", text.strip()):
        match = _MUTATION.fullmatch(word)
        if match is None:
            raise DataError(f"variant {text!r}: cannot read {word!r}, expected mutations such as A24G or A24G:K30R.")
        before, position, after = match[1].upper(), int(match[2]) - first_position, match[3].upper()
        if not 0 <= position < len(wild_type):
            last = first_position + len(wild_type) - 1
            raise DataError(f"variant {text!r}: position {match[2]} is not within {first_position} to {last}.")
        if wild_type[position] != before:
            raise DataError(
                f"variant {text!r}: the wild type has {wild_type[position]} at position {match[2]}, not {before}. If "
                "the numbering does not start at 1, set task.first_position."
            )
        if any(other.position == position for other in mutations):
            raise DataError(f"variant {text!r}: position {match[2]} is mutated twice.")
        mutations.append(Mutation(before, position, after))
    return mutations


@dataclass
class MaskedScorer:
    """A masked language model that scores residues.

    Args:
        module: its network must have `hidden_states`, a `head` and an `embedding`, as the ESM family does.
        tokenizer: must have a mask token.
        tokens_per_batch: tokens that go through the network at once.
    """

    module: pl.LightningModule
    tokenizer: Tokenizer
    tokens_per_batch: int = 4096

    def __post_init__(self) -> None:
        """Find the network, and check that it has a masked-language head.

        Raises:
            ArtefactError: the model was loaded from a source without a tensor that scoring needs.
            ConfigError: the model has no masked-language head.
        """
        self.network: Any = encoder_network(network_of(self.module))  # type: ignore[arg-type]
        if encoder_of(self.network).form.terminals != (1, 1) or not hasattr(self.network, "head"):
            raise ConfigError(
                f"{type(self.network).__name__} does not predict masked residues, so it cannot score mutations. Choose "
                "a masked language model, such as those of the ESM family."
            )
        require_weights(self.network, "scoring masked residues")
        self.seq_length: int = self.module.seq_length  # type: ignore[assignment]  # torch's stub allows modules only

    def log_probabilities(self, sequence: str, masked: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Mask each set of positions, and return the log-probabilities there, float32 [positions, vocabulary].

        Raises:
            DataError: the sequence is empty, too long, or has a letter that the tokenizer does not know.
        """
        ids = self._ids(sequence)
        results: list[NDArray[np.float32]] = []
        for batch, positions in self._batches(ids, masked):
            with torch.inference_mode():
                predicted = self._predict_at(batch, positions)
            results += predicted
        return results

    def log_probabilities_unmasked(self, sequence: str) -> NDArray[np.float32]:
        """Return the log-probabilities at every residue without masks, float32 [residues, vocabulary].

        Raises:
            DataError: as for `log_probabilities`.
        """
        ids = self._ids(sequence)
        shape = RowShape(self.seq_length, 1, self.tokenizer.pad_id)
        batch = TokenBatch.of(collate([_example(ids)], 1, shape))
        with torch.inference_mode():
            return self._predict_at(batch, [np.arange(1, len(ids) - 1)])[0]

    def pseudo_log_likelihood(self, sequence: str) -> NDArray[np.float32]:
        """Return the log-probability of each residue with only that residue masked, in nats, float32 [residues].

        The negative mean is the logarithm of the pseudo-perplexity (Salazar et al. 2020).

        Raises:
            DataError: as for `log_probabilities`.
        """
        tokens = self._encode(sequence)
        rows = self.log_probabilities(sequence, [[position] for position in range(len(tokens))])
        return np.array([row[0, token] for row, token in zip(rows, tokens, strict=True)], dtype=np.float32)

    def score_variants(
        self, wild_type: str, variants: Sequence[Sequence[Mutation]], method: str
    ) -> NDArray[np.float64]:
        """Return the score of every variant; higher is better, and the wild type has 0.

        Raises:
            ConfigError: the method is unknown.
            DataError: as for `log_probabilities`, or a mutant residue is unknown.
        """
        if method not in METHODS:
            raise ConfigError(f"task.scoring: got {method!r}, expected one of {', '.join(METHODS)}.")
        if method == WILD_TYPE:
            table = self.log_probabilities_unmasked(wild_type)
            predicted: dict[tuple[int, ...], NDArray[np.float32]] = {(p,): table[[p]] for p in range(len(table))}
            sets: list[tuple[tuple[int, ...], ...]] = [
                tuple((mutation.position,) for mutation in variant) for variant in variants
            ]
        else:
            masked = sorted({tuple(sorted(m.position for m in variant)) for variant in variants if variant})
            predicted = dict(zip(masked, self.log_probabilities(wild_type, masked), strict=True))
            sets = [(tuple(sorted(m.position for m in variant)),) if variant else () for variant in variants]
        return np.array(
            [
                self._score(variant, [(positions, predicted[positions]) for positions in own])
                for variant, own in zip(variants, sets, strict=True)
            ]
        )

    def _score(
        self, variant: Sequence[Mutation], tables: Sequence[tuple[tuple[int, ...], NDArray[np.float32]]]
    ) -> float:
        rows = {position: table[row] for positions, table in tables for row, position in enumerate(positions)}
        total = 0.0
        for mutation in variant:
            before, after = (self._id(letter) for letter in (mutation.wild_type, mutation.mutant))
            total += float(rows[mutation.position][after]) - float(rows[mutation.position][before])
        return total

    def _encode(self, text: str) -> NDArray[np.int32]:
        return self.tokenizer.encode(input_form(self.tokenizer).spell(text))

    def _id(self, letter: str) -> int:
        ids = self._encode(letter)
        check_known_tokens(ids, self.tokenizer, letter, letter)
        return int(ids[0])

    def _ids(self, sequence: str) -> NDArray[np.int32]:
        ids = self._encode(sequence)
        check_known_tokens(ids, self.tokenizer, sequence, sequence[:20])
        if not 1 <= len(ids) <= self.seq_length - 2:
            raise DataError(f"scoring: got a sequence of {len(ids)} residues, expected 1 to {self.seq_length - 2}.")
        return np.concatenate([[self.tokenizer.bos_id], ids, [self.tokenizer.eos_id]]).astype(np.int32)

    def _batches(
        self, ids: NDArray[np.int32], masked: Sequence[Sequence[int]]
    ) -> Iterator[tuple[TokenBatch, list[NDArray[np.int64]]]]:
        """Yield copies of the sequence with their masks, packed if the model can, and each copy's masked positions."""
        copies = max(1, min(self.tokens_per_batch // len(ids), _MAX_COPIES_PER_ROW))
        for start in range(0, len(masked), copies):
            sets = [np.array(positions, dtype=np.int64) + 1 for positions in masked[start : start + copies]]
            examples = []
            for positions in sets:
                tokens = ids.copy()
                tokens[positions] = self.tokenizer.mask_id
                examples.append(_example(tokens))
            shape = RowShape(self.seq_length, len(sets), self.tokenizer.pad_id, packing=may_pack(self.module))
            yield TokenBatch.of(collate(examples, len(sets), shape)), sets

    def _predict_at(self, batch: TokenBatch, sets: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """Return the log-probabilities at a set of token positions of each sequence of a batch."""
        self.module.eval()
        width = batch.lengths[0] if batch.packed else batch.tokens.shape[1]  # the copies are equally long
        starts = np.arange(len(sets)) * width
        rows = np.concatenate([positions + start for positions, start in zip(sets, starts, strict=True)])
        device = next(self.network.parameters()).device
        states = self.network.hidden_states(batch.to(device)).transpose(0, 1).flatten(0, 1)
        hidden = states[torch.from_numpy(rows).to(device)]
        logits = self.network.head(hidden, self.network.embedding.word_embeddings.weight)
        table = logits[:, : self.tokenizer.vocab_size].float().log_softmax(-1).cpu().numpy()
        return np.split(table, np.cumsum([len(positions) for positions in sets])[:-1])


def _example(tokens: NDArray[np.int32]) -> Example:
    return Example(tokens, tokens, np.zeros(len(tokens), dtype=np.bool_))

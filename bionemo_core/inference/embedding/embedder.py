"""Embeddings, hidden states, logits and likelihoods of sequences, in the order of the input.

Sequences are packed, and attention does not cross from one to the next: the results of a sequence depend only on the
sequence and the model. While a GPU computes one batch, the CPU prepares the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.packing import balanced_bins
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.data.model_input import TOKENIZER, ModelInput, input_form, max_text_tokens
from bionemo_core.data.tokenizer import describe_unknown
from bionemo_core.errors import DataError
from bionemo_core.inference.embedding.contact_head import ContactHead
from bionemo_core.inference.embedding.embedding_results import (
    ATTENTIONS,
    EMBEDDINGS,
    HIDDENS,
    LIKELIHOODS,
    LOGITS,
    BatchOutputs,
    Embedded,
    ResultCollector,
    SequencePart,
    check_finite,
    layer_output,
)
from bionemo_core.inference.embedding.embedding_settings import EmbeddingSettings, embedding_tokens
from bionemo_core.inference.embedding.model_request import ModelRequest
from bionemo_core.nn.captures import capture_attention, capture_layers
from bionemo_core.nn.heads import whole_logits
from bionemo_core.nn.residue_states import (
    ResidueEncoder,
    ResidueStates,
    drop_terminals,
    encoder_network,
    encoder_of,
    may_pack,
    select_residues,
)
from bionemo_core.parallel.weights import network_of
from bionemo_core.protocols import Example, Tokenizer

if TYPE_CHECKING:
    import pytorch_lightning as pl


@dataclass
class Embedder:
    """A model that embeds sequences; its weights, device and dtype stay as they are."""

    module: pl.LightningModule
    tokenizer: Tokenizer
    settings: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    before_batch: Callable[[], None] | None = None
    """Called before each batch; what it raises ends the work."""

    def __post_init__(self) -> None:
        """Find the encoder, and check that it offers the requested outputs.

        Raises:
            ArtefactError: the model was loaded from a source without a tensor that they need.
            ConfigError: it does not, or a setting is out of its range.
        """
        settings = self.settings = self.settings.check()
        network: nn.Module = network_of(self.module)
        own = getattr(self.module, "text_form", TOKENIZER)
        form = input_form(self.tokenizer, settings.text_form or own, f"{settings.key_prefix}text_form")
        self.encoder: ResidueEncoder = encoder_of(network, form)
        # The state of the first token is among the states only if those of all tokens are.
        self.encoder.terminal_rows = settings.terminal_rows or settings.pooling == "cls"
        self.input = ModelInput(self.tokenizer, self.encoder.form)
        self.packing = self.encoder.fixed_states is None and may_pack(self.module)
        self.network = encoder_network(network)
        request = ModelRequest(settings, self.network, self.encoder, self.input)
        self.layers = request.resolve_layers()
        self.output_names = tuple(name for output in settings.outputs for name in self._names_of(output))
        request.check_first_token()
        self._attention_maps = request.plan_attention()
        request.check_weights()
        self.seq_length: int = self.module.seq_length  # type: ignore[assignment]  # torch's stub allows modules only
        self.long_rule = request.long_rule(max_text_tokens(self.module, self.input.num_terminals))
        request.check_terminal_rows()
        self.tokens_per_batch = embedding_tokens(settings.tokens_per_batch, self.device.type == "cuda")
        # The attention maps of a single protein may take a gigabyte.
        self.num_packs = 1 if ATTENTIONS in settings.outputs else max(1, self.tokens_per_batch // self.seq_length)

    @property
    def reads_layers(self) -> bool:
        """Whether layers are read on the way, by hooks that a compiled layer would be compiled with."""
        return self.layers is not None or self._attention_maps is not None

    @property
    def contact_head(self) -> ContactHead | None:
        """The contact head, if contacts are requested."""
        return None if self._attention_maps is None else self._attention_maps.head

    def _names_of(self, output: str) -> list[str]:
        """Return the names of the arrays of an output."""
        if self.layers is None or output not in (EMBEDDINGS, HIDDENS):
            return [output]
        return [layer_output(output, layer) for layer in self.layers]

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.network.parameters()).device

    def check_length(self, num_residues: int, name: str) -> None:
        """Check the number of tokens of a sequence.

        Raises:
            DataError: it is 0, or above the limit with `on_long=error`.
        """
        if num_residues < 1:
            raise DataError(f"sequence {name!r} is empty.")
        self.long_rule.windows_for(num_residues, name)

    # Not in inference mode: a model in training may keep tensors that are made here, such as gathered weights.
    @torch.no_grad()
    def run(self, sequences: Sequence[str | bytes], names: Sequence[str] = ()) -> Embedded:
        """Compute the requested outputs of every sequence, in the order of the input.

        Raises:
            DataError: a sequence is empty, too long, or has a letter that the tokenizer does not know.
            NonFiniteError: the model computes values that are not finite.
        """
        parts = self.make_parts(sequences, names)
        collected = ResultCollector(self.output_names, parts, self.settings.pooling)
        was_training = self.module.training
        self.module.eval()
        try:
            pending: tuple[list[int], BatchOutputs] | None = None
            for batch, owners in self.batches(parts):
                outputs = self._compute(_to_device(batch, self.device))
                if pending is not None:
                    collected.add(pending[0], pending[1].wait())
                pending = owners, outputs
            if pending is not None:
                collected.add(pending[0], pending[1].wait())
        finally:
            self.module.train(was_training)
        result = collected.result(self.encoder.fixed_states, self.input.num_terminals * self.settings.terminal_rows)
        for name, values in result.arrays.items():
            check_finite(values, f"embedding: {name}")
        return result

    def make_parts(self, sequences: Sequence[str | bytes], names: Sequence[str] = ()) -> list[SequencePart]:
        """Tokenize the sequences and cut them into the parts that the network gets, in order.

        Raises:
            DataError: a sequence is empty, too long, or has a letter that the tokenizer does not know.
        """
        parts = []
        for index, sequence in enumerate(sequences):
            name = names[index] if names else str(index + 1)
            ids = self.input.encode(sequence)
            if self.settings.unknown == "error":
                check_known_tokens(ids, self.tokenizer, sequence, name)
            self.check_length(len(ids), name)
            windows = self.long_rule.windows_for(len(ids), name)
            parts += [SequencePart(index, window, ids[window.start : window.stop]) for window in windows]
        return parts

    def batches(self, parts: Sequence[SequencePart]) -> Iterator[tuple[TokenBatch, list[int]]]:
        """Yield batches, packed if the model can, each with the numbers of its parts."""
        sizes = np.array([len(part.ids) + self.input.num_terminals for part in parts])
        packing = self.packing
        capacity = self.num_packs * self.seq_length
        bins = balanced_bins(sizes, capacity) if packing else _bins_of_similar_length(sizes, capacity)
        shape = RowShape(
            self.seq_length,
            self.num_packs,
            self.tokenizer.pad_id,
            packing=packing,
            static_shapes=self.settings.static_shapes and packing,
        )
        for chosen in bins:
            if self.before_batch is not None:
                self.before_batch()
            examples = [self._example(parts[number].ids) for number in chosen]
            yield TokenBatch.of(collate(examples, self.num_packs, shape)), chosen.tolist()

    def _example(self, ids: NDArray[np.int32]) -> Example:
        tokens = self.input.add_terminals(ids)
        return Example(tokens, tokens, np.ones(len(tokens), dtype=np.bool_))

    def _compute(self, batch: TokenBatch) -> BatchOutputs:
        numbers = self.layers or ()
        maps = None if self._attention_maps is None else self._attention_maps.of(batch)
        attention = nullcontext() if maps is None else capture_attention(self.network, maps.add)
        with capture_layers(self.network, numbers) as captured, attention:
            last = self.encoder(batch)
        arrays = {} if maps is None else maps.arrays()
        if self.layers is None:
            returned = self._add_states(arrays, last, batch, EMBEDDINGS, HIDDENS)
        for number in numbers:
            states = last
            if number in captured:
                terminals = (0, 0) if self.encoder.terminal_rows else self.encoder.form.terminals
                states = select_residues(captured[number], batch, terminals)
            names = (layer_output(EMBEDDINGS, number), layer_output(HIDDENS, number))
            returned = self._add_states(arrays, states, batch, *names)
        if LOGITS in self.settings.outputs or LIKELIHOODS in self.settings.outputs:
            arrays[LOGITS] = self._logits(self._returned_rows(last, batch).states)
        return BatchOutputs.of(returned.lengths, arrays)

    def _add_states(
        self, arrays: dict[str, Tensor], encoded: ResidueStates, batch: TokenBatch, embeddings: str, hiddens: str
    ) -> ResidueStates:
        """Add the embeddings and the hidden states of one layer to `arrays`; return the states with their lengths."""
        settings = self.settings
        of_residues = encoded
        if self.encoder.terminal_rows:
            of_residues = drop_terminals(encoded, batch, self.encoder.form.terminals)
        if EMBEDDINGS in settings.outputs:
            arrays[embeddings] = encoded.first() if settings.pooling == "cls" else of_residues.pool(settings.pooling)
        returned = encoded if settings.terminal_rows else of_residues
        if HIDDENS in settings.outputs or settings.on_long == "window":
            arrays[hiddens] = returned.states.float()
        return returned

    def _returned_rows(self, encoded: ResidueStates, batch: TokenBatch) -> ResidueStates:
        """Return the states without those of terminal tokens, unless these are asked for."""
        if self.encoder.terminal_rows and not self.settings.terminal_rows:
            return drop_terminals(encoded, batch, self.encoder.form.terminals)
        return encoded

    def _logits(self, states: Tensor) -> Tensor:
        logits = whole_logits(self.network, states)
        return logits[..., : self.tokenizer.vocab_size].float()


def _bins_of_similar_length(sizes: NDArray[np.int64], capacity: int) -> list[NDArray[np.int64]]:
    """Return bins of part numbers, longest parts first; padded to its longest part, a bin has at most `capacity`."""
    order = np.argsort(-sizes, kind="stable")
    bins, start = [], 0
    while start < len(order):
        rows = max(1, capacity // max(1, int(sizes[order[start]])))
        bins.append(order[start : start + rows])
        start += rows
    return bins


def _to_device(batch: TokenBatch, device: torch.device) -> TokenBatch:
    """Copy a batch to a device, without waiting for the device."""
    return batch.pin_memory().to(device) if device.type == "cuda" else batch.to(device)


def check_known_tokens(ids: NDArray[np.int32], tokenizer: Tokenizer, sequence: str | bytes, name: str) -> None:
    """Check that none of a sequence's `ids` is the unknown token.

    Raises:
        DataError: the sequence has a letter that the tokenizer does not know.
    """
    if (ids == tokenizer.unk_id).any():
        raise DataError(
            f"sequence {name!r}: {describe_unknown(tokenizer, sequence, ids)} is not in the tokenizer's alphabet "
            f"({tokenizer.vocab_size} tokens)."
        )

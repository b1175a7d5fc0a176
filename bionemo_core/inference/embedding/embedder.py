"""Embeddings, hidden states, logits and likelihoods of sequences, in the order of the input.

Sequences are packed, and attention does not cross from one to the next: the results of a sequence depend only on the
sequence and the model. While a GPU computes one batch, the CPU prepares the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bionemo_core.data.batches.batch import TokenBatch
from bionemo_core.data.batches.packing import balanced_bins
from bionemo_core.data.batches.rows import RowShape, collate
from bionemo_core.data.model_input import TOKENIZER, ModelInput, input_form, max_text_tokens
from bionemo_core.data.store.text_filter import clean_texts
from bionemo_core.data.tokenizer import describe_unknown
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.embedding.attention_maps import AttentionMaps
from bionemo_core.inference.embedding.contact_head import ContactHead, contact_head_of
from bionemo_core.inference.embedding.embedding_results import (
    ATTENTIONS,
    CONTACTS,
    EMBEDDINGS,
    EVERY_OUTPUT,
    HIDDENS,
    LIKELIHOODS,
    LOGITS,
    POOLINGS,
    SQUARES,
    BatchOutputs,
    Embedded,
    ResultCollector,
    SequencePart,
    layer_output,
)
from bionemo_core.inference.windows import LongRule
from bionemo_core.nn.captures import attention_layers, capture_attention, capture_layers, encoder_layers
from bionemo_core.nn.missing_weights import require_weights
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


@dataclass(frozen=True)
class EmbeddingSettings:
    """The outputs to compute, and how to compute them."""

    outputs: tuple[str, ...] = (EMBEDDINGS,)
    layers: Sequence[int] | None = None
    """Layers whose embeddings and hidden states to return: 0 is the embedding of the tokens, -1 the last layer after
    the final norm, which is what None returns. Their outputs are named by layer: `embeddings_layer20`."""
    pooling: str = "mean"
    """How an embedding is made of hidden states: mean or max over the residues, or cls, the state of the first terminal
    token; bos is another name for cls."""
    on_long: str = "error"
    """error, truncate, or window (see `inference.windows`)."""
    window_overlap: int | None = None
    """Residues that neighbouring windows share; None: half of the model's limit."""
    tokens_per_batch: int = 4096
    """Tokens that go through the network at once; a batch always has room for one sequence."""
    text_form: str | None = None
    """How a text is fed: tokenizer or plain (`data.model_input`); None: as the model was fine-tuned, else tokenizer."""
    terminal_rows: bool = False
    """Whether the hidden states have rows for the terminal tokens as well; embeddings are means without them."""
    unknown: str = "error"
    """What to do with a letter that the tokenizer does not know: error, or unk."""
    key_prefix: str = ""
    """What the keys begin with in messages: `task.` on the command line."""
    static_shapes: bool = False
    """Give packed batches one of few shapes, so that compiled layers are compiled for few shapes."""

    def check(self) -> EmbeddingSettings:
        """Check the settings, and return them.

        Raises:
            ConfigError: an output, the pooling or the word of `unknown` is unknown, no output is requested,
                tokens_per_batch is below 1, or layers or a pooling are chosen for outputs that have none.
        """
        unknown = [name for name in self.outputs if name not in EVERY_OUTPUT]
        if unknown or not self.outputs:
            raise ConfigError(
                f"{self.key_prefix}outputs: got {list(self.outputs)}, expected some of {', '.join(EVERY_OUTPUT)}."
            )
        if self.tokens_per_batch < 1:
            raise ConfigError(f"{self.key_prefix}tokens_per_batch: got {self.tokens_per_batch}, expected 1 or more.")
        if self.unknown not in ("error", "unk"):
            raise ConfigError(f"{self.key_prefix}unknown: got {self.unknown!r}, expected error or unk.")
        self._check_pooling()
        squares = [name for name in self.outputs if name in SQUARES]
        if squares and self.on_long == "window":
            raise ConfigError(
                f"{self.key_prefix}outputs=[{squares[0]}]: residues in different windows are no pair. "
                f"Use {self.key_prefix}on_long=truncate or error."
            )
        return self if self.pooling != "bos" else replace(self, pooling="cls")

    def _check_pooling(self) -> None:
        key = self.key_prefix
        if self.pooling not in (*POOLINGS, "bos"):
            raise ConfigError(f"{key}pooling: got {self.pooling!r}, expected one of {', '.join(POOLINGS)}, bos.")
        if self.pooling != "mean" and EMBEDDINGS not in self.outputs:
            raise ConfigError(
                f"{key}pooling={self.pooling}: not used without embeddings in {key}outputs. Request "
                "them, or leave it out."
            )
        if self.pooling in ("cls", "bos") and self.on_long == "window":
            raise ConfigError(
                f"{key}pooling={self.pooling}: a protein in several windows has several first tokens. Use "
                f"{key}pooling=mean, or {key}on_long=truncate."
            )
        if self.layers is not None and not {EMBEDDINGS, HIDDENS}.intersection(self.outputs):
            raise ConfigError(
                f"{key}layers: not used without embeddings or hiddens in {key}outputs. Request them, or leave it out."
            )
        if self.layers is not None and not self.layers:
            raise ConfigError(f"{key}layers: got no layer, expected some, such as [-1,20]. Leave it out for the last.")


@dataclass
class Embedder:
    """A model that embeds sequences; its weights, device and dtype stay as they are."""

    module: pl.LightningModule
    tokenizer: Tokenizer
    settings: EmbeddingSettings = field(default_factory=EmbeddingSettings)

    def __post_init__(self) -> None:
        """Find the encoder, and check that it offers the requested outputs.

        Raises:
            ArtefactError: the model was loaded from a source without a tensor that they need.
            ConfigError: it does not, or a setting is out of its range.
        """
        settings = self.settings = self.settings.check()
        network: nn.Module = network_of(self.module)
        own = getattr(self.module, "text_form", TOKENIZER)
        form = input_form(self.tokenizer, settings.text_form or own)
        self.encoder: ResidueEncoder = encoder_of(network, form)
        # The state of the first token is among the states only if those of all tokens are.
        self.encoder.terminal_rows = settings.terminal_rows or settings.pooling == "cls"
        self.input = ModelInput(self.tokenizer, self.encoder.form)
        self.packing = self.encoder.fixed_states is None and may_pack(self.module)
        self.network = encoder_network(network)
        self.layers = self._resolve_layers()
        self.output_names = tuple(name for output in settings.outputs for name in self._names_of(output))
        self._check_first_token()
        self._attention_maps = self._plan_attention()
        ragged = [name for name in settings.outputs if name in (LOGITS, LIKELIHOODS)]
        if ragged and not (hasattr(self.network, "head") and hasattr(self.network, "embedding")):
            raise ConfigError(
                f"{settings.key_prefix}outputs: {', '.join(ragged)} need a masked-language head, which "
                f"{type(self.network).__name__} does not have. Request embeddings or hiddens."
            )
        require_weights(
            self.network,
            f"{settings.key_prefix}outputs={', '.join(settings.outputs)}",
            () if ragged else self.encoder.unread,
        )
        seq_length: int = self.module.seq_length  # type: ignore[assignment]  # torch's stub allows modules only
        limit = max_text_tokens(self.module, self.input.num_terminals)
        overlap = settings.window_overlap
        # The states of windows cannot be joined if a model has the same number of states for any length.
        actions = ("window", "truncate") if self.encoder.fixed_states is None else ("truncate",)
        overlap = limit // 2 if overlap is None else overlap
        self.long_rule = LongRule(settings.on_long, limit, overlap, actions, settings.key_prefix).check()
        if settings.terminal_rows and not self._has_terminal_rows():
            task = settings.key_prefix
            raise ConfigError(
                f"{task}terminal_rows=true: only hidden states of a model with terminal tokens have such rows. Request "
                f"{task}outputs=[hiddens] without {task}on_long=window, or set {task}terminal_rows=false."
            )
        self.seq_length = seq_length
        # The attention maps of a single protein may take a gigabyte.
        tokens_per_batch = 1 if ATTENTIONS in settings.outputs else settings.tokens_per_batch
        self.num_packs = max(1, tokens_per_batch // seq_length)

    def _resolve_layers(self) -> tuple[int, ...] | None:
        """Return the numbers of the chosen layers, from 0 for the embedding, each once; None if none is chosen.

        Raises:
            ConfigError: the model has no such layer, or none that can be chosen.
        """
        chosen, key = self.settings.layers, f"{self.settings.key_prefix}layers"
        if chosen is None:
            return None
        if self.encoder.fixed_states is not None:
            raise ConfigError(f"{key}: the layers of a perceiver have no states at residues. Leave it out.")
        count = len(encoder_layers(self.network))
        wrong = [number for number in chosen if not -count - 1 <= number <= count]
        if wrong:
            raise ConfigError(
                f"{key}: got {wrong[0]}, expected 0 (the embedding) to {count} (the last layer), or -1 (the last) to "
                f"{-count - 1}."
            )
        return tuple(dict.fromkeys(number % (count + 1) for number in chosen))

    def _plan_attention(self) -> AttentionMaps | None:
        """Return what is needed to compute attention maps and contacts; None if neither is requested.

        Raises:
            ArtefactError: the contact head does not fit the model.
            ConfigError: the model has no attention maps, or no contact head.
        """
        key = f"{self.settings.key_prefix}outputs"
        squares = [name for name in self.settings.outputs if name in SQUARES]
        if not squares:
            return None
        if self.encoder.fixed_states is not None:
            raise ConfigError(f"{key}=[{squares[0]}]: a perceiver's attention has no pairs of residues. Leave it out.")
        layers = attention_layers(self.network)
        head = None
        if CONTACTS in squares:
            network: Any = self.network
            head = contact_head_of(network, key).check(len(layers), network.config.num_attention_heads)
        terminals = (0, 0) if self.settings.terminal_rows else self.encoder.form.terminals
        return AttentionMaps(head, ATTENTIONS in squares, terminals)

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

    def _check_first_token(self) -> None:
        """Check that the model has a first terminal token, if embeddings are its state.

        Raises:
            ConfigError: it has none.
        """
        if self.settings.pooling == "cls" and not (self.encoder.fixed_states is None and self.input.form.bos):
            key = self.settings.key_prefix
            raise ConfigError(
                f"{key}pooling=cls: this model reads no terminal token before a text. Use {key}pooling=mean or max."
            )

    def _has_terminal_rows(self) -> bool:
        chosen = self.settings
        possible = self.input.num_terminals > 0 and self.encoder.fixed_states is None and chosen.on_long != "window"
        others = {LOGITS, LIKELIHOODS, CONTACTS}.intersection(chosen.outputs)
        return possible and not others and bool({HIDDENS, ATTENTIONS}.intersection(chosen.outputs))

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
        return collected.result(self.encoder.fixed_states, self.input.num_terminals * self.settings.terminal_rows)

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
        network: Any = self.network
        logits = network.head(states, network.embedding.word_embeddings.weight)
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


def embed(
    module: pl.LightningModule,
    tokenizer: Tokenizer,
    sequences: Sequence[str | bytes],
    *,
    canonicalize: bool = True,
    **settings: Any,
) -> NDArray[np.float32]:
    """Return the embedding of every sequence, float32 [sequences, hidden]: the mean of its residues' states.

    Sequences are cleaned and checked as `task=embed` does: residues in upper case, texts in the tokenizer's canonical
    form unless `canonicalize` is false. `settings` are the fields of `EmbeddingSettings` except `outputs`; with
    `layers=[20]` the embeddings are those of this layer.

    Raises:
        ConfigError: the model cannot embed, or a setting is out of its range.
        DataError: there is no sequence, or one is empty, too long, or has an unknown letter.
    """
    if isinstance(sequences, str | bytes):
        raise DataError("embed: got one text, expected a list of sequences. For a single one, pass [sequence].")
    if not len(sequences):
        raise DataError("embed: the list of sequences is empty. Pass at least one.")
    embedder = Embedder(module, tokenizer, EmbeddingSettings(**settings))
    if len(embedder.output_names) > 1:
        raise ConfigError(
            f"embed: returns one array, but got {len(embedder.output_names)} layers. Pass one layer a call."
        )
    cleaned = clean_texts(
        tokenizer,
        sequences,
        on_invalid=embedder.settings.unknown,
        canonicalize=canonicalize,
        advice="Leave it out, or keep it with unknown='unk'.",
    )
    return embedder.run(cleaned).arrays[embedder.output_names[0]]

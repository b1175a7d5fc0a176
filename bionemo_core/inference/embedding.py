"""Embeddings, hidden states, logits and likelihoods of sequences, in the order of the input.

Sequences are packed, and attention does not cross from one to the next: the results of a sequence depend only on the
sequence and the model. While a GPU computes one batch, the CPU prepares the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

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
from bionemo_core.inference.windows import LongRule, Window, average_windows
from bionemo_core.nn.missing_weights import require_weights
from bionemo_core.nn.residue_states import ResidueEncoder, drop_terminals, encoder_network, encoder_of, may_pack
from bionemo_core.parallel.weights import network_of
from bionemo_core.protocols import Example, Tokenizer

if TYPE_CHECKING:
    import pytorch_lightning as pl

EMBEDDINGS, HIDDENS, LOGITS, LIKELIHOODS = OUTPUTS = ("embeddings", "hiddens", "logits", "log_likelihoods")
"""The possible outputs: a vector per sequence; per residue a vector, the logits, and the log-likelihood of the residue
in nats."""

RAGGED = (HIDDENS, LOGITS, LIKELIHOODS)
"""Outputs with one row per residue."""


class Embedded(NamedTuple):
    """The requested outputs of some sequences, in their order."""

    lengths: NDArray[np.int64]
    """Number of rows of each sequence in the ragged outputs, shape [sequences]."""
    arrays: dict[str, NDArray[np.float32]]
    """By output: `embeddings` [sequences, hidden]; `hiddens` [rows, hidden]; `logits` [rows, vocabulary];
    `log_likelihoods` [rows]; the rows of all sequences are concatenated."""

    def rows(self, output: str) -> list[NDArray[np.float32]]:
        """Return a ragged output as one array per sequence."""
        return np.split(self.arrays[output], np.cumsum(self.lengths)[:-1])


@dataclass(frozen=True)
class EmbeddingSettings:
    """The outputs to compute, and how to compute them."""

    outputs: tuple[str, ...] = (EMBEDDINGS,)
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
            ConfigError: an output or the word of `unknown` is unknown, no output is requested, or tokens_per_batch is
                below 1.
        """
        unknown = [name for name in self.outputs if name not in OUTPUTS]
        if unknown or not self.outputs:
            raise ConfigError(
                f"{self.key_prefix}outputs: got {list(self.outputs)}, expected some of {', '.join(OUTPUTS)}."
            )
        if self.tokens_per_batch < 1:
            raise ConfigError(f"{self.key_prefix}tokens_per_batch: got {self.tokens_per_batch}, expected 1 or more.")
        if self.unknown not in ("error", "unk"):
            raise ConfigError(f"{self.key_prefix}unknown: got {self.unknown!r}, expected error or unk.")
        return self


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
        settings = self.settings.check()
        network: nn.Module = network_of(self.module)
        own = getattr(self.module, "text_form", TOKENIZER)
        form = input_form(self.tokenizer, settings.text_form or own)
        self.encoder: ResidueEncoder = encoder_of(network, form)
        self.encoder.terminal_rows = settings.terminal_rows
        self.input = ModelInput(self.tokenizer, self.encoder.form)
        self.packing = self.encoder.fixed_states is None and may_pack(self.module)
        self.network = encoder_network(network)
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
        self.num_packs = max(1, settings.tokens_per_batch // seq_length)

    def _has_terminal_rows(self) -> bool:
        chosen = self.settings
        possible = self.input.num_terminals > 0 and self.encoder.fixed_states is None and chosen.on_long != "window"
        return possible and HIDDENS in chosen.outputs and not {LOGITS, LIKELIHOODS}.intersection(chosen.outputs)

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
        collected = _ResultCollector(self.settings.outputs, parts)
        was_training = self.module.training
        self.module.eval()
        try:
            pending: tuple[list[int], _Outputs] | None = None
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

    def _compute(self, batch: TokenBatch) -> _Outputs:
        encoded_batch = self.encoder(batch)
        arrays: dict[str, Tensor] = {}
        wanted = self.settings.outputs
        of_residues = encoded_batch
        if self.settings.terminal_rows:
            of_residues = drop_terminals(encoded_batch, batch, self.encoder.form.terminals)
        arrays[EMBEDDINGS] = of_residues.mean()
        if HIDDENS in wanted or self.settings.on_long == "window":
            arrays[HIDDENS] = encoded_batch.states.float()
        if LOGITS in wanted or LIKELIHOODS in wanted:
            arrays[LOGITS] = self._logits(encoded_batch.states)
        return _Outputs.of(encoded_batch.lengths, arrays)

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


class SequencePart(NamedTuple):
    """A sequence, or one window of it."""

    owner: int
    """Number of the sequence."""
    window: Window
    """The residues of the sequence that the part covers."""
    ids: NDArray[np.int32]


def _to_device(batch: TokenBatch, device: torch.device) -> TokenBatch:
    """Copy a batch to a device, without waiting for the device."""
    return batch.pin_memory().to(device) if device.type == "cuda" else batch.to(device)


@dataclass(frozen=True)
class _Outputs:
    """The outputs of one batch, while they are copied from the device to the CPU."""

    lengths: Tensor
    arrays: dict[str, Tensor]
    done: torch.cuda.Event | None

    @classmethod
    def of(cls, lengths: Tensor, arrays: dict[str, Tensor]) -> _Outputs:
        """Start copying the values to the CPU, before any work that is launched later."""
        if not lengths.is_cuda:
            return cls(lengths, arrays, None)
        lengths, *values = (_copy_to_pinned(tensor) for tensor in (lengths, *arrays.values()))
        done = torch.cuda.Event()
        done.record()
        return cls(lengths, dict(zip(arrays, values, strict=True)), done)

    def wait(self) -> _Computed:
        """Wait for the copies, and return the values."""
        if self.done is not None:
            self.done.synchronize()
        return _Computed(self.lengths.tolist(), {name: array.numpy() for name, array in self.arrays.items()})


def _copy_to_pinned(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


class _Computed(NamedTuple):
    lengths: list[int]
    arrays: dict[str, NDArray[np.float32]]


class _ResultCollector:
    """A collector of results that come in any order, and are returned in the order of the sequences."""

    def __init__(self, outputs: Sequence[str], parts: Sequence[SequencePart]) -> None:
        self.outputs = outputs
        self.parts = parts
        self.computed: list[dict[str, NDArray[np.float32]]] = [{} for _ in parts]

    def add(self, numbers: Sequence[int], computed: _Computed) -> None:
        """Store the results of these parts."""
        ends = np.cumsum(computed.lengths)
        for index, number in enumerate(numbers):
            rows = slice(int(ends[index]) - computed.lengths[index], int(ends[index]))
            self.computed[number] = {
                name: array[index] if name == EMBEDDINGS else array[rows] for name, array in computed.arrays.items()
            }

    def result(self, fixed_states: int | None, extra_rows: int) -> Embedded:
        """Return all results, in the order of the sequences; each has `extra_rows` for its terminal tokens."""
        of_owner: list[list[int]] = []
        for number, part in enumerate(self.parts):
            if part.owner == len(of_owner):
                of_owner.append([])
            of_owner[part.owner].append(number)
        results = [self._join_windows(numbers) for numbers in of_owner]
        lengths = [
            fixed_states or max(self.parts[number].window.stop for number in numbers) + extra_rows
            for numbers in of_owner
        ]
        arrays = {
            name: np.stack([result[name] for result in results]) if name == EMBEDDINGS
            else np.concatenate([result[name] for result in results])
            for name in self.outputs
        } if results else {}  # fmt: skip
        return Embedded(np.array(lengths, dtype=np.int64), arrays)

    def _join_windows(self, numbers: Sequence[int]) -> dict[str, NDArray[np.float32]]:
        """Return the results of one sequence; if it has several windows, the means over them."""
        computed = [self.computed[number] for number in numbers]
        joined = computed[0]
        if len(computed) > 1:
            windows = [self.parts[number].window for number in numbers]
            length = windows[-1].stop
            joined = {
                name: average_windows([arrays[name] for arrays in computed], windows, length)
                for name in (HIDDENS, LOGITS)
                if name in computed[0]
            }
            joined[EMBEDDINGS] = joined[HIDDENS].mean(axis=0, dtype=np.float64).astype(np.float32)
        if LIKELIHOODS in self.outputs:
            joined = {**joined, LIKELIHOODS: log_likelihoods(joined[LOGITS], self._ids(numbers))}
        return {name: joined[name] for name in self.outputs}

    def _ids(self, numbers: Sequence[int]) -> NDArray[np.int32]:
        last = self.parts[numbers[-1]].window.stop
        ids = np.empty(last, dtype=np.int32)
        for number in numbers:
            part = self.parts[number]
            ids[part.window.start : part.window.stop] = part.ids
        return ids


def log_likelihoods(logits: NDArray[np.float32], ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the log-probability in nats of each residue `ids` [rows] under its `logits` [rows, vocabulary]."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    chosen = shifted[np.arange(len(ids)), ids]
    return (chosen - np.log(np.exp(shifted).sum(axis=-1))).astype(np.float32)


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
    form unless `canonicalize` is false. `settings` are the fields of `EmbeddingSettings` except `outputs`.

    Raises:
        ConfigError: the model cannot embed, or a setting is out of its range.
        DataError: there is no sequence, or one is empty, too long, or has an unknown letter.
    """
    if isinstance(sequences, str | bytes):
        raise DataError("embed: got one text, expected a list of sequences. For a single one, pass [sequence].")
    if not len(sequences):
        raise DataError("embed: the list of sequences is empty. Pass at least one.")
    embedder = Embedder(module, tokenizer, EmbeddingSettings(**settings))
    cleaned = clean_texts(
        tokenizer,
        sequences,
        on_invalid=embedder.settings.unknown,
        canonicalize=canonicalize,
        advice="Leave it out, or keep it with unknown='unk'.",
    )
    return embedder.run(cleaned).arrays[EMBEDDINGS]

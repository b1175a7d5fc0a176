"""Embeddings, hidden states, logits and likelihoods of sequences, in the order in which they are given.

Sequences are packed end to end and attention does not cross from one to the next: what comes out for a sequence
depends on nothing but the sequence and the model. While a GPU computes one batch, the next is laid.
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
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.windows import LongRule, Window, averaged
from bionemo_core.nn.residue_states import ResidueEncoder, encoder_network, encoder_of
from bionemo_core.protocols import Example, Tokenizer

if TYPE_CHECKING:
    import pytorch_lightning as pl

EMBEDDINGS, HIDDENS, LOGITS, LIKELIHOODS = OUTPUTS = ("embeddings", "hiddens", "logits", "log_likelihoods")
"""What can be asked for: a vector a sequence; a vector, the logits, and the log-likelihood of the residue itself in
nats, a residue."""

RAGGED = (HIDDENS, LOGITS, LIKELIHOODS)
"""Outputs with a row a residue."""


class Embedded(NamedTuple):
    """What was computed of some sequences, in their order; an output that was not asked for is absent."""

    lengths: NDArray[np.int64]
    """Rows of the ragged outputs that belong to each sequence, shape [sequences]."""
    arrays: dict[str, NDArray[np.float32]]
    """By output: `embeddings` [sequences, hidden]; `hiddens` [rows, hidden]; `logits` [rows, vocabulary];
    `log_likelihoods` [rows]; the rows of all sequences one after the other."""

    def rows(self, output: str) -> list[NDArray[np.float32]]:
        """Return a ragged output, one array for each sequence."""
        return np.split(self.arrays[output], np.cumsum(self.lengths)[:-1])


@dataclass(frozen=True)
class EmbeddingSettings:
    """What to compute and how."""

    outputs: tuple[str, ...] = (EMBEDDINGS,)
    on_long: str = "error"
    """error, truncate, or window (see `inference.windows`)."""
    window_overlap: int | None = None
    """Residues that neighbouring windows share; None for half of what the model takes."""
    tokens_per_batch: int = 4096
    """Tokens that go through the network at once; at least those of one sequence."""
    unknown: str = "error"
    """What to do with a letter that the tokenizer lacks: error, or unk."""
    static_shapes: bool = False
    """Give packed batches one of few shapes, so that compiled layers are compiled for few."""

    def check(self) -> EmbeddingSettings:
        """Check the settings, and return them.

        Raises:
            ConfigError: an output is unknown, or nothing is asked for.
        """
        unknown = [name for name in self.outputs if name not in OUTPUTS]
        if unknown or not self.outputs:
            raise ConfigError(f"outputs: got {list(self.outputs)}, expected some of {', '.join(OUTPUTS)}.")
        if self.tokens_per_batch < 1:
            raise ConfigError(f"tokens_per_batch: got {self.tokens_per_batch}, expected at least 1.")
        return self


@dataclass
class Embedder:
    """A model ready to embed; its weights, device and dtype are left as they are."""

    module: pl.LightningModule
    tokenizer: Tokenizer
    settings: EmbeddingSettings = field(default_factory=EmbeddingSettings)

    def __post_init__(self) -> None:
        """Find the encoder, and check that it gives what is asked for.

        Raises:
            ConfigError: it does not.
        """
        settings = self.settings.check()
        network: nn.Module = getattr(self.module, "network", self.module)
        self.encoder: ResidueEncoder = encoder_of(network)
        self.network = encoder_network(network)
        ragged = [name for name in settings.outputs if name in (LOGITS, LIKELIHOODS)]
        if ragged and not (hasattr(self.network, "head") and hasattr(self.network, "embedding")):
            raise ConfigError(
                f"outputs: {', '.join(ragged)} need a masked-language head over the encoder, which "
                f"{type(self.network).__name__} has not. Ask for embeddings or hiddens."
            )
        seq_length: int = self.module.seq_length  # type: ignore[assignment]  # torch's stub allows modules only
        limit = seq_length - (2 if self.encoder.framed else 0)
        overlap = settings.window_overlap
        self.long_rule = LongRule(settings.on_long, limit, limit // 2 if overlap is None else overlap).check()
        if settings.on_long == "window" and self.encoder.fixed_states is not None:
            raise ConfigError(
                "on_long=window: this model has a fixed number of states for any length, which have no place in the "
                "sequence. Use on_long=truncate or error."
            )
        self.seq_length = seq_length
        self.num_packs = max(1, settings.tokens_per_batch // seq_length)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def check_length(self, num_residues: int, name: str) -> None:
        """Accept a sequence by its tokens.

        Raises:
            DataError: it is too long, and the settings say error; or it is empty.
        """
        if num_residues < 1:
            raise DataError(f"sequence {name!r} is empty.")
        self.long_rule.of(num_residues, name)

    # Not inference mode: a model that is still trained may keep what is computed here, such as gathered weights.
    @torch.no_grad()
    def run(self, sequences: Sequence[str | bytes], names: Sequence[str] = ()) -> Embedded:
        """Compute the requested outputs of every sequence, in the given order.

        Raises:
            DataError: a sequence is empty, too long, or has a letter that the tokenizer lacks.
        """
        pieces = self.pieces(sequences, names)
        collected = _Collected(self.settings.outputs, pieces)
        was_training = self.module.training
        self.module.eval()
        try:
            waiting: tuple[list[int], _Outputs] | None = None
            for batch, owners in self.batches(pieces):
                outputs = self._outputs(_moved(batch, self.device))
                if waiting is not None:
                    collected.add(waiting[0], waiting[1].fetched())
                waiting = owners, outputs
            if waiting is not None:
                collected.add(waiting[0], waiting[1].fetched())
        finally:
            self.module.train(was_training)
        return collected.result(self.encoder.fixed_states)

    def pieces(self, sequences: Sequence[str | bytes], names: Sequence[str] = ()) -> list[SequencePart]:
        """Return the parts of every sequence that the network is given, in order.

        Raises:
            DataError: a sequence cannot be used.
        """
        pieces = []
        for index, sequence in enumerate(sequences):
            name = names[index] if names else str(index + 1)
            ids = self.tokenizer.encode(sequence)
            if self.settings.unknown == "error":
                refuse_unknown(ids, self.tokenizer, sequence, name)
            self.check_length(len(ids), name)
            places = self.long_rule.of(len(ids), name)
            pieces += [SequencePart(index, place, ids[place.start : place.stop]) for place in places]
        return pieces

    def batches(self, pieces: Sequence[SequencePart]) -> Iterator[tuple[TokenBatch, list[int]]]:
        """Packed batches with the number of each piece in them."""
        ends = 2 if self.encoder.framed else 0
        sizes = np.array([len(piece.ids) + ends for piece in pieces])
        packing = self.encoder.fixed_states is None
        capacity = self.num_packs * self.seq_length
        bins = balanced_bins(sizes, capacity) if packing else _like_lengths(sizes, capacity)
        shape = RowShape(
            self.seq_length,
            self.num_packs,
            self.tokenizer.pad_id,
            packing=packing,
            static_shapes=self.settings.static_shapes and packing,
        )
        for chosen in bins:
            examples = [self._example(pieces[number].ids) for number in chosen]
            yield TokenBatch.of(collate(examples, self.num_packs, shape)), chosen.tolist()

    def _example(self, ids: NDArray[np.int32]) -> Example:
        tokens = ids
        if self.encoder.framed:
            tokens = np.concatenate([[self.tokenizer.bos_id], ids, [self.tokenizer.eos_id]]).astype(np.int32)
        return Example(tokens, tokens, np.ones(len(tokens), dtype=np.bool_))

    def _outputs(self, batch: TokenBatch) -> _Outputs:
        encoded_batch = self.encoder(batch)
        arrays: dict[str, Tensor] = {}
        wanted = self.settings.outputs
        arrays[EMBEDDINGS] = encoded_batch.mean()
        if HIDDENS in wanted or self.settings.on_long == "window":
            arrays[HIDDENS] = encoded_batch.states.float()
        if LOGITS in wanted or LIKELIHOODS in wanted:
            arrays[LOGITS] = self._logits(encoded_batch.states)
        return _Outputs.of(encoded_batch.lengths, arrays)

    def _logits(self, states: Tensor) -> Tensor:
        network: Any = self.network
        logits = network.head(states, network.embedding.word_embeddings.weight)
        return logits[..., : self.tokenizer.vocab_size].float()


def _like_lengths(sizes: NDArray[np.int64], capacity: int) -> list[NDArray[np.int64]]:
    """Numbers of pieces, longest first; rows that are padded to the longest of a bin hold at most `capacity`."""
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
    place: Window
    ids: NDArray[np.int32]


def _moved(batch: TokenBatch, device: torch.device) -> TokenBatch:
    """Copy the batch to a device without waiting for the work queued there."""
    return batch.pin_memory().to(device) if device.type == "cuda" else batch.to(device)


@dataclass(frozen=True)
class _Outputs:
    """What a device computes of one batch, on its way to the CPU."""

    lengths: Tensor
    arrays: dict[str, Tensor]
    done: torch.cuda.Event | None

    @classmethod
    def of(cls, lengths: Tensor, arrays: dict[str, Tensor]) -> _Outputs:
        """Have the values copied as soon as they are there, before anything that the device is told later."""
        if not lengths.is_cuda:
            return cls(lengths, arrays, None)
        lengths, *values = (_to_page_locked(tensor) for tensor in (lengths, *arrays.values()))
        done = torch.cuda.Event()
        done.record()
        return cls(lengths, dict(zip(arrays, values, strict=True)), done)

    def fetched(self) -> _Computed:
        """Wait for the values, and return them."""
        if self.done is not None:
            self.done.synchronize()
        return _Computed(self.lengths.tolist(), {name: array.numpy() for name, array in self.arrays.items()})


def _to_page_locked(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


class _Computed(NamedTuple):
    lengths: list[int]
    arrays: dict[str, NDArray[np.float32]]


class _Collected:
    """Takes results in any order and gives them back in that of the sequences."""

    def __init__(self, outputs: Sequence[str], pieces: Sequence[SequencePart]) -> None:
        self.outputs = outputs
        self.pieces = pieces
        self.computed: list[dict[str, NDArray[np.float32]]] = [{} for _ in pieces]

    def add(self, numbers: Sequence[int], computed: _Computed) -> None:
        """Keep what was computed for these pieces."""
        ends = np.cumsum(computed.lengths)
        for place, number in enumerate(numbers):
            rows = slice(int(ends[place]) - computed.lengths[place], int(ends[place]))
            self.computed[number] = {
                name: array[place] if name == EMBEDDINGS else array[rows] for name, array in computed.arrays.items()
            }

    def result(self, fixed_states: int | None) -> Embedded:
        """Everything, in order."""
        of_owner: list[list[int]] = []
        for number, piece in enumerate(self.pieces):
            if piece.owner == len(of_owner):
                of_owner.append([])
            of_owner[piece.owner].append(number)
        whole = [self._whole(numbers) for numbers in of_owner]
        lengths = [fixed_states or max(self.pieces[number].place.stop for number in numbers) for numbers in of_owner]
        arrays = {
            name: np.stack([one[name] for one in whole]) if name == EMBEDDINGS
            else np.concatenate([one[name] for one in whole])
            for name in self.outputs
        } if whole else {}  # fmt: skip
        return Embedded(np.array(lengths, dtype=np.int64), arrays)

    def _whole(self, numbers: Sequence[int]) -> dict[str, NDArray[np.float32]]:
        """Return the results for one sequence, averaged over its windows if it has several."""
        parts = [self.computed[number] for number in numbers]
        joined = parts[0]
        if len(parts) > 1:
            places = [self.pieces[number].place for number in numbers]
            length = places[-1].stop
            joined = {
                name: averaged([part[name] for part in parts], places, length)
                for name in (HIDDENS, LOGITS)
                if name in parts[0]
            }
            joined[EMBEDDINGS] = joined[HIDDENS].mean(axis=0, dtype=np.float64).astype(np.float32)
        if LIKELIHOODS in self.outputs:
            joined = {**joined, LIKELIHOODS: log_likelihoods(joined[LOGITS], self._ids(numbers))}
        return {name: joined[name] for name in self.outputs}

    def _ids(self, numbers: Sequence[int]) -> NDArray[np.int32]:
        last = self.pieces[numbers[-1]].place.stop
        ids = np.empty(last, dtype=np.int32)
        for number in numbers:
            piece = self.pieces[number]
            ids[piece.place.start : piece.place.stop] = piece.ids
        return ids


def log_likelihoods(logits: NDArray[np.float32], ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the log-probability in nats of each residue `ids` [rows] under its `logits` [rows, vocabulary]."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    chosen = shifted[np.arange(len(ids)), ids]
    return (chosen - np.log(np.exp(shifted).sum(axis=-1))).astype(np.float32)


def refuse_unknown(ids: NDArray[np.int32], tokenizer: Tokenizer, sequence: str | bytes, name: str) -> None:
    """Accept a sequence whose `ids` are all known.

    Raises:
        DataError: it has a letter that the tokenizer lacks.
    """
    unknown = np.flatnonzero(ids == tokenizer.unk_id)
    if not unknown.size:
        return
    place = int(unknown[0])
    text = sequence if isinstance(sequence, str) else sequence.decode("latin-1")
    letter = f"{text[place]!r} " if len(ids) == len(text) else ""
    raise DataError(
        f"sequence {name!r}: token {place + 1} {letter}is not in the tokenizer's alphabet "
        f"({tokenizer.vocab_size} tokens)."
    )


def embed(
    module: pl.LightningModule, tokenizer: Tokenizer, sequences: Sequence[str | bytes], **settings: Any
) -> NDArray[np.float32]:
    """Return the embedding of every sequence, float32 [sequences, hidden]: the mean of its residues' states.

    `settings` are those of `EmbeddingSettings`, outputs excepted.

    Raises:
        ConfigError: the model gives no embeddings, or a setting cannot be followed.
        DataError: a sequence cannot be used, or there is none.
    """
    if isinstance(sequences, str | bytes):
        raise DataError("embed: got one text, expected a list of sequences; for a single one: [sequence].")
    if not len(sequences):
        raise DataError("embed: the list of sequences is empty.")
    return Embedder(module, tokenizer, EmbeddingSettings(**settings)).run(sequences).arrays[EMBEDDINGS]

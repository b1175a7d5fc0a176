"""What an embedding computes: its outputs by name, and the collector that puts them in the order of the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bionemo_core.errors import NonFiniteError
from bionemo_core.inference.windows import Window, average_windows

EMBEDDINGS, HIDDENS, LOGITS, LIKELIHOODS = OUTPUTS = ("embeddings", "hiddens", "logits", "log_likelihoods")
"""A vector per sequence; per residue a vector, the logits, and the log-likelihood of the residue in nats."""

CONTACTS, ATTENTIONS = SQUARES = ("contacts", "attentions")
"""Outputs with a value, or a value per layer and head, for each pair of residues."""

EVERY_OUTPUT = (*OUTPUTS, *SQUARES)
"""The possible outputs."""

RAGGED = (HIDDENS, LOGITS, LIKELIHOODS)
"""Outputs with one row per residue."""

POOLINGS = ("mean", "max", "cls")
"""How the states of a sequence become its embedding: their mean, their maximum, or the state of its first token."""

_LAYER = "_layer"


def layer_output(output: str, layer: int) -> str:
    """Return the name of an output at a layer: `hiddens_layer20`."""
    return f"{output}{_LAYER}{layer}"


def is_per_sequence(output: str) -> bool:
    """Return whether an output has one row per sequence; the others have one per residue, or per pair of residues."""
    return output.partition(_LAYER)[0] == EMBEDDINGS


def check_finite(values: NDArray[np.float32], what: str) -> None:
    """Check results of a model; -inf is the logarithm of a probability of 0, or the logit of an excluded token.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    if not (values < np.inf).all():
        raise NonFiniteError.of_result(what)


def pool(states: NDArray[np.float32], pooling: str) -> NDArray[np.float32]:
    """Return the mean or the maximum over states, float32 [rows, hidden] to [hidden]."""
    if pooling == "max":
        return states.max(axis=0)
    return states.mean(axis=0, dtype=np.float64).astype(np.float32)


class Embedded(NamedTuple):
    """The requested outputs of some sequences, in their order."""

    lengths: NDArray[np.int64]
    """Number of rows of each sequence in the ragged outputs, shape [sequences]."""
    arrays: dict[str, NDArray[np.float32]]
    """By output: `embeddings` [sequences, hidden]; `hiddens` [rows, hidden]; `logits` [rows, vocabulary];
    `log_likelihoods` [rows]; the rows of all sequences are concatenated. With chosen layers, `embeddings_layer20` and
    `hiddens_layer20` in place of the first two. `contacts` [pairs] and `attentions` [pairs, layers, heads] have the
    pairs of each sequence row by row."""

    def rows(self, output: str) -> list[NDArray[np.float32]]:
        """Return a ragged output as one array per sequence."""
        return self.split(output)

    def split(self, output: str) -> list[NDArray[np.float32]]:
        """Return the rows of each sequence, one for each residue or for each pair of residues."""
        sizes = self.lengths**2 if output in SQUARES else self.lengths
        return np.split(self.arrays[output], np.cumsum(sizes)[:-1])

    def maps(self, output: str) -> list[NDArray[np.float32]]:
        """Return `contacts` as [L, L] of each sequence, or `attentions` as [layers, heads, L, L]."""
        sides = zip(self.lengths, self.split(output), strict=True)
        squares = (pairs.reshape(length, length, *pairs.shape[1:]) for length, pairs in sides)
        return [np.moveaxis(square, (0, 1), (-2, -1)) for square in squares]


class SequencePart(NamedTuple):
    """A sequence, or one window of it."""

    owner: int
    """Number of the sequence."""
    window: Window
    """The residues of the sequence that the part covers."""
    ids: NDArray[np.int32]


@dataclass(frozen=True)
class BatchOutputs:
    """The outputs of one batch, while they are copied from the device to the CPU."""

    lengths: Tensor
    arrays: dict[str, Tensor]
    done: torch.cuda.Event | None

    @classmethod
    def of(cls, lengths: Tensor, arrays: dict[str, Tensor]) -> BatchOutputs:
        """Start copying the values to the CPU, before any work that is launched later."""
        if not lengths.is_cuda:
            return cls(lengths, arrays, None)
        lengths, *values = (_copy_to_pinned(tensor) for tensor in (lengths, *arrays.values()))
        done = torch.cuda.Event()
        done.record()
        return cls(lengths, dict(zip(arrays, values, strict=True)), done)

    def wait(self) -> ComputedBatch:
        """Wait for the copies, and return the values."""
        if self.done is not None:
            self.done.synchronize()
        return ComputedBatch(self.lengths.tolist(), {name: array.numpy() for name, array in self.arrays.items()})


def _copy_to_pinned(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


class ComputedBatch(NamedTuple):
    """The outputs of one batch, on the CPU."""

    lengths: list[int]
    arrays: dict[str, NDArray[np.float32]]


class ResultCollector:
    """A collector of results that come in any order, and are returned in the order of the sequences."""

    def __init__(self, outputs: Sequence[str], parts: Sequence[SequencePart], pooling: str) -> None:
        self.outputs = outputs
        self.parts = parts
        self.pooling = pooling
        self.computed: list[dict[str, NDArray[np.float32]]] = [{} for _ in parts]

    def add(self, numbers: Sequence[int], computed: ComputedBatch) -> None:
        """Store the results of these parts."""
        lengths = np.array(computed.lengths, dtype=np.int64)
        for name, array in computed.arrays.items():
            split = array if is_per_sequence(name) else Embedded(lengths, {name: array}).split(name)
            for number, own in zip(numbers, split, strict=False):
                self.computed[number][name] = own

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
            name: np.stack([result[name] for result in results]) if is_per_sequence(name)
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
                for name in computed[0]
                if not is_per_sequence(name)
            }
            pooled = {name.replace(HIDDENS, EMBEDDINGS): name for name in joined if name.startswith(HIDDENS)}
            joined |= {name: pool(joined[hiddens], self.pooling) for name, hiddens in pooled.items()}
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

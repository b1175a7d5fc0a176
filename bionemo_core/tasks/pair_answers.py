"""The answers of an encoder-decoder to the sources of a file or a split, as rows of a table, with their accuracy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bionemo_core.config.schema import RunSpec
from bionemo_core.data.pair_records import split_pair
from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.finetuning.label_spec import label_spec_of
from bionemo_core.inference.beam_writer import BeamWriter, ExactMatch, Written
from bionemo_core.io.atomic import new_csv
from bionemo_core.parallel.weights import network_of
from bionemo_core.protocols import Tokenizer
from bionemo_core.tasks.texts import inference_of

if TYPE_CHECKING:
    from bionemo_core.models.load import OpenedModel

_BATCHES_PER_PART, _PART_SOURCES = 4, 4096
"""How much a rank answers at a time; it does not depend on their number, so neither do the batches."""


def writes_answers(opened: OpenedModel) -> bool:
    """Return whether a model writes texts: it has a decoder, and no prediction head."""
    network: Any = network_of(opened.module)
    return label_spec_of(opened.module) is None and all(hasattr(network, one) for one in ("encode", "start"))


@dataclass(frozen=True)
class AnswerColumns:
    """The answers of a beam search as columns of a table; has what `task=predict` needs of a predictor."""

    writer: BeamWriter

    @classmethod
    def of(cls, opened: OpenedModel, spec: RunSpec, task: Any) -> AnswerColumns:
        """Return the answers of an opened model; `task` has `beam_size` and `beam_alpha`.

        Raises:
            ArtefactError: the model lacks a tensor that decoding needs.
            ConfigError: the model cannot decode.
        """
        return cls(BeamWriter(inference_of(opened, spec, None), task.beam_size, task.beam_alpha))

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model."""
        return self.writer.inference.tokenizer

    @property
    def sources_per_part(self) -> int:
        """How many sources a rank answers at a time."""
        batch = max(1, self.writer.inference.batch_size // self.writer.beam_size)
        return min(_PART_SOURCES, _BATCHES_PER_PART * batch)

    def is_long(self, source: str | bytes) -> bool:
        """Return whether a source has more tokens than the model takes."""
        return self.writer.is_long(source)

    def check_lengths(self, store: PreparedStore, on_long: str) -> None:
        """Check the number of tokens of all sources, before any answer is written.

        Raises:
            ConfigError: long sources are to be cut into windows.
            DataError: a source is too long, with `on_long=error`.
        """
        if on_long == "window":
            raise ConfigError("task.on_long=window: a decoder needs the whole source. Use truncate or error.")
        if on_long != "error":
            return
        for row in np.flatnonzero(store.lengths > self.writer.inference.seq_length).tolist():
            if self.is_long(store[row]):
                raise DataError(
                    f"sequence {store.id(row)!r} has more tokens than the {self.writer.inference.seq_length} that the "
                    "model takes. Cut such sequences with task.on_long=truncate, or leave them out."
                )

    def predict(self, sources: Sequence[str | bytes], names: Sequence[str] = ()) -> list[list[Written]]:
        """Return the answers to each source, best first."""
        return self.writer.write(sources)

    def header(self) -> list[str]:
        """Return the names of the columns that `row` fills."""
        return [name for k in range(1, self.writer.beam_size + 1) for name in (f"answer_{k}", f"score_{k}")]

    def row(self, answers: Sequence[Written]) -> list[str]:
        """Return answers as cells: the text and the score of each; empty where a search found fewer."""
        missing = [""] * (2 * (self.writer.beam_size - len(answers)))
        return [cell for one in answers for cell in (one.text, f"{one.score:.6g}")] + missing


def write_pair_answers(
    records: Any,
    columns: AnswerColumns,
    path: Path,
    share: Callable[[Iterable[list[str]]], Iterable[list[list[Written]]]] | None = None,
) -> dict[str, float]:
    """Write the answers to every source of a split beside its target, and return their accuracies.

    Args:
        records: the pairs.
        columns: the answers.
        path: the table.
        share: yields what `columns.predict` returns for each list of sources; None: this process computes them.

    Raises:
        StorageError: the file cannot be written.
    """
    matches = ExactMatch(columns.writer.inference.tokenizer)
    names = records.ids() if hasattr(records, "ids") else [str(row) for row in range(len(records))]
    every, size = range(len(records)), columns.sources_per_part
    parts = [every[start : start + size] for start in every[::size]]
    sources = ([_read_pair(records[row])[0] for row in part] for part in parts)
    answers = itertools.chain.from_iterable((share or partial(map, columns.predict))(sources))

    def rows() -> Iterator[list[str]]:
        for row, own in zip(every, answers, strict=True):
            pair = _read_pair(records[row])
            yield [names[row], *pair, rank_cell(matches.rank(pair[1], own)), *columns.row(own)]

    with new_csv(path, ["id", "source", "target", "rank", *columns.header()], line_end="\r\n") as add_rows:
        add_rows(rows())
    return matches.accuracies(columns.writer.beam_size)


def _read_pair(record: str | bytes) -> list[str]:
    return [side.decode("latin-1") for side in split_pair(record)]


def rank_cell(rank: int) -> str:
    """Return a rank as a cell; empty if the target is not among the answers."""
    return str(rank) if rank else ""

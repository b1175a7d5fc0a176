"""The answers of an encoder-decoder to the sources of a file or a split, as rows of a table, with their accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bionemo_core.config.schema import RunSpec
from bionemo_core.data.pair_records import split_pair
from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.beam_writer import BeamWriter, ExactMatch, Written
from bionemo_core.io.atomic import new_csv
from bionemo_core.parallel.weights import network_of
from bionemo_core.protocols import Tokenizer
from bionemo_core.tasks.texts import inference_of

if TYPE_CHECKING:
    from bionemo_core.models.load import OpenedModel

_AT_ONCE = 4096


def writes_answers(opened: OpenedModel) -> bool:
    """Return whether a model writes texts: it has a decoder, and no prediction head."""
    network: Any = network_of(opened.module)
    return not getattr(opened.module, "answers", None) and all(hasattr(network, one) for one in ("encode", "start"))


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


def write_pair_answers(records: Any, columns: AnswerColumns, path: Path) -> dict[str, float]:
    """Write the answers to every source of a split beside its target, and return their accuracies.

    Raises:
        StorageError: the file cannot be written.
    """
    matches = ExactMatch(columns.writer.inference.tokenizer)
    names = records.ids() if hasattr(records, "ids") else [str(row) for row in range(len(records))]

    def rows() -> Iterator[list[list[str]]]:
        for start in range(0, len(records), _AT_ONCE):
            chosen = range(start, min(start + _AT_ONCE, len(records)))
            pairs = [[side.decode("latin-1") for side in split_pair(records[row])] for row in chosen]
            answers = columns.predict([source for source, _ in pairs])
            yield [
                [names[row], *pair, rank_cell(matches.rank(pair[1], own)), *columns.row(own)]
                for row, pair, own in zip(chosen, pairs, answers, strict=True)
            ]

    with new_csv(path, ["id", "source", "target", "rank", *columns.header()], line_end="\r\n") as add_rows:
        for part in rows():
            add_rows(part)
    return matches.accuracies(columns.writer.beam_size)


def rank_cell(rank: int) -> str:
    """Return a rank as a cell; empty if the target is not among the answers."""
    return str(rank) if rank else ""

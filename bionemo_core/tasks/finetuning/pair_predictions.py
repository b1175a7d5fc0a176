"""The predictions of `task=predict` for a table of pairs of sequences."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from bionemo_core.data.readers import Record, Source, decode_text
from bionemo_core.data.store.residue_filter import FilterResult, RecordFilter
from bionemo_core.data.store.text_filter import filter_for
from bionemo_core.errors import DataError
from bionemo_core.finetuning.pairs.predictor import PairPredictor
from bionemo_core.plurals import format_count
from bionemo_core.runs.kept_results import KeptResults
from bionemo_core.tasks.input_file import read_input
from bionemo_core.tasks.settings import Predict
from bionemo_core.tasks.variants import REJECTED

SECOND = "second"
"""The column of the second sequences if none is named."""
_PART_PAIRS = 1 << 12
"""How many pairs a rank predicts at a time; it does not depend on the number of ranks."""


class _Row(NamedTuple):
    """A row of the table."""

    id: str
    pair: tuple[bytes, bytes] | None
    """Both sequences as the model reads them; None for a row that cannot be used."""
    reason: str = ""


def predict_pairs(
    task: Predict, predictor: PairPredictor, work: KeptResults[Any, Any]
) -> tuple[list[str], Iterable[list[str]]]:
    """Return the header and the rows of the predictions, in the order of the input.

    Raises:
        DataError: the file or a row cannot be used.
    """
    assert task.input is not None
    named = replace(task, second_column=task.second_column or SECOND)
    source, rules = read_input(task.input, named, predictor.tokenizer)
    second_rules = rules
    if predictor.second is not None:
        second_rules = filter_for(predictor.second.tokenizer, task.on_invalid, canonicalize=task.canonicalize)
    cut, with_reasons = task.on_long == "truncate", task.on_invalid == "skip"
    header = ["id", *predictor.header(), *(["truncated"] if cut else []), *([REJECTED] if with_reasons else [])]
    return header, _rows(_read_rows(source, rules, second_rules), predictor, work, cut=cut, with_reasons=with_reasons)


def _rows(
    rows: Iterator[_Row], predictor: PairPredictor, work: KeptResults[Any, Any], *, cut: bool, with_reasons: bool
) -> Iterator[list[str]]:
    used, all_rows = itertools.tee(rows)
    pieces = _pieces(row for row in used if row.pair is not None)
    answers = itertools.chain.from_iterable(work.share(pieces))
    width, num_rejected = len(predictor.header()), 0
    for row in all_rows:
        if row.pair is None:
            num_rejected += 1
            yield [row.id, *[""] * (width + cut), row.reason]
            continue
        long = [str(int(predictor.is_long_pair(row.pair)))] if cut else []
        yield [row.id, *predictor.row(next(answers)), *long, *([""] if with_reasons else [])]
    if num_rejected:
        print(f"{format_count(num_rejected, 'pair has', 'pairs have')} no prediction; see the column {REJECTED}")


def _pieces(rows: Iterator[_Row]) -> Iterator[tuple[list[Any], list[str]]]:
    while part := list(itertools.islice(rows, _PART_PAIRS)):
        yield [row.pair for row in part], [row.id for row in part]


def _read_rows(source: Source, rules: RecordFilter, second_rules: RecordFilter) -> Iterator[_Row]:
    """Yield every row of the table.

    Raises:
        DataError: a row cannot be used, and such rows are not to be skipped.
    """
    for path in source.paths:
        for record in source.records(path):
            name = decode_text(record.id)
            first = rules.apply(record)
            second = second_rules.apply(
                Record(record.id, record.columns[0].strip() if record.columns else b"", record.line)
            )
            bad = [("first", first)] if not first.sequences else [("second", second)] if not second.sequences else []
            if not bad:
                yield _Row(name, (first.sequences[0], second.sequences[0]))
                continue
            which, result = bad[0]
            if result.fatal:
                raise DataError(f"{path}:{record.line} record {name!r}, its {which} sequence{_what(result)}")
            yield _Row(name, None, f"{which} sequence: {result.reason}{result.detail}")


def _what(result: FilterResult) -> str:
    return result.detail or f": {result.reason}."

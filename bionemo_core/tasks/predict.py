"""The task `predict`: a CSV file of a fine-tuned model's predictions, an encoder-decoder's answers, or scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.config.schema import RunSpec
from bionemo_core.data.readers import Source, decode_text
from bionemo_core.data.store.record_store import PreparedStore
from bionemo_core.data.store.report import count_summary
from bionemo_core.data.store.residue_filter import RecordFilter
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.pairs.predictor import PairPredictor, predictor_of
from bionemo_core.finetuning.pairs.second_model import open_second_for
from bionemo_core.inference.beam_writer import ExactMatch, Written
from bionemo_core.inference.embedding import EmbeddingSettings
from bionemo_core.inference.outputs import part_bounds
from bionemo_core.inference.scoring import scoring_tokens
from bionemo_core.inference.scoring_answers import Predictor, reads_pairs
from bionemo_core.io.atomic import check_writable, new_csv
from bionemo_core.models.load import OpenedModel
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.plurals import format_count
from bionemo_core.protocols import BuildContext
from bionemo_core.runs.device import choose_device
from bionemo_core.runs.kept_results import KeptResults
from bionemo_core.runs.launch import opening_on_all_ranks
from bionemo_core.runs.plan_text import quieten_libraries
from bionemo_core.runs.shared_work import SharedWork
from bionemo_core.tasks.finetuning.pair_predictions import predict_pairs
from bionemo_core.tasks.input_file import prepare_input, read_input
from bionemo_core.tasks.opening import model_fingerprint, open_for_use, start_workers
from bionemo_core.tasks.pair_answers import AnswerColumns, rank_cell, writes_answers
from bionemo_core.tasks.score import describe_use, make_scorer, score
from bionemo_core.tasks.settings import Evaluate, Predict
from bionemo_core.tasks.unread_keys import refuse_unread
from bionemo_core.tasks.variants import REJECTED

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

_FILE_KEYS = ("format", "sequence_column", "second_column", "second_model", "id_column", "canonicalize")
PREDICTIONS = "predictions.csv"
"""The file of predictions that `task=evaluate` writes."""
_ANSWER_KEYS = ("target_column", "beam_size", "beam_alpha")
_PAIR_KEYS = ("second_column", "second_model")
_VARIANT_KEYS = ("wild_type", "variant_column", "first_position")

_BATCHES_PER_PART, _PART_SEQUENCES = 4, 1 << 13
"""How much a rank predicts at a time; it does not depend on their number, so neither do the batches."""
_Part = tuple[list[bytes], list[str]]
_Work = KeptResults[_Part, Sequence[Any]]


def predict(spec: RunSpec, registry: Registry, *, composed_yaml: str = "") -> None:
    """Run the task: write `task.output`.

    Raises:
        BioNeMoError: the task failed.
    """
    quieten_libraries()
    task = Predict(**spec.task.params)
    output = Path(task.output).expanduser()
    if output.exists() and not task.overwrite:
        raise ConfigError(f"task.output={output}: already exists. Choose another name, or set task.overwrite=true.")
    if [task.input is not None, task.variants is not None, task.scan].count(True) != 1:
        raise ConfigError(
            "task=predict: give one of task.input (sequences for a fine-tuned model, or for the likelihoods of "
            "task.scoring), task.variants and task.scan=true (both with task.wild_type, for a masked language model)."
        )
    refuse_unread(task, *_find_unread(task))
    if task.second_model and spec.parallel.tensor_model_parallel_size > 1:
        raise ConfigError(
            "task.second_model: the encoder of the second sequences is not split. Set "
            "parallel.tensor_model_parallel_size=1."
        )
    check_writable(output)
    device = choose_device(spec)
    ranks = start_workers(spec, device, splits_model=True)
    opened = open_for_use(spec, registry, device, ranks)
    tokens = scoring_tokens(task.tokens_per_batch, device.name == "cuda")
    if task.input is not None and task.scoring is None:
        with opening_on_all_ranks():  # the model of the second sequences
            predictor = _predictor_of(task, opened, tokens, spec, registry)
        _write_predictions(task, opened, predictor, tokens, ranks, device.context(spec))
    else:
        _write_scores(task, opened, tokens, spec, ranks)


def part_ranges(lengths: Sequence[int] | NDArray[np.integer], tokens: int) -> list[range]:
    """Return the sequences of each part that a rank predicts at a time; `tokens` are those of one forward pass."""
    bounds = part_bounds(lengths, _BATCHES_PER_PART * tokens, _PART_SEQUENCES)
    return [range(*part) for part in itertools.pairwise(bounds)]


def _write_scores(task: Predict, opened: OpenedModel, tokens: int, spec: RunSpec, ranks: Ranks) -> None:
    scorer = make_scorer(task, opened, tokens)
    work = keep_results(SharedWork(ranks, scorer.answer_group), task, opened)
    scorer.share = work.share

    def write() -> None:
        scores = score(task, scorer)
        output = Path(task.output).expanduser()
        count = write_csv(output, scores.header, scores.rows)
        scores.write_beside(output, describe_use(opened, spec))
        _finish(output, opened, count)

    work.lead(write)


def _write_predictions(
    task: Predict,
    opened: OpenedModel,
    predictor: Predictor | AnswerColumns,
    tokens: int,
    ranks: Ranks,
    context: BuildContext,
) -> None:
    revive = Written.revive if isinstance(predictor, AnswerColumns) else list
    work: _Work = keep_results(SharedWork(ranks, lambda part: predictor.predict(*part)), task, opened, revive)

    def write() -> None:
        if isinstance(predictor, PairPredictor):
            header, rows = predict_pairs(task, predictor, work)
        else:
            header, rows = _predict_rows(task, predictor, tokens, work, context)
        output = Path(task.output).expanduser()
        _finish(output, opened, write_csv(output, header, rows))

    work.lead(write)


def keep_results(
    work: SharedWork[Any, Any], task: Predict | Evaluate, opened: OpenedModel, revive: Callable[[Any], Any] = list
) -> KeptResults[Any, Any]:
    """Return work whose results are kept beside the output of the task until it is there."""
    name = f"task={type(task).__name__.lower()}"
    settings = {key: value for key, value in asdict(task).items() if key not in ("output", "overwrite")}

    def facts() -> dict[str, Any]:
        made_by = {"model": asdict(opened.spec.model), "tokenizer": asdict(opened.spec.tokenizer)}
        return {**made_by, "weights": model_fingerprint(opened), "settings": settings}

    return KeptResults(work, Path(task.output).expanduser(), facts, name, revive)


def _finish(output: Path, opened: OpenedModel, count: int) -> None:
    opened.report.write(output)
    print(f"{output}: {format_count(count, 'row')}")


def _find_unread(task: Predict) -> tuple[tuple[str, ...], str]:
    """Return the keys that the mode of the task does not read, and the words for the mode."""
    if task.variants is not None:
        return (*_FILE_KEYS, *_ANSWER_KEYS), "with task.variants"
    if task.scan:
        table_keys = ("variant_column", "measured", "header_lines", "separator", "on_invalid")
        return (*_FILE_KEYS, *_ANSWER_KEYS, *table_keys), "with task.scan"
    if task.scoring is not None:
        return (*_VARIANT_KEYS, *_ANSWER_KEYS, *_PAIR_KEYS), "with task.input and task.scoring"
    return (*_VARIANT_KEYS, "measured"), "without task.variants"


def _predictor_of(
    task: Predict, opened: OpenedModel, tokens: int, spec: RunSpec, registry: Registry
) -> Predictor | AnswerColumns:
    """Return what predicts: the answers of an encoder-decoder, or the head of a fine-tuned model.

    Raises:
        ConfigError: the model has neither, or a key that it does not use is given.
    """
    if writes_answers(opened):
        if spec.parallel.tensor_model_parallel_size > 1:
            raise ConfigError(
                f"parallel.tensor_model_parallel_size={spec.parallel.tensor_model_parallel_size}: an encoder-decoder "
                "writes its answers on one device. Leave it at 1."
            )
        refuse_unread(task, ("tokens_per_batch", "adapter", *_PAIR_KEYS), "by an encoder-decoder that writes answers")
        return AnswerColumns.of(opened, spec, task)
    refuse_unread(task, _ANSWER_KEYS, "by a model that does not write texts")
    settings = EmbeddingSettings(on_long=task.on_long, tokens_per_batch=tokens, unknown="unk")
    if not reads_pairs(opened.module):
        refuse_unread(task, _PAIR_KEYS, "by a model that reads single sequences")
    second = open_second_for(opened, task.second_model, registry, spec.home, adapter=task.adapter)
    return predictor_of(opened, settings, second)


def _predict_rows(
    task: Predict, predictor: Predictor | AnswerColumns, tokens: int, work: _Work, context: BuildContext
) -> tuple[list[str], Iterable[list[str]]]:
    """Return the header and the rows of the predictions, in the order of the input.

    Raises:
        DataError: the file or a record cannot be used.
    """
    assert task.input is not None
    source, rules = read_input(task.input, task, predictor.tokenizer)
    store = prepare_input(source, rules, context)
    predictor.check_lengths(store, task.on_long)
    rejects = store.manifest["records"]["rejected"]
    if rejects:
        print(f"{task.input}: {count_summary(store.manifest['records'])}")
    cut, with_reasons = task.on_long == "truncate", bool(rejects) or task.on_invalid == "skip"
    parts = (_read_part(store, part) for part in part_ranges(store.lengths, tokens))
    answers = itertools.chain.from_iterable(work.share(parts))
    table = _Predictions(task, store, predictor, ExactMatch(predictor.tokenizer), cut, with_reasons)
    header, rows = table.header(), table.rows(answers)
    return header, _with_rejected(rows, source, rules, len(header)) if rejects else rows


@dataclass(frozen=True)
class _Predictions:
    """The predictions for the records of a store, as a table."""

    task: Predict
    store: PreparedStore
    predictor: Any
    matches: ExactMatch
    cut: bool
    """Whether there is a column for sequences that were cut."""
    with_reasons: bool
    """Whether there is a column for the reason of a record without a prediction."""

    def header(self) -> list[str]:
        target = ["target", "rank"] if self.task.target_column else []
        more = [*(["truncated"] if self.cut else []), *([REJECTED] if self.with_reasons else [])]
        return ["id", *target, *self.predictor.header(), *more]

    def rows(self, answers: Iterable[Any]) -> Iterator[list[str]]:
        """Yield a row for each record and its answer, in their order; then say what is true of all."""
        store, num_cut = self.store, 0
        for row, answer in zip(range(len(store)), answers, strict=True):
            long = self.cut and self.predictor.is_long(store[row])
            num_cut += long
            more = [*([str(int(long))] if self.cut else []), *([""] if self.with_reasons else [])]
            yield [store.id(row), *self._target_cells(row, answer), *self.predictor.row(answer), *more]
        where = self.task.input
        if num_cut:
            were = format_count(num_cut, "sequence was", "sequences were")
            print(f"{where}: {were} cut to the length of the model; see the column truncated")
        for metric, value in self.matches.accuracies(self.task.beam_size).items():
            print(f"{metric}  {value:.5g}")

    def _target_cells(self, row: int, answer: Any) -> list[str]:
        if not self.task.target_column:
            return []
        target = decode_text(self.store.column(row, self.task.target_column)).strip()
        return [target, rank_cell(self.matches.rank(target, answer))]


def _read_part(store: PreparedStore, rows: range) -> _Part:
    return [store[row] for row in rows], [store.id(row) for row in rows]


def _with_rejected(rows: Iterator[list[str]], source: Source, rules: RecordFilter, width: int) -> Iterator[list[str]]:
    """Yield the rows, and between them a row with an id and a reason for each record that the filter rejects."""
    for path in source.paths:
        for record in source.records(path):
            result = rules.apply(record)
            if result.sequences:
                yield next(rows)
            else:
                reason = f"{result.reason}{result.detail}"
                yield [decode_text(record.id), *[""] * (width - 2), reason]
    yield from rows  # none; it counts to its end


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """Write a CSV file atomically, and return the number of rows.

    Raises:
        StorageError: the file cannot be written.
    """
    count = 0
    with new_csv(path, header, line_end="\r\n") as add_rows:
        for count, row in enumerate(rows, start=1):  # noqa: B007 - the last one is how many there are
            add_rows([row])
    return count

"""The task `predict`: a CSV file of predictions of a fine-tuned model, or of zero-shot scores of mutations."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bionemo_core.config.schema import RunSpec
from bionemo_core.data.readers import Source
from bionemo_core.data.store.report import count_summary
from bionemo_core.data.store.residue_filter import RecordFilter
from bionemo_core.errors import ConfigError
from bionemo_core.inference.embedding import EmbeddingSettings
from bionemo_core.inference.outputs import part_bounds
from bionemo_core.inference.scoring import MaskedScorer
from bionemo_core.inference.scoring_answers import Predictor
from bionemo_core.io.atomic import new_csv
from bionemo_core.models.load import OpenedModel
from bionemo_core.runs.device import choose_device
from bionemo_core.runs.plan_text import quieten_libraries
from bionemo_core.tasks.input_file import prepare_input, read_input
from bionemo_core.tasks.opening import open_for_use, single_process
from bionemo_core.tasks.settings import Predict
from bionemo_core.tasks.unread_keys import refuse_unread
from bionemo_core.tasks.variants import REJECTED, read_variants, read_wild_type

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

INPUT_KEYS = ("format", "sequence_column", "id_column", "canonicalize", "on_long")
"""Keys that only `task.input` uses."""

VARIANT_KEYS = ("wild_type", "variant_column", "first_position", "scoring")
"""Keys that only `task.variants` uses."""

_PART_TOKENS, _PART_SEQUENCES = 1 << 18, 1 << 13


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
    if (task.input is None) == (task.variants is None):
        raise ConfigError(
            "task=predict: give either task.input, for a fine-tuned model, or task.variants with task.wild_type, for "
            "a masked language model."
        )
    if task.variants is not None:
        refuse_unread(task, INPUT_KEYS, "with task.variants")
    else:
        refuse_unread(task, VARIANT_KEYS, "without task.variants")
    device = choose_device(spec)
    ranks = single_process(spec, device)
    opened = open_for_use(spec, registry, device, ranks)
    tokens = task.tokens_per_batch or (65_536 if device.name == "cuda" else 4_096)
    rows: Iterable[list[str]]
    if task.variants is not None:
        header, rows = _score_variants(task, opened, tokens)
    else:
        header, rows = _predict_rows(task, opened, tokens, spec)
    count = write_csv(output, header, rows)
    opened.report.write(output)
    print(f"{output}: {count:,} rows")


def _score_variants(task: Predict, opened: OpenedModel, tokens: int) -> tuple[list[str], list[list[str]]]:
    if task.wild_type is None or task.variants is None:
        raise ConfigError("task.variants: the sequence before mutation is missing. Set task.wild_type.")
    wild_type = read_wild_type(task.wild_type)
    table = read_variants(task, wild_type, opened.tokenizer)
    if table.left_out:
        print(f"{task.variants}: {table.left_out}")
    scorer = MaskedScorer(opened.module, opened.tokenizer, tokens)
    scores = iter(scorer.score_variants(wild_type, [row.mutations for row in table.scored], task.scoring))
    header = ["variant", "num_mutations", "score"]
    header += _unused(table.other_columns, (*header, REJECTED))
    with_reasons = task.on_invalid == "skip"
    rows = [
        [
            row.text,
            *(["", ""] if row.reason else [str(len(row.mutations)), f"{next(scores):.6f}"]),
            *row.columns,
            *([row.reason] if with_reasons else []),
        ]
        for row in table.rows
    ]
    return [*header, *([REJECTED] if with_reasons else [])], rows


def _unused(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Return the names of further columns, changed where the output has a column of that name."""
    return [f"{name}_in_table" if name in taken else name for name in names]


def _predict_rows(
    task: Predict, opened: OpenedModel, tokens: int, spec: RunSpec
) -> tuple[list[str], Iterable[list[str]]]:
    assert task.input is not None
    settings = EmbeddingSettings(on_long=task.on_long, tokens_per_batch=tokens, unknown="unk")
    predictor = Predictor(opened.module, opened.tokenizer, settings)
    source, rules = read_input(task.input, task, opened.tokenizer)
    store = prepare_input(source, rules, choose_device(spec).context(spec))
    predictor.check_lengths(store)
    cut, rejects = task.on_long == "truncate", store.manifest["records"]["rejected"]
    with_reasons = bool(rejects) or task.on_invalid == "skip"
    if rejects:
        print(f"{task.input}: {count_summary(store.manifest['records'])}")

    def rows() -> Iterator[list[str]]:
        bounds, num_cut = part_bounds(store.lengths, _PART_TOKENS, _PART_SEQUENCES), 0
        for start, stop in itertools.pairwise(bounds):
            ids, texts = [store.id(row) for row in range(start, stop)], [store[row] for row in range(start, stop)]
            for name, text, answer in zip(ids, texts, predictor.predict(texts, ids), strict=True):
                long = cut and predictor.is_long(text)
                num_cut += long
                yield [
                    name,
                    *predictor.row(answer),
                    *([str(int(long))] if cut else []),
                    *([""] if with_reasons else []),
                ]
        if num_cut:
            print(f"{task.input}: {num_cut:,} sequences were cut to the length of the model; see the column truncated")

    header = ["id", *predictor.header(), *(["truncated"] if cut else []), *([REJECTED] if with_reasons else [])]
    return header, _with_rejected(rows(), source, rules, len(header)) if rejects else rows()


def _with_rejected(rows: Iterator[list[str]], source: Source, rules: RecordFilter, width: int) -> Iterator[list[str]]:
    """Yield the rows, and between them a row with an id and a reason for each record that the filter rejects."""
    for path in source.paths:
        for record in source.records(path):
            result = rules.apply(record)
            if result.sequences:
                yield next(rows)
            else:
                reason = f"{result.reason}{result.detail}"
                yield [record.id.decode("utf-8", errors="replace"), *[""] * (width - 2), reason]
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

"""Scores by a masked language model for `task=predict`: of variants, of a whole scan, and of whole sequences."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bionemo_core._version import __version__
from bionemo_core.config.schema import RunSpec
from bionemo_core.data.mutations import Mutation
from bionemo_core.data.readers import Record, Source, decode_text, source_for
from bionemo_core.data.readers.key_names import TASK_KEYS
from bionemo_core.data.readers.tables import match_column, read_column_names
from bionemo_core.data.store.residue_filter import RecordFilter
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.finetuning.class_metrics import roc_auc
from bionemo_core.finetuning.label_spec import LabelSpec
from bionemo_core.finetuning.metrics import metrics_of
from bionemo_core.finetuning.objective import MISSING_WORDS, comma_hint
from bionemo_core.inference.scoring import LIKELIHOODS, MASKED, MaskedScorer, check_method
from bionemo_core.inference.windows import Window
from bionemo_core.io.atomic import write_json
from bionemo_core.io.plots import optional_picture
from bionemo_core.models.load import OpenedModel
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.plurals import format_count
from bionemo_core.reporting.heat_map import RESIDUES, draw_scan
from bionemo_core.tasks.input_file import read_input
from bionemo_core.tasks.opening import model_fingerprint
from bionemo_core.tasks.settings import Predict
from bionemo_core.tasks.variants import REJECTED, read_variants, read_wild_type

log = logging.getLogger("bionemo")

ON_LONG = ("error", "window")
STRATEGY, WINDOW = "strategy", "window"
"""The columns with the strategy, and with the residues that the model got of a longer protein."""

_MEASURED = "DMS_score"
"""ProteinGym's column of measured values; `DMS_score_bin` has the classes 0 and 1."""


@dataclass
class Scores:
    """A table of scores, and what it was made with."""

    header: list[str]
    rows: list[list[str]]
    facts: dict[str, Any]
    """The strategy, counts and metrics, for the file beside the table."""
    scan: tuple[str, int, NDArray[np.float64]] | None = field(default=None)
    """The wild type, the number of its first residue, and the scores of a scan, float64 [positions, 20]."""

    def write_beside(self, output: Path, used: Mapping[str, Any]) -> None:
        """Write `output.json`, and the heat map of a scan as PNG.

        Raises:
            StorageError: the record cannot be written.
        """
        write_json(output.with_name(f"{output.name}.json"), {**self.facts, **used}, indent=2)
        if self.scan is not None:
            wild_type, first, table = self.scan
            picture = output.with_suffix(".png")
            with optional_picture(picture):
                draw_scan(picture, wild_type, table, first, self.facts[STRATEGY])
                print(f"{picture}: heat map of {format_count(len(wild_type), 'position')}")


def describe_use(opened: OpenedModel, spec: RunSpec) -> dict[str, Any]:
    """Return the model, the origin of its weights and what computed, for the file beside a table of scores."""
    weights = spec.restore_from_path
    return {
        "model": f"{opened.spec.model.name} ({opened.spec.model.distribution})",
        "weights": Path(weights).name if weights else f"random, seed {spec.seed}",
        "adapter": spec.task.params.get("adapter"),
        "fingerprint": model_fingerprint(opened),
        "made by": f"bionemo-run {__version__}, {next(opened.module.parameters()).device.type}, "
        f"{next(opened.module.parameters()).dtype}".replace("torch.", ""),
    }


def make_scorer(task: Predict, opened: OpenedModel, tokens: int) -> MaskedScorer:
    """Return what computes scores, with a limit of tokens in one pass.

    Raises:
        BioNeMoError: the model cannot score, or `task.on_long` is unknown.
    """
    if task.on_long not in ON_LONG:
        raise ConfigError(f"task.on_long: got {task.on_long!r}; for scores expected one of {', '.join(ON_LONG)}.")
    return MaskedScorer(opened.module, opened.tokenizer, tokens)


def score(task: Predict, scorer: MaskedScorer) -> Scores:
    """Compute the scores that `task` requests.

    Raises:
        BioNeMoError: they cannot be computed.
    """
    if task.input is not None:
        return _score_sequences(task, task.input, scorer)
    if task.wild_type is None:
        key = "task.scan" if task.scan else "task.variants"
        raise ConfigError(f"{key}: the sequence before mutation is missing. Set task.wild_type.")
    wild_type = read_wild_type(task.wild_type, task.variants)
    if len(wild_type) > scorer.max_residues and task.on_long == "error":
        raise DataError(
            f"task.wild_type: the protein has {len(wild_type):,} residues, but the model takes "
            f"{scorer.max_residues:,}. Set task.on_long=window to score each variant by a window around its mutations."
        )
    return _scan(task, wild_type, scorer) if task.scan else _score_variants(task, wild_type, scorer)


def _score_variants(task: Predict, wild_type: str, scorer: MaskedScorer) -> Scores:
    table = read_variants(task, wild_type, scorer.tokenizer, scorer.max_residues)
    if table.left_out:
        print(f"{task.variants}: {table.left_out}")
    variants = [row.mutations for row in table.scored]
    result = scorer.score_in_windows(wild_type, variants, table.strategy, window=task.on_long == "window")
    windowed = task.on_long == "window" and any(result.windows)
    given = iter(zip(result.scores.tolist(), result.windows, strict=True))
    cells = [None if row.reason else next(given) for row in table.rows]
    rows = [
        [
            row.text,
            *(["", ""] if cell is None else [str(len(row.mutations)), f"{cell[0]:.6f}"]),
            *row.columns,
            "" if cell is None else table.strategy,
            *([] if not windowed else ["" if cell is None else _name_windows(cell[1], task.first_position)]),
            *([row.reason] if task.on_invalid == "skip" else []),
        ]
        for row, cell in zip(table.rows, cells, strict=True)
    ]
    own = [STRATEGY, *([WINDOW] if windowed else []), *([REJECTED] if task.on_invalid == "skip" else [])]
    header = ["variant", "num_mutations", "score"]
    facts = _facts(table.strategy, scorer, len(variants), len(rows), sum(map(bool, result.windows)))
    facts["wild_type_residues"] = len(wild_type)
    columns = {name: [row.columns[at] for row in table.rows] for at, name in enumerate(table.other_columns)}
    facts |= compare_measured([None if cell is None else cell[0] for cell in cells], columns, task.measured)
    return Scores([*header, *_unused(table.other_columns, (*header, *own)), *own], rows, facts)


def _scan(task: Predict, wild_type: str, scorer: MaskedScorer) -> Scores:
    strategy = check_method(task.scoring or MASKED)
    variants = [[Mutation(before, at, after)] for at, before in enumerate(wild_type) for after in RESIDUES]
    changed = [one for one in variants if one[0].wild_type != one[0].mutant]
    result = scorer.score_in_windows(wild_type, changed, strategy, window=task.on_long == "window")
    scores = np.zeros(len(variants))
    scores[[one[0].wild_type != one[0].mutant for one in variants]] = result.scores
    table = scores.reshape(len(wild_type), len(RESIDUES))
    rows = [
        [str(at + task.first_position), wild_type[at], *(f"{value:.6f}" for value in row), strategy]
        for at, row in enumerate(table.tolist())
    ]
    facts = _facts(strategy, scorer, len(changed), len(changed), sum(map(bool, result.windows)))
    facts["wild_type_residues"] = len(wild_type)
    header = ["position", "wild_type", *RESIDUES, STRATEGY]
    return Scores(header, rows, facts, (wild_type, task.first_position, table))


def _score_sequences(task: Predict, path: str, scorer: MaskedScorer) -> Scores:
    """Score whole sequences by their pseudo-log-likelihood, in nats, and their pseudo-perplexity."""
    strategy = check_method(str(task.scoring))
    if strategy not in LIKELIHOODS:
        raise ConfigError(
            f"task.scoring={strategy}: compares variants with task.wild_type. Set task.scoring={LIKELIHOODS[0]} for "
            "the likelihood of each sequence of task.input."
        )
    source, rules = read_input(path, task, scorer.tokenizer)
    source = _with_all_columns(source)
    records = itertools.chain.from_iterable(source.records(one) for one in source.paths)
    cleaned = [_clean(record, rules, task, scorer.max_residues, len(source.columns)) for record in records]
    if all(one.reason for one in cleaned):
        raise DataError(f"{path}: no sequence can be scored; the first: {cleaned[0].reason if cleaned else 'none'}.")
    header = ["id", "num_residues", "pseudo_log_likelihood", "pseudo_perplexity"]
    own = [STRATEGY, *([WINDOW] if task.on_long == "window" else []), REJECTED]
    rows, scores = [], list[float | None]()
    num_windows = 0
    likelihoods = scorer.pseudo_log_likelihoods((one.text for one in cleaned if not one.reason), window=True)
    for one in cleaned:
        length = len(one.text)
        total = None if one.reason else float(next(likelihoods).sum(dtype=np.float64))
        scores.append(total if total is None or strategy == LIKELIHOODS[0] else total / length)
        values = ["", ""] if total is None else [f"{total:.6f}", f"{math.exp(min(-total / length, 700.0)):.6f}"]
        window = str(scorer.max_residues) if length > scorer.max_residues and total is not None else ""
        num_windows += bool(window)
        last = [strategy if total is not None else "", *([window] if task.on_long == "window" else []), one.reason]
        rows.append([one.id, str(length) if length else "", *values, *one.columns, *last])
    facts = _facts(strategy, scorer, sum(one is not None for one in scores), len(rows), num_windows)
    others = {name: [one.columns[at] for one in cleaned] for at, name in enumerate(source.columns)}
    facts |= compare_measured(scores, others, task.measured)
    return Scores([*header, *_unused(source.columns, (*header, *own)), *own], rows, facts)


class _Cleaned(NamedTuple):
    """A record of the input as the model gets it."""

    id: str
    text: str
    columns: list[str]
    reason: str
    """Why it cannot be scored; empty if it can."""


def _clean(record: Record, rules: RecordFilter, task: Predict, max_residues: int, num_columns: int) -> _Cleaned:
    """Filter a record.

    Raises:
        DataError: it cannot be scored, with `task.on_invalid=error`.
    """
    name, *columns = map(decode_text, (record.id, *record.columns))
    columns += [""] * (num_columns - len(columns))
    kept = rules.apply(record)
    if kept.fatal:
        raise DataError(f"{task.input}: record {name!r}{kept.detail}")
    text = kept.sequences[0].decode("latin-1") if kept.sequences else ""
    reason = "" if text else f"{kept.reason}{kept.detail}"
    if len(text) > max_residues and task.on_long == "error":
        reason = f"{len(text):,} residues, but the model takes {max_residues:,}"
        if task.on_invalid != "skip":
            raise DataError(
                f"{task.input}: record {name!r} has {reason}. Set task.on_long=window to mask each residue in a window "
                "around it, or task.on_invalid=skip to keep the row without a likelihood."
            )
    return _Cleaned(name, text, columns, reason)


def _with_all_columns(source: Source) -> Source:
    """Return the reader of a table with all of its columns; other formats have none."""
    options = {key: value for key, value in source.options.items() if key != "names"}
    if "column" not in options or "id_column" not in options:
        return source
    layout = {key: options[key] for key in ("header_lines", "separator") if key in options}
    names = read_column_names(source.paths[0], source.kind, **layout)  # type: ignore[arg-type]  # as they were given
    used = [at for key in ("column", "id_column") if options[key] for at in match_column(names, str(options[key]))[:1]]
    others = [name for at, name in enumerate(names) if at not in used]
    return source_for(source.paths, source.kind, TASK_KEYS, columns=others, **options)


def compare_measured(
    scores: Sequence[float | None], columns: Mapping[str, Sequence[str]], measured: str | None
) -> dict[str, Any]:
    """Return Spearman's correlation with a column of measured values, and print it.

    If a column `<measured>_bin` has the classes 0 and 1, the area under the ROC curve and MCC follow. As in
    ProteinGym, a variant is predicted to be 1 for MCC if its score is at least the median.

    Raises:
        DataError: there is no such column, or fewer than two rows have a score and a measured value.
    """
    name = measured or _MEASURED
    if name not in columns:
        if measured is None:
            return {}
        names = f"has the other columns {', '.join(columns)}" if columns else "has no other column"
        raise DataError(f"task.measured={measured}: the input {names}.{did_you_mean(measured, columns)}")
    predicted = np.array([math.nan if one is None else one for one in scores])
    values = np.array([_number(cell) for cell in columns[name]])
    used = np.isfinite(predicted) & np.isfinite(values)
    unread = _list_unread(columns[name])
    if used.sum() < 2 and measured is not None:
        raise DataError(
            f"task.measured={measured}: {format_count(int(used.sum()), 'row has', 'rows have')} a score and a number, "
            f"expected 2 or more.{unread}"
        )
    if unread:
        log.warning("task.measured=%s: some rows are not compared.%s", name, unread)
    if used.sum() < 2:
        return {}
    sides = [torch.from_numpy(side[used]) for side in (predicted, values)]
    found = {"spearman": metrics_of(LabelSpec("sequence_regression"), *sides).get("spearman")}
    if f"{name}_bin" in columns:
        classes = np.array([_number(cell) for cell in columns[f"{name}_bin"]])
        found |= _class_metrics(predicted, classes, np.isfinite(predicted) & np.isin(classes, (0.0, 1.0)))
    metrics = {key: value for key, value in found.items() if value is not None}
    shown = ", ".join(f"{key} {value:.4f}" for key, value in metrics.items())
    print(f"against {name}: {shown or 'all measured values are equal'}; {format_count(int(used.sum()), 'variant')}")
    return {"measured": name, "compared": int(used.sum()), "metrics": metrics}


def _class_metrics(
    predicted: NDArray[np.float64], classes: NDArray[np.float64], used: NDArray[np.bool_]
) -> dict[str, float]:
    predicted, classes = predicted[used], classes[used]
    of_class = classes == 1
    if of_class.all() or not of_class.any():
        return {}
    chosen = torch.from_numpy((predicted >= np.median(predicted)).astype(np.int64))
    labels = torch.from_numpy(classes.astype(np.int64))
    mcc = metrics_of(LabelSpec("sequence_classification", ("0", "1")), chosen, labels)["mcc"]
    return {"auc": roc_auc(predicted, of_class), "mcc": mcc}


def _facts(strategy: str, scorer: MaskedScorer, scored: int, rows: int, windowed: int) -> dict[str, Any]:
    cut = f", {windowed:,} by windows of {scorer.max_residues:,} residues" if windowed else ""
    print(f"{strategy}: {scored:,} scored, {rows - scored:,} rejected{cut}")
    counts = {"scored": scored, "rejected": rows - scored, "windowed": windowed}
    return {STRATEGY: strategy, **counts, "model_residues": scorer.max_residues}


def _name_windows(windows: Sequence[Window], first: int) -> str:
    """Return windows as numbers of their first and last residues, such as `101-1122`."""
    return ";".join(f"{start + first}-{stop + first - 1}" for start, stop in windows)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _list_unread(cells: Sequence[str]) -> str:
    """Say which cells are neither a number nor a word for a missing value; empty if there are none."""
    bad = [cell for cell in cells if cell.strip().lower() not in MISSING_WORDS and not math.isfinite(_number(cell))]
    if not bad:
        return ""
    cells_are = format_count(len(bad), "cell is no finite number", "cells are no finite numbers")
    return f" {cells_are}, such as {bad[0]!r}{comma_hint(bad[0])}."


def _unused(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Return the names of further columns, changed where the output has a column of that name."""
    return [f"{name}_in_table" if name in taken else name for name in names]

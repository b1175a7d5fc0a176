"""Several labels of each sequence: the checks, the numbers that training needs, and what is said of them.

No torch at import.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.labelled_records import LabelledRecords, LabelledSplits
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.finetuning.label_spec import MULTILABEL, LabelSpec
from bionemo_core.finetuning.objective import read_several

log = logging.getLogger("bionemo")

KINDS_OF_SEVERAL = ("sequence_regression", MULTILABEL)


def check_targets(records: LabelledRecords, label_spec: LabelSpec) -> None:
    """Check that records have the labels that a model or a task predicts.

    Raises:
        ConfigError: they have others, or the kind needs several labels or does not take them.
    """
    if label_spec.multilabel and not records.targets:
        raise ConfigError(
            f"task.kind={MULTILABEL}: the data has one label for each sequence. Name the yes/no columns with "
            "data.target_columns=[first,second]."
        )
    if records.targets and label_spec.kind not in KINDS_OF_SEVERAL:
        raise ConfigError(
            f"data.target_columns: several labels of a sequence are for task.kind={' or '.join(KINDS_OF_SEVERAL)}, got "
            f"{label_spec.kind}. Choose one column with data.target_column."
        )
    if records.targets != label_spec.targets:
        expected, got = (
            "|".join(names) or "one label without a name" for names in (label_spec.targets, records.targets)
        )
        raise ConfigError(
            f"data.target_columns: the data has the labels {got}, and the model predicts {expected}. Name the same "
            "columns in the same order."
        )


def several_table(records: LabelledRecords, label_spec: LabelSpec) -> NDArray[np.float64]:
    """Return all labels, float64[records, targets], NaN where one is missing."""
    return np.stack([read_several(records[row], label_spec) for row in range(len(records))])


def means_and_scales(records: LabelledRecords, label_spec: LabelSpec) -> tuple[list[float], list[float]]:
    """Return the mean and the standard deviation of each target; for constant values the deviation is 1.

    Raises:
        DataError: a target has no label.
    """
    table = several_table(records, label_spec)
    check_some_label(table, label_spec)
    means = np.nanmean(table, axis=0)
    # Not by the deviation alone: rounding makes that of three times 0.1 positive.
    constant = np.nanmin(table, axis=0) == np.nanmax(table, axis=0)
    return means.tolist(), np.where(constant, 1.0, np.nanstd(table, axis=0)).tolist()


def check_some_label(table: NDArray[np.float64], label_spec: LabelSpec) -> None:
    """Check that each target has a label to train on; warn of labels that are always the same.

    Raises:
        DataError: one has none.
    """
    counts = (~np.isnan(table)).sum(0)
    if without := [name for name, count in zip(label_spec.targets, counts, strict=True) if not count]:
        raise DataError(
            f"labels: {', '.join(without)}: no record of the split train has this label. Leave the column out of "
            "data.target_columns."
        )
    if label_spec.multilabel:
        yes = np.nansum(table, axis=0)
        same = [name for name, ones, count in zip(label_spec.targets, yes, counts, strict=True) if ones in (0, count)]
        if same:
            log.warning("labels: %s: every label of the split train is the same.", ", ".join(same))


def several_text(splits: LabelledSplits, label_spec: LabelSpec) -> str:
    """Return one line: how many labels each target has in each split, and how many are missing."""
    tables = {name: several_table(part, label_spec) for name, part in splits.parts().items()}
    total = sum(table.size for table in tables.values())
    missing = sum(int(np.isnan(table).sum()) for table in tables.values())
    texts = []
    for place, name in enumerate(label_spec.targets):
        columns = [table[:, place] for table in tables.values()]
        counts = " + ".join(f"{int((~np.isnan(column)).sum()):,}" for column in columns)
        if label_spec.multilabel:
            counts = f"{' + '.join(f'{int(np.nansum(column)):,}' for column in columns)} yes of {counts}"
        texts.append(f"{name} {counts}")
    return f"{', '.join(texts)} (labels in {' + '.join(tables)}; {missing:,} of {total:,} missing)"

"""Metrics of each class on its own, against all others: precision, recall, F1, and the areas under two curves.

They have scikit-learn's definitions. A value that no label or prediction defines is None, and means leave it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bionemo_core.io.atomic import new_csv

_FILES = {"class": "classes.csv", "target": "targets.csv"}
"""The file of a table, by its first column."""
_SHOWN = 25
"""Rows of a table that are printed."""


@dataclass(frozen=True)
class ClassScores:
    """The metrics of one class."""

    support: int
    """The number of its labels."""
    precision: float | None
    """None, as recall and F1, for a class without a label and a prediction; 0 if only one of them is missing."""
    recall: float | None
    f1: float | None
    roc_auc: float | None
    """None, as `pr_auc`, without scores, and if no label or every label is of the class."""
    pr_auc: float | None
    """The average precision."""

    @classmethod
    def of(
        cls, predicted: NDArray[np.bool_], labels: NDArray[np.bool_], scores: NDArray[np.floating] | None
    ) -> ClassScores:
        """Measure which of n were predicted to be of the class, which are, and how sure the model was, each [n]."""
        support, chosen, right = int(labels.sum()), int(predicted.sum()), int((predicted & labels).sum())
        areas: tuple[float | None, float | None] = (None, None)
        if scores is not None and 0 < support < len(labels):
            areas = roc_auc(scores, labels), average_precision(scores, labels)
        if not support + chosen:
            return cls(0, None, None, None, *areas)
        precision, recall = right / chosen if chosen else 0.0, right / support if support else 0.0
        return cls(support, precision, recall, 2 * right / (support + chosen), *areas)


SCORES = tuple(field.name for field in fields(ClassScores) if field.name != "support")
"""The metrics of a class."""


def one_against_the_rest(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], probabilities: NDArray[np.floating] | None, number: int
) -> list[ClassScores]:
    """Measure `number` classes by the class of n predictions and labels, and by probabilities [n, classes]."""
    return [
        ClassScores.of(predicted == place, labels == place, None if probabilities is None else probabilities[:, place])
        for place in range(number)
    ]


def macro_averages(classes: Iterable[ClassScores]) -> dict[str, float]:
    """Return the mean of each metric over the classes that have it; without any, the metric is left out."""
    return mean_values([asdict(one) for one in classes], leave_out=("support",))


def mean_values(measured: Sequence[Mapping[str, float | None]], leave_out: Sequence[str]) -> dict[str, float]:
    """Return the mean of each metric over those that have it, without some."""
    names = dict.fromkeys(name for one in measured for name in one if name not in leave_out)
    found = {name: [value for one in measured if (value := one.get(name)) is not None] for name in names}
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def table_rows(names: Sequence[str], classes: Iterable[ClassScores]) -> list[dict[str, str]]:
    """Return a table with one row per class, in text; an empty cell is a metric that is not defined."""
    return value_table("class", names, [asdict(one) for one in classes])


def value_table(
    first: str, names: Sequence[str], measured: Sequence[Mapping[str, float | None]]
) -> list[dict[str, str]]:
    """Return a table whose column `first` has the names, and the others the metrics, in text."""
    columns = list(dict.fromkeys(name for one in measured for name in one))
    return [
        {first: name, **{column: _text(one.get(column)) for column in columns}}
        for name, one in zip(names, measured, strict=True)
    ]


def write_table(folder: Path, rows: Sequence[Mapping[str, str]], prefix: str = "") -> str:
    """Write a table as `classes.csv` or `targets.csv`; return its first rows as text, with the name of the file.

    Raises:
        StorageError: the file cannot be written.
    """
    columns = list(rows[0])
    path = folder / f"{prefix}{_FILES[columns[0]]}"
    with new_csv(path, columns) as add_rows:
        add_rows([row[name] for name in columns] for row in rows)
    shown = [columns, *([row[name] or "-" for name in columns] for row in rows[:_SHOWN])]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)) for cells in shown]
    more = f"{len(rows) - _SHOWN:,} more in " if len(rows) > _SHOWN else ""
    return "\n".join([*lines, f"{more}{path}"])


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def roc_auc(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> float:
    """Return the share of pairs of a positive and a negative in the right order; a tie is half a pair.

    Both kinds of label must occur. NaN if a score is not finite.
    """
    if not np.isfinite(scores).all():
        return float("nan")
    positives, negatives = scores[labels], np.sort(scores[~labels])
    below = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
    return float(below.mean() / 2 / len(negatives))


def average_precision(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> float:
    """Return the precision at each different score, weighted by the recall that it adds.

    A label must be positive. NaN if a score is not finite.
    """
    if not np.isfinite(scores).all():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(labels[order])
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    found = hits[last]
    return float((found / (last + 1) * np.diff(found, prepend=0)).sum() / hits[-1])

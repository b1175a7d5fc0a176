"""The pictures of an evaluation's report: predictions beside labels, and pseudo-perplexities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.data.labelled_records import LabelledRecords
from bionemo_core.finetuning.objective import read_several
from bionemo_core.reporting.html import Figure, bars, confusion, histogram, points, scatter


def plot_pseudo_perplexities(
    each: NDArray[np.float64], lengths: NDArray[np.float64], of_residue: dict[str, float]
) -> list[Figure]:
    """Plot the pseudo-perplexities of sequences, and the mean negative log-likelihood of each residue."""
    return [
        *histogram(each, "pseudo-perplexity", "Pseudo-perplexity of the sequences."),
        points(lengths, each, ("residues", "pseudo-perplexity"), "Pseudo-perplexity by length."),
        bars(
            of_residue,
            ("residue", "mean of -log p (nats)"),
            "Mean of -log p of each residue when it alone is masked.",
        ),
    ]


def plot_predictions(
    objective: Any, records: LabelledRecords, predictions: list[NDArray[np.float32]], rows: list[int]
) -> list[Figure]:
    """Plot the predictions of a fine-tuned model for some rows."""
    label_spec = objective.label_spec
    if label_spec.targets:
        return _plot_several(objective, records, predictions, rows)
    predicted, labels = [], []
    for row in rows:
        values, counts = objective.targets(records[row], len(predictions[row]))
        if label_spec.of_classes:
            predicted.append(predictions[row].argmax(-1)[counts])
            labels.append(values[counts].astype(np.int64))
        else:
            predicted.append(predictions[row][counts, 0].astype(np.float64))
            labels.append(values[counts].view(np.float32) * label_spec.scale + label_spec.mean)
    if not rows:
        return []
    if label_spec.of_classes:
        return confusion(np.concatenate(predicted), np.concatenate(labels), label_spec.classes)
    return scatter(np.concatenate(predicted), np.concatenate(labels).astype(np.float64))


def _plot_several(
    objective: Any, records: LabelledRecords, predictions: list[NDArray[np.float32]], rows: list[int]
) -> list[Figure]:
    """Plot the predictions of each of several targets."""
    label_spec, figures = objective.label_spec, []
    labels = np.array([read_several(records[row], label_spec) for row in rows]).reshape(-1, len(label_spec.targets))
    predicted = np.array([predictions[row][0] for row in rows], dtype=np.float64).reshape(labels.shape)
    for name, label, answer in zip(label_spec.targets, labels.T, predicted.T, strict=True):
        known = ~np.isnan(label)
        if not known.any():
            continue
        if label_spec.multilabel:
            of_name = confusion((answer[known] > 0.5).astype(np.int64), label[known].astype(np.int64), ("no", "yes"))
        else:
            of_name = scatter(answer[known], label[known])
        figures += [replace(figure, caption=f"{name}: {figure.caption}") for figure in of_name]
    return figures

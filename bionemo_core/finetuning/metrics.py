"""Metrics of predictions over a whole evaluation and all ranks, as scikit-learn defines them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from bionemo_core.finetuning.class_metrics import (
    SCORES,
    ClassScores,
    macro_averages,
    mean_values,
    one_against_the_rest,
    table_rows,
    value_table,
)
from bionemo_core.parallel.groups import ProcessGroups

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import MicroBatch
    from bionemo_core.finetuning.label_spec import LabelSpec


CLASS_METRICS = ("accuracy", "mcc", *SCORES)
VALUE_METRICS = ("mse", "r2", "spearman")


class AnswerMetrics:
    """The evaluation metrics of fine-tuned networks: accuracy, F1, areas and others of classes; errors of values.

    They are computed from all predictions together, not averaged over batches.

    Args:
        label_spec: the label spec.
        only: the metrics that have a meaning for the outputs; None: all.
    """

    def __init__(self, label_spec: LabelSpec, only: tuple[str, ...] | None = None) -> None:
        self.label_spec = label_spec
        self.only = only
        self._seen: list[tuple[Tensor, Tensor]] = []
        self.table: list[dict[str, str]] = []
        """The metrics of each class, of the evaluation that was computed last."""

    @property
    def logged_names(self) -> tuple[str, ...]:
        """The names of the metrics."""
        names = CLASS_METRICS if self.label_spec.of_classes or self.label_spec.multilabel else VALUE_METRICS
        return tuple(name for name in names if self.only is None or name in self.only)

    def reset(self) -> None:
        """Drop the predictions seen so far."""
        self._seen = []

    def update(self, network: nn.Module, micro_batch: MicroBatch) -> None:
        """Store the predictions and labels that count."""
        tuned: Any = network
        outputs: Tensor = tuned.predictions(micro_batch)
        labels, counts = tuned.targets(micro_batch)
        if micro_batch.num_sequences == 0:
            counts = torch.zeros_like(counts)
        if self.label_spec.targets:
            kept = counts.any(-1)
            outputs, labels, counts = outputs[kept], torch.where(counts, labels, torch.nan)[kept], counts.any(-1)[kept]
        self._seen.append((outputs[counts].cpu(), labels[counts].cpu()))

    def compute(self, groups: ProcessGroups) -> dict[str, float]:
        """Compute the metrics over all ranks, and fill `table`."""
        kind = torch.int64 if self.label_spec.of_classes else torch.float32
        shape = (0, self.label_spec.outputs) if self.label_spec.targets else (0,)
        none = torch.zeros(0, self.label_spec.outputs), torch.zeros(shape, dtype=kind)
        sides = [torch.cat([none[side], *(pair[side].to(none[side].dtype) for pair in self._seen)]) for side in (0, 1)]
        if groups.data_size > 1:
            gathered: list[Any] = [None] * groups.data_size
            dist.all_gather_object(gathered, [side.numpy() for side in sides], group=groups.data)
            sides = [torch.cat([torch.from_numpy(one[side]) for one in gathered]) for side in (0, 1)]
        metrics, self.table = metrics_and_table(self.label_spec, *sides)
        if self.only is None:
            return metrics
        kept = ("target", *self.only)
        self.table = [{name: cell for name, cell in row.items() if name in kept} for row in self.table]
        return {name: value for name, value in metrics.items() if name in kept}


def metrics_and_table(
    label_spec: LabelSpec, outputs: Tensor, labels: Tensor
) -> tuple[dict[str, float], list[dict[str, str]]]:
    """Compute the metrics of a model's outputs [n, outputs], logits or standardised values, and those of each class.

    Several labels are [n, outputs], NaN where one is missing; the metrics are means over those targets that have them.

    Without labels there are none. They have scikit-learn's definitions. A table without a correlation, such as one
    predicted class, has MCC 0, and constant predictions have Spearman 0. R2 and Spearman are left out if there are no
    two different labels, and the areas under curves if no class has labels for and against it.
    """
    if label_spec.targets:
        return _several_metrics(label_spec, outputs, labels)
    if not label_spec.of_classes:
        return metrics_of(label_spec, outputs[:, 0], labels), []
    if not len(labels):
        return {}, []
    predicted, numbers = outputs.argmax(-1).numpy(), labels.numpy()
    # In float64, because in float32 the probabilities of sure predictions are all 1.
    probabilities = outputs.double().softmax(-1).numpy()
    classes = one_against_the_rest(predicted, numbers, probabilities, len(label_spec.classes))
    metrics = _class_metrics(predicted, numbers, len(label_spec.classes)) | macro_averages(classes)
    return metrics, table_rows(label_spec.classes, classes)


def metrics_of(label_spec: LabelSpec, predicted: Tensor, labels: Tensor) -> dict[str, float]:
    """Compute metrics of predicted classes as int64[n], or of standardised values as float32[n]; see above.

    A class alone has no probability, and so no area under a curve.
    """
    if not len(labels):
        return {}
    if label_spec.of_classes:
        sides = predicted.numpy(), labels.numpy()
        classes = one_against_the_rest(*sides, None, len(label_spec.classes))
        return _class_metrics(*sides, len(label_spec.classes)) | macro_averages(classes)
    first, second = (side.double().numpy() * label_spec.scale + label_spec.mean for side in (predicted, labels))
    return _value_metrics(first, second)


def _class_metrics(predicted: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int) -> dict[str, float]:
    """Compute accuracy and MCC."""
    table = np.bincount(labels * num_classes + predicted, minlength=num_classes**2).astype(np.float64)
    table = table.reshape(num_classes, num_classes)
    of_labels, of_predictions, right, total = table.sum(1), table.sum(0), table.diagonal(), table.sum()
    variances = [total**2 - (side**2).sum() for side in (of_labels, of_predictions)]
    covariance = right.sum() * total - (of_labels * of_predictions).sum()
    mcc = covariance / np.sqrt(variances[0] * variances[1]) if min(variances) > 0 else 0.0
    return {"accuracy": float(right.sum() / total), "mcc": float(mcc)}


def _several_metrics(
    label_spec: LabelSpec, outputs: Tensor, labels: Tensor
) -> tuple[dict[str, float], list[dict[str, str]]]:
    """Compute the metrics of each target from its own labels, and their means."""
    of_targets = []
    for place in range(len(label_spec.targets)):
        known = ~labels[:, place].isnan()
        predicted, own = outputs[known, place].double().numpy(), labels[known, place].double().numpy()
        found: dict[str, float | None] = {"labels": len(own)}
        if label_spec.multilabel:
            found |= _yes_metrics(predicted, own == 1)
        elif len(own):
            mean, scale = label_spec.means[place], label_spec.scales[place]
            found |= _value_metrics(predicted * scale + mean, own * scale + mean)
        of_targets.append(found)
    metrics = mean_values(of_targets, leave_out=("labels", "support"))
    return metrics, value_table("target", label_spec.targets, of_targets)


def _yes_metrics(logits: NDArray[np.float64], yes: NDArray[np.bool_]) -> dict[str, float | None]:
    """Compute the metrics of one label of several; precision and the like are those of yes."""
    if not len(yes):
        return {}
    chosen = logits > 0
    both = _class_metrics(chosen.astype(np.int64), yes.astype(np.int64), 2)
    return {**both, **asdict(ClassScores.of(chosen, yes, logits))}


def _value_metrics(predicted: NDArray[np.float64], labels: NDArray[np.float64]) -> dict[str, float]:
    """Compute MSE, R2 and Spearman; all are NaN if a prediction is not finite."""
    errors = ((predicted - labels) ** 2).sum()
    metrics = {"mse": float(errors / len(labels))}
    # Not by the standard deviation: rounding makes that of three times 0.1 positive.
    if labels.min() < labels.max():
        metrics["r2"] = float(1 - errors / ((labels - labels.mean()) ** 2).sum())
        metrics["spearman"] = _spearman(predicted, labels)
    return metrics


def _spearman(predicted: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Return the correlation of the ranks, in which equal values share their mean rank."""
    if not np.isfinite(predicted).all():
        return float("nan")
    if predicted.min() == predicted.max():
        return 0.0
    first, second = (_ranks(side) for side in (predicted, labels))
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((counts.cumsum() - (counts - 1) / 2)[places])

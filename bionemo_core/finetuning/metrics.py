"""Metrics of predictions over a whole evaluation and all ranks, computed by torchmetrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bionemo_core.parallel.groups import ProcessGroups

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import MicroBatch
    from bionemo_core.finetuning.model import LabelSpec


class AnswerMetrics:
    """The evaluation metrics of fine-tuned networks: accuracy, F1 and MCC of classes; MSE, R2 and Spearman of values.

    They are computed from all predictions together, not averaged over batches.
    """

    def __init__(self, answers: LabelSpec) -> None:
        self.answers = answers
        self._seen: list[tuple[Tensor, Tensor]] = []

    def reset(self) -> None:
        """Drop the predictions seen so far."""
        self._seen = []

    def update(self, network: nn.Module, micro_batch: MicroBatch) -> None:
        """Store the predictions and labels that count."""
        tuned: Any = network
        answers: Tensor = tuned.predictions(micro_batch)
        labels, counts = tuned.targets(micro_batch)
        if micro_batch.num_sequences == 0:
            counts = torch.zeros_like(counts)
        answers = answers.argmax(-1) if self.answers.of_classes else answers[:, 0]
        self._seen.append((answers[counts].cpu(), labels[counts].cpu()))

    def compute(self, groups: ProcessGroups) -> dict[str, float]:
        """Compute the metrics over all ranks."""
        kind = torch.int64 if self.answers.of_classes else torch.float32
        sides = [
            torch.cat([torch.zeros(0, dtype=kind), *(pair[side].to(kind) for pair in self._seen)]) for side in (0, 1)
        ]
        if groups.data_size > 1:
            gathered: list[Any] = [None] * groups.data_size
            dist.all_gather_object(gathered, [side.numpy() for side in sides], group=groups.data)
            sides = [torch.cat([torch.from_numpy(one[side]) for one in gathered]) for side in (0, 1)]
        return metrics_of(self.answers, *sides)


def metrics_of(answers: LabelSpec, predicted: Tensor, labels: Tensor) -> dict[str, float]:
    """Compute metrics of classes as int64[n], or of standardised values as float32[n]; without labels there are none.

    Spearman of constant predictions is 0; R2 and Spearman are left out if there are no two different labels.
    """
    from torchmetrics.functional import mean_squared_error, r2_score, spearman_corrcoef
    from torchmetrics.functional.classification import (
        multiclass_accuracy,
        multiclass_f1_score,
        multiclass_matthews_corrcoef,
    )

    if not len(labels):
        return {}
    if answers.of_classes:
        count = len(answers.classes)
        return {
            "accuracy": float(multiclass_accuracy(predicted, labels, count, average="micro")),
            "f1": float(multiclass_f1_score(predicted, labels, count, average="macro")),
            "mcc": float(multiclass_matthews_corrcoef(predicted, labels, count)),
        }
    first, second = (side.double() * answers.scale + answers.mean for side in (predicted, labels))
    metrics = {"mse": float(mean_squared_error(first, second))}
    if len(labels) > 1 and float(second.std()) > 0:
        metrics["r2"] = float(r2_score(first, second))
        metrics["spearman"] = float(spearman_corrcoef(first, second)) if float(first.std()) > 0 else 0.0
    return metrics

"""Linear heads of several targets: each is solved on the rows that have its label, and all become one layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bionemo_core.finetuning.linear.solve import Columns, LinearFit, StateRows, fit_linear


def fit_several(
    train: StateRows, val: StateRows | None, *, multilabel: bool, penalty: float | None = None
) -> LinearFit:
    """Fit a linear head for labels [n, targets], NaN where one is missing.

    Each target chooses its own penalty; that of the fit is their geometric mean.

    Args:
        train: the rows to fit.
        val: the rows that choose the penalties.
        multilabel: labels are 0 or 1, and outputs are logits of 1; else they are values.
        penalty: use this one; None: choose by `val`.
    """
    columns = Columns.of(train)
    weights, biases, logs = [], [], []
    for target in range(train.labels.shape[1]):
        own = _rows_of(train, target, multilabel)
        labels = own.labels
        if multilabel and labels.min() == labels.max():  # nothing to tell apart; the bias of a sure fit has no bound
            weights.append(torch.zeros_like(columns.mean))
            odds = (float(labels.sum()) + 0.5) / (len(labels) - float(labels.sum()) + 0.5)
            biases.append(torch.tensor(math.log(odds), dtype=torch.float64))
            continue
        fit = fit_linear(
            own,
            None if val is None else _rows_of(val, target, multilabel),
            num_classes=2 if multilabel else None,
            penalty=penalty,
        )
        weight, bias = (side[1] - side[0] if multilabel else side[0] for side in (fit.weight, fit.bias))
        # The fit has scaled the columns by its own rows.
        of_states = weight / fit.scale
        weights.append(of_states * columns.scale)
        biases.append(bias + of_states @ (columns.mean - fit.mean))
        logs.append(math.log(fit.penalty))
    mean_penalty = math.exp(sum(logs) / len(logs)) if logs else 1.0
    return columns.fit(torch.stack(weights), torch.stack(biases), mean_penalty)


def _rows_of(rows: StateRows, target: int, multilabel: bool) -> StateRows:
    """Return the rows that have the label of a target."""
    labels: Tensor = rows.labels[:, target]
    known = ~labels.isnan()
    chosen = labels[known]
    return StateRows(rows.table, rows.rows[known].numpy(), (chosen.long() if multilabel else chosen).numpy())

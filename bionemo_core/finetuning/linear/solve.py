"""Linear heads without training steps: ridge regression and logistic regression on rows of states, in float64.

The penalties have scikit-learn's meaning: `alpha` of its Ridge, and `1 / C` of its LogisticRegression, on standardised
columns. Neither penalises the bias.

Shape letters: n rows, H columns, O outputs, P penalties.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

log = logging.getLogger("bionemo")

RIDGE_PENALTIES = tuple(float(10 ** (power / 2)) for power in range(12, -15, -1))
LOGISTIC_PENALTIES = tuple(float(10.0**power) for power in range(4, -5, -1))
DEFAULT_PENALTY = 1.0
"""What is used without a validation split; scikit-learn's default."""

_CHUNK = 1 << 16
_KEPT_NUMBERS = 1 << 26
"""Keep at most this many float64 in memory between the passes over the rows; more are converted again each time."""
_SMALLEST_VARIANCE = 1e-8
"""Below this, the rounding of float32 states is most of what a direction has."""
_MAX_ITERATIONS = 1000
_GRADIENT = 1e-7
"""Largest element of the gradient of the mean loss at which logistic regression has converged."""


class StateRows:
    """The rows of a table that have a label.

    Args:
        table: float [all rows, H]; may be a file mapped into memory.
        rows: int64[n], which rows.
        labels: classes as int64[n], values as float64[n], or several labels as float64[n, targets].
    """

    def __init__(self, table: Tensor, rows: NDArray[np.int64], labels: NDArray[np.int64] | NDArray[np.float64]) -> None:
        self.table = table
        self.rows = torch.from_numpy(rows)
        self.labels = torch.from_numpy(labels)
        self._kept: list[Tensor] | None = [] if len(rows) * table.shape[1] <= _KEPT_NUMBERS else None

    def __len__(self) -> int:
        return len(self.rows)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the states, float64 [<= 65,536, H], and the labels of consecutive rows."""
        for number, start in enumerate(range(0, len(self), _CHUNK)):
            span = slice(start, start + _CHUNK)
            if self._kept is not None and number < len(self._kept):
                states = self._kept[number]
            else:
                states = self.table[self.rows[span]].double()
                if self._kept is not None:
                    self._kept.append(states)
            yield states, self.labels[span]


@dataclass(frozen=True)
class LinearFit:
    """A linear head: outputs are `(states - mean) / scale @ weight.T + bias`."""

    mean: Tensor
    """float64[H]."""
    scale: Tensor
    """float64[H]; 1 where a column is constant."""
    correlation: Tensor
    """float64[H, H], of the columns in the training rows."""
    num_rows: int
    """The number of training rows."""
    weight: Tensor
    """float64[O, H]."""
    bias: Tensor
    """float64[O]."""
    penalty: float
    val_loss: float | None = None
    """Mean squared error or cross entropy on the validation split, by which the penalty was chosen."""

    def whitening(self) -> tuple[Tensor, Tensor]:
        """Return the matrix that makes the columns uncorrelated, and its inverse, float64 [H, H].

        Directions in which the rows vary less than the penalty allows for are not blown up.
        """
        values, vectors = torch.linalg.eigh(self.correlation)
        roots = (values.clamp(min=0) + max(self.penalty / self.num_rows, _SMALLEST_VARIANCE)).sqrt()
        return vectors / roots @ vectors.T, vectors * roots @ vectors.T

    def whitened_range(self, rows: StateRows) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest uncorrelated state in each direction, float64[H] each."""
        whitening, _ = self.whitening()
        lowest, highest = torch.full_like(self.mean, torch.inf), torch.full_like(self.mean, -torch.inf)
        for states, _ in rows.chunks():
            found = (states - self.mean) / self.scale @ whitening
            lowest, highest = lowest.minimum(found.amin(0)), highest.maximum(found.amax(0))
        return lowest, highest

    def outputs(self, rows: StateRows) -> Tensor:
        """Return the outputs for some rows, float64 [n, O]."""
        found = [(states - self.mean) / self.scale @ self.weight.T + self.bias for states, _ in rows.chunks()]
        return torch.cat(found) if found else self.bias.new_zeros(0, len(self.bias))


@dataclass(frozen=True)
class Columns:
    """Moments of the columns of some rows."""

    count: int
    mean: Tensor
    """float64[H]."""
    scale: Tensor
    """Standard deviations, float64[H]; 1 for a constant column."""
    correlation: Tensor
    """float64[H, H]."""

    @classmethod
    def of(cls, rows: StateRows) -> Columns:
        """Compute them in two passes over the rows."""
        width = rows.table.shape[1]
        mean, products = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
        for states, _ in rows.chunks():
            mean += states.sum(0) / len(rows)
        for states, _ in rows.chunks():
            products += (states - mean).T @ (states - mean) / len(rows)
        deviation = products.diagonal().sqrt()
        # Rounding makes the deviation of a constant column positive.
        scale = torch.where(deviation > 1e-7 * mean.abs(), deviation, 1.0)
        return cls(len(rows), mean, scale, products / scale / scale[:, None])

    def fit(self, weight: Tensor, bias: Tensor, penalty: float) -> LinearFit:
        """Make a fit with these weights of the scaled columns."""
        return LinearFit(self.mean, self.scale, self.correlation, self.count, weight, bias, penalty)


def fit_linear(
    train: StateRows,
    val: StateRows | None,
    *,
    num_classes: int | None,
    class_weights: list[float] | None = None,
    penalty: float | None = None,
) -> LinearFit:
    """Fit a linear head.

    Args:
        train: the rows to fit.
        val: the rows that choose the penalty; None: use `DEFAULT_PENALTY`.
        num_classes: the number of classes; None for a regression.
        class_weights: factor on the loss of each class.
        penalty: use this one; None: choose by `val`.
    """
    grid = RIDGE_PENALTIES if num_classes is None else LOGISTIC_PENALTIES
    if penalty is not None or val is None or not len(val):
        grid = (DEFAULT_PENALTY if penalty is None else penalty,)
    columns = Columns.of(train)
    if num_classes is None:
        fits = _ridge(train, columns, grid)
    else:
        weights = torch.ones(num_classes) if class_weights is None else torch.tensor(class_weights)
        fits = _logistic(train, columns, grid, weights.double())
    best: LinearFit | None = None
    worse = 0
    for fit in fits:
        if val is None or not len(val):
            return fit
        loss = _loss(fit.outputs(val), val.labels)
        if best is None or best.val_loss is None or loss < best.val_loss:
            best, worse = replace(fit, val_loss=loss), 0
        else:
            worse += 1
        if num_classes is not None and worse == 2:  # weaker penalties take longer, and the loss only rises from here
            break
    assert best is not None
    return best


def _loss(outputs: Tensor, labels: Tensor) -> float:
    if labels.dtype == torch.int64:
        return float(F.cross_entropy(outputs, labels))
    return float((outputs[:, 0] - labels).square().mean())


def _ridge(train: StateRows, columns: Columns, penalties: tuple[float, ...]) -> Iterator[LinearFit]:
    """Yield the ridge regression of each penalty; one eigendecomposition serves all."""
    centre = train.labels.mean()
    moment = torch.zeros_like(columns.mean)
    for states, labels in train.chunks():
        moment += ((states - columns.mean) / columns.scale).T @ (labels - centre)
    values, vectors = torch.linalg.eigh(columns.correlation)
    turned = vectors.T @ moment
    for penalty in penalties:
        # Rounding leaves negative eigenvalues where columns depend on each other.
        weight = vectors @ (turned / (values.clamp(min=0) * len(train) + penalty))
        yield columns.fit(weight[None], centre[None], penalty)


def _logistic(
    train: StateRows, columns: Columns, penalties: tuple[float, ...], class_weights: Tensor
) -> Iterator[LinearFit]:
    """Yield the multinomial logistic regression of each penalty; each starts from the one before."""
    weight = torch.zeros(len(class_weights), len(columns.mean), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(class_weights), dtype=torch.float64, requires_grad=True)
    for penalty in penalties:
        # Two classes share one vector in scikit-learn: w and -w here, each half as long.
        strength = penalty * (2 if len(class_weights) == 2 else 1) / (2 * len(train))
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=_MAX_ITERATIONS,
            tolerance_grad=_GRADIENT,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )
        with torch.enable_grad():
            optimizer.step(_mean_loss(train, columns, (weight, bias), class_weights, strength))
        gradient = max(float(part.grad.abs().max()) for part in (weight, bias) if part.grad is not None)
        if gradient > 1e3 * _GRADIENT:
            log.warning("linear head: the fit with penalty %g has not converged; gradient %.1e.", penalty, gradient)
        yield columns.fit(weight.detach().clone(), bias.detach().clone(), penalty)


def _mean_loss(
    train: StateRows, columns: Columns, parameters: tuple[Tensor, Tensor], class_weights: Tensor, strength: float
) -> Callable[[], float]:
    """Return the function that computes the mean loss with its penalty, and the gradient."""
    weight, bias = parameters

    def closure() -> float:
        weight.grad = bias.grad = None
        penalty = strength * weight.square().sum()
        penalty.backward()  # type: ignore[no-untyped-call]
        total = penalty.item()
        for states, labels in train.chunks():
            # The columns are scaled by way of the weights, which are few.
            scaled = weight / columns.scale
            outputs = states @ scaled.T + (bias - scaled @ columns.mean)
            loss = F.cross_entropy(outputs, labels, weight=class_weights, reduction="sum") / len(train)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total

    return closure

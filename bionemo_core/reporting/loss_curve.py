"""The plot of the losses of a run."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bionemo_core.io.plots import BLUE, GREY, RED, add_title, new_plot, save_png, set_count_ticks
from bionemo_core.plurals import format_count

Points = Sequence[tuple[int, float]]


def draw(path: Path, train: Points, val: Points, samples: Points, title: str, unit: str) -> None:
    """Write a PNG of the training loss, raw and smoothed, and the validation loss, by step.

    Args:
        path: the PNG to write.
        train: step and training loss, by step.
        val: step and validation loss, by step.
        samples: step and sequences consumed, by step, for the axis at the top.
        title: the title of the plot.
        unit: what the loss is counted in; empty if that is not known.

    Raises:
        StorageError: the file cannot be written.
    """
    figure, axes = new_plot()
    if train:
        steps, losses = zip(*train, strict=True)
        many = len(train) > 20
        label = None if many else "training"
        style = {"linewidth": 0.7, "alpha": 0.35} if many else {"linewidth": 1.6, "marker": "o", "markersize": 3}
        axes.plot(steps, losses, color=BLUE, label=label, **style)
        if many:
            axes.plot(steps, smooth(losses), color=BLUE, linewidth=1.8, label="training (smoothed)")
        if bad := [step for step, loss in train if not math.isfinite(loss)]:
            label = f"{format_count(len(bad), 'training loss is', 'training losses are')} not finite"
            axes.axvline(bad[0], color=GREY, linewidth=1.0, linestyle="--", label=label)
            axes.update_datalim([(steps[0], axes.dataLim.y0), (steps[-1], axes.dataLim.y1)])
    if val:
        steps, losses = zip(*val, strict=True)
        axes.plot(steps, losses, color=RED, linewidth=1.0, marker="o", markersize=4, label=_with_best(val), zorder=3)
    axes.set_xlabel("step")
    axes.set_ylabel(f"loss ({unit})" if unit else "loss")
    add_title(axes, title)
    set_count_ticks(axes.xaxis)
    axes.margins(x=0.02)
    axes.legend(frameon=False, loc="upper right")
    _add_samples(axes, samples)
    save_png(figure, path)


def smooth(values: Sequence[float]) -> list[float]:
    """Smooth values with a straight line through a twentieth of them around each; those that are not finite stay so.

    A line follows a falling curve up to its ends, where a mean would lie above it, or would have to be of ever fewer
    values and so end in a spike.
    """
    import numpy as np

    y = np.asarray(values, dtype=np.float64)
    weight = np.isfinite(y).astype(np.float64)
    x = np.arange(len(y), dtype=np.float64)
    half = max(2, len(y) // 40)
    # At the ends the windows keep their size, so that no single value weighs more there.
    first = np.clip(x - half, 0, max(0, len(y) - 2 * half - 1)).astype(int)
    end = np.minimum(first + 2 * half + 1, len(y))

    def window(terms: Any) -> Any:
        sums = np.concatenate(([0.0], np.cumsum(terms)))
        return sums[end] - sums[first]

    filled = np.where(weight > 0, y, 0.0)
    count = window(weight)
    mean_x, mean_y = (window(terms) / np.maximum(count, 1) for terms in (weight * x, filled))
    spread = window(weight * x * x) / np.maximum(count, 1) - mean_x**2
    together = window(filled * x) / np.maximum(count, 1) - mean_x * mean_y
    slope = np.where(spread > 1e-9, together / np.maximum(spread, 1e-9), 0.0)
    result: list[float] = np.where(weight > 0, mean_y + slope * (x - mean_x), math.nan).tolist()
    return result


def _with_best(val: Points) -> str:
    finite = [(loss, step) for step, loss in val if math.isfinite(loss)]
    if not finite:
        return "validation"
    loss, step = min(finite)
    return f"validation (best {loss:.4f} at step {step:,})"


def _add_samples(axes: Any, samples: Points) -> None:
    """Add an axis of sequences consumed at the top; packs differ in size, so it is not linear in the steps."""
    import numpy as np

    if len(samples) < 2 or samples[0][1] >= samples[-1][1]:
        return
    steps, counts = (np.maximum.accumulate(np.asarray(column, dtype=float)) for column in zip(*samples, strict=True))
    slope = (counts[-1] - counts[0]) / max(steps[-1] - steps[0], 1.0)
    # Extend both ends at the mean rate, so that the axis covers the margins too.
    wide_steps = np.concatenate([[steps[0] - steps[-1] - 1], steps, [2 * steps[-1] + 1]])
    wide_counts = np.concatenate(
        [[counts[0] - slope * (steps[-1] + 1)], counts, [counts[-1] + slope * (steps[-1] + 1)]]
    )
    top = axes.secondary_xaxis(
        "top",
        functions=(
            lambda step: np.interp(step, wide_steps, wide_counts),
            lambda count: np.interp(count, wide_counts, wide_steps),
        ),
    )
    top.set_xlabel("sequences seen")
    set_count_ticks(top.xaxis, 6)

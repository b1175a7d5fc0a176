"""The plot of the losses of a run."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bionemo_core.io.plots import BLUE, RED, add_title, new_plot, save_png, set_count_ticks

Points = Sequence[tuple[int, float]]


def draw(path: Path, train: Points, val: Points, samples: Points, title: str) -> None:
    """Write a PNG of the training loss, raw and smoothed, and the validation loss, by step.

    Args:
        path: the PNG to write.
        train: step and training loss, by step.
        val: step and validation loss, by step.
        samples: step and sequences consumed, by step, for the axis at the top.
        title: the title of the plot.

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
    if val:
        steps, losses = zip(*val, strict=True)
        axes.plot(steps, losses, color=RED, linewidth=1.0, marker="o", markersize=4, label=_with_best(val), zorder=3)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    add_title(axes, title)
    set_count_ticks(axes.xaxis)
    axes.margins(x=0.02)
    axes.legend(frameon=False, loc="upper right")
    _add_samples(axes, samples)
    save_png(figure, path)


def smooth(values: Sequence[float]) -> list[float]:
    """Average each value over a window of a fiftieth of them, narrower at the ends, ignoring non-finite values."""
    # Centred and symmetric: a running mean of the past would lie above a falling curve.
    widest = max(2, len(values) // 100)
    sums, counts = [0.0], [0]
    for value in values:
        finite = math.isfinite(value)
        sums.append(sums[-1] + (value if finite else 0.0))
        counts.append(counts[-1] + finite)
    result = []
    for i in range(len(values)):
        half = min(widest, i, len(values) - 1 - i)
        start, stop = i - half, i + half + 1
        count = counts[stop] - counts[start]
        result.append((sums[stop] - sums[start]) / count if count else math.nan)
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

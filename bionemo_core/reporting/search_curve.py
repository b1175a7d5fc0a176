"""The plot of latent searches: the best score of each start, and their mean, by oracle calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bionemo_core.inference.latent_search import SearchResult
from bionemo_core.io.plots import BLUE, GREY, RED, add_title, new_plot, save_png, set_count_ticks
from bionemo_core.plurals import format_count

_MOST_LINES = 60


def draw_trajectory(path: Path, results: Sequence[SearchResult], oracle: str) -> None:
    """Write a PNG with one colour per search: a thin line for each start, and a thick line for their mean.

    Raises:
        StorageError: the file cannot be written.
    """
    figure, axes = new_plot()
    for result, colour in zip(results, (BLUE, RED), strict=False):
        starts = len(result.starts)
        calls = np.array([step.oracle_calls for step in result.steps]).reshape(starts, -1)[0]
        scores = np.array([step.score for step in result.steps]).reshape(starts, -1)
        for line in scores[:_MOST_LINES]:
            axes.plot(calls, line, color=colour, linewidth=0.6, alpha=0.25)
        mean = scores.mean(axis=0)
        label = f"{result.settings.algorithm} (mean {mean[-1]:.3f})"
        marker = "o" if len(calls) == 1 else ""  # a line through one point is invisible
        axes.plot(calls, mean, color=colour, linewidth=2.2, marker=marker, label=label, zorder=3)
    axes.plot([], [], color=GREY, linewidth=0.6, alpha=0.6, label="single starts")
    axes.set_xlabel("oracle calls of a start")
    axes.set_ylabel(f"best {oracle} so far")
    number = len(results[0].starts)
    add_title(axes, f"{oracle} from {format_count(number, 'start')}")
    set_count_ticks(axes.xaxis)
    axes.margins(x=0.02)
    axes.legend(frameon=False, loc="lower right")
    save_png(figure, path)

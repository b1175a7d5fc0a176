"""A picture of searches: the best score of each start, and their mean, by oracle calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from bionemo_core.errors import StorageError
from bionemo_core.inference.latent_search import SearchResult

_COLOURS = ("#2166ac", "#d6604d")
_INK = "#333333"
_MOST_LINES = 60


def draw_trajectory(path: Path, found: Sequence[SearchResult], oracle: str) -> None:
    """Write a PNG with a thin line a start and a thick one for their mean, a colour for each search.

    Raises:
        StorageError: it cannot be written.
    """
    figure = Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for result, colour in zip(found, _COLOURS, strict=False):
        starts = len(result.starts)
        calls = np.array([step.oracle_calls for step in result.steps]).reshape(starts, -1)[0]
        scores = np.array([step.score for step in result.steps]).reshape(starts, -1)
        for line in scores[:_MOST_LINES]:
            axes.plot(calls, line, color=colour, linewidth=0.6, alpha=0.25)
        mean = scores.mean(axis=0)
        label = f"{result.settings.algorithm} (mean {mean[-1]:.3f})"
        axes.plot(calls, mean, color=colour, linewidth=2.2, label=label, zorder=3)
    axes.set_xlabel("oracle calls of a start")
    axes.set_ylabel(f"best {oracle} so far")
    axes.set_title(f"{oracle} from {len(found[0].starts)} starts", loc="left", fontsize=10, color=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0.02)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise StorageError(f"picture: {path} cannot be written: {error.strerror or error}.") from error

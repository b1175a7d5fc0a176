"""A report as one self-contained HTML file: tables, and figures as embedded pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.io.plots import BLUE, GREY, INK, escape_without_glyph, new_plot, set_count_ticks, to_png

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; }
tr + tr { border-top: 1px solid #eee; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1.5rem 0; } img { max-width: 100%; } figcaption { color: #555; font-size: .9rem; }
"""
_MOST_CLASSES = 40
_FEWEST_VALUES = 5
"""Below this a histogram shows less than the values themselves."""
_MOST_LETTERS = 28
"""That fit side by side below a small matrix."""


@dataclass(frozen=True)
class Figure:
    """A picture with its caption."""

    caption: str
    png: bytes


def page(title: str, facts: Mapping[str, Any], metrics: Mapping[str, float], figures: Sequence[Figure]) -> str:
    """Return the page as HTML."""
    fact_rows = "".join(f"<tr><th>{_text(key)}</th><td>{_text(value)}</td></tr>" for key, value in facts.items())
    rows = "".join(
        f'<tr><th>{_text(key)}</th><td class="number">{value:.5g}</td></tr>' for key, value in metrics.items()
    )
    pictures = "".join(
        f'<figure><img alt="{_text(figure.caption)}" src="data:image/png;base64,'
        f'{base64.b64encode(figure.png).decode()}"><figcaption>{_text(figure.caption)}</figcaption></figure>'
        for figure in figures
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{_text(title)}</h1><table>{fact_rows}</table>"
        f"<h2>Metrics</h2><table>{rows}</table><h2>Figures</h2>{pictures}</body></html>\n"
    )


def confusion(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: Sequence[str]) -> list[Figure]:
    """Plot the confusion matrix as shares of the true class; return no figure above 40 classes."""
    if len(classes) > _MOST_CLASSES:
        return []
    size = len(classes)
    classes = [escape_without_glyph(name) for name in classes]
    counts = np.bincount(labels * size + predicted, minlength=size * size).reshape(size, size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = new_plot(4.5 if size <= 10 else 7.5, 4.0 if size <= 10 else 7.0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    turned = size > 10 or size * max(map(len, classes), default=0) > _MOST_LETTERS
    axes.set_xticks(range(size), classes, rotation=90 if turned else 0)
    axes.set_yticks(
        range(size), [f"{name} ({count:,})" for name, count in zip(classes, counts.sum(axis=1), strict=True)]
    )
    axes.set_xlabel("predicted")
    axes.set_ylabel("label (how many)")
    axes.grid(False)
    if size <= 10:
        for row in range(size):
            for column in range(size):
                ink = "white" if shares[row, column] > 0.6 else INK
                axes.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", color=ink)
    return [Figure("What each label was predicted as, as a share of that label.", to_png(figure))]


def scatter(predicted: NDArray[np.float64], labels: NDArray[np.float64]) -> list[Figure]:
    """Plot predicted values against labels, and the errors."""
    shown = np.random.default_rng(0).permutation(len(labels))[:5000]
    figure, axes = new_plot(4.5, 4.2)
    axes.scatter(labels[shown], predicted[shown], s=8, alpha=0.4, color=BLUE, linewidths=0)
    low, high = float(min(labels.min(), predicted.min())), float(max(labels.max(), predicted.max()))
    axes.plot([low, high], [low, high], color=GREY, linewidth=1)
    axes.set_xlabel("label")
    axes.set_ylabel("predicted")
    errors = histogram(predicted - labels, "predicted - label", "Errors.")
    return [Figure("Predicted values against labels; the line is where both agree.", to_png(figure)), *errors]


def histogram(values: NDArray[np.floating], name: str, caption: str) -> list[Figure]:
    """Plot a histogram of the values; return no figure of fewer than `_FEWEST_VALUES` different ones."""
    if len(np.unique(values)) < _FEWEST_VALUES:
        return []
    figure, axes = new_plot(5.5, 3.4)
    axes.hist(values, bins=min(50, max(5, len(values) // 4)), color=BLUE)
    set_count_ticks(axes.yaxis)
    axes.set_xlabel(name)
    axes.set_ylabel("how many")
    return [Figure(caption, to_png(figure))]


def bars(values: Mapping[str, float], names: tuple[str, str], caption: str) -> Figure:
    """Draw a bar for each name, highest first."""
    ordered = sorted(values.items(), key=lambda item: -item[1])
    figure, axes = new_plot(6.5, 3.4)
    axes.bar([key for key, _ in ordered], [value for _, value in ordered], color=BLUE)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    return Figure(caption, to_png(figure))


def points(x: NDArray[np.floating], y: NDArray[np.floating], names: tuple[str, str], caption: str) -> Figure:
    """Draw a point for each pair."""
    figure, axes = new_plot(5.5, 3.6)
    axes.scatter(x, y, s=10, alpha=0.5, color=BLUE, linewidths=0)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    return Figure(caption, to_png(figure))


def _text(value: object) -> str:
    return html.escape(str(value))

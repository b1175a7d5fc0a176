"""The report of a preparation: a progress bar, a line of counts, a histogram of lengths and a plot of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bionemo_core.io.atomic import ADVICE
from bionemo_core.io.plots import (
    BLUE,
    INK,
    add_title,
    new_plot,
    save_png,
    set_count_ticks,
    set_log_ticks,
)
from bionemo_core.io.progress import BYTES, Progress

_WORTH_A_BAR_BYTES = 1 << 24
PICTURE = "lengths.png"
_NUM_BINS = 60
_WORTH_A_LOG_SCALE = 5


def summary(manifest: Mapping[str, Any]) -> str:
    """Summarise a manifest in one line: read = used + rejected, with the reasons."""
    records, names = manifest["records"], [item["name"] for item in manifest["sources"]]
    title = names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]} ({len(names)} files)"
    return f"{title}: {count_summary(records)}"


def count_summary(records: Mapping[str, Any]) -> str:
    """Format the counts of a manifest: read = used + rejected, with the reasons."""
    total = sum(records["rejected"].values())
    by_count = sorted(records["rejected"].items(), key=lambda item: (-item[1], item[0]))
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in by_count)
    notes = "".join(f"; {note} {count:,}" for note, count in records["notes"].items())
    return (
        f"read {records['read']:,} = used {records['used']:,} + rejected {total:,}"
        f"{f' ({reasons})' if reasons else ''}{notes}"
    )


@contextmanager
def show_progress(paths: Sequence[Path]) -> Iterator[Callable[[Path, int], None]]:
    """Give a function to call with a file and the bytes of it that are read; show a bar on a terminal.

    Small files, and output that is no terminal, get none.
    """
    sizes = {path: path.stat().st_size for path in paths}
    total = sum(sizes.values())
    before = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    worth_it = total >= _WORTH_A_BAR_BYTES
    with Progress("prepare", total, unit=BYTES, shown=worth_it, lines=False, transient=True) as bar:

        def advance(path: Path, position: int) -> None:
            bar.update(before[path] + position, name=f"prepare {path.name}")

        yield advance


def length_histogram(lengths: NDArray[np.int32]) -> dict[str, Any]:
    """Count lengths in bins that grow by a constant factor; return the edges, the counts and a few statistics.

    Args:
        lengths: shape [sequences], at least one.

    A bin holds the lengths from its edge up to, but not including, the next edge.
    """
    shortest, longest = int(lengths.min()), int(lengths.max())
    edges = np.unique(np.geomspace(max(shortest, 1), longest + 1, _NUM_BINS + 1).round().astype(np.int64))
    edges[0], edges[-1] = shortest, longest + 1
    counts, _ = np.histogram(lengths, edges)
    total = int(lengths.sum(dtype=np.int64))
    return {
        "total": total,
        "shortest": shortest,
        "longest": longest,
        "mean": round(total / len(lengths), 2),
        "median": float(np.median(lengths)),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }


def draw_lengths(manifest: Mapping[str, Any], path: Path, *, advice: str = ADVICE) -> None:
    """Write a PNG of the lengths that a manifest counts; `advice` is for a file system that refuses.

    Raises:
        StorageError: it cannot be written.
    """
    lengths = manifest["lengths"]
    edges, margin = lengths["edges"], 0.0
    if len(lengths["counts"]) == 1:  # one length: a bar in the middle, not a picture full of it
        edges, margin = [edges[0] - 0.5, edges[0] + 0.5], 5.0
    figure, axes = new_plot()
    axes.stairs(lengths["counts"], edges, fill=True, color=BLUE, alpha=0.85)
    axes.axvline(lengths["median"], color=INK, linewidth=1.0, linestyle="--")
    if edges[-1] >= _WORTH_A_LOG_SCALE * edges[0]:
        axes.set_xscale("log")
        set_log_ticks(axes.xaxis)
    else:
        set_count_ticks(axes.xaxis)
    axes.set_xlim(edges[0] - margin, edges[-1] + margin)
    set_count_ticks(axes.yaxis)
    axes.set_xlabel("length (characters; residues of a protein)")
    axes.set_ylabel("sequences")
    typical = f"median {lengths['median']:,.0f}, mean {lengths['mean']:,.0f}"
    add_title(axes, summary(manifest).partition("(")[0].strip(), typical)
    save_png(figure, path, advice=advice)

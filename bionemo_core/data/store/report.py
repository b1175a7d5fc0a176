"""The report of a preparation: a progress bar, a line of counts, a histogram of lengths and a plot of it."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORTH_A_BAR_BYTES = 1 << 24
PICTURE = "lengths.png"
_NUM_BINS = 60
_WORTH_A_LOG_SCALE = 5
_BAR, _INK = "#2166ac", "#333333"


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
def progress(paths: Sequence[Path]) -> Iterator[Callable[[Path, int], None]]:
    """A function to call with a file and the bytes of it that are read; shows a bar on a terminal.

    Small files, and output that is no terminal, get none.
    """
    sizes = {path: path.stat().st_size for path in paths}
    total = sum(sizes.values())
    if total < _WORTH_A_BAR_BYTES or not sys.stderr.isatty():
        yield lambda path, position: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("prepare", total=total)
        before = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))

        def advance(path: Path, position: int) -> None:
            bar.update(task, completed=before[path] + position, description=f"prepare {path.name}")

        yield advance
        bar.update(task, completed=total)


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


def draw_lengths(manifest: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG of the lengths that a manifest counts.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

    lengths = manifest["lengths"]
    edges = lengths["edges"]
    figure = Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.stairs(lengths["counts"], edges, fill=True, color=_BAR, alpha=0.85)
    axes.axvline(lengths["median"], color=_INK, linewidth=1.0, linestyle="--")
    if edges[-1] >= _WORTH_A_LOG_SCALE * edges[0]:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("length (characters; residues of a protein)")
    axes.set_ylabel("sequences")
    axes.set_title(summary(manifest).partition("(")[0].strip(), loc="left", fontsize=10, color=_INK)
    typical = f"median {lengths['median']:,.0f}, mean {lengths['mean']:,.0f}"
    axes.set_title(typical, loc="right", fontsize=10, color=_INK)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, format="png")

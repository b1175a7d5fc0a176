"""Pictures in one style: the only module that imports matplotlib, and only when one is drawn."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bionemo_core.errors import BioNeMoError
from bionemo_core.io.atomic import ADVICE, write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

log = logging.getLogger("bionemo")

BLUE, RED, INK, GREY = "#2166ac", "#d6604d", "#333333", "#999999"

_GRID = "#dddddd"
_DOTS_PER_INCH = 150
_FONT = "DejaVu Sans"
"""The font that matplotlib ships, so that a picture is the same everywhere."""
_NICE_STEPS = (1, 2, 5, 10)


def new_plot(width: float = 8.0, height: float = 4.8) -> tuple[Figure, Axes]:
    """Return a figure of `width` x `height` inches with one pair of axes.

    No window and no global state of matplotlib is involved, so a server and a thread may draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
    return figure, axes


def new_panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` pairs of axes, one below the other, each of `width` x `height` inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height * count), dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(count, 1, squeeze=False)[:, 0])


def add_title(axes: Axes, left: str, right: str = "") -> None:
    """Put a line of plain text above the axes; letters without a glyph are escaped."""
    for text, place in ((left, "left"), (right, "right")):
        if text:
            axes.set_title(
                escape_without_glyph(text),
                loc=place,  # type: ignore[arg-type]  # a Literal, known as such
                fontsize=10,
                color=INK,
                fontfamily=_FONT,
            )


def escape_without_glyph(text: str) -> str:
    """Return a text in which letters that the font lacks, such as Chinese ones, are escaped as in Python, not boxes."""
    from matplotlib.font_manager import findfont, get_font

    glyphs = get_font(findfont(_FONT)).get_charmap()
    return "".join(one if ord(one) in glyphs else one.encode("unicode_escape").decode() for one in text)


def set_count_ticks(axis: Axis, most: int = 8) -> None:
    """Mark a limited number of whole numbers at an axis, as `500`, `2k`, `1M`."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most, integer=True, steps=_NICE_STEPS, min_n_ticks=1))
    set_short_numbers(axis)


def set_log_ticks(axis: Axis) -> None:
    """Mark 1, 2 and 5 of each power of ten at a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axis.set_minor_formatter(NullFormatter())
    set_short_numbers(axis)


def set_short_numbers(axis: Axis) -> None:
    """Write the numbers at an axis as `500`, `2k`, `1M`."""
    from matplotlib.ticker import EngFormatter

    axis.set_major_formatter(EngFormatter(sep=""))


@contextmanager
def optional_picture(name: str | Path) -> Iterator[None]:
    """Let a picture that cannot be drawn or written cost a warning, not the results that it shows.

    Every picture that a task adds to its results is drawn in such a block, after they are written. An older picture of
    the same name, which shows other results, is removed then.
    """
    try:
        yield
    except Exception as error:
        if isinstance(name, Path):
            with suppress(OSError):
                name.unlink()
        reason = str(error) if isinstance(error, BioNeMoError) else f"{type(error).__name__}: {error}"
        log.warning("%s is missing, and nothing else: %s", name, reason)


def to_png(figure: Figure) -> bytes:
    """Return the picture as PNG; a `$` in a name begins no formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def save_png(figure: Figure, path: Path, *, advice: str = ADVICE) -> None:
    """Write the picture as PNG; an existing file is replaced. `advice` is for a file system that refuses.

    Raises:
        StorageError: the file system refused.
    """
    write_file(path, to_png(figure), advice=advice)

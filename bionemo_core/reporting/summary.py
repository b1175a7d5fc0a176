"""The summary of a run: `summary.json`, the loss curve, and the printed text."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bionemo_core.checkpoint.folder_names import list_checkpoints
from bionemo_core.errors import StorageError
from bionemo_core.io.atomic import write_json
from bionemo_core.io.plots import optional_picture
from bionemo_core.plurals import format_count
from bionemo_core.reporting.metrics_file import NAME, STEP, Row, read_rows

TRAIN_LOSS = "reduced_train_loss"
VAL_LOSS = "val_loss"
TEST = "test_"
SUMMARY = "summary.json"


@dataclass(frozen=True)
class LossSummary:
    """The course of one loss over a run; `best` is its lowest value."""

    first: float
    last: float
    best: float
    best_step: int


@dataclass(frozen=True)
class Summary:
    """The results of a run; a value is None if it was not measured."""

    status: str
    steps: int
    consumed_samples: int | None
    train_loss: LossSummary | None
    val_loss: LossSummary | None
    test: dict[str, float]
    """The metrics on the test split, without the prefix `test_` of `metrics.csv`; empty if the run did not test."""
    tokens_per_second: float | None
    """The median over the logged steps."""
    wall_time_s: float | None
    """Time since this process started or resumed the run."""
    checkpoint: str | None
    picture: str | None
    text: str
    """The lines to print."""


class LossPicture(NamedTuple):
    """The words in the picture of the losses."""

    title: str
    unit: str = ""
    """What the loss is counted in; empty if that is not known."""


def write_summary(
    folder: Path,
    *,
    status: str = "done",
    wall_time_s: float | None = None,
    checkpoint: Path | None = None,
    picture: LossPicture | None = None,
) -> Summary:
    """Write `summary.json` and `loss.png` to the run folder, from its `metrics.csv`.

    Args:
        folder: the run folder.
        status: how the session ended: done, or stopped by a signal.
        wall_time_s: how long it took, in seconds.
        checkpoint: the last checkpoint; None: the newest in `checkpoints`.
        picture: its words; None: the name of the folder, and no unit.

    Raises:
        StorageError: a table or the summary cannot be read or written.
    """
    try:
        rows = read_rows(folder / NAME) if (folder / NAME).exists() else []
        if checkpoint is None:
            checkpoint = next(reversed(list_checkpoints(folder / "checkpoints").values()), None)
    except OSError as failure:
        raise StorageError(f"summary: {failure.filename or folder} cannot be read: {failure.strerror}.") from failure
    drawn = _draw(rows, folder / "loss.png", picture or LossPicture(folder.name))
    summary = _summarise(rows, folder, status, wall_time_s, checkpoint, drawn)
    content = {key: value for key, value in asdict(summary).items() if key != "text"}
    write_json(folder / SUMMARY, _spell_out(content))
    return summary


def short_number(value: float) -> str:
    """Format a number with three digits and a letter: `950`, `12.3k`, `1.20M`."""
    for divisor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= divisor:
            scaled = value / divisor
            return f"{scaled:.{max(0, 2 - len(str(int(abs(scaled)))) + 1)}f}{letter}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """Format a duration: `01:23`, `1:02:03`, or `2d 03:04:05`."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02d}:{minute:02d}:{second:02d}"
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute:02d}:{second:02d}"


def _summarise(
    rows: Sequence[Row],
    folder: Path,
    status: str,
    wall_time_s: float | None,
    checkpoint: Path | None,
    picture: Path | None,
) -> Summary:
    rates = [row["tokens_per_second"] for row in rows if math.isfinite(row.get("tokens_per_second", math.nan))]
    samples = [int(row["consumed_samples"]) for row in rows if "consumed_samples" in row]
    train, val = _losses(rows, TRAIN_LOSS), _losses(rows, VAL_LOSS)
    tested = next((row for row in reversed(rows) if f"{TEST}loss" in row), {})
    test = {name.removeprefix(TEST): value for name, value in tested.items() if name.startswith(TEST)}
    steps = max((int(row[STEP]) for row in rows), default=0)
    rate = float(median(rates)) if rates else None
    spent = "" if wall_time_s is None else f" in {duration(wall_time_s)}"
    facts = [
        f"{status}: {format_count(steps, 'step')}{spent}"
        + (f", {format_count(samples[-1], 'sequence')}" if samples else ""),
        _format_losses("train loss", train),
        _format_losses("val loss", val),
        f"test        {', '.join(f'{name} {value:.4g}' for name, value in test.items())}" if test else None,
        None if rate is None else f"speed       {short_number(rate)} tokens/s (median)",
        None if checkpoint is None else f"checkpoint  {checkpoint}",
        None if picture is None else f"loss curve  {picture}",
    ]
    return Summary(
        status=status,
        steps=steps,
        consumed_samples=samples[-1] if samples else None,
        train_loss=train,
        val_loss=val,
        test=test,
        tokens_per_second=rate,
        wall_time_s=wall_time_s,
        checkpoint=_within(checkpoint, folder),
        picture=_within(picture, folder),
        text="\n".join(fact for fact in facts if fact),
    )


def _losses(rows: Sequence[Row], name: str) -> LossSummary | None:
    points = _points(rows, name)
    if not points:
        return None
    finite = [(value, step) for step, value in points if math.isfinite(value)] or [(points[0][1], points[0][0])]
    best, best_step = min(finite)
    return LossSummary(points[0][1], points[-1][1], best, best_step)


def _points(rows: Sequence[Row], name: str) -> list[tuple[int, float]]:
    return [(int(row[STEP]), float(row[name])) for row in rows if name in row]


def _format_losses(label: str, losses: LossSummary | None) -> str | None:
    if losses is None:
        return None
    first, last, best = map(_format_loss, (losses.first, losses.last, losses.best))
    return f"{label:<12}{first} -> {last}, best {best} at step {losses.best_step:,}"


def _format_loss(value: float) -> str:
    return f"{value:.4f}" if abs(value) >= 0.1 else f"{value:.4g}"


def _within(path: Path | None, folder: Path) -> str | None:
    # A relative path stays true when the run folder is moved.
    if path is None:
        return None
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _spell_out(value: object) -> object:
    """Replace NaN and infinities by strings, as JSON has no numbers for them."""
    if isinstance(value, dict):
        return {key: _spell_out(item) for key, item in value.items()}
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _draw(rows: Sequence[Row], path: Path, picture: LossPicture) -> Path | None:
    from bionemo_core.reporting.loss_curve import draw

    train, val = _points(rows, TRAIN_LOSS), _points(rows, VAL_LOSS)
    samples = _points(rows, "consumed_samples")
    if not train and not val:
        return None
    with optional_picture(path):
        draw(path, train, val, samples, picture.title, picture.unit)
        return path
    return None

"""Checks of a logger: it takes the metrics of a run, writes in the run folder only, and continues after a resume."""

import contextlib
from pathlib import Path
from typing import Any

from bionemo_core.plugins import RegisteredComponent
from bionemo_core.protocols import RunContext
from bionemo_core.testing.optional.linear_layer import STEPS, train_linear_layer
from bionemo_core.testing.subject import Subject, fail


def check_logger(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a logger is one of Lightning's, and that a run and its resume log with it.

    Raises:
        ConformanceError: it does not; the message says what differs.
    """
    where = f"logger {registered.name!r}"
    folder = subject.folder / "loggers" / registered.name
    outside = subject.folder / "loggers" / f"{registered.name}-outside"
    for made in (folder, outside):
        made.mkdir(parents=True)
    with contextlib.chdir(outside):
        _train(subject, registered, where, RunContext(folder, "conformance"))
        before = _files(folder)
        _train(subject, registered, f"{where}, in a resumed run", RunContext(folder, "conformance", STEPS // 2))
    if gone := sorted(before - _files(folder)):
        fail(f"{where}: a resumed run removes {gone[0]}, which holds the metrics before it. Keep it and append to it.")
    if strange := sorted(_files(outside)):
        fail(f"{where}: it writes {strange[0]} to the working folder. Write below `run.folder`, the folder of the run.")


def _train(subject: Subject, registered: RegisteredComponent, where: str, run: RunContext) -> None:
    from pytorch_lightning.loggers import Logger

    logger = subject.build(registered, run=run)
    if not isinstance(logger, Logger):
        fail(f"{where}: its factory returns {type(logger).__name__}, expected a pytorch_lightning.loggers.Logger.")
    inner, steps = logger.log_metrics, set()

    def log_metrics(metrics: Any, step: int | None = None) -> None:
        given = dict(metrics)
        inner(metrics, step)
        if metrics != given:
            fail(f"{where}: log_metrics changes the metrics in place, and other loggers get them too. Copy them.")
        steps.add(step)

    logger.log_metrics = log_metrics  # type: ignore[method-assign]
    train_linear_layer(where, logger=[logger])
    if not set(range(STEPS)) <= steps:
        fail(f"{where}: it got the metrics of the steps {sorted(map(str, steps))}, expected 0 to {STEPS - 1}.")


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

"""The metrics that a run can log, so that a monitored metric that cannot appear is refused before the first step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import GradientAccumulationScheduler, ProgressBar, Timer

from bionemo_core.config.metric_direction import Mode
from bionemo_core.config.schema import Checkpoint
from bionemo_core.errors import ConfigError
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.training.module import LanguageModule

_ADDED_BY_LIGHTNING = (GradientAccumulationScheduler, ProgressBar, Timer)
"""Callbacks of a `Trainer` that log nothing."""


def check_monitor(checkpoint: Checkpoint, module: pl.LightningModule, callbacks: Iterable[pl.Callback]) -> Mode:
    """Check that the metric that ranks checkpoints can appear in this run; return which of its values are better.

    A network, a probe or a callback that does not say what it logs may log anything, so any name is taken then.

    Raises:
        ConfigError: nothing in the run logs it, or nothing says whether more or less of it is better.
    """
    monitor = checkpoint.monitor
    names = find_metric_names(module, callbacks)
    if names is not None and monitor not in names:
        listed = sorted(names)
        raise ConfigError(
            f"checkpoint.monitor={monitor}: this run has no such metric.{did_you_mean(monitor, listed)} "
            f"Its metrics: {', '.join(listed)}."
        )
    return checkpoint.better


def find_metric_names(module: pl.LightningModule, callbacks: Iterable[pl.Callback]) -> frozenset[str] | None:
    """Return the names of all metrics that a monitor can name; None if a part of the run does not say what it logs."""
    if type(module) is not LanguageModule:  # another one may log anything
        return None
    parts: list[Any] = [module.network, *module.probes]
    of_parts = [getattr(part, "logged_names", None) for part in parts]
    of_callbacks = [getattr(one, "metric_names", None) for one in callbacks if not isinstance(one, _ADDED_BY_LIGHTNING)]
    if None in of_parts or None in of_callbacks:
        return None
    logged = {"loss", *(name for names in of_parts for name in names)}  # type: ignore[union-attr]  # none is None
    return frozenset(f"val_{name}" for name in logged).union(*of_callbacks)  # type: ignore[arg-type]  # as above

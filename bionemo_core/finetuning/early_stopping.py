"""Early stopping of fine-tuning."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl

from bionemo_core.errors import ConfigError
from bionemo_core.plurals import format_count

log = logging.getLogger("bionemo")


class StopEarly(pl.Callback):
    """A callback that ends training after `patience` validations without a better value of the monitored metric."""

    metric_names: tuple[str, ...] = ()

    def __init__(self, monitor: str, mode: str, patience: int) -> None:
        if patience < 1:
            raise ConfigError(f"task.early_stopping: got {patience}, expected 1 or more validations, or null.")
        self.monitor = monitor
        self.sign = 1.0 if mode == "min" else -1.0
        self.patience = patience
        self.best = float("inf")
        self.worse = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.worse >= self.patience:
            log.warning("%s: training has already ended.", self._reason())
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        current = trainer.callback_metrics.get(self.monitor)
        if current is None:
            raise ConfigError(
                f"task.early_stopping: checkpoint.monitor={self.monitor} is not among the metrics: "
                f"{', '.join(sorted(trainer.callback_metrics))}."
            )
        value = self.sign * float(current)
        better = value < self.best  # false for NaN
        self.worse = 0 if better else self.worse + 1
        self.best = value if better else self.best
        if self.worse >= self.patience:
            log.info("%s: training ends.", self._reason())
            trainer.should_stop = True

    def _reason(self) -> str:
        return f"{self.monitor} did not improve in {format_count(self.worse, 'validation')}"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "worse": self.worse}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.worse = state_dict["best"], state_dict["worse"]

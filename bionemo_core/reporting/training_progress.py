"""The progress of a run: a bar on a terminal, else a line every few steps."""

import math
from collections.abc import Mapping
from time import monotonic
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console

from bionemo_core.io.progress import Bar
from bionemo_core.reporting.summary import duration, short_number


class RunProgress(ProgressBar):
    """A progress bar with step, loss, validation loss, learning rate, tokens per second, time spent and time left.

    It shows the metrics that the module logs, under the names of v1.
    """

    def __init__(self, log_every_n_steps: int | None = None, console: Console | None = None) -> None:
        """Print lines every `log_every_n_steps` (None: the trainer's value) if `console` is not a terminal."""
        super().__init__()
        self._every = log_every_n_steps
        self._console = console or Console()
        self._enabled = True
        self._bar: Bar | None = None
        self._started = 0.0
        self._first_step = 0

    def disable(self) -> None:
        """Stop showing progress."""
        self._enabled = False
        self._stop()

    def enable(self) -> None:
        """Show progress again."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print without breaking the bar."""
        if self._enabled:
            self._console.print(*args, **kwargs, markup=False, highlight=False, soft_wrap=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and the bar."""
        self._started, self._first_step = monotonic(), trainer.global_step
        if not (self._enabled and self._console.is_terminal):
            return
        total = trainer.max_steps if trainer.max_steps > 0 else None
        self._bar = Bar("train", total, start=trainer.global_step, console=self._console)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the step that ended, if an update is due."""
        last = trainer.global_step == trainer.max_steps
        if self._bar is not None:
            # Reading a metric waits for the GPU, so update only as often as a person can see.
            if last or self._bar.is_due:
                self._show(trainer, "train")
        elif self._enabled:
            every = self._every or getattr(trainer, "log_every_n_steps", 1) or 1
            if last or trainer.global_step % every == 0:
                self.print(f"step {self._line(trainer)}")

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Show the progress of validation."""
        if self._bar is not None and self._bar.is_due:
            self._show(trainer, f"validate {batch_idx + 1}")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the validation loss."""
        if trainer.state.fn != "fit":
            return
        if self._bar is not None:
            self._show(trainer, "train")
        elif self._enabled and (loss := _metric(trainer, "val_loss")) is not None:
            self.print(f"step {trainer.global_step}/{_total(trainer)}  val_loss {loss:.4f}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the last step and leave the bar on the screen."""
        if self._bar is not None:
            self._show(trainer, "train")
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the bar, so that the error message can be read."""
        self._stop()

    def _show(self, trainer: pl.Trainer, description: str) -> None:
        if self._bar is not None:
            self._bar.show(trainer.global_step, self._line(trainer), name=description)

    def _line(self, trainer: pl.Trainer) -> str:
        metrics = {name: _metric(trainer, name) for name in ("reduced_train_loss", "val_loss", "lr")}
        metrics["tokens_per_second"] = _metric(trainer, "tokens_per_second")
        elapsed = monotonic() - self._started
        done, left = trainer.global_step - self._first_step, trainer.max_steps - trainer.global_step
        eta = elapsed / done * left if done > 0 and trainer.max_steps > 0 else None
        return status_line(trainer.global_step, _total(trainer), metrics, elapsed, eta)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def status_line(
    step: int, total: str, metrics: Mapping[str, float | None], elapsed_s: float, eta_s: float | None
) -> str:
    """Format a line such as `120/1000  loss 2.8312  val_loss 2.9011  lr 4.00e-04  12.3k tokens/s  01:23<09:12`."""
    parts = [f"{step}/{total}"]
    formats = {
        "reduced_train_loss": "loss {:.4f}",
        "val_loss": "val_loss {:.4f}",
        "lr": "lr {:.2e}",
    }
    for name, form in formats.items():
        value = metrics.get(name)
        if value is not None:
            parts.append(form.format(value))
    rate = metrics.get("tokens_per_second")
    if rate is not None and math.isfinite(rate):
        parts.append(f"{short_number(rate)} tokens/s")
    parts.append(duration(elapsed_s) + ("" if eta_s is None else f"<{duration(eta_s)}"))
    return "  ".join(parts)


def _metric(trainer: pl.Trainer, name: str) -> float | None:
    for metrics in (trainer.callback_metrics, trainer.progress_bar_metrics):
        if name in metrics:
            value = metrics[name]
            return float(value) if not isinstance(value, str) else None
    return None


def _total(trainer: pl.Trainer) -> str:
    return str(trainer.max_steps) if trainer.max_steps > 0 else "?"

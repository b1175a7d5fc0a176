"""What happens between optimizer steps: metrics out, checkpoints, and stopping when told to."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
import torch.distributed as dist

from bionemo_core.checkpoint.retention import prune
from bionemo_core.config.schema import Checkpoint
from bionemo_core.errors import NonFiniteError, Preempted, StorageError
from bionemo_core.training.signals import StopSignal

log = logging.getLogger("bionemo")

PROGRESS_METRICS = ("reduced_train_loss", "lr", "tokens_per_second", "grad_norm", "consumed_samples")


class StepCallback(pl.Callback):
    """Acts after each optimizer step, and not after the micro batches that only accumulate."""

    _done = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._done = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step != self._done:
            self._done = trainer.global_step
            self.after_step(trainer, pl_module)

    def after_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What to do once `trainer.global_step` steps are done."""
        raise NotImplementedError


class LogMetrics(StepCallback):
    """Sends a module's `metrics` and `validation_metrics` to the loggers, in full precision."""

    def __init__(self, log_every_n_steps: int) -> None:
        self.log_every_n_steps = log_every_n_steps

    def after_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = getattr(pl_module, "metrics", None)
        if not metrics:
            return
        shown = {key: metrics[key] for key in PROGRESS_METRICS if key in metrics}
        # As `log_dict` would, which takes two milliseconds a step, while a GPU waits.
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in shown.items()})
        trainer.progress_bar_metrics.update(shown)
        step = trainer.global_step
        if step % self.log_every_n_steps == 0 or step == trainer.max_steps:
            _log(trainer, metrics, step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = getattr(pl_module, "validation_metrics", None)
        if metrics:
            _log(trainer, metrics, trainer.global_step)

    on_test_end = on_validation_end


def _log(trainer: pl.Trainer, metrics: dict[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=step)


class CheckpointSaver(StepCallback):
    """Saves every so many steps, after the validation of that step if there is one, and at the end.

    A validation that fails does not take the training before it along: one rank saves before it ends. A callback that
    puts other weights in place for a validation has to put them back in its own `on_exception`, which comes before.
    """

    def __init__(self, root: Path, settings: Checkpoint, validate_every: int) -> None:
        self.root = root
        self.settings = settings
        self.validate_every = validate_every
        self.every_n_steps = settings.every_n_steps or validate_every
        self.best: dict[int, float] = {}
        """The monitored value of each step that had one."""
        self.last_saved = -1
        self._warned_of_monitor = False

    def after_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step % self.every_n_steps == 0 and not self.validation_follows(trainer):
            self.save(trainer)

    def validation_follows(self, trainer: pl.Trainer) -> bool:
        """Whether the step just done is to be validated, which a resume from it would not repeat."""
        return trainer.enable_validation and trainer.global_step % self.validate_every == 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        value = trainer.callback_metrics.get(self.settings.monitor)
        if value is not None:
            self.best[trainer.global_step] = float(value)
        elif not self._warned_of_monitor:
            self._warned_of_monitor = True
            log.warning(
                "checkpoint.monitor=%s is not among the metrics (%s), so only the last %d checkpoints are kept.",
                self.settings.monitor,
                ", ".join(sorted(trainer.callback_metrics)),
                max(2, self.settings.keep_last),
            )
        if trainer.global_step % self.every_n_steps == 0:
            self.save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        in_validation = trainer.state.fn == "fit" and trainer.state.stage == "validate"
        # The first forbids it, the second has done it, and after the third it would fail again.
        refused = isinstance(exception, (NonFiniteError, Preempted, StorageError))
        if not in_validation or refused or trainer.world_size > 1:  # other ranks would have to take part
            return
        try:
            self.save(trainer)
        except Exception as error:
            log.warning("The validation after step %d failed, and no checkpoint either: %s", trainer.global_step, error)
            return
        log.warning(
            "The validation after step %d failed; that step's checkpoint is in %s. Once the cause is mended, "
            "resume=last goes on after this validation.",
            trainer.global_step,
            self.root,
        )

    def save(self, trainer: pl.Trainer) -> None:
        """Publish a checkpoint of the step just done, unless there is one, and delete what need not be kept."""
        step = trainer.global_step
        if step == self.last_saved or step == 0:
            return
        trainer.save_checkpoint(self.root, weights_only=False)
        self.last_saved = step
        if trainer.is_global_zero:
            prune(
                self.root,
                keep_last=self.settings.keep_last,
                best=self.best,
                save_top_k=self.settings.save_top_k,
                mode=cast(Literal["min", "max"], self.settings.mode),  # checked with the configuration
            )

    def state_dict(self) -> dict[str, Any]:
        return {"best": dict(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = dict(state_dict["best"])


class StopOnSignal(StepCallback):
    """On a signal, agreed between the ranks at a step's end, saves and leaves with exit status 75.

    Told before or during a validation it saves at once, in case the grace is short, and leaves once the validation is
    done, because a resume would not repeat it.
    """

    def __init__(self, stop: StopSignal, saver: CheckpointSaver) -> None:
        self.stop = stop
        self.saver = saver

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        # Lightning has put its own SIGTERM handler in place by now; it would end the run unsaved.
        self.stop.install()

    def after_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.saver.validation_follows(trainer):
            self._stop_if_requested(trainer, pl_module)
        elif self._stop_requested(trainer, pl_module):
            self.saver.save(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.state.fn == "fit" and self._stop_requested(trainer, pl_module):
            self.saver.save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._stop_if_requested(trainer, pl_module)

    def _stop_requested(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        told = self.stop.requested is not None
        if trainer.world_size == 1:
            return told
        flag = torch.tensor(float(told), device=pl_module.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def _stop_if_requested(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._stop_requested(trainer, pl_module):
            return
        self.saver.save(trainer)
        raise Preempted(
            f"training: stopped by {self.stop.requested or 'a signal to another rank'} after step "
            f"{trainer.global_step}; the checkpoint is in {self.saver.root}. Go on with resume=last."
        )


class StopOnBadValidation(pl.Callback):
    """Stops with exit status 6 when a validation loss is not finite, before anything is saved."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loss = getattr(pl_module, "validation_metrics", {}).get("val_loss", 0.0)
        if loss - loss != 0:
            raise NonFiniteError(
                f"training: the validation loss after step {trainer.global_step} is {loss}; nothing was saved. "
                "Lower optim.lr, then resume from the newest checkpoint."
            )

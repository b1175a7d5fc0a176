"""Callbacks between optimizer steps: log metrics, save checkpoints, stop on a signal or a bad validation."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist

from bionemo_core.checkpoint.background import BackgroundSaver
from bionemo_core.checkpoint.retention import prune
from bionemo_core.config.schema import Checkpoint
from bionemo_core.errors import NonFiniteError, Preempted, StorageError
from bionemo_core.training.signals import StopSignal

log = logging.getLogger("bionemo")

_SAVE_FAILED = 2
"""What ranks tell each other after a step: 1 for a signal, this for a save that failed."""

PROGRESS_METRICS = ("reduced_train_loss", "lr", "tokens_per_second", "grad_norm", "consumed_samples")


class StepCallback(pl.Callback):
    """A callback that acts after each optimizer step, not after micro batches that only accumulate gradients."""

    metric_names: tuple[str, ...] = ()
    """What it adds to the metrics that `checkpoint.monitor` may name."""
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
        """Act after an optimizer step; `trainer.global_step` steps are done."""
        raise NotImplementedError


class LogMetrics(StepCallback):
    """The callback that sends a module's `metrics` and `validation_metrics` to the loggers, in full precision."""

    metric_names = PROGRESS_METRICS

    def __init__(self, log_every_n_steps: int) -> None:
        self.log_every_n_steps = log_every_n_steps

    def after_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = getattr(pl_module, "metrics", None)
        if not metrics:
            return
        shown = {key: metrics[key] for key in PROGRESS_METRICS if key in metrics}
        # The same as `log_dict`, which takes two milliseconds a step while the GPU waits.
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
    """The callback that saves every `every_n_steps`, after that step's validation if there is one, and at the end.

    A save may go on in the background. The next one waits for it, and so does whatever ends the training.
    A failing step or validation does not lose the training before it: on one rank, a checkpoint is saved before the run
    ends. A loss that is not finite stops all ranks; if there is no checkpoint yet, the step before it is saved.
    A callback that swaps in other weights for validation must restore them in its own `on_exception`, which runs first.
    """

    def __init__(self, root: Path, settings: Checkpoint, validate_every: int) -> None:
        self.root = root
        self.settings = settings
        self.validate_every = validate_every
        self.every_n_steps = settings.every_n_steps or validate_every
        self.best: dict[int, float] = {}
        """The monitored value after each step that has one."""
        self.last_saved = -1
        """The step of the last save that was begun and has not failed; -1: there is none."""
        self._saved_before = -1
        self._deletes = False
        self.saves = BackgroundSaver(self._prune)
        self._first_step = 0
        self._warned_of_monitor = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._first_step = trainer.global_step

    def after_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step % self.every_n_steps == 0 and not self.validation_follows(trainer):
            self.save(trainer)

    def validation_follows(self, trainer: pl.Trainer) -> bool:
        """Return whether the last step is still to be validated; a resume from its checkpoint would skip that."""
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
        self.save(trainer, wait=True)
        self.saves.free()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        begun = self.last_saved
        try:
            self.wait()
        except Exception as error:
            log.warning("The checkpoint of step %d was not saved either: %s", begun, error)
        # Preempted has saved already, and a storage error would occur again.
        if trainer.state.fn != "fit" or isinstance(exception, (Preempted, StorageError)):
            return
        step = trainer.global_step
        if trainer.state.stage == "validate":
            if not isinstance(exception, NonFiniteError) and trainer.world_size == 1:  # others would have to take part
                done = f"The validation after step {step} failed"
                self._save_before_leaving(
                    trainer, done, "Correct the cause; resume=last then continues after this validation."
                )
        elif self._may_save_last_step(trainer, pl_module, exception):
            _pretend_step_end(trainer)
            self._save_before_leaving(trainer, f"Step {step + 1} failed", "resume=last continues with that step.")

    def _may_save_last_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, error: BaseException) -> bool:
        """Return whether weights, optimizer and data position are those after the last step, and all ranks are here."""
        step = trainer.global_step
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.total  # Lightning declares only a part of it
        updates = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total
        whole = hasattr(pl_module, "network") and step == self._done and updates.ready == updates.completed
        if not whole or step in (self._first_step, self.last_saved):
            return False
        if isinstance(error, NonFiniteError):
            # All ranks stop at it together. The weights may be no good already, so an older checkpoint is the better.
            return batches.started == batches.processed + 1 and self._first_step == 0 and self.last_saved < 0
        return trainer.world_size == 1

    def _save_before_leaving(self, trainer: pl.Trainer, failed: str, advice: str) -> None:
        try:
            self.save(trainer, wait=True)
        except Exception as error:
            log.warning("%s, and so did saving a checkpoint: %s", failed, error)
        else:
            log.warning("%s; the checkpoint of step %d is in %s. %s", failed, self.last_saved, self.root, advice)

    def save(self, trainer: pl.Trainer, *, wait: bool = False) -> None:
        """Save a checkpoint of the last step unless it has one; then delete checkpoints that need not be kept.

        Args:
            trainer: the run's.
            wait: return once this is done.

        Raises:
            Exception: what the save before raised in the background, or with `wait` this one.
        """
        step = trainer.global_step
        if step not in (0, self.last_saved):
            self.wait()
            self._deletes = trainer.is_global_zero
            trainer.save_checkpoint(self.root, weights_only=False, storage_options=self.saves)
            self._saved_before, self.last_saved = self.last_saved, step
        if wait:
            self.wait()

    def wait(self) -> None:
        """Return once no save is under way.

        Raises:
            Exception: what the last save raised; its step then has no checkpoint.
        """
        try:
            self.saves.wait()
        except Exception:
            self.last_saved = self._saved_before
            raise

    def _prune(self) -> None:
        if self._deletes:
            prune(
                self.root,
                keep_last=self.settings.keep_last,
                best=dict(self.best),  # training adds to it meanwhile
                save_top_k=self.settings.save_top_k,
                mode=self.settings.better,
            )

    def state_dict(self) -> dict[str, Any]:
        return {"best": dict(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = dict(state_dict["best"])


def _pretend_step_end(trainer: pl.Trainer) -> None:
    """Set Lightning's counters back to the end of the last step, where all other checkpoints are saved.

    A step that failed is counted as begun already, and a resume takes its batch for read.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    counts: Any
    for counts in (progress.total, progress.current):
        counts.ready = counts.started = counts.processed
        counts.completed = counts.processed - 1


class StopOnSignal(StepCallback):
    """The callback that saves and exits with status 75 on a signal; the ranks agree on it at the end of a step.

    If the signal comes before or during a validation, it saves at once, because the grace period may be short. It
    exits after the validation, because a resume would not repeat it.
    """

    def __init__(self, stop: StopSignal, saver: CheckpointSaver) -> None:
        self.stop = stop
        self.saver = saver

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        # Lightning has installed its own SIGTERM handler by now, which would end the run without saving.
        self.stop.install()
        self.stop.remember = True

    def after_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.saver.validation_follows(trainer):
            self._stop_if_requested(trainer, pl_module)
        elif self._stop_requested(trainer, pl_module):
            self.saver.save(trainer, wait=True)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.state.fn == "fit" and self._stop_requested(trainer, pl_module):
            self.saver.save(trainer, wait=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._stop_if_requested(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stop.remember = False  # all is saved

    def _stop_requested(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        """Return whether a rank got a signal.

        Raises:
            Exception: a save in the background has failed; on all ranks after the same step.
        """
        state = _SAVE_FAILED if self.saver.saves.failed else int(self.stop.requested is not None)
        if trainer.world_size > 1:
            flag = torch.tensor(float(state), device=pl_module.device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            state = int(flag.item())
        if state == _SAVE_FAILED:
            self.saver.wait()  # on another rank it may still be about to fail
            raise StorageError(
                "checkpoint: another rank could not end a save, and its message says why. Resume with resume=last."
            )
        return state > 0

    def _stop_if_requested(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._stop_requested(trainer, pl_module):
            return
        self.saver.save(trainer, wait=True)
        raise Preempted(
            f"training: stopped by {self.stop.requested or 'a signal to another rank'} after step "
            f"{trainer.global_step}; the checkpoint is in {self.saver.root}. Continue with resume=last."
        )


class StopOnBadValidation(pl.Callback):
    """The callback that stops with exit status 6 if a validation loss is not finite, before anything is saved."""

    metric_names: tuple[str, ...] = ()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loss = getattr(pl_module, "validation_metrics", {}).get("val_loss", 0.0)
        if loss - loss != 0:
            raise NonFiniteError(
                f"training: the validation loss after step {trainer.global_step} is {loss}; nothing was saved. "
                "Lower optim.lr, then resume from the newest checkpoint."
            )

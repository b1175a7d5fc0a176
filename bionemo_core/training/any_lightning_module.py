"""Training of any `LightningModule`: what `LanguageModule` does itself is added from outside.

Lightning's automatic optimization trains such a module. It gets one micro batch (a `TokenBatch`) at a time. Its own
`configure_optimizers` is used if it has one, otherwise the run's optimizer and schedule. Random numbers are seeded
before each micro batch, so that it resumes exactly too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.model_helpers import is_overridden

from bionemo_core.errors import ConfigError
from bionemo_core.parallel.dropout import seed_micro_batch
from bionemo_core.parallel.strategy import strategy_of
from bionemo_core.protocols import Example
from bionemo_core.training.module import Recipe

log = logging.getLogger("bionemo")


class WholeSequence:
    """The objective of a module that has none: all tokens unchanged, each with itself as the label."""

    def example(self, ids: NDArray[np.int32], draw: object) -> Example:
        """Return the record as its own input and labels; every token counts in the loss."""
        return Example(ids, ids, np.ones(len(ids), dtype=np.bool_))


@dataclass(frozen=True)
class ModuleAdapter:
    """The attributes of a model that the data loader needs, for a module that may lack them."""

    objective: Any
    seq_length: int

    @classmethod
    def of(cls, module: pl.LightningModule, seq_length: int | None) -> ModuleAdapter:
        """Return the module's own objective and length, with defaults where it has none.

        Raises:
            ConfigError: neither the module nor `seq_length` gives the longest sequence.
        """
        length = getattr(module, "seq_length", None) or seq_length
        if not length:
            raise ConfigError(
                f"model: {type(module).__name__} has no seq_length. Set batch.seq_length to the most tokens that a "
                "sequence may have."
            )
        return cls(getattr(module, "objective", None) or WholeSequence(), int(length))


class EvaluationMicroBatches:
    """The micro batches of an evaluation, one at a time."""

    def __init__(self, steps: Any) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[Any]:
        for step in self._steps:
            yield from step.micro_batches


class TrainingMicroBatches:
    """The micro batches of training, one at a time, and the number of sequences consumed after each step."""

    def __init__(self, steps: Any, consumed_samples: int) -> None:
        self._steps = steps
        self._read: dict[int, tuple[int, int]] = {}
        self._at_start = consumed_samples, 0

    def __iter__(self) -> Iterator[Any]:
        for step in self._steps:
            self._read[step.step] = step.consumed_samples, step.data_pass
            yield from step.micro_batches

    def read_after(self, steps: int) -> tuple[int, int]:
        """Return the sequences consumed, and the pass over the data, after this many optimizer steps of the run."""
        for step in [step for step in self._read if step < steps - 1]:
            del self._read[step]
        return self._read.get(steps - 1, self._at_start)


class AnyModuleCallback(pl.Callback):
    """The callback that seeds each micro batch and keeps the run's position and metrics."""

    def __init__(self, seed: int, batches: TrainingMicroBatches) -> None:
        self.seed = seed
        self.batches = batches
        self._position = (-1, 0)
        """The current step, and the index of its next micro batch."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        groups, step = strategy_of(trainer).groups, trainer.global_step
        micro_batch = self._position[1] if self._position[0] == step else 0
        self._position = (step, micro_batch + 1)
        seed_micro_batch(self.seed, step, groups.data_rank, micro_batch, groups.tensor_rank)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        consumed, data_pass = self.batches.read_after(trainer.global_step)
        metrics = {
            **{key: float(value) for key, value in trainer.callback_metrics.items() if not key.startswith("val")},
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "consumed_samples": float(consumed),
            "data_pass": float(data_pass),
            "global_step": float(trainer.global_step),
        }
        if loss is not None:
            metrics["reduced_train_loss"] = float(loss) * trainer.accumulate_grad_batches
        pl_module.metrics = metrics  # type: ignore[assignment]  # torch's stub allows tensors and modules only

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        logged = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val")}
        pl_module.validation_metrics = logged  # type: ignore[assignment]  # as above

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["consumed_samples"], _ = self.batches.read_after(trainer.global_step)


def configure_any_module(module: pl.LightningModule, trainer: pl.Trainer, recipe: Recipe, accumulate: int) -> None:
    """Make Lightning accumulate and clip for this module; give it the run's optimizer if it has none of its own."""
    trainer.accumulate_grad_batches = accumulate
    trainer.val_check_interval = int(trainer.val_check_interval) * accumulate  # Lightning counts micro batches here
    if module.automatic_optimization:
        trainer.gradient_clip_val = recipe.gradient_clip_val
    unused = [name for name in ("train_dataloader", "val_dataloader", "test_dataloader") if is_overridden(name, module)]
    if unused:
        log.warning("%s: its %s is not used; data=NAME chooses the data.", type(module).__name__, ", ".join(unused))
    if is_overridden("configure_optimizers", module):
        return

    def configure_optimizers() -> dict[str, Any]:
        optimizer = recipe.optim.build(module.named_parameters())
        base = recipe.optim.lr
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.learning_rate(step) / base)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # Set it on this instance only; Lightning calls it as if a subclass defined it.
    module.configure_optimizers = configure_optimizers  # type: ignore[method-assign, assignment]

"""A network and its objective as a Lightning module: one training step, written out.

A batch is a whole optimizer step's share of this rank (`StepBatch`): the step runs its micro
batches, so that the loss is the sum over all masked tokens of the global batch divided by their
number, whatever the number of ranks and micro batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from bionemo_core.errors import ConfigError, NonFiniteError
from bionemo_core.parallel.dropout import seed_micro_batch
from bionemo_core.parallel.sharding import reduce_gradients_now, reshard
from bionemo_core.parallel.strategy import MegatronStrategy, strategy_of
from bionemo_core.protocols import Objective, TensorType
from bionemo_core.training.gradients import LossScaler, clip_factor, gradient_norm, scale_gradients
from bionemo_core.training.optim import AdamWSettings

if TYPE_CHECKING:
    from bionemo_core.data.batch import StepBatch

MAX_SKIPPED_STEPS = 20
"""Overflows in a row after which 16-bit training gives up."""


@dataclass
class Recipe:
    """How to train: what the run's configuration says beside the network."""

    optim: AdamWSettings
    learning_rate: Callable[[int], float]
    """The rate of an optimizer step, counted from 0."""
    seed: int = 1234
    gradient_clip_val: float | None = 1.0
    scaler: LossScaler = field(default_factory=LossScaler)


class LanguageModule(pl.LightningModule):
    """Trains any network that maps a `TokenBatch` to a summed loss.

    Args:
        network: its forward gives the loss summed over the batch's loss positions.
        objective: makes examples from records, in the loader.
        seq_length: the longest sequence in tokens, BOS and EOS included.
    """

    input_types: Mapping[str, TensorType] = {
        "tokens": TensorType(("rows", "length"), "int64"),
        "labels": TensorType(("rows", "length"), "int64"),
        "loss_mask": TensorType(("rows", "length"), "bool"),
        "position_ids": TensorType(("rows", "length"), "int64"),
        "padding_mask": TensorType(("rows", "length"), "bool"),
    }
    output_types: Mapping[str, TensorType] = {"loss": TensorType((), "float32")}

    def __init__(self, network: nn.Module, objective: Objective, *, seq_length: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.objective = objective
        self.seq_length = seq_length
        self.recipe: Recipe | None = None
        self.consumed_samples = 0
        self.metrics: dict[str, float] = {}
        """What the last step measured, under v1's names."""

    @property
    def _strategy(self) -> MegatronStrategy:
        return strategy_of(self.trainer)

    @property
    def _recipe(self) -> Recipe:
        if self.recipe is None:
            raise ConfigError("model: no recipe was set, so there is nothing to train it with.")
        return self.recipe

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._recipe.optim.build(self.network.named_parameters())

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """One optimizer step.

        Raises:
            NonFiniteError: the loss or the gradient norm is not finite; nothing was updated.
        """
        started = perf_counter()
        recipe, optimizer = self._recipe, self.optimizers()
        optimizer.zero_grad(set_to_none=True)
        total = self._totals(batch)
        loss_sum, backward_s = self._accumulate(batch, recipe.scaler.scale / total["loss_tokens"])
        loss, norm = self._reduce(loss_sum / total["loss_tokens"])
        norm /= recipe.scaler.scale
        learning_rate = self._update(optimizer, loss, norm, batch.step)
        self.consumed_samples = batch.consumed_samples
        elapsed = perf_counter() - started
        self.metrics = {
            "reduced_train_loss": loss,
            "grad_norm": norm,
            "loss_scale": recipe.scaler.scale,
            "lr": learning_rate,
            "epoch": float(self.trainer.current_epoch),
            "consumed_samples": float(batch.consumed_samples),
            "global_step": float(batch.step + 1),
            "train_step_timing": elapsed,
            "train_backward_timing": backward_s,
            "tokens_per_second": total["tokens"] / elapsed,
            "fill": total["tokens"] / total["capacity"],
        }

    def _totals(self, batch: StepBatch) -> dict[str, float]:
        names = ("loss_tokens", "tokens", "capacity")
        local = [batch.num_loss_tokens, batch.num_tokens, batch.capacity]
        counts = torch.tensor(local, dtype=torch.float64, device=self.device)
        return dict(zip(names, self._strategy.groups.sum_over_data(counts).tolist(), strict=True))

    def _accumulate(self, batch: StepBatch, factor: float) -> tuple[Tensor, float]:
        groups, backward_s = self._strategy.groups, 0.0
        factor *= groups.data_size  # reduced gradients are means over ranks, and the loss is a sum
        loss_sum = torch.zeros((), device=self.device)
        for index, micro_batch in enumerate(batch.micro_batches):
            seed_micro_batch(self._recipe.seed, batch.step, groups.data_rank, index, groups.tensor_rank)
            reduce_gradients_now(self.network, index == len(batch.micro_batches) - 1)
            part = self.network(micro_batch)
            before = perf_counter()
            (part * factor).backward()
            backward_s += perf_counter() - before
            loss_sum += part.detach()
        return loss_sum, backward_s

    def _reduce(self, loss: Tensor) -> tuple[float, float]:
        strategy = self._strategy
        loss = strategy.groups.sum_over_data(loss)
        norm = gradient_norm(self.network.named_parameters(), strategy.layouts, strategy.groups, self.device)
        return tuple(torch.stack((loss, norm)).tolist())  # the step's one wait for the device

    def _update(self, optimizer: Any, loss: float, norm: float, step: int) -> float:
        recipe = self._recipe
        scaler, parameters = recipe.scaler, list(self.network.parameters())
        finite = loss - loss == 0 and norm - norm == 0
        overflow = scaler.dynamic and not finite
        if not finite and (not overflow or scaler.skipped_in_a_row + 1 >= MAX_SKIPPED_STEPS):
            raise NonFiniteError(_non_finite_message(step, loss, norm, scaler))
        learning_rate = recipe.learning_rate(step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        if overflow:  # the step counts, as its data is consumed, but nothing is updated
            optimizer.zero_grad(set_to_none=True)
        else:
            factor = clip_factor(norm, recipe.gradient_clip_val) / scaler.scale
            if factor != 1.0:
                scale_gradients(parameters, factor)
        scaler.update(overflow)
        optimizer.step()
        return learning_rate

    def on_validation_epoch_start(self) -> None:
        self._validation_sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        self._validation_started = perf_counter()

    def validation_step(self, batch: StepBatch, batch_idx: int) -> None:
        for micro_batch in batch.micro_batches:
            loss = self.network(micro_batch)
            self._validation_sums += torch.stack((loss.double(), loss.new_tensor(micro_batch.num_loss_tokens).double()))

    def on_validation_epoch_end(self) -> None:
        reshard(self.network)
        loss_sum, tokens = self._strategy.groups.sum_over_data(self._validation_sums).tolist()
        if tokens == 0:
            return
        loss = loss_sum / tokens
        elapsed = perf_counter() - self._validation_started
        self.validation_metrics = {"val_loss": loss, "validation_step_timing": elapsed}
        # For callbacks that watch it; the loggers get the exact value from `validation_metrics`.
        self.log("val_loss", loss, logger=False, prog_bar=True, batch_size=1, sync_dist=True)

    test_step = validation_step
    on_test_epoch_start = on_validation_epoch_start

    def on_test_epoch_end(self) -> None:
        loss_sum, tokens = self._strategy.groups.sum_over_data(self._validation_sums).tolist()
        self.validation_metrics = {"test_loss": loss_sum / max(tokens, 1.0)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["consumed_samples"] = self.consumed_samples
        checkpoint["scaler"] = asdict(self._recipe.scaler)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.consumed_samples = checkpoint["consumed_samples"]
        if self._recipe.scaler.dynamic:
            self._recipe.scaler = LossScaler(**checkpoint["scaler"])


def _non_finite_message(step: int, loss: float, norm: float, scaler: LossScaler) -> str:
    skipped = f" after {scaler.skipped_in_a_row} skipped steps in a row" if scaler.dynamic else ""
    return (
        f"training: step {step}: loss {loss}, gradient norm {norm}{skipped}: stopped before the update. "
        "The newest checkpoint is from before this step. Lower optim.lr, lengthen scheduler.warmup_steps, "
        "or train with trainer.precision=bf16-mixed or 32; then resume with resume=last."
    )

"""A network and its objective as a Lightning module, with the training step written out.

A batch is this rank's share of an optimizer step (`StepBatch`), and the step runs its micro batches. The loss is the
sum over all loss tokens of the global batch divided by their number, however many ranks and micro batches there are.
A loss of whole sequences is divided by the number of sequences in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from bionemo_core.errors import ConfigError, NonFiniteError
from bionemo_core.parallel.dropout import seed_micro_batch
from bionemo_core.parallel.pipeline.stages import sum_tied_gradients
from bionemo_core.parallel.sequence import sum_shard_gradients
from bionemo_core.parallel.sharding import average_gradients, reduce_gradients_now, reshard
from bionemo_core.parallel.strategy import MegatronStrategy, strategy_of
from bionemo_core.protocols import AnyObjective, OptimizerSettings, Seq2SeqObjective, TensorType, TextJudge
from bionemo_core.training.cuda_graphs import make_pass_runner
from bionemo_core.training.eval_metrics import Probe
from bionemo_core.training.gradients import LossScaler, clip_factor, gradient_norm, scale_gradients
from bionemo_core.training.losses import Losses, LossSums, RunPass, check_logged_names
from bionemo_core.training.pipeline_passes import PipelinePasses

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import StepBatch

log = logging.getLogger("bionemo")

MAX_SKIPPED_STEPS = 20
"""The number of overflows in a row after which 16-bit training stops with an error."""


@dataclass
class Recipe:
    """The part of a run's configuration that says how to train the network."""

    optim: OptimizerSettings
    learning_rate: Callable[[int], float]
    """The learning rate of each optimizer step, counted from 0."""
    seed: int = 1234
    gradient_clip_val: float | None = 1.0
    scaler: LossScaler = field(default_factory=LossScaler)


_TOKEN_TYPES = {"tokens": "int64", "labels": "int64", "loss_mask": "bool"}
_TOKEN_TYPES |= {"position_ids": "int64", "padding_mask": "bool"}


class LanguageModule(pl.LightningModule):
    """A Lightning module for any network that maps a `TokenBatch`, or a `Seq2SeqBatch`, to a summed loss.

    Args:
        network: its forward returns the loss summed over the batch's loss tokens, or `Losses`. If it has a method
            `set_step(step)`, this is called before each optimizer step with its number, from 0, and before an
            evaluation with the number of the step that follows it.
        objective: makes examples from records, in the loader.
        seq_length: the longest sequence in tokens, BOS and EOS included; of an encoder-decoder the longest source.
        probes: metrics of an evaluation besides the loss.
        judge: evaluates the texts that the network generates; `task=sample` and `task=optimize` use it.
        loss_unit: what the loss is counted in, for pictures.
    """

    input_types: Mapping[str, TensorType] = {
        name: TensorType(("rows", "length"), dtype) for name, dtype in _TOKEN_TYPES.items()
    }
    output_types: Mapping[str, TensorType] = {"loss": TensorType((), "float32")}

    def __init__(
        self,
        network: nn.Module,
        objective: AnyObjective,
        *,
        seq_length: int,
        probes: Sequence[Probe] = (),
        judge: TextJudge | None = None,
        loss_unit: str = "nats per token",
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.objective = objective
        self.seq_length = seq_length
        self.probes = tuple(probes)
        self.judge: TextJudge | None = judge
        self.loss_unit = loss_unit
        if isinstance(objective, Seq2SeqObjective):
            self.input_types = {
                f"{side}.{name}": TensorType(("rows", f"{side} length"), dtype)
                for side in ("source", "target")
                for name, dtype in _TOKEN_TYPES.items()
            }
        self.recipe: Recipe | None = None
        self.consumed_samples = 0
        self.metrics: dict[str, float] = {}
        """The metrics of the last step, under v1's names."""
        self.validation_metrics: dict[str, float] = {}
        """The metrics of the last evaluation."""
        self._run_pass: RunPass | None = None
        self._pipeline_passes: PipelinePasses | None = None

    @property
    def _strategy(self) -> MegatronStrategy:
        return strategy_of(self.trainer)

    @property
    def _recipe(self) -> Recipe:
        if self.recipe is None:
            raise ConfigError("model: it cannot be trained, because its `recipe` is not set.")
        return self.recipe

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if not any(parameter.requires_grad for parameter in self.network.parameters()):
            raise ConfigError("model: no parameter of its network requires a gradient, so there is nothing to train.")
        return self._recipe.optim.build(self.network.named_parameters())

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """Run one optimizer step.

        Raises:
            NonFiniteError: the loss or the gradient norm is not finite; no parameter was updated.
        """
        started = perf_counter()
        recipe, optimizer = self._recipe, self.optimizers()
        optimizer.zero_grad(set_to_none=True)
        self._set_step(batch.step)
        counts = self._count_global_batch(batch)
        sums, names, backward_s = self._accumulate(batch, counts)
        parameters = list(self.network.parameters())
        loss, norm, logged = self._reduce(sums, counts)
        norm /= recipe.scaler.scale
        learning_rate = self._update(optimizer, parameters, loss, norm, batch.step)
        self.consumed_samples = batch.consumed_samples
        elapsed = perf_counter() - started
        self.metrics = {
            "reduced_train_loss": loss,
            "grad_norm": norm,
            "loss_scale": recipe.scaler.scale,
            "lr": learning_rate,
            "epoch": float(self.trainer.current_epoch),  # v1's meaning: the whole run is one
            "data_pass": float(batch.data_pass),
            "consumed_samples": float(batch.consumed_samples),
            "global_step": float(batch.step + 1),
            "train_step_timing": elapsed,
            "train_backward_timing": backward_s,
            "tokens_per_second": counts["tokens"] / elapsed,
            "fill": counts["tokens"] / counts["capacity"],
            **{f"reduced_train_{name}": value for name, value in zip(names, logged, strict=True)},
        }

    def _set_step(self, step: int) -> None:
        set_step: Callable[[int], None] | None = getattr(self.network, "set_step", None)
        if set_step is not None:
            set_step(step)

    def _count_global_batch(self, batch: StepBatch) -> dict[str, float]:
        names = ("loss_tokens", "sequences", "tokens", "capacity")
        local = [batch.num_loss_tokens, batch.num_sequences, batch.num_tokens, batch.capacity]
        counts = torch.tensor(local, dtype=torch.float64)  # on the CPU, so that no rank waits for its GPU
        return dict(zip(names, self._strategy.groups.sum_over_data(counts).tolist(), strict=True))

    def _accumulate(self, batch: StepBatch, counts: dict[str, float]) -> tuple[Tensor, tuple[str, ...], float]:
        """Run this rank's micro batches; return the sum of `Losses.values`, the logged names and backward seconds."""
        strategy = self._strategy
        groups = strategy.groups
        factor = self._recipe.scaler.scale * groups.data_size  # the ranks' gradients are averaged, not summed
        per_token, per_sequence = (factor / max(1.0, counts[name]) for name in ("loss_tokens", "sequences"))
        if strategy.stages is not None:
            passed = self._pipeline().run_step(batch.micro_batches, per_token, partial(self._seed, batch))
            self._complete_gradients()
            return passed
        if self._run_pass is None:
            self._run_pass = make_pass_runner(self.network, groups, use_graphs=strategy.uses_cuda_graphs)
        sums, names, backward_s = torch.zeros((), device=self.device), None, 0.0
        for index, micro_batch in enumerate(batch.micro_batches):
            self._seed(batch, index)
            reduce_gradients_now(self.network, index == len(batch.micro_batches) - 1)
            counted = 1.0 if micro_batch.num_sequences else 0.0
            result = self._run_pass(micro_batch, per_token * counted, per_sequence * counted)
            backward_s += result.backward_s
            sums = sums + result.values * counted
            names = result.logged if names is None else names
            check_logged_names(result.logged, names)
        self._complete_gradients()
        return sums, names or (), backward_s

    def _complete_gradients(self) -> None:
        """Make the gradients of a step those of the global batch."""
        strategy = self._strategy
        reshard(self.network)  # needed if a backward pass reached no parameter
        average_gradients(self.network)
        sum_shard_gradients(self.network)
        if strategy.stages is not None:
            sum_tied_gradients(self.network, strategy.stages, strategy.groups)

    def _seed(self, batch: StepBatch, index: int) -> None:
        groups = self._strategy.groups
        seed_micro_batch(self._recipe.seed, batch.step, groups.data_rank, index, groups.tensor_rank)

    def _pipeline(self) -> PipelinePasses:
        if self._pipeline_passes is None:
            strategy = self._strategy
            self._pipeline_passes = PipelinePasses(self.network, strategy.groups, self.device, strategy.compute_dtype)
        return self._pipeline_passes

    def _reduce(self, sums: Tensor, counts: dict[str, float]) -> tuple[float, float, list[float]]:
        """Return the loss, the gradient norm and the logged means of the global batch."""
        strategy = self._strategy
        tokens = sums[:1] / max(1.0, counts["loss_tokens"])  # at least 1: a step may have no labelled token
        means = strategy.groups.sum_over_data(torch.cat((tokens, sums[1:] / max(1.0, counts["sequences"]))))
        norm = gradient_norm(self.network.named_parameters(), strategy.layouts, strategy.groups, self.device)
        measured = torch.cat((means, norm.reshape(1)))
        self._prefetch()
        values = measured.tolist()  # the only synchronisation with the GPU in a step
        return values[0] + values[1], values[-1], values[2:-1]

    def _prefetch(self) -> None:
        """Fetch the next batch and copy it while the GPU computes; on a CPU there is nothing to overlap.

        If the loader is slower than the GPU, the step waits for it here, so the step time includes that wait.
        """
        look_ahead = getattr(self.trainer.train_dataloader, "look_ahead", None)
        if look_ahead is not None and self.device.type == "cuda":
            look_ahead(self.device)

    def _update(self, optimizer: Any, parameters: Sequence[nn.Parameter], loss: float, norm: float, step: int) -> float:
        recipe = self._recipe
        scaler = recipe.scaler
        finite = loss - loss == 0 and norm - norm == 0
        overflow = scaler.dynamic and not finite
        if not finite and (not overflow or scaler.skipped_in_a_row + 1 >= MAX_SKIPPED_STEPS):
            raise NonFiniteError(_non_finite_message(step, loss, norm, scaler))
        learning_rate = recipe.learning_rate(step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        if overflow:  # the step counts, because its data is consumed, but no parameter is updated
            optimizer.zero_grad(set_to_none=True)
        else:
            factor = clip_factor(norm, recipe.gradient_clip_val) / scaler.scale
            if factor != 1.0:
                scale_gradients(parameters, factor)
        scaler.update(overflow)
        optimizer.step()
        return learning_rate

    def on_fit_end(self) -> None:
        self._run_pass = self._pipeline_passes = None  # frees the memory of its CUDA graphs

    def on_validation_epoch_start(self) -> None:
        self._evaluated = LossSums()
        self._evaluation_started = perf_counter()
        self._set_step(self.trainer.global_step)
        for probe in self.probes:
            probe.reset()

    def validation_step(self, batch: StepBatch, batch_idx: int) -> None:
        if self._strategy.stages is not None:
            self._pipeline().evaluate(batch.micro_batches, self._evaluated)
            return
        for micro_batch in batch.micro_batches:
            self._evaluated.add(Losses.of(self.network(micro_batch)), micro_batch)
            for probe in self.probes:
                probe.update(self.network, micro_batch)

    def on_validation_epoch_end(self) -> None:
        reshard(self.network)
        metrics = self._evaluation_metrics("val")
        if not metrics:
            return
        self.validation_metrics = metrics | {"validation_step_timing": perf_counter() - self._evaluation_started}
        for name, value in metrics.items():
            # For callbacks that monitor them; the loggers get the exact values from `validation_metrics`.
            self.log(name, value, logger=False, prog_bar=name == "val_loss", batch_size=1, sync_dist=True)

    test_step = validation_step
    on_test_epoch_start = on_validation_epoch_start

    def on_test_epoch_end(self) -> None:
        reshard(self.network)
        self.validation_metrics = self._evaluation_metrics("test")
        if not self.validation_metrics:
            log.warning("The test split is not evaluated: it has no token, or no label, that counts in the loss.")

    def _evaluation_metrics(self, prefix: str) -> dict[str, float]:
        groups = self._strategy.groups
        means = self._evaluated.means(groups)
        probe_metrics = [probe.compute(groups) for probe in self.probes]
        if means is None:
            return {}
        named = {"loss": means.loss} | means.logged
        for metrics in probe_metrics:
            named |= metrics
        return {f"{prefix}_{name}": value for name, value in named.items()}

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
        f"training: step {step}: got loss {loss} and gradient norm {norm}{skipped}; stopped before the update. "
        "Lower optim.lr, raise scheduler.warmup_steps, or train with trainer.precision=bf16-mixed or 32; then continue "
        "with resume=last, from the newest checkpoint, which is from before this step."
    )

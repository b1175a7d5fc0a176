"""The parts of a training that exist before its trainer does: tokenizer, data, model, recipe and batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import nn

from bionemo_core.config.batch_plan import batch_plan
from bionemo_core.config.schema import RunSpec
from bionemo_core.data.batches.pair_objective import learn_pairs
from bionemo_core.data.labelled_records import refuse_labels
from bionemo_core.errors import ConfigError, DataError
from bionemo_core.parallel.groups import start_groups
from bionemo_core.parallel.weights import network_of
from bionemo_core.protocols import DataSplits, Tokenizer
from bionemo_core.runs.device import Device, choose_device
from bionemo_core.runs.loaders import RunLoaders
from bionemo_core.training.gradients import LossScaler
from bionemo_core.training.module import Recipe

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry


@dataclass(frozen=True)
class TrainingParts:
    """What `bionemo_core.build` returns: the parts of a training, for a `Trainer` or a training loop of your own."""

    spec: RunSpec
    tokenizer: Tokenizer
    splits: DataSplits
    module: pl.LightningModule
    """The model; its `recipe` is set, so a `Trainer` with a `MegatronStrategy` can fit it."""
    network: nn.Module
    """The network of the model; called with a micro batch, it returns the summed loss, or `Losses`."""
    train: Any
    """The batches of the steps, from the first to `trainer.max_steps`: `StepBatch`es of `micro_batches`."""
    val: Any
    """The batches of a validation; None without one."""
    test: Any
    """The batches of the test; None without one."""


def build_parts(spec: RunSpec, registry: Registry) -> TrainingParts:
    """Build the parts of a training that starts at its first step.

    Raises:
        BioNeMoError: a part cannot be built, or the model is a `LightningModule` with batches of its own.
    """
    device = choose_device(spec)
    context = device.context(spec)
    tokenizer = registry.build(spec.tokenizer, context=context)
    splits = registry.build(spec.data, tokenizer=tokenizer, context=context)
    refuse_labels(splits, "this training")
    check_records(splits, spec)
    torch.manual_seed(spec.seed)
    module = registry.build(spec.model, tokenizer=tokenizer, context=context)
    if not hasattr(module, "network"):
        raise ConfigError(f"model={spec.model.name}: it has no `network`. Train this LightningModule with task=train.")
    learn_pairs(module, splits, tokenizer, spec.model.name, changed_values(spec, registry))
    groups, on_gpu = start_groups(spec.parallel.tensor_model_parallel_size), device.accelerator == "gpu"
    plan = batch_plan(spec, groups.data_size * groups.tensor_size)
    loaders = RunLoaders(spec, plan, splits, tokenizer, module, groups, on_gpu, static_shapes=on_gpu)
    module.recipe = make_recipe(spec, registry, device)
    return TrainingParts(
        spec, tokenizer, splits, module, network_of(module), loaders.train(0, 0), loaders.val(), loaders.test()
    )


def changed_values(spec: RunSpec, registry: Registry) -> dict[str, Any]:
    """Return the model's keys with other values than their defaults."""
    return {key: spec.model.params[key] for key in registry.changed_keys(spec.model)}


def check_records(splits: DataSplits, spec: RunSpec) -> None:
    """Check that there is something to train on.

    Raises:
        DataError: the training split has no record.
    """
    if not len(splits.train):
        raise DataError(
            f"data={spec.data.name} of {spec.data.distribution}: its training split has no record, so there is nothing "
            "to train on. Check its files, its filter and its splits."
        )


def learning_rate_of(spec: RunSpec, registry: Registry) -> Callable[[int], float]:
    """Return the learning rate of each step of a run, counted from 0.

    Raises:
        ConfigError: a component is missing, or the schedule does not fit the optimizer.
    """
    base_lr, schedule = registry.build(spec.optim).lr, registry.build(spec.scheduler)

    def learning_rate(step: int) -> float:
        return float(schedule(step, base_lr=base_lr, max_steps=spec.trainer.max_steps))

    learning_rate(0)  # fails now if the schedule does not fit the optimizer
    return learning_rate


def make_recipe(spec: RunSpec, registry: Registry, device: Device) -> Recipe:
    """Return how to train the network of a run.

    Raises:
        ConfigError: as `learning_rate_of`.
    """
    return Recipe(
        optim=registry.build(spec.optim),
        learning_rate=learning_rate_of(spec, registry),
        seed=spec.seed,
        gradient_clip_val=spec.trainer.gradient_clip_val,
        scaler=LossScaler.for_dtype(device.dtype),
    )

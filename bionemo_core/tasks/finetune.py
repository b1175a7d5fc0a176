"""The task `finetune`: a training run with a head, labels and metrics on a pre-trained model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bionemo_core.config.schema import Choice, RunSpec
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.label_spec import read_kind
from bionemo_core.finetuning.linear.baseline import LINEAR
from bionemo_core.finetuning.model.params import ENCODERS
from bionemo_core.tasks.finetuning.hooks import FineTuning
from bionemo_core.tasks.finetuning.setting_checks import check_loss, check_settings
from bionemo_core.tasks.settings import Finetune
from bionemo_core.tasks.train import train

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry


def finetune(spec: RunSpec, registry: Registry, *, composed_yaml: str = "") -> Path:
    """Run the task until it ends or a signal stops it; write a run folder with the fine-tuned model; return its path.

    Raises:
        BioNeMoError: the task failed.
    """
    task = Finetune(**spec.task.params)
    task = replace(task, kind=read_kind(task.kind, "task.kind"))
    if task.encoder not in ENCODERS:
        raise ConfigError(f"task.encoder: got {task.encoder!r}, expected one of {', '.join(ENCODERS)}.")
    check_settings(task)
    for key in ("tensor_model_parallel_size", "pipeline_model_parallel_size"):
        if getattr(spec.parallel, key) > 1:
            raise ConfigError(f"task=finetune: parallel.{key} must be 1; use trainer.devices.")
    check_loss(task, spec, registry)
    if task.head == LINEAR:
        spec = _without_training(spec, registry)
    return train(spec, registry, composed_yaml=composed_yaml, hooks=FineTuning(task, registry))


def _without_training(spec: RunSpec, registry: Registry) -> RunSpec:
    """Return the specification of a run whose head is solved: one step at a learning rate of 0, then validation."""
    constant = registry.get("scheduler", "constant")
    return replace(
        spec,
        trainer=replace(spec.trainer, max_steps=1, val_check_interval=1),
        optim=replace(spec.optim, params={**spec.optim.params, "lr": 0.0}),
        scheduler=Choice("scheduler", constant.name, {}, constant.distribution, constant.version),
    )

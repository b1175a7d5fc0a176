"""Opening a trained model, and starting the ranks that share the work of a task."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

from bionemo_core.config.schema import RunSpec
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.adapters import open_with_adapter
from bionemo_core.finetuning.peft_folder import is_peft_folder
from bionemo_core.finetuning.peft_models import merge_peft
from bionemo_core.interop.load_report import LoadReport
from bionemo_core.interop.stored import ModelSpec
from bionemo_core.io.hashing import fingerprint_of
from bionemo_core.models.load import DTYPES, OpenedModel, open_model
from bionemo_core.models.named_weights import fingerprint, named_weights
from bionemo_core.nn.missing_weights import missing_parts
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.parallel.weights import network_of
from bionemo_core.runs.device import Device
from bionemo_core.runs.launch import PATIENCE_S, Launch, opening_on_all_ranks
from bionemo_core.runs.shared_work import exchange

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

log = logging.getLogger("bionemo")


def start_workers(spec: RunSpec, device: Device, *, splits_model: bool = False) -> Ranks:
    """Start the other processes of this node if the run has several devices; returns in each process.

    Args:
        spec: the run.
        device: the device of all ranks.
        splits_model: whether the task can use a model that is split over tensor-parallel ranks.

    Raises:
        ConfigError: the run sets tensor or pipeline parallelism, which the task does not support.
    """
    keys = ["pipeline_model_parallel_size", *([] if splits_model else ["tensor_model_parallel_size"])]
    for key in keys:
        if getattr(spec.parallel, key) > 1:
            split = "by layers" if splits_model else "the model"
            raise ConfigError(
                f"parallel.{key}={getattr(spec.parallel, key)}: task={spec.task.name} shares its work among "
                f"trainer.devices, and does not split {split}. Leave it at 1."
            )
    num_ranks, tensor_size = spec.trainer.devices * spec.trainer.num_nodes, spec.parallel.tensor_model_parallel_size
    if num_ranks % tensor_size:
        raise ConfigError(
            f"parallel.tensor_model_parallel_size={tensor_size} does not divide the {num_ranks} processes of "
            f"trainer.devices={spec.trainer.devices}. Set trainer.devices={tensor_size}, or a multiple of it."
        )
    if tensor_size > 1 and spec.task.params.get("adapter"):
        raise ConfigError(
            f"parallel.tensor_model_parallel_size={tensor_size}: task.adapter is not split. Leave it at 1."
        )
    if num_ranks == 1:
        return Ranks(device="cuda:0" if device.name == "cuda" else "cpu")
    return replace(Launch(spec, device, PATIENCE_S).start(), tensor_size=tensor_size)


def single_process(spec: RunSpec, device: Device) -> Ranks:
    """Return this process as the only rank.

    Raises:
        ConfigError: the run asks for several devices.
    """
    ranks = spec.trainer.devices * spec.trainer.num_nodes
    if ranks * spec.parallel.tensor_model_parallel_size * spec.parallel.pipeline_model_parallel_size > 1:
        raise ConfigError(
            f"task={spec.task.name} runs on one device: leave trainer.devices, trainer.num_nodes, "
            "parallel.tensor_model_parallel_size and parallel.pipeline_model_parallel_size at 1."
        )
    return Ranks(device="cuda:0" if device.name == "cuda" else "cpu")


def open_for_use(spec: RunSpec, registry: Registry, device: Device, ranks: Ranks) -> OpenedModel:
    """Open the model at `restore_from_path` and print its load report, or build a new one with random weights.

    Raises:
        BioNeMoError: the model cannot be opened or built.
    """
    dtype = str(device.dtype).removeprefix("torch.")
    adapter = spec.task.params.get("adapter")
    if adapter and not spec.restore_from_path:
        raise ConfigError("task.adapter: not used without restore_from_path, the model that the adapter belongs to.")
    if spec.restore_from_path:
        stored: Any = {"restore": spec.restore, "connector": spec.connector, "home": spec.home}
        options = {**stored, "device": ranks.device, "dtype": dtype}
        with opening_on_all_ranks():
            if adapter and is_peft_folder(adapter):
                opened = merge_peft(open_model(spec.restore_from_path, registry, **stored), adapter, registry)
                opened.module.to(device=torch.device(ranks.device), dtype=DTYPES[dtype]).eval()
            elif adapter:
                second = spec.task.params.get("second_model")
                opened = open_with_adapter(spec.restore_from_path, adapter, registry, second=second, **options)
            else:
                opened = open_model(
                    spec.restore_from_path, registry, **options, tensor_model_parallel_size=ranks.tensor_size
                )
        if ranks.tensor_size > 1:
            opened = replace(opened, split_fingerprint=_fingerprint_parts(opened, ranks))
        if ranks.is_rank_zero:
            print(opened.report.text(), flush=True)
        return opened
    log.warning("model=%s without restore_from_path: its weights are random.", spec.model.name)
    context = replace(device.context(spec), dtype=dtype)
    tokenizer = registry.build(spec.tokenizer, context=context)
    module: pl.LightningModule = registry.build(spec.model, tokenizer=tokenizer, context=context)
    module.to(device=torch.device(ranks.device), dtype=device.dtype).eval()
    chosen = ModelSpec(spec.model, spec.tokenizer)
    return OpenedModel(module, tokenizer, chosen, {}, LoadReport("random weights"))


def _fingerprint_parts(opened: OpenedModel, ranks: Ranks) -> str:
    """Return a fingerprint of the parts of a model that is split over ranks, the same on all of them."""
    parts = exchange(weights_fingerprint(opened.module), ranks)
    return fingerprint_of(parts[: ranks.tensor_size])


def model_fingerprint(opened: OpenedModel) -> str:
    """Return a fingerprint of all weights of an opened model; a model that is split has another than a whole one."""
    return opened.split_fingerprint or weights_fingerprint(opened.module)


def weights_fingerprint(module: torch.nn.Module) -> str:
    """Return a fingerprint of all weights of the model in their current dtype, 32 hexadecimal digits.

    Tensors that the model's source lacked do not count.
    """
    missing = missing_parts(network_of(module))
    weights = named_weights(module)
    return fingerprint(one for one in weights if not missing.cover(one[0].removeprefix("network.")))

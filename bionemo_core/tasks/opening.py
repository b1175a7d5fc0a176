"""Opening a trained model, and starting the ranks that share the work of a task."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

from bionemo_core.config.schema import RunSpec
from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.adapters import fingerprint, named_weights, open_with_adapter
from bionemo_core.finetuning.peft_folder import is_peft_folder
from bionemo_core.finetuning.peft_models import merge_peft
from bionemo_core.interop.load_report import LoadReport
from bionemo_core.interop.stored import ModelSpec
from bionemo_core.models.load import DTYPES, OpenedModel, open_model
from bionemo_core.nn.missing_weights import missing_parts
from bionemo_core.parallel.ranks import Ranks
from bionemo_core.parallel.weights import network_of
from bionemo_core.runs.device import Device
from bionemo_core.runs.launch import PATIENCE_S, Launch

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

log = logging.getLogger("bionemo")


def start_workers(spec: RunSpec, device: Device) -> Ranks:
    """Start the other processes of this node if the run has several devices; returns in each process.

    Raises:
        ConfigError: the run sets tensor or pipeline parallelism, which only training supports.
    """
    for key in ("tensor_model_parallel_size", "pipeline_model_parallel_size"):
        if getattr(spec.parallel, key) > 1:
            raise ConfigError(
                f"parallel.{key}={getattr(spec.parallel, key)}: task={spec.task.name} shares its work among "
                "trainer.devices, and does not split the model. Leave it at 1."
            )
    if spec.trainer.devices * spec.trainer.num_nodes == 1:
        return Ranks(device="cuda:0" if device.name == "cuda" else "cpu")
    return Launch(spec, device, PATIENCE_S).start()


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
        adapter = spec.task.params.get("adapter")
        stored: Any = {"restore": spec.restore, "connector": spec.connector, "home": spec.home}
        options = {**stored, "device": ranks.device, "dtype": dtype}
        if adapter and is_peft_folder(adapter):
            opened = merge_peft(open_model(spec.restore_from_path, registry, **stored), adapter, registry)
            opened.module.to(device=torch.device(ranks.device), dtype=DTYPES[dtype]).eval()
        elif adapter:
            opened = open_with_adapter(spec.restore_from_path, adapter, registry, **options)
        else:
            opened = open_model(spec.restore_from_path, registry, **options)
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


def weights_fingerprint(module: torch.nn.Module) -> str:
    """Return a fingerprint of all weights of the model in their current dtype, 32 hexadecimal digits.

    Tensors that the model's source lacked do not count.
    """
    missing = missing_parts(network_of(module))
    weights = named_weights(module)
    return fingerprint(one for one in weights if not missing.cover(one[0].removeprefix("network.")))

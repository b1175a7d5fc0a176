"""Opening a pre-trained model with adapters and a head from another folder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bionemo_core.config.choice_params import FINETUNED
from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.finetuning.lora import adapted_layers, adapter_names, merge_adapters
from bionemo_core.interop.stored import StoredModel
from bionemo_core.models.compatibility import check_plugins
from bionemo_core.models.load import DTYPES, OpenedModel, open_model
from bionemo_core.models.locate import open_stored
from bionemo_core.models.named_weights import named_weights, opened_fingerprint
from bionemo_core.nn.missing_weights import pass_on_missing, require_weights
from bionemo_core.nn.residue_states import encoder_network, encoder_of
from bionemo_core.parallel.weights import network_of
from bionemo_core.protocols import BuildContext

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

BASE_WEIGHTS = "base_weights"
"""The name of the training fact with the fingerprint of the weights that an adapter was trained on."""

ENCODER, SECOND = "encoder_network.", "second_network."


def pretrained_network(opened: OpenedModel) -> nn.Module:
    """Return the encoder network of a model; adapters of an earlier fine-tuning are merged into its weights."""
    base = encoder_network(network_of(opened.module))
    require_weights(base, "fine-tuning", encoder_of(base).unread)
    merge_adapters(base)
    return base


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy every weight of `source` to the weight of the same name in `target`, which may also have adapters.

    What was not loaded in `source` counts as not loaded in `target`. New adapters of DoRA start from these weights.

    Raises:
        ConfigError: `source` lacks a weight that is not an adapter's.
    """
    pass_on_missing(source, target)
    weights = dict(named_weights(source))
    for name, tensor in named_weights(target):
        if name in weights:
            tensor.copy_(weights[name])
        elif not adapter_names([name]):
            raise ConfigError(f"fine-tuning: the opened encoder has no {name}. Is it another model?")
    for layer in adapted_layers(target):
        layer.lora.start_magnitude(layer.weight)


@torch.no_grad()
def open_with_adapter(
    base: str,
    adapter: str,
    registry: Registry,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    merge: bool = False,
    second: str | None = None,
    **opening: Any,
) -> OpenedModel:
    """Open the model at `base` with the adapters and head at `adapter`, in evaluation mode.

    Args:
        base: path or address of the pre-trained model.
        adapter: a folder `adapter` of a run of task=finetune with task.encoder=lora.
        registry: where components are looked up.
        device: cpu, cuda or cuda:N.
        dtype: float32, bfloat16 or float16.
        merge: add the adapters to the weights that they adapt; the outputs stay the same.
        second: path or address of the pre-trained model of the second sequences, if the adapter was trained on two.
        opening: further arguments of `open_model` for `base`: restore, connector, home.

    Raises:
        ArtefactError: `adapter` is not an adapter, or was trained on other weights.
        ConfigError: `second` is missing, or has other weights.
    """
    opened = open_model(base, registry, **opening)
    base_fingerprint = opened_fingerprint(opened)  # taken before merging, which rounds the weights
    source = pretrained_network(opened)
    stored = _open_adapter(adapter, base, base_fingerprint, registry)
    try:
        versions, names = check_plugins(stored.spec, registry, adapter), stored.tensors.names
        context = BuildContext(device=device.partition(":")[0], dtype=dtype)
        module: Any = registry.build(stored.spec.model, tokenizer=opened.tokenizer, context=context)
        copy_weights(source, module.network.encoder_network)
        if module.network.second_network is not None:
            home = opening.get("home", "")
            copy_weights(_open_second_base(second, adapter, stored, registry, home), module.network.second_network)
        _fill_adapters(module.network, stored)
    finally:
        stored.close()
    if merge:
        merge_adapters(module.network)
    module.to(device=torch.device(device), dtype=DTYPES[dtype]).eval()
    notes = (*opened.report.notes, f"adapters and head: {len(names)} tensors, from {adapter}", *versions)
    report = replace(opened.report, notes=notes)
    # The training data of the adapter are not recorded.
    return replace(opened, module=module, spec=stored.spec, report=report, data=None)


def _open_second_base(path: str | None, adapter: str, stored: StoredModel, registry: Registry, home: str) -> nn.Module:
    """Return the network of the model that the adapters of the second encoder were trained on.

    Raises:
        ConfigError: it is not named, or has other weights.
    """
    from bionemo_core.finetuning.pairs.second_model import check_second

    if not path:
        raise ConfigError(
            f"task.adapter={adapter}: has adapters of two models. Name the one of the second sequences with "
            "task.second_model."
        )
    opened = open_model(path, registry, home=home)
    check_second(opened, path, stored.spec.model.params["second"])
    return pretrained_network(opened)


def open_adapter(adapter: str, base: str, opened: OpenedModel, registry: Registry) -> StoredModel:
    """Open the adapters and head at `adapter`, which belong to the model opened from `base`; the caller closes them.

    Raises:
        ArtefactError: `adapter` is not an adapter, or was trained on other weights.
    """
    return _open_adapter(adapter, base, opened_fingerprint(opened), registry)


def _open_adapter(adapter: str, base: str, base_fingerprint: str, registry: Registry) -> StoredModel:
    stored = open_stored(adapter, registry)
    if stored.spec.model.name == FINETUNED and stored.facts.get(BASE_WEIGHTS) == base_fingerprint:
        return stored
    stored.close()
    if stored.spec.model.name != FINETUNED or BASE_WEIGHTS not in stored.facts:
        raise ArtefactError(f"{adapter}: not an adapter; expected the folder `adapter` of a fine-tuning run.")
    raise ArtefactError(
        f"{adapter}: was trained on other weights than those at {base}. Set restore_from_path to the model that the "
        "fine-tuning began with."
    )


def _fill_adapters(network: nn.Module, stored: StoredModel) -> None:
    """Fill adapters and head; the encoder's own weights are those of the base."""
    for name, tensor in named_weights(network):
        if name in stored.tensors.names:
            tensor.copy_(stored.tensors.read(name))
        elif adapter_names([name]) or not name.startswith((ENCODER, SECOND)):
            raise ArtefactError(f"{stored.source}: lacks {name}.")

"""Adapters of Hugging Face's `peft` on our models: merged into their weights, and written from a fine-tuning."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.finetuning.adapters import ENCODER, SECOND, open_adapter
from bionemo_core.finetuning.lora import LoraSettings
from bionemo_core.finetuning.peft_folder import PeftLayer, read_peft, write_peft
from bionemo_core.interop.load_report import preview_names
from bionemo_core.interop.stored import StoredModel
from bionemo_core.models.foreign_rows import foreign_rows
from bionemo_core.models.load import OpenedModel
from bionemo_core.parallel.weights import network_of
from bionemo_core.plurals import format_count

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry

_FORMAT = "huggingface"
_UP, _WEIGHT = ".lora.up", ".weight"


@torch.no_grad()
def merge_peft(opened: OpenedModel, path: str, registry: Registry) -> OpenedModel:
    """Add the adapters of a `peft` folder to the weights of a model, in place; the report says so.

    Raises:
        ArtefactError: the folder is damaged or not supported, or adapts what this model does not have.
        ConfigError: no connector writes the model as a Hugging Face folder, so the names are not known.
    """
    adapter = read_peft(Path(path).expanduser())
    parameters = dict(network_of(opened.module).named_parameters())
    places = foreign_rows(opened, _linear_weights(network_of(opened.module)), _FORMAT, registry)
    for name, layer in adapter.layers.items():
        place = places[_find(f"{name}{_WEIGHT}", places, path)]
        weight = parameters[place.ours]
        try:
            weight[place.rows] = layer.change(weight[place.rows]).to(weight.dtype)
        except (ValueError, RuntimeError) as error:
            raise ArtefactError(
                f"{path}: the adapter of {name} has the sizes {list(layer.up.shape)} and {list(layer.down.shape)}, "
                f"which do not fit the layer's {[len(place.rows), weight.shape[1]]}. Is it of another model?"
            ) from error
    notes = [f"adapter: {format_count(len(adapter.layers), 'layer')} changed, from {path}"]
    if adapter.others:
        notes.append(f"not part of this model: {preview_names(adapter.others)}")
    return replace(opened, report=replace(opened.report, notes=(*opened.report.notes, *notes)))


def _linear_weights(network: nn.Module) -> Iterator[str]:
    """Return the names of the two-dimensional weights that are no tables of embeddings, nor tied to one."""
    parameters = dict(network.named_parameters())
    for name, module in network.named_modules():
        weight = parameters.get(f"{name}{_WEIGHT}")
        if weight is not None and weight.dim() == 2 and "Embedding" not in type(module).__name__:
            yield f"{name}{_WEIGHT}"


def _find(wanted: str, names: Collection[str], path: str) -> str:
    """Return the foreign name that is `wanted`, or ends in it, or in which it ends: classes differ in a prefix."""
    found = [name for name in names if name == wanted]
    found = found or [name for name in names if name.endswith(f".{wanted}") or wanted.endswith(f".{name}")]
    if len(found) != 1:
        raise ArtefactError(f"{path}: adapts {wanted}, which this model does not have. Is it of another model?")
    return found[0]


def convert_to_peft(opened: OpenedModel, base: str, adapter: str, target: Path, registry: Registry) -> int:
    """Write the adapters of a fine-tuning as a folder of `peft`; returns how many layers of transformers they change.

    Args:
        opened: the model that was fine-tuned.
        base: where it was opened from.
        adapter: the folder `adapter` of the run.
        target: a folder that does not exist.
        registry: the registry in which connectors are looked up.

    Raises:
        ArtefactError: `adapter` is not an adapter, or was trained on other weights.
        ConfigError: no connector writes the model as a Hugging Face folder, the adapter is of two models, or `target`
            exists.
    """
    stored = open_adapter(adapter, base, opened, registry)
    try:
        if any(name.startswith(SECOND) for name in stored.tensors.names):
            raise ConfigError(
                f"task.adapter={adapter}: has adapters of two models, which a folder of peft cannot hold."
            )
        settings = LoraSettings.of_model(stored.spec.model.params["lora"])
        parts = {name: stored.tensors.read(f"{ENCODER}{name}") for name in _adapter_tensors(stored)}
    finally:
        stored.close()
    adapted = [name.removesuffix(_UP) for name in parts if name.endswith(_UP)]
    layers: dict[str, PeftLayer] = {}
    alpha = float(settings.rank if settings.alpha is None else settings.alpha)
    for name, place in foreign_rows(opened, [f"{one}{_WEIGHT}" for one in adapted], _FORMAT, registry).items():
        layer = place.ours.removesuffix(_WEIGHT)
        magnitude: Tensor | None = parts.get(f"{layer}.lora.magnitude")
        layers[name.removesuffix(_WEIGHT)] = PeftLayer(
            down=parts[f"{layer}.lora.down"],
            up=parts[f"{layer}{_UP}"][place.rows],
            scale=alpha / settings.rank,
            magnitude=None if magnitude is None else magnitude[place.rows],
        )
    name = base.rstrip("/").rpartition("/")[2] if Path(base).expanduser().exists() else base
    write_peft(target, layers, base=name, alpha=alpha, rank=settings.rank, dropout=settings.dropout)
    return len(layers)


def _adapter_tensors(stored: StoredModel) -> list[str]:
    return [name.removeprefix(ENCODER) for name in stored.tensors.names if ".lora." in name]

"""Published weights that plugins declare: what is known of each, and its address by the name of the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bionemo_core.plugins.component import PublishedWeights

if TYPE_CHECKING:
    from bionemo_core.plugins.records import RegisteredComponent
    from bionemo_core.plugins.registry import Registry

SIZES = {"num_layers": "layers", "hidden_size": "hidden", "num_attention_heads": "heads"}
"""Keys that describe the shape of a model, and their words."""


@dataclass(frozen=True)
class PublishedModel:
    """One model with published weights."""

    name: str
    distribution: str
    shape: str
    max_tokens: int | None
    """The longest sequence in tokens, those at its ends included."""
    tasks: tuple[str, ...]
    weights: PublishedWeights


def published_models(registry: Registry) -> list[PublishedModel]:
    """Return all models with published weights, each plugin's in its own order."""
    return [
        _describe(one)
        for record in registry.records
        for one in record.components
        if record.usable and one.component.weights is not None
    ]


def published_address(path: str, registry: Registry) -> str:
    """Return the address of the published weights if `path` is the name of such a model and nothing lies there."""
    found = None if Path(path).expanduser().exists() else registry.find("model", path)
    return path if found is None or found.component.weights is None else found.component.weights.address


def _describe(one: RegisteredComponent) -> PublishedModel:
    assert one.component.weights is not None
    values = {key.name: key.default for key in one.keys}
    shape = ", ".join(f"{values[key]} {word}" for key, word in SIZES.items() if key in values)
    return PublishedModel(
        one.name, one.distribution, shape, values.get("seq_length"), _tasks(one), one.component.weights
    )


def _tasks(one: RegisteredComponent) -> tuple[str, ...]:
    """Return the tasks for which such a model is mostly opened, by its capabilities."""
    found = one.component.capabilities
    writes = ("sample",) if "decoding" in found else ("predict",)
    return (*(("embed", "finetune") if "embedding" in found else ()), *writes, "evaluate")

"""What a plugin offers: components with a name and typed parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy

PLUGIN_API = 1
"""The version of the hooks; a plugin sets `BIONEMO_PLUGIN_API` to the version that it was written for."""

hookimpl = pluggy.HookimplMarker("bionemo")


@dataclass(frozen=True)
class PublishedWeights:
    """Weights of a model that somebody has published; a user names the model in place of the address."""

    address: str
    """As `restore_from_path` takes it: a name of the Hugging Face hub, `ngc://...` or `https://...`."""
    family: str
    """The name of its kind, such as ESM-2."""
    data: str
    """The data on which it was trained."""
    objective: str
    """What it was trained to do: predict masked residues."""
    license: str = ""
    """The licence of the weights, as their publisher states it; empty: only the address says."""


@dataclass(frozen=True)
class Component:
    """One tokenizer, dataset, model, connector or callback that a plugin offers.

    `config` is the result of `configure(factory)`. `defaults` are a model's choices for other groups:
    `{"tokenizer": "esm1nv", "data": "sample"}`. For the core's own groups they may also be a mapping of values, in
    which `base` names the entry that they refine: `{"optim": {"base": "adamw", "lr": 2e-4}}`.
    `capabilities` declare what a model can do beyond training; the conformance kit tests each.
    `weights` are published weights of a model with its default parameters; `bionemo-run models` lists them.
    """

    name: str
    config: Any
    summary: str = ""
    defaults: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()
    weights: PublishedWeights | None = None


CAPABILITIES = frozenset({"packing", "tensor_parallel", "pipeline_parallel", "exact_resume", "embedding", "decoding"})

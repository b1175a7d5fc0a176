"""What a plugin offers: components with a name and typed parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy

PLUGIN_API = 1
"""The version of the hooks; a plugin sets `BIONEMO_PLUGIN_API` to the version that it was written for."""

hookimpl = pluggy.HookimplMarker("bionemo")


@dataclass(frozen=True)
class Component:
    """One tokenizer, dataset, model, connector or callback that a plugin offers.

    `config` is the result of `configure(factory)`. `defaults` are a model's choices for other groups:
    `{"tokenizer": "esm1nv", "data": "sample"}`. For the core's own groups they may also be a mapping of values, in
    which `base` names the entry that they refine: `{"optim": {"base": "adamw", "lr": 2e-4}}`.
    `capabilities` declare what a model can do beyond training; the conformance kit tests each.
    """

    name: str
    config: Any
    summary: str = ""
    defaults: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()


CAPABILITIES = frozenset({"packing", "tensor_parallel", "pipeline_parallel", "exact_resume", "embedding", "decoding"})

"""What a plugin offers: a named, typed, buildable thing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy

PLUGIN_API = 1
"""The version of the hooks; a plugin states the one it was written for as `BIONEMO_PLUGIN_API`."""

hookimpl = pluggy.HookimplMarker("bionemo")


@dataclass(frozen=True)
class Component:
    """One tokenizer, dataset, model, connector or callback that a plugin offers.

    `config` is what `configure(factory)` returns. `defaults` names what a model brings along:
    `{"tokenizer": "esm1nv", "data": "sample"}`; for the core's own groups a mapping of values is
    allowed too, with the entry it refines as `base`: `{"optim": {"base": "adamw", "lr": 2e-4}}`.
    `capabilities` says what a model can do beyond training; the conformance kit tests each.
    """

    name: str
    config: Any
    summary: str = ""
    defaults: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()


CAPABILITIES = frozenset({"packing", "tensor_parallel", "exact_resume", "embedding", "decoding"})

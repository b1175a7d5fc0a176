"""Low-rank adapters on linear layers (Hu et al. 2021), which keep the names of the weights that they adapt.

An adapter hangs on its layer as `lora` and adds `alpha / rank * up(down(dropout(x)))` to what the layer returns. As in
v1, `down` starts as Xavier normal and `up` as zero, so that a new adapter changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bionemo_core.errors import ConfigError

TARGETS: Mapping[str, tuple[str, ...]] = {
    "qkv": ("linear_qkv", "linear_q", "linear_kv"),
    "proj": ("linear_proj",),
    "fc1": ("linear_fc1",),
    "fc2": ("linear_fc2",),
}
"""Words for the layers of a transformer block, and megatron-core's names of them."""


@dataclass(frozen=True)
class LoraSettings:
    """The size and the place of adapters; defaults as v1's `lora_tuning`, which had no alpha (it was the rank)."""

    rank: int = 32
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] = tuple(TARGETS)

    def check(self) -> LoraSettings:
        """Check the settings, and return them.

        Raises:
            ConfigError: they cannot.
        """
        unknown = [name for name in self.targets if name not in TARGETS]
        if self.rank < 1 or not 0 <= self.dropout < 1 or unknown or not self.targets:
            raise ConfigError(
                f"lora: rank {self.rank}, dropout {self.dropout}, targets {list(self.targets)}; expected rank >= 1, "
                f"0 <= dropout < 1, and targets among {', '.join(TARGETS)}."
            )
        return self


class Adapter(nn.Module):
    """The low-rank change of one linear layer."""

    def __init__(self, inputs: int, outputs: int, settings: LoraSettings) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(settings.rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, settings.rank))
        nn.init.xavier_normal_(self.down)
        self.dropout = settings.dropout
        self.scale = (settings.rank if settings.alpha is None else settings.alpha) / settings.rank

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to the layer's output, shape [..., outputs]."""
        x = F.dropout(x, self.dropout, self.training)
        return F.linear(F.linear(x, self.down), self.up) * self.scale

    def weight(self) -> Tensor:
        """Return the change as one matrix, shape [outputs, inputs]."""
        return self.up @ self.down * self.scale


def add_adapters(network: nn.Module, settings: LoraSettings) -> int:
    """Hang an adapter on every target layer inside `network.layers`, and freeze all else; the number of adapters.

    Raises:
        ConfigError: no such layer was found.
    """
    names = {name for target in settings.check().targets for name in TARGETS[target]}
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    found = 0
    for block in getattr(network, "layers", ()):
        for name, layer in list(block.named_modules()):
            if name.rpartition(".")[2] not in names:
                continue
            outputs, inputs = layer.weight.shape
            layer.lora = Adapter(inputs, outputs, settings).to(layer.weight.device)
            layer.register_forward_hook(_add)
            found += 1
    if not found:
        raise ConfigError(
            f"lora: {type(network).__name__} has no layers called {', '.join(sorted(names))} in its `layers`, so there "
            "is nothing to adapt. Use task.encoder=full or frozen."
        )
    return found


def _add(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    """Return a forward hook: megatron-core's linear layers return the product and a bias."""
    adapter = getattr(layer, "lora", None)
    if adapter is None:
        return output
    if isinstance(output, tuple):
        return output[0] + adapter(inputs[0]), *output[1:]
    return output + adapter(inputs[0])


@torch.no_grad()
def merge_adapters(network: nn.Module) -> int:
    """Add every adapter to the weight that it adapts, and take it off; the number that was merged."""
    merged = 0
    for layer in adapted_layers(network):
        layer.weight += layer.lora.weight().to(layer.weight.dtype)
        del layer.lora
        merged += 1
    return merged


def adapted_layers(network: nn.Module) -> Iterator[Any]:
    """Return the layers that have an adapter."""
    return (module for module in list(network.modules()) if isinstance(getattr(module, "lora", None), Adapter))


def adapter_names(names: Sequence[str]) -> list[str]:
    """Those of some parameters' names that belong to adapters."""
    return [name for name in names if ".lora." in name]

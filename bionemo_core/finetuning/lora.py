"""Low-rank adapters on linear layers (Hu et al. 2021), which keep the names of the weights that they adapt.

An adapter is the attribute `lora` of its layer, and adds `alpha / rank * up(down(dropout(x)))` to the output of the
layer. As in v1, `down` starts as Xavier normal and `up` as zero, so a new adapter changes nothing.

With DoRA (Liu et al. 2024) the changed weight keeps its direction only: each of its rows is scaled to a length that is
trained, `magnitude`, and starts as that of the pre-trained row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bionemo_core.errors import ConfigError
from bionemo_core.finetuning.network import encoder_blocks

TARGETS: Mapping[str, tuple[str, ...]] = {
    "qkv": ("linear_qkv", "linear_q", "linear_kv"),
    "proj": ("linear_proj",),
    "fc1": ("linear_fc1",),
    "fc2": ("linear_fc2",),
}
"""Names of the linear layers of a transformer block, with megatron-core's names; a network may have its own."""


@dataclass(frozen=True)
class LoraSettings:
    """The size and the layers of adapters; defaults of v1's `lora_tuning`, where alpha was the rank."""

    rank: int = 32
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] = tuple(TARGETS)
    dora: bool = False
    decoder: bool = False
    """Whether an encoder-decoder's decoder has adapters too. No state depends on it, so they are never trained."""

    @classmethod
    def of_model(cls, params: Mapping[str, Any]) -> LoraSettings:
        """Return the settings in the parameters of a stored model; earlier versions also put adapters on a decoder."""
        given = {"decoder": True, **params}
        return cls(**given | ({"targets": tuple(given["targets"])} if "targets" in given else {}))

    def check(self) -> LoraSettings:
        """Check the settings, and return them.

        Raises:
            ConfigError: a value is out of its range.
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
        self.magnitude = nn.Parameter(torch.ones(outputs)) if settings.dora else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the change of the layer's output, shape [..., outputs]."""
        x = F.dropout(x, self.dropout, self.training)
        return F.linear(F.linear(x, self.down), self.up) * self.scale

    def weight(self) -> Tensor:
        """Return the change as one matrix, shape [outputs, inputs]."""
        return self.up @ self.down * self.scale

    @torch.no_grad()
    def start_magnitude(self, weight: Tensor) -> None:
        """With DoRA, take the lengths of the rows of the weight that is adapted, [outputs, inputs]."""
        if self.magnitude is not None:
            self.magnitude.copy_(torch.linalg.vector_norm(weight.float(), dim=1))

    def gain(self, weight: Tensor) -> Tensor:
        """Return the factor on each row of the changed weight with DoRA, float32 [outputs].

        No gradient flows into the lengths of the rows, as the paper does it to save memory.
        """
        assert self.magnitude is not None
        lengths = torch.linalg.vector_norm(weight.float() + self.weight().float(), dim=1).detach()
        return self.magnitude.float() / lengths.clamp(min=torch.finfo(torch.float32).tiny)

    def adapt(self, product: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the changed output of a layer whose output for `x` is `product`, with its bias if one is given."""
        change = self(x)
        if self.magnitude is None:
            return product + change
        gain = self.gain(weight).to(product.dtype)
        if bias is None:
            return (product + change) * gain
        return (product - bias + change) * gain + bias


def add_adapters(network: nn.Module, settings: LoraSettings) -> int:
    """Add an adapter to every target layer of the encoder's blocks, freeze all else, and return how many there are.

    A network whose layers have other names than megatron-core's lists them as `lora_targets`: by target, the last part
    of a layer's name, or its whole name within a block.

    Raises:
        ConfigError: the network has no such layer.
    """
    named = getattr(network, "lora_targets", TARGETS)
    names = {name for target in settings.check().targets for name in named.get(target, ())}
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    count = 0
    for block in getattr(network, "layers", ()) if settings.decoder else encoder_blocks(network):
        for name, layer in list(block.named_modules()):
            if name not in names and name.rpartition(".")[2] not in names:
                continue
            outputs, inputs = layer.weight.shape
            layer.lora = Adapter(inputs, outputs, settings).to(layer.weight.device)
            layer.lora.start_magnitude(layer.weight)
            layer.register_forward_hook(_add)
            count += 1
    if not count:
        raise ConfigError(
            f"lora: {type(network).__name__} has no layers called {', '.join(sorted(names))} in its `layers`, so there "
            "is nothing to adapt. Use task.encoder=full or frozen."
        )
    return count


def _add(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    """Add the adapter's output, as a forward hook; megatron-core's linear layers return the product and a bias."""
    adapter = getattr(layer, "lora", None)
    if adapter is None:
        return output
    bias = getattr(layer, "bias", None)
    if not isinstance(output, tuple):
        return adapter.adapt(output, inputs[0], layer.weight, bias)
    added = bias if output[1] is None else None  # else it is returned apart
    return adapter.adapt(output[0], inputs[0], layer.weight, added), *output[1:]


@torch.no_grad()
def merge_adapters(network: nn.Module) -> int:
    """Add every adapter to the weight that it adapts, remove it, and return the number of adapters."""
    count = 0
    for layer in adapted_layers(network):
        gain = None if layer.lora.magnitude is None else layer.lora.gain(layer.weight)[:, None]
        layer.weight += layer.lora.weight().to(layer.weight.dtype)
        if gain is not None:
            layer.weight *= gain.to(layer.weight.dtype)
        del layer.lora
        count += 1
    return count


def adapted_layers(network: nn.Module) -> Iterator[Any]:
    """Return the layers that have an adapter."""
    return (module for module in list(network.modules()) if isinstance(getattr(module, "lora", None), Adapter))


def adapter_names(names: Sequence[str]) -> list[str]:
    """Return those of `names` that belong to adapters."""
    return [name for name in names if ".lora." in name]

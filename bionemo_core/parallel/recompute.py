"""Activation recomputation: layers whose intermediate results are computed again in the backward pass, not kept.

Results are the same. A backward pass costs up to one forward pass more, and memory for activations falls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bionemo_core.config.recompute_options import Recompute
from bionemo_core.errors import ConfigError
from bionemo_core.parallel.dropout import replay_region


def recompute_layers(network: nn.Module, options: Recompute, *, compiled: bool = False) -> None:
    """Change the network's `layers` in place so that they recompute activations in a backward pass.

    Args:
        compiled: compile each layer that is recomputed as a whole. Its checkpoint stays outside of the compiled code,
            so that it also works where that code falls apart into several graphs.

    Raises:
        ConfigError: the network has no `layers`.
    """
    if not options.any:
        return
    layers = list(getattr(network, "layers", ()))
    if not layers:
        raise ConfigError(
            f"trainer.activations_checkpoint_granularity={options.granularity}: {type(network).__name__} has no "
            "`layers` to recompute. Leave the key out."
        )
    if options.granularity == "selective":
        attentions = [module for layer in layers for module in _core_attentions(layer)]
        _replace_forward(attentions, _recompute_uncompiled)
        return
    chosen = layers if options.method != "block" else _first_of_stacks(network, layers, options.num_layers)
    _replace_forward(chosen, _recompute_compiled if compiled else _recompute)


def is_recomputed(layer: nn.Module) -> bool:
    """Return whether this layer is recomputed as a whole."""
    return "forward" in vars(layer)


def _first_of_stacks(network: nn.Module, layers: list[nn.Module], number: int) -> list[nn.Module]:
    """Return the first `number` layers of each module list that holds layers; layers elsewhere count as one stack."""
    stacks = [list(module) for module in network.modules() if isinstance(module, nn.ModuleList)]
    stacks = [stack for stack in stacks if stack and all(any(one is layer for layer in layers) for one in stack)]
    return [layer for stack in stacks or [layers] for layer in stack[:number]]


def _core_attentions(layer: nn.Module) -> Iterable[nn.Module]:
    return (module for name, module in layer.named_modules() if name.endswith("core_attention"))


def _replace_forward(modules: Iterable[nn.Module], forward: Callable[..., Any]) -> None:
    # A bound method: a deep copy of the module gets one that is bound to the copy.
    for module in modules:
        module.forward = MethodType(forward, module)  # type: ignore[method-assign]


def _recompute(module: nn.Module, *args: Any, **options: Any) -> Any:
    return _checkpointed(type(module).forward, module, args, options)


def _recompute_compiled(module: nn.Module, *args: Any, **options: Any) -> Any:
    return _checkpointed(_compiled(type(module).forward), module, args, options)


@torch.compiler.disable
def _recompute_uncompiled(module: nn.Module, *args: Any, **options: Any) -> Any:
    return _checkpointed(type(module).forward, module, args, options)


@cache
def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(forward, dynamic=False)


def _checkpointed(
    forward: Callable[..., Any], module: nn.Module, args: tuple[Any, ...], options: Mapping[str, Any]
) -> Any:
    """Return `forward(module, *args, **options)`, keeping only its inputs for a backward pass."""
    if not torch.is_grad_enabled():
        return forward(module, *args, **options)
    # torch looks for the devices whose generators it must restore among the positional arguments only.
    tensors = [value for value in (*args, *options.values()) if isinstance(value, Tensor)]

    def run(*_: Tensor) -> Any:
        return forward(module, *args, **options)

    return checkpoint(run, *tensors, use_reentrant=False, context_fn=replay_region)

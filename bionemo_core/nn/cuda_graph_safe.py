"""CUDA graphs: which networks declare that their forward pass may be recorded and replayed."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, Protocol, TypeVar

from torch import nn

Forward = TypeVar("Forward", bound=Callable[..., Any])


class Graph(Protocol):
    """A recorded CUDA graph."""

    def replay(self) -> None:
        """Run the recorded work again, on the same memory."""
        ...


def cuda_graph_safe(forward: Forward) -> Forward:
    """Mark a `forward`, or a forward pre-hook, whose work a GPU may replay as a CUDA graph.

    A marked forward must launch identical work for all packed batches whose tensors have the same shapes and whose
    `max_seqlen` are equal. Values that change from batch to batch or from step to step must be read from tensors
    that stay at the same address, never from other numbers of the batch or from Python variables: replaying a graph
    runs no Python. A subclass that defines any method or property is not marked; to use graphs it needs a marked
    `forward` of its own.
    """
    forward.cuda_graph_safe = True  # type: ignore[attr-defined]
    return forward


def is_cuda_graph_safe(network: nn.Module) -> bool:
    """Return whether the network's forward is marked, and nothing that it runs is unmarked."""
    kinds = type(network).__mro__
    owner = next(place for place, kind in enumerate(kinds) if "forward" in vars(kind))
    if not getattr(vars(kinds[owner])["forward"], "cuda_graph_safe", False) or "forward" in vars(network):
        return False
    if any(_may_affect_forward(name, value) for kind in kinds[:owner] for name, value in vars(kind).items()):
        return False
    if any(p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None) for p in network.parameters()):
        return False
    return not any(
        getattr(module, "cuda_graph_unsafe", False) or _has_unsafe_hooks(module) for module in network.modules()
    )


def _may_affect_forward(name: str, value: object) -> bool:
    """Return whether an attribute of a class may change what its instances compute."""
    if name.startswith("__") and not isinstance(value, FunctionType):  # set by Python itself
        return False
    return callable(value) or hasattr(type(value), "__get__")


def _has_unsafe_hooks(module: nn.Module) -> bool:
    """Return whether calling the module also calls unmarked hooks, which a replay would skip."""
    before = [hook for hook in module._forward_pre_hooks.values() if not getattr(hook, "cuda_graph_safe", False)]
    return bool(before or module._forward_hooks or module._backward_hooks or module._backward_pre_hooks)

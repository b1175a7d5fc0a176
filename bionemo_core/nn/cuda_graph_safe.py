"""What a recording is, and which networks promise that their forward pass may be recorded."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, Protocol, TypeVar

from torch import nn

Forward = TypeVar("Forward", bound=Callable[..., Any])


class Graph(Protocol):
    """What was recorded."""

    def replay(self) -> None:
        """Do it again, on the same memory."""
        ...


def cuda_graph_safe(forward: Forward) -> Forward:
    """Mark a `forward`, or a hook before one, that a GPU may do again from a recording, a CUDA graph.

    It promises that for packed batches whose tensors have the same shapes, and whose `max_seqlen` are the same, the
    forward asks the device for the same work: what changes from batch to batch or from step to step it reads from
    tensors that stay where they are, never from the batch's other numbers or from Python's. A recording calls no
    Python. The promise is the class's own: one that overrides anything of it makes the promise anew, by a marked
    `forward` of its own, or does not.
    """
    forward.cuda_graph_safe = True  # type: ignore[attr-defined]
    return forward


def is_cuda_graph_safe(network: nn.Module) -> bool:
    """Whether the promise was made for all that the network's forward is."""
    kinds = type(network).__mro__
    owner = next(place for place, kind in enumerate(kinds) if "forward" in vars(kind))
    if not getattr(vars(kinds[owner])["forward"], "recordable", False) or "forward" in vars(network):
        return False
    if any(_is_code(name, value) for kind in kinds[:owner] for name, value in vars(kind).items()):
        return False
    if any(one._backward_hooks or getattr(one, "_post_accumulate_grad_hooks", None) for one in network.parameters()):
        return False
    return not any(getattr(module, "unrecordable", False) or _has_hooks(module) for module in network.modules())


def _is_code(name: str, value: object) -> bool:
    """Whether an attribute of a class may take part in what its instances do."""
    if name.startswith("__") and not isinstance(value, FunctionType):  # what Python itself puts there
        return False
    return callable(value) or hasattr(type(value), "__get__")


def _has_hooks(module: nn.Module) -> bool:
    """Whether calling the module calls somebody else too, who would not be called any more."""
    before = [hook for hook in module._forward_pre_hooks.values() if not getattr(hook, "recordable", False)]
    return bool(before or module._forward_hooks or module._backward_hooks or module._backward_pre_hooks)

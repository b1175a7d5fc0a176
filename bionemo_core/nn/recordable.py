"""Which networks promise that their forward pass may be recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Forward = TypeVar("Forward", bound=Callable[..., Any])


def recordable(forward: Forward) -> Forward:
    """Mark a `forward` that a GPU may do again from a recording, a CUDA graph.

    It promises that for packed batches whose tensors have the same shapes, and whose `max_seqlen` are the same, the
    forward asks the device for the same work: what changes from batch to batch or from step to step it reads from
    tensors that stay where they are, never from the batch's other numbers or from Python's, and it does not wait for
    the device. A class that overrides `forward` makes the promise anew, or does not.
    """
    forward.recordable = True  # type: ignore[attr-defined]
    return forward


def is_recordable(network: nn.Module) -> bool:
    """Whether the network's own forward is so marked, and nothing in it says otherwise (`unrecordable`)."""
    if not getattr(type(network).forward, "recordable", False):
        return False
    return not any(getattr(module, "unrecordable", False) for module in network.modules())

"""Capturing what an encoder computes on its way to its last states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from bionemo_core.errors import ConfigError


def encoder_layers(network: nn.Module) -> Sequence[nn.Module]:
    """Return the transformer layers of a network's encoder, first to last.

    Raises:
        ConfigError: the network does not list them.
    """
    layers: Any = getattr(getattr(network, "encoder", network), "layers", None) or getattr(network, "layers", None)
    if not layers:
        raise ConfigError(
            f"{type(network).__name__} has no list of transformer `layers`, so only its last states can be used."
        )
    return list(layers)


@contextmanager
def capture_layers(network: nn.Module, numbers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Capture the states after some layers, [length, rows, hidden] each, in every pass within the block.

    Number 0 is the embedding, and number N the output of the N-th layer. The last layer is not captured: its states,
    after the final norm, are what the encoder returns.
    """
    layers = encoder_layers(network) if numbers else ()
    captured: dict[int, Tensor] = {}

    def capture_input(number: int) -> Any:
        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            captured[number] = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]

        return layers[number].register_forward_pre_hook(keep, with_kwargs=True)

    hooks = [capture_input(number) for number in numbers if number < len(layers)]
    try:
        yield captured
    finally:
        for hook in hooks:
            hook.remove()

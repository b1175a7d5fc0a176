"""Capturing what an encoder computes on its way to its last states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from bionemo_core.errors import ConfigError
from bionemo_core.nn.attention import SdpaCoreAttention
from bionemo_core.nn.relative import PackedBias
from bionemo_core.nn.residue_states import sequence_bounds

if TYPE_CHECKING:
    from bionemo_core.data.batches.batch import TokenBatch


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


class AttentionInput(NamedTuple):
    """What an attention layer is given, from which its probabilities are computed once more."""

    query: Tensor
    """Shape [length, rows, heads, width], rotated by position."""
    key: Tensor
    bias: Tensor | PackedBias | None
    scale: float

    def probabilities(self, batch: TokenBatch) -> Iterator[Tensor]:
        """Yield the attention probabilities of each sequence, terminal tokens included, float32 [heads, L, L]."""
        query, key = (x.transpose(0, 1).flatten(0, 1).transpose(0, 1).float() for x in (self.query, self.key))
        starts, lengths = sequence_bounds(batch)
        for row, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            tokens = slice(start, start + length)
            scores = query[:, tokens] @ key[:, tokens].transpose(-1, -2) * self.scale
            if isinstance(self.bias, PackedBias):
                scores = scores + self.bias.dense[0, :, :length, :length]
            elif self.bias is not None:
                scores = scores + self.bias[row % self.bias.shape[0], :, :length, :length]
            yield scores.softmax(-1)


def attention_layers(network: nn.Module) -> list[SdpaCoreAttention]:
    """Return the self attention of each layer of a network's encoder.

    Raises:
        ConfigError: a layer has another kind of attention, whose probabilities cannot be computed.
    """
    layers = encoder_layers(network)
    found = [getattr(getattr(layer, "self_attention", None), "core_attention", None) for layer in layers]
    attention = [one for one in found if isinstance(one, SdpaCoreAttention)]
    if len(attention) < len(layers):
        raise ConfigError(f"{type(network).__name__}: it has attention of its own, whose maps cannot be read.")
    return attention


@contextmanager
def capture_attention(network: nn.Module, receive: Callable[[int, AttentionInput], None]) -> Iterator[None]:
    """Call `receive` with the number of a layer, from 0, and its attention's input, in every pass within the block.

    The probabilities are computed once more, since no fast kernel returns them: it is slow, and for evaluation only.
    """

    def hook(number: int) -> Any:
        def keep(module: SdpaCoreAttention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            query, key = args[:2]
            scale = query.shape[-1] ** -0.5 if module.scale is None else module.scale
            receive(number, AttentionInput(query, key, kwargs.get("attention_bias"), scale))

        return keep

    attention = attention_layers(network)
    hooks = [one.register_forward_pre_hook(hook(number), with_kwargs=True) for number, one in enumerate(attention)]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()

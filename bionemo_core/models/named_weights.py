"""The weights of a network by name, and a fingerprint of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bionemo_core.checkpoint.shards import tensor_bytes
from bionemo_core.io.hashing import fingerprint_chunks
from bionemo_core.nn.missing_weights import missing_parts
from bionemo_core.nn.residue_states import encoder_network
from bionemo_core.parallel.transfer import persistent_buffers
from bionemo_core.parallel.weights import network_of

if TYPE_CHECKING:
    from bionemo_core.models.load import OpenedModel


def network_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and persistent buffers by name, without their autograd graphs."""
    return {name: tensor.detach() for name, tensor in _every_weight(network)}


def named_weights(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Return parameters and persistent buffers with their names, without those that a load did not fill."""
    missing = missing_parts(network)
    return [(name, tensor) for name, tensor in _every_weight(network) if not missing.cover(name)]


def _every_weight(network: nn.Module) -> list[tuple[str, Tensor]]:
    return [*network.named_parameters(), *persistent_buffers(network)]


@torch.no_grad()
def fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return a fingerprint of names, dtypes, shapes and values, 32 hexadecimal digits."""

    def chunks() -> Iterator[bytes | memoryview]:
        for name, tensor in sorted(tensors, key=lambda item: item[0]):
            yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
            yield tensor_bytes(tensor)

    return fingerprint_chunks(chunks())


def opened_fingerprint(opened: OpenedModel) -> str:
    """Return the fingerprint of the encoder weights of a model, before adapters are merged."""
    return fingerprint(named_weights(encoder_network(network_of(opened.module))))

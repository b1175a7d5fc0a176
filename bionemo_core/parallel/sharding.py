"""Data parallelism and mixed precision: by FSDP2 on several data-parallel ranks, by `HalfWeights` on one.

The same code runs on CPU and GPU. Parameters and optimizer state stay in float32, sharded over the data-parallel
ranks; layers compute in `dtype`; gradients are summed in float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.half_weights import HalfWeights

_METHODS = ("hidden_states", "logits", "encode", "decoder_logits", "decoder_loss", "start", "step")
"""Methods besides `forward` in which a network uses its weights."""


def needs_sharding(groups: ProcessGroups, dtype: torch.dtype) -> bool:
    """Return whether `shard` has an effect: it has none for one data-parallel rank that computes in float32."""
    return groups.data_size > 1 or dtype != torch.float32


def shard(network: nn.Module, groups: ProcessGroups, dtype: torch.dtype, device: torch.device) -> None:
    """Change `network` in place so that it computes in `dtype`, with parameters and optimizer state in float32.

    Over several data-parallel ranks the parameters are sharded, each of the `layers` separately and the rest together,
    and gradients become means over the ranks (gloo supports no other scaling). A single rank uses 16-bit copies.
    """
    if groups.data_size == 1:
        if hasattr(network, "_half_weights"):
            reshard(network)
        else:
            HalfWeights(network, dtype, _METHODS)
        return
    mesh = DeviceMesh.from_group(groups.data, device.type)
    # Inputs are not cast: rotary angles must stay float32, and hidden states already have the layers' dtype.
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for part in (*getattr(network, "layers", ()), network):
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for method in _METHODS:
        if hasattr(network, method):
            register_fsdp_forward_method(network, method)


def reduce_gradients_now(network: nn.Module, now: bool) -> None:
    """Set whether the next backward pass reduces gradients over ranks (`now`) or only accumulates them."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(now)
        network.set_is_last_backward(now)


def gather(network: nn.Module) -> None:
    """Gather the whole parameters of every part of a sharded network; they stay until `reshard`."""
    for part in _parts(network):
        if isinstance(part, HalfWeights):
            part.gather()
        else:
            part.unshard()


def reshard(network: nn.Module) -> None:
    """Free the whole parameters that a forward pass without a backward pass left gathered.

    Before this call `network.parameters()` returns the gathered copies, not the tensors that the optimizer updates.
    """
    for part in _parts(network):
        if isinstance(part, HalfWeights):
            part.release()
        else:
            part.reshard()


def _parts(network: nn.Module) -> Iterator[HalfWeights | FSDPModule]:
    half: HalfWeights | None = getattr(network, "_half_weights", None)
    if half is not None:
        yield half
        return
    yield from (module for module in network.modules() if isinstance(module, FSDPModule))

"""Data parallelism and mixed precision: by FSDP2 on several data-parallel ranks, by `HalfWeights` on one.

One code on CPU and GPU. Parameters and optimizer state stay in float32, sharded over the data-parallel ranks; layers
compute in `dtype`; gradients are summed in float32.
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
"""Methods beside `forward` in which a network computes."""


def needs_sharding(groups: ProcessGroups, dtype: torch.dtype) -> bool:
    """Whether `shard` has something to do: not where one data-parallel rank computes in float32."""
    return groups.data_size > 1 or dtype != torch.float32


def shard(network: nn.Module, groups: ProcessGroups, dtype: torch.dtype, device: torch.device) -> None:
    """Have `network` compute in `dtype`, in place, its parameters and optimizer state in float32.

    Over several data-parallel ranks they are sharded, each of the `layers` on its own and the rest together, and
    gradients come out as means over the ranks (gloo knows no other scaling). One rank has 16-bit copies.
    """
    if groups.data_size == 1:
        if hasattr(network, "_half_weights"):
            reshard(network)
        else:
            HalfWeights(network, dtype, _METHODS)
        return
    mesh = DeviceMesh.from_group(groups.data, device.type)
    # Inputs are not cast: rotary angles stay float32, and hidden states have the layers' dtype already.
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for part in (*getattr(network, "layers", ()), network):
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for method in _METHODS:
        if hasattr(network, method):
            register_fsdp_forward_method(network, method)


def reduce_gradients_now(network: nn.Module, now: bool) -> None:
    """Have the next backward pass reduce gradients over ranks, or only accumulate them."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(now)
        network.set_is_last_backward(now)


def gather(network: nn.Module) -> None:
    """Have every part of a sharded network hold its whole parameters, until `reshard`."""
    for part in _parts(network):
        if isinstance(part, HalfWeights):
            part.gather()
        else:
            part.unshard()


def reshard(network: nn.Module) -> None:
    """Free the whole parameters that a forward pass without a backward pass has gathered.

    Until then `network.parameters()` are the gathered copies, which the optimizer does not know.
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

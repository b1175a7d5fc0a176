"""Data parallelism and mixed precision by FSDP2: one code on CPU and GPU.

Parameters and optimizer state stay in float32, sharded over the data-parallel ranks; layers compute
in `dtype`; gradients are summed in float32.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from bionemo_core.parallel.groups import ProcessGroups


def needs_sharding(groups: ProcessGroups, dtype: torch.dtype) -> bool:
    """True unless one data-parallel rank computes in float32."""
    return groups.data_size > 1 or dtype != torch.float32


def shard(network: nn.Module, groups: ProcessGroups, dtype: torch.dtype, device: torch.device) -> None:
    """Shard `network` in place, each of its `layers` on its own and the rest together.

    On one data-parallel rank, where nothing is shared out, all of it is one part: each part costs the host some
    milliseconds a step, which small layers do not hide.

    Gradients come out as means over the data-parallel ranks (gloo knows no other scaling).
    """
    mesh = DeviceMesh.from_group(groups.data, device.type)
    # Inputs are not cast: rotary angles stay float32, and hidden states have the layers' dtype already.
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    layers = getattr(network, "layers", ()) if groups.data_size > 1 else ()
    for part in (*layers, network):
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for method in ("hidden_states", "logits", "encode", "decoder_logits", "decoder_loss", "start", "step"):
        if hasattr(network, method):
            register_fsdp_forward_method(network, method)


def reduce_gradients_now(network: nn.Module, now: bool) -> None:
    """Have the next backward pass reduce gradients over ranks, or only accumulate them."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(now)
        network.set_is_last_backward(now)


def gather(network: nn.Module) -> None:
    """Have every part of a sharded network hold its whole parameters, until `reshard`."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.unshard()


def reshard(network: nn.Module) -> None:
    """Free the whole parameters that a forward pass without a backward pass has gathered.

    Until then `network.parameters()` are the gathered copies, which the optimizer does not know.
    """
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()

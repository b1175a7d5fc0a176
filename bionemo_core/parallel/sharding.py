"""Data parallelism and mixed precision.

Several data-parallel ranks shard the weights by FSDP2, over all ranks or within groups of them, or hold all weights
each (`Replicas`). Ranks that hold all weights compute in 16 bit with `HalfWeights`. The same code runs on CPU and GPU.
Parameters and optimizer state stay in float32; layers compute in `dtype`.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from bionemo_core.parallel.groups import ProcessGroups
from bionemo_core.parallel.half_weights import HalfWeights
from bionemo_core.parallel.replicas import Replicas, copy_to_replicas
from bionemo_core.parallel.sharding_choice import Sharding

_METHODS = ("hidden_states", "logits", "encode", "decoder_logits", "decoder_loss", "start", "step")
"""Methods besides `forward` in which a network uses its weights."""

_PREFETCHED_LAYERS = 2
"""While a layer computes, the weights of this many layers after it are gathered."""


def shard(
    network: nn.Module,
    groups: ProcessGroups,
    dtype: torch.dtype,
    device: torch.device,
    sharding: Sharding | None = None,
    *,
    reduce_dtype: torch.dtype = torch.float32,
) -> None:
    """Change `network` in place so that it computes in `dtype`, on all data-parallel ranks.

    Gradients become means over the ranks, after the last backward pass of a step and `average_gradients`.

    Args:
        network: the network; each of its `layers` is sharded separately, and the rest together.
        groups: the process groups of the job.
        dtype: the dtype in which layers compute; parameters and optimizer state stay in float32.
        device: the device of this rank.
        sharding: how the data-parallel ranks share the weights; by default over all of them.
        reduce_dtype: the dtype in which gradients are summed over ranks.
    """
    if sharding is None:
        sharding = Sharding("full" if groups.data_size > 1 else "none", groups.data_size)
    if sharding.strategy == "none":
        if hasattr(network, "_half_weights"):
            reshard(network)
        elif dtype != torch.float32:
            HalfWeights(network, dtype, _METHODS)
        if groups.data_size > 1:
            Replicas(network, groups, reduce_dtype)
        return
    mesh = _mesh(groups, device, sharding)
    if mesh.ndim > 1:
        copy_to_replicas(network, groups.data)
    # Inputs are not cast: rotary angles must stay float32, and hidden states already have the layers' dtype.
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype,
        reduce_dtype=reduce_dtype,
        cast_forward_inputs=False,
    )
    layers = getattr(network, "layers", ())
    network._reduces_each_pass = sharding.reduces_each_pass  # type: ignore[assignment]  # as of `_half_weights`
    for part in (*layers, network):
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    # Weights that are prefetched must be used: in one stack of layers, and not in two of which a call may run one.
    for number, layer in enumerate(layers if isinstance(layers, nn.ModuleList) else ()):
        layer.set_modules_to_forward_prefetch(list(layers[number + 1 : number + 1 + _PREFETCHED_LAYERS]))  # type: ignore[operator]  # FSDP2 adds it
    for method in _METHODS:
        if isinstance(getattr(network, method, None), MethodType):  # a layer may have such a name, too
            register_fsdp_forward_method(network, method)


def _mesh(groups: ProcessGroups, device: torch.device, sharding: Sharding) -> DeviceMesh:
    """Return the data-parallel ranks as a mesh whose last axis is sharded, and whose first of two is replicated."""
    if sharding.strategy == "full":
        return DeviceMesh.from_group(groups.data, device.type)
    ranks = torch.tensor(dist.get_process_group_ranks(groups.data)).view(-1, sharding.shard_size)
    replica, place = divmod(groups.data_rank, sharding.shard_size)
    parts = [
        dist.new_group(members.tolist(), use_local_synchronization=True)
        for members in (ranks[:, place], ranks[replica])
    ]
    return DeviceMesh.from_group(parts, device.type, mesh=ranks, mesh_dim_names=("replicate", "shard"))


def average_gradients(network: nn.Module) -> None:
    """Average the gradients of a step that the backward pass has not averaged; FSDP2 has averaged all."""
    replicas: Replicas | None = getattr(network, "_replicas", None)
    if replicas is not None:
        replicas.average_gradients()


def reduce_gradients_now(network: nn.Module, now: bool) -> None:
    """Say whether the next backward pass is the last one of a step (`now`), which reduces gradients over ranks.

    The passes before it only add to the whole gradients of this rank, unless these take too much memory: see
    `Sharding.reduces_each_pass`. Gathered weights stay until the last pass, so that a step gathers them once.
    """
    replicas: Replicas | None = getattr(network, "_replicas", None)
    if replicas is not None:
        replicas.in_last_pass = now
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(now or getattr(network, "_reduces_each_pass", False))
        network.set_is_last_backward(now)
        network.set_reshard_after_backward(now)


def hold_weights(network: nn.Module) -> None:
    """Keep gathered weights until `reshard`, because several forward passes come before a backward pass."""
    half: HalfWeights | None = getattr(network, "_half_weights", None)
    if half is not None:
        half.held = True


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

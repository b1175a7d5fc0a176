"""The choice of how data-parallel ranks share the weights, from the size of the model and of a device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from bionemo_core.errors import ConfigError
from bionemo_core.machine import GIB

if TYPE_CHECKING:
    from torch import nn

ADAM_BYTES = 8.0
"""Bytes that Adam keeps of a parameter: two moments in float32."""

REPLICATED_SHARE = 0.25
"""Weights are replicated while they, their gradients and the optimizer take at most this share of a device."""


WHOLE_GRADIENTS_SHARE = 0.25
"""Ranks that share weights keep whole gradients until the end of a step while these take at most this share."""


class Sharding(NamedTuple):
    """How the data-parallel ranks share weights, gradients and optimizer state."""

    strategy: str
    """full: shard over all ranks. hybrid: shard within groups of `shard_size`. none: each rank has all."""
    shard_size: int
    """The number of ranks that share one copy."""
    reason: str = ""
    """Why it was chosen, for the plan; empty if there is only one data-parallel rank."""
    reduces_each_pass: bool = False
    """Whether gradients are reduced to shares after each micro batch, and not whole until the last one of a step."""


class SharedRanks(NamedTuple):
    """The data-parallel ranks among which the weights are shared."""

    size: int
    on_one_machine: int
    """How many of them are on one machine."""


def state_bytes(parameters: Iterable[nn.Parameter], optimizer_bytes: float, copy_bytes: int) -> float:
    """Return the bytes of weights, gradients and optimizer state; weights that are not trained have only themselves.

    Args:
        parameters: the parameters, in float32.
        optimizer_bytes: what the optimizer keeps of each trained parameter.
        copy_bytes: bytes of a number in the copies of 16-bit training; 0 if there are none.
    """
    whenever, trained = 4 + copy_bytes, 4 + optimizer_bytes
    return sum(one.numel() * (whenever + trained * one.requires_grad) for one in parameters)


def choose_sharding(
    wanted: str,
    shard_size: int | None,
    ranks: SharedRanks,
    needed: float,
    device_bytes: float,
    gradient_bytes: float = 0.0,
) -> Sharding:
    """Return how data-parallel ranks share the weights.

    Args:
        wanted: `parallel.sharding_strategy`.
        shard_size: `parallel.shard_size`.
        ranks: the data-parallel ranks.
        needed: bytes of all weights, gradients and optimizer state of one tensor-parallel rank.
        device_bytes: memory of the smallest device.
        gradient_bytes: bytes of the whole gradients of one tensor-parallel rank.

    Raises:
        ConfigError: `shard_size` does not divide the number of ranks.
    """
    sharding = _share_weights(wanted, shard_size, ranks, needed, device_bytes)
    if sharding.shard_size == 1 or holds_whole_gradients(gradient_bytes, device_bytes):
        return sharding
    why = f"; whole gradients take {gradient_bytes / GIB:,.2f} GiB, so they are reduced after each micro batch"
    return sharding._replace(reason=sharding.reason + why, reduces_each_pass=True)


def holds_whole_gradients(gradient_bytes: float, device_bytes: float) -> bool:
    """Return whether ranks that share weights have room for whole gradients until the last micro batch of a step."""
    return gradient_bytes <= WHOLE_GRADIENTS_SHARE * device_bytes


def _share_weights(
    wanted: str, shard_size: int | None, ranks: SharedRanks, needed: float, device_bytes: float
) -> Sharding:
    if ranks.size == 1:
        return Sharding("none", 1)
    group = _group_size(shard_size, ranks, must_divide=wanted == "hybrid")
    if wanted != "auto":
        size = {"full": ranks.size, "none": 1, "hybrid": group}[wanted]
        return _normal(size, ranks.size, f"parallel.sharding_strategy={wanted}")
    limit = REPLICATED_SHARE * device_bytes
    needs = f"weights, gradients and optimizer take {needed / GIB:,.2f} GiB"
    if needed <= limit:
        return Sharding("none", 1, f"{needs}, at most a quarter of a device ({limit / GIB:,.1f} GiB)")
    if group < ranks.size and needed / group <= limit:
        return _normal(group, ranks.size, f"{needs}, and a share of 1/{group} is at most a quarter of a device")
    return _normal(ranks.size, ranks.size, f"{needs}, more than a quarter of a device ({limit / GIB:,.1f} GiB)")


def _group_size(shard_size: int | None, ranks: SharedRanks, *, must_divide: bool) -> int:
    """Return how many ranks share one copy under `hybrid`."""
    if shard_size is not None:
        if ranks.size % shard_size:
            raise ConfigError(
                f"parallel.shard_size={shard_size} does not divide the {ranks.size} data-parallel ranks. Choose a "
                "divisor, or leave it out."
            )
        return shard_size
    if ranks.size % ranks.on_one_machine == 0:
        return ranks.on_one_machine
    if must_divide:
        raise ConfigError(
            f"parallel.sharding_strategy=hybrid: {ranks.size} data-parallel ranks do not divide into groups of the "
            f"{ranks.on_one_machine} on one machine. Set parallel.shard_size to a divisor of {ranks.size}."
        )
    return ranks.size


def _normal(size: int, ranks: int, reason: str) -> Sharding:
    strategy = "full" if size == ranks else "none" if size == 1 else "hybrid"
    return Sharding(strategy, size, reason)

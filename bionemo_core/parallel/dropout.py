"""Dropout seeds as a function of the position in a run, so that no generator state has to be saved.

Before each micro batch the default generator is seeded from (seed, step, data-parallel rank, micro
batch). Inside a tensor-parallel region each rank holds different heads; there a second stream replaces it,
whose seed also depends on the tensor-parallel rank. The stages of a pipeline share one stream: each goes on where the
stage before has ended, so that the numbers are those of one rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from bionemo_core.io.hashing import derive_seed

_region_seed: int = 0
_region_draws: int = 0


def _mix(*parts: int) -> int:
    seed = derive_seed(b"".join(part.to_bytes(8, "little", signed=True) for part in parts))
    return int.from_bytes(seed, "little") >> 1


def seed_micro_batch(seed: int, step: int, data_rank: int, micro_batch: int, tensor_rank: int = 0) -> None:
    """Seed this device's default generator for one forward pass."""
    global _region_seed, _region_draws
    _seed(_mix(seed, step, data_rank, micro_batch))
    _region_seed = _mix(seed, step, data_rank, micro_batch, tensor_rank + 1)
    _region_draws = 0


def _seed(value: int) -> None:
    """Do what `torch.manual_seed` does, without the stack trace that it records for each unused kind of device."""
    if torch.cuda.is_initialized():
        torch.default_generator.manual_seed(value)
        torch.cuda.manual_seed(value)
    else:
        torch.manual_seed(value)


@contextmanager
def tensor_parallel_stream(device: torch.device) -> Iterator[None]:
    """Draw from this tensor-parallel rank's own stream inside the block."""
    global _region_draws
    _region_draws += 1
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(_mix(_region_seed, _region_draws))
        yield


def dropout_state(device: torch.device) -> Tensor:
    """Return where this rank's streams are, as bytes on the CPU; another rank goes on from there."""
    generator = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
    return torch.cat((generator, torch.tensor([_region_draws]).view(torch.uint8)))


def go_on_from(state: Tensor, device: torch.device) -> None:
    """Draw on from the `dropout_state` of the rank that ran the layers before, which had the same micro batch."""
    global _region_draws
    generator, draws = state[:-8], state[-8:]
    if device.type == "cuda":
        torch.cuda.set_rng_state(generator.clone(), device)
    else:
        torch.set_rng_state(generator.clone())
    _region_draws = int(draws.clone().view(torch.int64).item())


def replay_region() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return contexts for a computation and for its repetition, which draws the same from this rank's own stream."""
    return nullcontext(), _region_at(_region_seed, _region_draws)


@contextmanager
def _region_at(seed: int, draws: int) -> Iterator[None]:
    global _region_seed, _region_draws
    before = _region_seed, _region_draws
    _region_seed, _region_draws = seed, draws
    try:
        yield
    finally:
        _region_seed, _region_draws = before

"""The process groups of a job: one object that everything parallel is handed explicitly."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.process_groups_config import ProcessGroupCollection

from bionemo_core.errors import ConfigError


@dataclass(frozen=True)
class ProcessGroups:
    """The tensor- and data-parallel groups of this rank.

    Ranks of one tensor-parallel group are neighbours, as megatron-core orders them.
    """

    tensor: dist.ProcessGroup
    data: dist.ProcessGroup
    collection: ProcessGroupCollection
    """The same groups in the form that megatron-core's modules take."""

    @cached_property
    def tensor_rank(self) -> int:
        return self.tensor.rank()

    @cached_property
    def tensor_size(self) -> int:
        return self.tensor.size()

    @cached_property
    def data_rank(self) -> int:
        return self.data.rank()

    @cached_property
    def data_size(self) -> int:
        return self.data.size()

    def sum_over_data(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` summed in place over the data-parallel ranks."""
        if self.data_size > 1:
            dist.all_reduce(tensor, group=self.data)
        return tensor


_current: ProcessGroups | None = None


def start_groups(tensor_model_parallel_size: int = 1) -> ProcessGroups:
    """Start the process groups for this layout, or return those that are running.

    Without a running process group a single-process one is started, so that models can be built
    and used in a plain Python session.

    Raises:
        ConfigError: the layout does not divide the world, or differs from the running one.
    """
    global _current
    if not dist.is_initialized():
        store = dist.HashStore()  # type: ignore[attr-defined]  # public, but torch has no __all__ that says so
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        _current = None
    if _current is None:
        _current = _make_groups(tensor_model_parallel_size)
    if _current.tensor_size != tensor_model_parallel_size:
        raise ConfigError(
            f"tensor_model_parallel_size={tensor_model_parallel_size} was asked for, but this process "
            f"already runs with {_current.tensor_size}: one layout per process."
        )
    return _current


def stop_groups() -> None:
    """End the running groups, so that another layout can be started in this process."""
    global _current
    _current = None
    parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()


def _make_groups(tensor_size: int) -> ProcessGroups:
    world = dist.get_world_size()
    if world % tensor_size:
        raise ConfigError(
            f"parallel.tensor_model_parallel_size={tensor_size} does not divide the {world} processes of this job."
        )
    if tensor_size > 1:  # lets the all-reduce of input gradients overlap; megatron-core asks for it
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    if parallel_state.is_initialized():
        parallel_state.destroy_model_parallel()
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=tensor_size, create_gloo_process_groups=False)
    return ProcessGroups(
        tensor=parallel_state.get_tensor_model_parallel_group(),
        data=parallel_state.get_data_parallel_group(),
        collection=ProcessGroupCollection.use_mpu_process_groups(),
    )


_LOST = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "Broken pipe")


def lost_peer(error: RuntimeError) -> bool:
    """Return whether `error` is what a collective raises when another rank is gone or silent."""
    if isinstance(error, (dist.DistBackendError, dist.DistNetworkError)):
        return True
    return any(sign in str(error) for sign in _LOST)

"""The process groups of a job, as one object that is passed explicitly to all parallel code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

import torch
import torch.distributed as dist

from bionemo_core.errors import ConfigError
from bionemo_core.megatron import ProcessGroupCollection, parallel_state


@dataclass(frozen=True)
class Stage:
    """A stage of a pipeline: a rank that holds some of the layers."""

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.index == 0

    @property
    def is_last(self) -> bool:
        return self.index == self.count - 1


@dataclass(frozen=True)
class ProcessGroups:
    """The tensor-, data- and pipeline-parallel groups of this rank.

    As in megatron-core the ranks of one tensor-parallel group have consecutive numbers, then come those of one
    data-parallel group, and the pipeline's stages are farthest apart.
    """

    tensor: dist.ProcessGroup
    data: dist.ProcessGroup
    data_hosts: dist.ProcessGroup
    """The data-parallel ranks, for tensors on the CPU."""
    pipeline: dist.ProcessGroup
    """The stages of one pipeline, in their order."""
    pipeline_ends: dist.ProcessGroup | None
    """The first and the last stage of the pipeline; None on a stage between them."""
    pipeline_hosts: dist.ProcessGroup
    """The stages of one pipeline, for tensors on the CPU."""
    collection: ProcessGroupCollection
    """The same groups in the form that megatron-core's modules accept."""

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

    @cached_property
    def stage(self) -> Stage:
        """The pipeline stage of this rank."""
        return Stage(self.pipeline.rank(), self.pipeline.size())

    def sum_over_stages(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum `tensor` in place over the stages of this rank's pipeline, and return it."""
        if self.stage.count > 1:
            dist.all_reduce(tensor, group=self.pipeline)
        return tensor

    def sum_over_data(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum `tensor` in place over the data-parallel ranks, and return it. A tensor on the CPU waits for no GPU."""
        if self.data_size > 1:
            dist.all_reduce(tensor, group=self.data if tensor.is_cuda else self.data_hosts)
        return tensor

    def any_over_tensor(self, flag: bool, device: torch.device) -> bool:
        """Return whether `flag` is true on any tensor-parallel rank; all of them must call it."""
        if self.tensor_size == 1:
            return flag
        found = torch.tensor(int(flag), device=device)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.tensor)
        return bool(found.item())


_current: ProcessGroups | None = None


def start_groups(tensor_model_parallel_size: int = 1, pipeline_model_parallel_size: int | None = None) -> ProcessGroups:
    """Return the process groups for this layout; the first call creates them.

    Without a running process group, start one with a single process, so that models can be built
    and used in a plain Python session.

    Args:
        tensor_model_parallel_size: ranks that share each layer.
        pipeline_model_parallel_size: stages of the pipeline; None: those that run, else one.

    Raises:
        ConfigError: the layout does not divide the number of processes, or differs from the running one.
    """
    global _current
    if not dist.is_initialized():
        store = dist.HashStore()  # type: ignore[attr-defined]  # public, but torch has no __all__ that says so
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        _current = None
    if _current is None:
        _current = _make_groups(tensor_model_parallel_size, pipeline_model_parallel_size or 1)
    running = {
        "tensor_model_parallel_size": (tensor_model_parallel_size, _current.tensor_size),
        "pipeline_model_parallel_size": (pipeline_model_parallel_size, _current.stage.count),
    }
    for key, (requested, runs) in running.items():
        if requested not in (None, runs):
            raise ConfigError(
                f"{key}={requested} was requested, but this process already runs with {runs}. Use one layout per "
                "process: start another process, or call stop_groups() first."
            )
    return _current


def stop_groups() -> None:
    """End the running groups, so that another layout can be started in this process."""
    global _current
    _current = None
    parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()


def _make_groups(tensor_size: int, pipeline_size: int) -> ProcessGroups:
    world = dist.get_world_size()
    if world % (tensor_size * pipeline_size):
        stages = f" x parallel.pipeline_model_parallel_size={pipeline_size}" if pipeline_size > 1 else ""
        raise ConfigError(
            f"parallel.tensor_model_parallel_size={tensor_size}{stages} does not divide the {world} processes of this "
            "job. Choose a divisor, or change the number of devices."
        )
    if tensor_size > 1:  # lets the all-reduce of input gradients overlap; megatron-core requires it
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    if parallel_state.is_initialized():
        parallel_state.destroy_model_parallel()
    with _communicators_made_when_used():
        parallel_state.initialize_model_parallel(
            tensor_model_parallel_size=tensor_size,
            pipeline_model_parallel_size=pipeline_size,
            create_gloo_process_groups=False,
        )
    pipeline = parallel_state.get_pipeline_model_parallel_group()
    stage = Stage(pipeline.rank(), pipeline.size())
    data = parallel_state.get_data_parallel_group()
    numbers = torch.arange(world).view(pipeline_size, -1, tensor_size)
    return ProcessGroups(
        tensor=parallel_state.get_tensor_model_parallel_group(),
        data=data,
        data_hosts=_group_of_hosts(data, numbers.movedim(1, -1)),
        pipeline=pipeline,
        pipeline_ends=parallel_state.get_embedding_group() if stage.is_first or stage.is_last else None,
        pipeline_hosts=_group_of_hosts(pipeline, numbers.movedim(0, -1)),
        collection=ProcessGroupCollection.use_mpu_process_groups(),
    )


@contextmanager
def _communicators_made_when_used() -> Iterator[None]:
    """Give the groups that the block makes their NCCL communicators at their first collective, if there is one process.

    Lightning binds the job to its device, so torch makes a communicator for each group at once, also for those that a
    single process never uses. Each takes half a second to end, those of megatron-core's groups seven.
    """
    world = dist.group.WORLD
    if world is None or dist.get_world_size() > 1:
        yield
        return
    device, world.bound_device_id = world.bound_device_id, None
    try:
        yield
    finally:
        world.bound_device_id = device


def _group_of_hosts(group: dist.ProcessGroup, numbers: torch.Tensor) -> dist.ProcessGroup:
    """Return a group of the same ranks that exchanges tensors on the CPU.

    Every rank makes the groups of all ranks, in one order, and keeps its own: a group that only its members made would
    get a name that depends on how many groups each of them is in, and the first stage of a pipeline is in one more.

    Args:
        group: the group of this rank.
        numbers: the numbers of all ranks; each last dimension is one group.
    """
    if group.size() == 1:
        return group
    own = dist.get_process_group_ranks(group)
    made = {tuple(ranks): dist.new_group(ranks, backend="gloo") for ranks in numbers.flatten(0, -2).tolist()}
    return made[tuple(own)]


def group_of_all_hosts(timeout_s: float) -> dist.ProcessGroup | None:
    """Return a group of all ranks that exchanges tensors on the CPU; None: the default group does. All ranks call it.

    Args:
        timeout_s: how long a rank of a new group waits for the others.
    """
    if dist.get_backend() == "gloo":
        return None
    return dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))


_LOST_PEER_MESSAGES = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "Broken pipe")


def is_lost_peer(error: RuntimeError) -> bool:
    """Return whether `error` means that another rank has ended or does not answer."""
    if isinstance(error, (dist.DistBackendError, dist.DistNetworkError)):
        return True
    return any(sign in str(error) for sign in _LOST_PEER_MESSAGES)

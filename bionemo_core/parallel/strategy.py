"""The Lightning strategy: megatron-core's process groups, sharding, and this framework's checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bionemo_core.checkpoint.background import BackgroundSaver, num_bytes
from bionemo_core.checkpoint.blocks import TensorPart
from bionemo_core.checkpoint.load import CheckpointReader, open_checkpoint
from bionemo_core.checkpoint.rank_agreement import RankPeers, SingleProcess
from bionemo_core.checkpoint.save import save
from bionemo_core.config.recompute_options import Recompute
from bionemo_core.errors import ConfigError, NonFiniteError
from bionemo_core.machine import GIB, memory_free_bytes
from bionemo_core.parallel.compiled_layers import compile_layers
from bionemo_core.parallel.float8 import use_float8
from bionemo_core.parallel.groups import ProcessGroups, start_groups
from bionemo_core.parallel.layout import ParameterLayout, read_layouts
from bionemo_core.parallel.optimizer_state import (
    NUMBERS,
    STEPS,
    TENSORS,
    load_optimizer,
    optimizer_parts,
    other_numbers,
    tensor_names,
    update_count,
)
from bionemo_core.parallel.pipeline.stages import StagePlan, keep_stage, plan_stages, stage_layouts
from bionemo_core.parallel.recompute import recompute_layers
from bionemo_core.parallel.rendezvous import START_TIMEOUT_S, RankLauncher, wait_for_ranks
from bionemo_core.parallel.sequence import split_sequences
from bionemo_core.parallel.sharding import reshard, shard
from bionemo_core.parallel.sharding_choice import ADAM_BYTES, Sharding, SharedRanks, choose_sharding, state_bytes
from bionemo_core.parallel.weights import load_weights, network_of, weight_parts
from bionemo_core.plurals import format_count

_MOST_OF_MEMORY = 0.8
"""The share of the free memory that the copy of a save may take."""

log = logging.getLogger("bionemo")


class MegatronStrategy(DDPStrategy):
    """One process per device, with tensor, pipeline and data parallelism.

    A module with a `network` attribute is sharded, and each rank saves its own parts of weights and optimizer state.
    Any other `LightningModule` uses Lightning's own data parallelism, and the state of its optimizer is saved as
    Lightning returns it.

    Args:
        tensor_model_parallel_size: ranks that share one copy of the model.
        dtype: the dtype in which layers compute.
        reduce_dtype: the dtype in which gradients are summed over ranks.
        sharding_strategy: how data-parallel ranks share weights and optimizer state, see `choose_sharding`.
        shard_size: with hybrid and auto, the ranks that share one copy; None: those of one machine.
        device_bytes: the memory of the device, with which `auto` compares the size of the model.
        compile_layers: compile each transformer layer.
        use_cuda_graphs: run forward and backward passes as CUDA graphs where possible.
        recompute: which activations are computed again in the backward pass.
        sequence_parallel: split the tokens between the layers over the tensor-parallel ranks.
        timeout_s: how long a rank waits for the others.
        pipeline_model_parallel_size: stages of the pipeline, each with a part of the layers.
        fp8_recipe: how linear layers are scaled to multiply in float8; None: they do not.
        async_save: save in the background where the caller of a save allows it.
        optimizer_bytes: what the optimizer keeps of a parameter, with which `auto` knows the size of the state.
    """

    def __init__(
        self,
        tensor_model_parallel_size: int = 1,
        dtype: torch.dtype = torch.float32,
        compile_layers: bool = False,
        use_cuda_graphs: bool = False,
        timeout_s: float = 600.0,
        reduce_dtype: torch.dtype = torch.float32,
        sharding_strategy: str = "full",
        shard_size: int | None = None,
        device_bytes: float = 0.0,
        recompute: Recompute | None = None,
        sequence_parallel: bool = False,
        pipeline_model_parallel_size: int = 1,
        fp8_recipe: str | None = None,
        async_save: bool = True,
        optimizer_bytes: float = ADAM_BYTES,
        **kwargs: Any,
    ) -> None:
        super().__init__(timeout=timedelta(seconds=timeout_s), **kwargs)
        self._timeout_s = timeout_s
        self.tensor_model_parallel_size = tensor_model_parallel_size
        self.pipeline_model_parallel_size = pipeline_model_parallel_size
        self.stages: StagePlan | None = None
        """What each stage of the pipeline holds; None without a pipeline."""
        self.dtype = dtype
        self.compute_dtype = torch.float32
        """The dtype of hidden states now: `dtype` once the network is set up for training."""
        self.compile_layers = compile_layers
        self.use_cuda_graphs = use_cuda_graphs
        self.recompute = recompute or Recompute()
        self.sequence_parallel = sequence_parallel
        self.fp8_recipe = fp8_recipe
        self.facts: dict[str, Any] = {}
        """Plain values that are written into each checkpoint's manifest."""
        self.layouts: dict[str, ParameterLayout] = {}
        self.reduce_dtype = reduce_dtype
        self._wanted_sharding = sharding_strategy, shard_size
        self._device_bytes = device_bytes
        self._sharding: Sharding | None = None
        self._reader: CheckpointReader | None = None
        self.async_save = async_save
        self.optimizer_bytes = optimizer_bytes
        self._saves_beside_training: bool | None = None
        self._save_group: dist.ProcessGroup | None = None
        """All ranks, for saves alone: a thread of each rank uses it while training uses the other groups."""
        self._saver: BackgroundSaver | None = None
        """What may be saving in the background."""

    @property
    def uses_cuda_graphs(self) -> bool:
        """Whether passes run as CUDA graphs.

        Without compiled layers there are too many shapes, and 32-bit attention synchronises with the GPU. A
        recomputation reads the state of the generator of random numbers, which no capture allows.
        """
        return self.use_cuda_graphs and self.compile_layers and self.dtype.itemsize < 4 and not self.recompute.any

    @property
    def groups(self) -> ProcessGroups:
        """The process groups of this job; available once the environment is set up."""
        return start_groups(self.tensor_model_parallel_size, self.pipeline_model_parallel_size)

    @property
    def network(self) -> nn.Module:
        """The module that holds the parameters, without Lightning's wrapper."""
        module = self.lightning_module
        assert module is not None
        return network_of(module)

    @property
    def _saves_parts(self) -> bool:
        return hasattr(self.lightning_module, "network")

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = RankLauncher(self.cluster_environment, self.num_processes, self.num_nodes)

    def setup_distributed(self) -> None:
        """Start the process groups if they do not run yet.

        Raises:
            NetworkError: not all ranks came.
        """
        if not dist.is_initialized():
            self.set_world_ranks()
            assert self.cluster_environment is not None
            wait_for_ranks(self.cluster_environment, self.num_nodes, min(self._timeout_s, START_TIMEOUT_S))
            super().setup_distributed()
        else:
            self.set_world_ranks()
        start_groups(self.tensor_model_parallel_size, self.pipeline_model_parallel_size)
        if dist.get_world_size() > 1:
            self._save_group = dist.new_group(backend="gloo", timeout=timedelta(seconds=self._timeout_s))

    def decide_stages(self, module: nn.Module) -> StagePlan | None:
        """Return how the stages of the pipeline share the weights of `module`; None without a pipeline.

        Raises:
            ConfigError: the module cannot be split into that many stages.
        """
        if self.pipeline_model_parallel_size > 1 and self.stages is None:
            if getattr(module, "probes", ()):
                raise ConfigError(
                    f"parallel.pipeline_model_parallel_size={self.pipeline_model_parallel_size}: the model has metrics "
                    "of its own, which need the whole network on each rank. Leave it out."
                )
            network = network_of(module)
            self.stages = plan_stages(network, self.pipeline_model_parallel_size)
            self.layouts = stage_layouts(read_layouts(network, self.groups), self.stages, self.groups.stage)
        return self.stages

    def model_to_device(self) -> None:
        """Drop what other stages of the pipeline hold, and move the rest to the device."""
        module = self.lightning_module
        assert module is not None
        stages = self.decide_stages(module)
        if stages is not None and getattr(self.network, "stage", None) != self.groups.stage:
            keep_stage(self.network, stages, self.groups.stage)
        super().model_to_device()
        if self._saves_parts:
            # Otherwise Lightning would copy rank 0's weights to all ranks before a test; each may have its own part.
            kept = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, kept)

    def decide_sharding(self, module: nn.Module) -> Sharding:
        """Return how the data-parallel ranks share the weights of `module`; all ranks must call it together.

        Raises:
            ConfigError: the ranks do not divide as requested, or the module can only be replicated.
        """
        if self._sharding is None:
            self._sharding = self._choose_sharding(module)
        return self._sharding

    def _choose_sharding(self, module: nn.Module) -> Sharding:
        wanted, shard_size = self._wanted_sharding
        groups = self.groups
        if not hasattr(module, "network"):
            if wanted in ("full", "hybrid") and groups.data_size > 1 and self._device_bytes:
                raise ConfigError(
                    f"parallel.sharding_strategy={wanted}: this model is a LightningModule without a `network`, which "
                    "Lightning replicates. Use parallel.sharding_strategy=none."
                )
            return Sharding("none", 1, "a LightningModule without a `network`" if groups.data_size > 1 else "")
        smallest = torch.tensor(self._device_bytes, dtype=torch.float64, device=self.root_device)
        if dist.get_world_size() > 1:
            dist.all_reduce(smallest, dist.ReduceOp.MIN)
        copies = self.dtype.itemsize if self.dtype != torch.float32 else 0
        stages = self.decide_stages(module)
        network = network_of(module)
        state = state_bytes(network.parameters(), self.optimizer_bytes, copies)
        trained = sum(one.numel() for one in network.parameters() if one.requires_grad)
        if stages:  # all of whose parameters are trained
            trained = max(stages.parameters)
            state = trained * (8 + self.optimizer_bytes + copies)
        local = max(1, dist.get_world_size() // self.num_nodes // groups.tensor_size)
        ranks = SharedRanks(groups.data_size, min(local, groups.data_size))
        gradients = trained * self.reduce_dtype.itemsize
        return choose_sharding(wanted, shard_size, ranks, state, smallest.item(), gradients)

    def configure_ddp(self) -> None:
        """Compile and shard the network; wrap any other `LightningModule` for data parallelism."""
        module = self.lightning_module
        assert module is not None
        sharding = self.decide_sharding(module)
        if self.stages is None:
            self.layouts = read_layouts(self.network, self.groups)
        if self.sequence_parallel:
            split_sequences(self.network)
        if self.fp8_recipe is not None:
            use_float8(self.network, self.fp8_recipe, self.root_device)
        recompute_layers(self.network, self.recompute, compiled=self.compile_layers)
        if not self._saves_parts:
            if self.groups.data_size > 1:
                super().configure_ddp()
            return
        if self.compile_layers:
            compile_layers(self.network)
        shard(self.network, self.groups, self.dtype, self.root_device, sharding, reduce_dtype=self.reduce_dtype)
        self.compute_dtype = self.dtype

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Whether to restore after set-up: always, since the sharded parameters exist only then."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return nothing: weights are saved as tensor parts, not in Lightning's dict."""
        return {}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return nothing for a sharded module, whose optimizer state is tensor parts; else the optimizer's state."""
        return {} if self._saves_parts else optimizer.state_dict()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Publish the checkpoint of this step below the folder `filepath`.

        Args:
            checkpoint: the state of the run, without weights and optimizer.
            filepath: the folder.
            storage_options: a `BackgroundSaver` that writes while training goes on; None: return once it is written.
        """
        reshard(self.network)
        step = checkpoint["global_step"]
        self._check_finite(step)
        checkpoint[STEPS] = max(map(update_count, self.optimizers), default=0.0)
        checkpoint |= self._optimizer_facts()
        seen = checkpoint.get("consumed_samples", 0)
        # The group of a single process may be NCCL's, whose calls in a thread would spoil the capture of a CUDA graph.
        peers = RankPeers(self._save_group) if dist.get_world_size() > 1 else SingleProcess()
        write = partial(save, Path(filepath), step, peers=peers, facts=self.facts, consumed_samples=seen)
        if isinstance(storage_options, BackgroundSaver):
            self._saver = storage_options
            storage_options.save(write, self._parts(), checkpoint, wait=not self._may_save_beside_training(checkpoint))
            return
        if self._saver is not None:
            self._saver.wait()  # one save at a time in the group
        write(self._parts(), checkpoint)

    def _may_save_beside_training(self, state: Mapping[str, Any]) -> bool:
        """Return whether every rank may save in the background; decided at the first save, by all ranks together."""
        if self._saves_beside_training is None:
            needed = num_bytes([*self._parts(), state])
            free = memory_free_bytes() / max(1, self.num_processes)
            refused = self.async_save and self._sum_over_ranks([torch.tensor(int(needed > _MOST_OF_MEMORY * free))])
            if refused:
                log.warning(
                    "checkpoint.async_save: a copy of the state takes %.1f GiB of this machine's memory for each rank, "
                    "and %.1f GiB are free. Training stops while a checkpoint is saved.",
                    needed / GIB,
                    free / GIB,
                )
            self._saves_beside_training = self.async_save and not refused
        return self._saves_beside_training

    def _parts(self) -> Iterator[TensorPart]:
        yield from weight_parts(self.network, self.layouts, self.groups)
        for optimizer in self.optimizers if self._saves_parts else ():
            yield from optimizer_parts(self.network, self.layouts, self.groups, optimizer)

    def _optimizer_facts(self) -> dict[str, Any]:
        """Return the names of the optimizer's tensors, and its numbers, of all stages of the pipeline."""
        optimizers = self.optimizers if self._saves_parts else ()
        names = [name for optimizer in optimizers for name in tensor_names(self.network, optimizer)]
        numbers: dict[str, Any] = {}
        for optimizer in optimizers:
            numbers |= other_numbers(self.network, optimizer)
        gathered: list[Any] = [(names, numbers)] * self.groups.stage.count
        if len(gathered) > 1:
            dist.all_gather_object(gathered, (names, numbers), group=self.groups.pipeline_hosts)
        names = list(dict.fromkeys(name for own_names, _ in gathered for name in own_names))
        numbers = {name: values for _, own_numbers in gathered for name, values in own_numbers.items()}
        return {TENSORS: names, **({NUMBERS: numbers} if numbers else {})}

    def _check_finite(self, step: int) -> None:
        """Check, over all ranks, that no value to be saved is a NaN or an infinity.

        Raises:
            NonFiniteError: on every rank, if any rank holds such a value.
        """
        tensors = [part.tensor for part in self._parts() if part.tensor.is_floating_point() and part.tensor.numel()]
        if not self._sum_over_ranks(has_non_finite(tensor) for tensor in tensors):
            return
        bad = self._sum_over_ranks((~torch.isfinite(tensor)).sum() for tensor in tensors)
        raise NonFiniteError(
            f"checkpoint: after step {step} the weights or the optimizer state contain {format_count(bad, 'value')} "
            "that are not finite. Nothing was saved. Lower optim.lr, then resume from the newest checkpoint."
        )

    def _sum_over_ranks(self, values: Iterable[torch.Tensor]) -> int:
        """Return the sum of scalars of all ranks; all of them must call it."""
        total = torch.zeros((), dtype=torch.int64, device=self.root_device)
        for value in values:
            total += value
        if dist.get_world_size() > 1:
            dist.all_reduce(total)
        return int(total.item())

    def resume_from(self, reader: CheckpointReader) -> None:
        """Use this open, verified checkpoint when Lightning asks for the one in its folder."""
        self._reader = reader

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Return Lightning's dict of a checkpoint: the states of loops and callbacks."""
        if self._reader is None or self._reader.folder != Path(checkpoint_path):
            self._reader = open_checkpoint(Path(checkpoint_path))
        return dict(self._reader.state)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Read this rank's part of the weights."""
        assert self._reader is not None
        reshard(self.network)
        load_weights(self.network, self.layouts, self.groups, self._reader)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Read this rank's part of the optimizer's state."""
        assert self._reader is not None
        if self._saves_parts:
            for optimizer in self.optimizers:
                load_optimizer(self.network, self.layouts, self.groups, optimizer, self._reader)
            return
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)


def strategy_of(trainer: pl.Trainer) -> MegatronStrategy:
    """Return the strategy of a run's trainer as a `MegatronStrategy`."""
    strategy = trainer.strategy
    assert isinstance(strategy, MegatronStrategy), f"expected a MegatronStrategy, got {type(strategy).__name__}"
    return strategy


def has_non_finite(tensor: torch.Tensor) -> torch.Tensor:
    """Return whether a value of a tensor is not finite; its extremes show that, without a copy of the tensor."""
    lowest, highest = torch.aminmax(tensor)
    return ~(torch.isfinite(lowest) & torch.isfinite(highest))

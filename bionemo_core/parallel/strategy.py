"""megatron-core's groups, sharding and our checkpoints under Lightning's trainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bionemo_core.checkpoint.blocks import TensorPart
from bionemo_core.checkpoint.load import CheckpointReader, open_checkpoint
from bionemo_core.checkpoint.rank_agreement import Disagreement
from bionemo_core.checkpoint.save import save
from bionemo_core.errors import NetworkError, NonFiniteError
from bionemo_core.parallel.groups import ProcessGroups, start_groups
from bionemo_core.parallel.layout import ParameterLayout, read_layouts
from bionemo_core.parallel.sharding import needs_sharding, reshard, shard
from bionemo_core.parallel.weights import adam_pieces, adam_steps, load_adam, load_weights, weight_pieces

_MOST_COMPILED = 64


class MegatronStrategy(DDPStrategy):
    """One process per device, split by tensor and data parallelism.

    A module with a `network` attribute is sharded and saved in pieces, its optimizer being AdamW; any
    other `LightningModule` goes through Lightning's own data parallelism, and its optimizer's state is
    saved as Lightning has it.

    Args:
        tensor_model_parallel_size: ranks that share one copy of the model.
        dtype: what layers compute in.
        compile_layers: compile each transformer layer.
        record_passes: record forward and backward passes as CUDA graphs, where that can be.
        timeout_s: how long a rank waits for the others.
    """

    def __init__(
        self,
        tensor_model_parallel_size: int = 1,
        dtype: torch.dtype = torch.float32,
        compile_layers: bool = False,
        record_passes: bool = False,
        timeout_s: float = 600.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(timeout=timedelta(seconds=timeout_s), **kwargs)
        self.tensor_model_parallel_size = tensor_model_parallel_size
        self.dtype = dtype
        self.compile_layers = compile_layers
        self.record_passes = record_passes
        self.facts: dict[str, Any] = {}
        """Plain values written into each checkpoint's manifest."""
        self.layouts: dict[str, ParameterLayout] = {}
        self._reader: CheckpointReader | None = None

    @property
    def records_passes(self) -> bool:
        """Whether to record passes: without compiled layers shapes are not few, and in 32 bit attention waits."""
        return self.record_passes and self.compile_layers and self.dtype.itemsize < 4

    @property
    def groups(self) -> ProcessGroups:
        """The groups of this job; available once the environment is set up."""
        return start_groups(self.tensor_model_parallel_size)

    @property
    def network(self) -> nn.Module:
        """What holds the parameters, under whatever Lightning wrapped around it."""
        module = self.lightning_module
        assert module is not None
        return getattr(module, "network", module)

    @property
    def _in_pieces(self) -> bool:
        return hasattr(self.lightning_module, "network")

    def setup_distributed(self) -> None:
        """Start the process groups, unless an earlier call has."""
        if not dist.is_initialized():
            super().setup_distributed()
        else:
            self.set_world_ranks()
        start_groups(self.tensor_model_parallel_size)

    def configure_ddp(self) -> None:
        """Compile and shard the network, or wrap a foreign module for data parallelism."""
        self.layouts = read_layouts(self.network, self.groups)
        if not self._in_pieces:
            if self.groups.data_size > 1:
                super().configure_ddp()
            return
        if self.compile_layers:
            compile_layers(self.network)
        if needs_sharding(self.groups, self.dtype):
            shard(self.network, self.groups, self.dtype, self.root_device)
            # A test after the training would have Lightning copy rank 0's weights to all; here each has its own part.
            module = self.lightning_module
            kept = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, kept)

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Pieces are read into the sharded parameters, which exist only after set-up."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Nothing: weights travel as pieces, not in Lightning's dict."""
        return {}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Nothing for AdamW, whose moments travel as pieces; the whole state of a foreign optimizer."""
        return {} if self._in_pieces else optimizer.state_dict()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Publish the checkpoint of this step below the folder `filepath`."""
        reshard(self.network)
        step = checkpoint["global_step"]
        self._refuse_non_finite(step)
        checkpoint["adam_steps"] = max(map(adam_steps, self.optimizers), default=0.0)
        seen = checkpoint.get("consumed_samples", 0)
        save(
            Path(filepath), step, self._pieces(), checkpoint, peers=RankPeers(), facts=self.facts, consumed_samples=seen
        )

    def _pieces(self) -> Iterator[TensorPart]:
        yield from weight_pieces(self.network, self.layouts, self.groups)
        for optimizer in self.optimizers if self._in_pieces else ():
            yield from adam_pieces(self.network, self.layouts, self.groups, optimizer)

    def _refuse_non_finite(self, step: int) -> None:
        """Stop on every rank if any holds a NaN or an infinity: nothing non-finite is published."""
        tensors = [piece.tensor for piece in self._pieces() if piece.tensor.is_floating_point()]
        bad = torch.zeros((), dtype=torch.int64, device=self.root_device)
        for tensor in tensors:
            bad += (~torch.isfinite(tensor)).sum()
        if dist.get_world_size() > 1:
            dist.all_reduce(bad)
        if bad.item():
            raise NonFiniteError(
                f"checkpoint: after step {step} the weights or optimizer state hold {int(bad.item()):,} values that "
                "are not finite; nothing was saved. Lower optim.lr, then resume from the newest checkpoint."
            )

    def resume_from(self, reader: CheckpointReader) -> None:
        """Use this open, verified checkpoint when Lightning asks for the one in its folder."""
        self._reader = reader

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Lightning's dict of a checkpoint: loops and callbacks."""
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
        if self._in_pieces:
            for optimizer in self.optimizers:
                load_adam(self.network, self.layouts, self.groups, optimizer, self._reader)
            return
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)


def compile_layers(network: nn.Module) -> None:
    """Compile each of the network's `layers`, for the shapes that it meets.

    All layers share the code of megatron-core's, and so the number of times that it may be compiled: for each kind of
    layer, in training and evaluation, and for each number of tokens and segments under static shapes.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_COMPILED)  # type: ignore[attr-defined]
    for layer in getattr(network, "layers", ()):
        layer.compile(dynamic=False)


def strategy_of(trainer: pl.Trainer) -> MegatronStrategy:
    """Return the strategy of a run's trainer, by its own type."""
    strategy = trainer.strategy
    assert isinstance(strategy, MegatronStrategy), f"{type(strategy).__name__} does not know process groups"
    return strategy


class RankPeers:
    """The ranks of a running job, for the save protocol."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def agree(self, ok: bool, message: str = "") -> None:
        """Return once every rank said `ok`.

        Raises:
            Disagreement: a rank said no; carries the message of the lowest such rank.
            NetworkError: a rank did not answer.
        """
        answers: list[str | None] = [None] * self.size
        try:
            dist.all_gather_object(answers, None if ok else message)
        except RuntimeError as error:
            raise NetworkError(f"checkpoint: a rank did not answer while saving together: {error}") from error
        refusals = [answer for answer in answers if answer is not None]
        if refusals:
            raise Disagreement(refusals[0])

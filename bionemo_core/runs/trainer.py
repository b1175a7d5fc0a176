"""Lightning's trainer for a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch

from bionemo_core.checkpoint.load import CheckpointReader
from bionemo_core.config.recompute_options import Recompute
from bionemo_core.config.schema import RunSpec
from bionemo_core.errors import NetworkError
from bionemo_core.io.exhaustion import find_exhaustion
from bionemo_core.parallel.groups import is_lost_peer
from bionemo_core.parallel.strategy import MegatronStrategy
from bionemo_core.protocols import RunContext
from bionemo_core.reporting.training_progress import RunProgress
from bionemo_core.runs.device import Device
from bionemo_core.runs.folder import RunFolder
from bionemo_core.runs.memory_estimate import device_bytes
from bionemo_core.training.callbacks import LogMetrics, StopOnBadValidation
from bionemo_core.training.optim import measure_state

if TYPE_CHECKING:
    from bionemo_core.plugins.registry import Registry
    from bionemo_core.protocols import BuildContext, Tokenizer


def make_trainer(
    spec: RunSpec,
    registry: Registry,
    device: Device,
    folder: RunFolder,
    reader: CheckpointReader | None,
    last_callbacks: Sequence[pl.Callback],
) -> pl.Trainer:
    """Make the trainer of the run; its ranks have been started."""
    settings = spec.trainer
    run = RunContext(folder=folder.path, name=spec.name, resumed_step=reader.step if reader else None)
    optimizer = measure_state(registry.build(spec.optim), spec.optim.name)
    strategy = _make_strategy(spec, device, reader, optimizer.bytes_per_parameter)
    callbacks = [registry.build(choice) for choice in spec.callbacks]
    callbacks += [LogMetrics(settings.log_every_n_steps), StopOnBadValidation()]
    callbacks += [RunProgress()] if settings.progress_bar else []
    trainer = pl.Trainer(
        strategy=strategy,
        accelerator=device.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        max_steps=settings.max_steps,
        max_time=timedelta(minutes=settings.max_time_min) if settings.max_time_min else None,
        val_check_interval=settings.val_check_interval,
        check_val_every_n_epoch=None,
        log_every_n_steps=settings.log_every_n_steps,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=settings.progress_bar,
        logger=[registry.build(choice, run=run) for choice in spec.loggers] or False,
        callbacks=[*callbacks, *last_callbacks],
        default_root_dir=folder.path,
    )
    strategy.setup_environment()
    return trainer


def _make_strategy(
    spec: RunSpec, device: Device, reader: CheckpointReader | None, optimizer_bytes: float
) -> MegatronStrategy:
    settings = spec.trainer
    strategy = MegatronStrategy(
        tensor_model_parallel_size=spec.parallel.tensor_model_parallel_size,
        dtype=device.dtype,
        compile_layers=device.accelerator == "gpu" if settings.compile is None else settings.compile,
        use_cuda_graphs=settings.cuda_graphs,
        reduce_dtype=getattr(torch, spec.parallel.reduce_dtype),
        sharding_strategy=spec.parallel.sharding_strategy,
        shard_size=spec.parallel.shard_size,
        device_bytes=device_bytes(device, settings.devices),
        recompute=Recompute.of(settings),
        sequence_parallel=spec.parallel.sequence_parallel,
        pipeline_model_parallel_size=spec.parallel.pipeline_model_parallel_size,
        fp8_recipe=device.fp8_recipe,
        async_save=spec.checkpoint.async_save,
        optimizer_bytes=optimizer_bytes,
    )
    if reader:
        strategy.resume_from(reader)
    return strategy


def call_meet_run(trainer: pl.Trainer, tokenizer: Tokenizer, context: BuildContext) -> None:
    """Call `meet_run(tokenizer, context)` of every callback that has it, before the run starts."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning does not declare it
        meet = getattr(callback, "meet_run", None)
        if meet is not None:
            meet(tokenizer, context)


@contextmanager
def explain_lost_ranks(advice: str = "Find the cause in its output, then resume with resume=last.") -> Iterator[None]:
    """Turn the errors of a lost connection to another rank into a clear message, with advice on what to do.

    Raises:
        NetworkError: another rank died or does not answer.
        ResourceError: this machine has run out of something.
    """
    try:
        yield
    except RuntimeError as error:
        exhaustion = find_exhaustion(error)
        if exhaustion is not None:
            raise exhaustion from error
        if is_lost_peer(error):
            raise NetworkError(
                f"another rank of this job died or does not answer: {str(error).splitlines()[0]} {advice}"
            ) from error
        raise

"""The core's own settings: one dataclass a group, one default a field.

No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

from dataclasses import dataclass, field
from typing import Any, Optional


@dataclass(frozen=True)
class Trainer:
    """How long, on what, and how exactly to train. Names are those of v1."""

    accelerator: str = "auto"  # auto, cpu, gpu
    devices: int = 1
    num_nodes: int = 1
    precision: str = "auto"  # auto (bf16-mixed on a GPU, 32 on CPU), 32, bf16-mixed, 16-mixed
    max_steps: int = 1_000_000
    max_time_min: Optional[float] = None
    log_every_n_steps: int = 10
    val_check_interval: int = 1500
    limit_val_batches: int = 50
    limit_test_batches: int = 500
    gradient_clip_val: Optional[float] = 1.0
    deterministic: bool = False
    num_threads: Optional[int] = None
    compile: Optional[bool] = None  # null: on a GPU only
    cuda_graphs: bool = True  # where it can be: packed batches, one GPU, compiled layers, a network that allows it
    progress_bar: bool = True


@dataclass(frozen=True)
class Batch:
    """What one optimizer step sees, in rows: a row is one pack, or one sequence when `packing` is off."""

    micro_batch_size: int = 8
    global_batch_size: Optional[int] = None
    accumulate_grad_batches: int = 1
    seq_length: Optional[int] = None  # null: the model's own
    packing: bool = True
    pack_window: int = 4096
    dynamic_padding: bool = True
    num_workers: int = 2


@dataclass(frozen=True)
class Parallel:
    """How the model is split; data parallelism takes what is left of the devices."""

    tensor_model_parallel_size: int = 1
    pipeline_model_parallel_size: int = 1
    sequence_parallel: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """When to save, and what to keep."""

    every_n_steps: Optional[int] = None  # null: trainer.val_check_interval
    monitor: str = "val_loss"
    mode: str = "min"
    save_top_k: int = 10
    keep_last: int = 2


@dataclass(frozen=True)
class Restore:
    """What taking weights by `restore_from_path` may do where source and model differ."""

    strict: bool = True  # refuse a source that lacks a tensor of the model, or has one that the model lacks
    vocabulary: Optional[str] = None  # another vocabulary: tile (v1's way), mean; refused without one
    positions: Optional[str] = None  # other positions: tile (v1's way), cut, interpolate, restart; refused without one


@dataclass(frozen=True)
class Train:
    """Pre-train the model, then test it if asked."""

    do_training: bool = True
    do_testing: bool = False


OPENING_TASKS = frozenset({"embed", "finetune", "evaluate", "predict", "sample", "optimize", "convert"})
"""Tasks that open the model at `restore_from_path`, so that neither `model` nor `tokenizer` need be chosen."""

TOKENIZER_TASKS = frozenset({"prepare"})
"""Tasks that need a tokenizer, their own or a model's, and no model."""

OWN_DATA_TASKS = frozenset({"evaluate"})
"""Of these the tasks that take the data of the run at `restore_from_path`, where no other are chosen."""

OPENED = "opened"
"""Stands for the name of a model, tokenizer or data set that is known only once `restore_from_path` is opened."""

CORE_GROUPS = {"trainer": Trainer, "batch": Batch, "parallel": Parallel, "checkpoint": Checkpoint, "restore": Restore}
"""Groups with a single schema each; the others hold one entry per component."""


LATER_SETTINGS = {"trainer": frozenset({"cuda_graphs"})}
"""Settings that specifications of earlier versions lack: for their runs they are what they are by default."""


@dataclass(frozen=True)
class Choice:
    """One component chosen by name, with plain parameters: all that is needed to build it again."""

    group: str
    name: str
    params: dict[str, Any] = field(default_factory=dict)
    distribution: str = "bionemo-run"
    version: str = ""


@dataclass(frozen=True)
class RunSpec:
    """Everything that defines a run, as plain values; saved as `run.json` and read back for a resume."""

    name: str
    home: str
    seed: int
    task: Choice
    model: Choice
    tokenizer: Choice
    data: Choice
    optim: Choice
    scheduler: Choice
    trainer: Trainer = field(default_factory=Trainer)
    batch: Batch = field(default_factory=Batch)
    parallel: Parallel = field(default_factory=Parallel)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    restore: Restore = field(default_factory=Restore)
    loggers: tuple[Choice, ...] = ()
    callbacks: tuple[Choice, ...] = ()
    connector: Optional[Choice] = None
    restore_from_path: Optional[str] = None
    resume: Optional[str] = None

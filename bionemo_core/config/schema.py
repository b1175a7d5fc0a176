"""The core's own settings: one dataclass a group, one default a field.

No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

from dataclasses import dataclass, field
from typing import Any, Optional


@dataclass(frozen=True)
class Trainer:
    """How long, on what, and how exactly to train. Names are those of v1."""

    accelerator: str = "auto"  # auto, cpu, gpu
    devices: int = 1  # GPUs, or processes on a CPU, of each machine
    num_nodes: int = 1  # machines
    precision: str = "auto"  # auto (bf16-mixed on a GPU, 32 on CPU), 32, bf16-mixed, 16-mixed
    max_steps: int = 1_000_000  # optimizer steps of the whole run, resumes included; the schedule ends there
    max_time_min: Optional[float] = None  # minutes of all sessions of the run together; null: no limit
    log_every_n_steps: int = 10  # how often metrics are logged
    val_check_interval: int = 1500  # steps between validations
    limit_val_batches: int = 50  # steps of one validation, at most
    limit_test_batches: int = 500  # steps of one test, at most
    gradient_clip_val: Optional[float] = 1.0  # the longest global gradient norm; null: any
    deterministic: bool = False  # torch's deterministic algorithms, slower on a GPU
    num_threads: Optional[int] = None  # CPU threads of each process; null: torch's own number
    compile: Optional[bool] = None  # compile the layers; null: on a GPU only
    cuda_graphs: bool = True  # record passes where it can be: packed, one GPU, 16 bit, a network that allows it
    progress_bar: bool = True  # a bar on a terminal, elsewhere a line now and then


@dataclass(frozen=True)
class Batch:
    """What one optimizer step sees, in rows: a row is one pack, or one sequence when `packing` is off."""

    micro_batch_size: int = 8  # rows that go through the network at once on one device
    global_batch_size: Optional[int] = None  # rows of a step on all devices; null: computed of the others
    accumulate_grad_batches: int = 1  # micro batches of a step on one device
    seq_length: Optional[int] = None  # tokens of a row, at most; null: the model's own
    packing: bool = True  # several sequences a row, end to end
    pack_window: int = 4096  # sequences that packs are chosen among
    dynamic_padding: bool = True  # without packing: pad to the longest of a batch, not to seq_length
    num_workers: int = 2  # loader processes of each device; 0 loads in the main process


@dataclass(frozen=True)
class Parallel:
    """How the model is split; data parallelism takes what is left of the devices."""

    tensor_model_parallel_size: int = 1  # devices that share each layer
    pipeline_model_parallel_size: int = 1  # 1: more is refused
    sequence_parallel: bool = False  # split activations between layers too, where tensor parallel


@dataclass(frozen=True)
class Checkpoint:
    """When to save, and what to keep."""

    every_n_steps: Optional[int] = None  # null: trainer.val_check_interval; saved at the end too
    monitor: str = "val_loss"  # the metric that says which checkpoints are best
    mode: str = "min"  # min where less of it is better, max where more is
    save_top_k: int = 10  # how many of the best to keep
    keep_last: int = 2  # how many of the newest to keep, 2 at least


@dataclass(frozen=True)
class Restore:
    """What taking weights by `restore_from_path` may do where source and model differ."""

    strict: bool = True  # refuse a source that lacks a tensor of the model, or has one that the model lacks
    vocabulary: Optional[str] = None  # another vocabulary: tile (v1's way), mean; refused without one
    positions: Optional[str] = None  # other positions: tile (v1's way), cut, interpolate, restart; refused without one


OPENED = "opened"
"""Stands for the name of a model, tokenizer or data set that is known only once `restore_from_path` is opened."""

SEVERAL_AT_ONCE = ("logger", "callbacks")
"""Groups where each choice has a key of its own: `logger=[csv,wandb]` fills `logger.csv` and `logger.wandb`."""

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

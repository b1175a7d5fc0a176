"""The core's own settings: one dataclass a group, one default a field.

No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

from dataclasses import dataclass, field
from typing import Any, Optional


@dataclass(frozen=True)
class Trainer:
    """The length, the hardware and the precision of the training; the names are those of v1."""

    accelerator: str = "auto"  # auto, cpu, gpu
    devices: int = 1  # GPUs of each machine, or processes on a CPU
    num_nodes: int = 1  # number of machines
    precision: str = "auto"  # auto (bf16-mixed on a GPU, 32 on a CPU), 32, bf16-mixed, 16-mixed
    max_steps: int = 1_000_000  # optimizer steps of the whole run, resumes included; the schedule ends here
    max_time_min: Optional[float] = None  # stop after this many minutes, summed over all resumes; null: no limit
    log_every_n_steps: int = 10  # steps between two log lines
    val_check_interval: int = 1500  # steps between validations
    limit_val_batches: int = 50  # maximum number of steps of one validation
    limit_test_batches: int = 500  # maximum number of steps of the test
    gradient_clip_val: Optional[float] = 1.0  # clip the global gradient norm to this value; null: no clipping
    deterministic: bool = False  # use torch's deterministic algorithms, which are slower on a GPU
    num_threads: Optional[int] = None  # CPU threads of each process; null: torch's default
    compile: Optional[bool] = None  # compile the layers; null: only on a GPU
    cuda_graphs: bool = True  # replay passes as CUDA graphs: one GPU, 16 bit, packed, networks that allow it
    progress_bar: bool = True  # show a bar on a terminal, or a line from time to time elsewhere


@dataclass(frozen=True)
class Batch:
    """The batch of one optimizer step, in rows: a row is one pack, or one sequence without `packing`."""

    micro_batch_size: int = 8  # rows in one forward pass on one device
    global_batch_size: Optional[int] = None  # rows of one step on all devices; null: derived from the others
    accumulate_grad_batches: int = 1  # micro batches per step on one device
    seq_length: Optional[int] = None  # maximum number of tokens in a row; null: the model's default
    packing: bool = True  # put several sequences into one row, end to end
    pack_window: int = 4096  # packs are filled from windows of this many sequences
    dynamic_padding: bool = True  # without packing: pad to the longest sequence of a batch, not to seq_length
    num_workers: int = 2  # loader processes per device; 0: load in the main process


@dataclass(frozen=True)
class Parallel:
    """How the model is split over devices; data parallelism takes the devices that are left."""

    tensor_model_parallel_size: int = 1  # number of devices that share each layer
    pipeline_model_parallel_size: int = 1  # must be 1; more is refused
    sequence_parallel: bool = False  # with tensor parallelism: split activations between layers too


@dataclass(frozen=True)
class Checkpoint:
    """When to save checkpoints, and which to keep."""

    every_n_steps: Optional[int] = None  # null: trainer.val_check_interval; the end of the run is saved too
    monitor: str = "val_loss"  # the metric that decides which checkpoints are best
    mode: str = "min"  # min: a lower value is better; max: a higher value is better
    save_top_k: int = 10  # number of best checkpoints to keep
    keep_last: int = 2  # number of newest checkpoints to keep, at least 2


@dataclass(frozen=True)
class Restore:
    """What to do if the weights at `restore_from_path` do not match the model."""

    strict: bool = True  # refuse a source whose tensors are not exactly those of the model
    vocabulary: Optional[str] = None  # rule for another vocabulary: tile (as in v1) or mean; null: refuse it
    positions: Optional[str] = None  # other positions: tile (as in v1), cut, interpolate, restart; null: refuse


OPENED = "opened"
"""Stands for the name of a model, tokenizer or data set that is known only once `restore_from_path` is opened."""

SEVERAL_AT_ONCE = ("logger", "callbacks")
"""Groups where each choice has a key of its own: `logger=[csv,wandb]` fills `logger.csv` and `logger.wandb`."""

CORE_GROUPS = {"trainer": Trainer, "batch": Batch, "parallel": Parallel, "checkpoint": Checkpoint, "restore": Restore}
"""Groups with a single schema each; the others hold one entry per component."""


LATER_SETTINGS = {"trainer": frozenset({"cuda_graphs"})}
"""Settings added since format 1; an older run.json gets their defaults."""


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

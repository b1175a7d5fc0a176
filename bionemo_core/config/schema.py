"""The core's own settings: one dataclass per group, one default per field.

No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Optional

from bionemo_core.config.metric_direction import Mode, choose_mode
from bionemo_core.ranges import Count, Natural, Positive, Range, SequenceLength

Workers = Annotated[int, Range(least=0, most=1024)]
Threads = Annotated[int, Range(least=1, most=4096)]
KeptLast = Annotated[int, Range(least=2)]
"""The previous checkpoint must be kept until the next one is verified."""


@dataclass(frozen=True)
class Trainer:
    """Length, devices and precision of training; the keys are named as in v1."""

    accelerator: str = "auto"  # auto, cpu, gpu
    devices: Count = 1  # GPUs per machine, or processes per machine on a CPU
    num_nodes: Count = 1  # number of machines
    precision: str = "auto"  # auto (bf16-mixed on a GPU, 32 on a CPU), 32, bf16-mixed, 16-mixed, fp8-mixed (training)
    fp8_recipe: Optional[str] = None  # with fp8-mixed, scales: rowwise, or tensorwise, which is faster; null: rowwise
    max_steps: Count = 1_000_000  # optimizer steps of the whole run, resumes included; the schedule ends here
    max_time_min: Optional[Positive] = None  # limit in minutes, summed over all sessions of the run; null: none
    log_every_n_steps: Count = 10  # steps between logged metrics
    val_check_interval: Count = 1500  # steps between validations
    limit_val_batches: Natural = 50  # at most this many steps per validation
    limit_test_batches: Natural = 500  # at most this many steps per test
    gradient_clip_val: Optional[Positive] = 1.0  # clip the global gradient norm to this value; null: no clipping
    deterministic: bool = False  # use torch's deterministic algorithms; slower on a GPU
    num_threads: Optional[Threads] = None  # CPU threads per process; null: torch's default
    compile: Optional[bool] = None  # compile the layers; null: on a GPU only
    cuda_graphs: bool = True  # use CUDA graphs where possible: 16-bit, packing, no shards, a network that supports them
    activations_checkpoint_granularity: str = "none"  # recompute in the backward pass: none, selective, full
    activations_checkpoint_method: Optional[str] = None  # layers to recompute: uniform (all), block; null: uniform
    activations_checkpoint_num_layers: Count = 1  # with block: recompute the first N layers of each stack
    progress_bar: bool = True  # show a bar on a terminal; elsewhere print a line from time to time


@dataclass(frozen=True)
class Batch:
    """The batch of one optimizer step, in rows; a row is one pack, or one sequence when `packing` is off."""

    micro_batch_size: Count = 8  # rows in one forward pass on one device
    global_batch_size: Optional[Count] = None  # rows per step on all devices; null: derived from the other settings
    accumulate_grad_batches: Count = 1  # micro batches per step on one device
    seq_length: Optional[SequenceLength] = None  # at most this many tokens per row; null: the model's length
    packing: bool = True  # put several sequences end to end in one row
    pack_window: Count = 4096  # number of sequences considered together when packs are formed
    dynamic_padding: bool = True  # without packing: pad to the longest sequence of the batch, not to seq_length
    num_workers: Workers = 2  # loader processes per device; 0: load in the main process


@dataclass(frozen=True)
class Parallel:
    """Split of the model over devices; the remaining factor of the devices is data parallel."""

    tensor_model_parallel_size: Count = 1  # devices that share each layer
    pipeline_model_parallel_size: Count = 1  # stages that each hold some of the layers; encoders
    sequence_parallel: bool = False  # split norms and dropout over tensor-parallel ranks, to save memory; encoders only
    sharding_strategy: str = "auto"  # how data-parallel ranks share weights: auto (by size), full, hybrid, none
    shard_size: Optional[Count] = None  # with hybrid or auto: ranks that share one copy; null: those of a machine
    reduce_dtype: str = "float32"  # dtype in which gradients are summed over ranks: float32, bfloat16


@dataclass(frozen=True)
class Checkpoint:
    """When to save checkpoints, and how many to keep."""

    every_n_steps: Optional[Count] = None  # steps between saves; null: trainer.val_check_interval; the end is saved too
    monitor: str = "val_loss"  # the metric that ranks checkpoints
    mode: Optional[str] = None  # min: lower is better; max: higher is better; null: by the name of the metric
    save_top_k: Natural = 10  # number of best checkpoints to keep
    keep_last: KeptLast = 2  # number of newest checkpoints to keep, at least 2
    async_save: bool = True  # write checkpoints while training goes on, from a copy of the state in host memory

    @property
    def better(self) -> Mode:
        """Which values of the monitored metric are better.

        Raises:
            ConfigError: `mode` is null, and the name of the metric does not say it.
        """
        return choose_mode(self.monitor, self.mode)


@dataclass(frozen=True)
class Restore:
    """How `restore_from_path` loads weights from a source that differs from the model."""

    strict: bool = True  # refuse a source with tensors that the model lacks, or without tensors that it has
    vocabulary: Optional[str] = None  # how to fit another vocabulary: tile (as v1), mean; null: refuse
    positions: Optional[str] = None  # how to fit other positions: tile (as v1), cut, interpolate, restart; null: refuse
    extra_tokens: Optional[list[str]] = None  # letters to add to the stored tokenizer; their rows are means, or tiled


OPENED = "opened"
"""A placeholder for the name of a model, tokenizer or data set that is known only once `restore_from_path` is open."""

SEVERAL_AT_ONCE = ("logger", "callbacks")
"""Groups that take several choices at once: `logger=[csv,wandb]` fills `logger.csv` and `logger.wandb`."""

CORE_GROUPS = {"trainer": Trainer, "batch": Batch, "parallel": Parallel, "checkpoint": Checkpoint, "restore": Restore}
"""The groups with one fixed schema; every other group has one entry per component."""


_RECOMPUTE = ("granularity", "method", "num_layers")
LATER_SETTINGS = {
    "checkpoint": frozenset({"async_save"}),
    "trainer": frozenset({"cuda_graphs", "fp8_recipe", *(f"activations_checkpoint_{key}" for key in _RECOMPUTE)}),
    "restore": frozenset({"extra_tokens"}),
    "parallel": frozenset({"sharding_strategy", "shard_size", "reduce_dtype"}),
}
"""Settings added since format 1; an older run.json gets their defaults."""


@dataclass(frozen=True)
class Choice:
    """One component chosen by name, with its parameters as plain values: all that is needed to build it again."""

    group: str
    name: str
    params: dict[str, Any] = field(default_factory=dict)
    distribution: str = "bionemo-run"
    version: str = ""

    @property
    def qualified_name(self) -> str:
        """The name by which the registry finds this component and no other: `distribution/name`."""
        return f"{self.distribution}/{self.name}"


@dataclass(frozen=True)
class RunSpec:
    """Everything that defines a run, as plain values; saved as `run.json` and read again on resume."""

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

"""Description of a task, as `builtin.py` offers it: its settings, the function that runs it, and what it needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bionemo_core.plugins import Component
from bionemo_core.plugins.configure import configure

if TYPE_CHECKING:
    from bionemo_core.plugins import Registry

OF_TRAINING = (
    *("optim", "scheduler", "checkpoint", "logger", "callbacks", "resume"),
    *("trainer.max_steps", "trainer.max_time_min", "trainer.log_every_n_steps", "trainer.val_check_interval"),
    *("trainer.limit_val_batches", "trainer.limit_test_batches", "trainer.gradient_clip_val", "trainer.cuda_graphs"),
    "trainer.fp8_recipe",
    "trainer.activations_checkpoint_granularity",
    "trainer.activations_checkpoint_method",
    "trainer.activations_checkpoint_num_layers",
    *("batch.global_batch_size", "batch.accumulate_grad_batches", "parallel.sequence_parallel"),
    *("parallel.sharding_strategy", "parallel.shard_size", "parallel.reduce_dtype"),
)
"""Groups and keys that only a training reads."""

OF_ROWS = tuple(
    f"batch.{key}" for key in ("micro_batch_size", "seq_length", "packing", "pack_window", "dynamic_padding")
)
"""Keys of the rows of a batch, for tasks that read the data of a run."""

OF_MACHINE = (
    *("name", "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.precision", "batch.num_workers"),
    *("trainer.num_threads", "trainer.deterministic", "trainer.compile", "trainer.progress_bar"),
)
"""Keys that describe the machine or the screen, and a name: a task that does not use one says so and goes on."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec(Component):
    """A choice of `task=`. Its keys are the fields of the dataclass from which `config` was made."""

    entry: str
    """The function that runs the task, as `module:function`; it is imported when the task starts."""
    opens_model: bool = False
    """Whether it uses the model at `restore_from_path`, so that `model` and `tokenizer` may be left out."""
    uses_run_data: bool = False
    """Whether it uses the data of the run at `restore_from_path` unless other data are chosen."""
    needs_model: bool = True
    """Whether it needs a model; if not, a tokenizer is enough."""
    unused: tuple[str, ...] = ()
    """Groups, and keys of the core's groups, that it does not read."""
    unused_with: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Those that it does not read while a key of its own has a value, by `key=value`."""

    def unused_by(self, settings: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
        """Return what the task does not read: always (under an empty text), and with its settings (`key=value`)."""
        chosen = {key: f"{key}={settings.get(key)}" for key in (way.partition("=")[0] for way in self.unused_with)}
        return {"": self.unused} | {way: self.unused_with[way] for way in chosen.values() if way in self.unused_with}

    @classmethod
    def of(cls, settings: type, entry: str, summary: str, **options: Any) -> "TaskSpec":
        """Return the task whose keys are the fields of the dataclass `settings`, named after its function."""
        return cls(entry.rpartition(":")[2], configure(settings), summary, entry=entry, **options)

    def load(self) -> Callable[..., Any]:
        """Import the module of the task and return the function that runs it."""
        module, _, function = self.entry.partition(":")
        run: Callable[..., Any] = getattr(import_module(module), function)
        return run


def task_spec(registry: "Registry", name: str) -> TaskSpec:
    """Return the task of that name.

    Raises:
        ConfigError: no task has that name.
    """
    component = registry.get("task", name).component
    assert isinstance(component, TaskSpec)
    return component

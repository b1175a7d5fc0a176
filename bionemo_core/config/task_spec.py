"""What a task is, as `builtin.py` offers it: its settings, the function that runs it, and what it needs."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bionemo_core.plugins import Component
from bionemo_core.plugins.configure import configure

if TYPE_CHECKING:
    from bionemo_core.plugins import Registry


@dataclass(frozen=True, kw_only=True)
class TaskSpec(Component):
    """A choice of `task=`. Its keys are the fields of the dataclass that `config` was made of."""

    entry: str
    """The function that runs the task, as `module:function`; it is imported when the task starts."""
    opens_model: bool = False
    """Whether it works on the model at `restore_from_path`, so that neither `model` nor `tokenizer` need be chosen."""
    uses_run_data: bool = False
    """Whether it takes the data of the run at `restore_from_path` where no other data are chosen."""
    needs_model: bool = True
    """Whether a tokenizer alone is not enough."""

    @classmethod
    def of(cls, settings: type, entry: str, summary: str, **options: Any) -> "TaskSpec":
        """Return the task whose keys are the fields of the dataclass `settings`, named after its function."""
        return cls(entry.rpartition(":")[2], configure(settings), summary, entry=entry, **options)

    def load(self) -> Callable[..., None]:
        """Import the module of the task, and return the function that runs it."""
        module, _, function = self.entry.partition(":")
        run: Callable[..., None] = getattr(import_module(module), function)
        return run


def task_spec(registry: "Registry", name: str) -> TaskSpec:
    """Return the task of that name.

    Raises:
        ConfigError: no task has that name.
    """
    component = registry.get("task", name).component
    assert isinstance(component, TaskSpec)
    return component

"""Description of a task, as `builtin.py` offers it: its settings, the function that runs it, and what it needs."""

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
    """A choice of `task=`. Its keys are the fields of the dataclass from which `config` was made."""

    entry: str
    """The function that runs the task, as `module:function`; it is imported when the task starts."""
    opens_model: bool = False
    """Whether it uses the model at `restore_from_path`, so that `model` and `tokenizer` may be left out."""
    uses_run_data: bool = False
    """Whether it uses the data of the run at `restore_from_path` unless other data are chosen."""
    needs_model: bool = True
    """Whether it needs a model; if not, a tokenizer is enough."""

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

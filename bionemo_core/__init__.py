"""The core of bionemo-run: what a plugin's author imports most, and the functions of `bionemo_core.api`.

Importing it imports next to nothing, so that the command can handle signals from its first moment.
"""

from __future__ import annotations

from importlib import import_module

from bionemo_core import _moved
from bionemo_core._version import __version__

TYPE_CHECKING = False  # type checkers know this name; `typing` would take as long to import as all the rest
if TYPE_CHECKING:
    from typing import Any

    from bionemo_core.api import (
        build,
        convert,
        embed,
        evaluate,
        finetune,
        open_model,
        predict,
        sample,
        score,
        train,
    )
    from bionemo_core.config.task_spec import TaskSpec
    from bionemo_core.plugins.component import PLUGIN_API, Component, PublishedWeights, hookimpl
    from bionemo_core.plugins.configure import configure
    from bionemo_core.runs.hooks import TrainingHooks
    from bionemo_core.tasks.train import train as run_training

_moved.install()

_OF_PLUGINS = ("PLUGIN_API", "Component", "PublishedWeights", "configure", "hookimpl")
_OF_API = ("build", "convert", "embed", "evaluate", "finetune", "open_model", "predict", "sample", "score", "train")
_LATE = {
    **{name: ("bionemo_core.plugins", name) for name in _OF_PLUGINS},
    **{name: ("bionemo_core.api", name) for name in _OF_API},
    "TaskSpec": ("bionemo_core.config.task_spec", "TaskSpec"),
    "TrainingHooks": ("bionemo_core.runs.hooks", "TrainingHooks"),
    "run_training": ("bionemo_core.tasks.train", "train"),
}
"""What is imported when it is first used: the module and the name there."""

__all__ = [
    "PLUGIN_API",
    "Component",
    "PublishedWeights",
    "TaskSpec",
    "TrainingHooks",
    "__version__",
    "build",
    "configure",
    "convert",
    "embed",
    "evaluate",
    "finetune",
    "hookimpl",
    "open_model",
    "predict",
    "run_training",
    "sample",
    "score",
    "train",
]


def __getattr__(name: str) -> Any:
    # By name and late: this package may not depend on the layers above it, and plugins import it at every start.
    if name in _LATE:
        module, own_name = _LATE[name]
        return getattr(import_module(module), own_name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

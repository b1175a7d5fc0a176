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
    from bionemo_core.plugins.component import PLUGIN_API, Component, hookimpl
    from bionemo_core.plugins.configure import configure

_moved.install()

__all__ = [
    "PLUGIN_API",
    "Component",
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
    "sample",
    "score",
    "train",
]

_OF_PLUGINS = frozenset({"PLUGIN_API", "Component", "configure", "hookimpl"})
_OF_API = frozenset(__all__) - _OF_PLUGINS - {"__version__"}


def __getattr__(name: str) -> Any:
    # By name and late: this package may not depend on the layers above it.
    if name in _OF_PLUGINS:
        return getattr(import_module("bionemo_core.plugins"), name)
    if name in _OF_API:
        return getattr(import_module("bionemo_core.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

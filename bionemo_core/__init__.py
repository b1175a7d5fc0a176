"""The core of bionemo-run: what a plugin's author imports most, and the functions of `bionemo_core.api`.

Importing it does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bionemo_core import _moved
from bionemo_core._version import __version__
from bionemo_core.plugins import PLUGIN_API, Component, configure, hookimpl

if TYPE_CHECKING:
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

_moved.install()

_OF_API = frozenset(
    {"build", "convert", "embed", "evaluate", "finetune", "open_model", "predict", "sample", "score", "train"}
)

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


def __getattr__(name: str) -> Any:
    # By name and late: this package may not depend on the layers above it, and plugins import it at every start.
    if name in _OF_API:
        return getattr(import_module("bionemo_core.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

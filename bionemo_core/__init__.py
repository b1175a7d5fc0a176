"""The core of bionemo-run, with what a plugin author imports most. Importing it does not import torch."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bionemo_core import _moved
from bionemo_core._version import __version__
from bionemo_core.plugins import PLUGIN_API, Component, configure, hookimpl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_moved.install()

__all__ = ["PLUGIN_API", "Component", "__version__", "configure", "embed", "hookimpl"]


def embed(
    model: str, sequences: "Sequence[str | bytes]", *, device: str = "cpu", **settings: Any
) -> "NDArray[np.float32]":
    """Return the embeddings of sequences by the model at a path, float32[sequences, hidden]; see `docs/embeddings.md`.

    Raises:
        BioNeMoError: the model cannot be loaded, or a sequence cannot be used.
    """
    # Imported by name, because this package may not depend on the layers above it.
    registry = import_module("bionemo_core.builtin").load_registry()
    result: NDArray[np.float32] = import_module("bionemo_core.tasks.embed").embed_with(
        model, sequences, registry, device=device, **settings
    )
    return result

"""The core of bionemo-run. What a plugin author needs is importable from here; torch is not imported."""

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
    """Return the embeddings of sequences by the model at a path, float32 [sequences, hidden]; `docs/embeddings.md`.

    Raises:
        BioNeMoError: the model cannot be opened, or a sequence cannot be used.
    """
    # By name: this package's own front door stands above the layers that it is made of.
    registry = import_module("bionemo_core.builtin").load_registry()
    result: NDArray[np.float32] = import_module("bionemo_core.tasks.embed").embed_with(
        model, sequences, registry, device=device, **settings
    )
    return result

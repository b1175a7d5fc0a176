"""The core of bionemo-run. What a plugin author needs is importable from here; torch is not imported."""

from bionemo_core.plugins import PLUGIN_API, Component, configure, hookimpl

__version__ = "0.1.0+src"

__all__ = ["PLUGIN_API", "Component", "__version__", "configure", "hookimpl"]

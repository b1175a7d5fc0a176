"""The conformance kit: tests that an author runs on a plugin, and temporary plugins for tests."""

from typing import Any

from bionemo_core import _moved
from bionemo_core.testing.plugin import PluginConformance
from bionemo_core.testing.subject import ConformanceError, KitSettings, Subject
from bionemo_core.testing.throwaway import ThrowawayPlugin, installed, make_plugin

__all__ = [
    "ConformanceError",
    "KitSettings",
    "PluginConformance",
    "Subject",
    "ThrowawayPlugin",
    "installed",
    "make_plugin",
]


def __getattr__(name: str) -> Any:
    return _moved.find_renamed(__name__, name)

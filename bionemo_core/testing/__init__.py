"""The conformance kit: tests that a plugin's author runs over the plugin, and plugins for a test's own use."""

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

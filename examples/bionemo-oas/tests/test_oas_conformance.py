"""The core's conformance kit, run on this plugin."""

from bionemo_core.testing import PluginConformance


class TestOas(PluginConformance):
    """The kit, for the plugin as it is installed."""

    plugin = "bionemo-oas"

"""Plugins: the components that they offer, the hooks that yield these, and the registry that finds them."""

from bionemo_core.plugins.component import CAPABILITIES, PLUGIN_API, Component, PublishedWeights, hookimpl
from bionemo_core.plugins.configure import configure
from bionemo_core.plugins.records import CORE_DISTRIBUTION, PluginRecord, RegisteredComponent, Status
from bionemo_core.plugins.registry import Registry

__all__ = [
    "CAPABILITIES",
    "CORE_DISTRIBUTION",
    "PLUGIN_API",
    "Component",
    "PluginRecord",
    "PublishedWeights",
    "RegisteredComponent",
    "Registry",
    "Status",
    "configure",
    "hookimpl",
]

"""Finds plugins without importing them, and rejects those that must not be imported."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement

from bionemo_core import _metadata
from bionemo_core.plugins.records import CORE_DISTRIBUTION, PluginRecord, Status, normalize_name

ENTRY_POINT_GROUP = "bionemo.plugins"
LOAD_VARIABLE = "BIONEMO_LOAD_PLUGINS"
BLOCK_VARIABLE = "BIONEMO_BLOCK_PLUGINS"


@dataclass(frozen=True)
class FoundPlugin:
    """An entry point with the metadata of its distribution."""

    entry_point: _metadata.EntryPoint
    distribution: str
    version: str
    requires: tuple[str, ...]

    def record(self, status: Status, reason: str = "", trace: str = "") -> PluginRecord:
        """Return a record of this plugin without components."""
        point = self.entry_point
        return PluginRecord(point.name, self.distribution, self.version, point.value, status, reason, trace)


def find_plugins() -> list[FoundPlugin]:
    """Return every entry point of the group, sorted by distribution name so that the order is the same everywhere."""
    found = []
    for point in _metadata.entry_points(group=ENTRY_POINT_GROUP):
        distribution = point.dist
        if distribution is None:
            continue
        name = distribution.metadata["Name"] or "unnamed"
        found.append(FoundPlugin(point, normalize_name(name), distribution.version, tuple(distribution.requires or ())))
    return sorted(found, key=lambda plugin: (plugin.distribution, plugin.entry_point.name))


def find_refusals(
    found: Iterable[FoundPlugin], environ: Mapping[str, str], core_version: str
) -> dict[int, PluginRecord]:
    """Return records of the plugins that must not be imported, by their position in `found`."""
    plugins = list(found)
    entry_points_of = Counter(plugin.distribution for plugin in plugins)
    refused = {}
    for position, plugin in enumerate(plugins):
        if reason := _blocked(plugin, environ):
            refused[position] = plugin.record(Status.BLOCKED, reason)
        elif reason := _core_mismatch(plugin, core_version):
            refused[position] = plugin.record(Status.INCOMPATIBLE, reason)
        elif plugin.distribution == CORE_DISTRIBUTION or entry_points_of[plugin.distribution] > 1:
            reason = (
                f"{plugin.distribution} has {entry_points_of[plugin.distribution]} entry points in group "
                f"{ENTRY_POINT_GROUP!r}, expected one. Put all hooks into one module."
            )
            if plugin.distribution == CORE_DISTRIBUTION:
                reason = f"{CORE_DISTRIBUTION} is the core, whose components need no entry point."
            refused[position] = plugin.record(Status.REJECTED, reason)
    return refused


def _blocked(plugin: FoundPlugin, environ: Mapping[str, str]) -> str:
    names = {plugin.distribution, normalize_name(plugin.entry_point.name)}
    allowed = environ.get(LOAD_VARIABLE)
    if allowed is not None and not names & _split_names(allowed):
        return f"not in {LOAD_VARIABLE}={allowed!r}"
    blocked = environ.get(BLOCK_VARIABLE, "")
    if names & _split_names(blocked):
        return f"in {BLOCK_VARIABLE}={blocked!r}"
    return ""


def _split_names(value: str) -> set[str]:
    return {normalize_name(name.strip()) for name in value.split(",") if name.strip()}


def _core_mismatch(plugin: FoundPlugin, core_version: str) -> str:
    """Return why the distribution's requirements exclude the installed core, or an empty text."""
    for line in plugin.requires:
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            return f"its requirement {line!r} cannot be read ({error}). Reinstall {plugin.distribution}."
        if normalize_name(requirement.name) != CORE_DISTRIBUTION:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if not requirement.specifier.contains(core_version, prereleases=True):
            return (
                f"it needs {CORE_DISTRIBUTION}{requirement.specifier}, but {core_version} is installed. "
                f"Install a version of {plugin.distribution} for this core."
            )
    return ""

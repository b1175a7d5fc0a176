"""Whose code an unexpected exception comes from: bionemo-run's own, or that of a plugin, which is named."""

import re
import sys
import traceback
from pathlib import Path

from bionemo_core.plugins.discovery import find_plugins

_FRAME = re.compile(r'^\s*File "(?P<file>.+?)", line (?P<line>\d+), in ', re.MULTILINE)


def describe_bug(error: Exception) -> str:
    """Return the last line of the report of a bug: who should be told, and the place in their code."""
    # As text, because an exception of a loader worker brings its traceback only in its message.
    frames = _FRAME.findall("".join(traceback.format_exception(error)))
    plugins = _plugin_folders()
    core = Path(__file__).resolve().parents[1]
    owners = [(_owner(Path(file), plugins, core), f"{file}:{line}") for file, line in frames]
    owned = [(owner, place) for owner, place in owners if owner is not None]
    of_plugins = [(owner, place) for owner, place in owned if owner]
    if not of_plugins:
        return "this is a bug in bionemo-run; please report it together with the lines above."
    plugin, place = of_plugins[-1]
    if owned[-1][0]:
        return (
            f"this is a bug in the plugin {plugin}, at {place}, not in bionemo-run; please report it to the authors of "
            "the plugin together with the lines above."
        )
    return (
        f"this is a bug in the plugin {plugin}, or in bionemo-run, which the plugin calls at {place}; please report it "
        "together with the lines above."
    )


def _plugin_folders() -> dict[Path, str]:
    """Return the folder, or the file, of the package of each plugin that was imported, with name and version."""
    folders = {}
    for plugin in find_plugins():
        module = sys.modules.get(plugin.entry_point.module.partition(".")[0])
        for place in getattr(module, "__path__", None) or [getattr(module, "__file__", None)]:
            if place is not None:
                folders[Path(place).resolve()] = f"{plugin.distribution} {plugin.version}"
    return folders


def _owner(file: Path, plugins: dict[Path, str], core: Path) -> str | None:
    """Return the plugin whose code a file is; empty for bionemo-run, None for any other package."""
    path = file.resolve()
    for folder, name in plugins.items():
        if path.is_relative_to(folder):
            return name
    return "" if path.is_relative_to(core) else None

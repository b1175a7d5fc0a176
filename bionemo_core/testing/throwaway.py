"""Temporary plugins for tests: a package and its metadata in a folder, without installation."""

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from bionemo_core.plugins.discovery import ENTRY_POINT_GROUP

ADMITS_THIS_CORE = "bionemo-run>=0.2,<0.3"


@dataclass(frozen=True)
class ThrowawayPlugin:
    """A plugin on disk: distribution `bionemo-<name>`, package and entry point `<name>`."""

    name: str
    distribution: str
    folder: Path


def make_plugin(
    folder: Path,
    name: str,
    code: str,
    *,
    files: Mapping[str, str] | None = None,
    requires: Sequence[str] = (ADMITS_THIS_CORE,),
) -> ThrowawayPlugin:
    """Make a plugin whose package `name` has `code`, without its indentation, as its `__init__.py`.

    Args:
        folder: the folder for `sys.path`; it is made if it does not exist.
        name: the name of the package, of the entry point and, after `bionemo-`, of the distribution.
        code: the module with the hooks.
        files: more modules of the package by file name: `{"network.py": "import torch ..."}`.
        requires: the requirements of the distribution.
    """
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(dedent(code))
    for file_name, text in (files or {}).items():
        (package / file_name).write_text(dedent(text))
    distribution = f"bionemo-{name.replace('_', '-')}"
    metadata = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n{needs}")
    (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{name} = {name}\n")
    return ThrowawayPlugin(name, distribution, folder)


@contextmanager
def installed(*plugins: ThrowawayPlugin) -> Iterator[None]:
    """Make this process find the plugins as if they were installed, and unload their modules afterwards."""
    folders = [str(plugin.folder) for plugin in plugins]
    sys.path[:0] = folders
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for folder in folders:
            sys.path.remove(folder)
        for plugin in plugins:
            for module in [name for name in sys.modules if name.split(".")[0] == plugin.name]:
                del sys.modules[module]

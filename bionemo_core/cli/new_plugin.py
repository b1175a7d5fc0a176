"""`bionemo-run new-plugin NAME`: writes a working plugin as a starting point for a new one."""

import argparse
import os
import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import NoReturn

from bionemo_core.cli.plugin_name import check_plugin_name
from bionemo_core.errors import ConfigError
from bionemo_core.io.atomic import new_folder

_USAGE = "Usage: bionemo-run new-plugin NAME [--folder FOLDER]"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"new-plugin: {message}. {_USAGE}")


def run(arguments: list[str]) -> int:
    """Write the package `bionemo-NAME` into a new folder and print the next commands.

    Raises:
        ConfigError: the name is invalid or taken, or the folder exists already.
        StorageError: the folder cannot be written.
    """
    parser = _Parser(add_help=False)
    parser.add_argument("name")
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args(arguments)
    name = check_plugin_name(chosen.name, "model")
    words = {"name": name, "model": name.replace("-", "_"), "package": f"bionemo_{name.replace('-', '_')}"}
    words["test_class"] = "".join(part.capitalize() for part in name.split("-"))
    folder = chosen.folder or Path(f"bionemo-{name}")
    _write(folder, words)
    sys.stdout.write(
        f"{folder} holds a plugin with one model. Install it next to bionemo-run, train it and test it:\n"
        f"  pip install -e {folder}\n"
        f"  bionemo-run model={words['model']}\n"
        f"  pytest {folder}\n"
    )
    return 0


def _write(folder: Path, words: dict[str, str]) -> None:
    if os.path.lexists(folder):
        raise ConfigError(f"new-plugin: {folder} exists already. Choose another name, or give --folder.")
    with new_folder(folder) as temporary:
        for template, target in _templates(files("bionemo_core.cli").joinpath("skeleton"), temporary, words):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(Template(template.read_text()).substitute(words))


def _templates(source: Traversable, target: Path, words: dict[str, str]) -> list[tuple[Traversable, Path]]:
    """Return each template and the file to write; `NAME` in a path is replaced by the package's name."""
    found = []
    for entry in sorted(source.iterdir(), key=lambda one: one.name):
        place = target / entry.name.removesuffix(".txt").replace("NAME", words["package"])
        found += _templates(entry, place, words) if entry.is_dir() else [(entry, place)]
    return found

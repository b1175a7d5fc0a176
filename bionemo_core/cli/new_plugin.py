"""`bionemo-run new-plugin NAME`: writes a working plugin as a starting point for a new one."""

import argparse
import os
import re
import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import NoReturn

from bionemo_core.builtin import load_registry
from bionemo_core.errors import ConfigError
from bionemo_core.io.atomic import new_folder

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
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
    name = chosen.name.removeprefix("bionemo-")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"new-plugin: {chosen.name!r} is not a valid package name. Use lower-case letters, digits and single "
            "hyphens, for example bionemo-run new-plugin antibody"
        )
    words = {"name": name, "model": name.replace("-", "_"), "package": f"bionemo_{name.replace('-', '_')}"}
    words["test_class"] = "".join(part.capitalize() for part in name.split("-"))
    _check_free(words["model"])
    folder = chosen.folder or Path(f"bionemo-{name}")
    _write(folder, words)
    sys.stdout.write(
        f"{folder} holds a plugin with one model. Install it next to bionemo-run, train it and test it:\n"
        f"  pip install -e {folder}\n"
        f"  bionemo-run model={words['model']} trainer.max_steps=100\n"
        f"  pytest {folder}\n"
    )
    return 0


def _check_free(model: str) -> None:
    owners = [one.distribution for one in load_registry().components() if (one.group, one.name) == ("model", model)]
    if owners:
        raise ConfigError(f"new-plugin: {owners[0]} already has a model {model!r}. Choose another name.")


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

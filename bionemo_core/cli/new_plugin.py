"""`bionemo-run new-plugin NAME`: writes a working plugin as a starting point for a new one.

The files are templates in `skeleton/`: those of every plugin in `common`, those of a kind in the folder of its name.
`about.txt`, `settings.txt` and `reference.txt` of a kind, and the texts in `parts`, are words that templates use.
"""

import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from bionemo_core.cli.arguments import ArgumentParser
from bionemo_core.cli.plugin_name import check_plugin_name
from bionemo_core.errors import ConfigError
from bionemo_core.io.atomic import new_folder
from bionemo_core.plugins.did_you_mean import did_you_mean

GROUP_OF_KIND = {
    "model": "model",
    "dataset": "data",
    "tokenizer": "tokenizer",
    "connector": "connector",
    "callback": "callbacks",
    "head": "head",
    "oracle": "oracle",
    "reader": "reader",
    "optimizer": "optim",
    "loss": "loss",
    "augmentation": "augmentation",
    "task": "task",
}
"""The kinds of plugins, and the group of the component that gets the plugin's name."""

_USAGE = f"bionemo-run new-plugin NAME [--kind {'|'.join(GROUP_OF_KIND)}] [--folder FOLDER]"
_WORDS = ("about", "settings", "reference")


def run(arguments: list[str]) -> int:
    """Write the package `bionemo-NAME` into a new folder and print the next commands.

    Raises:
        ConfigError: the kind is unknown, the name is invalid or taken, or the folder exists already.
        StorageError: the folder cannot be written.
    """
    parser = ArgumentParser("new-plugin", _USAGE)
    parser.add_argument("name")
    parser.add_argument("--kind", default="model")
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args(arguments)
    if chosen.kind not in GROUP_OF_KIND:
        raise ConfigError(
            f"new-plugin: there is no kind {chosen.kind!r}.{did_you_mean(chosen.kind, GROUP_OF_KIND)} "
            f"Kinds: {', '.join(GROUP_OF_KIND)}."
        )
    name = check_plugin_name(chosen.name, GROUP_OF_KIND[chosen.kind])
    folder = chosen.folder or Path(f"bionemo-{name}")
    words = _words(name, chosen.kind)
    _write(folder, chosen.kind, words)
    first = next(line for line in words["about"].splitlines() if line.startswith("bionemo-run"))
    sys.stdout.write(
        f"{folder} holds a plugin with one {chosen.kind}. Install it next to bionemo-run, use it and test it:\n"
        f"  cd {folder}\n"
        "  pip install -e '.[test]'\n"
        f"  {first}\n"
        "  pytest\n"
    )
    return 0


def _words(name: str, kind: str) -> dict[str, str]:
    """Return what stands for each `$word` of a template."""
    word = name.replace("-", "_")
    words = {"name": name, "word": word, "package": f"bionemo_{word}", "kind": kind}
    words["test_class"] = "".join(part.capitalize() for part in name.split("-"))
    words["year"] = str(datetime.now(UTC).year)
    texts = {text: "" for text in _WORDS}
    for folder, chosen in (("parts", None), (kind, _WORDS)):
        for entry in _skeleton(folder).iterdir():
            text = entry.name.removesuffix(".txt")
            if entry.is_file() and (chosen is None or text in chosen):
                texts[text] = Template(entry.read_text()).substitute(words).strip("\n")
    return words | texts


def _skeleton(folder: str) -> Traversable:
    return files("bionemo_core.cli").joinpath("skeleton", folder)


def _write(folder: Path, kind: str, words: dict[str, str]) -> None:
    if os.path.lexists(folder):
        raise ConfigError(f"new-plugin: {folder} exists already. Choose another name, or give --folder.")
    with new_folder(folder, advice="Name a folder that you can write to, with --folder.") as temporary:
        for part in ("common", kind):
            for template, place in _templates(_skeleton(part)):
                target = temporary / _renamed(place, words)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(_filled(template.read_text(), words))


def _templates(folder: Traversable, place: str = "") -> Iterator[tuple[Traversable, str]]:
    """Yield each template with its place in the skeleton; texts of a kind, which are words, are none."""
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            yield from _templates(entry, f"{place}{entry.name}/")
        elif place or entry.name.removesuffix(".txt") not in _WORDS:
            yield entry, place + entry.name.removesuffix(".txt")


def _renamed(place: str, words: dict[str, str]) -> str:
    """Return the path of a file to write; setuptools would leave a name with a dot at its start out of a wheel."""
    return place.replace("NAME", words["package"]).replace("WORD", words["word"]).replace("DOT", ".")


def _filled(template: str, words: dict[str, str]) -> str:
    """Return the text of a file; an empty word leaves no blank lines behind."""
    return re.sub(r"\n{4,}", "\n\n\n", Template(template).substitute(words)).rstrip() + "\n"

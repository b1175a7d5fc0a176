"""Which names a new plugin may have: none that would replace a package, or that Python cannot use as a name."""

import builtins
import keyword
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distributions, packages_distributions

from packaging.utils import canonicalize_name

from bionemo_core.builtin import load_registry
from bionemo_core.data.readers.decompress import COMPRESSED_EXTENSIONS
from bionemo_core.data.readers.formats import EXTENSIONS, FORMATS
from bionemo_core.errors import ConfigError
from bionemo_core.plugins.hookspecs import noun_of

PREFIX = "bionemo-"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_USED_BY_THE_SKELETON = ("bionemo", "configure", "context", "hookimpl", "residues", "tokenizer")


def check_plugin_name(typed: str, group: str) -> str:
    """Return the name of a new plugin, without `bionemo-`, after checking that nothing else has it.

    Args:
        typed: the name as the user typed it.
        group: the group of the component that gets this name.

    Raises:
        ConfigError: the name is invalid or taken; the message names one that is free.
    """
    name = typed.removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"new-plugin: {typed!r} is not a valid package name. Use lower-case letters, digits and single "
            f"hyphens, for example bionemo-run new-plugin {_free_name('antibody', group)}"
        )
    if problem := _problem_with(name, group):
        raise ConfigError(
            f"new-plugin: {problem}. Choose another name, for example bionemo-run new-plugin {_free_name(name, group)}"
        )
    return name


def _problem_with(name: str, group: str) -> str:
    """Return what is wrong with a well-formed name; empty: nothing."""
    word, distribution = name.replace("-", "_"), f"{PREFIX}{name}"
    owners = [one.distribution for one in load_registry().components(group) if one.name == word]
    if owners:
        return f"{owners[0]} already has the {noun_of(group)} {word!r}"
    if group == "reader" and (word in FORMATS or f".{word}" in (*EXTENSIONS, *COMPRESSED_EXTENSIONS)):
        return f"bionemo-run reads files of the format {word!r} itself"
    installed, modules = _installed()
    if distribution in installed:
        return f"{distribution} is installed already, and the new plugin would replace it"
    if (package := distribution.replace("-", "_")) in modules:
        return f"the package {package} is installed already, and the new plugin would hide it"
    if keyword.iskeyword(word) or keyword.issoftkeyword(word) or hasattr(builtins, word):
        return f"{word!r} has a meaning in Python"
    if word in sys.stdlib_module_names:
        return f"{word!r} is a module of Python"
    if name in installed or word in modules:
        return f"{name!r} is the name of an installed package"
    return f"{word!r} is a word that plugins use" if word in _USED_BY_THE_SKELETON else ""


@cache
def _installed() -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of all installed distributions, and of the packages that they hold."""
    names = frozenset(canonicalize_name(one.name) for one in distributions() if one.name)
    return names, frozenset(packages_distributions())


def _free_name(name: str, group: str) -> str:
    return next(one for one in _other_names(name) if not _problem_with(one, group))


def _other_names(name: str) -> Iterator[str]:
    yield name
    yield f"my-{name}"
    number = 2
    while True:
        yield f"my-{name}-{number}"
        number += 1

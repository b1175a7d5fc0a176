"""The help text of keys, read from the docstrings and comments of a component's author."""

import dataclasses
import inspect
import re
from typing import Any

from bionemo_core.plugins.configure import ComponentConfig
from bionemo_core.plugins.records import RegisteredComponent

_ARGUMENT = re.compile(r"(\w+): +(.*)")
_TITLED = re.compile(r"(Args|Raises|Returns):\n")
_FIELD = re.compile(r"\s+(\w+): [^#]*  # (.+)")


def key_help_of(registered: RegisteredComponent) -> dict[str, str]:
    """Return the explanation of each key that has one, by name; see `key_help`."""
    found: dict[str, str] = {}
    for owner in _owners(registered):
        found |= key_help(owner)
    return found


def description_of(registered: RegisteredComponent) -> list[str]:
    """Return the paragraphs of the factory's docstring after the first, without those of arguments and errors."""
    paragraphs = re.split(r"\n\s*\n", inspect.getdoc(_owners(registered)[0]) or "")[1:]
    return [" ".join(one.split()) for one in paragraphs if not _TITLED.match(one)]


def key_help(owner: Any) -> dict[str, str]:
    """Return, by name, the `Args:` of a factory's docstring, or the comments beside the fields of a dataclass."""
    found: dict[str, str] = {}
    name = ""
    for line in _section(inspect.getdoc(owner) or "", "Args:"):
        indent, text = len(line) - len(line.lstrip()), line.strip()
        if indent == 4 and (started := _ARGUMENT.fullmatch(text)):
            name, text = started.groups()
            found[name] = text
        elif name:
            found[name] += f" {text}"
    return found | _field_comments(owner)


def _field_comments(owner: Any) -> dict[str, str]:
    """Return the comments beside the fields of a dataclass, by name."""
    if not dataclasses.is_dataclass(owner):
        return {}
    try:
        lines = inspect.getsource(owner).splitlines()  # type: ignore[arg-type]  # a class here
    except (OSError, TypeError):
        return {}
    return {found[1]: found[2] for found in map(_FIELD.fullmatch, lines) if found}


def _section(text: str, title: str) -> list[str]:
    """Return the lines below a title of a docstring, up to the next line that is not indented."""
    lines = text.splitlines()
    if title not in lines:
        return []
    rest = lines[lines.index(title) + 1 :]
    end = next((number for number, line in enumerate(rest) if not line.startswith(" ")), len(rest))
    return rest[:end]


def _owners(registered: RegisteredComponent) -> tuple[Any, ...]:
    """Return the factory, and the dataclasses whose fields are its keys."""
    config = registered.component.config
    return config.explained_by if isinstance(config, ComponentConfig) else (registered.factory,)

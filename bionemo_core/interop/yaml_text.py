"""Reading YAML as plain values: no custom tags, no interpolation, limits on size, depth and aliases."""

from typing import Any

import yaml

from bionemo_core.errors import ArtefactError

MAX_BYTES = 4 * 2**20
MAX_NODES = 200_000
MAX_DEPTH = 40


def read_yaml(text: bytes, where: str) -> dict[str, Any]:
    """Read the mapping that a YAML text holds.

    Raises:
        ArtefactError: it is too large or too deep, repeats aliases too often, asks for objects, holds `_target_` or
            `${...}`, or is not a mapping.
    """
    if len(text) > MAX_BYTES:
        raise ArtefactError(f"{where}: {len(text):,} bytes, expected at most {MAX_BYTES:,}.")
    try:
        decoded = text.decode()
        _check_size(decoded, where)
        content = yaml.safe_load(decoded)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError, TypeError, OverflowError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ArtefactError(f"{where}: not readable as plain YAML ({reason}).") from error
    if not isinstance(content, dict):
        raise ArtefactError(f"{where}: expected a mapping, got {type(content).__name__}.")
    _check_plain(content, where)
    return content


def _check_plain(value: Any, where: str) -> None:
    """Refuse values that a reader could resolve or call, bytes and sets; the original framework writes none."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if "${" in str(key) or (str(key).startswith("_") and str(key).endswith("_")):
                raise ArtefactError(f"{where}: key {str(key)[:80]!r} is not allowed.")
            _check_plain(inner, f"{where}: {key}")
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner, where)
    elif isinstance(value, str) and "${" in value:
        raise ArtefactError(f"{where}: {value[:80]!r} is not allowed; interpolations are not resolved here.")
    elif isinstance(value, bytes | set | tuple):
        raise ArtefactError(f"{where}: a value of type {type(value).__name__} is not allowed; it is no plain YAML.")


def _check_size(text: str, where: str) -> None:
    """Count the values of the text with its aliases expanded, before any of them is built."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before
            continue
        if isinstance(event, yaml.AliasEvent):
            # An alias to a node that is still open would make the value contain itself.
            if event.anchor not in sizes:
                raise ArtefactError(f"{where}: alias *{event.anchor} refers to an unknown or unfinished node.")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.NodeEvent):
            total += 1
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, total - 1))
            elif event.anchor:
                sizes[event.anchor] = 1
        if total > MAX_NODES or len(open_nodes) > MAX_DEPTH:
            raise ArtefactError(
                f"{where}: more than {MAX_NODES:,} values with its aliases expanded, or more than {MAX_DEPTH} levels."
            )

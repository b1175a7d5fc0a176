"""Safe reading of values from JSON: they are parsed and checked, never resolved, looked up or called."""

import dataclasses
import json
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NoReturn

from bionemo_core.config.schema import Choice
from bionemo_core.errors import ArtefactError, BioNeMoError


def parse_json(text: str | bytes, where: str) -> Any:
    """Return the content of a JSON text, in which no key may occur twice and every number must be finite.

    Raises:
        ArtefactError: the text is not such JSON; the message names `where` it came from.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{where}: not readable as JSON ({error})") from error


def refuse_unsafe(value: Any, where: str, error: type[BioNeMoError], *, depth: int = 64) -> None:
    """Check that a value is plain: no interpolation, no hidden key such as `_target_`, no missing value.

    Raises:
        BioNeMoError: of the type `error`: the value is not plain; the message names the key.
    """
    if depth == 0:
        raise error(f"{where}: nested too deeply")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str) or key.startswith("_") or "${" in key:
                raise error(f"{where or 'run specification'}: the key {key!r} is not allowed")
            refuse_unsafe(inner, f"{where}.{key}" if where else key, error, depth=depth - 1)
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            refuse_unsafe(inner, f"{where}[{position}]", error, depth=depth - 1)
    elif isinstance(value, str):
        if "${" in value or value == "???":
            raise error(f"{where}: the value {value!r} is not allowed: it must not be missing or hold ${{...}}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise error(f"{where}: got {value}, expected a finite number")
    elif value is not None and not isinstance(value, bool | int | float):
        raise error(f"{where}: got {type(value).__name__}, expected a number, text, true, false, null, list or mapping")


def check_keys(content: Any, known: Iterable[str], where: str, *, may_lack: Collection[str] = ()) -> None:
    """Check that an object has exactly the `known` keys, of which it may lack those in `may_lack`.

    Raises:
        ArtefactError: it is not an object, has other keys, or lacks another key.
    """
    if not isinstance(content, dict):
        raise ArtefactError(f"{where}: got {type(content).__name__}, expected an object")
    known = list(known)
    unknown = sorted(set(content) - set(known))
    missing = [key for key in known if key not in content and key not in may_lack]
    if unknown or missing:
        parts = [f"unknown: {', '.join(unknown)}"] if unknown else []
        parts += [f"missing: {', '.join(missing)}"] if missing else []
        raise ArtefactError(f"{where}: wrong keys ({'; '.join(parts)})")


def check_type(value: Any, kinds: Any, where: str) -> None:
    """Check that a value has one of the types `kinds`; a bool is not accepted as an int.

    Raises:
        ArtefactError: it has another type.
    """
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is int):
        raise ArtefactError(f"{where} is {value!r} of type {type(value).__name__}")


def choice_from(content: Any, group: str, where: str) -> Choice:
    """Return the choice of a component of `group` that a JSON object describes.

    Raises:
        ArtefactError: it has other keys, values of another type, or another group.
    """
    check_keys(content, [one.name for one in dataclasses.fields(Choice)], where)
    for key in ("group", "name", "distribution", "version"):
        check_type(content[key], str, f"{where}.{key}")
    check_type(content["params"], dict, f"{where}.params")
    if content["group"] != group:
        raise ArtefactError(f"{where}: group is {content['group']!r}, expected {group!r}")
    return Choice(**content)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key occurs twice")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")

"""Values of a foreign configuration: each is checked when it is read, and nothing in it is resolved."""

import math
from collections.abc import Mapping
from typing import Any

from bionemo_core.errors import ArtefactError

_REQUIRED: Any = object()
MAX_SIZE = 2**24
"""The largest size of a model that is accepted; a larger number is a mistake or an attack on memory."""


class ForeignConfig:
    """Plain values under string keys, with the name of their source for messages."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def has(self, key: str) -> bool:
        """Return whether `key` has a value other than null."""
        return self.values.get(key) is not None

    def size(self, key: str, default: int = _REQUIRED) -> int:
        """Return the whole number under `key`, from 1 to `MAX_SIZE`.

        Raises:
            ArtefactError: it is missing and has no default, or is not such a number.
        """
        value = self._value(key, default)
        if type(value) is not int or not 1 <= value <= MAX_SIZE:
            raise self.refusal(key, value, f"a whole number from 1 to {MAX_SIZE}")
        return value

    def number(self, key: str, default: float = _REQUIRED) -> float:
        """Return the finite number under `key`.

        Raises:
            ArtefactError: it is missing and has no default, or is not such a number.
        """
        value = self._value(key, default)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self.refusal(key, value, "a number")
        return float(value)

    def flag(self, key: str, default: bool = _REQUIRED) -> bool:
        """Return the true or false under `key`.

        Raises:
            ArtefactError: it is missing and has no default, or is neither.
        """
        value = self._value(key, default)
        if type(value) is not bool:
            raise self.refusal(key, value, "true or false")
        return value

    def text(self, key: str, default: str = _REQUIRED) -> str:
        """Return the text under `key`.

        Raises:
            ArtefactError: it is missing and has no default, or is not a text.
        """
        value = self._value(key, default)
        if type(value) is not str:
            raise self.refusal(key, value, "a text")
        return value

    def section(self, key: str) -> "ForeignConfig":
        """Return the mapping under `key`; an empty one if there is none.

        Raises:
            ArtefactError: it is not a mapping.
        """
        value = self._value(key, {})
        if not isinstance(value, dict):
            raise self.refusal(key, value, "a mapping")
        return ForeignConfig(value, f"{self.where}: {key}")

    def must_be(self, key: str, *allowed: Any, default: Any = None) -> None:
        """Check that the value under `key` is one of the allowed values.

        Raises:
            ArtefactError: it is another, so the model computes something that is not supported.
        """
        value = self.values.get(key, default)
        if value not in allowed:
            expected = " or ".join(repr(choice) for choice in allowed)
            raise self.refusal(key, value, f"{expected}; nothing else is supported")

    def refusal(self, key: str, value: Any, expected: str) -> ArtefactError:
        """Return the error for a value that cannot be used."""
        return ArtefactError(f"{self.where}: {key} is {str(value)[:80]!r}, expected {expected}.")

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            if default is _REQUIRED:
                raise ArtefactError(f"{self.where}: {key} is missing; the model cannot be built without it.")
            return default
        return value

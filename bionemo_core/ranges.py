"""Ranges of numeric keys, declared in their annotations: `num_layers: Count = 6`, `dropout: Dropout = 0.1`.

A range is checked when a run is composed, when it is read from a file, and before a component is built.
No `from __future__ import annotations` here: the configuration reads these annotations at run time.
"""

import math
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from bionemo_core.errors import ConfigError


class Range(NamedTuple):
    """The values that a number may have; `above` and `below` exclude their ends."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def admits(self, value: float) -> bool:
        """Return whether a number is finite and in the range."""
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Return the range in words: `1 or more`, `0 to 1`, `above 0`."""
        if self.least is not None and self.most is not None:
            return f"{self.least:,} to {self.most:,}"
        limits = [
            "" if self.least is None else f"{self.least:,} or more",
            "" if self.above is None else f"above {self.above:,}",
            "" if self.most is None else f"at most {self.most:,}",
            "" if self.below is None else f"below {self.below:,}",
        ]
        return " and ".join(filter(None, limits)) or "a finite number"


ANY = Range()

Count = Annotated[int, Range(least=1)]
Natural = Annotated[int, Range(least=0)]
Integer = Annotated[int, ANY]
Number = Annotated[float, ANY]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(least=0, most=1)]
Dropout = Annotated[float, Range(least=0, below=1)]
SequenceLength = Annotated[int, Range(least=3)]
"""A length in tokens: BOS, one residue, EOS."""


def split_range(kind: Any) -> tuple[Any, Range | None]:
    """Return an annotation without `Annotated`, and the range that it holds, if any."""
    if get_origin(kind) is Annotated:
        plain, *notes = get_args(kind)
        return plain, next((note for note in notes if isinstance(note, Range)), None)
    members = get_args(kind)
    if not members:
        return kind, None
    parts = [split_range(member) for member in members]
    found = next((limits for _, limits in parts if limits is not None), None)
    if found is None:
        return kind, None
    plain = tuple(part for part, _ in parts)
    return (list[plain[0]] if get_origin(kind) is list else Union[plain]), found  # type: ignore[valid-type]  # noqa: UP007 - members are known at run time only


def ranges_of(owner: type) -> dict[str, Range]:
    """Return the range of each field of a dataclass that has one, by name."""
    hints = get_type_hints(owner, include_extras=True)
    return {name: limits for name, kind in hints.items() if (limits := split_range(kind)[1]) is not None}


def check_range(key: str, value: Any, limits: Range | None) -> None:
    """Check the number, or each number of the list, that a key has; other values are not checked.

    Raises:
        ConfigError: a number is out of the range, or is not finite.
    """
    for number in value if isinstance(value, list | tuple) else [value]:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if not (limits or ANY).admits(number):
            finite = "" if math.isfinite(number) or (limits or ANY) == ANY else "a finite number, "
            raise ConfigError(f"{key}: got {number}, expected {finite}{limits or ANY}.")


def check_fields(owner: Any, prefix: str = "") -> None:
    """Check every field of an instance of a dataclass.

    Raises:
        ConfigError: a number is out of its range; the message names the first such field.
    """
    for name, limits in ranges_of(type(owner)).items():
        check_range(f"{prefix}{name}", getattr(owner, name), limits)

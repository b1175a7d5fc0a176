"""Keys that a task does not read beside the others that are given: they are refused, as they would have no effect."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from bionemo_core.errors import ConfigError
from bionemo_core.plurals import leave_out


def refuse_unread(settings: Any, names: Sequence[str], why: str, prefix: str = "task") -> None:
    """Check that keys which nothing reads keep their defaults.

    Args:
        settings: a frozen dataclass of keys.
        names: the fields that nothing reads in this mode.
        why: when that is so, such as `with task.variants`.
        prefix: the group of the keys.

    Raises:
        ConfigError: one of them has another value than its default.
    """
    defaults = {one.name: one.default for one in dataclasses.fields(settings)}
    given = [name for name in names if getattr(settings, name) != defaults[name]]
    if given:
        listed = ", ".join(f"{prefix}.{name}" for name in given)
        raise ConfigError(f"{listed}: not used {why}. {leave_out(given)}")

"""Keys that the chosen task does not use: refused where they were typed, and named in a line where a file sets them."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bionemo_core.config.task_spec import OF_MACHINE, TaskSpec
from bionemo_core.errors import ConfigError
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.plurals import leave_out

_NOTHING = ("[]", "null")
"""Values that choose nothing."""

_OF_SOURCE = ("restore", "connector")
"""Groups that say how the weights of `restore_from_path` are loaded."""


def check_source(typed: Iterable[str], restore_from_path: str | None) -> None:
    """Check that weights are loaded where it was typed how to load them.

    Args:
        typed: the overrides of the command line, with today's keys.
        restore_from_path: the model whose weights are loaded; None: random weights.

    Raises:
        ConfigError: a key was typed that has no effect.
    """
    if not restore_from_path and (refused := [key for key in _keys_of(typed) if _covers(_OF_SOURCE, key)]):
        raise ConfigError(
            f"{', '.join(refused)}: not used without restore_from_path, the model to load. {leave_out(refused)}"
        )


def check_unused(
    task: RegisteredComponent,
    typed: Iterable[str],
    in_files: Mapping[Path, Iterable[str]],
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Refuse typed keys that the task does not use; print a note about such keys in the user's files.

    A file may serve several tasks, so its keys are not refused. Neither are typed keys that describe the machine, such
    as `trainer.num_threads`.

    Args:
        task: the chosen task.
        typed: the overrides of the command line, with today's keys.
        in_files: the keys that each of the user's files sets.
        settings: the task's own keys, on which it may depend what it uses.

    Raises:
        ConfigError: one was typed that the task does not use.
    """
    assert isinstance(task.component, TaskSpec)
    typed = list(typed)
    for way, places in task.component.unused_by(settings or {}).items():
        _check_places(task, f"task={task.name}{way and f' with task.{way}'}", places, _keys_of(typed), in_files)


def _check_places(
    task: RegisteredComponent,
    named: str,
    places: Sequence[str],
    typed: Sequence[str],
    in_files: Mapping[Path, Iterable[str]],
) -> None:
    unused = [key for key in typed if _covers(places, key)]
    if refused := [key for key in unused if not _covers(OF_MACHINE, key)]:
        has_input = any(key.name == "input" for key in task.keys) and _covers(["data"], refused[0])
        raise ConfigError(
            f"{', '.join(refused)}: not used by {named}{', which reads task.input' if has_input else ''}. "
            f"{leave_out(refused)}"
        )
    lines = [f"{named} does not use {', '.join(unused)}."] if unused else []
    for path, names in in_files.items():
        if left := [key for key in dict.fromkeys(names) if _covers(places, key)]:
            lines.append(f"{path}: {named} does not use {', '.join(left)}.")
    for line in lines:
        sys.stderr.write(f"note: {line}\n")


def _keys_of(typed: Iterable[str]) -> list[str]:
    """Return the keys that were given a value, each once."""
    pairs = (override.partition("=") for override in typed)
    return list(dict.fromkeys(key.lstrip("+~") for key, _, value in pairs if value not in _NOTHING))


def _covers(places: Iterable[str], key: str) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)

"""Keys that the chosen task does not use: refused where they were typed, and named in a line where a file sets them."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from bionemo_core.config.task_spec import OF_MACHINE, TaskSpec
from bionemo_core.errors import ConfigError
from bionemo_core.plugins import RegisteredComponent

_NOTHING = ("[]", "null")


def check_unused(task: RegisteredComponent, typed: Iterable[str], in_files: Mapping[Path, Iterable[str]]) -> None:
    """Check that the task uses each key that was typed; say which of them, or of a file's, it leaves alone.

    A file may serve several tasks. So may what describes the machine, such as `trainer.num_threads`.

    Args:
        task: the chosen task.
        typed: the overrides of the command line, with today's keys.
        in_files: the keys that each of the user's files sets.

    Raises:
        ConfigError: one was typed that the task does not use.
    """
    assert isinstance(task.component, TaskSpec)
    places = task.component.unused
    pairs = (override.partition("=") for override in typed)
    keys = [key.lstrip("+~") for key, _, value in pairs if value not in _NOTHING]
    unused = [key for key in dict.fromkeys(keys) if _covers(places, key)]
    if refused := [key for key in unused if not _covers(OF_MACHINE, key)]:
        has_input = any(key.name == "input" for key in task.keys) and _covers(["data"], refused[0])
        raise ConfigError(
            f"{', '.join(refused)}: not used by task={task.name}{', which reads task.input' if has_input else ''}. "
            f"Leave {'it' if len(refused) == 1 else 'them'} out."
        )
    lines = [f"task={task.name} does not use {', '.join(unused)}."] if unused else []
    for path, names in in_files.items():
        if left := [key for key in dict.fromkeys(names) if _covers(places, key)]:
            lines.append(f"{path}: task={task.name} does not use {', '.join(left)}.")
    for line in lines:
        sys.stderr.write(f"note: {line}\n")


def _covers(places: Iterable[str], key: str) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)

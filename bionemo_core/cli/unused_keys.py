"""Keys without effect: of Hydra, or those that the chosen task does not use.

Typed ones are refused; those that a file sets are named in a line.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bionemo_core.config.task_spec import OF_MACHINE, TaskSpec
from bionemo_core.config.v1.rewriting import SWEEP_FLAGS
from bionemo_core.errors import ConfigError
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.plurals import leave_out

_NOTHING = ("[]", "null")
"""Values that choose nothing."""

_OF_SOURCE = ("restore", "connector")
"""Groups that say how the weights of `restore_from_path` are loaded."""

_HYDRA_ALWAYS = ("hydra.searchpath",)
"""Keys of Hydra that always have an effect; others have one in a sweep."""
_HYDRA_NEVER = ("hydra.run", "hydra.mode")
"""Those that have none in a sweep either."""
_OF_LIGHTNING = "hydra.job.name=train_ddp_process_"
"""Lightning adds this key, and others, where it starts the other ranks with the same command."""
_FLAGS_THAT_SHOW = ("--cfg", "-c", "--info", "-i")
"""With these, Hydra prints its keys and nothing runs."""
_HYDRA_ADVICE = {
    "hydra.run": "home=DIR and name=NAME say where a run is written.",
    "hydra.sweep": "home=DIR and name=NAME say where a run is written.",
    "hydra.job": "A run stays in the folder that it is started in.",
    "hydra.mode": "For a sweep, type -m.",
}


def check_hydra_keys(arguments: Sequence[str]) -> None:
    """Check that each key of Hydra on the command line changes something.

    Raises:
        ConfigError: one does not; the message says what to type instead.
    """
    shown = any(argument.partition("=")[0] in _FLAGS_THAT_SHOW for argument in arguments)
    if shown or any(argument.startswith(_OF_LIGHTNING) for argument in arguments):
        return
    sweep = any(argument in SWEEP_FLAGS for argument in arguments)
    for argument in arguments:
        key = argument.partition("=")[0].lstrip("+~")
        dotted = key.replace("/", ".")
        never = _covers(_HYDRA_NEVER, dotted)
        if not dotted.startswith("hydra.") or _covers(_HYDRA_ALWAYS, dotted) or (sweep and not never):
            continue
        when = "" if never else " without -m, which starts a sweep"
        advice = next((text for place, text in _HYDRA_ADVICE.items() if _covers([place], dotted)), "Leave it out.")
        raise ConfigError(f"{key}: this key of Hydra has no effect{when}. {advice}")


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
    """Return whether a dotted key is one of these keys and groups, or is in one of these groups."""
    return any(key == place or key.startswith(f"{place}.") for place in places)

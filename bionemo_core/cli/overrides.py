"""Prepares a typed command line for Hydra: config folders, v1 keys and names of components."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from bionemo_core.cli import SUBCOMMANDS
from bionemo_core.cli.unused_keys import check_hydra_keys
from bionemo_core.config.schema import CORE_GROUPS
from bionemo_core.config.task_spec import TaskSpec
from bionemo_core.config.v1.rewriting import rewrite_command_line
from bionemo_core.config.value_checks import refuse_null_group
from bionemo_core.errors import ConfigError
from bionemo_core.plugins import RegisteredComponent, Registry
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.plugins.hookspecs import GROUPS

CONFIG_DIR_FLAGS = ("--config-dir", "-cd")
_OVERRIDE = re.compile(r"~|[^-=][^=]*=")
_FLAGS_WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--info", "-i"}
_FLAGS_WITH_VALUE |= {"--experimental-rerun"}
_FLAGS = {"--help", "--hydra-help", "--version", "--resolve", "--run", "--multirun", "--shell-completion"}
_FLAGS |= {flag for flag in _FLAGS_WITH_VALUE if flag.startswith("--")}
_SHORT_FLAG = re.compile(r"-[hcprmis]")
NO_NAME = ("null", "", "???")


@dataclass(frozen=True)
class CommandLine:
    """Arguments for Hydra, the user's folders of YAML, and notes to show."""

    arguments: list[str]
    folders: list[Path]
    notes: list[str]


def prepare_command_line(typed: list[str], registry: Registry) -> CommandLine:
    """Return the command line with today's keys, after checking that every component in it exists.

    Raises:
        ConfigError: a word is neither a key with a value nor an option, a name is unknown or ambiguous, a v1 key is
            not supported, a key of Hydra has no effect, a group is null, or a folder is missing.
    """
    check_hydra_keys(typed)
    arguments, folders = _split_folders(typed)
    _check_words(arguments, registry)
    arguments, notes = rewrite_command_line(arguments, component_keys(registry))
    arguments = [_none_as_list(argument) for argument in [*arguments, *_null_choices(arguments, registry)]]
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if separator and key.lstrip("+") in CORE_GROUPS and value in NO_NAME:
            refuse_null_group(key.lstrip("+"))
        if separator and key in GROUPS:
            _check_names(key, value, folders, registry)
    return CommandLine(_overrides_first(arguments), folders, notes)


def component_keys(registry: Registry) -> frozenset[str]:
    """Return every `group.parameter` of a component; such a key is never treated as a v1 key."""
    return frozenset(key for registered in registry.components() for key in keys_of(registered))


def keys_of(registered: RegisteredComponent) -> list[str]:
    """Return the dotted keys of one component."""
    return [f"{registered.group}.{key.name}" for key in registered.keys]


def known_keys(registry: Registry) -> list[str]:
    """Return every dotted key that a run can have."""
    core = [f"{group}.{one.name}" for group, schema in CORE_GROUPS.items() for one in fields(schema)]
    return sorted({*core, *component_keys(registry), "name", "home", "seed", "resume", "restore_from_path"})


def _check_words(typed: list[str], registry: Registry) -> None:
    """Check that each word is `KEY=VALUE`, an option or an option's value; Hydra's own messages do not help here.

    Raises:
        ConfigError: one is not; the message says what was probably meant.
    """
    before = ""
    for position, word in enumerate(typed):
        if word.startswith("-"):
            _check_option(word.partition("=")[0], registry)
        elif not _OVERRIDE.match(word) and before not in _FLAGS_WITH_VALUE:
            following = next(iter(typed[position + 1 :]), "")
            hint = _hint_for_word(word, before, following, registry)
            raise ConfigError(
                f"{word!r} is neither a command nor a setting such as KEY=VALUE.{hint} `bionemo-run help` lists the "
                "commands and the keys."
            )
        before = word


def _check_option(option: str, registry: Registry) -> None:
    is_long = option.startswith("--")  # Hydra's parser takes the beginning of an option for the whole
    if any(one.startswith(option) for one in _FLAGS) if is_long else _SHORT_FLAG.match(option):
        return
    key = option.lstrip("-").replace("-", "_")
    hint = did_you_mean(option, _FLAGS) or did_you_mean(key, known_keys(registry))
    raise ConfigError(f"{option}: there is no such option.{hint} Keys are typed as KEY=VALUE, without '-'.")


def _hint_for_word(word: str, before: str, following: str, registry: Registry) -> str:
    if before.endswith("=") or word.startswith("=") or following.startswith("="):
        return " Type no spaces around '='."
    if word in SUBCOMMANDS:
        return f" The command {word} comes first: bionemo-run {word}."
    if word in GROUPS and following in registry.names(word):
        return f" Did you mean {word}={following}?"
    choices = [f"{one.group}={one.name}" for one in registry.components() if one.name == word]
    if choices:
        return f" Did you mean {' or '.join(choices)}?"
    return did_you_mean(word, [*SUBCOMMANDS, "--version", *(one.name for one in registry.components())])


def _null_choices(arguments: list[str], registry: Registry) -> list[str]:
    """Return `model=null`, and for some tasks `data=null`, if a task opens a model or needs none and none is chosen."""
    keys = {argument.partition("=")[0].lstrip("+") for argument in arguments}
    names = [argument.partition("=")[2] for argument in arguments if argument.startswith("task=")]
    found = [one.component for name in names if (one := registry.find("task", name))]
    tasks = [task for task in found if isinstance(task, TaskSpec)]
    if "model" in keys or not any(task.opens_model or not task.needs_model for task in tasks):
        return []
    data_chosen = "experiment" in keys or any(key == "data" or key.startswith("data.") for key in keys)
    return ["model=null", *(["data=null"] if all(task.uses_run_data for task in tasks) and not data_chosen else [])]


def _none_as_list(argument: str) -> str:
    """Return `tokenizer=null` as `tokenizer=[]`: Hydra has no null choice, but takes an empty list of choices."""
    key, _, value = argument.partition("=")
    return f"{key}=[]" if key in GROUPS and value == "null" else argument


def _overrides_first(arguments: list[str]) -> list[str]:
    """Return the arguments with flags at the end, because Hydra's parser needs all overrides together."""
    overrides = [argument for argument in arguments if _OVERRIDE.match(argument)]
    return [*overrides, *(argument for argument in arguments if not _OVERRIDE.match(argument))]


def _split_folders(typed: list[str]) -> tuple[list[str], list[Path]]:
    arguments: list[str] = []
    folders: list[Path] = []
    remaining = iter(typed)
    for argument in remaining:
        flag, separator, value = argument.partition("=")
        if flag not in CONFIG_DIR_FLAGS:
            arguments.append(argument)
            continue
        folder = value if separator else next(remaining, "")
        if not folder:
            raise ConfigError(f"{flag}: expected a folder after it, for example {flag} my_configs")
        folders.append(Path(folder).expanduser())
    return arguments, folders


def _check_names(group: str, value: str, folders: Iterable[Path], registry: Registry) -> None:
    for name in (part.strip().strip("'\"") for part in value.strip("[]").split(",")):
        if name in NO_NAME or "${" in name or "(" in name:  # sweeps of Hydra: choice(a,b), glob(*)
            continue
        if any((folder / group / f"{name}.yaml").is_file() for folder in folders):
            continue
        registry.get(group, name)

"""`bionemo-run model=NAME ...`: composes the configuration with Hydra and runs its task."""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bionemo_core._early_signals import is_first_rank
from bionemo_core.builtin import load_registry
from bionemo_core.cli.overrides import component_keys, keys_of, known_keys, prepare_command_line
from bionemo_core.cli.unused_keys import check_source, check_unused
from bionemo_core.errors import ConfigError
from bionemo_core.io.object_storage import is_object
from bionemo_core.io.staging import outgoing, stage
from bionemo_core.io.std_streams import keep_working
from bionemo_core.machine import home_path
from bionemo_core.plugins import Registry
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.plugins.hookspecs import noun_of, typed_choice, typed_key

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from bionemo_core.config.schema import RunSpec

# Hydra and hydra-zen are imported in the bodies, so that an error about a misspelt name does not wait for them.

_UNKNOWN_KEY = re.compile(r"(?:(?:Could not override|the key) '(?P<key>[\w.]+)'|Key '(?P<leaf>\w+)' (?:is )?not in)")


def run(arguments: list[str]) -> int:
    """Compose the configuration and run its task, or a sweep of them.

    Raises:
        ConfigError: the command line or a user's file is invalid.
    """
    registry = load_registry()
    typed = _prepare(arguments, registry)
    if any(argument.startswith("-") for argument in typed):
        from bionemo_core.cli.sweep import table_at_end
        from bionemo_core.config.hydra_session import launch

        with _suggestions(registry), table_at_end():
            launch(_sweep_job, typed)
        return 0
    run_task(_compose(typed, registry))
    return 0


def compose(arguments: list[str], registry: Registry) -> "DictConfig":
    """Return the configuration of the settings that would be typed after `bionemo-run`.

    Raises:
        ConfigError: a setting or a user's file is invalid.
    """
    return _compose(_prepare(arguments, registry), registry)


def _prepare(arguments: list[str], registry: Registry) -> list[str]:
    """Return the settings with today's keys, and make components and folders known to Hydra."""
    command = prepare_command_line(arguments, registry)
    for note in command.notes:
        sys.stderr.write(f"note: {note}\n")
    from bionemo_core.config.store import fill_store
    from bionemo_core.config.v1.user_yaml import use_folders

    fill_store(registry)
    use_folders(command.folders, component_keys(registry))
    return command.arguments


def _compose(typed: list[str], registry: Registry) -> "DictConfig":
    from bionemo_core.config.hydra_session import composer

    _check_values(typed, registry)
    with _suggestions(registry), composer() as compose_typed:
        config = compose_typed(typed)
    _check_unused(config, typed, registry)
    return config


def _check_values(typed: Iterable[str], registry: Registry) -> None:
    """Check that no choice of a component is empty, for which Hydra's message is a page.

    Raises:
        ConfigError: one is.
    """
    for argument in typed:
        group, equals, name = argument.partition("=")
        if equals and not name and (names := registry.names(group)):
            raise ConfigError(f"{group}= names nothing. Leave it out, or choose one of {', '.join(names)}.")


def _check_unused(config: "DictConfig", typed: Iterable[str], registry: Registry) -> None:
    from bionemo_core.config.store import COMPONENT_KEY
    from bionemo_core.config.v1.user_yaml import UserYaml

    if config.task:
        typed = list(typed)
        check_unused(registry.get("task", config.task[COMPONENT_KEY]), typed, UserYaml.keys_read, config.task)
        check_source(typed, config.restore_from_path)


def run_task(config: "DictConfig") -> Any:
    """Run the task of a composed configuration, and return what its function returns.

    Raises:
        BioNeMoError: every failure that a user can meet.
    """
    from bionemo_core.config.spec import composed_yaml, make_spec
    from bionemo_core.config.task_spec import task_spec

    keep_working()
    registry = load_registry()
    spec = make_spec(config, registry)
    run = task_spec(registry, spec.task.qualified_name).load()
    with _local_paths(spec) as local:
        return run(local, registry, composed_yaml=composed_yaml(config))


@contextmanager
def _local_paths(spec: "RunSpec") -> "Iterator[RunSpec]":
    """Yield the run with paths of files where keys of its task name objects of a storage service.

    Raises:
        DataError: there is no such object.
        NetworkError: the service does not give an input, or does not accept the output.
    """
    params, home = spec.task.params, home_path(spec.home)
    if not any(isinstance(value, str) and is_object(value) for value in params.values()):
        yield spec
        return
    inputs = {name: value for name, value in params.items() if name != "output"}
    staged = {name: stage(value, f"task.{name}", home) for name, value in inputs.items()}
    overwrite, first = params.get("overwrite"), is_first_rank()
    with outgoing(params.get("output"), "task.output", home, overwrite=overwrite, send=first) as output:
        local = {name: output if name == "output" else staged[name] for name in params}
        yield replace(spec, task=replace(spec.task, params=local))


def _sweep_job(config: "DictConfig") -> float | None:
    """Run one job of a sweep, possibly in a process that has not called `run`; return what a sweeper minimises."""
    from hydra.core.hydra_config import HydraConfig

    from bionemo_core.cli.sweep import record_job

    job = HydraConfig.get().job
    sys.stderr.write(f"job {job.num}: {job.override_dirname}\n")
    _check_unused(config, HydraConfig.get().overrides.task, load_registry())
    return record_job(run_task, config)


@contextmanager
def _suggestions(registry: Registry) -> Iterator[None]:
    """Replace Hydra's message about an unknown key with one that names similar keys."""
    from hydra.errors import HydraException

    try:
        yield
    except HydraException as error:
        message = _with_key(error)
        if unknown := _explain_unknown_key(message, registry):
            raise ConfigError(unknown) from None
        if message != str(error):
            raise ConfigError(message) from error
        raise


def _with_key(error: Exception) -> str:
    """Return Hydra's message; one about a key of a file names the file and the key, which Hydra leaves to its cause."""
    message = str(error)
    place, composing, _ = message.partition("ConfigKeyError raised while composing config")
    cause: BaseException | None = error.__cause__ or error.__context__
    while composing and cause is not None:
        if key := getattr(cause, "full_key", None):
            return f"{place}the key '{key}' does not exist."
        cause = cause.__cause__ or cause.__context__
    return message


def _explain_unknown_key(message: str, registry: Registry) -> str:
    """Return the message about the unknown key that Hydra's message names; empty if it names none."""
    match = _UNKNOWN_KEY.search(message)
    if match is None:
        return ""
    key = match["key"] or match["leaf"]
    first_line = message.splitlines()[0].removesuffix(".")
    names_only_the_key = first_line == f"Could not override '{key}'"
    problem = f"there is no key '{key}'" if names_only_the_key else first_line
    if owners := [one for one in registry.components() if key in keys_of(one)]:
        typed = typed_key(owners[0].group, owners[0].name, key.rpartition(".")[2])
        if names_only_the_key and not typed:
            problem = f"the chosen {noun_of(owners[0].group)} has no key '{key}'"
        *others, last = (typed_choice(one.group, one.name) for one in owners)
        choices, that = (f"{', '.join(others)} and {last}", "one") if others else (last, "that")
        how = f", and give the key as '{typed}'" if typed else ""
        return f"{problem}. It is a key of {choices}; choose {that}{how}, or leave the key out."
    known = known_keys(registry)
    if match["key"] is None:
        known = sorted({dotted.rpartition(".")[2] for dotted in known})
    if close := did_you_mean(key, known):
        return f"{problem}.{close}"
    return f"{problem}. `bionemo-run help` lists the keys." if names_only_the_key else ""

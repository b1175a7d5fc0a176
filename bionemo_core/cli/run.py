"""`bionemo-run model=NAME ...`: composes the configuration with Hydra and hands the run to its task."""

import os
import re
import sys
from typing import TYPE_CHECKING

from bionemo_core.builtin import load_registry
from bionemo_core.cli.overrides import keys_of, own_keys, prepared
from bionemo_core.errors import ConfigError
from bionemo_core.plugins import Registry
from bionemo_core.plugins.did_you_mean import did_you_mean

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Hydra and hydra-zen are imported in the bodies: a name that is misspelt is answered without them.

_UNKNOWN_KEY = re.compile(r"(?:Could not override '(?P<key>[\w.]+)'|Key '(?P<leaf>\w+)' (?:is )?not in)")


class _Invocation:
    """What outlives Hydra's call in this process."""

    typed_argv: list[str] | None = None
    failure: Exception | None = None


def run(arguments: list[str]) -> int:
    """Composes, and runs one job or a sweep of them.

    Raises:
        ConfigError: The command line or a file of the user's cannot be used.
    """
    registry = load_registry()
    command = prepared(arguments, registry)
    for note in command.notes:
        sys.stderr.write(f"note: {note}\n")
    from bionemo_core.config.store import fill_store
    from bionemo_core.config.v1.user_yaml import use_folders

    fill_store(registry)
    use_folders(command.folders, own_keys(registry))
    _launch(command.arguments, registry)
    if _Invocation.failure is not None:
        failure, _Invocation.failure = _Invocation.failure, None
        raise failure
    return 0


def _launch(arguments: list[str], registry: Registry) -> None:
    import hydra
    from hydra.errors import HydraException

    from bionemo_core.config.store import CONFIG_NAME

    # Hydra would print failures in its own words and exit with 1; asked for the whole error it lets them through.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _Invocation.typed_argv = list(sys.argv)
    sys.argv = [sys.argv[0], *arguments]
    try:
        hydra.main(config_path=None, config_name=CONFIG_NAME, version_base="1.3")(_job)()
    except HydraException as error:
        suggestion = _suggestion(str(error), registry)
        if suggestion:
            raise ConfigError(f"{str(error).splitlines()[0]}{suggestion}") from None
        raise
    finally:
        sys.argv = _Invocation.typed_argv


def _job(config: "DictConfig") -> None:
    """One job of Hydra's; in a sweep it may run in a process that has never seen `run`."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if _Invocation.typed_argv is not None:
        # Lightning starts this machine's other ranks by repeating sys.argv, v1 spellings and --config-dir included.
        sys.argv = list(_Invocation.typed_argv)
    sweep = HydraConfig.get().mode is RunMode.MULTIRUN
    if sweep:
        job = HydraConfig.get().job
        sys.stderr.write(f"job {job.num}: {job.override_dirname}\n")
    try:
        _run_task(config)
    except Exception as error:
        if sweep:
            raise
        _Invocation.failure = error


def _run_task(config: "DictConfig") -> None:
    from bionemo_core.config.spec import composed_yaml, make_spec
    from bionemo_core.config.task_spec import task_spec

    registry = load_registry()
    spec = make_spec(config, registry)
    run_task = task_spec(registry, f"{spec.task.distribution}/{spec.task.name}").load()
    run_task(spec, registry, composed_yaml=composed_yaml(config))


def _suggestion(message: str, registry: Registry) -> str:
    """Close keys for one that Hydra did not find."""
    match = _UNKNOWN_KEY.search(message)
    if match is None:
        return ""
    known = known_keys(registry)
    wanted = match["key"] or match["leaf"]
    owners = [f"{one.group}={one.name}" for one in registry.components() if wanted in keys_of(one)]
    if owners:
        stop = "" if message.splitlines()[0].endswith(".") else "."
        return f"{stop} It is a key of {' and '.join(owners)}; choose that, or leave the key out."
    if match["key"] is None:
        known = sorted({key.rpartition(".")[2] for key in known})
    close = did_you_mean(wanted, known)
    return close and f".{close}" if not message.splitlines()[0].endswith(".") else close


def known_keys(registry: Registry) -> list[str]:
    """Every dotted key that a run can have."""
    import dataclasses

    from bionemo_core.config.schema import CORE_GROUPS

    core = [f"{group}.{one.name}" for group, schema in CORE_GROUPS.items() for one in dataclasses.fields(schema)]
    return sorted({*core, *own_keys(registry), "name", "home", "seed", "resume", "restore_from_path"})

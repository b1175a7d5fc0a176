"""Checks of a component when its plugin is loaded, so that a bad component cannot harm other plugins."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from bionemo_core.errors import ConfigError
from bionemo_core.plugins.component import CAPABILITIES, Component
from bionemo_core.plugins.configure import NO_VALUE, TARGET, ComponentConfig, ConfigKey, factory_of, keys_of_config
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.plugins.hookspecs import GROUPS
from bionemo_core.plugins.type_checks import plainly_fits, plainly_known

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
RESERVED_NAMES = frozenset({"null", "none", "true", "false", "nan", "inf"})
VALUE_GROUPS = ("trainer", "batch", "parallel", "checkpoint")
"""Groups with one schema; a model's defaults for them are values without a `base`."""

BASED_GROUPS = ("optim", "scheduler")
"""Groups of the core's components; a model's defaults for them name the entry that they refine as `base`."""

RESERVED_PARAMETERS = frozenset({"defaults"})


def check_component(component: Any, group: str) -> None:
    """Check a component of `group`.

    Raises:
        ConfigError: it is not a `Component`, or its name, config, capabilities or defaults are invalid.
    """
    if not isinstance(component, Component):
        raise ConfigError(f"got {component!r} of type {type(component).__name__}, expected a Component")
    _check_name(component.name)
    if group == "task" and not hasattr(component, "entry"):
        raise ConfigError(f"task {component.name!r}: got a Component, expected a bionemo_core.TaskSpec")
    where = f"{group} {component.name!r}"
    _check_config(component.config, where)
    if group == "reader" and keys_of_config(component.config):
        raise ConfigError(f"{where}: a reader takes no parameters, because a file's extension chooses it. Remove them.")
    for capability in sorted(map(str, component.capabilities)):
        if capability not in CAPABILITIES:
            raise ConfigError(
                f"{where}: unknown capability {capability!r}.{did_you_mean(capability, CAPABILITIES)} "
                f"Known: {', '.join(sorted(CAPABILITIES))}."
            )
    if component.weights is not None and group != "model":
        raise ConfigError(f"{where}: only a model can have weights, but this is in the group {group!r}")
    _check_defaults(component.defaults, group, where)


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.lower() in RESERVED_NAMES:
        raise ConfigError(
            f"bad component name {name!r}: expected a letter, then letters, digits, '_' or '-', and not one of "
            f"{', '.join(sorted(RESERVED_NAMES))}"
        )


def _check_config(config: Any, where: str) -> None:
    is_zen_config = isinstance(config, type) and dataclasses.is_dataclass(config) and hasattr(config, TARGET)
    if not isinstance(config, ComponentConfig) and not is_zen_config:
        raise ConfigError(f"{where}: config is {config!r}, expected the result of configure(factory)")
    keys = keys_of_config(config)
    if not all(_is_plain(key) for key in keys):
        _ask_omegaconf(keys, where)
    factory_of(config)
    for key in keys:
        if key.name in RESERVED_PARAMETERS or key.name.startswith("_"):
            raise ConfigError(f"{where}: the parameter name {key.name!r} is reserved; give it another name")


def _is_plain(key: ConfigKey) -> bool:
    if isinstance(key.default, str) and key.default == NO_VALUE:
        return plainly_known(key.type)
    return plainly_fits(key.default, key.type)


def _ask_omegaconf(keys: tuple[ConfigKey, ...], where: str) -> None:
    from omegaconf import OmegaConf

    try:
        OmegaConf.structured(dataclasses.make_dataclass("Checked", [(key.name, key.type, key.field) for key in keys]))
    except Exception as error:  # OmegaConf, dataclasses and get_type_hints each raise their own errors
        kind = type(error).__name__
        raise ConfigError(f"{where}: its config is invalid ({kind}: {_first_line(error)})") from error


def _check_defaults(defaults: Any, group: str, where: str) -> None:
    if not isinstance(defaults, Mapping):
        raise ConfigError(f"{where}: defaults is {defaults!r}, expected a mapping of group to name or values")
    if defaults and group not in ("model", "task"):
        raise ConfigError(f"{where}: only a model can have defaults, but this is in the group {group!r}")
    for key, value in defaults.items():
        known = (*(name for name in GROUPS if name != "model"), *VALUE_GROUPS)
        if key not in known:
            raise ConfigError(f"{where}: defaults: unknown group {key!r}.{did_you_mean(str(key), known)}")
        if isinstance(value, str):
            if key in VALUE_GROUPS:
                raise ConfigError(f"{where}: defaults for {key!r} are {value!r}, expected a mapping of values")
        elif not isinstance(value, Mapping):
            raise ConfigError(f"{where}: defaults for {key!r} are {value!r}, expected a name or a mapping of values")
        elif key in BASED_GROUPS and not isinstance(value.get("base"), str):
            raise ConfigError(
                f"{where}: defaults for {key!r} lack 'base', the entry to refine: {{'base': 'adamw', 'lr': 2e-4}}"
            )
        elif key not in (*BASED_GROUPS, *VALUE_GROUPS):
            raise ConfigError(f"{where}: defaults for {key!r} must be a name; only the core's own groups take values")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")

"""A model's defaults for other groups: checked when its plugin is loaded, looked up when the model is chosen."""

from collections.abc import Mapping
from typing import Any

from bionemo_core.config.schema import CORE_GROUPS
from bionemo_core.errors import ConfigError
from bionemo_core.plugins import RegisteredComponent, Registry
from bionemo_core.plugins.component_checks import VALUE_GROUPS
from bionemo_core.plugins.configure import keys_of_dataclass, structured_config
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.plugins.type_checks import plainly_fits
from bionemo_core.ranges import check_range


def effective_defaults(registered: RegisteredComponent) -> dict[str, str | Mapping[str, Any]]:
    """Return a model's defaults, with `batch.packing` off if the model cannot pack and sets nothing else."""
    values = dict(registered.component.defaults)
    if registered.group == "model" and "packing" not in registered.component.capabilities:
        batch = values.get("batch", {})
        values["batch"] = {"packing": False, **(batch if isinstance(batch, Mapping) else {})}
    return values


def problem_with_defaults(registered: RegisteredComponent, registry: Registry) -> str:
    """Return what is wrong with a model's default values for the core's groups, or an empty text."""
    for group, values in registered.component.defaults.items():
        if isinstance(values, str):
            continue
        try:
            if group in VALUE_GROUPS:
                _check_schema_values(CORE_GROUPS[group], values)
            else:
                base = registry.get(group, str(values["base"]))
                refined = {key: value for key, value in values.items() if key != "base"}
                kinds = {key.name: key.type for key in base.keys}
                base.check_ranges(refined)
                if not _plainly_fit(refined, kinds):
                    base.complete(refined)
        except ConfigError as error:
            return f"model {registered.name!r}: defaults for {group!r}: {error}"
    return ""


def missing_defaults(registered: RegisteredComponent, registry: Registry) -> list[tuple[str, str]]:
    """Return the defaults, as pairs of group and name, that no loaded plugin offers."""
    return [
        (group, name)
        for group, name in registered.component.defaults.items()
        if isinstance(name, str) and registry.find(group, name, near=registered.distribution) is None
    ]


def schema_node(schema: type, values: Mapping[str, Any]) -> type:
    """Return a copy of a schema with other defaults; it is not frozen, because OmegaConf makes those read-only."""
    keys = [key._replace(default=values.get(key.name, key.default)) for key in keys_of_dataclass(schema)]
    return structured_config(schema.__name__, keys)


def _check_schema_values(schema: type, values: Mapping[str, Any]) -> None:
    keys = {key.name: key for key in keys_of_dataclass(schema)}
    for name, value in values.items():
        if name in keys:
            check_range(name, value, keys[name].limits)
    if _plainly_fit(values, {name: key.type for name, key in keys.items()}):
        return
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for name in values:
        if name not in keys:
            raise ConfigError(f"unknown key {name!r}.{did_you_mean(str(name), list(keys))}")
    try:
        OmegaConf.structured(schema_node(schema, values))
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error


def _plainly_fit(values: Mapping[str, Any], kinds: Mapping[str, Any]) -> bool:
    return all(name in kinds and plainly_fits(value, kinds[name]) for name, value in values.items())

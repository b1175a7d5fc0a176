"""The typed parameters of a component: its factory's signature, less what the core passes at run time."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from bionemo_core.errors import ConfigError
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.plugins.records import RegisteredComponent


def parameter_fields(registered: RegisteredComponent) -> list[tuple[str, Any, Any]]:
    """Triples of name, type and dataclass field, one a parameter, in the factory's order.

    The fields are new ones, so another dataclass can own them; a parameter without a default is `???`.
    """
    return [
        (parameter.name, parameter.type, _copied(parameter))
        for parameter in dataclasses.fields(registered.component.config)
        if not parameter.name.startswith("_")
    ]


def validated(registered: RegisteredComponent, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of the component: those given, converted to their types, and its defaults.

    Raises:
        ConfigError: A parameter is unknown, of another type, missing, or not a plain value.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    where = f"{registered.group} {registered.qualified_name}"
    fields = parameter_fields(registered)
    names = [name for name, _, _ in fields]
    for name in parameters:
        if name not in names:
            raise ConfigError(
                f"{where}: no parameter {name!r}.{did_you_mean(str(name), names)} It has: {', '.join(names) or 'none'}."
            )
    schema = dataclasses.make_dataclass(registered.name.replace("-", "_"), fields)
    try:
        settings = OmegaConf.merge(OmegaConf.structured(schema), dict(parameters))
        missing = sorted(OmegaConf.missing_keys(settings))
        if missing:
            raise ConfigError(f"{where}: these have no value yet: {', '.join(missing)}")
        plain = OmegaConf.to_container(settings, resolve=False)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from error
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def _copied(parameter: "dataclasses.Field[Any]") -> Any:
    if parameter.default is not dataclasses.MISSING:
        return dataclasses.field(default=parameter.default)
    if parameter.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=parameter.default_factory)
    return dataclasses.field(default="???")

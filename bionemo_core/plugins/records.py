"""What is known of each plugin and of each component, whether it could be loaded or not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from packaging.utils import canonicalize_name

from bionemo_core.errors import ConfigError
from bionemo_core.plugins.component import Component
from bionemo_core.plugins.configure import ConfigKey, factory_of, keys_of_config, structured_config
from bionemo_core.plugins.did_you_mean import did_you_mean

CORE_DISTRIBUTION = "bionemo-run"


class Status(StrEnum):
    """What became of a plugin."""

    OK = "ok"
    BROKEN = "broken"
    INCOMPATIBLE = "incompatible"
    REJECTED = "rejected"
    CONFLICTING = "conflicting"
    BLOCKED = "blocked"


@dataclass(frozen=True)
class RegisteredComponent:
    """A component with where it came from."""

    group: str
    component: Component
    distribution: str
    version: str

    @property
    def name(self) -> str:
        """The name a user types."""
        return self.component.name

    @property
    def qualified_name(self) -> str:
        """The name that no other plugin can take: `distribution/name`."""
        return f"{self.distribution}/{self.name}"

    @property
    def factory(self) -> Callable[..., Any]:
        """The function that builds it; its module is light, heavy imports are in its body."""
        return factory_of(self.component.config)

    @property
    def keys(self) -> tuple[ConfigKey, ...]:
        """Its keys, in the factory's order; one without a default has the value `???`."""
        return keys_of_config(self.component.config)

    def complete(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return all parameters: those given, converted to their types, and the defaults of the others.

        Raises:
            ConfigError: a parameter is unknown, of another type, missing, or not a plain value.
        """
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        where = f"{self.group} {self.qualified_name}"
        names = [key.name for key in self.keys]
        for name in parameters:
            if name not in names:
                close = did_you_mean(str(name), names)
                raise ConfigError(f"{where}: no parameter {name!r}.{close} It has: {', '.join(names) or 'none'}.")
        try:
            schema = OmegaConf.structured(structured_config(self.name, self.keys))
            settings = OmegaConf.merge(schema, dict(parameters))
            missing = sorted(OmegaConf.missing_keys(settings))
            if missing:
                raise ConfigError(f"{where}: these have no value yet: {', '.join(missing)}")
            plain = OmegaConf.to_container(settings, resolve=False)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from error
        assert isinstance(plain, dict)
        return {str(name): value for name, value in plain.items()}


@dataclass(frozen=True)
class PluginRecord:
    """One entry point and what became of it."""

    name: str
    distribution: str
    version: str
    module: str
    status: Status
    reason: str = ""
    trace: str = ""
    components: tuple[RegisteredComponent, ...] = ()
    seconds: float = 0.0

    @property
    def usable(self) -> bool:
        """Whether its components can be asked for, qualified at least."""
        return self.status in (Status.OK, Status.CONFLICTING)

    def describe(self) -> str:
        """One line: who, what state, why."""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.distribution} {self.version} ({self.status}){why}"


def canonical(distribution: str) -> str:
    """Return the normalised name of a distribution, so that `Bionemo_ESM` and `bionemo-esm` are one."""
    return str(canonicalize_name(distribution))

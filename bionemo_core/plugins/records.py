"""Records of plugins, loaded or not, and of their components."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from packaging.utils import canonicalize_name

from bionemo_core.errors import ConfigError
from bionemo_core.plugins.component import Component
from bionemo_core.plugins.configure import ConfigKey, factory_of, keys_of_config, structured_config
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.ranges import check_range

CORE_DISTRIBUTION = "bionemo-run"


class Status(StrEnum):
    """The outcome of finding and loading a plugin."""

    OK = "ok"
    BROKEN = "broken"
    INCOMPATIBLE = "incompatible"
    REJECTED = "rejected"
    CONFLICTING = "conflicting"
    BLOCKED = "blocked"


@dataclass(frozen=True)
class RegisteredComponent:
    """A component with the group and the distribution that it belongs to."""

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
        """The function that builds the component; heavy imports are in its body."""
        return factory_of(self.component.config)

    @property
    def keys(self) -> tuple[ConfigKey, ...]:
        """The keys, in the factory's order; the default of a key without one is `???`."""
        return keys_of_config(self.component.config)

    def complete(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return all parameters: the given ones, converted to their types, and defaults for the others.

        Raises:
            ConfigError: a parameter is unknown, missing, of another type, or not a plain value.
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
                raise ConfigError(f"{where}: these keys need a value: {', '.join(missing)}")
            plain = OmegaConf.to_container(settings, resolve=False)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from error
        assert isinstance(plain, dict)
        complete = {str(name): value for name, value in plain.items()}
        self.check_ranges(complete)
        return complete

    def check_ranges(self, parameters: Mapping[str, Any], prefix: str = "") -> None:
        """Check that every number of the parameters is in the range of its key; `prefix` is that of the keys.

        Raises:
            ConfigError: a number is not; the message names the key.
        """
        for key in self.keys:
            if key.name in parameters:
                check_range(f"{prefix or self.group}.{key.name}", parameters[key.name], key.limits)


@dataclass(frozen=True)
class PluginRecord:
    """One entry point and the outcome of loading it."""

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
        """Whether its components can be chosen, at least by their qualified names."""
        return self.status in (Status.OK, Status.CONFLICTING)

    def describe(self) -> str:
        """Return one line: the distribution, its status and the reason."""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.distribution} {self.version} ({self.status}){why}"


def normalize_name(distribution: str) -> str:
    """Return the normalised name of a distribution: `Bionemo_ESM` becomes `bionemo-esm`."""
    return str(canonicalize_name(distribution))

"""What is known of each plugin and of each component, whether it could be loaded or not."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from packaging.utils import canonicalize_name

from bionemo_core.plugins.component import Component
from bionemo_core.plugins.factories import factory_of

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
    """The normalised name of a distribution, so that `Bionemo_ESM` and `bionemo-esm` are one."""
    return str(canonicalize_name(distribution))

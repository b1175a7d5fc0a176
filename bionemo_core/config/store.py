"""Fills Hydra's store with every group through hydra-zen; the package has no YAML files.

A component is the node `group/distribution/name`, and also `group/name` unless that name is ambiguous. A node holds
the factory's parameters and the component's qualified name, but no `_target_`: the registry finds the factory.
No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Optional

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import OmegaConf
from omegaconf import __version__ as omegaconf_version

from bionemo_core.config.model_defaults import effective_defaults, schema_node
from bionemo_core.config.run_length import RESOLVERS, fit_defaults
from bionemo_core.config.schema import CORE_GROUPS, SEVERAL_AT_ONCE
from bionemo_core.plugins import RegisteredComponent, Registry
from bionemo_core.plugins.component_checks import BASED_GROUPS, VALUE_GROUPS
from bionemo_core.plugins.configure import ConfigKey, structured_config

CONFIG_NAME = "bionemo"
COMPONENT_KEY = "_component_"
_PRIMARY_NODE = f"{CONFIG_NAME}.yaml"  # as Hydra's store names it
DEFAULT_NODE = "default"
HOME_DEFAULT = "${oc.env:BIONEMO_HOME,'~/.bionemo'}"
DEFAULT_CHOICES: tuple[tuple[str, Any], ...] = (
    ("tokenizer", None),
    ("data", "sample"),
    ("trainer", DEFAULT_NODE),
    ("batch", DEFAULT_NODE),
    ("parallel", DEFAULT_NODE),
    ("checkpoint", DEFAULT_NODE),
    ("restore", DEFAULT_NODE),
    ("optim", "adamw"),
    ("scheduler", "cosine"),
    ("logger", ["csv"]),
    ("callbacks", None),
    ("connector", None),
    ("model", "???"),
    ("task", "train"),
)
"""The defaults in the order of merging. Hydra visits the list from its end. The model therefore comes after the groups
that its own list overrides, and the task, whose list overrides the model's, comes after the model. An experiment is
appended after both and overrides theirs."""


def _primary_defaults() -> list[Any]:
    chosen: list[Any] = [{group: choice} for group, choice in DEFAULT_CHOICES]
    return ["_self_", *chosen, *({f"override hydra/{kind}": "none"} for kind in ("job_logging", "hydra_logging"))]


def _hydra_folders() -> dict[str, Any]:
    # Without these settings Hydra makes `outputs/` and `multirun/` in the working folder.
    return {
        "run": {"dir": "${expanduser:${home}}"},
        "sweep": {"dir": "${expanduser:${home}}/sweeps/${now:%Y%m%d-%H%M%S}", "subdir": "."},
        "output_subdir": None,
        "callbacks": {"sweep": {"_target_": "bionemo_core.cli.sweep.RememberSweep"}},
        "job": {"name": "bionemo-run", "chdir": False},
    }


@dataclass
class Primary:
    """The top of the composed configuration."""

    defaults: list[Any] = field(default_factory=_primary_defaults)
    hydra: Any = field(default_factory=_hydra_folders)
    name: Optional[str] = None
    home: str = HOME_DEFAULT
    seed: int = 1234
    restore_from_path: Optional[str] = None
    resume: Optional[str] = None
    task: Any = None
    model: Any = None
    tokenizer: Any = None
    data: Any = None
    trainer: Any = None
    batch: Any = None
    parallel: Any = None
    checkpoint: Any = None
    restore: Any = None
    optim: Any = None
    scheduler: Any = None
    logger: Any = field(default_factory=dict)
    callbacks: Any = field(default_factory=dict)
    connector: Any = None


_filled: tuple[Registry, Any] | None = None
"""The registry that the store was filled from last, and the node of the primary configuration that this left there."""


def fill_store(registry: Registry) -> None:
    """Register the primary configuration and a node for every choice with Hydra.

    Nothing is done if the store still holds what this registry has put there.
    """
    global _filled
    repo = ConfigStore.instance().repo
    if _filled and _filled[0] is registry and _filled[1] is repo.get(_PRIMARY_NODE):
        return
    _put(None, CONFIG_NAME, lambda: Primary)
    for group, schema in CORE_GROUPS.items():
        _put(group, DEFAULT_NODE, partial(schema_node, schema, {}))
    for registered in registry.components():
        make = cache(partial(_component_node, registered, registry))
        package = f"{registered.group}.{registered.name}" if registered.group in SEVERAL_AT_ONCE else None
        is_owner = registry.owner(registered.group, registered.name) is registered
        for name in (registered.qualified_name, registered.name if is_owner else _list_name(registered)):
            _put(registered.group, name, make, package)
        for group, values in effective_defaults(registered).items():
            if not isinstance(values, str) and group in (*VALUE_GROUPS, *BASED_GROUPS):
                _put(group, _list_name(registered), partial(_refined_node, group, values, registry))
    _filled = registry, repo[_PRIMARY_NODE]


class LazyNode(ConfigNode):
    """A node of Hydra's store that is made when Hydra first reads it: a run reads about twenty of three hundred."""

    def __init__(self, name: str, group: str | None, package: str | None, make: Callable[[], type]) -> None:
        """Keep the function that makes the structured config."""
        self.name, self.group, self.package, self.provider = name, group, package, None
        self.make = make

    @cached_property
    def node(self) -> Any:  # type: ignore[override]  # Hydra reads it only
        """The structured config, as Hydra's store would hold it."""
        return OmegaConf.structured(self.make())

    def __reduce__(self) -> tuple[Any, ...]:
        """Have copies, and what a launcher sends to other processes, be nodes of Hydra's own class."""
        return ConfigNode, (self.name, self.node, self.group, self.package, self.provider)


def _put(group: str | None, name: str, make: Callable[[], type], package: str | None = None) -> None:
    """Put a node where `ConfigStore.store` would, which makes every node at once; that takes half a second."""
    folder, _, plain = f"{group}/{name}".rpartition("/") if group else ("", "", name)
    place = ConfigStore.instance().repo
    for part in filter(None, folder.split("/")):
        place = place.setdefault(part, {})
    place[f"{plain}.yaml"] = LazyNode(f"{plain}.yaml", folder or None, package, make)


def _list_name(registered: RegisteredComponent) -> str:
    """Return the name used in defaults lists, where Hydra 1.4 reads a slash as a group separator."""
    return registered.qualified_name.replace("/", "--")


def _component_node(registered: RegisteredComponent, registry: Registry) -> type:
    keys = [ConfigKey(COMPONENT_KEY, str, registered.qualified_name), *fit_defaults(registered, registered.keys)]
    overrides = _override_list(registered, registry)
    return structured_config(registered.name, keys, hydra_defaults=["_self_", *overrides] if overrides else None)


def _override_list(registered: RegisteredComponent, registry: Registry) -> list[Any]:
    """Return the defaults-list entries that choose a model's tokenizer, data and values.

    In a config of group `model` Hydra needs `override /tokenizer@_global_.tokenizer`; the plain form would look for
    `tokenizer@model.tokenizer`.
    """
    choices: dict[str, Any] = {}
    for group, value in effective_defaults(registered).items():
        if not isinstance(value, str):
            choices[group] = _list_name(registered)
            continue
        found = registry.find(group, value, near=registered.distribution)
        if found is not None:
            is_owner = registry.owner(group, found.name) is found
            choices[group] = found.name if is_owner else _list_name(found)
    return [{f"override /{group}@_global_.{group}": name} for group, name in choices.items()]


def _refined_node(group: str, values: Mapping[str, Any], registry: Registry) -> type:
    if group in VALUE_GROUPS:
        return schema_node(CORE_GROUPS[group], values)
    base = registry.get(group, str(values["base"]))
    keys = [ConfigKey(COMPONENT_KEY, str, base.qualified_name)]
    keys += fit_defaults(base, [key._replace(default=values.get(key.name, key.default)) for key in base.keys])
    return structured_config(base.name, keys)


def multiply(*factors: Any) -> int | float:
    """Return the product, an integer where it is whole: `${multiply:${trainer.max_steps},0.01}` counts steps."""
    product: int | float = 1
    for factor in factors:
        product *= factor
    return int(product) if float(product).is_integer() else product


def expanduser(path: str) -> str:
    """Return the absolute path with `~` expanded; otherwise Hydra would make a folder called `~`."""
    return str(Path(path).expanduser().absolute())


# The interpolations that v1's files use besides `oc.env` and Hydra's `now`. OmegaConf 2.4
# registers resolvers with `register_resolver`, which is another function in 2.3.
_register: Any = (
    OmegaConf.register_new_resolver if omegaconf_version.startswith("2.3.") else OmegaConf.register_resolver
)
_register("multiply", multiply, replace=True)
_register("expanduser", expanduser, replace=True)
for _name, _resolver in RESOLVERS.items():
    _register(_name, _resolver, replace=True)

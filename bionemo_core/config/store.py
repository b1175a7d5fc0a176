"""Fills Hydra's store with every group through hydra-zen; the package has no YAML files.

A component is the node `group/distribution/name`, and also `group/name` unless that name is ambiguous. A node holds
the factory's parameters and the component's qualified name, but no `_target_`: the registry finds the factory.
No `from __future__ import annotations` here: OmegaConf reads these annotations at run time.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from hydra_zen import ZenStore
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

    This takes half a second, so nothing is done if the store still holds what this registry has put there.
    """
    global _filled
    if _filled and _filled[0] is registry and _filled[1] is ConfigStore.instance().repo.get(_PRIMARY_NODE):
        return
    store = ZenStore("bionemo", deferred_to_config=False, overwrite_ok=True)(to_config=lambda node: node)
    store(Primary, name=CONFIG_NAME)
    for group, schema in CORE_GROUPS.items():
        store(schema_node(schema, {}), group=group, name=DEFAULT_NODE)
    for registered in registry.components():
        node = _component_node(registered, _override_list(registered, registry))
        package = f"{registered.group}.{registered.name}" if registered.group in SEVERAL_AT_ONCE else None
        names = [registered.qualified_name]
        if registry.owner(registered.group, registered.name) is registered:
            names.append(registered.name)
        else:
            _put(store, registered.group, _list_name(registered), node, package)
        for name in names:
            _put(store, registered.group, name, node, package)
        for group, refined in _refined_nodes(registered, registry):
            store(refined, group=group, name=_list_name(registered))
    with warnings.catch_warnings():
        # Hydra 1.4 warns about each replaced entry; a process may fill the store several times.
        warnings.filterwarnings("ignore", message="ConfigStore config .* is already registered")
        store.add_to_hydra_store(overwrite_ok=True)
    _filled = registry, ConfigStore.instance().repo[_PRIMARY_NODE]


def _put(store: Any, group: str, name: str, node: type, package: str | None) -> None:
    folder, _, plain = name.rpartition("/")
    options = {} if package is None else {"package": package}
    store(node, group=f"{group}/{folder}" if folder else group, name=plain, **options)


def _list_name(registered: RegisteredComponent) -> str:
    """Return the name used in defaults lists, where Hydra 1.4 reads a slash as a group separator."""
    return registered.qualified_name.replace("/", "--")


def _component_node(registered: RegisteredComponent, overrides: list[Any]) -> type:
    keys = [ConfigKey(COMPONENT_KEY, str, registered.qualified_name), *fit_defaults(registered, registered.keys)]
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


def _refined_nodes(registered: RegisteredComponent, registry: Registry) -> Iterable[tuple[str, type]]:
    for group, values in effective_defaults(registered).items():
        if isinstance(values, str):
            continue
        if group in VALUE_GROUPS:
            yield group, schema_node(CORE_GROUPS[group], values)
        elif group in BASED_GROUPS:
            base = registry.get(group, str(values["base"]))
            keys = [ConfigKey(COMPONENT_KEY, str, base.qualified_name)]
            keys += fit_defaults(base, [key._replace(default=values.get(key.name, key.default)) for key in base.keys])
            yield group, structured_config(base.name, keys)


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

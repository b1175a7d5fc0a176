"""The components that can be chosen by name, and why some cannot."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from inspect import Parameter, signature
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from bionemo_core.errors import ConfigError
from bionemo_core.machine import home_path
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.plugins.discovery import find_plugins, find_refusals
from bionemo_core.plugins.hookspecs import GROUPS, PluginHooks, noun_of
from bionemo_core.plugins.loading import collect_components, load_plugin
from bionemo_core.plugins.records import (
    CORE_DISTRIBUTION,
    PluginRecord,
    RegisteredComponent,
    Status,
    normalize_name,
)
from bionemo_core.protocols import DataSplits, Tokenizer


class ChosenComponent(Protocol):
    """The choice of a component, as `build` needs it; `config.schema.Choice` is one."""

    @property
    def group(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def params(self) -> Mapping[str, Any]: ...

    @property
    def distribution(self) -> str: ...

    @property
    def version(self) -> str: ...


DefaultsCheck = Callable[[RegisteredComponent, "Registry"], str]
"""Returns what is wrong with a model's default values for the core's groups, or an empty text."""


class Registry:
    """Components by group and name. It is made once per process and never changes."""

    def __init__(self, records: tuple[PluginRecord, ...]) -> None:
        self._offers: dict[tuple[str, str], list[RegisteredComponent]] = {}
        for record in records:
            for component in record.components if record.usable else ():
                self._offers.setdefault((component.group, component.name), []).append(component)
        self.records = tuple(self._with_conflicts(record) for record in records)

    @classmethod
    def load(
        cls,
        core: ModuleType | None = None,
        *,
        core_version: str | None = None,
        environ: Mapping[str, str] | None = None,
        check_defaults: DefaultsCheck | None = None,
    ) -> "Registry":
        """Return a registry of the core's own components and those of every installed plugin.

        Args:
            core: the module with the core's own hooks.
            core_version: the version that plugins' requirements must admit; the installed version by default.
            environ: the variables, of which `BIONEMO_LOAD_PLUGINS` and `BIONEMO_BLOCK_PLUGINS` are read.
            check_defaults: a check of each model of a plugin; a plugin whose model has invalid defaults is rejected.

        Raises:
            ConfigError: the core's own components are invalid, which is a bug of the core.
        """
        if core_version is None:
            from bionemo_core._version import __version__

            core_version = __version__
        records = [] if core is None else [_core_record(core, core_version)]
        found = find_plugins()
        refused = find_refusals(found, os.environ if environ is None else environ, core_version)
        for position, plugin in enumerate(found):
            records.append(refused[position] if position in refused else load_plugin(plugin))
        if check_defaults is not None:
            alone = cls(tuple(records[:1]))
            records = [_with_checked_defaults(record, alone, check_defaults) for record in records]
        return cls(tuple(records))

    def components(self, group: str | None = None) -> list[RegisteredComponent]:
        """Return all components that can be chosen, conflicting ones included, sorted by name."""
        chosen = [one for key, offers in self._offers.items() if group in (None, key[0]) for one in offers]
        return sorted(chosen, key=lambda one: (one.group, one.name, one.distribution))

    def names(self, group: str) -> list[str]:
        """Return the choices of `group=`: plain names, and qualified names where two plugins offer the same name."""
        return sorted(
            one.name if self.owner(one.group, one.name) is one else one.qualified_name for one in self.components(group)
        )

    def owner(self, group: str, name: str) -> RegisteredComponent | None:
        """Return the component of the unqualified name, or None if no plugin or more than one offers it."""
        offers = self._offers.get((group, name), [])
        core = [one for one in offers if one.distribution == CORE_DISTRIBUTION]
        if core:
            return core[0]
        return offers[0] if len(offers) == 1 else None

    def find(self, group: str, name: str, near: str = "") -> RegisteredComponent | None:
        """Return the component of that name, or None; the distribution `near` is preferred if several offer it."""
        distribution, _, plain = name.rpartition("/")
        offers = self._offers.get((group, plain), [])
        for wanted in (distribution, near):
            if wanted:
                same = [one for one in offers if one.distribution == normalize_name(wanted)]
                if same or distribution:
                    return same[0] if same else None
        return self.owner(group, plain)

    def get(self, group: str, name: str) -> RegisteredComponent:
        """Return the component `name` of `group`; `name` may be `distribution/name`.

        Raises:
            ConfigError: no plugin offers it, or two do.
        """
        found = self.find(group, name)
        if found is None:
            raise ConfigError(self._explain_absence(group, name))
        return found

    def build(self, choice: ChosenComponent, **runtime: Any) -> Any:
        """Build the chosen component.

        Its factory receives the choice's parameters and the runtime arguments in its signature. A factory that is made
        of other components can take `registry`. A model gets the attribute `capabilities`, as its plugin declares them.

        Raises:
            ConfigError: the component does not exist, its parameters are invalid, a package that it needs is not
                installed, or its factory returns something else than such a component.
        """
        registered = self._of_choice(choice)
        settings = registered.complete(choice.params)
        if registered.group == "data":  # what a key names in a storage service is a file for its component
            settings = _stage_objects(settings, home_path(getattr(runtime.get("context"), "home", "")))
        factory = registered.factory
        itself = {"registry": self} if "registry" in signature(factory).parameters else {}
        try:
            built = factory(**settings, **_select_accepted(factory, runtime), **itself)
        except ModuleNotFoundError as error:
            where = f"{registered.group} {registered.qualified_name}"
            raise ConfigError(
                f"{where}: it needs the Python package {error.name!r}, which is not installed. "
                f"Install the dependencies of {registered.distribution}."
            ) from error
        _check_built(registered, built)
        if registered.group == "model" and not hasattr(built, "capabilities"):
            with suppress(AttributeError):  # it is no module, which the caller finds out
                built.capabilities = registered.component.capabilities  # what uses a model asks it, not the registry
        return built

    def changed_keys(self, choice: ChosenComponent) -> list[str]:
        """Return the parameters of a choice whose values are not the defaults of its component.

        Raises:
            ConfigError: the component does not exist.
        """
        defaults = {key.name: key.default for key in self._of_choice(choice).keys}
        return [name for name, value in choice.params.items() if value != defaults.get(name)]

    def failures(self) -> list[PluginRecord]:
        """Return the records of the plugins whose components cannot be used."""
        return [record for record in self.records if not record.usable]

    def _of_choice(self, choice: ChosenComponent) -> RegisteredComponent:
        if "/" in choice.name:
            return self.get(choice.group, choice.name)
        exact = self.find(choice.group, f"{choice.distribution}/{choice.name}")
        if exact is not None:
            return exact
        if choice.version:
            raise ConfigError(self._explain_absence(choice.group, f"{choice.distribution}/{choice.name}"))
        return self.get(choice.group, choice.name)

    def _explain_absence(self, group: str, name: str) -> str:
        if group not in GROUPS:
            return f"there is no group {group!r}.{did_you_mean(group, GROUPS)} Groups: {', '.join(GROUPS)}."
        offers = self._offers.get((group, name), [])
        if len(offers) > 1:
            return _explain_conflict(offers)
        known = self.names(group)
        qualified = [one.qualified_name for one in self.components(group)]
        message = (
            f"no {noun_of(group)} is called {name!r}.{did_you_mean(name, known if '/' not in name else qualified)} "
            f"Available: {', '.join(known) or 'none'}."
        )
        failed = self.failures()
        if failed:
            described = "; ".join(record.describe().removesuffix(".") for record in failed)
            message += f" Plugins that are not loaded: {described}."
        elif all(record.distribution == CORE_DISTRIBUTION for record in self.records):
            message += " Install a plugin that offers one, e.g. bionemo-esm."
        return message

    def _with_conflicts(self, record: PluginRecord) -> PluginRecord:
        if not record.usable or record.distribution == CORE_DISTRIBUTION:
            return record
        disputed = [one for one in record.components if self.owner(one.group, one.name) is not one]
        if not disputed:
            return record
        reason = " ".join(_explain_conflict(self._offers[one.group, one.name]) for one in disputed)
        return replace(record, status=Status.CONFLICTING, reason=reason)


def _explain_conflict(offers: list[RegisteredComponent]) -> str:
    group, name = offers[0].group, offers[0].name
    providers = " and ".join(f"{one.distribution} {one.version}" for one in offers)
    qualified = " or ".join(f"{group}={one.qualified_name}" for one in offers)
    if offers[0].distribution == CORE_DISTRIBUTION:
        qualified = " or ".join(f"{group}={one.qualified_name}" for one in offers[1:])
        return f"{noun_of(group)} {name!r} is the core's own; choose this one as {qualified}."
    return f"{noun_of(group)} {name!r} is offered by {providers}. Choose one as {qualified}."


def _core_record(core: ModuleType, version: str) -> PluginRecord:
    components = tuple(
        RegisteredComponent(group, component, CORE_DISTRIBUTION, version)
        # A test checks the core's components; checking them at every start takes as long as finding all plugins.
        for group, component in collect_components(core, PluginHooks, checked=False)
    )
    return PluginRecord("core", CORE_DISTRIBUTION, version, core.__name__, Status.OK, components=components)


def _with_checked_defaults(record: PluginRecord, core: Registry, check: DefaultsCheck) -> PluginRecord:
    seen: list[Mapping[str, Any]] = []  # the sizes of a model mostly share their defaults
    for component in record.components:
        if component.component.defaults in seen:
            continue
        seen.append(component.component.defaults)
        problem = check(component, core)
        if problem:
            return replace(record, status=Status.REJECTED, reason=problem, components=())
    return record


def _check_built(registered: RegisteredComponent, built: Any) -> None:
    """Check that a factory returned what its group needs.

    Raises:
        ConfigError: it did not; the message says what to return.
    """
    expected, fits = "what it builds", built is not None
    if registered.group == "model":
        expected = "a LightningModule, such as LanguageModule(network, objective, ...)"
        is_network = hasattr(built, "state_dict") and not hasattr(built, "configure_optimizers")
        fits = built is not None and not is_network
    elif registered.group == "tokenizer":
        expected, fits = "a bionemo_core.protocols.Tokenizer", isinstance(built, Tokenizer)
    elif registered.group == "data":
        expected, fits = "bionemo_core.protocols.DataSplits", isinstance(built, DataSplits)
    if not fits:
        where = f"{noun_of(registered.group)} {registered.qualified_name}"
        got = "None" if built is None else f"an object of the class {type(built).__name__}"
        raise ConfigError(f"{where}: its factory returned {got}. It must return {expected}.")


def _select_accepted(factory: Callable[..., Any], runtime: Mapping[str, Any]) -> dict[str, Any]:
    parameters = signature(factory).parameters
    if any(one.kind is Parameter.VAR_KEYWORD for one in parameters.values()):
        return dict(runtime)
    return {name: value for name, value in runtime.items() if name in parameters}


def _stage_objects(settings: Mapping[str, Any], home: Path) -> dict[str, Any]:
    from bionemo_core.io.staging import stage

    return {name: stage(value, f"data.{name}", home) for name, value in settings.items()}

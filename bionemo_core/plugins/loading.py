"""Imports one plugin and collects its components; any failure is stored in its record."""

import time
import traceback
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pluggy

from bionemo_core.errors import ConfigError
from bionemo_core.plugins.component import PLUGIN_API, Component
from bionemo_core.plugins.component_checks import check_component
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.plugins.discovery import FoundPlugin
from bionemo_core.plugins.hookspecs import GROUP_OF_HOOK, MAIN_HOOKS, PluginHooks
from bionemo_core.plugins.records import PluginRecord, RegisteredComponent, Status

PROJECT = "bionemo"
API_VARIABLE = "BIONEMO_PLUGIN_API"


class HookFailedError(Exception):
    """A hook of a plugin raised an exception, which is the cause of this one."""


def load_plugin(found: FoundPlugin) -> PluginRecord:
    """Import a plugin, call its hooks, and return its record."""
    began = time.perf_counter()
    record = _load(found)
    return replace(record, seconds=time.perf_counter() - began)


def _load(found: FoundPlugin) -> PluginRecord:
    try:
        plugin = found.entry_point.load()
    except (Exception, SystemExit) as error:  # a plugin may run any code at import, even sys.exit()
        return found.record(Status.BROKEN, f"import failed: {_summary(error)}", traceback.format_exc())
    api = getattr(plugin, API_VARIABLE, None)
    if api != PLUGIN_API:
        got = f"no {API_VARIABLE}" if api is None else f"{API_VARIABLE} = {api!r}"
        author = f"Its author writes {API_VARIABLE} = {PLUGIN_API} into the module that the entry point names."
        advice = author if api is None else f"Install a version of {found.distribution} made for this core."
        reason = f"it has {got}, expected {PLUGIN_API}. {advice}"
        return found.record(Status.INCOMPATIBLE, reason)
    try:
        components = collect_components(plugin, PluginHooks)
    except HookFailedError as error:
        return found.record(Status.BROKEN, str(error), traceback.format_exc())
    except (ConfigError, pluggy.PluginValidationError) as error:
        return found.record(Status.REJECTED, str(error), traceback.format_exc())
    registered = tuple(
        RegisteredComponent(group, component, found.distribution, found.version) for group, component in components
    )
    return replace(found.record(Status.OK), components=registered)


def collect_components(plugin: Any, hooks: type[PluginHooks], *, checked: bool = True) -> list[tuple[str, Any]]:
    """Return pairs of group and component that `plugin`'s hooks yield, and check each if `checked`.

    Raises:
        ConfigError: a hook is misspelt or not marked, or a component is invalid.
        HookFailedError: a hook raised an exception.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hooks)
    _check_hook_names(plugin, manager, [name for name in dir(hooks) if name in GROUP_OF_HOOK])
    manager.register(plugin)
    offered: list[tuple[str, Any]] = []
    seen: set[tuple[str, str]] = set()
    for caller in manager.get_hookcallers(plugin) or []:
        group = GROUP_OF_HOOK[caller.name]
        for implementation in caller.get_hookimpls():
            for component in _call_hook(implementation.function, caller.name):
                if checked:
                    _check(component, group, caller.name)
                if (group, component.name) in seen:
                    raise ConfigError(f"{caller.name}: {group} {component.name!r} is yielded twice")
                seen.add((group, component.name))
                offered.append((group, component))
    if not offered:
        raise ConfigError(f"it offers no component. Implement one of {', '.join(MAIN_HOOKS)} with @hookimpl.")
    return offered


def _check(component: Any, group: str, hook: str) -> None:
    try:
        check_component(component, group)
    except ConfigError as error:
        raise ConfigError(f"{hook}: {error}") from error


def _check_hook_names(plugin: Any, manager: pluggy.PluginManager, known: list[str]) -> None:
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        hook = (options and options.get("specname")) or name
        if options and hook not in known:
            raise ConfigError(f"unknown hook {hook!r}.{did_you_mean(hook, known)} Known hooks: {', '.join(known)}.")
        if not options and name in known and callable(getattr(plugin, name)):
            raise ConfigError(f"{name} is not marked with @hookimpl, so it would never be called. Mark it.")


def _call_hook(function: Any, hook: str) -> Iterable[Any]:
    try:
        result = function()
        if result is None:
            return ()
        if isinstance(result, Component):
            raise TypeError("returned a Component. Write yield in place of return")
        return list(result)
    except ConfigError:
        raise  # from `configure`, about a factory: the plugin is rejected, not broken
    except (Exception, SystemExit) as error:
        raise HookFailedError(f"{hook} raised {_summary(error)}") from error


def _summary(error: BaseException) -> str:
    first_line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__

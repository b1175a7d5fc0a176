"""The plugin under test, in a registry that holds only it and the core."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bionemo_core import _moved, builtin
from bionemo_core.config.model_defaults import problem_with_defaults
from bionemo_core.errors import ConfigError
from bionemo_core.plugins import PluginRecord, RegisteredComponent, Registry
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.plugins.discovery import LOAD_VARIABLE, FoundPlugin, find_plugins
from bionemo_core.plugins.hookspecs import noun_of
from bionemo_core.plugins.records import normalize_name

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from bionemo_core.config.schema import RunSpec


COMPOSED_GROUPS = ("model", "tokenizer", "data")
"""The groups of a run's configuration in which the class's `parameters` are set."""

BUILT_GROUPS = (*("connector", "callbacks", "head", "loss", "optim", "scheduler", "logger", "oracle", "augmentation"),)
"""The groups whose components the kit builds with the class's `parameters`."""


class ConformanceError(AssertionError):
    """A plugin does not do what the core and users rely on; the message tells its author what to change."""


@dataclass(frozen=True)
class KitSettings:
    """The author's settings; the attributes of `PluginConformance` under the same names."""

    plugin: str
    models: Sequence[str] | None = None
    small: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    steps: int = 16
    learning_rate: float = 2e-3


def __getattr__(name: str) -> Any:
    return _moved.find_renamed(__name__, name)


class Subject:
    """One plugin, as the checks need it; slow results are cached.

    Args:
        settings: the author's settings.
        folder: an empty folder for runs and prepared data.
    """

    def __init__(self, settings: KitSettings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.kept: dict[Any, Any] = {}
        """Results that several checks share, such as a training run."""

    @cached_property
    def found(self) -> FoundPlugin:
        """The plugin's entry point.

        Raises:
            ConformanceError: no installed distribution offers it.
        """
        wanted, plugins = normalize_name(self.settings.plugin), find_plugins()
        for names in ("distribution", "entry point"):
            for plugin in plugins:
                name = plugin.distribution if names == "distribution" else normalize_name(plugin.entry_point.name)
                if name == wanted:
                    return plugin
        known = [plugin.distribution for plugin in plugins]
        raise ConformanceError(
            f"no installed plugin is called {self.settings.plugin!r}.{did_you_mean(self.settings.plugin, known)} "
            f"Installed: {', '.join(known) or 'none'}. Give its distribution or entry point as `plugin`, declare the "
            'entry point in pyproject.toml under [project.entry-points."bionemo.plugins"], and install it, as in '
            "`pip install -e .`"
        )

    @property
    def distribution(self) -> str:
        """The name of the plugin's distribution.

        Raises:
            ConformanceError: it is not installed.
        """
        return self.found.distribution

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which another process finds this plugin, at the same place, and no other."""
        return {LOAD_VARIABLE: self.distribution, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    @cached_property
    def registry(self) -> Registry:
        """The registry of the core's components and this plugin's.

        Raises:
            ConformanceError: it is not installed.
        """
        environ = {LOAD_VARIABLE: self.distribution}
        return Registry.load(builtin, environ=environ, check_defaults=problem_with_defaults)

    @property
    def record(self) -> PluginRecord:
        """The outcome of loading the plugin.

        Raises:
            ConformanceError: it is not installed.
        """
        return next(record for record in self.registry.records if record.distribution == self.distribution)

    def components(self, group: str | None = None) -> list[RegisteredComponent]:
        """Return the plugin's components, in its own order.

        Raises:
            ConformanceError: the plugin cannot be used.
        """
        record = self.record
        if not record.usable:
            trace = f"\n{record.trace}" if record.trace else ""
            raise ConformanceError(f"{record.describe()}{trace}")
        return [one for one in record.components if group in (None, one.group)]

    def component(self, group: str, name: str) -> RegisteredComponent:
        """Return the plugin's component of that name.

        Raises:
            ConformanceError: the plugin has no such component.
        """
        offered = {one.name: one for one in self.components(group)}
        if name not in offered:
            raise ConformanceError(
                f"{self.distribution} offers no {noun_of(group)} {name!r}.{did_you_mean(name, offered)} "
                f"It offers: {', '.join(offered) or 'none'}."
            )
        return offered[name]

    def parameters(self, registered: RegisteredComponent) -> dict[str, Any]:
        """Return the author's values for a component, including `small` for a model."""
        own_model = registered.group == "model" and registered.distribution == self.distribution
        small = dict(self.settings.small) if own_model else {}
        key = f"{registered.group}/{registered.name}"
        return {**small, **self.settings.parameters.get(key, {})}

    def build(self, registered: RegisteredComponent, **runtime: Any) -> Any:
        """Build the component with the author's values.

        Raises:
            ConformanceError: the factory refuses the values, or fails.
        """
        from bionemo_core.config.schema import Choice

        key = f"{registered.group}/{registered.name}"
        given = self.parameters(registered)
        choice = Choice(registered.group, registered.name, given, registered.distribution, registered.version)
        try:
            return self.registry.build(choice, **runtime)
        except ConfigError as error:
            raise ConformanceError(
                f"{registered.group} {registered.name!r} cannot be built with {given or 'its defaults'}: {error} "
                f"Give values that work as `parameters = {{{key!r}: {{...}}}}` in the test class."
            ) from error
        except Exception as error:
            raise failure_of(f"{registered.group} {registered.name!r}: its factory", error) from error

    def compose(self, model: str, *overrides: str) -> "DictConfig":
        """Return the configuration that `bionemo-run model=<model>` composes with the overrides.

        Raises:
            ConformanceError: the configuration does not compose.
        """
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        words = [f"model={self.distribution}/{model}", *overrides, *self.settings.overrides]
        key = ("composed", *words)
        if key in self.kept:
            return deepcopy(self.kept[key])
        try:
            with _open_composer(self.registry) as composer:
                config = composer(words)
                self._fill_in(config)
        except (ConfigError, HydraException, OmegaConfBaseException) as error:
            raise ConformanceError(
                f"model {model!r} does not compose with {' '.join(words)}: {_first_lines(error)} "
                "Correct its `defaults`, or the class's `overrides`, `small` or `parameters`."
            ) from error
        self.kept[key] = config
        return deepcopy(config)

    def _fill_in(self, config: "DictConfig") -> None:
        """Set the author's values of the chosen components, of this plugin or of the core."""
        from omegaconf import OmegaConf

        from bionemo_core.config.store import COMPONENT_KEY

        self.check_parameter_names()
        for group in COMPOSED_GROUPS:
            node = config[group]
            registered = self.registry.get(group, node[COMPONENT_KEY]) if node else None
            for name, value in self.parameters(registered).items() if registered else ():
                OmegaConf.update(config, f"{group}.{name}", value, merge=False)

    def check_parameter_names(self) -> None:
        """Check that each key of the class's `parameters` names a component that takes them.

        Raises:
            ConformanceError: one does not, so that its values would have no effect.
        """
        groups = (*COMPOSED_GROUPS, *BUILT_GROUPS)
        known = [f"{group}/{one.name}" for group in groups for one in self.registry.components(group)]
        for key in self.settings.parameters:
            if key not in known:
                raise ConformanceError(
                    f"`parameters` names {key!r}, which is no component of {self.distribution} or the core."
                    f"{did_you_mean(key, known)} Its keys are GROUP/NAME with a group of {', '.join(groups)}; set "
                    "values of other groups in `overrides`."
                )

    def spec(self, config: "DictConfig") -> "RunSpec":
        """Return the run that a composed configuration describes.

        Raises:
            ConformanceError: the configuration does not describe a valid run.
        """
        from bionemo_core.config.spec import make_spec

        try:
            return make_spec(config, self.registry)
        except ConfigError as error:
            raise ConformanceError(
                f"model {config.model._component_!r} composes, but not to a valid run: {error} Name what the "
                "model needs from other groups in its `defaults`. Give the tests values for keys of model, tokenizer "
                "and data that have no default as `parameters = {'GROUP/NAME': {...}}`, and for others in `overrides`."
            ) from error


def failure_of(what: str, error: BaseException) -> ConformanceError:
    """Return an error about a failure of the plugin's code; raise it from `error`, whose traceback shows the place."""
    return ConformanceError(f"{what} failed with {type(error).__name__}: {_first_lines(error)}")


@contextmanager
def explain_failures(what: str) -> Iterator[None]:
    """Turn an exception of the plugin's code inside the block into a failed check; `what` says what was done there.

    Raises:
        ConformanceError: the block raised it, or another exception.
    """
    try:
        yield
    except ConformanceError:
        raise
    except Exception as error:
        raise failure_of(what, error) from error


def fail(message: str) -> NoReturn:
    """Fail a check with a message.

    Raises:
        ConformanceError: always.
    """
    raise ConformanceError(message)


def _first_lines(error: BaseException, limit: int = 3) -> str:
    return " ".join(str(error).splitlines()[:limit])


@contextmanager
def _open_composer(registry: Registry) -> Iterator[Callable[[list[str]], "DictConfig"]]:
    """Yield a composer with this registry's configurations, and restore Hydra's store afterwards."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    from bionemo_core.config.hydra_session import composer
    from bionemo_core.config.store import fill_store

    Plugins.instance()  # the first call puts Hydra's own launcher and sweeper into the store
    store = ConfigStore.instance()
    before = _folders(store.repo)
    try:
        fill_store(registry)
        with composer() as compose:
            yield compose
    finally:
        store.repo = before


def _folders(repo: dict[str, Any]) -> dict[str, Any]:
    return {name: _folders(entry) if isinstance(entry, dict) else entry for name, entry in repo.items()}

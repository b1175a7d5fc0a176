"""Checks of what a user types: typed parameters, defaults that are there, configurations that survive a file."""

from inspect import Parameter, signature
from typing import Any

from bionemo_core.errors import BioNeMoError, ConfigError
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.plugins.configure import NO_VALUE
from bionemo_core.protocols import RUNTIME_ARGUMENTS
from bionemo_core.testing.subject import Subject, fail

PLAIN = (bool, int, float, str)
NOT_A_NUMBER = "a word"
_PLAIN_ADVICE = "Parameters are plain values: numbers, words, lists and mappings with words as keys."


def check_parameters(subject: Subject, registered: RegisteredComponent) -> None:
    """Accept a component whose every parameter is typed and taken by its factory.

    Raises:
        ConformanceError: names the parameter.
    """
    where = f"{registered.group} {registered.name!r}"
    try:
        factory = registered.factory
    except ConfigError as error:
        fail(f"{where}: {error} Give `Component` what configure(factory) returns.")
    taken = signature(factory).parameters
    takes_any = any(one.kind is Parameter.VAR_KEYWORD for one in taken.values())
    for name, kind, default in registered.keys:
        if name not in taken and not takes_any:
            fail(
                f"{where}: the configuration has a key {name!r} that the factory {factory.__qualname__} does not "
                f"accept; it accepts {', '.join(taken) or 'nothing'}. Make the configuration with configure(factory)."
            )
        _check_typed(where, name, kind, default, taken.get(name))
    _check_reachable(where, factory.__qualname__, taken, {key.name for key in registered.keys})
    _check_enforced(where, registered, subject)


def _check_typed(where: str, name: str, kind: Any, default: Any, parameter: Parameter | None) -> None:
    if kind is not Any:
        return
    annotation = parameter.annotation if parameter is not None else Any
    if annotation in (Any, "Any") and not (isinstance(default, PLAIN) and default != NO_VALUE):
        return  # said to be anything, and nothing says otherwise
    said = "has no type" if annotation is Parameter.empty else f"is annotated {annotation!r}, which became Any"
    fail(
        f"{where}: the parameter {name!r} {said}, so {name}=typo would reach the model unchecked. Annotate it with "
        "int, float, str, bool, a list or mapping of these, or X | None, imported at the top of the module (not below "
        "TYPE_CHECKING), and leave out the factory's return annotation if that does not resolve there."
    )


def _check_reachable(where: str, factory: str, taken: Any, keys: set[str]) -> None:
    for name, parameter in taken.items():
        named = parameter.kind not in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
        if named and parameter.default is Parameter.empty and name not in keys and name not in RUNTIME_ARGUMENTS:
            fail(
                f"{where}: the factory {factory} needs {name!r}, which is neither a key of its configuration nor one "
                f"of what the core passes ({', '.join(RUNTIME_ARGUMENTS)}). Make the configuration with "
                "configure(factory)."
            )


def _check_enforced(where: str, registered: RegisteredComponent, subject: Subject) -> None:
    """Check that a word in place of a number is refused before the factory is called."""
    given = subject.settings.parameters.get(f"{registered.group}/{registered.name}", {})
    for name, _, default in registered.keys:
        if type(default) not in (bool, int, float):
            continue
        try:
            registered.complete({**given, name: NOT_A_NUMBER})
        except ConfigError as error:
            if name in str(error) or NOT_A_NUMBER in str(error):
                continue
        fail(f"{where}: {name}={NOT_A_NUMBER!r} is accepted where the default is {default!r}. Give it a type.")


def check_defaults(subject: Subject, registered: RegisteredComponent) -> None:
    """Accept a model whose tokenizer, data and recipe exist with this plugin and the core alone, and that composes.

    Raises:
        ConformanceError: names what it brings along and nobody offers, or what is missing.
    """
    from omegaconf import OmegaConf

    from bionemo_core.config.model_defaults import missing_defaults

    for group, name in missing_defaults(registered, subject.registry):
        known = subject.registry.names(group)
        fail(
            f"model {registered.name!r} brings {group} {name!r}, which neither {subject.distribution} nor the core "
            f"offers (they offer: {', '.join(known) or 'none'}). Offer it in this plugin, or bring another: a plugin "
            "cannot rely on a third one."
        )
    config = subject.composed(registered.name)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        fail(
            f"model {registered.name!r}: these have no value yet: {', '.join(missing)}. Give each parameter a default, "
            "or, if only a user can know it, a value for the tests in the class's `parameters` or `overrides`."
        )


def check_round_trip(subject: Subject, registered: RegisteredComponent) -> None:
    """Accept a model whose configuration is the same after YAML, and whose run is the same after JSON.

    Raises:
        ConformanceError: names the keys that differ, or the value that cannot be written.
    """
    from omegaconf import OmegaConf

    from bionemo_core.config.spec import composed_yaml, difference, from_json, to_json

    config = subject.composed(registered.name)
    where = f"model {registered.name!r}"
    try:
        read = OmegaConf.create(composed_yaml(config))
        typed = OmegaConf.merge(config, read)
        forms: list[Any] = [OmegaConf.to_container(one, resolve=False) for one in (config, read, typed)]
    except Exception as error:  # the YAML writer and reader each raise their own kinds
        fail(f"{where}: its configuration does not survive YAML: {type(error).__name__}: {error} {_PLAIN_ADVICE}")
    changed = [str(key) for key in forms[0] if any(form[key] != forms[0][key] for form in forms)]
    if changed:
        fail(f"{where}: after writing it as YAML and reading it back, {', '.join(changed)} differ. {_PLAIN_ADVICE}")
    spec = subject.spec(config)
    try:
        again = from_json(to_json(spec))
    except BioNeMoError as error:
        fail(f"{where}: its run does not survive JSON: {error} {_PLAIN_ADVICE}")
    if again != spec:
        keys = ", ".join(change.key for change in difference(spec, again))
        fail(f"{where}: after writing its run as JSON and reading it back, {keys or 'types'} differ. {_PLAIN_ADVICE}")

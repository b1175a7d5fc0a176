"""Checks of configurations: typed parameters, defaults that exist, and values that survive a file."""

from inspect import Parameter, signature
from typing import Any

from bionemo_core.errors import BioNeMoError, ConfigError
from bionemo_core.plugins import RegisteredComponent
from bionemo_core.plugins.configure import NO_VALUE
from bionemo_core.protocols import RUNTIME_ARGUMENTS
from bionemo_core.testing.subject import Subject, fail

PLAIN = (bool, int, float, str)
NOT_A_NUMBER = "a word"
_PLAIN_ADVICE = "Parameters must be plain values: numbers, text, lists, and mappings with text keys."


def check_parameters(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that every parameter of a component is typed and accepted by its factory.

    Raises:
        ConformanceError: a parameter is not; the message names it.
    """
    where = f"{registered.group} {registered.name!r}"
    try:
        factory = registered.factory
    except ConfigError as error:
        fail(f"{where}: {error} Give `Component` the result of configure(factory).")
    accepted = signature(factory).parameters
    takes_any = any(one.kind is Parameter.VAR_KEYWORD for one in accepted.values())
    for name, kind, default, _ in registered.keys:
        if name not in accepted and not takes_any:
            fail(
                f"{where}: the configuration has a key {name!r} that the factory {factory.__qualname__} does not "
                f"accept; it accepts {', '.join(accepted) or 'nothing'}. "
                "Make the configuration with configure(factory)."
            )
        _check_typed(where, name, kind, default, accepted.get(name))
    _check_reachable(where, factory.__qualname__, accepted, {key.name for key in registered.keys})
    _check_enforced(where, registered, subject)


def check_published(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that published weights have an address that can be opened, and that a connector writes the model.

    Raises:
        ConformanceError: they have not, or the names of the facts are empty.
    """
    from bionemo_core.interop.hub import is_address

    where, weights = f"model {registered.name!r}", registered.component.weights
    if weights is None:
        return
    if not is_address(weights.address):
        fail(f"{where}: its weights have the address {weights.address!r}, expected owner/model, ngc:// or https://.")
    if not (weights.family and weights.data and weights.objective):
        fail(f"{where}: its weights lack family, data or objective, which `bionemo-run models` shows.")
    connectors = [subject.build(one) for one in subject.components("connector")]
    if not any(registered.name in one.models for one in connectors):
        fail(
            f"{where}: it has published weights, but no connector of the plugin names it in `models`, so none reads it."
        )


def _check_typed(where: str, name: str, kind: Any, default: Any, parameter: Parameter | None) -> None:
    if kind is not Any:
        return
    annotation = parameter.annotation if parameter is not None else Any
    if annotation in (Any, "Any") and not (isinstance(default, PLAIN) and default != NO_VALUE):
        return  # declared as Any, and the default does not contradict it
    typing = "has no type" if annotation is Parameter.empty else f"is annotated {annotation!r}, which became Any"
    fail(
        f"{where}: the parameter {name!r} {typing}, so {name}=typo would reach the model unchecked. Annotate it with "
        "int, float, str, bool, a list or mapping of these, or X | None. Import annotations at the top of the module, "
        "not under TYPE_CHECKING, and leave out the factory's return annotation if it does not resolve there."
    )


def _check_reachable(where: str, factory: str, accepted: Any, keys: set[str]) -> None:
    for name, parameter in accepted.items():
        named = parameter.kind not in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
        if named and parameter.default is Parameter.empty and name not in keys and name not in RUNTIME_ARGUMENTS:
            fail(
                f"{where}: the factory {factory} needs {name!r}, which is neither a key of its configuration nor an "
                f"argument that the core passes ({', '.join(RUNTIME_ARGUMENTS)}). Make the configuration with "
                "configure(factory)."
            )


def _check_enforced(where: str, registered: RegisteredComponent, subject: Subject) -> None:
    """Check that text in place of a number is refused before the factory is called."""
    given = subject.settings.parameters.get(f"{registered.group}/{registered.name}", {})
    for name, _, default, _ in registered.keys:
        if type(default) not in (bool, int, float):
            continue
        try:
            registered.complete({**given, name: NOT_A_NUMBER})
        except ConfigError as error:
            if name in str(error) or NOT_A_NUMBER in str(error):
                continue
        fail(
            f"{where}: {name}={NOT_A_NUMBER!r} is accepted, but the default is {default!r}. "
            "Annotate the parameter with its type."
        )


def check_defaults(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a model composes, and that its defaults need no plugin but its own and the core.

    Raises:
        ConformanceError: a default does not exist, or a value is missing; the message names it.
    """
    from omegaconf import OmegaConf

    from bionemo_core.config.model_defaults import missing_defaults

    for group, name in missing_defaults(registered, subject.registry):
        known = subject.registry.names(group)
        fail(
            f"model {registered.name!r} needs {group} {name!r}, which neither {subject.distribution} nor the core "
            f"offers (they offer: {', '.join(known) or 'none'}). Offer it in this plugin, or choose another default: a "
            "plugin cannot rely on a third one."
        )
    config = subject.compose(registered.name)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        fail(
            f"model {registered.name!r}: these keys need a value: {', '.join(missing)}. Give each parameter a default "
            "or, if only a user can know it, give the tests a value: for keys of model, tokenizer and data as "
            "`parameters = {'GROUP/NAME': {...}}`, for others in `overrides`."
        )


def check_round_trip(subject: Subject, registered: RegisteredComponent) -> None:
    """Check that a configuration is the same after writing and reading YAML, and its run after JSON.

    Raises:
        ConformanceError: a key differs or cannot be written; the message names it.
    """
    from omegaconf import OmegaConf

    from bionemo_core.config.spec import composed_yaml, difference, from_json, to_json

    config = subject.compose(registered.name)
    where = f"model {registered.name!r}"
    try:
        read = OmegaConf.create(composed_yaml(config))
        typed = OmegaConf.merge(config, read)
        forms: list[Any] = [OmegaConf.to_container(one, resolve=False) for one in (config, read, typed)]
    except Exception as error:  # the YAML writer and reader each raise their own errors
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

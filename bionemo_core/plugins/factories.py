"""A factory function as a structured config, and back.

A config is a dataclass type as `hydra_zen.builds(factory, populate_full_signature=True)` makes one, and one made so is
accepted as well. Ours is made here because it keeps `X | None`, says when an annotation cannot be checked instead of
taking it for `Any`, and because importing hydra-zen would be half of the time that `bionemo-run --help` takes.
"""

import copy
import dataclasses
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import Parameter, signature
from types import SimpleNamespace
from typing import Any, get_type_hints

from bionemo_core.errors import ConfigError
from bionemo_core.protocols import RUNTIME_ARGUMENTS

TARGET = "_target_"
_FACTORY = "__bionemo_factory__"


def configure(factory: Callable[..., Any], **defaults: Any) -> Any:
    """A structured config of `factory`'s parameters, without those that the core passes at run time.

    `defaults` replace the signature's own: one factory serves several sizes of a model.

    Raises:
        ConfigError: A parameter takes any number of arguments, has an annotation that does not resolve, or a default
            names no parameter.
    """
    where = f"configure({_path(factory)})"
    parameters = {name: one for name, one in signature(factory).parameters.items() if name not in RUNTIME_ARGUMENTS}
    for name, one in parameters.items():
        if one.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD, Parameter.POSITIONAL_ONLY):
            raise ConfigError(f"{where}: parameter {name!r} must be a named one, so that it can be a key")
    for name in defaults:
        if name not in parameters:
            raise ConfigError(f"{where}: there is no parameter {name!r}; it has {', '.join(parameters) or 'none'}")
    kinds = _annotations(factory, parameters, where)
    fields: list[Any] = [(TARGET, str, dataclasses.field(default=_path(factory), init=False))]
    fields += [(name, kinds[name], _field(defaults.get(name, one.default))) for name, one in parameters.items()]
    return dataclasses.make_dataclass(
        f"Configured_{factory.__name__}", fields, namespace={_FACTORY: staticmethod(factory)}, kw_only=True
    )


def factory_of(config: Any) -> Callable[..., Any]:
    """The factory of a structured config, imported if it is only named.

    Raises:
        ConfigError: The name leads nowhere.
    """
    factory = getattr(config, _FACTORY, None)
    if factory is not None:
        return factory  # type: ignore[no-any-return]
    path = str(getattr(config, TARGET, ""))
    module_name, _, attribute = path.rpartition(".")
    try:
        found = getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"config: its factory {path!r} cannot be imported ({error})") from error
    if not callable(found):
        raise ConfigError(f"config: {path!r} is not a function")
    return found  # type: ignore[no-any-return]


def default_field(value: Any) -> Any:
    """A dataclass field with that default; a list or a mapping is copied for each instance."""
    if isinstance(value, list | dict | set):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(value))
    return dataclasses.field(default=value)


def _field(default: Any) -> Any:
    return dataclasses.field() if default is Parameter.empty else default_field(default)


def _annotations(factory: Callable[..., Any], parameters: Mapping[str, Parameter], where: str) -> dict[str, Any]:
    """The parameters' types. Only theirs: what `tokenizer` or the return is annotated with need not resolve here."""
    written = {name: Any if one.annotation is Parameter.empty else one.annotation for name, one in parameters.items()}
    holder = SimpleNamespace(__annotations__=written)
    namespace = getattr(factory, "__globals__", None) or vars(sys.modules[factory.__module__])
    try:
        return get_type_hints(holder, globalns=namespace)
    except Exception as error:  # evaluating a stranger's annotation can raise anything
        raise ConfigError(f"{where}: an annotation does not resolve ({type(error).__name__}: {error})") from error


def _path(factory: Callable[..., Any]) -> str:
    return f"{factory.__module__}.{factory.__qualname__}"

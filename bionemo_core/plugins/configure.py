"""A factory's parameters as the keys of a configuration.

`configure` turns each parameter of a signature into a key. A parameter that is annotated with a frozen dataclass
becomes the fields of that class, each a key of its own. `structured_config` makes a structured config of the keys with
hydra-zen, but only when Hydra composes: importing hydra-zen takes as long as all of `bionemo-run --help`.
"""

import copy
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from importlib import import_module
from inspect import Parameter, Signature, signature
from types import SimpleNamespace
from typing import Any, NamedTuple, Union, get_args, get_type_hints

from bionemo_core.errors import ConfigError
from bionemo_core.protocols import RUNTIME_ARGUMENTS
from bionemo_core.ranges import Range, split_range

TARGET = "_target_"
NO_VALUE = "???"
"""The default of a key that has none, as in OmegaConf."""

FITS_RUN = "fits_run"
UNFITTED = "unfitted"


class ConfigKey(NamedTuple):
    """One key of a component."""

    name: str
    type: Any
    default: Any = NO_VALUE
    limits: Range | None = None
    """The range of a number; None if its annotation declares none."""

    @property
    def field(self) -> Any:
        """The key as a new dataclass field; a default that is a list or a mapping is copied for each instance."""
        return default_field(self.default)


@dataclass(frozen=True)
class ComponentConfig:
    """The result of `configure`: a factory that takes its keys by name, and the keys."""

    factory: Callable[..., Any]
    """A function of every key and of the runtime arguments that the author's function has."""
    keys: tuple[ConfigKey, ...]
    explained_by: tuple[Any, ...]
    """The author's function and the dataclasses of its parameters: their docstrings and comments explain the keys."""
    fixed: tuple[str, ...] = ()
    not_null: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)

    def refine(self, **defaults: Any) -> "ComponentConfig":
        """Return the same factory with other defaults, for another size of a model.

        Raises:
            ConfigError: a name is not a key.
        """
        return configure(self.explained_by[0], fixed=self.fixed, not_null=self.not_null, **{**self.given, **defaults})

    def __call__(self, *first: Any, **given: Any) -> Any:
        """Call the factory; positional arguments are the first keys, and other keys have their defaults."""
        return self.factory(**dict(zip((key.name for key in self.keys), first, strict=False)), **given)

    def structured(self) -> type:
        """Return the structured config of the keys, made by hydra-zen."""
        return structured_config(getattr(self.factory, "__name__", "component"), self.keys)


def configure(
    factory: Callable[..., Any], *, fixed: Sequence[str] = (), not_null: Sequence[str] = (), **defaults: Any
) -> ComponentConfig:
    """Describe `factory` by its parameters, without those that the core passes at run time.

    Args:
        factory: a function, or a dataclass. A parameter that is annotated with a frozen dataclass becomes the fields
            of that class; the factory receives an instance of the dataclass.
        fixed: parameters or fields that are not keys; their value is in `defaults`, else it is their own default.
        not_null: keys that may not be null here, although their annotation admits None.
        **defaults: values that replace the signature's defaults, so that one factory serves several sizes of a model.

    Raises:
        ConfigError: a parameter is variadic or positional-only, an annotation does not resolve, two keys have the
            same name, or `fixed` or a default names no parameter.
    """
    where = f"configure({_path(factory)})"
    parameters = {name: one for name, one in signature(factory).parameters.items() if name not in RUNTIME_ARGUMENTS}
    for name, one in parameters.items():
        if one.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD, Parameter.POSITIONAL_ONLY):
            raise ConfigError(f"{where}: parameter {name!r} must be a plain named parameter, so that it can be a key")
    types = _annotations(factory, parameters, where)
    groups = {name: kind for name, kind in types.items() if _is_group(kind)}
    values = {name: NO_VALUE if one.default is Parameter.empty else one.default for name, one in parameters.items()}
    if isinstance(factory, type) and dataclasses.is_dataclass(factory):  # a signature hides default factories
        values |= {key.name: key.default for key in keys_of_dataclass(factory)}
    keys: dict[str, ConfigKey] = {}
    owners: dict[str, str] = {}
    for name in parameters:
        found = _group_keys(groups[name], where) if name in groups else [_key(name, types[name], values[name])]
        for key in found:
            if key.name in keys:
                raise ConfigError(
                    f"{where}: the key {key.name!r} comes from both {owners[key.name]!r} and {name!r}. Rename one."
                )
            keys[key.name], owners[key.name] = key, name
    for name in (*defaults, *fixed, *not_null):
        if name not in keys:
            raise ConfigError(f"{where}: there is no parameter {name!r}. It has: {', '.join(keys) or 'none'}.")
    keys = {name: key._replace(default=defaults.get(name, key.default)) for name, key in keys.items()}
    keys |= {name: keys[name]._replace(type=_without_none(keys[name].type)) for name in not_null}
    hidden = {name: keys.pop(name).default for name in fixed}
    for name, value in hidden.items():
        if isinstance(value, str) and value == NO_VALUE:
            raise ConfigError(f"{where}: {name!r} is fixed and has no value. Give it one.")
    taken = factory if not groups and not hidden else _flattened(factory, groups, owners, hidden, tuple(keys.values()))
    return ComponentConfig(
        taken, tuple(keys.values()), (factory, *groups.values()), tuple(fixed), tuple(not_null), defaults
    )


def structured_config(name: str, keys: Sequence[ConfigKey], *, hydra_defaults: Sequence[Any] | None = None) -> type:
    """Return a structured config with these keys, made by hydra-zen.

    Args:
        name: the name of the class.
        keys: the fields of the class.
        hydra_defaults: the entries of its defaults list.
    """
    from hydra_zen import ZenField, make_config

    fields = [ZenField(key.type, copy.deepcopy(key.default), key.name) for key in keys]
    defaults = None if hydra_defaults is None else list(hydra_defaults)
    # Nothing prints or compares the class, and the methods for that would take a quarter of the time to make.
    options: Any = {"cls_name": name.replace("-", "_"), "repr": False, "eq": False}
    config: Any = make_config(*fields, zen_dataclass=options, hydra_defaults=defaults)
    # hydra-zen replaces unions such as `int | None` and `float | str` by Any, which accepts every value. OmegaConf can
    # check them, so the annotations are put back.
    for key in keys:
        config.__annotations__[key.name] = config.__dataclass_fields__[key.name].type = key.type
    return config  # type: ignore[no-any-return]


def fits_run(steps: int) -> Any:
    """Return a dataclass field for a phase of a run, whose default is at most a tenth of the run.

    The default of the class, and that of a model's recipe, is shortened where `trainer.max_steps` is small; a value
    that the user gives never is. Code that makes an instance itself gets `steps`.
    """
    return dataclasses.field(default=steps, metadata={FITS_RUN: True})


def unfitted(name: str) -> Any:
    """Return a dataclass field with the default of the field `name` before it was fitted; None if the user gave it."""
    return dataclasses.field(default=None, metadata={UNFITTED: name})


def keys_of_dataclass(owner: type) -> tuple[ConfigKey, ...]:
    """Return the fields of a dataclass as keys."""
    found = dataclasses.fields(owner)  # type: ignore[arg-type]  # a class is one too
    return tuple(_field_key(one, one.type) for one in found if one.init and not one.name.startswith("_"))


def keys_of_config(config: Any) -> tuple[ConfigKey, ...]:
    """Return the keys of a component's config, which comes from `configure` or from hydra-zen's `builds`."""
    if isinstance(config, ComponentConfig):
        return config.keys
    return keys_of_dataclass(config)


def factory_of(config: Any) -> Callable[..., Any]:
    """Return the factory of a component's config; if the config holds only its name, import it.

    Raises:
        ConfigError: the name cannot be imported, or is not a function.
    """
    if isinstance(config, ComponentConfig):
        return config.factory
    path = str(getattr(config, TARGET, ""))
    module_name, _, attribute = path.rpartition(".")
    try:
        found = getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"config: the factory {path!r} cannot be imported ({error})") from error
    if not callable(found):
        raise ConfigError(f"config: {path!r} is not a function")
    return found  # type: ignore[no-any-return]


def default_field(value: Any) -> Any:
    """Return a dataclass field with that default; a list or a mapping is copied for each instance."""
    if isinstance(value, list | dict | set):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(value))
    return dataclasses.field(default=value)


def _flattened(
    factory: Callable[..., Any],
    groups: Mapping[str, type],
    owners: Mapping[str, str],
    fixed: Mapping[str, Any],
    keys: Sequence[ConfigKey],
) -> Callable[..., Any]:
    """Return a function that takes the keys, builds the dataclasses of them, and calls `factory`."""
    defaults = {key.name: key.default for key in keys if _signature_default(key) is not Parameter.empty}

    def build(**given: Any) -> Any:
        values = {**copy.deepcopy({**defaults, **fixed}), **given}
        arguments = {name: value for name, value in values.items() if owners.get(name, name) not in groups}
        for parameter, kind in groups.items():
            own = {name: values[name] for name, owner in owners.items() if owner == parameter and name in values}
            arguments[parameter] = kind(**own)
        return factory(**arguments)

    runtime = [one for name, one in signature(factory).parameters.items() if name in RUNTIME_ARGUMENTS]
    flat = [
        Parameter(key.name, Parameter.KEYWORD_ONLY, default=_signature_default(key), annotation=key.type)
        for key in keys
    ]
    build.__signature__ = Signature(  # type: ignore[attr-defined]  # read by `inspect.signature`
        [*flat, *(one.replace(kind=Parameter.KEYWORD_ONLY) for one in runtime)]
    )
    build.__module__, build.__qualname__, build.__doc__ = factory.__module__, factory.__qualname__, factory.__doc__
    build.__name__ = factory.__name__
    return build


def _signature_default(key: ConfigKey) -> Any:
    return Parameter.empty if isinstance(key.default, str) and key.default == NO_VALUE else key.default


def _without_none(kind: Any) -> Any:
    members = [member for member in get_args(kind) if member is not type(None)]
    return Union[tuple(members)] if members else kind  # noqa: UP007 - its members are known at run time only


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]  # every dataclass has them


def _group_keys(kind: type, where: str) -> Iterator[ConfigKey]:
    try:
        types = get_type_hints(kind, include_extras=True)
    except Exception as error:  # evaluating an annotation can raise anything
        raise ConfigError(f"{where}: an annotation of {kind.__name__} does not resolve ({error})") from error
    for one in dataclasses.fields(kind):  # type: ignore[arg-type]  # a class is one too
        if one.init:
            yield _field_key(one, types[one.name])


def _field_key(one: "dataclasses.Field[Any]", kind: Any) -> ConfigKey:
    if one.default is not MISSING:
        return _key(one.name, kind, one.default)
    if one.default_factory is not MISSING:
        return _key(one.name, kind, one.default_factory())
    return _key(one.name, kind, NO_VALUE)


def _key(name: str, kind: Any, default: Any) -> ConfigKey:
    """Return a key; a range in its annotation is taken out, because OmegaConf reads plain types."""
    plain, limits = split_range(kind)
    return ConfigKey(name, plain, default, limits)


def _annotations(factory: Callable[..., Any], parameters: Mapping[str, Parameter], where: str) -> dict[str, Any]:
    """Return the types of the parameters only: annotations of `tokenizer` or the return value need not resolve."""
    written = {name: Any if one.annotation is Parameter.empty else one.annotation for name, one in parameters.items()}
    holder = SimpleNamespace(__annotations__=written)
    namespace = getattr(factory, "__globals__", None) or vars(sys.modules[factory.__module__])
    try:
        return get_type_hints(holder, globalns=namespace, include_extras=True)
    except Exception as error:  # evaluating an annotation can raise anything
        raise ConfigError(f"{where}: an annotation does not resolve ({type(error).__name__}: {error})") from error


def _path(factory: Callable[..., Any]) -> str:
    return f"{factory.__module__}.{factory.__qualname__}"

"""From a composed configuration to a `RunSpec` of registry names and plain parameters, and to JSON and back."""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bionemo_core.config.batch_plan import refuse_unsupported
from bionemo_core.config.environment_values import check_environment_values
from bionemo_core.config.model_defaults import missing_defaults
from bionemo_core.config.safe_json import check_keys, check_type, choice_from, parse_json, refuse_unsafe
from bionemo_core.config.schema import CORE_GROUPS, LATER_SETTINGS, OPENED, SEVERAL_AT_ONCE, Choice, RunSpec
from bionemo_core.config.store import COMPONENT_KEY, Primary
from bionemo_core.config.task_spec import task_spec
from bionemo_core.config.value_checks import check_values, refuse_null_group
from bionemo_core.errors import ArtefactError, ConfigError
from bionemo_core.plugins import Registry
from bionemo_core.plugins.did_you_mean import did_you_mean
from bionemo_core.plugins.hookspecs import noun_of

FORMAT = "bionemo-run/run-spec"
FORMAT_VERSION = 1
SINGLE_GROUPS = ("task", "model", "tokenizer", "data", "optim", "scheduler")
_FIELD_OF_GROUP = {"logger": "loggers", "callbacks": "callbacks"}
"""The field of `RunSpec` for each group of which several components are chosen at once."""
_SCALARS = {"name": str, "home": str, "seed": int, "restore_from_path": (str, type(None)), "resume": (str, type(None))}


class Change(NamedTuple):
    """A key whose value differs between two runs."""

    key: str
    old: Any
    new: Any


def make_spec(config: DictConfig, registry: Registry) -> RunSpec:
    """Return the run that a composed configuration describes, with every interpolation resolved.

    Raises:
        ConfigError: a value is missing, out of range or cannot be resolved, or a component does not exist.
    """
    for group in CORE_GROUPS:
        if config.get(group) is None:
            refuse_null_group(group)
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise ConfigError(f"these keys need a value: {', '.join(missing)}. Give each as KEY=VALUE.")
        check_environment_values(OmegaConf.to_container(config, resolve=False))
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(plain, dict)
    content = {str(key): value for key, value in plain.items()}
    _check_added_keys(content, composed_yaml(config))
    singles = {group: _optional_choice(group, content.get(group), registry) for group in (*SINGLE_GROUPS, "connector")}
    _refuse_own_parts(singles, content["restore_from_path"], registry)
    _add_placeholders(singles, content["restore_from_path"] or content["resume"], registry)
    _check_choices(singles, registry)
    parts: dict[str, Any] = {group: choice for group, choice in singles.items() if choice is not None}
    parts |= {group: schema(**content[group]) for group, schema in CORE_GROUPS.items()}
    for group, field in _FIELD_OF_GROUP.items():
        nodes = (content.get(group) or {}).values()
        parts[field] = tuple(_choice_of(group, node, registry) for node in nodes)
    spec = RunSpec(
        name=content["name"] or _name_of(parts["task"], parts["model"]),
        home=_home_folder(content["home"]),
        seed=content["seed"],
        restore_from_path=content["restore_from_path"],
        resume=content["resume"],
        **parts,
    )
    refuse_unsafe(dataclasses.asdict(spec), "", ConfigError)
    check_values(spec)
    refuse_unsupported(spec)
    check_capabilities(spec, registry)
    return spec


def check_capabilities(spec: RunSpec, registry: Registry) -> None:
    """Check that the model of a run can do what the run asks for.

    Raises:
        ConfigError: the run asks for packing, tensor or pipeline parallelism, and the model does not declare it.
    """
    if spec.model.name == OPENED:
        return
    registered = registry.get("model", spec.model.qualified_name)
    wanted = {
        "packing": (spec.batch.packing, "batch.packing=true", "batch.packing=false"),
        "tensor_parallel": (
            spec.parallel.tensor_model_parallel_size > 1,
            f"parallel.tensor_model_parallel_size={spec.parallel.tensor_model_parallel_size}",
            "parallel.tensor_model_parallel_size=1",
        ),
        "pipeline_parallel": (
            spec.parallel.pipeline_model_parallel_size > 1,
            f"parallel.pipeline_model_parallel_size={spec.parallel.pipeline_model_parallel_size}",
            "parallel.pipeline_model_parallel_size=1",
        ),
    }
    for capability, (requested, override, replacement) in wanted.items():
        if requested and capability not in registered.component.capabilities:
            raise ConfigError(
                f"model {registered.qualified_name} does not declare {capability!r}, which {override} needs. "
                f"Use {replacement}."
            )


def to_json(spec: RunSpec) -> str:
    """Return the run as JSON, the same text for the same run.

    Raises:
        ConfigError: a parameter is not a plain value.
    """
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **dataclasses.asdict(spec)}
    try:
        return json.dumps(content, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the run cannot be written as JSON: {error}") from error


def from_json(text: str) -> RunSpec:
    """Return the run that `to_json` wrote; nothing in the text is resolved, looked up or called.

    Raises:
        ArtefactError: it is not such a text, has unknown or missing keys, or holds `_target_` or `${...}`.
    """
    content = parse_json(text, "run specification")
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise ArtefactError(f"run specification: expected an object with format {FORMAT!r}")
    version = content.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ArtefactError(f"run specification: got format_version {version!r}, expected {FORMAT_VERSION}")
    refuse_unsafe(content, "", ArtefactError)
    check_keys(content, [one.name for one in dataclasses.fields(RunSpec)], "run specification")
    for key, kinds in _SCALARS.items():
        check_type(content[key], kinds, f"run specification: {key}")
    parts: dict[str, Any] = {key: content[key] for key in _SCALARS}
    parts |= {group: choice_from(content[group], group, f"run specification: {group}") for group in SINGLE_GROUPS}
    if content["connector"] is not None:
        parts["connector"] = choice_from(content["connector"], "connector", "run specification: connector")
    for group, field in _FIELD_OF_GROUP.items():
        parts[field] = _choices_from(content[field], field, group)
    parts |= {group: _schema_from(content[group], group, schema) for group, schema in CORE_GROUPS.items()}
    spec = RunSpec(**parts)
    try:
        check_values(spec)
    except ConfigError as error:
        raise ArtefactError(f"run specification: {error}") from error
    return spec


def difference(old: RunSpec, new: RunSpec) -> list[Change]:
    """Return the keys whose values differ, in the order of the specification and dotted as on the command line."""
    before, after = _flat(dataclasses.asdict(old)), _flat(dataclasses.asdict(new))
    absent = "(absent)"
    keys = [*before, *(key for key in after if key not in before)]
    return [
        Change(key, before.get(key, absent), after.get(key, absent))
        for key in keys
        if before.get(key, absent) != after.get(key, absent)
    ]


def composed_yaml(config: DictConfig) -> str:
    """Return the composed configuration as YAML; interpolations are not resolved, so it holds no environment values."""
    return OmegaConf.to_yaml(config, resolve=False)


def explain(error: OmegaConfBaseException) -> str:
    """Return the first line of OmegaConf's message with the key and, for an unset variable, what to do."""
    first_line = str(error).splitlines()[0]
    key = f"{error.full_key}: " if getattr(error, "full_key", None) else ""
    if "Environment variable" in first_line:
        first_line += ". Set it, or give a default: ${oc.env:NAME,default}"
    return f"{key}{first_line}"


def _check_added_keys(content: Mapping[str, Any], text: str) -> None:
    """Refuse keys, added as with `+KEY=VALUE`, that nothing reads.

    A key of its own at the top may serve other values, which refer to it as `${KEY}`.
    """
    known = [one.name for one in dataclasses.fields(Primary)]
    for key in content:
        if key not in known and not re.search(rf"\$\{{{re.escape(key)}\b", text):
            close = did_you_mean(key, known)
            raise ConfigError(f"there is no key '{key}', and no value refers to ${{{key}}}.{close} Leave it out.")
    for group, schema in CORE_GROUPS.items():
        _refuse_unknown(content[group], [one.name for one in dataclasses.fields(schema)], group)


def _refuse_unknown(given: Iterable[str], known: Sequence[str], prefix: str) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(f"there is no key '{prefix}.{key}'.{did_you_mean(key, known)} Leave it out.")


def _home_folder(home: str) -> str:
    if "://" in home:
        raise ConfigError(f"home={home}: expected a folder on a disk, because runs replace files there in one step.")
    return str(Path(home).expanduser().absolute())


def _optional_choice(group: str, node: Any, registry: Registry) -> Choice | None:
    return None if not node else _choice_of(group, node, registry)


def _choice_of(group: str, node: Any, registry: Registry) -> Choice:
    if not isinstance(node, dict) or COMPONENT_KEY not in node:
        raise ConfigError(f"{group}: got the values {node!r} without a component. {_how_to_choose(group, registry)}")
    registered = registry.get(group, node[COMPONENT_KEY])
    params = {str(key): value for key, value in node.items() if key != COMPONENT_KEY}
    prefix = f"{group}.{registered.name}" if group in SEVERAL_AT_ONCE else group
    _refuse_unknown(params, [key.name for key in registered.keys], prefix)
    registered.check_ranges(params, prefix)
    return Choice(group, registered.name, params, registered.distribution, registered.version)


def _refuse_own_parts(singles: Mapping[str, Choice | None], source: str | None, registry: Registry) -> None:
    """Refuse model= and tokenizer= for a task that takes both from the model at `source`."""
    task = singles["task"]
    if task is None or not source or not task_spec(registry, task.qualified_name).opens_model:
        return
    for group in ("model", "tokenizer"):
        if choice := singles[group]:
            raise ConfigError(
                f"{group}={choice.name} and restore_from_path={source}: the stored model has its own {group}, so "
                f"task={task.name} takes no {group}=. Leave it out."
            )


def _add_placeholders(singles: dict[str, Choice | None], source: str | None, registry: Registry) -> None:
    """Put placeholders for the components that a task takes from the model that it opens."""
    task = singles["task"]
    if task is None or singles["model"] is not None:
        return
    needs = task_spec(registry, task.qualified_name)
    if not needs.needs_model:
        if singles["tokenizer"] is None:
            raise ConfigError(f"task={task.name}: neither model= nor tokenizer= is given. Give one of them.")
        singles["model"] = Choice("model", OPENED)
    if not needs.opens_model:
        return
    if not source:
        raise ConfigError(
            f"task={task.name}: no model is given. Give restore_from_path=PATH: a run folder, a checkpoint or "
            "an artefact."
        )
    singles["model"] = Choice("model", OPENED)
    singles["tokenizer"] = singles["tokenizer"] or Choice("tokenizer", OPENED)
    if needs.uses_run_data:
        singles["data"] = singles["data"] or Choice("data", OPENED)


def _name_of(task: Choice, model: Choice) -> str:
    return task.name if model.name == OPENED else model.name


def _check_choices(singles: Mapping[str, Choice | None], registry: Registry) -> None:
    model = singles["model"]
    if model is None:
        raise ConfigError(f"no model is chosen. {_how_to_choose('model', registry)}")
    absent = [group for group in SINGLE_GROUPS if singles[group] is None]
    if not absent:
        return
    opened = model.name == OPENED
    missing = [] if opened else missing_defaults(registry.get("model", model.qualified_name), registry)
    for group, name in missing:
        if group in absent:
            raise ConfigError(
                f"model {model.name!r} needs {noun_of(group)} {name!r}, which no loaded plugin offers. "
                f"{_how_to_choose(group, registry)}"
            )
    raise ConfigError(
        f"no {noun_of(absent[0])} is chosen, and model {model.name!r} has no default. "
        f"{_how_to_choose(absent[0], registry)}"
    )


def _how_to_choose(group: str, registry: Registry) -> str:
    return f"Choose one with {group}=NAME; available: {', '.join(registry.names(group)) or 'none'}."


def _choices_from(content: Any, field: str, group: str) -> tuple[Choice, ...]:
    check_type(content, list, f"run specification: {field}")
    return tuple(choice_from(one, group, f"run specification: {field}") for one in content)


def _schema_from(content: Any, group: str, schema: type) -> Any:
    known = [one.name for one in dataclasses.fields(schema)]
    check_keys(content, known, f"run specification: {group}", may_lack=LATER_SETTINGS.get(group, ()))
    try:
        typed = OmegaConf.merge(OmegaConf.structured(schema), content)
        plain = OmegaConf.to_container(typed, resolve=False)
    except OmegaConfBaseException as error:
        raise ArtefactError(f"run specification: {group}: {str(error).splitlines()[0]}") from error
    assert isinstance(plain, dict)
    return schema(**{str(key): value for key, value in plain.items()})


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves by dotted key. A choice's parameters are under its group, as on the command line."""
    if not isinstance(value, dict):
        return {prefix: value}
    if set(value) == {one.name for one in dataclasses.fields(Choice)}:
        return {
            prefix: value["name"],
            f"{prefix}.distribution": value["distribution"],
            f"{prefix}.version": value["version"],
            **{f"{prefix}.{key}": inner for key, inner in value["params"].items()},
        }
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        dotted = f"{prefix}.{key}" if prefix else key
        if isinstance(inner, list | tuple) and inner and all(isinstance(one, dict) for one in inner):
            for one in inner:
                flat.update(_flat(one, f"{dotted}.{one['name']}"))
        else:
            flat.update(_flat(inner, dotted))
    return flat

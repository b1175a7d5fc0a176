"""Reading a user's YAML: what cannot be read is named by file, line and column, and Hydra's own keys are refused."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bionemo_core.errors import ConfigError
from bionemo_core.io.exhaustion import chain_of

_OF_SWEEPS = ("hydra.mode", "hydra.sweeper", "hydra.launcher")
_TARGET = "_target_"


def read_yaml(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a file and its content, with interpolations as they are written.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, is not YAML of plain values, or is not a mapping.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = raw.count(b"\n", 0, error.start) + 1, error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        raise ConfigError(
            f"{path}:{line}:{column}: byte 0x{raw[error.start]:02x} is not UTF-8. Save the file as UTF-8."
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}.") from error
    content = None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None or isinstance(root, yaml.MappingNode):
            config = OmegaConf.create(text)
            content = OmegaConf.to_container(config, resolve=False) if isinstance(config, DictConfig) else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not readable as YAML: {_reason(error, text, mark).rstrip('.')}.") from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        if any(isinstance(one, RecursionError) for one in chain_of(error)):  # OmegaConf 2.4 wraps it
            raise ConfigError(f"{path}: not readable as YAML: it refers to itself, or is nested too deeply.") from error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{path}: not readable as YAML of plain values: {reason}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys with values, one per line, such as `seed: 1`.")
    return text, {str(key): value for key, value in content.items()}


def refuse_hydra_keys(content: Mapping[str, Any], package: str, path: Path) -> None:
    """Check that a file sets nothing of Hydra's but what belongs to sweeps, and names nothing to be called.

    Args:
        content: the content of the file, with its defaults list.
        package: the dotted key under which the content is put; empty for the top.
        path: the file, for messages.

    Raises:
        ConfigError: it does.
    """
    for key in _keys(content, package):
        if key.endswith(_TARGET):
            raise ConfigError(f"{path}: the key {key} is not allowed: a configuration names components, not functions.")
        if key.startswith("hydra") and not any(one == key or key.startswith(f"{one}.") for one in _OF_SWEEPS):
            raise ConfigError(
                f"{path}: the key {key} is not allowed: of Hydra's own keys a file may set {', '.join(_OF_SWEEPS)}."
            )
    for entry in content.get("defaults") or []:
        for name in entry if isinstance(entry, Mapping) else [entry]:
            chosen = str(name).replace("override ", "").replace("/", ".").strip(". ")
            into = chosen.partition("@")[2] or chosen
            if into.startswith("hydra") and not into.startswith(_OF_SWEEPS):
                raise ConfigError(f"{path}: defaults: {name} is not allowed: it is one of Hydra's own groups.")


def _keys(content: Any, prefix: str) -> Iterator[str]:
    """Yield the dotted key of every leaf."""
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            if prefix or key != "defaults":
                yield from _keys(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(content, list) and any(isinstance(one, Mapping) for one in content):
        for one in content:
            yield from _keys(one, prefix)
    elif prefix:
        yield prefix


def _reason(error: yaml.MarkedYAMLError, text: str, mark: Any) -> str:
    problem = error.problem or error.context or type(error).__name__
    if "another document" in problem:
        return "a second document begins here; keep one, and remove the line of three hyphens"
    line = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
    if "\t" in line[: (mark.column if mark else 0) + 1]:
        return f"{problem}; indent with spaces, not with tabs"
    if "python/" in problem:
        return f"{problem.partition(' for')[0]} for a Python object; write plain values only"
    return str(problem)

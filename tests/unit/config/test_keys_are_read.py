"""Every key has an effect: some code reads it, or another value than the default is refused."""

import ast
import dataclasses
import inspect
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import bionemo_core
from bionemo_core.builtin import load_registry
from bionemo_core.config.schema import CORE_GROUPS
from bionemo_core.errors import ConfigError
from bionemo_core.plugins.configure import ComponentConfig
from bionemo_core.protocols import RUNTIME_ARGUMENTS
from bionemo_core.tasks.settings import Embed

CORE = Path(bionemo_core.__file__).parent
NOT_READERS = (CORE / "config/schema.py", CORE / "config/value_checks.py", CORE / "config/batch_plan.py")
"""They declare or check the core's keys."""

NEUTRAL = {("parallel", "pipeline_model_parallel_size"): 2, ("parallel", "sequence_parallel"): True}
"""Keys of the core with one possible value, and a value that is refused."""


@cache
def names_read(path: Path) -> frozenset[str]:
    """Attributes and variables that a module reads, and texts of it that are names, as in `getattr`."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            found.add(node.value)
    return frozenset(found)


def modules_beside(owner: Any) -> list[Path]:
    """The modules of a plugin, or those of the folder of the core in which `owner` is."""
    package = Path(inspect.getfile(sys.modules[owner.__module__.partition(".")[0]])).parent
    folder = package / Path(inspect.getfile(owner)).relative_to(package).parts[0] if package == CORE else package
    return list(folder.rglob("*.py"))


def unread(owner: Any, modules: Sequence[Path]) -> list[str]:
    """The keys of a factory or a dataclass that nothing reads; those of a dataclass may be read in `modules`."""
    if dataclasses.is_dataclass(owner):
        read = frozenset().union(*(names_read(path) for path in modules))
        return [one.name for one in dataclasses.fields(owner) if one.name not in read]
    body = ast.parse(inspect.getsource(owner)).body[0]
    assert isinstance(body, ast.FunctionDef)
    loaded = {
        node.id
        for statement in body.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    keys = [name for name in inspect.signature(owner).parameters if name not in RUNTIME_ARGUMENTS]
    return [name for name in keys if name not in loaded]


def owners() -> list[Any]:
    configs = [one.component.config for one in load_registry().components()]
    found = [owner for config in configs if isinstance(config, ComponentConfig) for owner in config.explained_by]
    return sorted(set(found), key=lambda owner: f"{owner.__module__}.{owner.__qualname__}")


RECORDED = {"finetuned": ["base_weights"]}
"""Keys that only record where something comes from; `adapters` compares this one."""


@pytest.mark.parametrize("owner", owners(), ids=lambda owner: f"{owner.__module__}.{owner.__qualname__}")
def test_every_key_of_a_component_or_a_task_is_read(owner):
    assert unread(owner, modules_beside(owner)) == RECORDED.get(owner.__name__, [])


@pytest.mark.parametrize(
    ("group", "key"), [(group, one.name) for group, schema in CORE_GROUPS.items() for one in dataclasses.fields(schema)]
)
def test_every_key_of_the_core_is_read_or_has_one_value(spec_of, group, key):
    readers = [
        path
        for path in CORE.rglob("*.py")
        if path not in NOT_READERS and {key, group} <= names_read(path) | {schema_group(path)}
    ]
    if (group, key) in NEUTRAL:
        with pytest.raises(ConfigError, match=f"{group}.{key}"):
            spec_of("model=esm1nv_tiny", f"{group}.{key}={NEUTRAL[group, key]}")
    else:
        assert readers


def schema_group(path: Path) -> str:
    """The group whose dataclass a module names."""
    return next((group for group, schema in CORE_GROUPS.items() if schema.__name__ in names_read(path)), "")


@dataclasses.dataclass(frozen=True)
class Forgotten:
    """Two keys; the first has a name that tasks read."""

    kept: int = 1
    the_forgotten_one: int = 2


def uses_one(kept: int, the_forgotten_one: int) -> int:
    return kept


def test_a_forgotten_key_is_found():
    assert unread(uses_one, []) == ["the_forgotten_one"]
    assert unread(Forgotten, modules_beside(Embed)) == ["the_forgotten_one"]
